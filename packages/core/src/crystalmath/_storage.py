"""Where the data of a home lies, and on what kind of file system."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from pathlib import Path

from crystalmath.errors import ConfigError

__all__ = ["HOME_ID", "file_system", "is_network", "url_of_home"]

#: The file in a home that tells it from all others on a database server.
HOME_ID = "home-id"
#: File systems that several hosts write to, by their names in Linux's table of mounts; those made
#: of FUSE have a name of their own behind ``fuse.``, which `statfs` would not tell.
NETWORK = frozenset(
    (
        *("nfs", "nfs4", "lustre", "gpfs", "beegfs", "cifs", "smb3", "smbfs", "ceph", "afs"),
        *("panfs", "pvfs2", "orangefs", "wekafs", "glusterfs", "gfs2", "ocfs2", "sshfs", "9p"),
        *("cephfs", "ceph-fuse", "juicefs", "moosefs", "mfs", "virtiofs", "cvmfs2", "dvs"),
    )
)
_MOUNTS = "/proc/self/mountinfo"
_ESCAPED = re.compile(r"\\([0-7]{3})")


def file_system(path: Path, mounts: str | None = None) -> str:
    """Tell what a file system is called, on which a path lies or would lie.

    Parameters
    ----------
    path : pathlib.Path
        It need not be there.
    mounts : str, optional
        The table of mounts, in the form of ``/proc/self/mountinfo``; default: as it is now.
    """
    try:
        table = Path(_MOUNTS).read_text(errors="surrogateescape") if mounts is None else mounts
    except OSError:
        return "unknown"
    real = os.path.realpath(path)
    length, kind = 0, "unknown"
    for line in table.splitlines():
        mount, _, source = line.partition(" - ")
        point = _ESCAPED.sub(lambda octal: chr(int(octal[1], 8)), mount.split()[4])
        # Of two at the same place the later one covers the earlier.
        if f"{real}/".startswith(f"{point.rstrip('/')}/") and len(point) >= length:
            length, kind = len(point), source.split()[0]
    return kind


def is_network(kind: str) -> bool:
    """Tell whether several hosts may write to a file system of this kind at once."""
    return kind.removeprefix("fuse.") in NETWORK


def url_of_home(url: str, home: Path) -> str:
    """Give a home a schema of its own on a database server, unless its URL names one.

    Raises
    ------
    ConfigError
        The home cannot be marked.
    """
    if not url.startswith("postgresql") or re.search(r"[?&]schema=", url):
        return url
    return f"{url}{'&' if '?' in url else '?'}schema=crystalmath_{_home_id(home)}"


def _home_id(home: Path) -> str:
    """Read what tells a home from all others; the first who asks makes it."""
    file = home / HOME_ID
    try:
        if not file.exists():
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
            _publish(file, secrets.token_hex(6))
        found = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{file} cannot be made or read ({error}); by it the home finds its jobs on the "
            "database server. Make the home writable, or name a schema: postgresql://...?schema=NAME"
        ) from error
    if not re.fullmatch(r"[0-9a-f]{12}", found):
        raise ConfigError(
            f"{file} is damaged; write the 12 characters into it that the home's schema on the "
            "database server has behind crystalmath_"
        )
    return found


def _publish(file: Path, text: str) -> None:
    """Make a durable file as a whole; one that somebody else has made meanwhile stays."""
    draft = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, f"{text}\n".encode())
        os.fsync(descriptor)
        with contextlib.suppress(FileExistsError):
            file.hardlink_to(draft)
    finally:
        os.close(descriptor)
        draft.unlink(missing_ok=True)
