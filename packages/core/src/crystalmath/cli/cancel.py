"""``crystalmath cancel`` and ``wait``: stop unfinished jobs, or wait for them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crystalmath.cli.shared import output
from crystalmath.cli.shared.common_arguments import (
    JobIds,
    Json,
    UnfinishedIds,
    any_client,
    chosen,
    chosen_jobs,
    find_each,
    none_fits,
    require_choice,
)
from crystalmath.cli.shared.job_filters import with_filters
from crystalmath.cli.shared.long_running import TIMES, Medians
from crystalmath.errors import ServerNotRunning
from crystalmath.models.job_notes import UNFINISHED
from crystalmath.models.written import timespan_text
from crystalmath.store.records import in_common

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from crystalmath.cli.shared.long_running import LongRunning
    from crystalmath.client import Client
    from crystalmath.models import Job


@with_filters
def cancel(
    job_ids: UnfinishedIds = None,
    *,
    filters: dict[str, Any],
    with_successors: Annotated[
        bool,
        typer.Option(
            "--with-successors", help="Also stop jobs that wait for these, directly or not."
        ),
    ] = False,
    as_json: Json = False,
) -> int:
    """Stop jobs: by their ids, or all that match the filters.

    A job becomes cancelled once all of its processes have ended. Exits 1 if a job had already
    ended.
    """
    require_choice(job_ids, filters)
    many = len(job_ids or ()) != 1 or bool(filters)
    with any_client() as client:
        if job_ids and not filters:
            answers = _cancel(client, list(dict.fromkeys(job_ids)), successors=with_successors)
            if not many and "code" in answers[0]:
                from crystalmath.client.client_errors import answered_error

                raise answered_error(answers[0])
        else:
            named = chosen(client, job_ids, filters)
            which = filters if named is None else {}
            cancelled = client.cancel_many(named, with_successors=with_successors, **which)
            answers = [dict(answer) for answer in cancelled]
            if not answers:
                raise none_fits({"state": [state.value for state in UNFINISHED], **filters})
    if as_json:
        answers = [*map(_whole, answers)]
    if as_json and with_successors and not many:
        output.write_json({**answers[0], "successors": [one["job_id"] for one in answers[1:]]})
    elif as_json:
        output.write_json({"jobs": answers} if many else answers[0])
    else:
        _tell(answers)
    return 0 if all(answer["cancelled"] for answer in answers) else 1


def _cancel(client: Client, prefixes: Sequence[str], *, successors: bool) -> list[dict[str, Any]]:
    """Cancel jobs; an unknown id does not hinder the others."""
    ids, wrong = find_each(client, prefixes)
    answers = {
        prefix: output.error_document(error, error.code, prefix, cancelled=False)
        for prefix, error in wrong.items()
    }
    by_id = {
        answer["job_id"]: dict(answer)
        for answer in client.cancel_many([*ids.values()], with_successors=successors)
    }
    answers |= {prefix: by_id[job_id] for prefix, job_id in ids.items()}
    others = [answer for job_id, answer in by_id.items() if job_id not in ids.values()]
    return [*(answers[prefix] for prefix in prefixes), *others]


def _whole(answer: dict[str, Any]) -> dict[str, Any]:
    """Add the keys of an error document to an answer of the server."""
    if answer["error"] is None or "code" in answer:
        return answer
    return {**answer, "status": "error", "code": "ended"}


def _tell(answers: Sequence[dict[str, Any]]) -> None:
    for answer in answers:
        if answer["cancelled"]:
            output.write(f"cancellation of {answer['job_id']} requested")
        elif "code" in answer:
            output.note(f"error: {answer['error']}")
        else:
            output.note(f"{answer['job_id']}: {answer['error']}; nothing was changed")


@with_filters
def wait(job_ids: JobIds = None, *, filters: dict[str, Any], as_json: Json = False) -> int:
    """Wait until jobs have ended, and show their progress.

    Choose jobs by ids or filters. The command also returns when all remaining jobs wait for jobs
    that failed or were cancelled, and names the jobs to retry. Ctrl-C ends the waiting, not the
    jobs. Exits 0 if all jobs completed, else 1. Jobs with the same error share one line. Jobs that
    run longer than ten times the median of their recipe are reported.
    """
    from crystalmath.models import Job

    require_choice(job_ids, filters)
    with any_client() as client:
        records = map(Job.read, chosen_jobs(client, job_ids, filters))
        jobs = {job.job_id: job for job in records}
    with output.LiveLine("") as line:
        failures = _Failures(line)
        failures.say_new(jobs.values())
        if not all(job.state.is_terminal() for job in jobs.values()):
            _follow(line, jobs, failures)
            failures.say_new(jobs.values())
    failed = [job.job_id for job in jobs.values() if job.error and _failed(job)]
    if failed:
        output.note(f"for the whole error: crystalmath result {failed[0][:8]}")
    output.note(_counts(jobs.values()))
    if as_json:
        documents = [job.document() for job in jobs.values()]
        done = all(job.state.is_terminal() for job in jobs.values())
        output.write_json({"jobs": documents, "done": done})
    return 0 if all(job.state.value == "completed" for job in jobs.values()) else 1


#: The number of jobs of a group that are named.
_NAMED = 3
#: The interval at which `wait` looks for long-running jobs, in seconds.
_LOOK_S = 30.0


class _Failures:
    """Reports jobs that did not complete; jobs with the same error share one line."""

    def __init__(self, line: output.LiveLine) -> None:
        self._line = line
        #: The number of jobs of each kind that have been reported.
        self._reported: dict[str, int] = {}

    def say_first(self, job: Job) -> None:
        """Report a job at once if it is the first of its kind to fail."""
        if (kind := _kind(job)) is not None and kind not in self._reported:
            self._reported[kind] = 1
            self._line.say(_failure([job]))

    def say_new(self, jobs: Iterable[Job]) -> None:
        """Report each kind of failure that has more jobs than were reported before."""
        kinds: dict[str, list[Job]] = {}
        for job in jobs:
            if (kind := _kind(job)) is not None:
                kinds.setdefault(kind, []).append(job)
        for kind, alike in kinds.items():
            if len(alike) > self._reported.get(kind, 0):
                self._reported[kind] = len(alike)
                self._line.say(_failure(alike))


def _kind(job: Job) -> str | None:
    """Return the error or the state of an ended job; ``None`` if it may still complete, or did."""
    if not job.state.is_terminal() or job.state.value == "completed":
        return None
    return in_common(job.error) if job.error and _failed(job) else job.state.value


def _failure(alike: Sequence[Job]) -> str:
    first = alike[0]
    error = ""
    if first.error and _failed(first):
        texts = {job.error for job in alike}
        error = f": {output.first_line(first.error if len(texts) == 1 else in_common(first.error))}"
    if len(alike) == 1:
        return f"{_named(first)} {first.state.value}{error}"
    return f"{len(alike)} {first.state.value} ({_some(alike)}){error}"


def _some(jobs: Sequence[Job]) -> str:
    """Name a few of many jobs by their ids."""
    ids = ", ".join(job.job_id[:8] for job in jobs[:_NAMED])
    return f"{ids} and {len(jobs) - _NAMED} more" if len(jobs) > _NAMED else ids


def _say_held_up(line: output.LiveLine, jobs: Iterable[Job]) -> None:
    """Report why jobs are held up; jobs with the same reason share one line."""
    reasons: dict[str, list[Job]] = {}
    for job in jobs:
        reasons.setdefault(in_common(job.reason or ""), []).append(job)
    for reason, alike in reasons.items():
        if len(alike) == 1:
            line.say(f"{_named(alike[0])} {alike[0].reason}")
        else:
            same = len({job.reason for job in alike}) == 1
            text = alike[0].reason if same else reason
            line.say(f"{len(alike)} jobs ({_some(alike)}): {text}")


def _say_long(line: output.LiveLine, groups: Iterable[LongRunning]) -> None:
    """Report jobs that run far longer than completed jobs of their recipe, a line per recipe."""
    for long in groups:
        first = min(long.jobs, key=lambda job: job.started_at or 0.0)
        which, most = _named(first), ""
        if len(long.jobs) > 1:
            which, most = f"{len(long.jobs)} jobs ({_some(long.jobs)})", "up to "
        ids = [job.job_id[:8] for job in long.jobs]
        named = " ".join(ids if len(ids) <= _NAMED else [*ids[:_NAMED], "..."])
        median = timespan_text(float(f"{long.median_s:.2g}"))
        line.say(
            f"{which}: running for {most}{output.age(first.started_at or 0.0)}, over {TIMES} times "
            f"the median of {output.short_recipe(first.recipe)} ({median}, {long.count} completed "
            f"jobs); 'crystalmath cancel {named}' ends it, --walltime of submit and retry bounds "
            "the next"
        )


def _follow(line: output.LiveLine, jobs: dict[str, Job], failures: _Failures) -> None:
    """Update jobs until all have ended, or all that remain are held up."""
    from crystalmath.client import connect
    from crystalmath.client.client_errors import ConnectionLost
    from crystalmath.client.follower import Backoff

    backoff, medians = Backoff(), Medians()
    try:
        with connect() as client:
            line.update(_counts(jobs.values()))
            while left := _unfinished(jobs):
                try:
                    # A held-up job may go on by now.
                    going_on = set(left)
                    for job in client.wait(left, timeout=0):
                        _note(jobs, going_on, job)
                        failures.say_first(job)
                    line.update(_counts(jobs.values()))
                    left = _unfinished(jobs)
                    if not going_on:
                        _say_held_up(line, [jobs[job_id] for job_id in left])
                        return
                    _say_long(line, medians.find_new(client, jobs.values()))
                    for job in client.wait(left, timeout=_LOOK_S):
                        _note(jobs, going_on, job)
                        failures.say_first(job)
                        line.update(_counts(jobs.values()))
                        if not going_on:
                            break
                    backoff.reset()
                except (ServerNotRunning, ConnectionLost) as error:
                    backoff.wait(error)
    except KeyboardInterrupt:
        line.say("no longer waiting; the jobs go on")
        raise


def _unfinished(jobs: dict[str, Job]) -> list[str]:
    return [job.job_id for job in jobs.values() if not job.state.is_terminal()]


def _note(jobs: dict[str, Job], going_on: set[str], job: Job) -> None:
    jobs[job.job_id] = job
    if job.held_up_by or job.state.is_terminal():
        going_on.discard(job.job_id)
    else:
        going_on.add(job.job_id)


def _named(job: Job) -> str:
    return f"{job.job_id[:8]} {job.name}" if job.name else job.job_id[:8]


def _failed(job: Job) -> bool:
    return job.state.value == "failed"


def _counts(jobs: Iterable[Job]) -> str:
    return output.counts(Counter(job.state.value for job in jobs))
