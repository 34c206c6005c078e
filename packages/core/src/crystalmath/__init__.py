"""Submit atomistic calculations to any workflow engine, and know what became of them."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    __version__: str
else:

    def __getattr__(name: str) -> str:
        """Return ``__version__``, which few processes need."""
        if name == "__version__":
            return _installed_version()
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def build_version() -> str:
    """Return the version, with a mark that differs between builds: ``0.1.0.dev0+g1a2b3c4d5``.

    The mark of an installed wheel is a checksum of the files that its installer recorded. The mark
    of a source tree is its commit. A source tree that is no clone has the version alone.
    """
    package = Path(__file__).absolute().parent
    version = _installed_version()
    mark = _checksum(package, version) or _commit(package)
    return f"{version}+{mark}" if mark else version


def entry_points_of(group: str) -> list[EntryPoint]:
    """Return the entry points of a group; warn of each distribution whose own are unreadable."""
    import warnings
    from contextlib import suppress
    from importlib.metadata import distributions, entry_points

    with suppress(Exception):  # a broken file of any distribution
        return list(entry_points(group=group))
    points: dict[EntryPoint, None] = {}
    for distribution in distributions():
        try:
            points |= dict.fromkeys(distribution.entry_points.select(group=group))
        except Exception as error:  # noqa: BLE001 - a broken file may raise anything
            folder = getattr(distribution, "_path", distribution.locate_file(""))
            warnings.warn(
                f"{folder}/entry_points.txt cannot be read ({type(error).__name__}): mend or "
                "uninstall that distribution",
                stacklevel=2,
            )
    return list(points)


def _installed_version() -> str:
    """Return the version that the installer wrote down; ``0.dev0`` in a tree nobody installed.

    To import `importlib.metadata` takes longer than the rest of a command's start.
    """
    for folder in (Path(__file__).absolute().parents[1], *map(Path, sys.path)):
        for path in folder.glob("crystalmath-*.dist-info"):
            return path.name.removeprefix("crystalmath-").removesuffix(".dist-info")
    return "0.dev0"


def _checksum(package: Path, version: str) -> str:
    record = package.parent / f"{package.name}-{version}.dist-info" / "RECORD"
    lines = _read(record).splitlines()
    # Installers add the files that they compile, and may keep another order.
    ours = sorted(line for line in lines if line.startswith("crystalmath/") and ".pyc," not in line)
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
