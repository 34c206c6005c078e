"""The engine under test, as its author describes it, and the limits that its pace sets.

A slow machine, a slow queue, or an engine that starts a process for each job is no failure.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import attrs
from attrs import define, field, frozen

from crystalmath.testing.owner import RECIPES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

#: How long the first job may take if the author names no limit, in seconds.
FIRST_S = 300.0
#: How many times longer than measured a job may take later, when the machine may be busy.
MARGIN = 4
#: The shortest limits, in seconds, for the quickest engine.
LEAST_START_S, LEAST_TURN_S = 60.0, 3.0
#: The mean test of the kit: seconds of waiting, jobs on an engine that the test starts, and jobs on
#: a warm one, one after another. One run of the local engine confirmed the guess within a factor
#: of two.
WAITS_S, COLD_JOBS, WARM_JOBS = 0.4, 0.1, 0.8


def fewer(number: int, turn_s: float) -> int:
    """Return how many of some attempts an engine gets; a slow one gets fewer."""
    return max(1, int(number * min(1.0, LEAST_TURN_S / turn_s)))


@frozen
class Pace:
    """The duration of a job that does nothing.

    Parameters
    ----------
    cold_s : float
        From the first submission to the job's end, in seconds.
    warm_s : float
        The same for the next job, in seconds.
    apart : bool
        Whether a second process has workers of its own: while all of the first one's were busy, its
        job ran.
    """

    cold_s: float
    warm_s: float
    apart: bool = False

    @property
    def start_s(self) -> float:
        """The limit from the engine's first launch to its first running job."""
        return max(LEAST_START_S, MARGIN * self.cold_s)

    @property
    def turn_s(self) -> float:
        """The limit of one job that does nothing on the warm engine."""
        return max(LEAST_TURN_S, MARGIN * self.warm_s)

    def estimate_s(self, tests: int, lanes: int) -> float:
        """Return about how long a number of tests take, `lanes` side by side, in seconds."""
        mean_s = WAITS_S + COLD_JOBS * self.cold_s + WARM_JOBS * self.warm_s
        return self.cold_s + tests * mean_s / lanes


#: The pace of an engine that was not measured, with the shortest limits.
UNKNOWN = Pace(cold_s=0.0, warm_s=0.0)


_OURS = "CRYSTALMATH_"


@define
class EngineUnderTest:
    """An installed engine, with all that the kit needs to test it.

    Parameters
    ----------
    name : str
        The engine's name, as ``crystalmath engines`` lists it.
    options : mapping of str to object
        The table ``[engines.<name>]`` of the configuration file; strings, numbers, booleans and
        lists of them.
    clusters : mapping of str to mapping
        The tables ``[clusters.<name>]`` of the configuration file, likewise. The kit's jobs go to
        the first of them, or to ``local`` if there is none.
    workers : int
        How many jobs run at a time with these options. If more do, as on a cluster with idle nodes,
        the tests in which a job waits for a worker are skipped.
    environment : mapping of str to str
        Environment variables that the engine needs.
    start_s : float, optional
        How long the engine may take from its first launch to its first running job, in seconds.
        Without it the kit measures a job, and allows four times as long, and at least 60 s.
    turn_s : float, optional
        How long one job that does nothing may take on the warm engine, in seconds. Without it four
        times as long as the measured one, and at least 3 s.
    library : str, optional
        The top-level module of the library that the engine needs, for the tests that hide it.
    outage : callable, optional
        Returns a context manager within which the engine cannot be reached, so that ``launch`` and
        ``probe`` raise :class:`~crystalmath.errors.EngineUnavailable`.
    linger_s : float
        How long a process of the engine may outlive ``close()``, in seconds. An idle chain in a
        worker that another program started may take its 60 s.
    """

    name: str
    options: Mapping[str, Any] = field(factory=dict, kw_only=True)
    clusters: Mapping[str, Mapping[str, Any]] = field(factory=dict, kw_only=True)
    workers: int = field(default=2, kw_only=True)
    environment: Mapping[str, str] = field(factory=dict, kw_only=True)
    _start_s: float | None = field(default=None, kw_only=True)
    _turn_s: float | None = field(default=None, kw_only=True)
    library: str | None = field(default=None, kw_only=True)
    outage: Callable[[], AbstractContextManager[object]] | None = field(default=None, kw_only=True)
    linger_s: float = field(default=10.0, kw_only=True)
    #: Set by the kit, unless the author names both limits.
    pace: Pace = field(default=UNKNOWN, init=False, eq=False)

    @property
    def start_s(self) -> float:
        """The limit from the engine's first launch to its first running job."""
        return self.pace.start_s if self._start_s is None else self._start_s

    @property
    def turn_s(self) -> float:
        """The limit of one job that does nothing on the warm engine."""
        return self.pace.turn_s if self._turn_s is None else self._turn_s

    @property
    def limit_s(self) -> float:
        """The limit of one job, also on the cold engine and behind some others."""
        return self.limit_of(0)

    def limit_of(self, jobs: int) -> float:
        """Return the limit of a number of jobs, likewise."""
        return self.start_s + (10 + jobs) * self.turn_s

    @property
    def first_s(self) -> float:
        """The limit of the first job that is measured."""
        return FIRST_S if self._start_s is None else self._start_s

    @property
    def has_limits(self) -> bool:
        """Whether its author has named both limits, so that nothing need be measured."""
        return self._start_s is not None and self._turn_s is not None

    @property
    def cluster(self) -> str:
        """The cluster of the kit's jobs."""
        return next(iter(self.clusters), "local")

    def limited(self) -> EngineUnderTest:
        """Return a copy with its present limits, so that it is not measured again."""
        return attrs.evolve(self, start_s=self.start_s, turn_s=self.turn_s)

    def as_plain(self) -> dict[str, Any]:
        """Return the arguments of a copy, for JSON; `outage` is left out."""
        fields = [each for each in attrs.fields(type(self)) if each.init]
        return {each.alias: getattr(self, each.name) for each in fields if each.name != "outage"}

    def environ(self, home: Path) -> dict[str, str]:
        """Return the environment of the processes that own jobs in a home."""
        inherited = {name: v for name, v in os.environ.items() if not name.startswith(_OURS)}
        return {
            **inherited,
            **self.environment,
            "CRYSTALMATH_HOME": str(home),
            "CRYSTALMATH_RECIPES": RECIPES,
        }

    def configure(self, home: Path) -> None:
        """Write the configuration file of a fresh home."""
        tables = {f"engines.{json.dumps(self.name)}": self.options} | {
            f"clusters.{json.dumps(name)}": {"engine": self.name, **table}
            for name, table in self.clusters.items()
        }
        lines: list[str] = []
        for name, table in tables.items():
            # Scalars and lists of them look the same in JSON and in TOML.
            keys = (f"{json.dumps(key)} = {json.dumps(value)}" for key, value in table.items())
            lines += [f"[{name}]", *keys, ""]
        text = "\n".join(lines)
        (home / "config.toml").write_text(text, encoding="utf-8")
