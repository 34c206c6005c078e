"""Tell whether the commands that start VASP or pw.x would be found on the job's PATH."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from crystalmath.models import Finding
from crystalmath.preflight.ranks import LAUNCHERS, before_the_program, elsewhere
from crystalmath.recipes.potcar_path import quacc_setting, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["check_commands"]

#: Recipes whose first step is pw.x.
_PW = frozenset(
    f"quacc.recipes.espresso.{name}"
    for name in (
        *("core.static_job", "core.relax_job", "core.ase_relax_job", "core.non_scf_job"),
        *("dos.dos_flow", "dos.projwfc_flow", "bands.bands_pw_job", "bands.bands_flow"),
    )
)
#: What only a shell can make sense of.
_SHELL = re.compile(r"[$`;&|<>(){}\[\]*?!#~\\\n]")
#: Words that need not be programs.
_WORDS = frozenset({"exec", "command", "time", "eval", "source", ".", "builtin", "module"})
#: Options with which a launcher looks for the program elsewhere.
_ELSEWHERE = ("container", "prolog", "path", "chdir", "wdir")


@frozen
class _Command:
    """A command, and what named it."""

    text: str
    source: str

    @property
    def words(self) -> list[str]:
        """Its words; none where a shell is wanted to tell."""
        try:
            words = [] if _SHELL.search(self.text) else shlex.split(self.text)
        except ValueError:
            return []
        strange = words and ("=" in words[0] or words[0] in _WORDS)
        relative = words and "/" in words[0] and not Path(words[0]).is_absolute()
        return [] if strange or relative else words


def check_commands(recipe: str, environment: Mapping[str, str]) -> Finding | None:
    """Look for the programs that a job starts. It claims nothing where that cannot be told.

    Parameters
    ----------
    recipe : str
        Full dotted name; quacc's own recipes for VASP and pw.x are looked at.
    environment : mapping of str to str
        The environment variables that the job will see.

    Returns
    -------
    Finding or None
        The warning ``command_missing``.
    """
    path = environment.get("PATH")
    if path is None:
        return None
    try:
        if recipe.startswith("quacc.recipes.vasp."):
            launcher = _setting("VASP_PARALLEL_CMD", "", environment)
            programs = [
                _setting("VASP_CMD", "vasp_std", environment),
                _setting("VASP_GAMMA_CMD", "vasp_gam", environment),
            ]
        elif recipe in _PW and "PARSL_MPI_PREFIX" not in environment:
            launcher = _setting("ESPRESSO_PARALLEL_CMD", "", environment)
            programs = [_pw(environment)]
        else:
            return None
    except (ValueError, RecursionError):
        return None  # quacc's settings cannot be read, which is told elsewhere
    if launcher is None or None in programs:
        return None
    return _finding(launcher, [program for program in programs if program], path)


def _finding(launcher: _Command, programs: list[_Command], path: str) -> Finding | None:
    if launcher.text.strip():
        if not launcher.words:
            return None
        if not _is_found(launcher.words[0], path):
            return _missing("the parallel command", [launcher], "correct it")
        if not _starts_here(launcher.words, path):
            return None
    # Which of VASP's two it is depends on the k-points.
    if not all(each.words and not _is_found(each.words[0], path) for each in programs):
        return None
    if len(programs) == 1:
        remedy = "put the folder of pw.x on PATH, or name it with QUACC_ESPRESSO_BIN_DIR"
        return _missing("pw.x", programs, remedy)
    remedy = (
        "put the folder of VASP's programs on PATH, or name one with "
        "QUACC_VASP_CMD=/path/to/vasp_std"
    )
    if not launcher.text.strip():
        remedy += '; for several ranks QUACC_VASP_PARALLEL_CMD="mpirun -np 16"'
    return _missing("VASP", programs, remedy)


def _missing(what: str, commands: list[_Command], remedy: str) -> Finding:
    words = [each.words[0] for each in commands]
    named = [
        f"{shown(word)!s:.200} ({each.source})" for word, each in zip(words, commands, strict=True)
    ]
    several = len(named) > 1
    if any("/" in word for word in words):
        where = "is a program" if several else "is no program"
    else:
        where = f"is {'' if several else 'not '}on the PATH that the job sees"
    told = f"neither {' nor '.join(named)}" if several else named[0]
    return Finding(
        severity="warning",
        code="command_missing",
        message=f"{what} would not start: {told} {where}",
        path=words[0] if "/" in words[0] else None,
        source=commands[0].source,
        remedy=remedy,
    )


def _setting(name: str, default: str, environment: Mapping[str, str]) -> _Command | None:
    setting = quacc_setting(name, environment)
    if setting is None:
        return _Command(default, f"the default of QUACC_{name}")
    value = before_the_program(setting[0])
    return _Command(value, setting[1]) if isinstance(value, str) else None


def _pw(environment: Mapping[str, str]) -> _Command | None:
    folder = quacc_setting("ESPRESSO_BIN_DIR", environment)
    names = quacc_setting("ESPRESSO_BINARIES", environment)
    if any(name.upper().startswith("QUACC_ESPRESSO_BINARIES__") for name in environment):
        return None
    name: object = "pw.x"
    if names is not None:
        told = json.loads(names[0]) if isinstance(names[0], str) else names[0]
        name = told.get("pw") if isinstance(told, dict) else None
    where = "" if folder is None else folder[0]
    if not isinstance(name, str) or not isinstance(where, str):
        return None
    source = next((told[1] for told in (folder, names) if told), None)
    text = shlex.quote(str(Path(where, name)))
    return _Command(text, source or "the default of QUACC_ESPRESSO_BIN_DIR")


def _is_found(word: str, path: str) -> bool:
    return shutil.which(word, path=path) is not None


def _starts_here(words: list[str], path: str) -> bool:
    """Tell whether a launcher starts the program that this machine finds by its name.

    Not where a container, another machine or a script of somebody's comes between.
    """
    launchers = {Path(word).name for word in words} & LAUNCHERS
    if Path(words[0]).name not in LAUNCHERS and words[0] not in {"env", "nice"}:
        return False
    if not launchers or elsewhere(words[1:]):
        return False
    for word in words[1:]:
        if word.startswith("-"):
            if any(part in word.lower() for part in _ELSEWHERE):
                return False
        elif Path(word).name not in LAUNCHERS and _is_found(word, path):
            return False
    return True
