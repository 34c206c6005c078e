"""What the tests of the kit have in common: one object, and the fixtures that keep workers busy."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
import time
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

import pytest
from ase.build import bulk

from crystalmath import config
from crystalmath.models import JobSpec
from crystalmath.quacc import JobState, get_runner
from crystalmath.quacc.engine import submission_environment
from crystalmath.quacc.engines import close_all
from crystalmath.quacc.runner import generate_job_id
from crystalmath.testing.attempts import Door, attempt_of, write_down
from crystalmath.testing.contract.hooks import BUSY, BusyWorkers, explain, judge_room
from crystalmath.testing.oracle import TRANSIENT, Oracle, living, shown
from crystalmath.testing.owner import MARK, RECIPES, Owner
from crystalmath.testing.pace import PaceError, measure
from crystalmath.testing.subject import Pace
from crystalmath.testing.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    import psutil

    from crystalmath.models import Attempt, Capabilities
    from crystalmath.quacc.engine import EngineRunner
    from crystalmath.testing.subject import EngineUnderTest

_T = TypeVar("_T")
#: A function that a fixture gives; its own docstring says how it is called.
Call: TypeAlias = "Callable[..., Any]"
AL = bulk("Al", a=4.05)
_DOOR = pytest.StashKey[Door]()
_CLASS = pytest.StashKey["_Class"]()


class _Class:
    """What the tests of a class share: a home, so that the engine is warm, and its pace."""

    def __init__(self, engine: EngineUnderTest, home: Path) -> None:
        self.home = home
        self.token = secrets.token_hex(8)
        self.callers: list[Owner] = []
        self.pace: Pace | PaceError | None = None
        engine.configure(home)

    def left(self) -> list[psutil.Process]:
        """List what is alive of it: by its mark, and by descent, where the mark was dropped."""
        found = living(MARK, self.token) + [each for one in self.callers for each in one.others()]
        return list({process.pid: process for process in found}.values())


class Kit:
    """What a test needs, made when it is asked for; the tests of a class share the `home`."""

    def __init__(
        self, engine: EngineUnderTest, home: Path, request: pytest.FixtureRequest, folder: Path
    ) -> None:
        self.engine = engine
        self.home = home
        self.oracle = Oracle(home)
        #: The processes of the test.
        self.owners: list[Owner] = []
        self._request = request
        self._folder = folder
        #: What knows the jobs that keep all workers busy.
        self.busy = request.node.stash[BUSY] = BusyWorkers(engine, self.oracle)

    @cached_property
    def shared(self) -> Path:
        """An empty folder that workers see under the same path."""
        return Path(tempfile.mkdtemp(dir=self.home, prefix="shared-"))

    @cached_property
    def gate(self) -> Path:
        """A file that recipes wait for; it is there at the end, whatever happens."""
        return self.shared / "gate"

    @cached_property
    def counted(self) -> dict[str, str]:
        """The parameters of `count_and_wait`: it marks each run, and waits for `gate`."""
        return {"count": str(self.shared / "count"), "path": str(self.gate)}

    @cached_property
    def runner(self) -> EngineRunner:
        """The runner, in this process and warm."""
        return cast("EngineRunner", get_runner(self.engine.name))

    @cached_property
    def door(self) -> Door:
        """The way past core to the engine; the tests of a class share it."""
        node = _class_of(self._request)
        door: Door | None = node.stash.get(_DOOR, None)
        if door is None or door.closed:
            door = node.stash[_DOOR] = Door(self.engine, self.oracle)
            node.stash[_CLASS].callers.append(door.owner)
            node.addfinalizer(door.close)
        return door

    @property
    def capabilities(self) -> Capabilities:
        """What the engine can do on the cluster of the kit's jobs."""
        return self.runner.capabilities_of(self.engine.cluster)

    @property
    def room(self) -> int:
        """How many attempts core lets the engine have beside those that run."""
        return self.runner.capabilities.max_queued - self.engine.workers

    @property
    def outage(self) -> Callable[[], AbstractContextManager[object]]:
        """The way to make the engine unreachable; without one the test is skipped."""
        if self.engine.outage is None:
            pytest.skip("EngineUnderTest.outage gives no way to make the engine unreachable")
        return self.engine.outage

    def needs(self, capability: str) -> None:
        """Skip a test that needs what the engine declares that it lacks."""
        if not getattr(self.capabilities, capability):
            pytest.skip(f"the engine declares that it lacks {capability}")

    def needs_room(self, waiting: int) -> None:
        """Skip a test that has more wait in the engine's queue than core ever does."""
        if self.room < waiting:
            pytest.skip(
                f"the engine has no queue for {waiting} more than run at once: it declares "
                f"max_queued={self.runner.capabilities.max_queued}"
            )

    def submit(self, recipe: str, /, **parameters: Any) -> str:
        """Submit a recipe of the kit: ``submit("echo", x=1)``."""
        name = f"{RECIPES}.{recipe}"
        return self.runner.submit(name, AL, self.engine.cluster, **parameters)

    def start(
        self, recipe: str, parameters: Mapping[str, Any], walltime_s: float | None = None
    ) -> str:
        """Start a recipe by a specification, as the service does: ``start("echo", {"x": 1})``."""
        spec = JobSpec(
            job_id=generate_job_id(),
            recipe=f"{RECIPES}.{recipe}",
            atoms=AL,
            parameters=parameters,
            cluster=self.engine.cluster,
            walltime_s=walltime_s,
            environment=submission_environment(config.load()),
        )
        self.runner.start(spec)
        return spec.job_id

    def finish(self, job_id: str, timeout: float | None = None) -> tuple[JobState, Any]:
        """Wait for a job: ``state, result = finish(job_id)``."""
        limit = self.engine.limit_s if timeout is None else timeout
        what = f"the job {job_id} did not finish"
        eventually(lambda: self.runner.get_status(job_id).is_terminal(), limit, what)
        return self.runner.get_status(job_id), self.runner.get_result(job_id)

    def started(self, *jobs: str) -> None:
        """Wait until jobs were begun by workers, as their files tell."""
        self.oracle.begun(jobs, self.engine.limit_s)

    def outcome(self, job_id: str, what: str | Callable[[], str] = "") -> dict[str, Any]:
        """Wait for the outcome of a job, as its files tell."""
        return self.oracle.ended(job_id, self.engine.limit_s, what)

    def eventually(self, condition: Callable[[], _T], what: str | Callable[[], str]) -> _T:
        """Wait for something for as long as the engine may take to run a job."""
        return eventually(condition, self.engine.limit_s, what)

    def write(self, recipe: str, /, **parameters: Any) -> Attempt:
        """Write a job down that only the test launches: ``attempt = write("echo")``."""
        cluster = self.engine.cluster
        job_id = write_down(self.home, self.engine.name, recipe, cluster, **parameters)
        return attempt_of(self.home, job_id, cluster=cluster)

    def owner(self, **environment: str) -> Owner:
        """Start a process that owns jobs of the same home; it is killed at the end.

        What is given goes into its environment: ``owner(TMPDIR=...)``. Its standard error goes
        to ``owner.<number>.err`` in the folder of the test.
        """
        errors = self._folder / f"owner.{len(self.owners)}.err"
        given = {**os.environ, **environment}
        self.owners.append(Owner(self.engine.name, given, errors, self.engine.cluster))
        return self.owners[-1]

    def close(self) -> None:
        """End what the test has started, and check that nothing is left."""
        if "gate" in vars(self):
            self.gate.touch()
        for owner in self.owners:
            owner.kill()
        name = self._request.node.name
        for owner in self.owners:
            _all_gone(self.engine, f"{name}, which killed its process,", owner.others)


class Base:
    """Fixtures; no tests."""

    @pytest.fixture
    def engine(self) -> EngineUnderTest:
        """Give the engine's name and what it needs; an engine author fills this in."""
        raise NotImplementedError("fill in the fixture `engine` (crystalmath.testing)")

    @pytest.fixture(autouse=True)
    def kit(
        self,
        engine: EngineUnderTest,
        request: pytest.FixtureRequest,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path_factory: pytest.TempPathFactory,
        tmp_path: Path,
    ) -> Iterator[Kit]:
        """Yield what a test needs, in the environment of the home that its class shares."""
        node = _class_of(request)
        if _CLASS not in node.stash:
            shared = node.stash[_CLASS] = _Class(engine, tmp_path_factory.mktemp("contract"))
            node.addfinalizer(lambda: _all_gone(engine, "all tests", shared.left))
            node.addfinalizer(close_all)
        shared = node.stash[_CLASS]
        environment = engine.environ(shared.home)
        for name in os.environ.keys() - environment.keys():
            monkeypatch.delenv(name)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv(MARK, shared.token)
        explain(request)
        judge_room(request)
        # Unless its author has set limits, it is measured before anything of a class runs.
        if shared.pace is None and not engine.has_limits:
            try:
                shared.pace = measure(engine, tmp_path_factory.mktemp("pace"))
            except PaceError as error:
                shared.pace = error
        if isinstance(shared.pace, Pace):
            engine.pace = shared.pace
        kit = Kit(engine, shared.home, request, tmp_path)
        yield kit
        kit.close()

    @pytest.fixture
    def unmeasured(self, request: pytest.FixtureRequest) -> PaceError | None:
        """Return the reason why no job could be measured, if none could."""
        pace = _class_of(request).stash[_CLASS].pace
        return pace if isinstance(pace, PaceError) else None

    @pytest.fixture
    def blocked(self, kit: Kit) -> Iterator[Path]:
        """Keep all workers busy; the file that it gives lets them go."""
        go = kit.shared / "unblock"
        blockers = [kit.submit("wait_for", path=str(go)) for _ in range(kit.engine.workers)]
        kit.started(*blockers)
        kit.busy.add(blockers)
        yield go
        go.touch()
        for job_id in blockers:
            kit.finish(job_id)

    @pytest.fixture
    def occupied(self, kit: Kit) -> Iterator[list[Attempt]]:
        """Keep all workers busy past core; the file `kit.gate` lets them go."""
        kit.needs_room(1)
        door, path = kit.door, str(kit.gate)
        attempts = [door.write("wait_for", path=path) for _ in range(kit.engine.workers)]
        try:
            door.launch(*attempts)
            door.started(*attempts)
            assert not any(kit.oracle.outcome(attempt.job_id) for attempt in attempts)
            kit.busy.add(attempt.job_id for attempt in attempts)
            yield attempts
        finally:
            kit.gate.touch()
        if not door.closed:
            door.ended(*attempts)


def _class_of(request: pytest.FixtureRequest) -> Any:
    return request.node.getparent(pytest.Class)


def still_unbegun(oracle: Oracle, job_id: str, seconds: float) -> bool:
    """Watch that nobody begins a job for a time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if oracle.claimed(job_id):
            return False
        time.sleep(0.02)
    return True


def _all_gone(
    engine: EngineUnderTest, after: str, alive: Callable[[], list[psutil.Process]]
) -> None:
    """Check that no process of the engine outlives what has ended."""
    # What had begun may end first.
    limit = engine.linger_s + engine.limit_s

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
