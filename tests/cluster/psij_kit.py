"""PSI/J keeps the contract on Slurm; `test_psij.py` has this run on the login node."""

from __future__ import annotations

import pytest

from crystalmath.testing import EngineUnderTest, RunnerContract


class TestPsijOnSlurm(RunnerContract):
    @pytest.fixture
    def engine(self):
        # Two nodes of two cores, and each job a fresh Python that imports quacc.
        clusters = {"slurm": {"scheduler": "slurm"}}
        return EngineUnderTest(
            "psij", clusters=clusters, workers=4, library="psij", turn_s=15.0, linger_s=30.0
        )
