"""Which of VASP's programs a job starts: what is found of it beforehand is what becomes of it.

Each job is run by quacc alone, too: those that are refused or warned of fail there, all others
complete.
"""

import json
import os
import sys

import pytest
from ase.build import bulk

from commands import ran
from crystalmath.models import Submission
from vasp import potcars, standin

pytestmark = [pytest.mark.vasp, pytest.mark.by_turns]

AL = bulk("Al", a=4.1, cubic=True)
ONE, SEVERAL = {"kpts": [1, 1, 1]}, {"kpts": [2, 2, 2]}
OFF = {"QUACC_VASP_USE_CUSTODIAN": "False"}
NCL = {"QUACC_VASP_CMD": "vasp_ncl"}
ALONE = {"QUACC_VASP_GAMMA_CMD": "vasp_ncl"}
BARELY = {"use_custodian": False}
SPIN_ORBIT = {"lsorbit": True}
#: What is on PATH, quacc's settings, parameters, and what is said of it.
JOBS = [
    ("std", OFF, ONE, "vasp_gam"),
    ("std", OFF, {"kspacing": 9.0}, "vasp_gam"),
    ("std", OFF, SEVERAL, None),
    ("std", {}, ONE, None),
    ("std", {}, {**ONE, **BARELY}, "vasp_gam"),
    ("std", {"QUACC_VASP_GAMMA_CMD": "vasp_std"}, {**ONE, **BARELY}, None),
    ("gam", {}, {**ONE, **BARELY}, None),
    ("gam", {}, {**SEVERAL, **BARELY}, "vasp_std"),
    ("gam", {}, ONE, None),
    ("gam", {}, SEVERAL, "vasp_std"),
    ("gam", {}, {**ONE, "loptics": True}, "vasp_std"),
    ("std gam ncl", {}, {**ONE, **BARELY}, None),
    ("std gam ncl", {}, {**SEVERAL, **SPIN_ORBIT}, "LSORBIT"),
    ("std gam ncl", {}, {**SEVERAL, "lnoncollinear": True}, "LNONCOLLINEAR"),
    ("std gam ncl", NCL, {**SEVERAL, **SPIN_ORBIT}, None),
    ("std gam ncl", NCL, {**SEVERAL, "lsorbit": False}, None),
    ("std gam ncl", NCL, {**ONE, **SPIN_ORBIT}, "vasp_gam"),
    ("std gam ncl", NCL, {**ONE, **SPIN_ORBIT, **BARELY}, "vasp_gam"),
    ("std gam ncl", {**NCL, **ALONE}, {**ONE, **SPIN_ORBIT, **BARELY}, None),
    ("std ncl", NCL, {**ONE, **SPIN_ORBIT}, None),
]
CODES = {"command_missing": "error", "command_collinear": "warning"}
#: Runs what stands in standard input with quacc, and tells of each whether it came to its end.
BARE = """
import json, os, sys
import quacc
from ase.build import bulk
from quacc.recipes.vasp.core import static_job
told = []
for path, settings, parameters in json.load(sys.stdin):
    os.environ["PATH"] = path
    changes = {name.removeprefix("QUACC_"): value for name, value in settings.items()}
    if "VASP_USE_CUSTODIAN" in changes:
        changes["VASP_USE_CUSTODIAN"] = False
    with quacc.change_settings(changes):
        try:
            static_job(bulk("Al", a=4.1, cubic=True), **parameters)
        except Exception as error:
            told.append(f"{type(error).__name__}: {error}")
        else:
            told.append(None)
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def environments(tmp_path_factory):
    """What each job sees."""
    root = tmp_path_factory.mktemp("started")
    potcars.library(root / "potcars", "Al")
    found = []
    for there, settings, *_ in JOBS:
        names = there.split()
        place = standin.install(root / "-".join(names), [f"vasp_{name}" for name in names])
        found.append(
            {
                "PATH": f"{place}:/usr/bin:/bin",
                "VASP_PP_PATH": str(root / "potcars"),
                "QUACC_VASP_CUSTODIAN_HANDLERS": "[]",
                **settings,
            }
        )
    return found


@pytest.fixture(scope="module")
def fates(environments, tmp_path_factory):
    asked = [
        (environment["PATH"], job[1], job[2])
        for environment, job in zip(environments, JOBS, strict=True)
    ]
    place = tmp_path_factory.mktemp("bare")
    own = {name: value for name, value in os.environ.items() if not name.startswith("QUACC_")}
    own |= {
        "VASP_PP_PATH": environments[0]["VASP_PP_PATH"],
        "QUACC_VASP_CUSTODIAN_HANDLERS": "[]",
        "QUACC_RESULTS_DIR": str(place),
        "QUACC_CONFIG_FILE": str(place / "none.yaml"),
    }
    command = (sys.executable, "-c", BARE)
    done = ran(*command, input=json.dumps(asked), env=own, cwd=place, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def found(service, environment, parameters, atoms=AL, recipe="core.static_job"):
    asked = Submission(
        recipe=f"quacc.recipes.vasp.{recipe}",
        atoms=atoms,
        parameters=parameters,
        environment=environment,
    )
    return [each for each in service.check(asked).findings if each.code in CODES]


@pytest.mark.parametrize("number", range(len(JOBS)), ids=lambda number: f"{number}-{JOBS[number]}")
def test_what_would_not_start_is_told_beforehand(service, environments, fates, number):
    *_, parameters, said = JOBS[number]
    told = found(service, environments[number], parameters)
    assert bool(told) == bool(fates[number]), (told, fates[number])
    if said is None:
        assert told == []
    else:
        (finding,) = told
        assert said in finding.message
        assert finding.severity == CODES[finding.code]


def test_of_a_flow_a_later_calculation_is_warned_of(service, environments):
    """It goes on from a cell that nobody knows yet."""
    flow = {"relax1_kwargs": {**SEVERAL, **BARELY}, "relax2_kwargs": {**ONE, **BARELY}}
    (finding,) = found(service, environments[3], flow, recipe="core.double_relax_flow")
    assert finding.severity == "warning"
    assert finding.message.endswith("is not on the PATH that the job sees, in step 2 of 2")


def test_structures_that_share_a_report_may_start_different_programs(service, environments):
    """The mesh of the preset has one point in a large cell."""
    large = bulk("Al", a=30.0, cubic=True)
    codes = [
        [each.code for each in found(service, environments[3], BARELY, atoms)]
        for atoms in (AL, large, AL, large)
    ]
    assert codes == [[], ["command_missing"], [], ["command_missing"]]
