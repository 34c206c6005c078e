"""``crystalmath show``: a job's whole story."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, cast

from crystalmath.cli.shared import output
from crystalmath.cli.shared.common_arguments import JobId, Json, home_reader
from crystalmath.cli.status import each, status_fields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from crystalmath.models.answers import AttemptEntry, Event, JobDocument, Relative, Story


def show(job_id: JobId, *, as_json: Json = False) -> int:
    """Tell a job's whole story.

    That is what it came of, its attempts and events with their reasons, and what came of it.
    crystalmath files ID lists what it has written, crystalmath logs ID prints it.
    """
    with home_reader() as home:
        told = cast("Story", home.ask("jobs.show", job_id=home.find(job_id)))
    if as_json:
        output.write_json(told)
    else:
        output.write(output.fields(_story(told)))
    return 0


def _story(told: Story) -> list[tuple[str, object]]:
    # What it came of is told below, with what became of that.
    job: JobDocument = {**told["job"], "parents": []}
    known = status_fields(job, told["params"], told["potcars"])
    return [
        *known,
        *each("came of", _relatives(told["parents"], output.taken_of)),
        *each("led to", _relatives(told["children"], _given_on)),
        *each("attempts", map(_attempt, told["attempts"])),
        *each("events", (_event(one) for one in told["events"])),
        ("work dir", job["work_dir"]),
    ]


def _relatives(those: Sequence[Relative], how: Callable[[Relative], str]) -> Iterator[str]:
    """Tell of each job once, in however many ways it is a relative."""
    ways: dict[str, list[str]] = {}
    for one in those:
        ways.setdefault(one["job_id"], []).append(how(one))
    for job_id, one in {one["job_id"]: one for one in those}.items():
        known = [one["name"], one["recipe"] and output.short_recipe(one["recipe"]), one["status"]]
        told = ", ".join(text for text in known if text) or "not on record any more"
        yield f"{job_id} ({', '.join(ways[job_id])}): {told}"


def _given_on(child: Relative) -> str:
    # Which of its geometries, the child's own record tells.
    return "from a geometry of it" if child["role"] == "structure" else output.taken_of(child)


def _attempt(one: AttemptEntry) -> str:
    where = f"on {one['host']}, process {one['pid']}" if one["host"] else "not begun"
    begun = f", from the geometry in {one['begun_from']}" if one["begun_from"] else ""
    error = f": {output.first_line(one['error'])}" if one["error"] else ""
    return (
        f"{one['attempt']} {where}{begun}{', ' + one['outcome'] if one['outcome'] else ''}{error}"
    )


def _event(one: Event) -> str:
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one["at"]))
    reason = f": {output.first_line(one['reason'])}" if one["reason"] else ""
    return f"{at}  {one['to']}{reason}"
