"""The homes on other machines that ``[remotes.NAME]`` of ``config.toml`` names."""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING, Any, NamedTuple

from crystalmath import config
from crystalmath.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

#: A comma separates names in ``--on a,b``, and a colon ends one in ``a:/path``.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_ADD = "`crystalmath remotes add NAME me@host` writes one"


class RemoteHome(NamedTuple):
    """A home on another machine.

    `ssh` has the arguments of ssh, the last of which is the destination. `command` is
    ``crystalmath`` as a shell there calls it. Without a `home` it is the default there.
    """

    name: str
    ssh: tuple[str, ...]
    command: str = "crystalmath"
    home: str | None = None

    @classmethod
    def read(cls, name: str, table: Mapping[str, Any]) -> RemoteHome:
        """Read a table of the configuration; `ConfigError`: it cannot be used."""
        place = f"remotes.{name}"
        if not _NAME.fullmatch(name):
            raise ConfigError(f"{place}: a name has letters, digits, and _ . - after the first")
        ssh = table.get("ssh", [])
        words = [ssh] if isinstance(ssh, str) else list(ssh)
        if not words or not words[-1] or words[-1].startswith("-") or "\0" in "".join(words):
            raise ConfigError(
                f'{place}.ssh must be "me@host", or a list of arguments that ends with it, '
                f"not {ssh!r}"
            )
        command, home = table.get("command", "crystalmath"), table.get("home")
        for key, text in (("command", command), ("home", home)):
            if text is not None and (not text.strip() or not text.isprintable()):
                raise ConfigError(f"{place}.{key} must be one line of text, not {text!r}")
        return cls(name, tuple(words), command, home)

    @property
    def destination(self) -> str:
        """The last argument of ssh: user and host."""
        return self.ssh[-1]

    def path(self, path: str) -> str:
        """Return a path there as people read it here: ``hawk:/scratch/me``."""
        return f"{self.name}:{path}"

    def words(self, *arguments: str) -> str:
        """Return the line that a shell there reads to run a command of ours."""
        home = () if self.home is None else ("--home", self.home)
        return f"{self.command} {shlex.join((*home, *arguments))}"

    def __str__(self) -> str:
        return f"{self.name} ({self.destination})"


def all_remotes() -> list[RemoteHome]:
    """Return the remotes of the configuration; `ConfigError`: one of them cannot be used."""
    return [RemoteHome.read(name, table) for name, table in config.load().remotes.items()]


def named(name: str) -> RemoteHome:
    """Return the remote of a name; `ConfigError`: there is none, or it cannot be used."""
    configured = config.load()
    if "," in name:
        raise ConfigError(f"{name!r} names several remotes, which list, status and counts take")
    if name not in configured.remotes:
        known = did_you_mean(name, configured.remotes, None if configured.remotes else _ADD)
        raise ConfigError(f"there is no remote {name!r} in {configured.home}/config.toml; {known}")
    return RemoteHome.read(name, configured.remotes[name])


def add(name: str, ssh: Sequence[str], command: str | None, home: str | None) -> Path:
    """Write a remote to the configuration of this home, and return the file.

    `ConfigError`: it is there already, or cannot be used; nothing was written.
    """
    words: str | list[str] = ssh[0] if len(ssh) == 1 else list(ssh)
    table = {"ssh": words, "command": command, "home": home}
    written = {key: value for key, value in table.items() if value is not None}
    RemoteHome.read(name, written)
    # JSON's texts and lists are TOML's, too. A dot in a name needs quotes.
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in written.items()]
    head = f"[remotes.{json.dumps(name) if '.' in name else name}]"
    return config.add_table("\n".join(["", head, *lines, ""]), "remotes", name)
