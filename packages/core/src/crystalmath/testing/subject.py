"""What an engine author tells the kit."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

__all__ = ["EngineUnderTest"]


@frozen
class EngineUnderTest:
    """One installed engine, and what it needs to be tested.

    Parameters
    ----------
    name : str
        The engine's name, as ``crystalmath engines`` lists it.
    options : mapping of str to object
        The table ``[engines.<name>]`` of the configuration file; strings, numbers, booleans and
        lists of them.
    clusters : mapping of str to mapping
        The tables ``[clusters.<name>]`` of the configuration file, likewise. The kit's jobs go to
        the first of them, else to ``local``.
    workers : int
        How many jobs run at a time with these options.
    environment : mapping of str to str
        Environment variables that the engine needs.
    start_s : float
        How long the engine may take from its first launch to its first running job, in seconds.
    turn_s : float
        How long one job that does nothing may take on the warm engine, in seconds.
    library : str, optional
        The top-level module of the library that the engine needs, for the tests that hide it.
    outage : callable, optional
        Gives a context in which the engine cannot be reached, so that ``launch`` and ``probe``
        raise :class:`~crystalmath.errors.EngineUnavailable`; afterwards it can be again.
    linger_s : float
        How long a process of the engine may outlive ``close()``, in seconds. An idle chain inside
        a worker that somebody else started may take its 60 s.
    """

    name: str
    options: Mapping[str, Any] = field(factory=dict, kw_only=True)
    clusters: Mapping[str, Mapping[str, Any]] = field(factory=dict, kw_only=True)
    workers: int = field(default=2, kw_only=True)
    environment: Mapping[str, str] = field(factory=dict, kw_only=True)
    start_s: float = field(default=60.0, kw_only=True)
    turn_s: float = field(default=3.0, kw_only=True)
    library: str | None = field(default=None, kw_only=True)
    outage: Callable[[], AbstractContextManager[object]] | None = field(default=None, kw_only=True)
    linger_s: float = field(default=10.0, kw_only=True)

    @property
    def cluster(self) -> str:
        """Where the kit's jobs go."""
        return next(iter(self.clusters), "local")

    def configure(self, home: Path) -> None:
        """Write the configuration file of a fresh home."""
        tables = {f"engines.{json.dumps(self.name)}": self.options} | {
            f"clusters.{json.dumps(name)}": {"engine": self.name, **table}
            for name, table in self.clusters.items()
        }
        lines: list[str] = []
        for name, table in tables.items():
            # Scalars and lists of them look the same in JSON and in TOML.
            keys = (f"{json.dumps(key)} = {json.dumps(value)}" for key, value in table.items())
            lines += [f"[{name}]", *keys, ""]
        text = "\n".join(lines)
        (home / "config.toml").write_text(text, encoding="utf-8")
