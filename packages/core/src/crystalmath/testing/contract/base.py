"""The fixtures of the kit."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import pytest
from ase.build import bulk

from crystalmath import config
from crystalmath.models import JobSpec
from crystalmath.quacc import JobState, get_runner
from crystalmath.quacc.engine import submission_environment
from crystalmath.quacc.engines import close_all
from crystalmath.quacc.runner import generate_job_id
from crystalmath.testing.attempts import attempt_of, write_down
from crystalmath.testing.contract import explanation
from crystalmath.testing.contract.busy_workers import BUSY, BusyWorkers, judge_room
from crystalmath.testing.contract.door import Door
from crystalmath.testing.measuring import PaceError, measure
from crystalmath.testing.oracle import Oracle, living, shown
from crystalmath.testing.owner import MARK, RECIPES, Owner
from crystalmath.testing.pace import Pace
from crystalmath.testing.passing import TRANSIENT
from crystalmath.testing.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    import psutil

    from crystalmath.models import Attempt
    from crystalmath.quacc.engine import EngineRunner
    from crystalmath.testing.subject import EngineUnderTest

#: A function that a fixture gives; its own docstring says how it is called.
Call: TypeAlias = "Callable[..., Any]"
AL = bulk("Al", a=4.05)
_HOME = pytest.StashKey[Path]()
_DOOR = pytest.StashKey[Door]()
_TOKEN = pytest.StashKey[str]()
_CALLERS = pytest.StashKey[list[Owner]]()
_PACE = pytest.StashKey["Pace | PaceError"]()


class Base:
    """Fixtures and helpers; no tests."""

    @pytest.fixture
    def engine(self) -> EngineUnderTest:
        """Give the engine's name and what it needs; an engine author fills this in."""
        raise NotImplementedError("fill in the fixture `engine` (crystalmath.testing)")

    @pytest.fixture
    def contract_home(
        self,
        engine: EngineUnderTest,
        request: pytest.FixtureRequest,
        tmp_path_factory: pytest.TempPathFactory,
    ) -> Path:
        """Return the home that the tests of a class share, so that the engine is warm."""
        node = request.node.getparent(pytest.Class)
        if _HOME not in node.stash:
            node.stash[_HOME] = tmp_path_factory.mktemp("contract")
            token = node.stash[_TOKEN] = secrets.token_hex(8)
            engine.configure(node.stash[_HOME])
            callers: list[Owner] = []
            node.stash[_CALLERS] = callers
            node.addfinalizer(lambda: _all_gone(engine, "all tests", lambda: _left(token, callers)))
            node.addfinalizer(close_all)
        home: Path = node.stash[_HOME]
        return home

    @pytest.fixture(autouse=True)
    def _environment(
        self,
        engine: EngineUnderTest,
        contract_home: Path,
        request: pytest.FixtureRequest,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        environment = engine.environ(contract_home)
        for name in os.environ.keys() - environment.keys():
            monkeypatch.delenv(name)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv(MARK, request.node.getparent(pytest.Class).stash[_TOKEN])

    @pytest.fixture(autouse=True)
    def _pace(
        self,
        engine: EngineUnderTest,
        request: pytest.FixtureRequest,
        tmp_path_factory: pytest.TempPathFactory,
        _environment: None,
    ) -> None:
        """Measure the engine before anything of a class runs, unless its author has set limits."""
        explanation.explain(request)
        judge_room(request)
        if engine.has_limits:
            return
        node = request.node.getparent(pytest.Class)
        if _PACE not in node.stash:
            try:
                node.stash[_PACE] = measure(engine, tmp_path_factory.mktemp("pace"))
            except PaceError as error:
                node.stash[_PACE] = error
        pace = node.stash[_PACE]
        if isinstance(pace, Pace):
            engine.pace = pace

    @pytest.fixture
    def unmeasured(self, request: pytest.FixtureRequest) -> PaceError | None:
        """Return the reason why no job could be measured, if none could."""
        pace = request.node.getparent(pytest.Class).stash.get(_PACE, None)
        return pace if isinstance(pace, PaceError) else None

    @pytest.fixture(autouse=True)
    def _owners(
        self, engine: EngineUnderTest, request: pytest.FixtureRequest
    ) -> Iterator[list[Owner]]:
        """Take the processes of a test; after all else of it, check that nothing is left."""
        owners: list[Owner] = []
        yield owners
        name = request.node.name
        for owner in owners:
            _all_gone(engine, f"{name}, which killed its process,", owner.others)

    @pytest.fixture
    def oracle(self, contract_home: Path) -> Oracle:
        """Return the eyes that look past what is tested."""
        return Oracle(contract_home)

    @pytest.fixture
    def shared(self, contract_home: Path) -> Path:
        """Return an empty folder that workers see under the same path."""
        return Path(tempfile.mkdtemp(dir=contract_home, prefix="shared-"))

    @pytest.fixture
    def runner(self, engine: EngineUnderTest, _environment: None) -> EngineRunner:
        """Return the runner, in this process and warm."""
        return cast("EngineRunner", get_runner(engine.name))

    @pytest.fixture
    def submit(self, engine: EngineUnderTest, runner: EngineRunner) -> Callable[..., str]:
        """Submit a recipe of the kit: ``submit("echo", x=1)``."""

        def submit(recipe: str, /, **parameters: Any) -> str:
            return runner.submit(f"{RECIPES}.{recipe}", AL, engine.cluster, **parameters)

        return submit

    @pytest.fixture
    def start(self, engine: EngineUnderTest, runner: EngineRunner) -> Callable[..., str]:
        """Start a recipe by a specification, as the service does: ``start("echo", {"x": 1})``."""

        def start(
            recipe: str, parameters: Mapping[str, Any], walltime_s: float | None = None
        ) -> str:
            spec = JobSpec(
                job_id=generate_job_id(),
                recipe=f"{RECIPES}.{recipe}",
                atoms=AL,
                parameters=parameters,
                cluster=engine.cluster,
                walltime_s=walltime_s,
                environment=submission_environment(config.load()),
            )
            runner.start(spec)
            return spec.job_id

        return start

    @pytest.fixture
    def finish(self, engine: EngineUnderTest, runner: EngineRunner) -> Callable[..., Any]:
        """Wait for a job: ``state, result = finish(job_id)``."""

        def finish(job_id: str, timeout: float | None = None) -> tuple[JobState, Any]:
            limit = engine.start_s + 10 * engine.turn_s if timeout is None else timeout
            what = f"the job {job_id} did not finish"
            eventually(lambda: runner.get_status(job_id).is_terminal(), limit, what)
            return runner.get_status(job_id), runner.get_result(job_id)

        return finish

    @pytest.fixture
    def started(self, engine: EngineUnderTest, oracle: Oracle) -> Callable[[str], None]:
        """Wait until a job was begun by a worker, as its files tell."""

        def started(job_id: str) -> None:
            limit = engine.start_s + 10 * engine.turn_s
            eventually(lambda: oracle.claimed(job_id), limit, f"the job {job_id} was not begun")

        return started

    @pytest.fixture
    def busy_workers(
        self, engine: EngineUnderTest, oracle: Oracle, request: pytest.FixtureRequest
    ) -> BusyWorkers:
        """Return what knows the jobs that keep all workers busy."""
        # Twice as long as a job took that was measured.
        look_s = engine.turn_s / 2
        busy = request.node.stash[BUSY] = BusyWorkers(engine, oracle, look_s)
        return busy

    @pytest.fixture
    def room(self, engine: EngineUnderTest, runner: EngineRunner) -> int:
        """Return how many attempts core lets the engine have beside those that run."""
        return runner.capabilities.max_queued - engine.workers

    @pytest.fixture
    def needs_room(self, room: int, runner: EngineRunner) -> Callable[[int], None]:
        """Skip a test that has more wait in the engine's queue than core ever does."""

        def needs_room(waiting: int) -> None:
            if room < waiting:
                pytest.skip(
                    f"the engine has no queue for {waiting} more than run at once: it declares "
                    f"max_queued={runner.capabilities.max_queued}"
                )

        return needs_room

    @pytest.fixture
    def blocked(
        self,
        engine: EngineUnderTest,
        busy_workers: BusyWorkers,
        submit: Call,
        started: Call,
        finish: Call,
        shared: Path,
    ) -> Iterator[Path]:
        """Keep all workers busy; the file that it gives lets them go."""
        go = shared / "unblock"
        blockers = [submit("wait_for", path=str(go)) for _ in range(engine.workers)]
        for job_id in blockers:
            started(job_id)
        busy_workers.add(blockers)
        yield go
        go.touch()
        for job_id in blockers:
            finish(job_id)

    @pytest.fixture
    def write(self, engine: EngineUnderTest, contract_home: Path) -> Callable[..., Attempt]:
        """Write a job down that only the test launches: ``attempt = write("echo")``."""

        def write(recipe: str, /, **parameters: Any) -> Attempt:
            job_id = write_down(contract_home, engine.name, recipe, engine.cluster, **parameters)
            return attempt_of(contract_home, job_id, cluster=engine.cluster)

        return write

    @pytest.fixture
    def owner(
        self, engine: EngineUnderTest, _environment: None, _owners: list[Owner], tmp_path: Path
    ) -> Iterator[Callable[..., Owner]]:
        """Start processes that own jobs of the same home; each is killed at the end.

        What is given goes into its environment: ``owner(TMPDIR=...)``. Its standard error goes
        to ``owner.<number>.err`` in `tmp_path`.
        """

        def start(**environment: str) -> Owner:
            errors = tmp_path / f"owner.{len(_owners)}.err"
            given = {**os.environ, **environment}
            _owners.append(Owner(engine.name, given, errors, engine.cluster))
            return _owners[-1]

        yield start
        for each in _owners:
            each.kill()

    @pytest.fixture
    def gate(self, shared: Path) -> Iterator[Path]:
        """Yield a file that recipes wait for; it is there at the end, whatever happens."""
        path = shared / "gate"
        yield path
        path.touch()

    @pytest.fixture
    def needs(self, engine: EngineUnderTest, runner: EngineRunner) -> Callable[[str], None]:
        """Skip a test that needs what the engine declares that it lacks."""

        def needs(capability: str) -> None:
            if not getattr(runner.capabilities_of(engine.cluster), capability):
                pytest.skip(f"the engine declares that it lacks {capability}")

        return needs

    @pytest.fixture
    def outage(self, engine: EngineUnderTest) -> Callable[[], AbstractContextManager[object]]:
        """Return the way to make the engine unreachable."""
        if engine.outage is None:
            pytest.skip("EngineUnderTest.outage gives no way to make the engine unreachable")
        return engine.outage

    @pytest.fixture
    def door(
        self,
        engine: EngineUnderTest,
        oracle: Oracle,
        request: pytest.FixtureRequest,
        _environment: None,
    ) -> Door:
        """Return the way past core to the engine; the tests of a class share it."""
        node = request.node.getparent(pytest.Class)
        door: Door | None = node.stash.get(_DOOR, None)
        if door is None or door.closed:
            door = node.stash[_DOOR] = Door(engine, dict(os.environ), oracle)
            node.stash[_CALLERS].append(door.owner)
            node.addfinalizer(door.close)
        return door

    @pytest.fixture
    def occupied(
        self,
        engine: EngineUnderTest,
        door: Door,
        oracle: Oracle,
        gate: Path,
        needs_room: Call,
        busy_workers: BusyWorkers,
    ) -> Iterator[list[Attempt]]:
        """Keep all workers busy past core; the file `gate` lets them go."""
        needs_room(1)
        attempts = [door.write("wait_for", path=str(gate)) for _ in range(engine.workers)]
        try:
            door.launch(*attempts)
            door.started(*attempts)
            assert not any(oracle.outcome(attempt.job_id) for attempt in attempts)
            busy_workers.add(attempt.job_id for attempt in attempts)
            yield attempts
        finally:
            gate.touch()
        if not door.closed:
            door.ended(*attempts)


def still_unbegun(oracle: Oracle, job_id: str, seconds: float) -> bool:
    """Watch that nobody begins a job for a time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if oracle.claimed(job_id):
            return False
        time.sleep(0.02)
    return True


def _left(token: str, callers: list[Owner]) -> list[psutil.Process]:
    """List what is alive of a class: by its mark, and by descent, where the mark was dropped."""
    found = living(MARK, token) + [each for caller in callers for each in caller.others()]
    return list({process.pid: process for process in found}.values())


def _all_gone(
    engine: EngineUnderTest, after: str, alive: Callable[[], list[psutil.Process]]
) -> None:
    """Check that no process of the engine outlives what has ended."""
    # What had begun may end first.
    limit = engine.linger_s + engine.start_s + 10 * engine.turn_s

    def what() -> str:
        return (
            f"after {after} these processes of the engine are alive {limit:g} s later: "
            f"{'; '.join(map(shown, alive()))}; what an engine starts must end with the process "
            "that it is for, also when that is killed (docs/writing-an-engine.md, "
            '"What your engine leaves as it was")'
        )

    try:
        eventually(lambda: not alive(), limit, what)
    except AssertionError:
        # Told once is enough, and they would disturb what follows.
        for process in alive():
            with contextlib.suppress(*TRANSIENT):
                process.kill()
        raise
