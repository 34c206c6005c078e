"""Parsl keeps the contract."""

import pytest

from crystalmath.testing import EngineUnderTest, RunnerContract


class TestParsl(RunnerContract):
    @pytest.fixture
    def engine(self):
        return EngineUnderTest(
            "parsl", options={"workers": 2}, workers=2, library="parsl", linger_s=30.0
        )
