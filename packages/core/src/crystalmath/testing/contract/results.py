"""What goes in reaches the recipe, and what it returns comes back, whole and unchanged."""

from __future__ import annotations

import datetime as dt
import hashlib
import time
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.optimize import BFGS

from crystalmath.quacc import JobState
from crystalmath.testing.contract.base import AL, Base
from crystalmath.testing.contract.busy_workers import behind_busy_workers
from crystalmath.testing.owner import RECIPES

if TYPE_CHECKING:
    from collections.abc import Callable

    from crystalmath.quacc.engine import EngineRunner
    from crystalmath.testing.contract.busy_workers import BusyWorkers
    from crystalmath.testing.oracle import Oracle
    from crystalmath.testing.subject import EngineUnderTest

#: How long the result of 50 MB may take, above what the engine takes for any job, in seconds.
LARGE_S = 90.0

TEXTS = {
    "plain": "Aluminium",
    "accents": "Å é ß \u0301",
    "emoji": "\U0001f9ea\U0001f468\u200d\U0001f52c",
    "right to left": "\u05d0\u05dc\u202e\u0627\u0644\u0645",
    "control": "tab\t line\n return\r nul\0 escape\x1b \u2028",
    "quotes": "\"'\\ {} % $HOME `x` <&>",
    "empty": "",
}

VALUES: dict[str, Any] = {
    "numbers": [0, -1, 2**70, 1.5, -0.0, 1e-308, 0.1 + 0.2, 1 - 2j],
    "truth": [True, False, None],
    "nested": {"a": [{"b": ({"c": [[], {}, ()]},)}]},
    "tuples": (1, (2, [3])),
    "sets": [{1, 2}, frozenset(("x",)), set()],
    "bytes": b"\0\xff",
    "path": Path("/somewhere/a file"),
    "dates": [dt.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=dt.UTC), dt.date(2026, 1, 2)],
    "keys": {1: "one", (2, 3): "pair", "@module": "os", "@class": "system", "": "empty"},
    "arrays": [np.eye(3), np.array([1 + 1j]), np.zeros((2, 0)), np.array(["a"])],
}

#: Names that somebody on the way may use for something of their own.
_TABLE = """
self cls recipe_fullname cluster_name recipe recipe_name cluster engine timeout walltime walltime_s
job_id key name labels environment parameters params args kwargs function func fn call spec document
directory attempt attempts handle header body result method resources executor callback retries
settings atoms_ structure symbol path cwd env id type state error value key_ deps_ pure workers
"""
NAMES = _TABLE.split()


class Results(Base):
    """Parameters, structures and results."""

    guide: ClassVar[str] = "What an engine is"

    def test_parameters_reach_the_recipe_and_come_back(
        self, submit: Callable[..., str], finish: Callable[..., Any]
    ) -> None:
        _, result = finish(submit("echo", **VALUES))
        _assert_same(result, {"symbols": ["Al"], **VALUES})

    def test_no_name_of_a_parameter_is_reserved(
        self, start: Callable[..., str], finish: Callable[..., Any]
    ) -> None:
        parameters = {name: f"the {name}" for name in NAMES}
        assert finish(start("echo", parameters))[1] == {"symbols": ["Al"], **parameters}

    def test_submit_passes_all_names_on(
        self, submit: Callable[..., str], finish: Callable[..., Any]
    ) -> None:
        """But for those that are its own and Python thus refuses."""
        own = {"self", "recipe_fullname", "atoms", "cluster_name"}
        parameters = {name: f"the {name}" for name in NAMES if name not in own}
        assert finish(submit("echo", **parameters))[1] == {"symbols": ["Al"], **parameters}

    def test_unicode(self, submit: Callable[..., str], finish: Callable[..., Any]) -> None:
        texts = {**TEXTS, "keys": {text: name for name, text in TEXTS.items()}}
        assert finish(submit("value", value=texts))[1] == texts

    def test_half_a_surrogate_pair_is_kept_or_refused(
        self, submit: Callable[..., str], finish: Callable[..., Any], oracle: Oracle
    ) -> None:
        before = oracle.jobs()
        try:
            job_id = submit("echo", text="\ud83e")
        except ValueError:
            assert oracle.jobs() == before
        else:
            assert finish(job_id)[1] == {"symbols": ["Al"], "text": "\ud83e"}

    def test_numpy(self, submit: Callable[..., str], finish: Callable[..., Any]) -> None:
        from crystalmath.testing.recipes import numbers

        _, result = finish(submit("numbers"))
        expected = numbers(AL)
        scalars, sent = result.pop("scalars"), expected.pop("scalars")
        assert scalars == sent
        _assert_same(result, expected)

    def test_atoms(self, runner: EngineRunner, finish: Callable[..., Any]) -> None:
        """As the structure, as a parameter, and in the result; nothing of them is dropped."""
        atoms, other = _rich_atoms(), bulk("Cu")
        job_id = runner.submit(f"{RECIPES}.structure", atoms, "local", other=other)
        _, result = finish(job_id)
        assert result["seen"] == {
            "symbols": list(atoms.symbols),
            "positions": atoms.positions.tolist(),
            "pbc": [True, True, False],
            "tags": [1, 0, 2],
            "magmoms": [2.5, -1.0, 0.0],
            "charges": [0.5, 0.0, -0.5],
            "fixed": [0, 2],
        }
        _assert_same_atoms(result["atoms"], atoms)
        _assert_same_atoms(result["other"], other)

    def test_the_structure_is_copied(
        self,
        runner: EngineRunner,
        blocked: Path,
        finish: Callable[..., Any],
    ) -> None:
        """What the caller does to it after the submission is not computed."""
        atoms = _rich_atoms()
        job_id = runner.submit(f"{RECIPES}.structure", atoms, "local")
        atoms.positions += 1.0
        atoms.symbols[0] = "Cu"
        atoms.set_constraint()
        atoms.info["note"] = "changed"
        atoms.arrays["initial_magmoms"][:] = 0.0
        del atoms[2]
        blocked.touch()
        _assert_same_atoms(finish(job_id)[1]["atoms"], _rich_atoms())

    def test_parameters_are_copied(
        self, submit: Callable[..., str], blocked: Path, finish: Callable[..., Any]
    ) -> None:
        numbers, deep = np.zeros(3), {"list": [1]}
        job_id = submit("value", value={"numbers": numbers, "deep": deep})
        numbers += 1.0
        deep["list"].append(2)
        blocked.touch()
        _assert_same(finish(job_id)[1], {"numbers": np.zeros(3), "deep": {"list": [1]}})

    @pytest.mark.parametrize(
        "value", [None, 7, 1.5, "text", True, [], [1, "a"], (1, 2), Path("/x"), b"x"], ids=repr
    )
    def test_what_is_no_dict_comes_as_value(
        self, submit: Callable[..., str], finish: Callable[..., Any], value: Any
    ) -> None:
        state, result = finish(submit("value", value=value))
        assert state is JobState.COMPLETED
        _assert_same(result, {"value": value})

    def test_an_empty_dict_comes_as_it_is(
        self, submit: Callable[..., str], finish: Callable[..., Any]
    ) -> None:
        assert finish(submit("value", value={})) == (JobState.COMPLETED, {})

    def test_a_result_of_50_mb(
        self, engine: EngineUnderTest, submit: Callable[..., str], finish: Callable[..., Any]
    ) -> None:
        begin = time.monotonic()
        limit = engine.start_s + 10 * engine.turn_s + LARGE_S
        state, result = finish(submit("large", megabytes=50), limit)
        assert state is JobState.COMPLETED
        assert time.monotonic() - begin < limit
        assert len(result["data"]) * 4 // 3 + result["array"].size * 5 >= 50 * 2**20 * 0.99
        assert hashlib.sha256(result["data"]).hexdigest() == result["digest"]
        assert int(result["array"].sum()) == result["sum"]

    @behind_busy_workers
    def test_no_result_before_the_end(
        self,
        engine: EngineUnderTest,
        runner: EngineRunner,
        submit: Callable[..., str],
        started: Callable[[str], None],
        finish: Callable[..., Any],
        shared: Path,
        busy_workers: BusyWorkers,
    ) -> None:
        """Neither of a job that runs nor of one that waits."""
        go = shared / "go"
        jobs = [submit("wait_for", path=str(go)) for _ in range(engine.workers)]
        for job_id in jobs:
            started(job_id)
        busy_workers.add(jobs)
        waiting = submit("echo")
        assert [runner.get_result(job_id) for job_id in [*jobs, waiting]] == [None] * (
            len(jobs) + 1
        )
        go.touch()
        for job_id in [*jobs, waiting]:
            state, result = finish(job_id)
            assert state is JobState.COMPLETED
            assert result is not None

    def test_a_result_stays_what_it_is(
        self, runner: EngineRunner, submit: Callable[..., str], finish: Callable[..., Any]
    ) -> None:
        """Whatever a caller does to what it was given."""
        job_id = submit("value", value={"list": [1]})
        _, result = finish(job_id)
        result["list"].append(2)
        result["error"] = "x"
        assert runner.get_result(job_id) == {"list": [1]}

    def test_what_of_a_result_cannot_be_written_is_text(
        self, submit: Callable[..., str], finish: Callable[..., Any], oracle: Oracle
    ) -> None:
        """Nothing is lost for it; the log names the place."""
        job_id = submit("opaque")
        state, result = finish(job_id)
        assert state is JobState.COMPLETED
        (written,) = result["deep"]
        assert written["type"] == "builtins.object"
        assert written["text"].startswith("<object object at ")
        log = (oracle.directory(job_id) / "1.log").read_text()
        assert "result.deep[0] (builtins.object) is stored as text" in log

    def test_the_result_is_that_of_the_outcome_file(
        self, submit: Callable[..., str], finish: Callable[..., Any], oracle: Oracle
    ) -> None:
        job_id = submit("value", value={"a": [1, "\u00e9"]})
        assert finish(job_id)[1] == oracle.payload(job_id) == {"a": [1, "\u00e9"]}

    def test_a_job_runs_in_its_work_directory(
        self, submit: Callable[..., str], finish: Callable[..., Any], oracle: Oracle
    ) -> None:
        job_id = submit("surroundings")
        _, result = finish(job_id)
        assert result["cwd"] == str(oracle.directory(job_id) / "1.work")
        assert result["environment"]["CRYSTALMATH_ATTEMPT"] == f"{job_id}.1"

    def test_a_recipe_of_quacc(self, runner: EngineRunner, finish: Callable[..., Any]) -> None:
        """The same energy as without quacc and without an engine."""
        atoms = bulk("Al", a=4.05, cubic=True)
        atoms.rattle(0.05, seed=1)
        job_id = runner.submit("quacc.recipes.emt.core.relax_job", atoms, "local")
        atoms.calc = EMT()
        BFGS(atoms, logfile=None).run(fmax=0.01)
        state, result = finish(job_id)
        assert state is JobState.COMPLETED, result
        assert result["results"]["energy"] == pytest.approx(atoms.get_potential_energy(), abs=1e-6)


def _rich_atoms() -> Atoms:
    atoms = Atoms(
        "Fe2O",
        positions=[[0.1, 0.2, 1 / 3], [1.5, 1.5, 1.5], [0, 0, -2e-17]],
        cell=[[3, 0, 0], [0.5, 3, 0], [0, 0, 9]],
        pbc=[True, True, False],
        tags=[1, 0, 2],
        magmoms=[2.5, -1.0, 0.0],
        charges=[0.5, 0.0, -0.5],
        constraint=FixAtoms([0, 2]),
        info={"note": "\u00e9", "number": 3},
    )
    atoms.set_array("spin_label", np.array([3, 1, 2]))
    return atoms


def _assert_same_atoms(one: Any, other: Atoms) -> None:
    assert isinstance(one, Atoms)
    assert one == other  # positions, numbers, cell and periodicity
    assert one.info == other.info
    assert one.arrays.keys() == other.arrays.keys()
    for name, array in other.arrays.items():
        _assert_same(one.arrays[name], array)
    _assert_same(_constraints(one), _constraints(other))


def _constraints(atoms: Atoms) -> list[Any]:
    found = [fix.todict() for fix in atoms.constraints]
    return [
        [fix["name"], {key: np.asarray(value).tolist() for key, value in fix["kwargs"].items()}]
        for fix in found
    ]


def _assert_same(one: Any, other: Any, place: str = "") -> None:
    """Compare with types, and arrays by their bits."""
    if isinstance(other, PurePath):
        assert isinstance(one, PurePath), place
        assert one == other, place
        return
    assert type(one) is type(other), place
    if isinstance(other, np.ndarray):
        assert (one.dtype, one.shape) == (other.dtype, other.shape), place
        np.testing.assert_array_equal(one, other, err_msg=place)
    elif isinstance(other, dict):
        assert one.keys() == other.keys(), place
        for key, value in other.items():
            _assert_same(one[key], value, f"{place}.{key}")
    elif isinstance(other, (list, tuple)):
        assert len(one) == len(other), place
        for index, value in enumerate(other):
            _assert_same(one[index], value, f"{place}[{index}]")
    else:
        assert repr(one) == repr(other) or one == other, place
