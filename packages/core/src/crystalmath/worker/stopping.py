"""Ask a program to stop after its present step, so that what it has reached is whole.

VASP looks for ``STOPCAR``: ``LSTOP`` ends it after the present ionic step, ``LABORT`` after the
present electronic one (VASP wiki, STOPCAR). Quantum ESPRESSO looks for ``prefix.EXIT`` in its
directory and ends after the present electronic step (INPUT_PW, "max_seconds").
"""

from __future__ import annotations

import contextlib
import os
import re
from typing import TYPE_CHECKING

from crystalmath.jobs.calculation_files import calculation_files
from crystalmath.jobs.piecewise import at_once

if TYPE_CHECKING:
    from collections.abc import Callable

_PREFIX = re.compile(r"""^\s*prefix\s*=\s*['"]([\w.-]+)['"]""", re.IGNORECASE | re.MULTILINE)


def ask_to_stop(work: str, *, urgent: bool) -> str | None:
    """Ask the program of a job's newest calculation to stop.

    Parameters
    ----------
    work : str
        The work directory.
    urgent : bool
        As soon as it can; else after its present ionic step.

    Returns
    -------
    str or None
        The file that was written, unless it is there already, or no program is known to run.
    """
    outputs = at_once(calculation_files(work, _PROGRAMS.__contains__))
    if not outputs:
        return None
    folder, output = os.path.split(max(outputs)[1])
    name, text = _PROGRAMS[output](folder, urgent)
    path = os.path.join(folder, name)
    with contextlib.suppress(OSError):  # a full disk, or the calculation has just ended
        if _read(path) != text:
            # In place of whatever lies there: a link may lead anywhere.
            with open(f"{path}.new", "x", encoding="ascii") as file:
                file.write(text)
            os.replace(f"{path}.new", path)
            return path
    return None


def _stopcar(folder: str, urgent: bool) -> tuple[str, str]:  # noqa: ARG001, FBT001 - as others
    return "STOPCAR", f"{'LABORT' if urgent else 'LSTOP'} = .TRUE.\n"


def _exit_file(folder: str, urgent: bool) -> tuple[str, str]:  # noqa: ARG001, FBT001
    found = _PREFIX.search(_read(os.path.join(folder, "pw.in")) or "")
    return f"{found[1] if found else 'pwscf'}.EXIT", ""


#: By the file that grows while the program runs.
_PROGRAMS: dict[str, Callable[[str, bool], tuple[str, str]]] = {
    "OSZICAR": _stopcar,
    "pw.out": _exit_file,
}


def _read(path: str) -> str | None:
    """Read a small file that a job may have put anything in the place of."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, encoding="ascii", errors="replace") as file:
            return file.read(1 << 20)
    except OSError:
        return None
