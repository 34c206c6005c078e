"""What a submission asked of a recipe, it asked in a warm child: none may stay."""

from __future__ import annotations

import pytest

from crystalmath.inspection import asking


@pytest.fixture(scope="module", autouse=True)
def _children_end():
    yield
    asking.close()
