"""The built-in engine keeps the contract."""

import pytest

from crystalmath.testing import EngineUnderTest, RunnerContract


class TestLocal(RunnerContract):
    @pytest.fixture
    def engine(self):
        return EngineUnderTest("local", options={"workers": 2}, workers=2, linger_s=30.0)
