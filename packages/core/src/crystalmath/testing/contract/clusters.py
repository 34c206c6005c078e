"""Tests that no key of a cluster's table, and no resource of a job, is ignored."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, ClassVar, cast

import pytest
from attrs import evolve

from crystalmath import config
from crystalmath.engines.registry import plugins
from crystalmath.errors import InvalidJob
from crystalmath.models import Resources
from crystalmath.models.fields import declared
from crystalmath.quacc.engine import submission_environment
from crystalmath.quacc.engines import settings_of
from crystalmath.quacc.runner import JobState
from crystalmath.testing.attempts import specification
from crystalmath.testing.contract.base import Base
from crystalmath.testing.oracle import Oracle
from crystalmath.testing.owner import Owner

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from crystalmath.models import Finding, JobSpec
    from crystalmath.quacc.engine import EngineRunner
    from crystalmath.testing.contract.base import Call, Kit
    from crystalmath.testing.subject import EngineUnderTest


#: The cluster's name, a key that no engine knows, and a variable that reaches jobs.
NAME, UNKNOWN, VARIABLE = "of-the-kit", "a_key_that_nobody_knows", "VASP_VARIABLE_OF_THE_CLUSTER"


class ClusterTables(Base):
    """Tables of clusters: the first one that the author names, or one with the engine alone."""

    guide: ClassVar[str] = "Clusters and resources"

    @pytest.fixture
    def table_home(
        self, kit: Kit, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
    ) -> Callable[..., Path]:
        """Return a function that makes a home with one more cluster, if the engine takes any."""
        table = next(iter(kit.engine.clusters.values()), {})

        def table_home(**keys: Any) -> Path:
            home = tmp_path_factory.mktemp("clusters")
            clusters = {**kit.engine.clusters, NAME: {**table, **keys}}
            evolve(kit.engine, clusters=clusters).configure(home)
            monkeypatch.setenv("CRYSTALMATH_HOME", str(home))
            return home

        try:
            is_taken = NAME in _runner(kit.engine, table_home()).clusters()
            reason = "its clusters() do not name it"
        except Exception as error:  # noqa: BLE001 - the engine may need keys unknown here
            is_taken, reason = False, str(error)
        if not is_taken:
            pytest.skip(f"the engine takes no [clusters.{NAME}] with the keys known here: {reason}")
        return table_home

    def test_an_unknown_key_of_a_cluster_is_refused(self, kit: Kit, table_home: Call) -> None:
        """Otherwise a misspelt key would be ignored silently."""
        home = table_home(**{UNKNOWN: 1})
        messages = [*map(str, findings_of(kit.engine, home)), *objections(kit.engine, home)]
        assert any(UNKNOWN in each for each in messages), (
            f"with `{UNKNOWN} = 1` in a table [clusters.{NAME}] of config.toml the engine has no "
            "finding that names this key, and makes a runner: cluster.check_options refuses keys "
            "that you do not know"
        )

    def test_worker_init_is_run(self, kit: Kit, table_home: Call) -> None:
        """Jobs on a cluster have the variables that the commands of its `worker_init` set."""
        table = next(iter(kit.engine.clusters.values()), {})
        commands = f"{table.get('worker_init', '')}\nexport {VARIABLE}='some words'\n"
        home = table_home(worker_init=commands)
        oracle = Oracle(home)
        with Owner(kit.engine.name, dict(os.environ), cluster=NAME) as owner:
            (job_id,) = owner.ask("submit", "surroundings")
            what = f"a job on a cluster with a worker_init is {owner.ask('status', job_id)}"
            outcome = oracle.ended(job_id, kit.engine.limit_s, what)
            owner.ask("close")
        assert outcome["state"] == "completed", outcome["error"]
        value = oracle.payload(job_id)["environment"].get(VARIABLE)
        assert value == "some words", (
            f"the worker_init of [clusters.{NAME}] exports {VARIABLE}='some words', and a job on "
            f"that cluster finds {value!r}: have its worker begin with the commands of "
            "worker.init_script(cluster.worker_init)"
        )


def _call(engine: EngineUnderTest, home: Path, hook: str) -> Any:
    """Call a hook of an engine's plugin with the settings of a home, the present one."""
    settings = evolve(settings_of(engine.name, config.load()), home=home)
    return plugins().call_engine(plugins().engine(engine.name), hook, settings=settings)


def findings_of(engine: EngineUnderTest, home: Path) -> list[Finding]:
    """Return the engine's findings for a home."""
    return [each for some in _call(engine, home, "crystalmath_engine_findings") for each in some]


def objections(engine: EngineUnderTest, home: Path) -> list[str]:
    """Return why an engine cannot serve a home: its findings, and the error of its runner."""
    messages = [str(each) for each in findings_of(engine, home) if each.severity == "error"]
    try:
        _runner(engine, home)
    except Exception as error:  # noqa: BLE001 - any exception is an objection
        messages.append(str(error))
    return messages


def _runner(engine: EngineUnderTest, home: Path) -> EngineRunner:
    """Make a runner that is not used, which starts nothing."""
    return cast("EngineRunner", _call(engine, home, "crystalmath_make_runner"))


#: More of each resource than every engine has.
ASKED: dict[str, Any] = {
    "nodes": 2,
    "ranks": 2,
    "ranks_per_node": 2,
    "cores_per_rank": 2,
    "gpus_per_rank": 1,
    "memory_mb": 100,
    "queue": "no-such-queue",
    "account": "no-such-account",
    "reservation": "no-such-reservation",
    "options": {"no-such-option": "1"},
}
#: The variable of the job's environment that shows a resource, and its value.
SEEN = {"ranks": ("QUACC_VASP_PARALLEL_CMD", "2"), "cores_per_rank": ("OMP_NUM_THREADS", "2")}


def _spec(**resources: Any) -> JobSpec:
    environment = submission_environment(config.load())
    for variable, _ in SEEN.values():
        environment.pop(variable, None)
    terms = {"resources": Resources(**resources), "environment": environment}
    return specification("surroundings", **terms)


class ResourcesAsked(Base):
    """Resources on the cluster ``local``; an engine's own tests cover those of schedulers."""

    guide: ClassVar[str] = "Resources"

    def test_names_of_resources(self, kit: Kit) -> None:
        """An engine declares only resources that exist."""
        known = {one.name for one in declared(Resources)}
        assert known == ASKED.keys()
        for named in (kit.runner.capabilities.resources, kit.runner.honoured("local")):
            assert isinstance(named, frozenset)
            assert named <= known, f"these are no resources: {named - known}"

    @pytest.mark.parametrize("name", list(ASKED))
    def test_resources_not_honoured_are_refused(self, kit: Kit, name: str) -> None:
        """A job that needs a resource which the engine does not declare is refused."""
        spec = _spec(**{name: ASKED[name]})
        if spec.resources.needed() <= kit.runner.honoured("local"):
            pytest.skip(f"the engine declares that it honours {name}")
        with pytest.raises(InvalidJob) as refused:
            kit.runner.start(spec)
        message = str(refused.value)
        assert kit.engine.name in message
        assert any(repr(needed) in message for needed in spec.resources.needed()), message
        assert not kit.oracle.directory(spec.job_id).exists()

    @pytest.mark.parametrize("name", list(SEEN))
    def test_resources_reach_the_job(self, kit: Kit, name: str) -> None:
        """The job's environment shows the ranks and cores that it requested."""
        if name not in kit.runner.honoured("local"):
            pytest.skip(f"the engine declares that it does not honour {name}")
        cores = kit.runner.cores("local")
        if cores is not None and cores < ASKED[name]:
            pytest.skip(f"a node has no {ASKED[name]} cores")
        spec = _spec(**{name: ASKED[name]})
        kit.runner.start(spec)
        state, result = kit.finish(spec.job_id)
        assert state is JobState.COMPLETED, result
        variable, number = SEEN[name]
        assert number in result["environment"].get(variable, "").split()
