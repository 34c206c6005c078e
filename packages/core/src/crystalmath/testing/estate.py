"""What a killed process leaves to whoever asks for its jobs."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from crystalmath.testing.attempts import hand_over
from crystalmath.testing.owner import Owner
from crystalmath.testing.waiting import eventually

if TYPE_CHECKING:
    from crystalmath.testing.oracle import Oracle
    from crystalmath.testing.subject import EngineUnderTest

#: So many wait in the engine's queue once the job is there that is launched past core.
LAUNCHED_ROOM = 2
#: How long the process may take to record the handle of a job that it has launched, in seconds: the
#: engine gives none, or the attempt's own id, if there is none then.
_RECORD_S = 2.0


class Estate:
    """What a killed process leaves: jobs that its engine had queued, or had not even got.

    Parameters
    ----------
    engine : EngineUnderTest
        The engine.
    oracle : Oracle
        Tells when its workers are busy.
    room : int
        How many core lets the engine have beside those that run.
    home : pathlib.Path
        The home; the files of the jobs go there, too.
    """

    def __init__(self, engine: EngineUnderTest, oracle: Oracle, home: Path, room: int) -> None:
        # A fresh one: where a first estate could not be made, the next test tries again.
        folder = Path(tempfile.mkdtemp(dir=home, prefix="estate-"))
        self.gate = folder / "gate"
        self._room = room
        self.jobs: dict[str, tuple[str, dict[str, str]]] = {}
        try:
            self._begin(engine, oracle, folder)
        except BaseException:
            self.gate.touch()  # else its jobs would hold workers for as long as they wait
            raise

    def _begin(self, engine: EngineUnderTest, oracle: Oracle, folder: Path) -> None:
        path = str(self.gate)
        with Owner(engine.name, dict(os.environ), cluster=engine.cluster) as owner:
            occupy(owner, engine, oracle, path)
            for how in ("submitted", "launched", "written"):
                counted = {"count": str(folder / how), "path": path}
                past_core = how in {"launched", "written"}
                method = "write" if past_core else "submit"
                answer = owner.ask(method, "count_and_wait", **counted)
                self.jobs[how] = (answer if past_core else answer[0], counted)
            if self._room:
                _wait_for_handle(oracle.directory(self.jobs["submitted"][0]))
            if self._room >= LAUNCHED_ROOM:
                hand_over(owner, engine, [self.jobs["launched"][0]])


def _wait_for_handle(directory: Path) -> None:
    deadline = time.monotonic() + _RECORD_S
    while not (directory / "1.handle").exists() and time.monotonic() < deadline:
        time.sleep(0.01)


def occupy(owner: Owner, engine: EngineUnderTest, oracle: Oracle, path: str) -> None:
    """Have all workers of a process's engine wait for a file."""
    limit = engine.start_s + 10 * engine.turn_s
    for job_id in owner.ask("submit", "wait_for", engine.workers, path=path):
        what = f"{job_id} was not begun"
        eventually(lambda id_=job_id: oracle.claimed(id_), limit, what)  # type: ignore[misc]
