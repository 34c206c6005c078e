"""Hundreds of lives in each run, thousands in CI (``CRYSTALMATH_LIVES=20000``)."""

import logging
import os

import pytest

from . import lives

# Read here: each test has none of the developer's settings.
LIVES = int(os.environ.get("CRYSTALMATH_LIVES", "300"))
REPLAYED = os.environ.get("CRYSTALMATH_LIFE")


@pytest.fixture(autouse=True)
def _quiet():
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_every_life_keeps_the_promises():
    lives.run_all([int(REPLAYED)] if REPLAYED else range(LIVES))
