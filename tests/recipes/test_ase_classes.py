"""ASE's optimizers and dynamics, and numpy's generators, as parameters."""

import json

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.md.npt import NPT
from ase.optimize import BFGS, FIRE
from ase.optimize.precon import PreconLBFGS
from ase.optimize.sciopt import SciPyFminBFGS

from crystalmath.errors import InvalidJob
from crystalmath.models import Submission
from crystalmath.quacc import JobState, get_runner
from crystalmath.quacc.engines import close_all
from crystalmath.recipes import codec
from crystalmath.recipes.ase_classes import class_named, with_classes
from crystalmath.service import JobService

pytestmark = pytest.mark.processes

RELAX = "quacc.recipes.emt.core.relax_job"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("FIRE", FIRE),
        ("ase.optimize.FIRE", FIRE),
        ("ase.optimize.fire.FIRE", FIRE),
        ("NPT", NPT),
        ("ase.md.npt.NPT", NPT),
        ("SciPyFminBFGS", SciPyFminBFGS),
        ("ase.optimize.precon.PreconLBFGS", PreconLBFGS),
    ],
)
def test_a_class_by_its_name(name, found):
    assert class_named(name) is found


@pytest.mark.parametrize(
    "name",
    [
        *("os.system", "ase.optimize.test.x", "ase.md.no.X", "ase.optimize.RestartError"),
        *("ase.io.read", "ase.md.npt.np", "ase.optimize..FIRE", "", "ase.optimize.fire"),
    ],
)
def test_nothing_else_has_a_name(name):
    with pytest.raises(InvalidJob, match="no optimizer or dynamics of ase.optimize or ase.md"):
        class_named(name)


@pytest.mark.parametrize("value", [FIRE, NPT, PreconLBFGS], ids=lambda value: value.__name__)
def test_a_class_there_and_back(value):
    written = json.loads(json.dumps(codec.encode_request({"opt_params": {"optimizer": value}})))
    assert codec.decode_request(written) == {"opt_params": {"optimizer": value}}


@pytest.mark.parametrize("kind", ["PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"])
def test_a_generator_goes_on_where_it_was(kind):
    generator = np.random.Generator(getattr(np.random, kind)(7))
    generator.random(3)
    written = json.dumps(codec.encode_request(generator))
    again = codec.decode_request(json.loads(written))
    assert again.random(5).tolist() == generator.random(5).tolist()


@pytest.mark.parametrize(
    "value", [EMT, dict, int, np.random.RandomState(1), np.random.PCG64, InvalidJob]
)
def test_other_classes_are_refused(value):
    with pytest.raises(InvalidJob, match=r"^params\.a: .* cannot be part of a job"):
        codec.encode_request({"a": value})


@pytest.mark.parametrize(
    "tag",
    [
        {"@module": "os", "@callable": "system"},
        {"@module": "ase.optimize", "@callable": "RestartError"},
        {"@module": "ase.optimize", "@callable": "FIRE", "@bound": {"@module": "os"}},
        {"@module": "ase.optimize", "@callable": "FIRE", "more": 1},
        {"@module": "ase.optimize", "@callable": ["FIRE"]},
        {"@module": "numpy.random", "@class": "Generator", "state": {"bit_generator": "seed"}},
        {"@module": "numpy.random", "@class": "Generator", "state": {"bit_generator": "PCG64"}},
    ],
)
def test_tags_of_anything_else_are_refused(tag):
    with pytest.raises(InvalidJob, match=r"not permitted|no optimizer|cannot be read"):
        codec.decode_request(tag)


def test_texts_of_quaccs_recipes_become_classes():
    given = {"opt_params": {"optimizer": "FIRE", "fmax": 0.1}, "method": "FIRE"}
    found = with_classes(RELAX, {"job_params": {"relax_job": given}})
    assert found["job_params"]["relax_job"]["opt_params"] == {"optimizer": FIRE, "fmax": 0.1}
    assert found["job_params"]["relax_job"]["method"] == "FIRE"
    assert given["opt_params"]["optimizer"] == "FIRE"
    ensemble = {"dynamics": "nvt_langevin"}
    assert with_classes("quacc.recipes.emt.md.md_job", ensemble) == ensemble
    assert with_classes("quacc.recipes.emt.md.md_job", {"dynamics": "NPT"}) == {"dynamics": NPT}
    assert with_classes("mylab.relax", given) is given
    with pytest.raises(InvalidJob, match=r"opt_params\.optimizer: 'FIER' .* did you mean FIRE"):
        with_classes(RELAX, {"opt_params": {"optimizer": "FIER"}})


def _relaxed(optimizer):
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=1)
    atoms.calc = EMT()
    run = optimizer(atoms, logfile=None)
    run.run(fmax=0.05)
    return atoms.get_potential_energy()


def test_jobs_run_with_the_class_that_is_named(home):
    """Over the service by text and as a class, which is the same job, and through a runner."""
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=1)
    expected = _relaxed(FIRE)
    assert abs(expected - _relaxed(BFGS)) > 1e-9
    with JobService() as service:
        jobs = [
            service.submit(
                Submission(
                    recipe=RELAX,
                    atoms=atoms,
                    parameters={"opt_params": {"optimizer": optimizer, "fmax": 0.05}},
                    engine="local",
                    key="one",
                )
            )
            for optimizer in (FIRE, "FIRE", "ase.optimize.FIRE")
        ]
        assert len({job.job_id for job in jobs}) == 1
        (*_, last) = service.wait([jobs[0].job_id], timeout=120)
        assert last.state is JobState.COMPLETED, last.error
        assert last.summary["energy_ev"] == pytest.approx(expected, abs=1e-9)
    runner = get_runner("local")
    try:
        runner.submit(RELAX, atoms, opt_params={"optimizer": FIRE})
        with pytest.raises(InvalidJob, match="did you mean FIRE"):
            runner.submit(RELAX, atoms, opt_params={"optimizer": "FIER"})
    finally:
        close_all()
