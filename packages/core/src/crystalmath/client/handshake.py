"""Compares the server that answers with this process."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystalmath import build_version, config
from crystalmath.client.client_errors import ProtocolMismatch, ServerMismatch, outside
from crystalmath.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from crystalmath.remotes.remote_home import RemoteHome

#: The version of the protocol that this client speaks.
PROTOCOL = 1
#: The version that this process has loaded; an upgrade may replace it on the disk.
_MINE = build_version()

_REMEDY = (
    "`crystalmath stop` ends it, running jobs go on, and the next command starts one like this"
)

_warned: set[tuple[Any, str]] = set()


def check_server(server: Mapping[str, Any], home: Path) -> None:
    """Warn, once for each server, of differences; `ProtocolMismatch`: it is of another build."""
    check_build(str(server.get("version")), home)
    if server.get("protocol") != PROTOCOL:
        raise ProtocolMismatch(
            f"the server of {home} speaks version {server.get('protocol')} of the protocol, and "
            f"this is {PROTOCOL}; {_REMEDY}"
        )
    for difference in differences(server, home):
        warning = (server["pid"], difference)
        if warning not in _warned:
            _warned.add(warning)
            warnings.warn(difference, ServerMismatch, stacklevel=outside())


def check_build(theirs: str, home: Path, host: str | None = None) -> None:
    """Refuse a server of another build than this process (`ProtocolMismatch`)."""
    if theirs == _MINE:
        return
    if theirs == build_version.__wrapped__():
        raise ProtocolMismatch(
            f"this process runs crystalmath {_MINE}, which was replaced by {theirs} since; begin "
            "it anew"
        )
    place, where = (f" on {host}", "there ") if host else ("", "")
    raise ProtocolMismatch(
        f"the server of {home}{place} runs crystalmath {theirs}, and this is {_MINE}; "
        f"{where}{_REMEDY}"
    )


def check_remote(server: Mapping[str, Any], remote: RemoteHome) -> None:
    """Refuse the server of a remote home that is of another release (`ProtocolMismatch`).

    Builds of one release speak the same protocol, and the cluster has its own.
    """
    theirs, mine = str(server.get("version")).partition("+")[0], _MINE.partition("+")[0]
    if theirs != mine or server.get("protocol") != PROTOCOL:
        raise ProtocolMismatch(
            f"{remote} runs crystalmath {theirs} (protocol {server.get('protocol')}), and this is "
            f"{mine} ({PROTOCOL}): install the same release here and there; if it is there "
            f"already, `crystalmath --on {remote.name} stop` ends the old server, and running jobs "
            "go on"
        )


def differences(server: Mapping[str, Any], home: Path) -> Iterator[str]:
    """Yield how a server differs from this process, each difference with its remedy."""
    again = "`crystalmath stop` (running jobs go on), and the next command starts it anew"
    if Path(server["home"]).resolve() != home.resolve():
        yield (
            f"this server is that of {server['home']}, and the home here is {home}; set "
            "CRYSTALMATH_SOCKET and CRYSTALMATH_HOME so that they belong together"
        )
    if server["prefix"] != sys.prefix:
        yield (
            f"the server runs in the Python environment {server['prefix']}, this is {sys.prefix}; "
            f"jobs see the packages of the server's; to have them see this one's: {again} from here"
        )
    elif (python := sys.version.split()[0]) != server.get("python", python):
        yield (
            f"the server runs Python {server['python']}, this is {python}; to have the same: "
            f"{again}"
        )
    try:
        mine = config.load().recipes_allow
    except ConfigError:
        return  # only submissions are refused for a broken configuration
    if missing := [name for name in mine if name not in server["recipes_allow"]]:
        yield (
            f"the server does not admit the recipes of {', '.join(missing)}, as this process does; "
            f"put them into [recipes] allow of {server['home']}/config.toml, which it reads again "
            f"by itself, or: {again} from here"
        )
