"""`docs/vasp.md`, word by word, at a shell, with a program in VASP's place."""

import re
from pathlib import Path

import pytest

from crystalmath.client import connect
from vasp import standin
from vasp.potcars import library

pytestmark = pytest.mark.vasp

PAGE = (Path(__file__).parents[2] / "docs/vasp.md").read_text(encoding="utf-8")


@pytest.mark.by_turns
def test_vasp(follow, home_server, tmp_path):
    (home_server.home / "config.toml").unlink()  # the page writes one
    standin.install(tmp_path / "bin")
    here = {
        "/opt/vasp/bin": tmp_path / "bin",
        "/opt/vasp/potcars": library(tmp_path / "potcars", "Al"),
        # Open MPI refuses to run as root, as tests may.
        "mpirun -np": "mpirun --allow-run-as-root --oversubscribe -np",
        # The stand-in has no electronic steps; it converges or does not.
        "nelm=3": "system=STANDIN_UNCONVERGED=1",
        "nelm=150": "system=Al",
    }
    said = follow("vasp.md", here)
    for text in re.findall(r"^```text\n(.*?)\n```$", PAGE, re.MULTILINE | re.DOTALL):
        assert text in said
    assert re.search(r"^ENCUT = 450\.0+ +asked \(preset: 520\)$", said, re.MULTILINE)
    assert re.search(r"^\(IVDW is left out\) +asked \(preset: 12\)$", said, re.MULTILINE)
    with connect(start=False) as client:
        for project, count in {"vasp": 1, "scaling": 2, "hard": 1}.items():
            assert client.totals(labels={"project": project})["completed"] == count
        (repaired,) = client.list(labels={"project": "hard"})
        assert repaired.parents
        ranks = [job.resources.ranks for job in client.list(labels={"project": "scaling"})]
    assert sorted(ranks) == [1, 2]
