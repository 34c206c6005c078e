"""Hundreds of lives in each run, thousands in CI (``CRYSTALMATH_LIVES=20000``)."""

from __future__ import annotations

import logging
import os

import pytest

from . import lives

LIVES = int(os.environ.get("CRYSTALMATH_LIVES", "300"))


@pytest.fixture(autouse=True)
def _quiet():
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_every_life_keeps_the_promises():
    replayed = os.environ.get("CRYSTALMATH_LIFE")
    lives.run_all([int(replayed)] if replayed else range(LIVES))
