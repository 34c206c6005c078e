"""The Covalent engine keeps the contract, on a server that its user has started."""

import contextlib
import signal
import sys

import pytest
from covalent_server import Server

from crystalmath.testing import EngineUnderTest, RunnerContract

WORKERS = 2
# The supervisors inside the server's workers are not ours to end: they leave after 60 s.
LINGER_S = 120


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("covalent"), WORKERS) as server:
        yield server


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="`covalent start` runs no task on 3.13")
class TestCovalent(RunnerContract):
    @pytest.fixture
    def engine(self, server):
        @contextlib.contextmanager
        def outage():
            server.signal(signal.SIGSTOP)
            try:
                yield
            finally:
                server.signal(signal.SIGCONT)

        return EngineUnderTest(
            "covalent",
            options={"address": str(server.address)},
            workers=WORKERS,
            library="covalent",
            outage=outage,
            linger_s=LINGER_S,
        )
