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
    """Return a function that types in a page's commands, and returns what they printed.

    Names that are different here, such as folders, may be replaced.
    """
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    environment = {
        **os.environ,
        "CRYSTALMATH_HOME": str(home_server.home),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }

    def follow(page, replaced=()):
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        assert blocks
        script = "set -euo pipefail\n" + "".join(blocks)
        for name, here in dict(replaced).items():
            script = script.replace(name, str(here))
        done = ran("bash", "-c", script, cwd=tmp_path, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return follow
