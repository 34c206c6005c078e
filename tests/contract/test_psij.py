"""PSI/J keeps the contract, with its executor for this host."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from crystalmath.testing import EngineUnderTest, RunnerContract

LIGHT = Path(__file__).parents[1] / "light"


class TestPsij(RunnerContract):
    @pytest.fixture
    def engine(self):
        # Each job is a fresh Python.
        return EngineUnderTest(
            "psij", options={"workers": 2}, workers=2, library="psij", turn_s=10.0, linger_s=30.0
        )

    @pytest.fixture(autouse=True)
    def _imports_quacc_only_where_it_is_asked_for(self, request, monkeypatch):
        # Otherwise hundreds of processes would do so: seconds of computing each, half an hour.
        if "quacc" not in request.node.name:
            paths = [str(LIGHT), os.environ.get("PYTHONPATH", "")]
            monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
