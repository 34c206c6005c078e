"""Attempts for the engine boundary: written down as core does, and launched by a test itself."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from crystalmath.jobs.identities import own_identity
from crystalmath.jobs.rundir import RunDirectory, attempt_id
from crystalmath.models import Attempt, JobSpec
from crystalmath.quacc.runner import generate_job_id
from crystalmath.testing.owner import OwnerError, is_unavailable
from crystalmath.testing.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from ase import Atoms

    from crystalmath.testing.owner import Owner
    from crystalmath.testing.subject import EngineUnderTest

#: The limit of a call is for so many attempts: a command for each may be what launches them.
_AT_ONCE = 10


def aluminium() -> Atoms:
    """Return a primitive cell of aluminium."""
    # `ase.build` takes half a second to import, in each process that owns jobs.
    from ase import Atoms

    a = 4.05 / 2
    return Atoms("Al", cell=[(0, a, a), (a, 0, a), (a, a, 0)], pbc=True)


def write_down(
    home: Path,
    engine: str,
    recipe: str,
    cluster: str = "local",
    terms: Mapping[str, Any] | None = None,
    /,
    **parameters: Any,
) -> str:
    """Make the run directory of a job that nobody has launched; give the job's id.

    `terms` are arguments of :class:`~crystalmath.models.submission.Terms`.
    """
    from crystalmath import config
    from crystalmath.jobs.ownership import spec_header
    from crystalmath.quacc.engine import submission_environment
    from crystalmath.recipes import codec

    spec = JobSpec(
        job_id=generate_job_id(),
        recipe=f"crystalmath.testing.recipes.{recipe}",
        atoms=aluminium(),
        parameters=parameters,
        environment=submission_environment(config.load()),
        **{"cluster": cluster, **(terms or {})},
    )
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
    number: int = 1,
    *,
    cluster: str = "local",
    terms: Mapping[str, Any] | None = None,
) -> Attempt:
    """Return an attempt as core gives it to an engine, on terms as those of `write_down`."""
    return Attempt(
        id=attempt_id(job_id, number),
        job_id=job_id,
        directory=home / "jobs" / job_id,
        handle=handle,
        **{"cluster": cluster, **(terms or {})},
    )


@contextlib.contextmanager
def longer_timeout(owner: Owner, attempts: int) -> Iterator[None]:
    """Give a call more time that is about many attempts."""
    timeout_s = owner.timeout_s
    owner.timeout_s = timeout_s * max(1.0, attempts / _AT_ONCE)
    try:
        yield
    finally:
        owner.timeout_s = timeout_s


def hand_over(
    owner: Owner,
    engine: EngineUnderTest,
    jobs: Sequence[str],
    terms: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, str]:
    """Have a process launch attempts, again and again until its engine took all.

    `terms` has those of jobs that have any of their own.
    """
    handles: dict[str, str] = {}
    told = ""

    def taken() -> bool:
        nonlocal told
        left = [job_id for job_id in jobs if job_id not in handles]
        try:
            with longer_timeout(owner, len(left)):
                handles.update(owner.ask("launch", left, terms))
        except OwnerError as error:
            if not is_unavailable(error):
                raise
            told = f": {str(error).partition(chr(10))[0]}"
        return len(handles) == len(jobs)

    # It may take some of them when others have ended.
    limit = engine.start_s + (len(jobs) - 1) * engine.turn_s
    what = (
        "the engine did not take all attempts; one without a queue of its own says so in max_queued"
    )
    eventually(taken, limit, lambda: f"{what}{told}")
    return handles
