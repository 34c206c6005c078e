"""The guide's batch engine keeps the contract on Slurm; `test_guide_batch.py` has it run there."""

import pytest

from crystalmath.testing import EngineUnderTest, RunnerContract


class TestBatchOnSlurm(RunnerContract):
    @pytest.fixture
    def engine(self):
        # Two nodes of two cores, and each job a fresh Python.
        return EngineUnderTest("batch", workers=4, linger_s=30.0)
