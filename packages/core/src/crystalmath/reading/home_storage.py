"""Checks of the file systems of a home and its database, and of their file locks."""

from __future__ import annotations

import contextlib
import fcntl
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from crystalmath._storage import ELSEWHERE, file_system, is_shared, no_links, without_links
from crystalmath.models.cluster import Check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from crystalmath.config import Config

_ELSEWHERE = (
    "put the database on PostgreSQL (CRYSTALMATH_DATABASE_URL), or beside the home; see "
    "docs/configuration.md, Network file systems"
)


def storage_checks(config: Config) -> Iterator[Check]:
    """Check the file systems of the home and its database, and their file locks."""
    kind = file_system(config.home)
    where = f"{config.home} is on {kind}, {'a network' if config.is_on_network else 'a local'}"
    why = "" if config.network is None else " ([storage] network says so)"
    folder = next(place for place in (config.home, *config.home.parents) if place.exists())
    trouble = _cannot_lock(folder)
    if trouble:
        yield Check(
            "storage",
            "error",
            f"{where} file system{why}, and files cannot be locked there: {trouble}",
            "mount it with locks (Lustre: -o flock; NFS: not nolock), or choose another "
            "home with CRYSTALMATH_HOME",
        )
        return
    jobs = config.jobs_directory
    runs = next(place for place in (jobs, *jobs.parents) if place.is_dir())
    without = None
    with contextlib.suppress(OSError):  # the check of the home reports it
        without = no_links(runs)
    if without is not None:
        yield Check("storage", "error", without_links(runs, without), ELSEWHERE)
        return
    yield Check("storage", "ok", f"{where} file system{why}; {_kept(config)}")
    file = _file(config)
    if config.is_on_network and file is not None and not is_shared(file, config.home):
        yield Check(
            "storage",
            "warning",
            f"{file} is on {file_system(file)}, of this host alone: commands on others "
            "cannot read the jobs",
            _ELSEWHERE,
        )


def _file(config: Config) -> Path | None:
    scheme, _, path = config.database_url.partition(":///")
    return Path(path) if scheme.startswith("sqlite") else None


def _kept(config: Config) -> str:
    """Return where the database lies, and which journal it keeps."""
    file = _file(config)
    if file is None:
        return "the database is on a server, which all hosts may ask"
    if not is_shared(file, config.home):
        return f"the database is apart, at {file}"
    if config.is_on_network:
        return (
            "SQLite keeps a rollback journal, as its write-ahead log needs memory that hosts "
            "do not share"
        )
    return "SQLite keeps a write-ahead log"


def _cannot_lock(folder: Path) -> str | None:
    """Try the two kinds of locks that the server, its jobs and SQLite hold."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(file, fcntl.LOCK_UN)
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except PermissionError:
        return None  # the check of the home reports it
    except OSError as error:
        return str(error.strerror)
    return None
