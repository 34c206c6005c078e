"""Removes the files of jobs, and carries jobs to other homes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystalmath import server
from crystalmath.client.transport import LONG_S, chosen, filters_document, parts
from crystalmath.errors import InvalidJob

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from crystalmath.client.transport import JobsLike
    from crystalmath.models import Filters
    from crystalmath.wire.answers import ArchivedJobs, ImportedJobs, PackedJobs, Pruned


def prune_jobs(
    ask: server.Ask,
    job_ids: JobsLike | None,
    filters: Filters,
    options: Mapping[str, Any],
) -> Pruned:
    """Remove run directories, page by page; see :meth:`.Client.prune`."""
    named = chosen(ask, job_ids, filters)
    requests: list[dict[str, Any]] = [filters_document(filters)]
    if named is not None:
        requests = [{"job_ids": part} for part in parts(named) or [[]]]
    pruned: Pruned = {"jobs": [], "left": [], "cursor": None, "error": None}
    for request in requests:
        has_more = True
        while has_more:
            cursor = pruned["cursor"]
            page = ask(server.JOBS_PRUNE, timeout=LONG_S, **options, **request, cursor=cursor)
            pruned["jobs"] += page["jobs"]
            pruned["left"] += page["left"]
            pruned["cursor"] = page["cursor"]
            has_more = page["cursor"] is not None
    return pruned


def move_packed(
    ask: server.Ask,
    method: server.Method[PackedJobs],
    job_ids: JobsLike | None,
    filters: Filters,
    options: Mapping[str, Any],
) -> PackedJobs:
    """Pack or unpack jobs, page by page; see :meth:`.Client.pack`."""
    named = chosen(ask, job_ids, filters)
    requests: list[dict[str, Any]] = [filters_document(filters)]
    if named is not None:
        requests = [{"job_ids": part} for part in parts(named) or [[]]]
    packed: PackedJobs = {"job_ids": [], "left": [], "cursor": None, "error": None}
    for request in requests:
        has_more = True
        while has_more:
            cursor = packed["cursor"]
            page = ask(method, timeout=LONG_S, **options, **request, cursor=cursor)
            packed["job_ids"] += page["job_ids"]
            packed["left"] += page["left"]
            packed["cursor"] = page["cursor"]
            has_more = page["cursor"] is not None
    return packed


def write_archive(
    ask: server.Ask,
    path: str | os.PathLike[str],
    job_ids: JobsLike | None,
    filters: Filters,
    *,
    away: bool,
) -> ArchivedJobs:
    """Write jobs into a new archive; see :meth:`.Client.write_archive`.

    `away`: the server is on another machine, which makes the archive, and from where it is fetched.
    """
    named = chosen(ask, job_ids, filters)
    which = {"filters": filters_document(filters)} if named is None else {"job_ids": named}
    if not away:
        return ask(server.JOBS_ARCHIVE, timeout=LONG_S, file=_absolute(path), **which)
    from crystalmath.remotes.downloads import fetch_transfer

    if (place := Path(path)).exists():
        raise InvalidJob(f"{place} is there already, and is not overwritten; name another file")
    archived = ask(server.JOBS_ARCHIVE, timeout=LONG_S, **which)
    fetch_transfer(ask, str(archived["transfer"]), place)
    return archived


def import_archive(ask: server.Ask, path: str | os.PathLike[str], *, away: bool) -> ImportedJobs:
    """Take in the jobs of an archive; see :meth:`.Client.import_archive`."""
    if away:
        from crystalmath.remotes.downloads import send_transfer

        transfer = send_transfer(ask, Path(path))
        return ask(server.JOBS_IMPORT, timeout=LONG_S, transfer=transfer)
    return ask(server.JOBS_IMPORT, timeout=LONG_S, file=_absolute(path))


def _absolute(path: str | os.PathLike[str]) -> str:
    """Return an absolute path, because the server runs in another folder."""
    return str(Path(path).absolute())
