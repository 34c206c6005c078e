"""What the files below a folder hold, to see that nobody has changed them."""

import hashlib
import os
from pathlib import Path

from crystalmath.errors import BadFile
from crystalmath.jobs.rundir import RunDirectory


def digests(folder):
    """Return the path of each file, link and folder below a folder, and what it holds."""
    held_by = {}
    for above, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(above, name)
            if path.is_symlink():
                held = f"-> {path.readlink()}"
            elif path.is_dir():
                held = "folder"
            else:
                held = hashlib.sha256(path.read_bytes()).hexdigest()
            held_by[str(path.relative_to(folder))] = held
    return held_by


def changed_since(homes):
    """Return the files of completed jobs in homes that were written after the job's end."""
    changed = []
    for outcome in (path for home in homes for path in home.glob("**/jobs/*/*.outcome")):
        directory, attempt = RunDirectory(outcome.parent), int(outcome.stem)
        try:
            header = directory.outcome(attempt) or {}
        except (BadFile, OSError):  # a test has damaged it
            continue
        if header.get("state") != "completed":
            continue
        # What is written before it carries an earlier time: the kernel's, which nobody can set.
        ended = outcome.stat().st_ctime_ns
        files = (path for path in Path(directory.work(attempt)).rglob("*") if path.is_file())
        changed += [path for path in files if path.lstat().st_ctime_ns > ended]
    return changed
