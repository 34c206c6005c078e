"""Attempts for the engine boundary, and the process that calls the engine in place of core."""

from __future__ import annotations

import contextlib
import os
import time
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from crystalmath.jobs.identities import own_identity
from crystalmath.jobs.rundir import RunDirectory, attempt_id
from crystalmath.models import Attempt, JobSpec
from crystalmath.quacc.runner import generate_job_id
from crystalmath.testing.owner import RECIPES, AwayError, Owner, OwnerError
from crystalmath.testing.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from ase import Atoms

    from crystalmath.testing.oracle import Oracle
    from crystalmath.testing.subject import EngineUnderTest


#: A call about so many attempts has the normal limit, and one about more has longer: an engine may
#: run a command for each.
_AT_ONCE = 10


def aluminium() -> Atoms:
    """Return a primitive cell of aluminium."""
    # `ase.build` takes half a second to import, in each process that owns jobs.
    from ase import Atoms

    a = 4.05 / 2
    return Atoms("Al", cell=[(0, a, a), (a, 0, a), (a, a, 0)], pbc=True)


def specification(
    recipe: str, parameters: Mapping[str, Any] | None = None, /, **terms: Any
) -> JobSpec:
    """Return a fresh job with a recipe of the kit, as the service makes one, on `terms`."""
    from crystalmath import config
    from crystalmath.quacc.engine import submission_environment

    own = {"environment": submission_environment(config.load()), "parameters": parameters or {}}
    named = f"{RECIPES}.{recipe}"
    return JobSpec(job_id=generate_job_id(), recipe=named, atoms=aluminium(), **{**own, **terms})


def write_down(
    home: Path,
    engine: str,
    recipe: str,
    cluster: str = "local",
    terms: Mapping[str, Any] | None = None,
    /,
    **parameters: Any,
) -> str:
    """Make the run directory of a job that nobody has launched, on `terms`; return its id."""
    from crystalmath.jobs.written_spec import spec_header
    from crystalmath.recipes import codec

    spec = specification(recipe, parameters, **{"cluster": cluster, **(terms or {})})
    jobs = home / "jobs"
    jobs.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory = RunDirectory(jobs / spec.job_id)
    owner = own_identity(jobs).identity.as_dict()
    directory.write_spec(spec_header(spec, engine, owner), codec.encode_spec(spec))
    return spec.job_id


def attempt_of(
    home: Path,
    job_id: str,
    handle: str | None = None,
    *,
    cluster: str = "local",
    terms: Mapping[str, Any] | None = None,
) -> Attempt:
    """Return a first attempt as core passes it to an engine, on the terms of `write_down`."""
    return Attempt(
        id=attempt_id(job_id, 1),
        job_id=job_id,
        directory=home / "jobs" / job_id,
        handle=handle,
        **{"cluster": cluster, **(terms or {})},
    )


@contextlib.contextmanager
def longer_timeout(owner: Owner, attempts: int) -> Iterator[None]:
    """Allow a call about many attempts more time."""
    timeout_s = owner.timeout_s
    owner.timeout_s = timeout_s * max(1.0, attempts / _AT_ONCE)
    try:
        yield
    finally:
        owner.timeout_s = timeout_s


#: How often the engine is probed about attempts that have not begun, in seconds.
PROBE_S = 2.0

_T = TypeVar("_T")


class Door:
    """A process that calls an engine as core does, on one thread, in the test's environment."""

    def __init__(self, engine: EngineUnderTest, oracle: Oracle) -> None:
        self._engine = engine
        self._oracle = oracle
        #: The terms of jobs that have their own.
        self._terms: dict[str, Mapping[str, Any]] = {}
        self.owner = Owner(engine.name, dict(os.environ), cluster=engine.cluster)

    @property
    def closed(self) -> bool:
        """Whether the process has ended."""
        return self.owner.closed

    def close(self) -> None:
        """End the engine, then the process."""
        if not self.closed:
            with contextlib.suppress(OwnerError):
                self.owner.ask("stop")
        self.owner.kill()

    def write(
        self, recipe: str, /, terms: Mapping[str, Any] | None = None, **parameters: Any
    ) -> Attempt:
        """Write a job down that nobody has launched, on terms of its own if there are any."""
        home = self._oracle.home
        name, cluster = self._engine.name, self._engine.cluster
        job_id = write_down(home, name, recipe, cluster, terms, **parameters)
        if terms:
            self._terms[job_id] = terms
        return attempt_of(home, job_id, cluster=cluster, terms=terms)

    def launch(self, *attempts: Attempt, by: Owner | None = None) -> dict[str, str]:
        """Launch attempts until the engine has taken all; return ``{job id: handle}``."""
        handles: dict[str, str] = {}
        reason = ""

        def taken() -> bool:
            nonlocal reason
            try:
                handles.update(self.offer(*(a for a in attempts if a.job_id not in handles), by=by))
            except AwayError as error:
                reason = f": {str(error).partition(chr(10))[0]}"
            return len(handles) == len(attempts)

        # An engine may take some of them only when others have ended.
        limit = self._engine.start_s + (len(attempts) - 1) * self._engine.turn_s
        what = (
            "the engine did not take all attempts; if it has no queue of its own, its max_queued "
            "must say how many it takes"
        )
        eventually(taken, limit, lambda: f"{what}{reason}")
        return handles

    def offer(self, *attempts: Attempt, by: Owner | None = None) -> dict[str, str]:
        """Launch attempts once; return the handles of those that the engine took."""
        owner, jobs = by or self.owner, [each.job_id for each in attempts]
        with longer_timeout(owner, len(jobs)):
            handles: dict[str, str] = owner.ask("launch", jobs, self._terms_of(jobs))
        return handles

    def seen(
        self, attempt: Attempt, handles: Mapping[str, str] | None = None, by: Owner | None = None
    ) -> str:
        """Return the state in which the engine sees an attempt, with the handles that are known."""
        return str(self.probe([attempt.job_id], handles, by)[attempt.job_id][0])

    def probe(
        self, jobs: Sequence[str], handles: Mapping[str, str] | None = None, by: Owner | None = None
    ) -> dict[str, list[str | None]]:
        """Probe attempts all at once, until it succeeds: ``{job id: [state, reason]}``."""
        owner, terms = by or self.owner, self._terms_of(jobs)
        answers: dict[str, list[str | None]]
        answers = self.again("called to probe", lambda: owner.ask("probe", jobs, handles, terms))
        return answers

    def ask(self, attempt: Attempt, handles: Mapping[str, str] | None = None) -> str:
        """Probe an attempt once, and return its state."""
        state: str = self.owner.ask("probe", [attempt.job_id], handles)[attempt.job_id][0]
        return state

    def release(self, *attempts: Attempt) -> None:
        """Release attempts."""
        self.drop(*[attempt.job_id for attempt in attempts])

    def drop(self, *jobs: str) -> None:
        """Release the attempts of jobs."""
        with longer_timeout(self.owner, len(jobs)):
            terms = self._terms_of(jobs)
            self.again("called to release", lambda: self.owner.ask("release", jobs, terms))

    def again(self, what: str, call: Callable[[], _T]) -> _T:
        """Call the engine until it can be reached, as core does; return its answer."""
        answers: list[_T] = []
        reason = ""

        def is_reached() -> bool:
            nonlocal reason
            try:
                answers.append(call())
            except AwayError as error:
                reason = str(error)
            return bool(answers)

        eventually(is_reached, self._engine.start_s, lambda: f"it cannot be {what}: {reason}")
        return answers[0]

    def started(self, *attempts: Attempt) -> None:
        """Wait until attempts have begun, according to their files.

        The engine is probed about them now and then, as core does: an engine may request more
        workers from its scheduler at that moment.
        """
        probed = time.monotonic()

        def is_begun(job_id: str) -> bool:
            nonlocal probed
            if self._oracle.claimed(job_id):
                return True
            if not self.closed and time.monotonic() - probed > PROBE_S:
                self.probe([job_id])
                probed = time.monotonic()
            return False

        for attempt in attempts:
            what = f"{attempt.id} was not begun"
            eventually(partial(is_begun, attempt.job_id), self._engine.limit_of(1), what)

    def ended(self, *attempts: Attempt) -> list[str]:
        """Wait for the outcomes of attempts, and return their states from the files."""
        limit = self._engine.limit_of(len(attempts))
        return [
            self._oracle.ended(each.job_id, limit, f"{each.id} has no outcome")["state"]
            for each in attempts
        ]

    def _terms_of(self, jobs: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        return {job_id: self._terms[job_id] for job_id in jobs if job_id in self._terms}

    def over(self, *attempts: Attempt) -> None:
        """Wait until attempts that were released while they ran have ended, by any end."""
        for each in attempts:
            what = f"{each.id}, which was released while it ran, goes on and does not end"
            eventually(partial(self._oracle.is_over, each.job_id), self._engine.limit_s, what)


class Line:
    """Attempts that wait, each for a file of its own, so that a test decides when each ends."""

    def __init__(self, door: Door, oracle: Oracle, folder: Path) -> None:
        self.attempts: list[Attempt] = []
        self._door, self._oracle, self._folder = door, oracle, folder

    def add(self, count: int, terms: Mapping[str, Any] | None = None) -> list[Attempt]:
        """Write down some attempts, on terms of their own if there are any."""
        places = range(len(self.attempts), len(self.attempts) + count)
        added = [
            self._door.write("wait_for", terms, path=str(self._folder / f"go.{place}"))
            for place in places
        ]
        self.attempts += added
        return added

    def let_go(self, attempt: Attempt) -> None:
        """Let an attempt end, now or as soon as it has begun."""
        (self._folder / f"go.{self.attempts.index(attempt)}").touch()

    def end(self) -> None:
        """Let all attempts end, and wait for their ends."""
        for attempt in self.attempts:
            self.let_go(attempt)
        if not self._door.closed:
            self._door.ended(*self.attempts)

    def has_begun(self, attempt: Attempt) -> bool:
        """Return whether a worker has begun an attempt."""
        return self._oracle.claimed(attempt.job_id)

    def begun(self, attempts: Sequence[Attempt]) -> list[Attempt]:
        """Return the attempts that workers have begun."""
        return [attempt for attempt in attempts if self.has_begun(attempt)]
