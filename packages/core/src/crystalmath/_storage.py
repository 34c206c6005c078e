"""The places of a home's data, and the kinds of their file systems."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from pathlib import Path

from crystalmath._permissions import make_own, require_own
from crystalmath.errors import ConfigError, PlaceError

#: The file that identifies a home among those that share a database server or a folder.
HOME_ID = "home-id"
#: File systems that several hosts write to, by their names in Linux's table of mounts. A FUSE file
#: system has its name after ``fuse.`` there, and none in `statfs`.
NETWORK = frozenset(
    (
        *("nfs", "nfs4", "lustre", "gpfs", "beegfs", "cifs", "smb3", "smbfs", "ceph", "afs"),
        *("panfs", "pvfs2", "orangefs", "wekafs", "glusterfs", "gfs2", "ocfs2", "sshfs", "9p"),
        *("cephfs", "ceph-fuse", "juicefs", "moosefs", "mfs", "virtiofs", "cvmfs2", "dvs"),
    )
)
#: File systems that nobody but the kernel of this machine writes to.
LOCAL = frozenset(
    ("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "tmpfs", "overlay")
)
#: The remedy if a home cannot be in its place.
ELSEWHERE = (
    "set CRYSTALMATH_HOME, or [storage] runs in config.toml, to a folder on another file system"
)
#: The errors of `link` on a file system without hard links.
_WITHOUT_LINKS = frozenset((errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK))
_MOUNTS = "/proc/self/mountinfo"
_ESCAPED = re.compile(r"\\([0-7]{3})")


def file_system(path: Path, mounts: str | None = None) -> str:
    """Return the name of the file system on which a path lies or would lie."""
    try:
        table = Path(_MOUNTS).read_text(errors="surrogateescape") if mounts is None else mounts
    except OSError:
        return "unknown"
    real = os.path.realpath(path)
    length, kind = 0, "unknown"
    for line in table.splitlines():
        mount, _, source = line.partition(" - ")
        point = _ESCAPED.sub(lambda octal: chr(int(octal[1], 8)), mount.split()[4])
        # A later mount at the same place covers an earlier one.
        if f"{real}/".startswith(f"{point.rstrip('/')}/") and len(point) >= length:
            length, kind = len(point), source.split()[0]
    return kind


def is_network(kind: str) -> bool:
    """Return whether several hosts may write to a file system of this kind at once."""
    return kind.removeprefix("fuse.") in NETWORK


def is_local(kind: str) -> bool:
    """Return whether certainly no other host writes to a file system of this kind."""
    return kind in LOCAL


def is_shared(file: Path, home: Path) -> bool:
    """Return whether all hosts that see a home see a file: it lies beside it, or on a network."""
    folder = file.parent
    try:
        if folder.stat().st_dev == home.stat().st_dev:
            return True
    except OSError:
        pass  # one of them does not exist yet
    return file.is_relative_to(home) or is_network(file_system(folder))


def read_only(place: Path, error: OSError) -> PlaceError:
    """Return the error for a read-only home, or place of its jobs."""
    return PlaceError(
        f"{place} is read-only ({error.strerror}): its jobs can be looked at, and nothing can be "
        "changed; set CRYSTALMATH_HOME to a folder in which you may write"
    )


def require_links(folder: Path) -> None:
    """Raise `PlaceError` if the folder of the run directories takes no files, or no hard links."""
    try:
        make_own(folder)
        why = no_links(folder)
    except OSError as error:
        # Any other trouble, such as a full disk, is reported where it keeps a job back.
        if error.errno in {errno.EROFS, errno.EACCES}:
            raise read_only(folder, error) from error
        return
    if why is not None:
        raise PlaceError(f"no job is taken: {without_links(folder, why)}; {ELSEWHERE}")


def without_links(folder: Path, why: str) -> str:
    """Return the message for a folder that cannot hold the run directories."""
    return (
        f"{folder} is on {file_system(folder)}, a file system without hard links ({why}), which "
        "keep two processes from running one job"
    )


def no_links(folder: Path) -> str | None:
    """Return why a folder allows no hard links; ``None`` if it does.

    It raises `OSError` if that is unknown.
    """
    import tempfile

    with tempfile.NamedTemporaryFile(dir=folder, prefix=".link-") as file:
        link = f"{file.name}.2"
        try:
            os.link(file.name, link)
        except OSError as error:
            if error.errno not in _WITHOUT_LINKS:
                raise
            return error.strerror
        Path(link).unlink()
    return None


def place_runs(home: Path, named: str | None) -> None:
    """Put the run directories of a home below `named`: ``<home>/jobs`` becomes a link."""
    if named is None:
        return
    runs = Path(os.path.expanduser(named))  # noqa: PTH111 - one of an unknown user stays as it is
    if not runs.is_absolute():
        raise ConfigError(f"[storage] runs must be an absolute path, not {named!r}")
    require_own(
        str(runs),
        f"the folder {runs} ([storage] runs)",
        remedy="have [storage] runs name a folder of your own",
        or_root=True,
    )
    link = home / "jobs"
    wanted = runs / f"crystalmath-{_home_id(home)}"
    try:
        if not link.is_symlink() or not wanted.is_dir():
            make_own(wanted)
            with contextlib.suppress(FileExistsError):
                link.symlink_to(wanted)
        there = link.resolve()
    except OSError as error:
        raise ConfigError(
            f"the folder {wanted} ([storage] runs) cannot be made: {error.strerror}; name one in "
            "which you may write, on all hosts"
        ) from error
    if there != wanted.resolve():
        move = f"mv {there}/* {there}/.[!.]* {wanted}/" + (
            f" && rmdir {link}" if there == link else f" && rm {link}"
        )
        raise ConfigError(
            f"[storage] runs says {runs}, but the run directories are in {there}: "
            f"`crystalmath stop` once no job runs, and then `{move}`; or take the setting back"
        )


def url_of_home(url: str, home: Path) -> str:
    """Return the URL with a schema of the home's own, unless it is SQLite's or names one."""
    if not url.startswith("postgresql") or re.search(r"[?&]schema=", url):
        return url
    return f"{url}{'&' if '?' in url else '?'}schema=crystalmath_{_home_id(home)}"


def _home_id(home: Path) -> str:
    """Return the id of a home; the first call makes it."""
    file = home / HOME_ID
    try:
        if not file.exists():
            make_own(home)
            _publish(file, os.urandom(6).hex())
        home_id = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{file} cannot be made or read ({error}); by it the home finds what is its own in a "
            "place that others use, too. Make the home writable"
        ) from error
    if not re.fullmatch(r"[0-9a-f]{12}", home_id):
        raise ConfigError(
            f"{file} is damaged; write the 12 characters into it that stand behind crystalmath "
            "in the name of the home's schema on the database server, or of its folder of runs"
        )
    return home_id


def _publish(file: Path, text: str) -> None:
    """Publish a durable file as a whole; the file of a faster process stays."""
    draft = file.with_name(f".{file.name}.{os.urandom(4).hex()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, f"{text}\n".encode())
        os.fsync(descriptor)
        with contextlib.suppress(FileExistsError):
            try:
                file.hardlink_to(draft)
            except OSError as error:
                if error.errno not in _WITHOUT_LINKS:
                    raise
                draft.replace(file)  # a home whose jobs lie elsewhere needs no hard links
    finally:
        os.close(descriptor)
        draft.unlink(missing_ok=True)
