"""The places of a process in which files may come up, and whether they are as they were."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from pathlib import Path

from crystalmath.testing.passing import below, listed

#: Folders of a home in which each program makes a folder of its own, and those below them.
_SHARED = frozenset({".cache", ".config", ".local", "share", "state"})
#: A program's folder in a home is copied if it has at most so many files, and so many bytes each.
MOST_FILES, MOST_BYTES = 100, 100_000


class Places:
    """A home directory like the user's, a folder for temporary files, and a working directory.

    Parameters
    ----------
    folder : pathlib.Path
        Takes them; it has none of these names.
    """

    def __init__(self, folder: Path) -> None:
        self.home, self.temporary, self.work = (folder / each for each in ("home", "tmp", "work"))
        for place in (self.home, self.temporary, self.work):
            place.mkdir()
        _show(Path.home(), self.home)
        own = self.home / "a file of the user's"
        own.write_text("as it was\n", encoding="ascii")
        own.chmod(0o644)
        self._before = self._files()

    def changes(self) -> list[str]:
        """Return which files are not as they were."""
        before, after = self._before, self._files()
        return sorted(
            f"{path} was {before.get(path, 'not there')}, is {after.get(path, 'not there')}"
            for path in before.keys() | after.keys()
            if before.get(path) != after.get(path)
        )

    def remove_home(self) -> None:
        """Remove the copies of what the user has."""
        shutil.rmtree(self.home, ignore_errors=True)

    def _files(self) -> dict[str, str]:
        """Tell of all files what they are; of what is only shown, its mode."""
        found = {}
        for place in (self.home, self.temporary, self.work):
            for path in (place, *below(place)):
                with contextlib.suppress(OSError):  # it goes meanwhile
                    found[str(path)] = _told(path)
        return found


def _told(path: Path) -> str:
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        # Others write there, too.
        return f"a link to a file of mode {path.stat().st_mode:o}"
    if stat.S_ISDIR(status.st_mode):
        return f"{status.st_mode:o}, a folder"
    return f"{status.st_mode:o}, {status.st_size} bytes"


def _show(home: Path, folder: Path) -> None:
    """Show in a folder what is in a home: libraries find it, and what they do there is seen.

    What is small is copied, so that the user's own stays as it is; the rest are links.
    """
    for path in listed(home):
        shown = folder / path.name
        if path.name in _SHARED and path.is_dir() and not path.is_symlink():
            shown.mkdir()
            _show(path, shown)
        elif not (path.is_dir() and _is_small(path) and _copied(path, shown)):
            shown.symlink_to(path)


def _is_small(folder: Path) -> bool:
    """Return whether a folder may be copied: not what only its owner may read, keys above all."""
    if folder.is_symlink() or not folder.lstat().st_mode & stat.S_IROTH:
        return False
    for number, path in enumerate(below(folder), start=1):
        status = path.lstat()
        is_plain = stat.S_ISDIR(status.st_mode) or (
            stat.S_ISREG(status.st_mode) and status.st_size <= MOST_BYTES
        )
        if number > MOST_FILES or not is_plain or not status.st_mode & stat.S_IROTH:
            return False
    return os.access(folder, os.R_OK | os.X_OK)


def _copied(folder: Path, shown: Path) -> bool:
    """Copy a folder, with modes and times; tell whether it could be."""
    try:
        shutil.copytree(folder, shown)
    except OSError:  # others change it meanwhile
        shutil.rmtree(shown, ignore_errors=True)
        return False
    return True
