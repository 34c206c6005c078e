"""Removes the files of jobs, and carries jobs to other homes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from crystalmath import server
from crystalmath.client.transport import LONG_S, chosen, filters_document, requests
from crystalmath.errors import InvalidJob

if TYPE_CHECKING:
    import os

    from crystalmath.client.transport import JobsLike
    from crystalmath.models import Filters
    from crystalmath.wire.answers import ArchivedJobs, ImportedJobs

_Page = TypeVar("_Page")


def in_pages(
    ask: server.Ask,
    method: server.Method[_Page],
    job_ids: JobsLike | None,
    filters: Filters,
    **options: Any,
) -> _Page:
    """Prune, pack or unpack jobs by several requests, and return their answers as one."""
    every: Any = {}
    for request in requests(chosen(ask, job_ids, filters), filters):
        page: Any = {}
        while not page or page["cursor"] is not None:
            cursor = page.get("cursor")
            page = ask(method, timeout=LONG_S, cursor=cursor, **options, **request)
            lists = {name: one for name, one in page.items() if isinstance(one, list)}
            every = page | {name: every.get(name, []) + one for name, one in lists.items()}
    answer: _Page = every
    return answer


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
