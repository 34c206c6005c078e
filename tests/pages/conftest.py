"""Type in the commands of a page."""

import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from commands import ran

ROOT = Path(__file__).parents[2]


@pytest.fixture
def follow(home_server, with_quacc, tmp_path):
    """Type in a page's commands one after the other, and give what they printed."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    environment = {
        **os.environ,
        "CRYSTALMATH_HOME": str(home_server.home),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }

    def follow(page):
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        assert blocks
        script = "set -euo pipefail\n" + "".join(blocks)
        done = ran("bash", "-c", script, cwd=tmp_path, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return follow
