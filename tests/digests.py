"""What the files below a folder hold, to see that nobody has changed them."""

import hashlib
import os
from pathlib import Path


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
