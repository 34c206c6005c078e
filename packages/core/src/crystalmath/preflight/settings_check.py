"""Find with which of its settings quacc does not start, without importing it here.

quacc's own class reads them, from its file: that takes a quarter of a second, and all of quacc
seconds. A process of its own does so, as that file imports much, started as
``python -P -m crystalmath.preflight.settings_check``; it writes ``{"refused": {name: why},
"lasts"}``, the latter false where another look may find something else.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, cast

from crystalmath.errors import words_of
from crystalmath.preflight.files import FileMemo
from crystalmath.recipes.quacc_settings import settings_file

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

#: How long the process that reads them may take, in seconds.
LIMIT_S = 30.0
#: How long it is not asked again if it gave no answer, so that no batch waits for each of its jobs.
PAUSE_S = 30.0
_PREFIX = "QUACC_"
_FILE = "QUACC_CONFIG_FILE"
_known: FileMemo[dict[str, str]] = FileMemo()
#: What gave no answer last, and when.
_silent: dict[Hashable, float] = {}


class _Passing(Exception):  # noqa: N818 - named for what it is
    """What was found, and may be otherwise the next time."""

    def __init__(self, refused: Mapping[str, str]) -> None:
        super().__init__()
        self.refused = dict(refused)


def settings_refused(environment: Mapping[str, str]) -> dict[str, str]:
    """Return which of quacc's settings no job would start with.

    If a variable or a file sets any, a process reads them once, and its answer is kept.
    """
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
    if time.monotonic() - _silent.get(key, -math.inf) < PAUSE_S:
        return {}
    try:
        return _known.get(key, files, lambda: _ask(environment))
    except _Passing as found:
        if not found.refused:
            _silent.clear()
            _silent[key] = time.monotonic()
        return found.refused


def _ask(environment: Mapping[str, str]) -> dict[str, str]:
    from crystalmath.processes import start_process
    from crystalmath.worker.child import runner_environment

    with start_process(
        [sys.executable, "-P", "-m", "crystalmath.preflight.settings_check"],
        env=runner_environment(environment),
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=LIMIT_S)
            answer: dict[str, Any] = json.loads(output)
        except (subprocess.TimeoutExpired, ValueError):
            process.kill()
            raise _Passing({}) from None  # nothing is claimed
    refused: dict[str, str] = answer["refused"]
    if refused and not answer["lasts"]:
        raise _Passing(refused)
    return refused


#: quacc makes folders and a log file as soon as it reads its settings. The working directory is
#: there already. A job has its own of these.
LEAVES_NOTHING = {
    "QUACC_RESULTS_DIR": ".",
    "QUACC_SCRATCH_DIR": "None",
    "QUACC_LOG_FILENAME": "None",
    "QUACC_WORKFLOW_ENGINE": "None",
}
#: Whose errors, while quacc is imported, are about variables or a file of settings.
_READERS = ("pydantic_settings", "ruamel")
_FILE_SETTING = "CONFIG_FILE"
_ALONE = "_crystalmath_quacc_settings"


def main() -> None:
    """Tell of this process's settings."""
    os.environ.update(LEAVES_NOTHING)
    problems, lasts = _read()
    sys.stdout.write(json.dumps({"refused": problems, "lasts": lasts}))


def _problems_of(error: Exception) -> dict[str, str]:
    """Return which settings an error is about, by their names; empty if something else is wrong."""
    problems: dict[str, str] = {}
    if getattr(error, "title", None) == "QuaccSettings":  # pydantic's, which is imported by now
        for each in cast("Any", error).errors(include_url=False, include_context=False):
            name = str(each["loc"][0]) if each["loc"] else ""
            extra = each["type"] == "extra_forbidden"
            words = "quacc has no such setting" if extra else each["msg"]
            # A setting that may be of several types is wrong for each of them.
            problems[name] = f"{problems[name]}; {words}" if name in problems else words
    elif type(error).__module__.partition(".")[0] in _READERS:
        problems[""] = words_of(error)
    return problems


def _read() -> tuple[dict[str, str], bool]:
    """Return what is wrong with the settings, and whether it is as long as these are the same.

    The name is empty where that cannot be told, and nothing is said of a quacc whose settings are
    not where they are known to be.
    """
    kind = _kind()
    try:
        if kind is not None:
            kind()
    except Exception as error:  # noqa: BLE001 - whatever it is, quacc would raise it as well
        problems = _problems_of(error) or {_culprit(kind): words_of(error)}
        return problems, not isinstance(error, OSError)
    return {}, True


def _kind() -> Any:
    """Load the class of quacc's settings, and nothing else of quacc."""
    quacc = importlib.util.find_spec("quacc")
    if quacc is None or quacc.origin is None:
        return None
    file = os.path.join(os.path.dirname(quacc.origin), "settings.py")
    spec = importlib.util.spec_from_file_location(_ALONE, file)
    if spec is None or spec.loader is None:
        return None
    # pydantic looks there for what the annotations name.
    module = sys.modules[_ALONE] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception:  # noqa: BLE001 - another release's, which needs more of quacc
        return None
    return getattr(module, "QuaccSettings", None)


def _culprit(kind: Any) -> str:
    """Name the one setting with whose default quacc would start."""
    fields = kind.model_fields
    # Without its file none of what that sets is there, either.
    for name in sorted(fields, key=_FILE_SETTING.__eq__):
        if _starts(lambda: kind(**{name: fields[name].default})):  # noqa: B023 - called at once
            return str(name)
    return ""


def _starts(read: Callable[[], object]) -> bool:
    try:
        read()
    except Exception:  # noqa: BLE001 - as above
        return False
    return True


if __name__ == "__main__":
    main()
