"""A Covalent server that is started on request keeps the contract."""

from __future__ import annotations

import pytest

from crystalmath.testing import EngineUnderTest, RunnerContract


class TestCovalent(RunnerContract):
    @pytest.fixture
    def engine(self):
        return EngineUnderTest(
            "covalent", options={"autostart": True}, workers=2, library="covalent"
        )
