"""Tell whether quacc starts with a job's settings, without importing it here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from crystalmath.preflight.file_memo import FileMemo
from crystalmath.recipes.quacc_settings import settings_file

if TYPE_CHECKING:
    from collections.abc import Mapping

#: How long the process that reads them may take, in seconds.
LIMIT_S = 30.0
_PREFIX = "QUACC_"
_FILE = "QUACC_CONFIG_FILE"
_known: FileMemo[dict[str, str]] = FileMemo()


class _Passing(Exception):  # noqa: N818 - named for what it is
    """What was found, and may be otherwise the next time."""

    def __init__(self, refused: Mapping[str, str]) -> None:
        super().__init__()
        self.refused = dict(refused)


def settings_refused(environment: Mapping[str, str]) -> dict[str, str]:
    """Return which of quacc's settings no job would start with.

    Where neither a variable nor a file sets any, nothing is looked at. Else a process reads them
    once, and what it said is remembered by them.

    Parameters
    ----------
    environment : mapping of str to str
        The environment variables that the job will see.

    Returns
    -------
    dict of str to str
        Why, by their names; the name is empty where quacc does not tell which it is.
    """
    from crystalmath.preflight.refused_settings import LEAVES_NOTHING

    said = {
        name: value
        for name, value in environment.items()
        if name.upper().startswith(_PREFIX) and name.upper() not in {_FILE, *LEAVES_NOTHING}
    }
    file = settings_file(environment)
    files = [file] if file is not None and os.path.exists(file) else []
    if not (said or files) and file is not None:
        return {}
    # `~` is made of the home, where it is forwarded.
    key = frozenset(said.items()), environment.get("HOME"), file
    try:
        return _known.get(key, files, lambda: _ask(environment))
    except _Passing as found:
        return found.refused


def _ask(environment: Mapping[str, str]) -> dict[str, str]:
    from crystalmath._starting import start_process
    from crystalmath.worker.child import runner_environment

    with start_process(
        [sys.executable, "-P", "-m", "crystalmath.preflight.refused_settings"],
        env=runner_environment(environment),
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            told, _ = process.communicate(timeout=LIMIT_S)
            answer: dict[str, Any] = json.loads(told)
        except (subprocess.TimeoutExpired, ValueError):
            process.kill()
            raise _Passing({}) from None  # nothing is claimed
    refused: dict[str, str] = answer["refused"]
    if refused and not answer["lasts"]:
        raise _Passing(refused)
    return refused
