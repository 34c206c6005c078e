"""The job service on the real local engine: what is recorded, and who may end or adopt a job."""

import errno
import gc
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from ase import Atoms
from ase.build import bulk, fcc111
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from commands import piped
from conftest import eventually
from crystalmath import config
from crystalmath.archive.writing import write_archive
from crystalmath.client.request import document
from crystalmath.engines.local import LocalRunner
from crystalmath.engines.registry import Plugins, plugins
from crystalmath.errors import (
    CrystalMathError,
    FilesRemoved,
    InvalidJob,
    JobRefused,
    KeyConflict,
    NotSubmitted,
    StoreError,
    UnknownEngine,
)
from crystalmath.jobs.rundir import RunDirectory
from crystalmath.jobs.worktree import at_once
from crystalmath.models import Finding, JobState, Submission
from crystalmath.models.retry import Retry
from crystalmath.quacc import get_runner
from crystalmath.quacc.store import JobMetadata, JobStore
from crystalmath.recipes.structures import to_ase_json
from crystalmath.running.pruning import Choice
from crystalmath.service import JobService, default_service
from crystalmath.submitting.asked_job import AskedJob
from ends import AL, finish, lab_job

pytestmark = pytest.mark.processes


@pytest.fixture
def store(service):
    with JobStore(service.config.database_url) as store:
        yield store


def value(number=1, **more):
    return lab_job("value", parameters={"number": number}, **more)


def run(service, submission):
    return finish(service, service.submit(submission).job_id)


def here(root):
    return sorted(path.relative_to(root) for path in root.rglob("*"))


# --- a job's way ---------------------------------------------------------------------------------


def test_the_way_of_a_job_is_in_the_events(service, store):
    job = service.submit(value(7, name="seven", labels={"a": "b"}))
    assert (job.state, job.engine, job.cluster) == (JobState.PENDING, "local", "local")
    seen = list(service.wait([job.job_id], 120))
    assert [each.revision for each in seen] == sorted({each.revision for each in seen})
    assert seen[-1].state is JobState.COMPLETED
    steps = [(event.from_state, event.to_state) for event in store.events(job_id=job.job_id)]
    pending, running, completed = JobState.PENDING, JobState.RUNNING, JobState.COMPLETED
    assert steps == [(None, pending), (pending, running), (running, completed)]
    assert service.result(job.job_id) == {"value": 7}
    assert service.result_json(job.job_id) == b"7"
    assert service.find(job.job_id[:20]) == job.job_id
    last = service.job(job.job_id)
    assert last.created_at <= last.started_at <= last.finished_at
    assert (last.formula, last.error) == ("Al4", None)


def test_the_last_ends_are_recorded_at_once_however_long_others_are_gathered(service, monkeypatch):
    for name in ("GATHER_S", "EACH_S"):
        monkeypatch.setattr(f"crystalmath.running.recorder.{name}", 3600.0)
    jobs = service.submit_many([value(number) for number in range(4)])
    *_, last = service.wait([job.job_id for job in jobs], 120)
    assert {job.state for job in service.jobs()} == {JobState.COMPLETED}
    assert last.state is JobState.COMPLETED


def test_a_failure_and_its_traceback(service):
    job = run(service, lab_job("fail", parameters={"message": "no convergence"}))
    assert (job.state, job.error) == (JobState.FAILED, "RuntimeError: no convergence")
    assert "in fail" in job.traceback
    result = service.result(job.job_id)
    assert result == {"error": job.error, "traceback": job.traceback}
    assert service.result_json(job.job_id) is None


def test_finished_jobs_are_answered_from_the_store_alone(service):
    job = run(service, value(5))
    failed = run(service, lab_job("fail", parameters={"message": "gone too"}))
    for each in (job, failed):
        shutil.rmtree(service.config.jobs_directory / each.job_id)
    with JobService(service.config) as other:
        for asked in (service, other):
            assert asked.job(job.job_id) == evolve(job, removed="gone")
            assert asked.cancel(job.job_id) is False
            assert asked.result(failed.job_id)["error"] == "RuntimeError: gone too"
            for question in (asked.result, asked.result_json):
                with pytest.raises(CrystalMathError, match=f"{job.job_id} is gone.*was removed"):
                    question(job.job_id)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({"a": "x\x1b[2J"}, "'labels.a' must be a text of at most 1000 printable characters"),
        ({"a": "two\nlines"}, "'labels.a' must be"),
        ({"a": "x" * 1001}, "'labels.a' must be"),
        ({"a\x07": "x"}, "a name in 'labels' must be a text of 1 to 255 printable"),
        ({"": "x"}, "a name in 'labels' must be"),
        ({"a" * 256: "x"}, "a name in 'labels' must be"),
        ({str(n): "x" for n in range(65)}, "'labels' must be an object of at most 64, not"),
        (["a"], "'labels' must be an object"),
        ({"a": 1}, "'labels.a' must be a text of at most 1000 printable characters, not 1"),
    ],
)
def test_labels_are_few_short_and_printable(service, labels, said):
    before = service.jobs()
    with pytest.raises(InvalidJob, match=re.escape(said)):
        service.submit(value(1, labels=labels))
    assert service.jobs() == before


def test_labels_as_long_as_may_be(service):
    labels = {f"{n:0255d}": "x" * 1000 for n in range(63)} | {"empty": ""}
    assert run(service, value(1, labels=labels)).labels == labels


@pytest.mark.parametrize("max_queued", [1, 1000])
def test_the_urgent_one_is_launched_first(home, lab, tmp_path, monkeypatch, max_queued):
    # Core puts those in order that wait for the engine, and the local engine those that it has.
    capabilities = evolve(LocalRunner.capabilities, max_queued=max_queued)
    monkeypatch.setattr(LocalRunner, "capabilities", capabilities)
    go = tmp_path / "go"
    home.mkdir(exist_ok=True)
    (home / "config.toml").write_text("[engines.local]\nworkers = 1\n")
    with JobService() as service:
        first = service.submit(lab_job("wait_for", parameters={"path": str(go)}))
        eventually(lambda: service.job(first.job_id).state is JobState.RUNNING)
        assert service.result(first.job_id) is None
        given = [0, -5, 7, 0, 1000]
        jobs = [service.submit(value(n, priority=n)) for n in given]
        assert [job.priority for job in jobs] == given
        # A thread hands them over: before the first one ends, those that the engine takes.
        runner: Any = service._runners.get("local")
        taken = runner._queued
        eventually(lambda: len(taken) == (len(jobs) if max_queued > len(jobs) else 0))
        go.touch()
        ids = [job.job_id for job in jobs]
        for _ in service.wait(ids, timeout=100):
            pass
        ended = sorted(map(service.job, ids), key=lambda job: job.started_at)
        assert [job.priority for job in ended] == [1000, 7, 0, 0, -5]
        assert [job.job_id for job in ended if not job.priority] == [ids[0], ids[3]]
        # It makes no other job: a key with another priority is still that job's.
        known = service.submit(value(1, key="urgent"))
        assert service.submit(value(1, key="urgent", priority=9)).job_id == known.job_id


# --- many, and keys ------------------------------------------------------------------------------


def test_of_many_each_is_accepted_or_refused_in_order(service, judge):
    known = run(service, value(1, key="of many"))
    before = {job.job_id for job in service.jobs()}
    answers = service.submit_many(
        [
            value(1, labels={"many": "0"}),
            value(1, walltime_s=-1),
            value(1, key="of many"),
            value(2, key="of many"),
            lab_job("value", engine="slurm"),
            lab_job("value", labels={"a": "x" * 2000}),
            value("doomed"),
            value(3, key="twice", labels={"many": "7"}),
            value(3, key="twice"),
            value(4, key="twice"),
            value(5, labels={"many": "10"}),
        ]
    )
    kinds = [type(answer) for answer in answers if isinstance(answer, Exception)]
    assert kinds == [InvalidJob, KeyConflict, UnknownEngine, InvalidJob, JobRefused, KeyConflict]
    assert (answers[2].job_id, answers[2].state) == (known.job_id, JobState.COMPLETED)
    assert answers[7].job_id == answers[8].job_id
    new = {index: answers[index] for index in (0, 7, 10)}
    assert {job.job_id for job in service.jobs()} - before == {job.job_id for job in new.values()}
    assert [job.labels for job in new.values()] == [{"many": str(index)} for index in new]
    for _ in service.wait([job.job_id for job in new.values()], 120):
        pass
    results = [service.result(job.job_id) for job in new.values()]
    assert results == [{"value": 1}, {"value": 3}, {"value": 5}]


def test_a_job_equal_to_another_is_refused_for_its_own_labels(service):
    known = {job.job_id for job in service.jobs()}
    jobs = [value(1), value(1, labels={"of": "\u00e9" * 501}), value(1)]
    before, told, after = service.submit_many(jobs)
    assert "1000 bytes" in str(told)
    accepted = known | {before.job_id, after.job_id}
    assert {job.job_id for job in service.jobs()} == accepted
    together = service.submit_many(jobs, all_or_none=True)
    assert [type(answer) for answer in together] == [NotSubmitted, InvalidJob, NotSubmitted]
    assert {job.job_id for job in service.jobs()} == accepted


def test_one_conflict_among_many_costs_no_transaction(home, lab, monkeypatch):
    sizes = []
    insert = JobStore.insert_each
    monkeypatch.setattr(LocalRunner, "start", lambda *_: None)
    monkeypatch.setattr(
        JobStore,
        "insert_each",
        lambda store, jobs: (sizes.append(len(jobs)), insert(store, jobs))[1],
    )
    with JobService() as service:
        jobs = [value(number) for number in range(64)]
        jobs[20:22] = value(1, key="k"), value(2, key="k")
        answers = service.submit_many(jobs)
    kinds = [type(answer) for answer in answers]
    assert kinds.index(KeyConflict) == 21
    assert kinds.count(KeyConflict) == 1
    assert [answer.job_id for answer in answers if isinstance(answer, JobMetadata)]
    assert sizes == [63]


def test_what_was_found_of_a_job_holds_for_an_equal_one_that_follows(home, lab, monkeypatch):
    checked = []
    preflight = Plugins.preflight

    def counted(known, **asked):
        checked.append(asked["parameters"]["number"])
        return preflight(known, **asked)

    monkeypatch.setattr("crystalmath.submitting.admission.HOLDS_S", 3600.0)
    monkeypatch.setattr(LocalRunner, "start", lambda *_: None)
    monkeypatch.setattr(Plugins, "preflight", counted)

    def asked(number, **more):
        return evolve(value(number, **more), atoms=to_ase_json(AL))  # as clients send it

    with JobService(config.Source()) as service:
        jobs = [service.submit(asked(1, name=name)) for name in ("first", "second")]
        assert [job.name for job in jobs] == ["first", "second"]
        assert len({job.job_id for job in jobs}) == 2
        service.submit(asked(2))
        assert checked == [1, 2]
        service.check(asked(2))
        assert checked == [1, 2, 2]
        (home / "config.toml").write_text("strict = true\n")
        service.submit(asked(2))
        assert checked == [1, 2, 2, 2]


def test_a_job_without_a_walltime_has_that_of_the_home(home, lab, monkeypatch):
    monkeypatch.setattr(LocalRunner, "start", lambda *_: None)
    (home / "config.toml").write_text("[defaults]\nwalltime = '2h'\n")
    with JobService(config.Source()) as service:
        given = [service.submit(value(1, **more)) for more in ({}, {"walltime_s": 60.0})]
        assert [job.walltime_s for job in given] == [7200.0, 60.0]
        assert service.submit(value(1, parcel=4)).walltime_s is None
        (home / "config.toml").write_text("")
        assert service.submit(value(1)).walltime_s is None


def test_only_a_job_that_is_equal_to_the_letter_is_taken_for_equal(home, lab, monkeypatch):
    monkeypatch.setattr("crystalmath.submitting.admission.HOLDS_S", 3600.0)
    monkeypatch.setattr(LocalRunner, "start", lambda *_: None)

    def asked(number, atoms=AL, **more):
        return evolve(value(number, **more), atoms=to_ase_json(atoms))

    given = [
        asked([1, 2]),
        asked((1, 2)),
        asked(1),
        asked(number=True),  # it equals 1
        asked(1.0),
        asked(1, walltime_s=60),
        asked(1, resources={"ranks": 2}),
        asked(1, AL * (2, 1, 1)),
        asked(1, environment={"OMP_NUM_THREADS": "7"}),
        asked(1, environment={"OMP_NUM_THREADS": "8"}),
    ]
    with JobService(config.Source()) as service:
        told = []
        for each in given:
            first, second = (service.submit(evolve(each, name=name)) for name in ("a", "b"))
            assert (first.name, second.name) == ("a", "b")
            assert first.spec_hash == second.spec_hash
            texts = [service.specification(job.job_id) for job in (first, second)]
            documents = [text.partition("\n")[2] for text in texts]
            assert documents[0] == documents[1]
            told.append((first.spec_hash, json.loads(texts[1].partition("\n")[0])["environment"]))
        with pytest.raises(InvalidJob, match="labels"):
            service.submit(evolve(given[-1], labels={"a": 1}))
    hashes = [one for one, _ in told]
    assert len(set(hashes[:8])) == 8
    assert hashes[2] == hashes[8] == hashes[9]  # another shell makes no other job
    assert [there["OMP_NUM_THREADS"] for _, there in told[-2:]] == ["7", "8"]


def test_nothing_of_a_long_job_is_kept(home, lab, monkeypatch):
    monkeypatch.setattr("crystalmath.submitting.admission.HOLDS_S", 3600.0)
    monkeypatch.setattr(LocalRunner, "start", lambda *_: None)
    large = AL * (10, 10, 10)
    with JobService(config.Source()) as service:
        for atoms in (large, AL, large):
            service.submit(evolve(value(1), atoms=to_ase_json(atoms)))
            gc.collect()
            kept = [each.document for each in gc.get_objects() if isinstance(each, AskedJob)]
            assert all(len(document) < 10_000 for document in kept)


def test_a_refused_key_names_what_differs_to_the_letter_and_no_default(home, lab, monkeypatch):
    (home / "config.toml").write_text("[jobs]\ncontinue_lost = true\n")
    monkeypatch.setattr(LocalRunner, "start", lambda *_: None)
    with JobService(config.Source()) as service:
        service.submit(lab_job("relax", key="k"))
        with pytest.raises(KeyConflict, match=r"\(it differs in structure\)"):
            service.submit(lab_job("relax", key="k", atoms=bulk("Cu")))
        service.submit(value(1, key="one"))
        with pytest.raises(KeyConflict, match=r"\(it differs in parameters\.number\)"):
            service.submit(value(number=True, key="one"))  # it equals 1


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(places=st.lists(st.integers(0, 12), min_size=2, max_size=8))
def test_a_batch_is_checked_as_its_jobs_are_one_by_one(home, lab, places):
    close = Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.1]])
    cases = [
        value(1),
        evolve(value(1), atoms=to_ase_json(AL)),
        evolve(value(1), atoms=to_ase_json(AL * (2, 1, 1))),
        evolve(value(1), atoms=to_ase_json(close)),
        evolve(value(1), atoms=to_ase_json(close), strict=True),
        evolve(value(1), atoms=to_ase_json(Atoms("Au", cell=[3, 0, 0], pbc=True))),
        evolve(value(1), atoms={"format": "ase-json", "data": "no structure"}),
        evolve(value(1), atoms=[to_ase_json(AL)]),
        lab_job("all_of", atoms=[to_ase_json(AL)]),
        lab_job("all_of", atoms=None),
        evolve(value(1), atoms=None),
        evolve(value(2), atoms=to_ase_json(AL)),
        evolve(value(1), atoms=to_ase_json(close), resources={"ranks": 2}),
    ]

    def seen(_plugins, _engine, *, atoms, **_):
        return [Finding(severity="warning", code="seen", message=str(atoms))]

    def told(service, answer):
        if isinstance(answer, Exception):
            return type(answer), str(answer)
        header, _, body = service.specification(answer.job_id).partition("\n")
        spec = json.loads(header) | {"job_id": ""}
        return answer.spec_hash, answer.formula, answer.warnings, spec, body

    with pytest.MonkeyPatch.context() as patch, JobService(config.Source()) as service:
        patch.setattr(LocalRunner, "start", lambda *_: None)
        patch.setattr("crystalmath.submitting.admission.HOLDS_S", -1.0)
        patch.setattr(Plugins, "engine_preflight", seen)
        jobs = [cases[place] for place in places]
        together = [told(service, answer) for answer in service.submit_many(jobs)]
        assert together == [told(service, *service.submit_many([job])) for job in jobs]


def test_many_of_which_none_is_good(home, lab):
    with JobService() as service:
        bad = [value(walltime_s=-1), lab_job("valeu"), value(labels=["a"])]
        assert [type(answer) for answer in service.submit_many(bad)] == [InvalidJob] * 3
        assert service.submit_many([]) == []
    assert here(home) == []


def test_another_shell_does_not_make_it_another_job(service, monkeypatch):
    first = run(service, value(key="shell"))
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert service.submit(value(key="shell")).job_id == first.job_id


STRICTER = """
from crystalmath.hookspecs import hookimpl
from crystalmath.models import Finding

@hookimpl
def crystalmath_preflight():
    return [Finding(severity="error", code="gone", message="its files are gone")]
"""


def test_a_known_key_gives_its_job_though_it_would_be_refused_now(service, install):
    first = run(service, value(9, key="kept"))
    install("stricter-check", "stricter", STRICTER, group="crystalmath.plugins")
    plugins.cache_clear()
    again, other, new = service.submit_many([value(9, key="kept"), value(8, key="kept"), value(9)])
    assert (again.job_id, again.state) == (first.job_id, JobState.COMPLETED)
    assert [type(answer) for answer in (other, new)] == [KeyConflict, JobRefused]


def test_what_nobody_waits_for_any_more_is_not_recorded(home, lab):
    with JobService() as service:
        for wanted in ([False], [True, True, False]):  # given up before; while it is checked
            answers = iter(wanted)
            with pytest.raises(CrystalMathError, match="nothing was recorded"):
                service.submit_many([value(1), value(2)], wanted=partial(next, answers))
    assert here(home) == []


def test_check_says_all_that_is_wrong(home, lab, judge):
    wrong = {"engine": "slurm", "walltime_s": -1}
    with JobService() as service:
        fine = service.check(value(environment={"PATH": "/bin", "SECRET": "x"}))
        assert (fine.findings, fine.pseudopotentials) == ((), ())
        assert fine.environment == ("CRYSTALMATH_RECIPES", "PATH")
        known = service.check(value("doomed", **wrong))
        unknown = service.check(lab_job("valeu", **wrong))
        (nameless,) = service.check(value(environment={"": "x"})).errors
    for checked, codes in (
        (known, {"invalid_job", "unknown_engine", "odd", "doomed", "again"}),
        (unknown, {"invalid_job", "unknown_engine"}),
    ):
        assert {finding.code for finding in checked.findings} == codes
    text = "\n".join(map(str, unknown.errors))
    assert all(said in text for said in ("did you mean value", "walltime", "'slurm'"))
    assert "environment variable" in nameless.message
    assert here(home) == []


PICKY = """
from crystalmath.engines.local import LocalRunner
from crystalmath.hookspecs import hookimpl
from crystalmath.models import Finding

@hookimpl
def crystalmath_make_runner(settings):
    return LocalRunner(settings)

@hookimpl
def crystalmath_preflight(parameters):
    return [Finding(severity="error", code="picky", message="not on this engine")]
"""


def test_an_engines_own_check_is_asked_of_its_own_jobs_from_the_first_on(home, lab, install):
    install("picky-engine", "picky", PICKY)
    with JobService() as service:
        assert service.check(value()).findings == ()
        (refused,) = service.submit_many([value(engine="picky")])
        assert [finding.code for finding in refused.findings] == ["picky"]
        assert [each.code for each in service.check(value(engine="picky")).errors] == ["picky"]
        # Now that it is loaded, it still has no say in others' jobs.
        assert service.check(value()).findings == ()
    assert here(home) == []


def test_a_plugin_that_fails_neither_refuses_jobs_nor_stops_a_batch(home, lab, install):
    broken = STRICTER.replace("return [", "raise ValueError('torn')\n    return [")
    install("torn-check", "torn", broken, group="crystalmath.plugins")
    with JobService() as service:
        (warning,) = service.check(value()).findings
        jobs = service.submit_many([value(1), value(2)])
        assert [job.warnings[0]["code"] for job in jobs] == ["plugin_failed"] * 2
        for job in jobs:
            service.cancel(job.job_id)
    assert (warning.severity, warning.code) == ("warning", "plugin_failed")
    assert "'torn' of 'torn-check'" in warning.message
    assert "torn" in warning.message


SLIP = """
from crystalmath.hookspecs import hookimpl
from crystalmath.models import Finding

@hookimpl
def crystalmath_preflight(parameters):
    return [
        Finding(severity="warning", code="parameter_unknown", message=f"VASP knows no {name}",
                source=f"the parameter {name}")
        for name in parameters
    ]
"""


def test_a_slip_is_told_once(home, lab, install):
    install("a-slip", "slip", SLIP, group="crystalmath.plugins")
    plugins.cache_clear()
    slips = lab_job("switch", parameters={"relax_cel": True, "encutt": 1}, lax=True)
    with JobService() as service:
        told = [finding.message for finding in service.check(slips).findings]
        job = service.submit(slips)
    assert len(told) == 2
    assert "did you mean 'relax_cell'" in told[0]
    assert told[1] == "VASP knows no encutt"
    assert [warning["message"] for warning in job.warnings] == told


def test_programs_that_are_not_there_are_told(home, lab):
    # A recipe that is not there, either, is not asked which files it reads, which takes seconds.
    environment = {"PATH": str(home), "QUACC_CONFIG_FILE": str(home / "none.yaml")}
    wanted = Submission(
        recipe="quacc.recipes.vasp.core.no_job", atoms=bulk("Al"), environment=environment
    )
    with JobService() as service:
        own = {"job_params": {"relax_job": {"command": "/my/vasp"}}}
        for changes, missing in (({}, True), ({"parameters": own}, False)):
            found = service.check(evolve(wanted, engine="local", **changes)).findings
            assert ("command_missing" in [finding.code for finding in found]) is missing


def test_programs_that_a_clusters_commands_may_load_refuse_no_job(home, lab):
    (home / "config.toml").write_text(
        '[clusters.bare]\nengine = "local"\n'
        '[clusters.loaded]\nengine = "local"\nworker_init = "module load vasp"\n'
    )
    environment = {"PATH": str(home), "QUACC_CONFIG_FILE": str(home / "none.yaml")}

    def severity(recipe, cluster, code, **settings):
        wanted = Submission(
            recipe=f"quacc.recipes.{recipe}",
            atoms=bulk("Al"),
            cluster=cluster,
            environment={**environment, **settings},
        )
        (found,) = (each for each in service.check(wanted).findings if each.code == code)
        return found.severity

    with JobService() as service:
        vasp, missing = "vasp.core.no_job", "command_missing"
        assert severity(vasp, "bare", missing) == "error"
        assert severity(vasp, "loaded", missing) == "warning"
        assert severity(vasp, "loaded", missing, QUACC_VASP_PARALLEL_CMD="aprun -n 4") == "warning"
        # Wherever that is, it is not on a PATH.
        assert severity(vasp, "loaded", missing, QUACC_VASP_CMD="/no/vasp_std") == "error"
        if find_spec("psi4") is None:  # a package may be in what they put on PYTHONPATH
            assert severity("psi4.core.static_job", "bare", "package_missing") == "error"
            assert severity("psi4.core.static_job", "loaded", "package_missing") == "warning"


EMT = "quacc.recipes.emt.core.static_job"


@pytest.mark.parametrize("pbc", [True, [False, False, True]])
def test_a_structure_that_repeats_without_a_lattice_vector_is_refused(home, pbc):
    atoms = Atoms("Cu2", positions=[[0, 0, 0], [0, 0, 2.5]], pbc=pbc)
    with JobService() as service:
        for recipe, codes in (
            (EMT, ["structure_no_cell"]),
            ("quacc.recipes.orca.core.static_job", []),
        ):
            found = service.check(Submission(recipe=recipe, atoms=atoms, engine="local")).errors
            told = [finding.code for finding in found if finding.code != "command_missing"]
            assert told == codes
        slab = fcc111("Cu", (1, 1, 3))  # quacc computes it, and cannot describe it afterwards
        (finding,) = service.check(Submission(recipe=EMT, atoms=slab, engine="local")).errors
        assert finding.code == "structure_no_cell"
        slab.center(vacuum=8, axis=2)
        assert not service.check(Submission(recipe=EMT, atoms=slab, engine="local")).errors


@pytest.mark.parametrize("name", ["quacc.yaml", "$HOME/quacc.yaml"])
def test_a_relative_file_of_settings_is_not_passed_over(home, lab, name):
    environment = {"PATH": "/bin", "QUACC_CONFIG_FILE": name}
    with JobService() as service:
        for recipe, severity in ((EMT, "error"), ("lab_recipes.value", "warning")):
            wanted = Submission(recipe=recipe, atoms=bulk("Cu"), environment=environment)
            (found,) = service.check(wanted).findings
            assert (found.severity, found.code) == (severity, "settings_relative")
            assert repr(name) in found.message
            for absolute in (f"{home}/quacc.yaml", "~/quacc.yaml"):
                there = {**environment, "QUACC_CONFIG_FILE": absolute}
                assert not service.check(evolve(wanted, environment=there)).findings


def test_folders_to_copy_from_must_be_there(home, tmp_path, monkeypatch):
    (tmp_path / "before").mkdir()
    (tmp_path / "before" / "here.txt").touch()
    dftb = "quacc.recipes.dftb.core.static_job"

    def codes(service, source, filenames):
        given = {"copy_files": [{"source": source, "filenames": filenames}]}
        wanted = Submission(recipe=dftb, atoms=bulk("Cu"), parameters=given, engine="local")
        found = service.check(wanted).findings
        return {(each.severity, each.code) for each in found if each.code != "command_missing"}

    there = str(tmp_path / "before")
    with JobService() as service:
        assert codes(service, there, ["here.txt", "here*"]) == set()
        assert codes(service, there, "gone.txt") == {("error", "source_missing")}
        assert codes(service, there, ["gone*"]) == {("warning", "source_missing")}
        assert codes(service, f"{there}/gone", ["a"]) == {("error", "source_missing")}
        assert codes(service, "before", ["here.txt"]) == {("error", "source_relative")}
        for folder, code in (("before", "source_relative"), (f"{there}/gone", "source_missing")):
            wanted = Submission(
                recipe="quacc.recipes.espresso.phonons.phonon_job",
                parameters={"prev_outdir": folder},
                engine="local",
            )
            assert code in {each.code for each in service.check(wanted).errors}

    # Whoever asks by the client means the own folder.
    monkeypatch.chdir(tmp_path)
    given = {
        "copy_files": [{"source": "before", "filenames": "a"}],
        "prev_outdir": "before",
        "relax": {"prev_dir": Path()},
    }
    request = Submission(recipe=dftb, atoms=bulk("Cu"), parameters=given)
    sent = document(request, config.load(), {})["params"]
    assert sent["copy_files"][0]["source"] == there
    assert sent["prev_outdir"] == there
    assert str(tmp_path) in str(sent["relax"]["prev_dir"])


# --- on record first -----------------------------------------------------------------------------


def test_the_row_is_committed_before_the_engine_hears_of_it(home, lab, monkeypatch):
    rows = []

    def start(self, spec, document=None):
        with JobStore(f"sqlite:///{home / 'jobs.sqlite'}", create=False) as store:
            rows.append(store.get(spec.job_id))
        raise RuntimeError("the queue is broken")

    monkeypatch.setattr(LocalRunner, "start", start)
    with JobService() as service:
        answers = service.submit_many([value(1, key="k"), value(2)])
        assert [row.state for row in rows] == [JobState.PENDING] * 2
        for row, answer in zip(rows, answers, strict=True):
            assert (answer.job_id, answer.state) == (row.job_id, JobState.FAILED)
            assert "could not be handed to the engine: the queue is broken" in answer.error
            assert service.job(row.job_id) == answer
            assert list(service.wait([row.job_id], 5)) == [answer]
        assert service.submit(value(1, key="k")) == answers[0]


def test_run_directories_that_cannot_be_made(home, lab):
    (home / "jobs").write_text("a file where the folder belongs")
    with JobService() as service:
        job = service.submit(value())
        *_, ended = service.wait([job.job_id], 10)
        assert ended.state is JobState.FAILED
        assert str(home / "jobs") in ended.error


# --- other processes -----------------------------------------------------------------------------

OWNER = textwrap.dedent(
    """
    import sys, time
    import crystalmath.service as service_module
    from ase.build import bulk
    from crystalmath.models import Submission
    from crystalmath.service import JobService

    al = bulk("Al", a=4.0, cubic=True)
    service = JobService()
    jobs = [
        Submission(recipe="lab_recipes.wait_for", atoms=al, parameters={"path": sys.argv[1]}),
        Submission(recipe="quacc.recipes.emt.core.static_job", atoms=al, key="emt"),
        *[Submission(recipe="lab_recipes.long_sleep", atoms=al)] * 4,
    ]
    print(*(service.submit(job).job_id for job in jobs), flush=True)
    sys.stdin.readline()
    print(*sorted({name.partition(".")[0] for name in sys.modules}), flush=True)
    time.sleep(600)
    """
)


def test_a_cancel_that_was_quicker_than_its_asking_was_requested(service, monkeypatch):
    job_id = service.submit(lab_job("long_sleep")).job_id
    really = LocalRunner.cancel

    def late(runner, name):
        really(runner, name)
        eventually(lambda: runner.get_status(name) is JobState.CANCELLED)
        return really(runner, name)

    monkeypatch.setattr(LocalRunner, "cancel", late)
    assert service.cancel(job_id) is True
    assert service.cancel(job_id) is False


# An engine hands over when the main thread has ended, and its pool of threads takes nothing more.
LATE = """
import threading, time
from ase.build import bulk
from crystalmath.engines import local
from crystalmath.quacc import get_runner

class Late(local.LocalRunner):
    def launch(self, attempts):
        while threading.main_thread().is_alive():
            time.sleep(0.01)
        raise RuntimeError("cannot schedule new futures after interpreter shutdown")

local.LocalRunner = Late
print(get_runner("local").submit("lab_recipes.value", bulk("Al"), "local"))
"""


def test_a_script_that_ends_while_its_job_is_handed_over(home, lab):
    script = subprocess.run(
        [sys.executable, "-c", LATE], capture_output=True, text=True, timeout=60, check=True
    )
    assert script.stderr == ""
    outcome = RunDirectory(home / "jobs" / script.stdout.strip()).outcome(1)
    assert (outcome["state"], outcome["error"]) == ("cancelled", "cancelled")


def test_another_process_cancels_and_after_a_kill_adopts(home, with_quacc, tmp_path):
    (home / "config.toml").write_text("[engines.local]\nworkers = 2\n")
    gate = tmp_path / "gate"
    owner = piped(sys.executable, "-c", OWNER, gate, cwd=tmp_path)
    try:
        waiting, emt, sleeping, running, queued, unwritten = owner.stdout.readline().split()
        with JobService() as service:

            def is_in(job_id, state):
                return service.job(job_id).state is state

            eventually(lambda: is_in(waiting, JobState.RUNNING))
            eventually(lambda: is_in(sleeping, JobState.RUNNING))
            # While the owner lives, it is the one that ends the job and says so.
            assert service.cancel(sleeping) is True
            assert finish(service, sleeping).state is JobState.CANCELLED
            assert finish(service, emt).state is JobState.COMPLETED
            eventually(lambda: is_in(running, JobState.RUNNING))
            assert service.result(emt)["results"]["energy"] < 1
            owner.stdin.write("\n")
            owner.stdin.flush()
            # No user code in the submitting process.
            loaded = set(owner.stdout.readline().split())
            assert "crystalmath" in loaded
            assert not loaded & {"quacc", "parsl", "pymatgen", "lab_recipes"}

            owner.send_signal(signal.SIGKILL)
            owner.wait()
            assert is_in(waiting, JobState.RUNNING)
            assert is_in(queued, JobState.PENDING)
            # As if it had been killed between the commit and the run directory.
            shutil.rmtree(home / "jobs" / unwritten)
            for job_id in (running, queued, unwritten):
                assert service.cancel(job_id) is True
                assert finish(service, job_id).state is JobState.CANCELLED
            gate.touch()
            job = finish(service, waiting)
            assert job.state is JobState.COMPLETED
            assert service.result(waiting) == {"saw": str(gate)}
            assert {each.state for each in service.jobs()} == {
                JobState.COMPLETED, JobState.CANCELLED
            }  # fmt: skip
            again = Submission(recipe="quacc.recipes.emt.core.static_job", atoms=AL, key="emt")
            assert service.submit(again).job_id == emt
            with JobStore(service.config.database_url) as store:
                log = store.events(job_id=sleeping)
            assert "cancel requested" in [event.reason for event in log]
    finally:
        owner.kill()
        owner.communicate()


# --- the default service -------------------------------------------------------------------------


def test_one_default_service_for_each_home(home, lab, monkeypatch, tmp_path):
    first = default_service()
    assert default_service() is first
    assert first.config.home == home
    monkeypatch.setenv("CRYSTALMATH_ENGINE", "slurm")
    assert default_service() is first
    with pytest.raises(UnknownEngine, match="'slurm'"):
        first.submit(value())
    monkeypatch.setenv("CRYSTALMATH_HOME", os.fspath(tmp_path))
    other = default_service()
    assert other is not first
    assert other.config.home == tmp_path
    assert here(home) == here(tmp_path) == []


# --- what others do meanwhile --------------------------------------------------------------------


def test_files_that_a_new_job_is_to_read_are_not_removed(service, tmp_path, monkeypatch):
    monkeypatch.setattr("crystalmath.running.pruning._TOGETHER", 1)
    first, second = [run(service, value(number)).job_id for number in (1, 2)]
    place = str(service.config.jobs_directory / second / "1.work")
    busy = service.submit(lab_job("wait_for", parameters={"path": str(tmp_path / "go")}))
    work = service.prune(Choice(job_ids=[first, second]))
    next(work)
    asked = {"files": [place]}
    reader = service.submit(Submission(recipe="lab_recipes.without_structure", parameters=asked))
    try:
        pruned = at_once(work)
        assert Path(place).is_dir()
        [(job_id, error)] = pruned.left
        assert job_id == second
        assert reader.job_id in str(error)
    finally:
        (tmp_path / "go").touch()
    for job in (busy, reader):
        finish(service, job.job_id)


def test_an_archive_says_what_was_removed_while_it_was_written(service, tmp_path):
    jobs = [run(service, value(number)).job_id for number in (1, 2)]
    work = write_archive(service, tmp_path / "jobs.zip", jobs)
    next(work)
    at_once(service.prune(Choice(job_ids=jobs)))
    told = at_once(work).left_out
    assert any(each.startswith(jobs[1]) and "removed meanwhile" in each for each in told)


def test_an_archive_lacks_nothing_of_a_job_that_has_never_begun(service, tmp_path):
    before = service.submit(lab_job("wait_for", parameters={"path": str(tmp_path / "go")})).job_id
    after = service.submit(value(1, after=[before], on_failure="fail")).job_id
    service.cancel(before)
    job = finish(service, after)
    assert (job.state, job.started_at) == (JobState.FAILED, None)
    assert at_once(write_archive(service, tmp_path / "jobs.zip", [after])).left_out == ()


def test_jobs_that_were_run_again_are_told_where_the_next_cannot_be(service, monkeypatch):
    jobs = [run(service, value(number)).job_id for number in (1, 2, 3)]
    monkeypatch.setattr("crystalmath.submitting.intake._MOST_RETRIED", 2)
    insert = JobStore.insert_each
    calls = []

    def insert_each(store, new):
        calls.append(new)
        if len(calls) > 1:
            raise StoreError("the disk is full")
        return insert(store, new)

    monkeypatch.setattr(JobStore, "insert_each", insert_each)
    first, second, failed = service.retry(jobs, Retry())
    for job in (first, second):
        assert finish(service, job.job_id).state is JobState.COMPLETED
    assert isinstance(failed, StoreError)
    with pytest.raises(StoreError, match="full"):
        service.retry(jobs, Retry())


def test_a_key_gives_its_job_after_the_files_of_its_parent_were_removed(service):
    parent = run(service, lab_job("shift"))
    of_job = {"format": "job", "job_id": parent.job_id}
    asked = lab_job("value", atoms=of_job, key="of a parent")
    job = run(service, asked)
    at_once(service.prune(Choice(job_ids=[parent.job_id])))
    assert service.submit(asked).job_id == job.job_id
    assert [finding.code for finding in service.check(asked).findings] == ["key_known"]
    with pytest.raises(FilesRemoved):
        service.submit(evolve(asked, key="another"))
    with pytest.raises(KeyConflict):
        service.submit(evolve(asked, parameters={"number": 2}))


def test_a_cancel_that_cannot_be_written_for_another_owner_says_so(service, monkeypatch, tmp_path):
    job = service.submit(lab_job("wait_for", parameters={"path": str(tmp_path / "go")}))

    def request_cancel(*_):
        raise OSError(errno.ENOSPC, "no room")

    with monkeypatch.context() as patch:
        patch.setattr(service._runners, "following", lambda _: None)
        patch.setattr("crystalmath.service.job_service.request_cancel", request_cancel)
        with pytest.raises(CrystalMathError, match=r"another owner.*no room"):
            service.cancel(job.job_id)
    assert service.cancel(job.job_id)
    assert finish(service, job.job_id).state is JobState.CANCELLED


def test_options_that_change_while_a_job_comes_in_cancel_nothing(home, lab, tmp_path, monkeypatch):
    (home / "config.toml").write_text("[engines.local]\nworkers = 1\n")
    with JobService(config.Source()) as service:
        job = service.submit(lab_job("wait_for", parameters={"path": str(tmp_path / "go")}))
        (home / "config.toml").write_text("[engines.local]\nworkers = 2\n")
        # As it was when that was asked, before the job was given to the engine.
        monkeypatch.setattr(LocalRunner, "unfinished", lambda _: {})
        other = service.submit(value(2))
        monkeypatch.undo()
        (tmp_path / "go").touch()
        for each in (job, other):
            assert finish(service, each.job_id).state is JobState.COMPLETED


def waiting(service, path):
    job = service.submit(lab_job("wait_for", parameters={"path": str(path)}))
    eventually(lambda: service.job(job.job_id).state is JobState.RUNNING)
    return job.job_id


@pytest.fixture
def pair(home, lab):
    """Yield two services of a home in this process; both use its runner of an engine."""
    (home / "config.toml").write_text("[engines.local]\nworkers = 3\n")
    with JobService() as one, JobService() as another:
        yield one, another


def test_the_end_of_one_service_leaves_the_jobs_of_another(pair, tmp_path):
    one, another = pair
    mine, its = waiting(one, tmp_path / "go"), waiting(another, tmp_path / "never")
    assert run(another, value(2)).state is JobState.COMPLETED
    another.close()
    assert one.job(its).state is JobState.CANCELLED
    assert one.job(mine).state is JobState.RUNNING
    assert run(one, value(3)).state is JobState.COMPLETED
    (tmp_path / "go").touch()
    assert finish(one, mine).state is JobState.COMPLETED
    runner: Any = get_runner("local")
    one.close()
    assert runner.closed


def test_who_waits_hears_what_another_service_wrote_first(pair, tmp_path, monkeypatch):
    one, another = pair
    job_id = waiting(another, tmp_path / "go")
    first, second = one._recorder.store, another._recorder.store
    apply = second.apply

    def late(changes):
        first.apply(changes)
        return apply(changes)

    monkeypatch.setattr(second, "apply", late)
    threading.Timer(0.3, (tmp_path / "go").touch).start()
    assert finish(another, job_id, 30.0).state is JobState.COMPLETED


def test_one_service_lets_go_what_another_follows_on(pair, tmp_path):
    one, another = pair
    mine, its = waiting(one, tmp_path / "go"), waiting(another, tmp_path / "go")
    another.close(cancel=False)
    (tmp_path / "go").touch()
    assert [finish(one, each).state for each in (mine, its)] == [JobState.COMPLETED] * 2


def test_the_end_of_a_service_leaves_what_was_given_to_a_runner(pair, tmp_path):
    runner: Any = get_runner("local")
    job_id = runner.submit("lab_recipes.wait_for", AL, path=str(tmp_path / "go"))
    for service in pair:
        assert run(service, value(1)).state is JobState.COMPLETED
        service.close()
    (tmp_path / "go").touch()
    eventually(lambda: runner.get_status(job_id) is JobState.COMPLETED)


def test_clusters_that_come_or_change_while_their_engine_is_busy(home, lab, tmp_path):
    one = '[clusters.one]\nengine = "local"\n'
    (home / "config.toml").write_text(one)
    with JobService(config.Source()) as service:
        job_id = waiting(service, tmp_path / "go")
        new = '[clusters.two]\nengine = "local"\n'
        (home / "config.toml").write_text(f'{one}walltime = "1h"\n{new}')
        told = r"\[clusters.two\] is new .* until the 1 unfinished jobs of the engine 'local'"
        with pytest.raises(InvalidJob, match=told):
            service.submit(value(2, cluster="two"))
        checked = service.check(value(2, cluster="one"))
        assert [finding.code for finding in checked.findings] == ["cluster_outdated"]
        (tmp_path / "go").touch()
        finish(service, job_id)
        assert run(service, value(2, cluster="two")).state is JobState.COMPLETED
        assert not service.check(value(2, cluster="one")).findings
