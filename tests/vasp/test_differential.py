"""No job that runs is refused, and every job that dies for its POTCARs is: random jobs, both ways.

`cases` draws jobs (any recipe that there is, structures, parameters) and `trees` what they find
where the POTCARs should be; `truth` has quacc run them in a warm process, with the stand-in for
VASP; the verdict is asked for as a submission does. ``DIFFERENTIAL_CASES`` says how many.
"""

import os
import re
import sys
from pathlib import Path

import pytest

from commands import ran, restricted
from vasp.standin import install

pytestmark = pytest.mark.vasp

CASES = int(os.environ.get("DIFFERENTIAL_CASES", "100"))
#: What would change the jobs.
FAMILIES = ("VASP_", "QUACC_", "ASE_", "CRYSTALMATH_")


@pytest.mark.parametrize(
    ("named", "cases"),
    [
        ("variable", CASES),
        pytest.param("config", 40, marks=pytest.mark.by_turns),
        pytest.param("nothing", 20, marks=pytest.mark.by_turns),
    ],
)
def test_the_verdict_is_what_happens(named, cases, tmp_path, capsys):
    install(tmp_path / "bin")
    (tmp_path / "home").mkdir()
    command = (*restricted(), sys.executable, "-m", "vasp.differential", cases, tmp_path, named)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FAMILIES)}
    own = {"cwd": Path(__file__).parents[1], "env": kept | {"HOME": str(tmp_path / "home")}}
    done = ran(*command, **own, timeout=600 + 2 * cases)
    with capsys.disabled():
        print(f"\n{done.stdout}", end="")
    assert done.returncode == 0, done.stderr
    jobs, alive, died = (
        int(re.search(rf"^ *(\d+) {words}", done.stdout, re.MULTILINE)[1])
        for words in ("jobs of", "ran:", "died for their POTCARs:")
    )
    assert jobs == cases
    # Neither half is empty: it could not tell anything.
    assert died > cases / 10
    assert named == "nothing" or alive > cases / 10
