"""The base of the kit's tests: the object that they use, and fixtures that keep workers busy."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

import pytest

from crystalmath.quacc import JobState, get_runner
from crystalmath.quacc.engines import close_all
from crystalmath.testing.attempts import Door, aluminium, specification
from crystalmath.testing.contract.hooks import BUSY, BusyWorkers, attend
from crystalmath.testing.oracle import TRANSIENT, Oracle, found, living, none_left, shown
from crystalmath.testing.owner import MARK, RECIPES, Owner
from crystalmath.testing.pace import PaceError, measure
from crystalmath.testing.subject import Pace
from crystalmath.testing.waiting import eventually, within

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager

    import psutil

    from crystalmath.models import Attempt, Capabilities
    from crystalmath.quacc.engine import EngineRunner
    from crystalmath.testing.subject import EngineUnderTest

_T = TypeVar("_T")
#: A function that a fixture returns; its own docstring says how to call it.
Call: TypeAlias = "Callable[..., Any]"
_CLASS = pytest.StashKey["_Class"]()


class _Class:
    """State that the tests of a class share: a home, so that the engine is warm, and its pace."""

    def __init__(self, engine: EngineUnderTest, home: Path) -> None:
        self.home = home
        self.token = secrets.token_hex(8)
        self.callers: list[Owner] = []
        self.pace: Pace | PaceError | None = None
        #: Objects that the tests share, made by the first test that needs them.
        self.made: dict[str, Any] = {}
        engine.configure(home)

    def left(self) -> list[psutil.Process]:
        """Return its live processes, found by their mark and, without the mark, by descent."""
        left = living(MARK, self.token) + [each for one in self.callers for each in one.others()]
        return list({process.pid: process for process in left}.values())


class Kit:
    """The objects that a test needs, made on first use; the tests of a class share the `home`."""

    def __init__(
        self, engine: EngineUnderTest, home: Path, request: pytest.FixtureRequest, folder: Path
    ) -> None:
        self.engine = engine
        self.home = home
        self.oracle = Oracle(home)
        #: The processes of the test.
        self.owners: list[Owner] = []
        self._grandchildren: list[psutil.Process] = []
        self._request = request
        self._shared: _Class = _class_of(request).stash[_CLASS]
        self._folder = folder
        #: The jobs that keep all workers busy.
        self.busy = request.node.stash[BUSY] = BusyWorkers(engine, self.oracle)

    @cached_property
    def shared(self) -> Path:
        """A folder that is empty at first and that workers see under the same path."""
        return Path(tempfile.mkdtemp(dir=self.home, prefix="shared-"))

    @cached_property
    def gate(self) -> Path:
        """A file that recipes wait for; it always exists after the test."""
        return self.shared / "gate"

    @cached_property
    def pids(self) -> Path:
        """The parameter of `grandchild`: the file for the pids of its processes."""
        return self.shared / "pids"

    def grandchildren(self) -> list[psutil.Process]:
        """Wait for the processes that `grandchild` starts; they are killed at the end."""
        self.eventually(self.pids.exists, "the recipe started no process")
        self._grandchildren = found(map(int, self.pids.read_text(encoding="ascii").split()))
        return self._grandchildren

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
        if (door := self._shared.made.get("door")) is not None and door.closed:
            del self._shared.made["door"]
        return self.once("door", self._new_door)

    def _new_door(self) -> Door:
        door = Door(self.engine, self.oracle)
        self._shared.callers.append(door.owner)
        self.at_the_end(door.close)
        return door

    def once(self, what: str, make: Callable[[], _T]) -> _T:
        """Return an object that the tests of a class share; the first test makes it."""
        made = self._shared.made
        if what not in made:
            made[what] = make()
        shared: _T = made[what]
        return shared

    def at_the_end(self, call: Callable[[], object]) -> None:
        """Call a function once all tests of the class have run."""
        _class_of(self._request).addfinalizer(call)

    @property
    def unmeasured(self) -> PaceError | None:
        """The reason why no job could be measured, or ``None``."""
        return self._shared.pace if isinstance(self._shared.pace, PaceError) else None

    @property
    def capabilities(self) -> Capabilities:
        """The engine's capabilities on the cluster of the kit's jobs."""
        return self.runner.capabilities_of(self.engine.cluster)

    @property
    def room(self) -> int:
        """The number of attempts that core lets the engine have beside running ones."""
        return self.runner.capabilities.max_queued - self.engine.workers

    @property
    def outage(self) -> Callable[[], AbstractContextManager[object]]:
        """The way to make the engine unreachable; without one the test is skipped."""
        if self.engine.outage is None:
            pytest.skip("EngineUnderTest.outage gives no way to make the engine unreachable")
        return self.engine.outage

    def needs(self, capability: str) -> None:
        """Skip a test that needs a capability which the engine does not declare."""
        if not getattr(self.capabilities, capability):
            pytest.skip(f"the engine declares that it lacks {capability}")

    def needs_room(self, waiting: int) -> None:
        """Skip a test that queues more attempts in the engine than core ever does."""
        if self.room < waiting:
            pytest.skip(
                f"the engine cannot queue {waiting} attempts beside those that run: it declares "
                f"max_queued={self.runner.capabilities.max_queued}"
            )

    def submit(self, recipe: str, /, **parameters: Any) -> str:
        """Submit a recipe of the kit: ``submit("echo", x=1)``."""
        name = f"{RECIPES}.{recipe}"
        return self.runner.submit(name, aluminium(), self.engine.cluster, **parameters)

    def start(
        self, recipe: str, parameters: Mapping[str, Any], walltime_s: float | None = None
    ) -> str:
        """Start a recipe from a specification, as the service does: ``start("echo", {"x": 1})``."""
        cluster = self.engine.cluster
        spec = specification(recipe, parameters, cluster=cluster, walltime_s=walltime_s)
        self.runner.start(spec)
        return spec.job_id

    def finish(self, job_id: str, timeout: float | None = None) -> tuple[JobState, Any]:
        """Wait for a job: ``state, result = finish(job_id)``."""
        limit = self.engine.limit_s if timeout is None else timeout
        what = f"the job {job_id} did not finish"
        eventually(lambda: self.runner.get_status(job_id).is_terminal(), limit, what)
        return self.runner.get_status(job_id), self.runner.get_result(job_id)

    def started(self, *jobs: str) -> None:
        """Wait until workers have begun jobs, according to their files."""
        for job_id in jobs:
            self.eventually(partial(self.oracle.claimed, job_id), f"the job {job_id} was not begun")

    def are_begun(self, jobs: Iterable[str]) -> bool:
        """Wait for as long as one job may take; return whether workers have begun all jobs."""
        return within(lambda: all(map(self.oracle.claimed, jobs)), self.engine.limit_s)

    def outcome(self, job_id: str, what: str | Callable[[], str] = "") -> dict[str, Any]:
        """Wait for the outcome of a job, and return it from its files."""
        return self.oracle.ended(job_id, self.engine.limit_s, what)

    def eventually(self, condition: Callable[[], _T], what: str | Callable[[], str]) -> _T:
        """Wait for something for as long as the engine may take to run a job."""
        return eventually(condition, self.engine.limit_s, what)

    def owner(self, **environment: str) -> Owner:
        """Start a process that owns jobs of the same home; it is killed at the end.

        Keyword arguments are variables of its environment: ``owner(TMPDIR=...)``. Its standard
        error goes to ``owner.<number>.err`` in the folder of the test.
        """
        errors = self._folder / f"owner.{len(self.owners)}.err"
        variables = {**os.environ, **environment}
        self.owners.append(Owner(self.engine.name, variables, errors, self.engine.cluster))
        return self.owners[-1]

    def close(self) -> None:
        """End the processes of the test, and check that none is left."""
        if "gate" in vars(self):
            self.gate.touch()
        for owner in self.owners:
            owner.kill()
        for process in self._grandchildren:
            with contextlib.suppress(*TRANSIENT):
                process.kill()
        name = self._request.node.name
        for owner in self.owners:
            all_gone(self.engine, lambda: f"{name}, which killed its process,", owner.others)


class Base:
    """Fixtures; no tests."""

    @pytest.fixture
    def engine(self) -> EngineUnderTest:
        """Return the engine under test; an engine's author fills this in."""
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
        """Yield the `Kit` of a test, in the environment of the home that its class shares."""
        node = _class_of(request)
        if _CLASS not in node.stash:
            shared = node.stash[_CLASS] = _Class(engine, tmp_path_factory.mktemp("contract"))
            node.addfinalizer(lambda: all_gone(engine, lambda: "all tests", shared.left))
            node.addfinalizer(close_all)
        shared = node.stash[_CLASS]
        environment = engine.environ(shared.home)
        for name in os.environ.keys() - environment.keys():
            monkeypatch.delenv(name)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv(MARK, shared.token)
        attend(request)
        # Unless its author has set limits, the engine is measured before a class runs.
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
    def blocked(self, kit: Kit) -> Iterator[Path]:
        """Keep all workers busy; yield the file that lets them go."""
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
        """Keep all workers busy without core's help; the file `kit.gate` lets them go."""
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
    """Watch a job for some seconds; return whether nobody has begun it."""
    return not within(partial(oracle.claimed, job_id), seconds)


def all_gone(
    engine: EngineUnderTest, after: Callable[[], str], alive: Callable[[], list[psutil.Process]]
) -> None:
    """Check that no process of the engine outlives the process that used it."""
    # Jobs that had begun may end first.
    limit = engine.linger_s + engine.limit_s

    def what() -> str:
        return (
            f"after {after()} these processes of the engine are alive {limit:g} s later: "
            f"{'; '.join(map(shown, alive()))}; processes of an engine must end with the process "
            "that uses it, also when that is killed (docs/engine-contract.md, "
            '"What your engine leaves as it was")'
        )

    try:
        eventually(none_left(alive), limit, what)
    except AssertionError:
        # One report is enough, and they would disturb the next tests.
        for process in alive():
            with contextlib.suppress(*TRANSIENT):
                process.kill()
        raise
