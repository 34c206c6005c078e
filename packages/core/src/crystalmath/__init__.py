"""Submit atomistic calculations to any workflow engine, and know what became of them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from zlib import crc32

__version__ = "0.1.0.dev0"


@cache
def build_version() -> str:
    """Return the version, with a mark that differs between builds: ``0.1.0.dev0+g1a2b3c4d5``.

    The mark of an installed wheel is a checksum of the files that its installer recorded, and that
    of a source tree its commit. A source tree that is no clone has the version alone.
    """
    package = Path(__file__).absolute().parent
    mark = _recorded(package) or _commit(package)
    return f"{__version__}+{mark}" if mark else __version__


def _recorded(package: Path) -> str:
    record = package.parent / f"{package.name}-{__version__}.dist-info" / "RECORD"
    lines = _read(record).splitlines()
    # Installers add what they compile, and may keep another order.
    ours = sorted(one for one in lines if one.startswith("crystalmath/") and ".pyc," not in one)
    return f"r{crc32(''.join(ours).encode()):08x}" if ours else ""


def _commit(package: Path) -> str:
    git = next((one / ".git" for one in package.parents if (one / ".git").exists()), None)
    if git is None:
        return ""
    git = git.parent / _read(git).removeprefix("gitdir: ") if git.is_file() else git  # a work tree
    head = _read(git / "HEAD")
    if head.startswith("ref: "):
        name = head.removeprefix("ref: ")
        common = git / _read(git / "commondir")
        packed = _read(common / "packed-refs").splitlines()
        listed = (one.split(" ")[0] for one in packed if one.endswith(f" {name}"))
        head = _read(common / name) or next(listed, "")
    return f"g{head[:9]}" if head else ""


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
