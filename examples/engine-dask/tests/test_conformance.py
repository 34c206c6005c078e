"""The Dask engine passes the conformance kit."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import psutil
import pytest

from crystalmath.testing import EngineUnderTest, RunnerContract

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def outage() -> Iterator[None]:
    """Stop the agents for a while: they do not answer."""
    agents = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it ends meanwhile
            if "crystalmath.engines.agent_process" in process.cmdline():
                agents.append(process)
    for process in agents:
        process.suspend()
    try:
        yield
    finally:
        for process in agents:
            with contextlib.suppress(psutil.NoSuchProcess):  # `stop` has ended it
                process.resume()


class TestDask(RunnerContract):
    """A cluster of our own, of two workers."""

    @pytest.fixture
    def engine(self) -> EngineUnderTest:
        """Name the engine and what it needs."""
        return EngineUnderTest(
            "dask", options={"workers": 2}, workers=2, library="distributed", outage=outage
        )
