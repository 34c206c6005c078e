"""Tests of `close()` and of the end of a process: jobs are cancelled, and nothing is left."""

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
#: How long a job waits that is never let go, in seconds: the jobs of a test begin one after
#: another, on a cluster minutes apart.
LONG_S = 1800.0
#: Python's messages about errors at its exit.
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
        # The imports of this call may open something that is not the engine's.
        self.ask("write", "echo")
        self._sockets = self._count_sockets()

    @property
    def errors(self) -> str:
        """The process's standard error."""
        return self._errors.read_text(errors="replace")

    def ask(self, method: str, *arguments: Any, **keywords: Any) -> Any:
        """Call a method of the process; note the shared memory of it and of its children."""
        answer = self.owner.ask(method, *arguments, **keywords)
        for process in (self.owner.process, *self.owner.others()):
            self._segments |= segments(process.pid)
        return answer

    def submit(self, recipe: str, times: int, **parameters: str | float) -> list[str]:
        """Submit some jobs."""
        jobs: list[str] = self.ask("submit", recipe, times, **parameters)
        return jobs

    def calls(self, method: str, jobs: list[str]) -> None:
        """Call `probe` or `release` of the engine directly, if it can be reached."""
        with contextlib.suppress(AwayError):
            self.ask(method, jobs)

    def begin(self, recipe: str, **parameters: str | float) -> list[str]:
        """Submit a job to each worker, and wait until they have begun."""
        jobs = self.submit(recipe, self._kit.engine.workers, **parameters)
        self._kit.started(*jobs)
        return jobs

    def finishes(self, job_id: str) -> None:
        """Wait until a job has completed."""
        what = "it did not finish"
        self._kit.eventually(lambda: self.ask("status", job_id) == "completed", what)

    def leaves_nothing(self) -> None:
        """Check that nothing is left behind; the process itself may have ended or not."""
        # A turn is longer on a slow machine.
        turns = 10 * self._kit.engine.turn_s
        linger = max(LINGER_S, turns)
        if not self.owner.closed:
            eventually(lambda: not self._threads(), linger, self._threads_message)
            eventually(self._has_no_sockets, linger, "a socket is still open")
        limit = self._kit.engine.linger_s + turns
        eventually(none_left(self.owner.others), limit, self._processes)
        left = sorted(map(str, below(self._temporary)))
        assert not left, f"temporary files are left: {left}"
        # Files of other programs of this machine come and go meanwhile.
        litter = self._litter() - self._before

        def is_gone() -> bool:
            if litter and self.owner.process.poll() is None:
                self.ask("collect")
            litter.intersection_update(self._litter())
            return not litter

        eventually(is_gone, linger, lambda: f"these are left: {sorted(litter)}")

    def _threads(self) -> list[str]:
        """Return the names of the threads that are left after a garbage collection."""
        self.owner.ask("collect")
        threads: list[str] = self.owner.ask("threads")
        return threads

    def _threads_message(self) -> str:
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
        """Return the files that must be gone once a process of this home is closed."""
        home = self._kit.oracle.home
        files = below(home / "engines" / self._kit.engine.name)
        channels = {str(path) for path in files if is_channel(path)}
        # An idle chain in a worker that another process started may live for a while.
        names = listed(home / "jobs" / ".identities")
        whole = (path for path in names if not path.name.startswith("."))  # not being written
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
    # The file of a process on another host is for its next owner there.
    is_here = fields["boot_id"] == _BOOT.read_text(encoding="ascii").strip()
    return not is_here or start_time(fields["pid"]) == fields["start_time"]


class Closing(Base):
    """The end of a process, observed from outside, without the engine's help."""

    guide: ClassVar[str] = "Release and stop"

    @pytest.fixture
    def tenant(self, kit: Kit, tmp_path: Path) -> Iterator[Tenant]:
        """Yield a process that will be closed, on an engine that this process uses as well."""
        # A server that processes share may stay, so it must not be the new process that starts it.
        kit.finish(kit.submit("echo"))
        tenant = Tenant(kit, tmp_path)
        yield tenant
        tenant.owner.kill()

    def test_close_of_an_idle_engine(self, kit: Kit, tenant: Tenant) -> None:
        """After a completed job `close` leaves no thread, process, socket or file behind."""
        (job_id,) = tenant.submit("echo", 1)
        tenant.finishes(job_id)
        tenant.ask("close")
        tenant.leaves_nothing()
        assert tenant.ask("status", job_id) == "completed"
        assert kit.oracle.state(job_id) == "completed"

    def test_close_of_an_engine_that_was_not_used(self, tenant: Tenant) -> None:
        """`close` without any job leaves nothing behind."""
        tenant.ask("close")
        tenant.leaves_nothing()

    def test_close_cancels_what_is_unfinished(self, kit: Kit, tenant: Tenant) -> None:
        """`close` ends running jobs, and drops waiting ones; all of them read cancelled."""
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
        """`close(cancel=False)`, as of a server: jobs go on, and the next owner follows them."""
        running = tenant.begin("wait_for", path=str(kit.gate), seconds=LONG_S)
        waiting = tenant.submit("wait_for", 1, path=str(kit.gate))
        tenant.ask("close", cancel=False)
        ended = [job_id for job_id in running + waiting if kit.oracle.outcome(job_id)]
        assert not ended, f"jobs that were to be let go were ended: {ended}"
        if kit.capabilities.workers_here:
            supervisors = found(kit.oracle.supervisor(job_id) for job_id in running)
            assert len(alive(supervisors)) == len(running)
        # This process takes them over while the other one is still alive.
        assert {kit.runner.get_status(job_id).value for job_id in running} == {"running"}
        kit.gate.touch()
        assert {kit.finish(job_id)[0] for job_id in running + waiting} == {"completed"}
        assert {kit.oracle.attempts(job_id) for job_id in running} == {1}
        tenant.leaves_nothing()

    def test_closing_twice(self, kit: Kit, tenant: Tenant) -> None:
        """A second `close` does nothing."""
        jobs = tenant.submit("wait_for", 1, path=str(kit.shared / "never"))
        tenant.ask("close")
        tenant.ask("close")
        _all_cancelled(kit.oracle, jobs)
        tenant.leaves_nothing()

    def test_submit_after_close(self, kit: Kit, tenant: Tenant) -> None:
        """`submit` raises `EngineUnavailable`, and records no job."""
        tenant.ask("close")
        before = kit.oracle.jobs()
        with pytest.raises(AwayError):
            tenant.submit("echo", 1)
        assert kit.oracle.jobs() == before
        tenant.leaves_nothing()

    def test_runner_after_close(self, kit: Kit, tenant: Tenant) -> None:
        """`get_runner` then returns a new runner, which runs jobs."""
        tenant.submit("wait_for", 1, path=str(kit.shared / "never"))
        tenant.ask("close")
        assert tenant.ask("renew"), "get_runner returns the runner that was closed"
        (job_id,) = tenant.submit("echo", 1)
        tenant.finishes(job_id)
        tenant.ask("close")
        tenant.leaves_nothing()

    def test_script_that_does_not_close(self, kit: Kit, tenant: Tenant) -> None:
        """The end of a script closes its engine: no error message, no job, nothing left."""
        never = str(kit.shared / "never")
        jobs = tenant.begin("wait_for", path=never, seconds=LONG_S) + tenant.submit(
            "wait_for", 1, path=never
        )
        # A probe before the end must not hold it up, either.
        tenant.calls("probe", jobs)
        assert tenant.owner.leave() == 0
        # Messages of the engine's log are no trouble: by default warnings go there, too.
        trouble = [sign for sign in _TROUBLE if sign in tenant.errors]
        assert not trouble, f"errors at the end of a script: {tenant.errors}"
        _all_cancelled(kit.oracle, jobs)
        tenant.leaves_nothing()

    @pytest.mark.parametrize("call", ["probe", "release"])
    def test_stop_without_a_launch(self, tenant: Tenant, call: str) -> None:
        """`probe` or `release` alone, for a job of another process, leaves nothing to `stop`."""
        tenant.calls(call, [tenant.ask("write", "echo")])
        tenant.ask("stop")
        tenant.leaves_nothing()

    def test_script_that_raises(self, kit: Kit, tenant: Tenant) -> None:
        """A script that ends with an exception has its jobs cancelled, too."""
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
