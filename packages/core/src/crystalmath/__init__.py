"""Submit atomistic calculations to any workflow engine, and know what became of them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

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


def entry_points_of(group: str) -> list[EntryPoint]:
    """Return the entry points of a group; a distribution whose own cannot be read hinders none."""
    import warnings
    from importlib.metadata import distributions, entry_points

    try:
        return list(entry_points(group=group))
    except Exception:  # noqa: BLE001 - one broken file among those of all distributions
        found: dict[EntryPoint, None] = {}
    for each in distributions():
        try:
            found |= dict.fromkeys(each.entry_points.select(group=group))
        except Exception as error:  # noqa: BLE001 - whatever is in that file
            place = getattr(each, "_path", each.locate_file(""))
            told = f"{place}/entry_points.txt cannot be read ({type(error).__name__})"
            warnings.warn(f"{told}: mend or uninstall that distribution", stacklevel=2)
    return list(found)


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
