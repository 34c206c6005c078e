"""``crystalmath status``, ``show`` and ``result``: a job's state, history and result."""

from __future__ import annotations

import sys
import time
from pathlib import Path  # noqa: TC003 - Typer reads annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crystalmath import server
from crystalmath.cli.shared import output
from crystalmath.cli.shared.common_arguments import JobId, Json, home_reader, tell_unserved

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from crystalmath.client.home_reader import HomeReader
    from crystalmath.models import Progress
    from crystalmath.models.job import Job
    from crystalmath.wire.answers import (
        AttemptEntry,
        Event,
        JobDocument,
        Potcar,
        ProgressDocument,
        Relative,
        Story,
    )


#: The most characters of a parameter that are shown.
_SHOWN = 60
#: The most failed steps of a flow that are named, and the most running ones.
_STEPS = 10
#: The most events in an answer of ``jobs.show``.
_EVENTS = 1000


def status(job_id: JobId, *, as_json: Json = False) -> int:
    """Show a job's state, and its energy or its error."""
    with home_reader() as home:
        answer = home.ask(
            server.JOBS_SPECIFICATION,
            job_id=job_id,
            prefix=True,
            job=True,
            progress=None if as_json else True,
        )
        job, files = answer["job"], answer["potcars"]
        steps = [] if as_json else _steps(home, job)
    if as_json:
        return output.write_json({**job, "params": answer["params"], "potcars": files})
    reached = _progress(answer["progress"])
    output.write(output.fields(status_fields(job, answer["params"], files, reached, steps)))
    tell_unserved([job])
    return 0


def _steps(home: HomeReader, job: JobDocument) -> list[tuple[str, object]]:
    """Return lines about a flow: the counts of its steps, and the failed and running ones."""
    counts = job.get("steps")
    if not counts:
        return []
    from crystalmath.models.job_notes import step_of, told_steps

    pairs: list[tuple[str, object]] = [
        ("steps", told_steps(counts, ("failed", "cancelled", "running", "pending")))
    ]
    states = [state for state in ("failed", "running") if counts.get(state)]
    newest: dict[str, JobDocument] = {}
    if states:
        fields = ["status", "error", "parents", "started_at"]
        for one in home.jobs(None, parent=job["job_id"], fields=fields):
            _, step = step_of(one["parents"]) or ("", "")
            newest.setdefault(step, one)  # the newest comes first; older ones were retried
    for state in states:
        those = [(step, one) for step, one in newest.items() if one["status"] == state][::-1]
        lines = [_step(step, one) for step, one in those if not _is_left(one)]
        if more := lines[_STEPS:]:
            command = f"crystalmath list --parent {job['job_id'][:8]} --state {state}"
            lines[_STEPS:] = [f"and {len(more)} more: {command}"]
        if left := sum(_is_left(one) for _, one in those):
            lines.append(f"{left} that never began, as what they needed had failed")
        pairs += each(state, lines)
    return pairs


def _is_left(job: JobDocument) -> bool:
    """Return whether a step failed without a start, because a step that it needs failed."""
    return job["started_at"] is None and (job["error"] or "").startswith("it needs job")


def _step(name: str, job: JobDocument) -> str:
    reason = job["error"] if job["status"] != "cancelled" else None
    error = f": {output.first_line(reason)}" if reason else ""
    return f"{name} ({job['job_id'][:8]}){error}"


def _progress(document: ProgressDocument | None) -> Progress | None:
    if document is None:
        return None
    from crystalmath.models.progress import Progress

    return Progress.read(document)


def status_fields(
    job: JobDocument,
    parameters: Mapping[str, object],
    files: Sequence[Potcar],
    reached: Progress | None = None,
    steps: Sequence[tuple[str, object]] = (),
) -> list[tuple[str, object]]:
    """Return the names and values of a job's lines; `steps` are those of its flow."""
    kind = "POTCARs" if any(file["titel"] for file in files) else "UPF files"
    progress = [("progress", reached and f"{reached} ({output.age(reached.updated_at)} ago)")]
    state = job["status"]
    failed = state == "failed"
    waiting = output.awaited(job)
    waits = "waits for" if state == "pending" else "waited for"
    stopping = job["cancel_requested_at"] is not None and job["finished_at"] is None
    return [
        ("state", f"{state} (being cancelled)" if stopping else state),
        ("reason", job["reason"]),
        *(() if failed else progress),
        ("error", None if state == "cancelled" else job["error"]),
        *(progress if failed else ()),
        ("superseded by", job["superseded_by"]),
        ("go on", _go_on(job, reached) if failed and not job["superseded_by"] else None),
        *steps,
        *(pair for pair in output.summary_fields(job) if not steps or pair[0] != "steps"),
        ("remote", job.get("remote")),
        ("name", job["name"]),
        ("labels", ", ".join(f"{key}={value}" for key, value in job["labels"].items())),
        *each(waits, map(output.parent, waiting)),
        *each("came of", (output.parent(one) for one in job["parents"] if one not in waiting)),
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
    """Return the command that continues a failed calculation or flow, if there is one."""
    if set(job.get("steps") or ()) == {"completed"} and "StepFailed" in (job["error"] or ""):
        again = f"crystalmath retry {job['job_id'][:8]}"
        return f"{again}: all its steps have completed since, and are taken over"
    if reached is None or reached.ionic_step is None:
        return None
    if "relax" not in job["recipe"].rpartition(".")[2].split("_"):
        return None  # only relaxations continue from their last geometry
    return f"crystalmath retry {job['job_id'][:8]} --continue, from its last whole geometry"


def _removed(job: JobDocument) -> list[str]:
    """Return which of a job's files were removed."""
    if job["removed"] is None:
        return []
    if job["removed"] == "heavy":
        at = time.strftime("%Y-%m-%d %H:%M", time.localtime(job["removed_at"]))
        return [f"wave functions, densities and the like were removed on {at}"]
    return [output.without_files(job) or job["removed"]]


def each(name: str, values: Iterable[str]) -> Iterator[tuple[str, object]]:
    """Yield a line for each value; only the first has the name."""
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
        # Show a tuple as a list and a path as text; name the type of an array.
        if node["@class"] == "tuple":
            return plain(node["data"])
        return node.get("string", f"<{node['@class']}>")

    text = json.dumps(plain(value), ensure_ascii=False, separators=(",", ":"))
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def _took(job: JobDocument) -> str | None:
    began, ended = job["started_at"], job["finished_at"]
    return None if began is None or ended is None else f"{ended - began:.1f} s"


def show(job_id: JobId, *, as_json: Json = False) -> int:
    """Show a job's history: attempts, events, related jobs.

    Events have their reasons. Related jobs are those that this job used or retried, and those that
    used or retried it. crystalmath files ID lists the job's files, crystalmath logs ID prints one.
    """
    with home_reader() as home:
        story = home.ask(server.JOBS_SHOW, job_id=home.find(job_id))
        steps = [] if as_json else _steps(home, story["job"])
    if as_json:
        return output.write_json(story)
    output.write(output.fields(_story(story, steps)))
    tell_unserved([story["job"]])
    return 0


def _story(story: Story, steps: Sequence[tuple[str, object]]) -> list[tuple[str, object]]:
    # The lines below show the parents with their states.
    job: JobDocument = {**story["job"], "parents": []}
    waits = "waits for" if job["status"] == "pending" else "waited for"
    waiting = [one for one in story["parents"] if "awaited" in one]
    taken = [one for one in story["parents"] if "awaited" not in one]
    known = status_fields(job, story["params"], story["potcars"], steps=steps)
    others = [one for one in story["children"] if one["role"] not in {"flow", "taken"}]
    flow = dict(story["flow"])
    by_step = flow.pop("by_step", {})
    body = story["body"]
    return [
        *known,
        ("body", body and f"{body['engine']}, cluster {body['cluster']}"),
        *each("flow", (_setting(name, value) for name, value in flow.items())),
        *each("by step", (f"{name}: {_settings(terms)}" for name, terms in by_step.items())),
        *each(waits, _relatives(waiting, output.taken_of)),
        *each("came of", _relatives(taken, output.taken_of)),
        *each("led to", _relatives(others, _how_used)),
        *each("attempts", (_attempt(one, job["started_at"]) for one in story["attempts"])),
        *each("events", (_event(one) for one in story["events"])),
        ("", None if len(story["events"]) < _EVENTS else f"(the first {_EVENTS}; more may follow)"),
        ("work dir", output.there(output.work_dir({**job, "result": None}))),
    ]


def _settings(terms: Mapping[str, Any]) -> str:
    flat = {**terms, **terms.get("resources", {})}
    flat.pop("resources", None)
    return ", ".join(_setting(name, value) for name, value in flat.items())


def _setting(name: str, value: Any) -> str:
    """Return a term of a flow or its steps as options write it: ``walltime=1h``."""
    from crystalmath.models.written import timespan_text

    if name.endswith("_s"):
        value, name = timespan_text(value), name.removesuffix("_s").replace("_", "-")
        return f"{name}={value}"
    return f"{name}={_short(value)}"


def _relatives(those: Sequence[Relative], how: Callable[[Relative], str]) -> Iterator[str]:
    """Describe each related job once, with all its relations."""
    ways: dict[str, list[str]] = {}
    for one in those:
        ways.setdefault(one["job_id"], []).append(how(one))
    for job_id, one in {one["job_id"]: one for one in those}.items():
        known = [one["name"], one["recipe"] and output.short_recipe(one["recipe"]), one["status"]]
        description = ", ".join(text for text in known if text) or "not on record any more"
        yield f"{job_id} ({', '.join(ways[job_id])}): {description}"


def _how_used(child: Relative) -> str:
    if "awaited" in child:
        return "waits for it"
    # The child's own record says which geometry.
    return "from a geometry of it" if child["role"] == "structure" else output.taken_of(child)


def _attempt(one: AttemptEntry, started_at: float | None) -> str:
    # The claim of a worker without shared files names no process.
    process = f", process {one['pid']}" if one["pid"] else ""
    # An imported job has no claim.
    nowhere = "not begun" if started_at is None else "on a host that is not known"
    where = f"on {one['host']}{process}" if one["host"] else nowhere
    begun = f", from the geometry in {one['begun_from']}" if one["begun_from"] else ""
    reason = one["error"] if one["outcome"] != "cancelled" else None
    error = f": {output.first_line(reason)}" if reason else ""
    ended = f", {one['outcome']}" if one["outcome"] else ""
    replaced = "".join(
        f"\n  its process was replaced{'' if times == 1 else f' {times} times'}: {why}"
        for why, times in one.get("process_replaced", {}).items()
    )
    return f"{one['attempt']} {where}{begun}{ended}{error}{replaced}"


def _event(one: Event) -> str:
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one["at"]))
    reason = f": {output.first_line(one['reason'])}" if one["reason"] else ""
    return f"{at}  {one['to']}{reason}"


def result(
    job_id: JobId,
    *,
    field: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Print only this part of the result: results.energy."),
    ] = None,
    structure: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the final geometry to a new file: out.extxyz, POSCAR, out.cif. Formats "
            "such as extxyz include energy, forces and stress.",
        ),
    ] = None,
    as_json: Json = False,
) -> int:
    """Print a job's result; with --json all of it.

    Exits 1 if there is none: the job failed, was cancelled, or has not ended.
    """
    if structure is not None and (field is not None or as_json):
        other = "--json" if as_json else "--field"
        output.refuse(f"does not go with {other}", "--structure")
    with home_reader() as home:
        document = home.ask(server.JOBS_STATUS, job_id=home.find(job_id))
        job_id, state = document["job_id"], document["status"]
        if as_json:
            # Copy the stored text: parsing and writing 20 MB would take time and memory.
            _splice(document, home.result_json(job_id, field) or b"null")
            return 0 if state == "completed" else 1
        from crystalmath.errors import InvalidJob
        from crystalmath.models.job import Job

        job = Job.read(document)
        if state != "completed" and (field is not None or structure is not None):
            raise InvalidJob(_without_result(job))
        if field is not None:
            _print_field(home.result_json(job_id, field) or b"null")
        elif structure is not None:
            _write_structure(job, home.result_json(job_id) or b"null", structure)
        else:
            failed = home.ask(server.JOBS_RESULT, job_id=job_id) if state == "failed" else None
            there = state == "completed" and not job.without_files()
            returned = _returned(home, job_id) if there else None
            _print_result(job, returned, failed and failed.get("traceback"))
    return 0 if state == "completed" else 1


def _without_result(job: Job) -> str:
    if not job.state.is_terminal():
        return f"job {job.job_id} is {job.state.value}; it has no result yet"
    message = f"job {job.job_id} {job.state.ended}, and has no result"
    return f"{message}; 'crystalmath result {job.job_id[:8]}' tells why"


def _print_field(raw: bytes) -> None:
    """Print a text without quotes, and any other value as JSON."""
    import json

    if raw.startswith(b'"'):
        output.write(json.loads(raw))
    else:
        sys.stdout.write(raw.decode() + "\n")


def _write_structure(job: Job, raw: bytes, path: Path) -> None:
    import json

    import ase.io
    from ase.io.formats import UnknownFileTypeError

    from crystalmath.errors import InvalidJob
    from crystalmath.recipes.summary import final_atoms, structures_of

    if path.exists():
        raise InvalidJob(f"{path} is there already; remove it, or write another file")
    frames, beside = structures_of(raw)
    if beside:
        own = job.job_id[:8]
        how = f"crystalmath result {own} --json has them all"
        if job.steps:
            how = (
                f"crystalmath list --parent {own} lists its steps, and crystalmath result STEP "
                f"--structure {path} writes the structure of one"
            )
        raise InvalidJob(
            f"the result of job {job.job_id} has {beside} structures beside each other, and none "
            f"of them is its final one; {how}"
        )
    if not frames:
        atoms = final_atoms(json.loads(raw), (job.summary or {}).get("energy_ev"))
        if atoms is None:
            raise InvalidJob(f"the result of job {job.job_id} has no structure")
        frames = [atoms]
    try:
        ase.io.write(path, frames if len(frames) > 1 else frames[0])
    except OSError:
        raise
    except Exception as error:  # every writer fails in its own way
        path.unlink(missing_ok=True)
        several = f"{len(frames)} structures, as out.extxyz" if len(frames) > 1 else "a structure"
        unknown = isinstance(error, UnknownFileTypeError)
        why = f"{type(error).__name__}: {error}"
        why = f"ASE knows no format {str(error)!r}" if unknown else why
        raise InvalidJob(
            f"{path} cannot be written: {why}; name a file that ASE writes {several} into"
        ) from error
    formulas = [atoms.get_chemical_formula() for atoms in frames]
    output.note(f"{', '.join(formulas)} written to {path}")


def _splice(job: Mapping[str, Any], raw: bytes) -> None:
    import json

    document = {name: value for name, value in job.items() if name != "result"}
    sys.stdout.flush()
    out = sys.stdout.buffer
    out.write(json.dumps(document, allow_nan=False).encode()[:-1] + b', "result": ')
    out.write(raw)
    out.write(b"}\n")
    out.flush()


def _returned(home: HomeReader, job_id: str) -> str | None:
    """Return a short form of a recipe's result, with the options that print all of it."""
    import json

    value = json.loads(home.result_json(job_id, brief=True) or b"null")
    if (
        isinstance(value, dict) and "last" in value
    ):  # a name of the brief form, and of no result of a flow
        value = json.loads(home.result_json(job_id) or b"null")
    if value is None:
        return None
    if not isinstance(value, dict) or "@module" in value:
        parts = [_value(value)]
    else:
        names = [name for name in value if name[:1] != "@"]
        parts = [f"{name}={_value(value[name])}" for name in names[:_RETURNED]]
        parts += [f"{len(names) - _RETURNED} more"] * (len(names) > _RETURNED)
    return f"{', '.join(parts)} (--field NAME prints one, --json all)"


def _value(value: Any) -> str:
    if isinstance(value, (list, dict)):
        return f"[{len(value)}]" if isinstance(value, list) else "{...}"
    text = str(value)
    return text if len(text) <= _CUT else f"{text[: _CUT - 3]}..."


#: The most members of a result that are shown, and the most characters of each.
_RETURNED = 8
_CUT = 24


def _print_result(job: Job, returned: str | None, traceback: str | None) -> None:
    for warning in job.warnings:
        output.note(f"warning: {output.sentence(warning)}")
    if not job.state.is_terminal():
        output.note(_without_result(job))
        return
    if job.state.value == "completed":
        document = job.document()
        pairs = [*output.summary_fields(document), ("returned", returned)]
        pairs += [("work dir", output.there(output.work_dir(document))), ("job", job.job_id)]
        output.write(output.fields(pairs))
        if said := job.without_files():
            output.note(f"{said}, and of the result what you see")
        return
    output.note(f"job {job.job_id} {job.state.ended}")
    if job.error and job.state.value != "cancelled":
        output.note(f"error: {job.error}")
    if traceback:
        output.note(traceback.rstrip())
