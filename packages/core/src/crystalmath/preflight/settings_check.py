"""Find the settings with which quacc does not start, without importing it here.

quacc's own class reads the settings, loaded from its file alone: that takes a quarter of a second,
and all of quacc takes seconds. Since that file imports much, a process of its own loads it, started
as ``python -P -m crystalmath.preflight.settings_check``. It writes ``{"refused": {name: why},
"lasts"}``; ``lasts`` is false if the next look may have another result.
"""

from __future__ import annotations

import functools
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

#: The most seconds for the process that reads the settings.
LIMIT_S = 30.0
#: Without an answer the next try is after so many seconds: no batch waits for each of its jobs.
PAUSE_S = 30.0
_PREFIX = "QUACC_"
_FILE = "QUACC_CONFIG_FILE"
_known: FileMemo[dict[str, str]] = FileMemo()
#: The last settings without an answer, with the time.
_silent: dict[Hashable, float] = {}


class _PassingError(Exception):
    """Carries refused settings that may be accepted the next time, so they are not remembered."""

    def __init__(self, refused: Mapping[str, str]) -> None:
        super().__init__()
        self.refused = dict(refused)


def settings_refused(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the settings with which quacc does not start, with quacc's reasons.

    If a variable or a file sets any, a process reads them once, and its answer is kept.
    """
    variables = {
        name: value
        for name, value in environment.items()
        if name.upper().startswith(_PREFIX) and name.upper() not in {_FILE, *LEAVES_NOTHING}
    }
    file = settings_file(environment)
    files = [file] if file is not None and os.path.exists(file) else []
    if not (variables or files) and file is not None:
        return {}
    # HOME counts, if it is forwarded: `~` stands for it.
    key = frozenset(variables.items()), environment.get("HOME"), file
    if time.monotonic() - _silent.get(key, -math.inf) < PAUSE_S:
        return {}
    try:
        return _known.get(key, files, lambda: _ask(environment))
    except _PassingError as passing:
        if not passing.refused:
            _silent.clear()
            _silent[key] = time.monotonic()
        return passing.refused


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
            raise _PassingError({}) from None  # without an answer no setting is refused
    refused: dict[str, str] = answer["refused"]
    if refused and not answer["lasts"]:
        raise _PassingError(refused)
    return refused


#: quacc creates folders and a log file as soon as it reads its settings. These values keep it from
#: that; a job has its own.
LEAVES_NOTHING = {
    "QUACC_RESULTS_DIR": ".",
    "QUACC_SCRATCH_DIR": "None",
    "QUACC_LOG_FILENAME": "None",
    "QUACC_WORKFLOW_ENGINE": "None",
}
#: Packages whose exceptions are about variables or a file of settings.
_READERS = ("pydantic_settings", "ruamel")
_FILE_SETTING = "CONFIG_FILE"
_ALONE = "_crystalmath_quacc_settings"


def main() -> None:
    """Write the refused settings of this process's environment."""
    os.environ.update(LEAVES_NOTHING)
    problems, lasts = _read()
    sys.stdout.write(json.dumps({"refused": problems, "lasts": lasts}))


def _problems_of(error: Exception) -> dict[str, str]:
    """Return the settings that an error is about, with words; empty if it is about none."""
    problems: dict[str, str] = {}
    if getattr(error, "title", None) == "QuaccSettings":  # pydantic's exception
        for each in cast("Any", error).errors(include_url=False, include_context=False):
            name = str(each["loc"][0]) if each["loc"] else ""
            extra = each["type"] == "extra_forbidden"
            words = "quacc has no such setting" if extra else each["msg"]
            # A setting that allows several types has an error for each of them.
            problems[name] = f"{problems[name]}; {words}" if name in problems else words
    elif type(error).__module__.partition(".")[0] in _READERS:
        problems[""] = words_of(error)
    return problems


def _read() -> tuple[dict[str, str], bool]:
    """Return the refused settings, and whether they stay refused while they are unchanged.

    The name is empty if the setting is unknown. Without the class of quacc's settings none is
    refused.
    """
    kind = _kind()
    error = None if kind is None else _error_of(kind)
    if error is None:
        return {}, True
    problems = _problems_of(error) or {_culprit(kind): words_of(error)}
    return problems, not isinstance(error, OSError)


def _kind() -> Any:
    """Return the class of quacc's settings, loaded without the rest of quacc.

    ``None`` if this release of quacc has it elsewhere, or it needs more of quacc.
    """
    quacc = importlib.util.find_spec("quacc")
    if quacc is None or quacc.origin is None:
        return None
    file = os.path.join(os.path.dirname(quacc.origin), "settings.py")
    spec = importlib.util.spec_from_file_location(_ALONE, file)
    if spec is None or spec.loader is None:
        return None
    # pydantic resolves annotations in the registered module.
    module = sys.modules[_ALONE] = importlib.util.module_from_spec(spec)
    if _error_of(functools.partial(spec.loader.exec_module, module)):
        return None
    return getattr(module, "QuaccSettings", None)


def _culprit(kind: Any) -> str:
    """Return the setting with whose default quacc would start; empty if there is none."""
    fields = kind.model_fields
    # The file comes last, since its default removes all that it sets.
    for name in sorted(fields, key=_FILE_SETTING.__eq__):
        if _error_of(functools.partial(kind, **{name: fields[name].default})) is None:
            return str(name)
    return ""


def _error_of(call: Callable[[], object]) -> Exception | None:
    try:
        call()
    except Exception as error:  # noqa: BLE001 - quacc's class and settings may raise anything
        return error
    return None


if __name__ == "__main__":
    main()
