"""Workers find quacc only where a test asks for it: each would import it for seconds."""

import os
from pathlib import Path

import pytest

LIGHT = Path(__file__).parents[1] / "light"


@pytest.fixture(autouse=True)
def _imports_quacc_only_where_it_is_asked_for(request, monkeypatch):
    if "quacc" not in request.node.name:
        paths = [str(LIGHT), os.environ.get("PYTHONPATH", "")]
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
