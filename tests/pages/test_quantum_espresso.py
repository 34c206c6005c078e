"""`docs/quantum-espresso.md`, word by word, at a shell, with the real programs."""

import re
import shutil
from pathlib import Path

import pytest

from crystalmath.client import connect

PAGE = (Path(__file__).parents[2] / "docs/quantum-espresso.md").read_text(encoding="utf-8")
PSEUDO = Path("/usr/share/espresso/pseudo/Al.pz-vbc.UPF")

pytestmark = [
    pytest.mark.vasp,
    pytest.mark.skipif(
        shutil.which("pw.x") is None or not PSEUDO.exists(),
        reason="there is no pw.x, or not Debian's pseudopotentials: apt-get install "
        "quantum-espresso",
    ),
]


@pytest.mark.by_turns
def test_quantum_espresso(follow, home_server):
    (home_server.home / "config.toml").unlink()  # the page writes one
    said = follow("quantum-espresso.md")
    shown = re.findall(r"^```text\n(.*?)\n```$", PAGE, re.MULTILINE | re.DOTALL)
    *messages, when_it_fails = shown
    assert "crystalmath retry" in when_it_fails
    for text in messages:
        assert text in said
    assert re.search(r"^ +mixing_beta += 0\.5 +asked", said, re.MULTILINE)
    # The Fermi energy of the denser mesh.
    assert 8 < float(said.splitlines()[-1]) < 10
    with connect(start=False) as client:
        assert client.totals(labels={"project": "qe"})["completed"] == 4
