"""The commands that start a program, and the launchers (``mpirun``, ``srun``) before it."""

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
#: Characters that only a shell interprets.
_SHELL = re.compile(r"[$`;&|<>(){}\[\]*?!#~\\\n]")
#: Words that a shell understands itself, or as functions: they need not be programs.
_WORDS = frozenset(
    {
        *("exec", "command", "time", "eval", "source", ".", "builtin", "module", "ml", "spack"),
        *("cd", "export", "set", "unset", "ulimit", "umask", "trap", "alias", "wait", "exit"),
        *("if", "for", "while", "until", "case", "test", "true", "false", "echo", "printf", ":"),
    }
)


@frozen
class Command:
    """A command with the setting that named it.

    The `remedy` is for the case that this command is missing and another one is there.
    """

    text: str
    source: str
    remedy: str | None = None

    @classmethod
    def of_setting(cls, name: str, default: str, environment: Mapping[str, str]) -> Command | None:
        """Return the command in a setting of quacc; ``None`` if the setting is no text.

        Raises
        ------
        ValueError
            quacc's settings file is damaged.
        """
        setting = quacc_setting(name, environment)
        if setting is None:
            return cls(default, f"the default of QUACC_{name}")
        value = before_the_program(setting[0])
        return cls(value, setting[1]) if isinstance(value, str) else None

    @property
    def words(self) -> list[str]:
        """Its words; none if only a shell can split it."""
        try:
            words = [] if _SHELL.search(self.text) else shlex.split(self.text)
        except ValueError:
            return []
        strange = words and ("=" in words[0] or words[0] in _WORDS)
        relative = words and "/" in words[0] and not Path(words[0]).is_absolute()
        return [] if strange or relative else words


@frozen(kw_only=True)
class Launch:
    """The commands that start a program.

    Parameters
    ----------
    title : str
        The program's name for people.
    launcher : Command or None
        The command before the program; its text is empty if there is none. ``None`` if it is
        unknown.
    programs : tuple of Command or None
        The commands of which one is started; ``None`` for each that is unknown.
    remedy : str
        What to do if none is there.
    """

    title: str
    launcher: Command | None
    programs: tuple[Command | None, ...]
    remedy: str


def before_the_program(value: object) -> object:
    """Return the part of a parallel command that stands before the program.

    quacc takes one text or two, the second for behind the program. A variable has them as JSON.
    """
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value[0] if isinstance(value, (list, tuple)) and value else value


def is_certain(word: str, path: str) -> bool:
    """Return whether a job would search the same folders: no part of the path is relative."""
    return os.path.isabs(word) or all(map(os.path.isabs, path.split(os.pathsep)))


def names_hosts(options: list[str]) -> bool:
    """Return whether a launcher's options name other machines."""
    return any(option.partition("=")[0] in _HOSTS for option in options)


def is_found(word: str, path: str) -> bool:
    """Return whether a program is on the path."""
    return shutil.which(word, path=path) is not None


def starts_here(words: list[str], path: str) -> bool:
    """Return whether a launcher starts the program that this machine finds by its name.

    It does not if it starts a container, another machine or a script that starts the program.
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
