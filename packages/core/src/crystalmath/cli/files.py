"""``crystalmath path``, ``files``, ``du``, ``prune``, ``pack`` and ``unpack``: files of jobs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crystalmath.cli.shared import output
from crystalmath.cli.shared.common_arguments import JobId, JobIds, Json, any_client
from crystalmath.cli.shared.job_filters import with_filters_but
from crystalmath.cli.shared.parameter_options import parse_size
from crystalmath.errors import FilesRemoved
from crystalmath.models.written import read_timespan

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from crystalmath.client import Client
    from crystalmath.wire.answers import LeftJob, PackedJobs, Pruned, PrunedJob


def path(job_id: JobId, *, as_json: Json = False) -> int:
    """Print a job's work directory.

    Works in every state of the job, and fails if the directory was removed. Packed jobs are brought
    back, with the steps of a flow. A flow has a folder of links to the directories of its steps
    (03-static-Cu80), made as the steps end.
    """
    with any_client() as client:
        job = client.job(client.find(job_id))
        if said := job.without_files():
            raise FilesRemoved(said)
        place = str(output.work_dir({**job.document(), "result": None}))
        if job.state.is_terminal() and not Path(place).exists():
            _tell_of_left(client.unpack([job.job_id])["left"])
        if job.steps:
            _tell_of_left(client.unpack(parent=job.job_id)["left"])
    if as_json:
        return output.write_json({"job_id": job.job_id, "path": place})
    output.write(str(output.there(place)))
    return 0


def files(
    job_id: JobId,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Names of files, or patterns such as '*.gz'."),
    ] = None,
    *,
    attempt: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="The number of the attempt; default: the latest."),
    ] = None,
    get: Annotated[
        str | None,
        typer.Option(
            "--get",
            metavar="DIR",
            help="Write the files of the latest attempt into this folder; again: go on, and check.",
        ),
    ] = None,
    as_json: Json = False,
) -> int:
    """List the files of a job's work directory.

    crystalmath logs ID FILE prints one, and --get writes them into a folder.
    """
    from crystalmath.remotes.downloads import chosen_files

    if get is not None and attempt is not None:
        output.refuse("it brings the files of the latest attempt", "--get")
    with any_client() as client:
        if get is not None:
            return _get(client, client.find(job_id), get, names or (), as_json=as_json)
        listed = client.files(job_id := client.find(job_id), attempt=attempt)
        listed["files"] = chosen_files(listed["files"], names or ())
        steps = "" if listed["files"] else output.files_of_steps(client.job(job_id).document())
    if as_json:
        return output.write_json(listed)
    if not listed["files"]:
        output.note(f"there are no files below {output.there(listed['work_dir'])}{steps}")
        return 0
    # A table would shorten paths, which users copy.
    output.write(f"{'SIZE':>9}  {'AGE':>6}  FILE")
    for one in listed["files"]:
        size, age = output.size(one["size"]), output.age(one["modified_at"])
        output.write(f"{size:>9}  {age:>6}  {one['file']}{' (a link)' * one['is_link']}")
    if listed["more"]:
        output.note(f"{listed['more']} more, after these by their paths")
    return 0


def _get(
    client: Client, job_id: str, directory: str, names: Sequence[str], *, as_json: bool
) -> int:
    here = client.download(job_id, directory, names)
    if as_json:
        files = [one._asdict() for one in here]
        return output.write_json({"job_id": job_id, "directory": directory, "files": files})
    size = output.size(sum(one.size for one in here))
    output.write(f"{output.counted(len(here), 'file')} with {size} in {directory}")
    return 0


#: The most groups of a kind that are shown.
_GROUPS = 20


@with_filters_but("steps", "all_tries")  # their files always count
def du(*, filters: dict[str, Any], as_json: Json = False) -> int:
    """Measure the files of jobs: by recipe, by label, in total.

    HEAVY is the part that crystalmath prune --keep-results would remove.
    """
    with any_client() as client:
        usage = client.usage(**filters)
    if as_json:
        return output.write_json(usage)
    groups = [
        *_use_rows(usage["recipes"], lambda one: output.short_recipe(one["recipe"])),
        *_use_rows(usage["labels"], lambda one: f"{one['label']}={one['value']}"),
    ]
    packed = usage["total"]["packed"]
    rows = [*groups, _use_row(f"all{f', {packed} packed' * (packed > 0)}", usage["total"])]
    headers = ("SIZE", "HEAVY", "FILES", "JOBS", "")
    output.table(headers, rows, right=headers[:4], whole=headers[:4])
    return 0


def _use_rows(groups: Sequence[Any], name: Callable[[Any], str]) -> list[tuple[str, ...]]:
    shown = [_use_row(name(one), one) for one in groups[:_GROUPS]]
    left = len(groups) - _GROUPS
    more = ("", "", "", "", f"({left} smaller ones; --json tells them)")
    return [*shown, more] if left > 0 else shown


def _use_row(name: str, use: Mapping[str, Any]) -> tuple[str, ...]:
    sizes = (output.size(use["size"]), output.size(use["heavy_size"]))
    return (*sizes, str(use["files"]), str(use["jobs"]), name)


#: The most jobs that are shown, the largest first.
_SHOWN = 20
_Older = Annotated[
    str | None, typer.Option(metavar="TIME", help="Only jobs that ended longer ago: 30d, 12h.")
]


@with_filters_but("steps", "all_tries")
def prune(
    job_ids: JobIds = None,
    *,
    filters: dict[str, Any],
    older: _Older = None,
    larger: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Only jobs with more to remove than this: 500MB, 2GB."),
    ] = None,
    keep_results: Annotated[
        bool,
        typer.Option(
            "--keep-results",
            help="Remove only large files that can be computed again: WAVECAR, CHG*, wfc*, ...",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the jobs and sizes, and remove nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove without asking.")] = False,
    as_json: Json = False,
) -> int:
    """Remove the run directories of jobs that have ended.

    Shows the jobs and their sizes, and asks before it removes. The records of the jobs stay, and
    unfinished jobs keep their files. Exits 1 if some chosen files could not be removed.
    """
    chosen = {
        "older_s": _age(older),
        "larger": None if larger is None else parse_size(larger),
        **filters,
    }
    if not job_ids and all(value is None for value in chosen.values()):
        output.refuse(
            "name jobs, or choose them with --older, --larger, --label, --state or others"
        )
    if not (yes or dry_run or sys.stdin.isatty()):
        output.refuse("there is no terminal to confirm on; use --dry-run, then --yes")
    with any_client() as client:
        wanted = [client.find(prefix) for prefix in job_ids] if job_ids else None
        answer = client.prune(wanted, keep_results=keep_results, dry_run=True, **chosen)
        if not as_json:
            _show(answer, keep_results=keep_results)
            _tell_of_steps(client, wanted or (), answer)
        if not dry_run:
            answer = _remove(client, answer, keep_results=keep_results, yes=yes)
    if as_json:
        output.write_json({"jobs": answer["jobs"], "left": answer["left"]})
    return _tell_of_left(answer["left"])


def _remove(client: Client, shown: Pruned, *, keep_results: bool, yes: bool) -> Pruned:
    """Remove the jobs that were shown, and none that became old enough since."""
    if shown["jobs"] and not yes:
        typer.confirm("Remove them?", abort=True, err=True)
    # Call it also for no jobs: it finishes the removals of an interrupted call.
    job_ids = [job["job_id"] for job in shown["jobs"]]
    done = client.prune(job_ids, keep_results=keep_results)
    if done["jobs"]:
        size = output.size(sum(job["size"] for job in done["jobs"]))
        output.note(f"removed {size} of {output.counted(len(done['jobs']))}")
    return {**done, "left": [*shown["left"], *done["left"]]}


def _show(pruned: Pruned, *, keep_results: bool) -> None:
    jobs = sorted(pruned["jobs"], key=lambda job: -job["size"])
    if not jobs:
        output.note("there is nothing to remove")
        return
    headers = ("SIZE", "NAME", "STATE", "RECIPE", "ENDED", "ID")
    rows = map(_pruned_row, jobs[:_SHOWN])
    output.table(headers, rows, right=("SIZE",), whole=("SIZE", "ID"))
    if len(jobs) > _SHOWN:
        output.write(f"and {len(jobs) - _SHOWN} smaller ones")
    what = "the heavy files" if keep_results else "the run directories"
    size = output.size(sum(job["size"] for job in jobs))
    output.write(f"{what} of {output.counted(len(jobs))}: {size}")
    if not keep_results and (completed := [job for job in jobs if job["status"] == "completed"]):
        lost = output.counted(len(completed))
        output.write(f"with them go the results of {lost}, which --keep-results would keep")


def _tell_of_steps(client: Client, named: Sequence[str], pruned: Pruned) -> None:
    """Report how much the steps of named flows keep: they are jobs of their own."""
    meant = {job["job_id"] for job in pruned["jobs"]}
    for job_id in [one for one in named if one in meant][:_SHOWN]:
        if not client.job(job_id).steps:
            continue
        keep = client.usage(parent=job_id)["total"]
        if keep["size"] and not meant.issuperset(job.job_id for job in client.list(parent=job_id)):
            output.note(
                f"the steps of {job_id[:8]} keep their files, {output.size(keep['size'])}; "
                f"crystalmath prune --parent {job_id[:8]} removes those"
            )


def _pruned_row(job: PrunedJob) -> tuple[str, ...]:
    ended_at = job["finished_at"]
    return (
        output.size(job["size"]),
        job["name"] or "",
        job["status"],
        output.short_recipe(job["recipe"]),
        "" if ended_at is None else f"{output.age(ended_at)} ago",
        job["job_id"][:8],
    )


def _age(text: str | None) -> float | None:
    if text is None:
        return None
    # A mistaken HH:MM:SS would mean seconds, and remove jobs that have just ended.
    seconds = None if text.strip()[-1:].isdigit() else read_timespan(text)
    if seconds is None:
        output.refuse(
            f"cannot read {text!r} as an age with its unit; write 12h or 1d12h, "
            "months in days (60d), minutes as 30m",
            "--older",
        )
    return seconds


@with_filters_but("steps", "all_tries")
def pack(
    job_ids: JobIds = None,
    *,
    filters: dict[str, Any],
    older: _Older = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count the jobs, pack none.")] = False,
    as_json: Json = False,
) -> int:
    """Put the run directories of ended jobs into packs.

    A pack is a file of up to 1000 jobs; all commands work on packed jobs as before. Without ids and
    options all ended jobs are packed. Exits 1 if some chosen jobs stay as they are.
    """
    with any_client() as client:
        wanted = [client.find(prefix) for prefix in job_ids] if job_ids else None
        answer = client.pack(wanted, older_s=_age(older), dry_run=dry_run, **filters)
    return _show_packed(answer, "would be packed" if dry_run else "packed", as_json=as_json)


@with_filters_but("steps", "all_tries")
def unpack(job_ids: JobIds = None, *, filters: dict[str, Any], as_json: Json = False) -> int:
    """Bring the run directories of packed jobs back.

    Without ids and options all are brought back. Exits 1 if some chosen jobs stay packed.
    """
    with any_client() as client:
        wanted = [client.find(prefix) for prefix in job_ids] if job_ids else None
        return _show_packed(client.unpack(wanted, **filters), "unpacked", as_json=as_json)


def _show_packed(answer: PackedJobs, done: str, *, as_json: bool) -> int:
    if as_json:
        output.write_json({"job_ids": answer["job_ids"], "left": answer["left"]})
    else:
        output.write(f"{output.counted(len(answer['job_ids']))} {done}")
    return _tell_of_left(answer["left"])


def _tell_of_left(left: Sequence[LeftJob]) -> int:
    for job in left:
        output.note(f"{job['job_id'][:8]} stays: {job['error']}")
    return 1 if left else 0
