"""The options of ``[engines.covalent]``, and the server's address from Covalent's configuration."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from crystalmath.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crystalmath.models import EngineSettings

#: The options of ``[engines.covalent]``, with type and meaning.
OPTIONS = {
    "address": ("text", "your server: localhost:48008; default: as Covalent's own configuration"),
    "autostart": ("true or false", "start a server for this home; default: false"),
    "workers": ("whole number", "of the server that is started; default: the usable cores"),
}
#: The remedy if no server runs.
REMEDY = "start one with `covalent start`, or set `[engines.covalent] autostart = true`"


@frozen
class Address:
    """The address of a Covalent server."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"http://{self.host}:{self.port}"


@frozen(kw_only=True)
class Options:
    """The options of ``[engines.covalent]``."""

    #: The user's server; unused with `autostart`.
    address: Address
    #: Whether to start a server for this home alone.
    autostart: bool
    #: The number of workers of the server that is started.
    workers: int


def read(settings: EngineSettings, environ: Mapping[str, str] = os.environ) -> Options:
    """Read the options; `ConfigError` if one is unknown or has an invalid value."""
    options, name = settings.options, settings.name
    settings.check_options(*OPTIONS)
    autostart = options.get("autostart", False)
    if not isinstance(autostart, bool):
        raise ConfigError(f"[engines.{name}] autostart must be true or false, not {autostart!r}")
    if autostart and "address" in options:
        raise ConfigError(f"[engines.{name}] has address and autostart; only one can be used")
    if "workers" in options and not autostart:
        raise ConfigError(
            f"[engines.{name}] workers needs autostart; your own server is given its number of "
            "workers by `covalent start --workers`"
        )
    workers = options.get("workers", len(os.sched_getaffinity(0)))
    if not isinstance(workers, int) or isinstance(workers, bool) or workers < 1:
        raise ConfigError(
            f"[engines.{name}] workers must be a whole number from 1, not {workers!r}"
        )
    if "address" in options:
        address = _parse(options["address"], f"[engines.{name}] address")
    else:
        address = _covalents_own(environ)
    return Options(address=address, autostart=autostart, workers=workers)


def _parse(value: object, place: str) -> Address:
    text = value.removeprefix("http://").rstrip("/") if isinstance(value, str) else ""
    host, _, port = text.rpartition(":")
    if not host or "/" in host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ConfigError(f"{place} must be like 'localhost:48008', not {value!r}")
    return Address(host, int(port))


def _covalents_own(environ: Mapping[str, str]) -> Address:
    """Return the address in Covalent's configuration, without importing Covalent's client."""
    directory = (
        environ.get("COVALENT_CONFIG_DIR")
        or environ.get("XDG_CONFIG_DIR")
        or Path(environ.get("HOME", "~")).expanduser() / ".config" / "covalent"
    )
    try:
        text = Path(directory, "covalent.conf").read_text(encoding="utf-8")
        table = tomllib.loads(text).get("dispatcher", {})
    except (OSError, ValueError):
        table = {}
    host = table.get("address") or environ.get("COVALENT_DISPATCHER_ADDR") or "localhost"
    port = table.get("port") or environ.get("COVALENT_SVC_PORT") or 48008
    return _parse(f"{host}:{port}", "the address of Covalent's own configuration")
