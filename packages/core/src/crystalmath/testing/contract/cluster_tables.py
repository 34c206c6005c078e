"""Tables `[clusters.NAME]` of an engine that takes them: nothing in them is ignored."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, ClassVar, cast

import pytest
from attrs import evolve

from crystalmath import config
from crystalmath.engines.registry import plugins
from crystalmath.models import EngineSettings
from crystalmath.testing.contract.base import Base
from crystalmath.testing.oracle import Oracle
from crystalmath.testing.owner import Owner
from crystalmath.testing.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from crystalmath.quacc.engine import EngineRunner
    from crystalmath.testing.contract.base import Call
    from crystalmath.testing.subject import EngineUnderTest

#: The cluster, a key of its table that no engine has, and a variable that reaches jobs.
NAME, UNKNOWN, VARIABLE = "of-the-kit", "a_key_that_nobody_knows", "VASP_VARIABLE_OF_THE_CLUSTER"
_GUIDE = "docs/writing-an-engine.md"


class ClusterTables(Base):
    """The table of the first cluster that its author names, or one that only names the engine."""

    guide: ClassVar[str] = "Clusters and resources"

    @pytest.fixture
    def table_home(
        self,
        engine: EngineUnderTest,
        tmp_path_factory: pytest.TempPathFactory,
        monkeypatch: pytest.MonkeyPatch,
    ) -> Callable[..., Path]:
        """Return what makes a home with one more cluster: ``table_home(worker_init=...)``.

        Where the engine takes no such table, the test is skipped.
        """
        table = next(iter(engine.clusters.values()), {})

        def table_home(**keys: Any) -> Path:
            home = tmp_path_factory.mktemp("clusters")
            clusters = {**engine.clusters, NAME: {**table, **keys}}
            evolve(engine, clusters=clusters).configure(home)
            monkeypatch.setenv("CRYSTALMATH_HOME", str(home))
            return home

        try:
            is_taken = NAME in _runner(engine, table_home()).clusters()
            told = "its clusters() do not name it"
        except Exception as error:  # noqa: BLE001 - it may need more keys, which only it knows
            is_taken, told = False, str(error)
        if not is_taken:
            pytest.skip(f"the engine takes no [clusters.{NAME}] with the keys known here: {told}")
        return table_home

    def test_an_unknown_key_of_a_cluster_is_refused(
        self, engine: EngineUnderTest, table_home: Call
    ) -> None:
        """A misspelt one would be ignored in silence."""
        home = table_home(**{UNKNOWN: 1})
        settings = _settings(engine, home)
        plugin = plugins().engine(engine.name)
        answers = plugins().call_engine(plugin, "crystalmath_engine_findings", settings=settings)
        told = [str(finding) for answer in answers for finding in answer]
        try:
            _runner(engine, home)
        except Exception as error:  # noqa: BLE001 - whatever it is, it says why
            told.append(str(error))
        assert any(UNKNOWN in each for each in told), (
            f"with `{UNKNOWN} = 1` in a table [clusters.{NAME}] of config.toml the engine has no "
            "finding that names this key, and makes a runner: cluster.check_options refuses what "
            f"you do not know ({_GUIDE}, 'Clusters and resources')"
        )

    def test_worker_init_is_run(self, engine: EngineUnderTest, table_home: Call) -> None:
        """What its commands set, jobs on that cluster find."""
        table = next(iter(engine.clusters.values()), {})
        commands = f"{table.get('worker_init', '')}\nexport {VARIABLE}='some words'\n"
        home = table_home(worker_init=commands)
        oracle, limit = Oracle(home), engine.start_s + 10 * engine.turn_s
        with Owner(engine.name, dict(os.environ), cluster=NAME) as owner:
            (job_id,) = owner.ask("submit", "surroundings")
            what = f"a job on a cluster with a worker_init is {owner.ask('status', job_id)}"
            outcome = eventually(lambda: oracle.outcome(job_id), limit, what)
            owner.ask("close")
        assert outcome is not None
        assert outcome["state"] == "completed", outcome["error"]
        found = oracle.payload(job_id)["environment"].get(VARIABLE)
        assert found == "some words", (
            f"the worker_init of [clusters.{NAME}] exports {VARIABLE}='some words', and a job on "
            f"that cluster finds {found!r}: have its worker begin with the commands that "
            f"worker.init_script(cluster.worker_init) gives ({_GUIDE}, 'Clusters and resources')"
        )


def _settings(engine: EngineUnderTest, home: Path) -> EngineSettings:
    return EngineSettings(
        name=engine.name,
        home=home,
        options=engine.options,
        clusters=config.load().clusters_of(engine.name),
    )


def _runner(engine: EngineUnderTest, home: Path) -> EngineRunner:
    """Make a runner that is not used: that starts nothing."""
    plugin = plugins().engine(engine.name)
    settings = _settings(engine, home)
    made = plugins().call_engine(plugin, "crystalmath_make_runner", settings=settings)
    return cast("EngineRunner", made)
