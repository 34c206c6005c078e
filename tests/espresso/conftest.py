"""What a submission asked of a recipe, it asked in a warm child: none may stay."""

import pytest

from crystalmath.preflight import inspector


@pytest.fixture(scope="module", autouse=True)
def _children_end():
    yield
    inspector.close()
