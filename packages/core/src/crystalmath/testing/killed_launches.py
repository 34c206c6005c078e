"""Kill owners at each moment of a launch, and of the engine's start after it."""

from __future__ import annotations

import contextlib
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from crystalmath.testing.contract.base import all_gone
from crystalmath.testing.oracle import below, found
from crystalmath.testing.owner import AwayError
from crystalmath.testing.traces import (
    is_channel,
    is_leaked,
    names_in_use,
    segments,
    unix_sockets,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import psutil

    from crystalmath.testing.contract.base import Kit
    from crystalmath.testing.oracle import Oracle
    from crystalmath.testing.owner import Owner

BEFORE, BEGINS = "before a launch", "as a launch begins"
MIDDLE, AFTER = "in the middle of a launch", "after a launch"
#: The calls that core may make without any launch, for jobs that it has taken over.
CALLED = {"probe": "after a probe", "release": "after a release"}
CLAIMED, OVER = "as its first job begins", "once its first job is over"
#: An engine is watched until its first job is over, at least and at most so long, in seconds.
LEAST_S, MOST_S = 2.0, 15.0
#: The most owners that are killed at the start of a process.
MOST_PROCESSES = 5
_TICK = 0.001


class KilledLaunches:
    """Owners that launch a job, one after another, and are killed; `folder` is their TMPDIR."""

    def __init__(self, kit: Kit, folder: Path) -> None:
        self._kit = kit
        self._temporary = folder
        self._born = time.time()
        self._channels = self._list_channels()
        self._segments: set[str] = set()
        self._sockets: set[str] = set()
        self.killed: dict[str, Owner] = {}

    def kill_all(self) -> None:
        """Kill owners at all moments; the first two show how long a launch takes and starts."""
        took = self._answer()
        counts = self._watch()
        self._kill(BEFORE)
        for method, moment in CALLED.items():
            self._call(method, moment)
        self._kill(BEGINS, lambda _: True)
        end = took / 2
        self._kill(MIDDLE, lambda launch: launch.age >= end)
        self._kill(CLAIMED, lambda launch: launch.claimed or launch.age > MOST_S)
        for count in counts:
            moment = f"at the process number {count} that it started"
            self._kill(moment, partial(_Launch.has_started, count=count))

    def left(self) -> list[str]:
        """Return the files and the shared memory that nobody uses any more."""
        files = (path for path in below(self._temporary) if not path.is_symlink())
        left = {str(path) for path in files if not path.is_dir()}
        left |= self._list_channels() - self._channels
        # In any folder, as in /tmp. A socket that is in use was made again by another program.
        unused = self._sockets - names_in_use()
        left |= {name for name in unused if is_channel(Path(name))}
        return sorted(left | {each for each in self._segments if is_leaked(each, self._born)})

    def tidy_up(self) -> None:
        """Have another process run a job and close its engine, which may tidy up."""
        owner = self._new()
        attempt = self._kit.door.write("echo")
        self._kit.door.launch(attempt, by=owner)
        self._kit.door.ended(attempt)
        owner.ask("close")
        owner.kill()

    def _answer(self) -> float:
        """Kill an owner after its launch; return how long the launch took, in seconds."""
        owner, attempt = self._new(), self._kit.door.write("echo")
        began = time.monotonic()
        self._kit.door.launch(attempt, by=owner)
        took = time.monotonic() - began
        self._put_down(AFTER, owner)
        return took

    def _call(self, method: str, moment: str) -> None:
        """Kill an owner after a call about a job that it has not launched."""
        owner, attempt = self._new(), self._kit.door.write("echo")
        with contextlib.suppress(AwayError):
            owner.ask(method, [attempt.job_id])
        self._put_down(moment, owner)

    def _watch(self) -> list[int]:
        """Kill an owner after its job; return at which numbers of processes to kill others."""
        launch = self._launch()
        counts: list[int] = []
        while not launch.over:
            if (count := launch.count()) > (counts[-1] if counts else 0):
                counts.append(count)
            time.sleep(_TICK)
        processes = [*found([launch.owner.process.pid]), *launch.owner.others()]
        for process in processes:
            self._segments |= segments(process.pid)
        self._sockets |= {each for each in unix_sockets(processes) if not each.startswith("@")}
        self._put_down(OVER, launch.owner)
        if counts and counts[-1] <= MOST_PROCESSES:
            # Processes that came at the same moment may come one by one the next time.
            return list(range(1, counts[-1] + 1))
        # Processes of the same moment count once. Some moments are chosen if there are many.
        last = len(counts) - 1
        chosen = {round(last * n / (MOST_PROCESSES - 1)) for n in range(MOST_PROCESSES)}
        return [counts[n] for n in sorted(chosen) if 0 <= n <= last] or [1]

    def _kill(self, moment: str, has_come: Callable[[_Launch], bool] | None = None) -> None:
        if has_come is None:
            self._put_down(moment, self._new())
            return
        launch = self._launch()
        while not has_come(launch):
            time.sleep(_TICK)
        self._put_down(moment, launch.owner)

    def _launch(self) -> _Launch:
        return _Launch(self._new(), self._kit.door.write("echo").job_id, self._kit.oracle)

    def _new(self) -> Owner:
        """Start a process that has imported everything, and made its engine."""
        owner = self._kit.owner(TMPDIR=str(self._temporary))
        owner.ask("threads")
        return owner

    def _put_down(self, moment: str, owner: Owner) -> None:
        owner.kill()
        self.killed[moment] = owner

    def _list_channels(self) -> set[str]:
        files = below(self._kit.home / "engines" / self._kit.engine.name)
        return {str(path) for path in files if is_channel(path)}

    def wait_for_the_end(self) -> None:
        """Check that no process of a killed owner is alive."""

        def after() -> str:
            moments = [moment for moment, owner in self.killed.items() if owner.others()]
            return f"its owner was killed {' and '.join(moments)}"

        def alive() -> list[psutil.Process]:
            return [process for owner in self.killed.values() for process in owner.others()]

        all_gone(self._kit.engine, after, alive)


class _Launch:
    """A launch that a process is making."""

    def __init__(self, owner: Owner, job_id: str, oracle: Oracle) -> None:
        self.owner = owner
        self._job_id = job_id
        self._oracle = oracle
        self._seen = {each.pid for each in owner.process.descendants()}
        self._before = len(self._seen)
        owner.tell("launch", [job_id])
        self._began = time.monotonic()

    @property
    def age(self) -> float:
        """The time since its begin, in seconds."""
        return time.monotonic() - self._began

    @property
    def claimed(self) -> bool:
        """Whether the job has begun."""
        return self._oracle.claimed(self._job_id)

    @property
    def over(self) -> bool:
        """Whether the launch need not be watched any longer."""
        age = self.age
        return age > MOST_S or (age > LEAST_S and self._oracle.outcome(self._job_id) is not None)

    def count(self) -> int:
        """Return how many processes have started so far, detached or not."""
        self._seen |= {each.pid for each in self.owner.process.descendants()}
        return len(self._seen) - self._before

    def has_started(self, *, count: int) -> bool:
        """Return whether it has started a number of processes, or starts no more."""
        return self.count() >= count or self.over
