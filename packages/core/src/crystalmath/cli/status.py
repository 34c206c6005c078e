"""``crystalmath status``: what became of a job."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from crystalmath.cli.shared import output
from crystalmath.cli.shared.common_arguments import JobId, Json, home_reader

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from crystalmath.models import Progress
    from crystalmath.models.answers import JobDocument, Potcar, ProgressDocument

#: So much is shown of a parameter.
_SHOWN = 60


def status(job_id: JobId, *, as_json: Json = False) -> int:
    """Show what became of a job."""
    with home_reader() as home:
        asked = home.ask(
            "jobs.specification",
            job_id=job_id,
            prefix=True,
            job=True,
            progress=None if as_json else True,
        )
    job, files = asked["job"], asked["potcars"]
    if as_json:
        output.write_json({**job, "params": asked["params"], "potcars": files})
    else:
        reached = _progress(asked["progress"])
        output.write(output.fields(status_fields(job, asked["params"], files, reached)))
    return 0


def _progress(document: ProgressDocument | None) -> Progress | None:
    if document is None:
        return None
    from crystalmath.models.fields import from_wire
    from crystalmath.models.progress import Progress

    return Progress(**from_wire(Progress, document))


def status_fields(
    job: JobDocument,
    parameters: Mapping[str, object],
    files: Sequence[Potcar],
    reached: Progress | None = None,
) -> list[tuple[str, object]]:
    """Return what is told of a job, line by line.

    Parameters
    ----------
    job : dict
        What is on record of it, as ``jobs.status`` tells it.
    parameters : mapping
        Those of its recipe.
    files : sequence of Potcar
        The pseudopotentials that it reads.
    reached : Progress, optional
        How far it has come.
    """
    kind = "POTCARs" if any(file["titel"] for file in files) else "UPF files"
    progress = [("progress", reached and f"{reached} ({output.age(reached.updated_at)} ago)")]
    state = job["status"]
    failed = state == "failed"
    stopping = job["cancel_requested_at"] is not None and job["finished_at"] is None
    return [
        ("state", f"{state} (being cancelled)" if stopping else state),
        ("reason", job["reason"]),
        *(() if failed else progress),
        ("error", None if state == "cancelled" else job["error"]),
        *(progress if failed else ()),
        ("go on", _go_on(job, reached) if failed else None),
        *output.summary_fields(job),
        ("name", job["name"]),
        ("labels", ", ".join(f"{key}={value}" for key, value in job["labels"].items())),
        *each("came of", map(output.parent, job["parents"])),
        ("recipe", output.short_recipe(job["recipe"])),
        ("parameters", ", ".join(f"{key}={_short(value)}" for key, value in parameters.items())),
        *each(kind, map(output.potcar, files)),
        *each("warnings", map(output.sentence, job["warnings"])),
        ("engine", f"{job['engine']}, cluster {job['cluster']}"),
        ("resources", output.resources(job)),
        ("submitted", f"{output.age(job['created_at'])} ago"),
        ("took", _took(job)),
        *each("files", _removed(job)),
        ("job", job["job_id"]),
    ]


def _go_on(job: JobDocument, reached: Progress | None) -> str | None:
    """Return how what a failed calculation has reached is gone on from."""
    if reached is None or reached.ionic_step is None:
        return None
    if "relax" not in job["recipe"].rpartition(".")[2].split("_"):
        return None  # of others there is no last geometry to go on from
    return f"crystalmath retry {job['job_id'][:8]} --continue, from its last whole geometry"


def _removed(job: JobDocument) -> list[str]:
    """Return what of a job's files is not there any more."""
    if job["removed"] is None:
        return []
    if job["removed"] == "heavy":
        at = time.strftime("%Y-%m-%d %H:%M", time.localtime(job["removed_at"]))
        return [f"wave functions, densities and the like were removed on {at}"]
    return [output.without_files(job) or job["removed"]]


def each(name: str, values: Iterable[str]) -> Iterator[tuple[str, object]]:
    """Yield values a line each, of which only the first has a name."""
    for value in values:
        yield name, value
        name = ""


def _short(value: object) -> str:
    import json

    def plain(node: object) -> object:
        if isinstance(node, list):
            return [plain(item) for item in node]
        if not isinstance(node, dict):
            return node
        if "@class" not in node:
            return {key: plain(item) for key, item in node.items()}
        # A tuple and a path read as the JSON that was written for them; an array is only named.
        if node["@class"] == "tuple":
            return plain(node["data"])
        return node.get("string", f"<{node['@class']}>")

    text = json.dumps(plain(value), ensure_ascii=False, separators=(",", ":"))
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def _took(job: JobDocument) -> str | None:
    began, ended = job["started_at"], job["finished_at"]
    return None if began is None or ended is None else f"{ended - began:.1f} s"
