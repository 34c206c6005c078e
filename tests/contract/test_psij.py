"""PSI/J keeps the contract, with its executor for this host."""

import pytest

from crystalmath.testing import EngineUnderTest, RunnerContract


class TestPsij(RunnerContract):
    @pytest.fixture
    def engine(self):
        # Each job is a fresh Python.
        return EngineUnderTest(
            "psij", options={"workers": 2}, workers=2, library="psij", turn_s=10.0, linger_s=30.0
        )
