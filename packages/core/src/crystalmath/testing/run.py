"""One run of the kit on an engine: how fast it is, which tests are run, what became of them."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from crystalmath.testing.measuring import PaceError, measure
from crystalmath.testing.pytest_session import list_kit, run_kit
from crystalmath.testing.verdicts import Verdict, judge

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from crystalmath.testing.pace import Pace
    from crystalmath.testing.subject import EngineUnderTest

_FIRST = "test_one_job_ends"
#: How many tests are worth that a second engine is started for them.
_MANY = 20


class KitRun:
    """Iterate over it, and the tests are run; what is below is known at the end.

    The engine is measured first, unless both its limits are given; where no job comes through, no
    test is run. Topics run side by side, one on each core, where two processes have workers each of
    their own.

    Parameters
    ----------
    subject : EngineUnderTest
        The engine.
    folder : pathlib.Path
        An empty one, for all files; workers see it under the same path.
    keyword : str, optional
        Which tests, as pytest's ``-k``.
    stops : bool
        Whether the first failure ends it.

    Attributes
    ----------
    pace : Pace or None
        What was measured.
    ended : list of dict
        The tests that have finished, as `run_kit` tells of them.
    seconds : float
        How long it took.
    """

    def __init__(
        self, subject: EngineUnderTest, folder: Path, keyword: str | None, *, stops: bool
    ) -> None:
        self._subject = subject
        self._folder = folder
        self._keyword = keyword
        self._stops = stops
        self._chosen: list[dict[str, Any]] = []
        self._why = "the run had ended before its turn"
        self.pace: Pace | None = None
        self.ended: list[dict[str, Any]] = []
        self.seconds = 0.0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Give what happens, as it happens: what `run_kit` gives, and two events before that.

        They are ``{"event": "chosen", "count"}`` and ``{"event": "measured", "pace", "lanes",
        "seconds"}``.
        """
        began = time.monotonic()
        for event in self._events():
            if event["event"] == "finished":
                self.ended.append(event)
            self.seconds = time.monotonic() - began
            yield event

    @property
    def verdicts(self) -> list[Verdict]:
        """What the run says of each promise."""
        return judge(self._chosen, self.ended, self._why)

    def _events(self) -> Iterator[dict[str, Any]]:
        self._chosen = list_kit(self._subject, self._folder / "list", self._keyword)
        lanes = 1
        if not self._subject.has_limits:
            yield {"event": "chosen", "count": len(self._chosen)}
            cores = len(os.sched_getaffinity(0))
            # The nodes of a cluster are everybody's.
            lanes = cores if len(self._chosen) >= _MANY and not self._subject.clusters else 1
            home = self._folder / "pace"
            home.mkdir()
            try:
                self.pace = measure(self._subject, home, share=lanes > 1)
            except PaceError as error:
                yield self._without_a_job(str(error))
                return
            lanes = lanes if self.pace.apart else 1
            seconds = self.pace.estimate_s(len(self._chosen), lanes)
            yield {"event": "measured", "pace": self.pace, "lanes": lanes, "seconds": seconds}
            self._subject.pace = self.pace
        yield from run_kit(
            self._subject.limited(), self._folder, self._keyword, lanes=lanes, stops=self._stops
        )

    def _without_a_job(self, told: str) -> dict[str, Any]:
        """Tell of the test that says so, whether it was chosen or not."""
        self._why = "no job came through; --start and --turn have it tried all the same"
        named = {"class": None, "name": _FIRST, "function": _FIRST, "topic": "first_job"}
        named |= {"promise": "one job ends", "guide": "Launch"}
        chosen = {test["name"]: test for test in self._chosen}
        if _FIRST not in chosen:
            self._chosen.insert(0, named)
        return {
            **chosen.get(_FIRST, named),
            "event": "finished",
            "outcome": "failed",
            "phase": "call",
            "reason": told,
            "details": told,
            "seconds": 0.0,
        }
