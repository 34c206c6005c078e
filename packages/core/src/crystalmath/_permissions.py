"""Checks that files belong to the user, and that nobody else can write to them."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from crystalmath.errors import PlaceError

if TYPE_CHECKING:
    from pathlib import Path

#: The files of a home that decide what is run. They are checked before any is read. The folder of
#: the server must be closed to others altogether: `server.endpoint` checks it.
READ = ("config.toml", "jobs", "jobs.sqlite", "jobs.sqlite-wal")

_REMEDY = "set CRYSTALMATH_HOME to a folder of your own"


def require_own_home(home: Path) -> None:
    """Refuse a home that somebody else made or can write to; a missing one is fine."""
    path = os.fspath(home)
    require_own(path, f"the home {path}")
    for name in READ:
        below = f"{path}/{name}"
        require_own(below, below)


def require_own_database(url: str, home: Path) -> None:
    """Refuse a SQLite file outside the home if others can write to it or its folder.

    The check of the home covers a file in it. A database on a server is not checked.
    """
    scheme, _, file = url.partition(":///")
    folder = os.path.dirname(file)
    if not (scheme.startswith("sqlite") and folder) or folder == os.fspath(home):
        return
    remedy = (
        "have [storage] database (or CRYSTALMATH_DATABASE_URL) name a file in a folder of your own"
    )
    # Users who can write to the folder can replace the file, or put a journal beside it.
    require_own(folder, f"the database's folder {folder}", remedy=remedy, or_root=True)
    for each in (file, f"{file}-wal"):
        require_own(each, f"the database {each}", remedy=remedy)


def require_own(path: str, what: str, *, remedy: str = _REMEDY, or_root: bool = False) -> None:
    """Refuse a file or folder that is not the user's own, or that others can write to.

    A link must be the user's own, and so must its target.
    """
    try:
        entry = status = os.lstat(path)
        if stat.S_ISLNK(entry.st_mode):
            status = os.stat(path)
    except NotADirectoryError as error:
        raise PlaceError(f"{os.path.dirname(path)} is no folder; {remedy}") from error
    except OSError:
        return  # the caller that uses it reports the error
    for owner in (entry.st_uid, status.st_uid):
        if owner != os.geteuid() and not (or_root and owner == 0):
            raise PlaceError(
                f"{what} belongs to the user {owner}, not to you ({os.geteuid()}), and says what "
                f"is run in your name; {remedy}"
            )
    if _is_open(path, status):
        close = f"`chmod go-w {path}` if you trust what is in it, or " * may_be_closed(path, status)
        raise PlaceError(
            f"{what} can be written to by others (mode {stat.S_IMODE(status.st_mode):o}), and says "
            f"what is run in your name; {close}{remedy}"
        )


def make_own(folder: str | os.PathLike[str]) -> None:
    """Make a folder, and missing ones above it, that only the user can enter.

    The umask does not change their modes; an existing folder keeps its mode.
    """
    path = os.fspath(folder)
    if os.path.isdir(path):
        return
    if above := os.path.dirname(path):
        make_own(above)
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        if not os.path.isdir(path):  # else another process was first
            raise
    else:
        os.chmod(path, 0o700)


def may_be_closed(path: str, status: os.stat_result) -> bool:
    """Return whether to advise closing a folder to others: never `/tmp` or `/srv`."""
    shared = status.st_mode & stat.S_ISVTX
    return not shared and os.path.dirname(os.path.realpath(path)) != "/"


def _is_open(path: str, status: os.stat_result) -> bool:
    mode = status.st_mode
    if mode & stat.S_IWOTH:
        return True
    return bool(mode & stat.S_IWGRP) and not _is_of_own_group(path, status.st_gid)


def _is_of_own_group(path: str, gid: int) -> bool:
    """Return whether a group is the user's private one, as on systems with umask 002."""
    import grp
    import pwd

    try:
        name, group = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(gid)
    except KeyError:
        return False
    if group.gr_name != name or set(group.gr_mem) - {name}:
        return False
    try:
        # With an access control list these bits are only an upper limit of its users' rights.
        os.getxattr(path, "system.posix_acl_access")
    except OSError:
        return True
    return False
