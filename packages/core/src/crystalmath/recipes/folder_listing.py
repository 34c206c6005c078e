"""What is in a folder, and what keeps files from being found there."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def folder_trouble(path: Path) -> tuple[str, str]:
    """Return what keeps files from being found in a folder.

    Parameters
    ----------
    path : pathlib.Path
        The folder.

    Returns
    -------
    tuple of str and str
        A code (``path``, ``not_a_folder``, ``unlisted``) and words that follow its name; empty
        where nothing does.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "path", "is a broken link" if path.is_symlink() else "does not exist"
    except (OSError, ValueError) as error:
        return "path", f"cannot be reached: {getattr(error, 'strerror', None) or error}"
    if not stat.S_ISDIR(mode):
        return "not_a_folder", "is not a folder"
    if not os.access(path, os.X_OK):
        return "path", "cannot be opened: permission denied"
    return (
        ("unlisted", "cannot be listed: permission denied") if names_in(path) is None else ("", "")
    )


def names_in(path: Path) -> list[str] | None:
    """List what is in a folder, sorted; ``None`` where it cannot be listed."""
    try:
        return sorted(os.listdir(path))  # noqa: PTH208 - names are wanted, not paths
    except (OSError, ValueError):
        return None
