"""`close()`, and the end of a process: jobs are cancelled, and nothing is left."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pytest

from crystalmath.testing.contract.base import Base
from crystalmath.testing.oracle import alive, below, found, links, listed, none_left, start_time
from crystalmath.testing.owner import AwayError, Owner, OwnerError
from crystalmath.testing.traces import is_channel, is_leaked, segments
from crystalmath.testing.waiting import eventually, own_time

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from crystalmath.testing.contract.base import Kit
    from crystalmath.testing.oracle import Oracle

#: How long `close` may take, in seconds.
CLOSE_S = 60.0
#: How long a thread or a socket may outlive `close`, in seconds.
LINGER_S = 30.0
#: So long a job waits that is not let go, in seconds: those of a test are begun one after another,
#: on a cluster minutes apart.
LONG_S = 1800.0
#: What Python says when something goes wrong at its exit, or was left behind by then.
_TROUBLE = (
    "Traceback (most recent call last)",
    "Exception ignored in",
    "Fatal Python error",
    "resource_tracker: ",
)
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Tenant:
    """A process that owns jobs, and everything that it could leave behind."""

    def __init__(self, kit: Kit, folder: Path) -> None:
        self._kit = kit
        self._temporary = folder / "tmp"
        self._temporary.mkdir()
        self._errors = folder / "errors"
        self._born = time.time()
        self._segments: set[str] = set()
        self._before = self._litter()
        environment = {**os.environ, "TMPDIR": str(self._temporary)}
        self.owner = Owner(kit.engine.name, environment, self._errors, kit.engine.cluster)
        # What its imports start is no engine's.
        self.ask("write", "echo")
        self._sockets = self._count_sockets()

    @property
    def errors(self) -> str:
        """What it wrote to standard error."""
        return self._errors.read_text(errors="replace")

    def ask(self, method: str, *arguments: Any, **keywords: Any) -> Any:
        """Ask the process; see which shared memory it and what it has started hold."""
        answer = self.owner.ask(method, *arguments, **keywords)
        for process in (self.owner.process, *self.owner.others()):
            self._segments |= segments(process.pid)
        return answer

    def submit(self, recipe: str, times: int, **parameters: str | float) -> list[str]:
        """Submit some jobs."""
        jobs: list[str] = self.ask("submit", recipe, times, **parameters)
        return jobs

    def calls(self, method: str, jobs: list[str]) -> None:
        """Have the engine probe or release jobs, past core, if it can be reached just now."""
        with contextlib.suppress(AwayError):
            self.ask(method, jobs)

    def begin(self, recipe: str, **parameters: str | float) -> list[str]:
        """Submit a job to each worker; they are begun."""
        jobs = self.submit(recipe, self._kit.engine.workers, **parameters)
        self._kit.started(*jobs)
        return jobs

    def finishes(self, job_id: str) -> None:
        """Wait until a job has completed."""
        what = "it did not finish"
        self._kit.eventually(lambda: self.ask("status", job_id) == "completed", what)

    def leaves_nothing(self) -> None:
        """Check that nothing is left, whether the process itself has ended or not."""
        # A turn tells how slow the machine is.
        turns = 10 * self._kit.engine.turn_s
        linger = max(LINGER_S, turns)
        if not self.owner.closed:
            eventually(lambda: not self._threads(), linger, self._told_of_threads)
            eventually(self._has_no_sockets, linger, "a socket is still open")
        limit = self._kit.engine.linger_s + turns
        eventually(none_left(self.owner.others), limit, self._processes)
        left = sorted(map(str, below(self._temporary)))
        assert not left, f"temporary files are left: {left}"
        # What somebody else on this machine makes meanwhile comes and goes.
        litter = self._litter() - self._before

        def is_gone() -> bool:
            if litter and self.owner.process.poll() is None:
                self.ask("collect")
            litter.intersection_update(self._litter())
            return not litter

        eventually(is_gone, linger, lambda: f"these are left: {sorted(litter)}")

    def _threads(self) -> list[str]:
        """Name the threads that do more than wait for Python's garbage collector."""
        self.owner.ask("collect")
        threads: list[str] = self.owner.ask("threads")
        return threads

    def _told_of_threads(self) -> str:
        return f"these threads go on: {self._threads()}"

    def _has_no_sockets(self) -> bool:
        self.owner.ask("collect")
        return self._count_sockets() <= self._sockets

    def _processes(self) -> str:
        return f"these processes go on: {[str(process) for process in self.owner.others()]}"

    def _count_sockets(self) -> int:
        opened = links(f"/proc/{self.owner.process.pid}/fd")
        return sum(name.startswith("socket:") for name in opened)

    def _litter(self) -> set[str]:
        """List what nobody needs any more once a process of this home is closed."""
        home = self._kit.oracle.home
        files = below(home / "engines" / self._kit.engine.name)
        channels = {str(path) for path in files if is_channel(path)}
        # An idle chain inside a worker that somebody else started may live for a while.
        names = listed(home / "jobs" / ".identities")
        whole = (path for path in names if not path.name.startswith("."))  # those are being written
        identities = {str(path) for path in whole if not _is_of_a_living(path)}
        return (
            channels | identities | {each for each in self._segments if is_leaked(each, self._born)}
        )


def _is_of_a_living(identity: Path) -> bool:
    try:
        with identity.open("rb") as file:
            fields = json.loads(file.readline())
    except FileNotFoundError:
        return False
    # That of a process on another host is for who comes after it there.
    is_here = fields["boot_id"] == _BOOT.read_text(encoding="ascii").strip()
    return not is_here or start_time(fields["pid"]) == fields["start_time"]


class Closing(Base):
    """Each test looks at a process of its own, past every interface of the engine."""

    guide: ClassVar[str] = "Release and stop"

    @pytest.fixture
    def tenant(self, kit: Kit, tmp_path: Path) -> Iterator[Tenant]:
        """Yield a process that is going to be closed, on an engine that somebody else uses, too."""
        # A server that the engine shares between processes is none of the new one's leavings.
        kit.finish(kit.submit("echo"))
        tenant = Tenant(kit, tmp_path)
        yield tenant
        tenant.owner.kill()

    def test_close_of_an_idle_engine(self, kit: Kit, tenant: Tenant) -> None:
        (job_id,) = tenant.submit("echo", 1)
        tenant.finishes(job_id)
        tenant.ask("close")
        tenant.leaves_nothing()
        assert tenant.ask("status", job_id) == "completed"
        assert kit.oracle.state(job_id) == "completed"

    def test_close_of_an_engine_that_was_not_used(self, tenant: Tenant) -> None:
        tenant.ask("close")
        tenant.leaves_nothing()

    def test_close_cancels_what_is_unfinished(self, kit: Kit, tenant: Tenant) -> None:
        never = str(kit.shared / "never")
        jobs = tenant.begin("wait_for", path=never, seconds=LONG_S) + tenant.submit(
            "wait_for", 3, path=never
        )
        began = own_time()
        tenant.ask("close")
        assert own_time() - began < CLOSE_S
        _all_cancelled(kit.oracle, jobs)
        assert {tenant.ask("status", job_id) for job_id in jobs} == {"cancelled"}
        assert tenant.ask("result", jobs[0]) == {"error": "cancelled"}
        tenant.leaves_nothing()

    def test_close_that_lets_go(self, kit: Kit, tenant: Tenant) -> None:
        """A server that is stopped: what runs goes on, and the next one follows all of it."""
        running = tenant.begin("wait_for", path=str(kit.gate), seconds=LONG_S)
        waiting = tenant.submit("wait_for", 1, path=str(kit.gate))
        tenant.ask("close", cancel=False)
        ended = [job_id for job_id in running + waiting if kit.oracle.outcome(job_id)]
        assert not ended, f"jobs that were to be let go were ended: {ended}"
        if kit.capabilities.workers_here:
            supervisors = found(kit.oracle.supervisor(job_id) for job_id in running)
            assert len(alive(supervisors)) == len(running)
        # This process takes them over while that one is still there.
        assert {kit.runner.get_status(job_id).value for job_id in running} == {"running"}
        kit.gate.touch()
        assert {kit.finish(job_id)[0] for job_id in running + waiting} == {"completed"}
        assert {kit.oracle.attempts(job_id) for job_id in running} == {1}
        tenant.leaves_nothing()

    def test_closing_twice(self, kit: Kit, tenant: Tenant) -> None:
        jobs = tenant.submit("wait_for", 1, path=str(kit.shared / "never"))
        tenant.ask("close")
        tenant.ask("close")
        _all_cancelled(kit.oracle, jobs)
        tenant.leaves_nothing()

    def test_submit_after_close(self, kit: Kit, tenant: Tenant) -> None:
        tenant.ask("close")
        before = kit.oracle.jobs()
        with pytest.raises(AwayError):
            tenant.submit("echo", 1)
        assert kit.oracle.jobs() == before
        tenant.leaves_nothing()

    def test_runner_after_close(self, kit: Kit, tenant: Tenant) -> None:
        tenant.submit("wait_for", 1, path=str(kit.shared / "never"))
        tenant.ask("close")
        assert tenant.ask("renew"), "get_runner gives the runner that was closed"
        (job_id,) = tenant.submit("echo", 1)
        tenant.finishes(job_id)
        tenant.ask("close")
        tenant.leaves_nothing()

    def test_script_that_does_not_close(self, kit: Kit, tenant: Tenant) -> None:
        never = str(kit.shared / "never")
        jobs = tenant.begin("wait_for", path=never, seconds=LONG_S) + tenant.submit(
            "wait_for", 1, path=never
        )
        # What was asked of the engine must not hold up the end, either.
        tenant.calls("probe", jobs)
        assert tenant.owner.leave() == 0
        # What an engine says in its log is no trouble: by default warnings go there, too.
        trouble = [sign for sign in _TROUBLE if sign in tenant.errors]
        assert not trouble, f"the end of a script brings trouble to light: {tenant.errors}"
        _all_cancelled(kit.oracle, jobs)
        tenant.leaves_nothing()

    @pytest.mark.parametrize("call", ["probe", "release"])
    def test_stop_without_a_launch(self, tenant: Tenant, call: str) -> None:
        """Core has taken over what another process launched, and leaves again."""
        tenant.calls(call, [tenant.ask("write", "echo")])
        tenant.ask("stop")
        tenant.leaves_nothing()

    def test_script_that_raises(self, kit: Kit, tenant: Tenant) -> None:
        jobs = tenant.begin("wait_for", path=str(kit.shared / "never"), seconds=LONG_S)
        with pytest.raises(OwnerError, match="ended with 1 "):
            tenant.ask("crash")
        assert "as the test wanted" in tenant.errors
        _all_cancelled(kit.oracle, jobs)
        tenant.leaves_nothing()


def _all_cancelled(oracle: Oracle, jobs: list[str]) -> None:
    for job_id in jobs:
        end = oracle.end(job_id)
        assert end is not None, f"{job_id} was left unfinished"
        assert end == "cancelled"
        assert oracle.processes(job_id) == []
