"""Measure how long a job takes on a cold and on a warm engine, in a process of its own."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from crystalmath.testing.owner import Owner, OwnerError
from crystalmath.testing.subject import MARGIN, Pace
from crystalmath.testing.waiting import within

if TYPE_CHECKING:
    from pathlib import Path

    from crystalmath.testing.subject import EngineUnderTest

#: How long a second process may take at least until its job has run, in seconds.
_APART_S = 10.0


class PaceError(AssertionError):
    """An error of the engine because of which no job could be measured."""


def measure(engine: EngineUnderTest, home: Path, *, share: bool = False) -> Pace:
    """Run a job on a cold engine and one on the warm engine, in a process of its own.

    Workers see the empty `home` under the same path. With `share`, a second process shows whether
    processes share workers. `PaceError` is raised if a job fails, or does not end in time.
    """
    engine.configure(home)
    with Owner(engine.name, engine.environ(home), cluster=engine.cluster) as owner:
        owner.timeout_s = max(owner.timeout_s, engine.first_s)
        cold_s = _one_job(owner, engine.first_s)
        warm_s = _one_job(owner, engine.first_s)
        apart = share and _is_apart(owner, engine, home, cold_s)
        # The tests report errors of its end.
        with contextlib.suppress(OwnerError):
            owner.ask("close")
    return Pace(cold_s, warm_s, apart)


def _one_job(owner: Owner, limit_s: float) -> float:
    began = time.monotonic()
    try:
        (job_id,) = owner.ask("submit", "echo")
        if not within(lambda: _is_over(owner, job_id), limit_s):
            raise PaceError(
                _described(owner, f"a job that does nothing did not end in {limit_s:g} s")
            )
    except OwnerError as error:
        raise PaceError(_described(owner, str(error))) from None
    return time.monotonic() - began


def _is_over(owner: Owner, job_id: str) -> bool:
    state = owner.ask("status", job_id)
    if state in {"failed", "cancelled"}:
        result = owner.ask("result", job_id)
        raise PaceError(_described(owner, f"a job that does nothing {state}: {result['error']}"))
    return bool(state == "completed")


def _is_apart(first: Owner, engine: EngineUnderTest, home: Path, cold_s: float) -> bool:
    """Return whether a second process's job runs while all workers of the first are busy."""
    gate = home / "gate"
    busy: list[str] = []

    def all_busy() -> bool:
        return {first.ask("status", job_id) for job_id in busy} == {"running"}

    with Owner(engine.name, engine.environ(home), cluster=engine.cluster) as second:
        try:
            busy += first.ask("submit", "wait_for", engine.workers, path=str(gate))
            if not within(all_busy, MARGIN * cold_s):
                return False
            (job_id,) = second.ask("submit", "echo")
            return within(lambda: _is_over(second, job_id), max(_APART_S, 2 * cold_s))
        except (OwnerError, PaceError):
            return False  # the tests report the error
        finally:
            gate.touch()
            with contextlib.suppress(OwnerError):
                second.ask("close")


def _described(owner: Owner, what: str) -> str:
    return "\n\n".join([what, *owner.excerpts()])
