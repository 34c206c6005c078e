"""The commands that start a program: which words they are, and what a launcher makes of them."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from crystalmath.recipes.quacc_settings import quacc_setting

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "LAUNCHERS",
    "MPI",
    "Command",
    "Launch",
    "before_the_program",
    "is_certain",
    "is_found",
    "names_hosts",
    "starts_here",
]

MPI = frozenset({"mpirun", "mpiexec", "mpiexec.hydra", "orterun", "prterun"})
#: Programs that start another one several times.
LAUNCHERS = MPI | {"srun"}
#: Options that name other machines.
_HOSTS = {
    *("-H", "-host", "--host", "-hosts", "-hostfile", "--hostfile", "-machinefile"),
    *("--machinefile", "-f", "-w", "--nodelist"),
}
#: Options with which a launcher looks for the program elsewhere.
_ELSEWHERE = ("container", "prolog", "path", "chdir", "wdir")
#: What only a shell can make sense of.
_SHELL = re.compile(r"[$`;&|<>(){}\[\]*?!#~\\\n]")
#: Words that need not be programs: a shell has them itself, or as functions.
_WORDS = frozenset(
    {
        *("exec", "command", "time", "eval", "source", ".", "builtin", "module", "ml", "spack"),
        *("cd", "export", "set", "unset", "ulimit", "umask", "trap", "alias", "wait", "exit"),
        *("if", "for", "while", "until", "case", "test", "true", "false", "echo", "printf", ":"),
    }
)


@frozen
class Command:
    """A command, what named it, and what to do where it is not there, and another one is."""

    text: str
    source: str
    remedy: str | None = None

    @classmethod
    def of_setting(cls, name: str, default: str, environment: Mapping[str, str]) -> Command | None:
        """Read a setting of quacc; ``None`` where it is no text. `ValueError`: a damaged file."""
        setting = quacc_setting(name, environment)
        if setting is None:
            return cls(default, f"the default of QUACC_{name}")
        value = before_the_program(setting[0])
        return cls(value, setting[1]) if isinstance(value, str) else None

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


@frozen(kw_only=True)
class Launch:
    """How a program is started."""

    #: What people call it.
    title: str
    #: What stands before it, empty where nothing does; ``None`` where that cannot be told.
    launcher: Command | None
    #: Those of which one is started; ``None`` for what cannot be told.
    programs: tuple[Command | None, ...]
    #: What to do where none is found.
    remedy: str


def before_the_program(value: object) -> object:
    """Take the first of the two texts that a parallel command may be; JSON in a variable."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value[0] if isinstance(value, (list, tuple)) and value else value


def is_certain(word: str, path: str) -> bool:
    """Return whether a job would not find the program either: its path has no relative folder."""
    return os.path.isabs(word) or all(map(os.path.isabs, path.split(os.pathsep)))


def names_hosts(options: list[str]) -> bool:
    """Return whether a launcher's options name other machines."""
    return any(option.partition("=")[0] in _HOSTS for option in options)


def is_found(word: str, path: str) -> bool:
    """Return whether a program is there."""
    return shutil.which(word, path=path) is not None


def starts_here(words: list[str], path: str) -> bool:
    """Return whether a launcher starts the program that this machine finds by its name.

    Not if a container, another machine or somebody's script comes between.
    """
    launchers = {Path(word).name for word in words} & LAUNCHERS
    if Path(words[0]).name not in LAUNCHERS and words[0] not in {"env", "nice"}:
        return False
    if not launchers or names_hosts(words[1:]):
        return False
    for word in words[1:]:
        if word.startswith("-"):
            if any(part in word.lower() for part in _ELSEWHERE):
                return False
        elif Path(word).name not in LAUNCHERS and is_found(word, path):
            return False
    return True
