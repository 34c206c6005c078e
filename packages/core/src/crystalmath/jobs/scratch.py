"""The folders of calculations that run outside the work directory (``QUACC_SCRATCH_DIR``)."""

from __future__ import annotations

import os
from pathlib import Path

#: How quacc names the folder of a calculation, while it runs and when it has failed.
_NAMES = ("tmp-quacc-", "failed-quacc-")


def scratch_folders(work: str) -> list[str]:
    """Return the folders to which quacc has laid links in a work directory.

    Parameters
    ----------
    work : str
        The work directory of a job's attempt.

    Returns
    -------
    list of str
        Their real paths; none where the work directory cannot be read.
    """
    try:
        with os.scandir(work) as entries:
            links = [each.path for each in entries if each.is_symlink() and each.is_dir()]
    except OSError:
        return []
    places = map(os.path.realpath, links)
    return [place for place in places if Path(place).name.startswith(_NAMES)]
