"""The engine as the driver and its parts call it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    import logging
    from collections.abc import Mapping, Sequence

    from crystalmath.models import Attempt, Capabilities, EngineSettings, Sighting


class Engine(Protocol):
    """The interface of an engine's author (:class:`crystalmath.quacc.engine.EngineRunner`)."""

    capabilities: ClassVar[Capabilities]
    settings: EngineSettings
    log: logging.Logger

    def workers(self) -> int | None:
        """Return how many jobs run at once on this host."""

    def capabilities_of(self, cluster: str) -> Capabilities:
        """Return what the engine can do on a cluster."""

    def runs_here(self, cluster: str) -> bool:
        """Return whether a cluster's jobs run on this host."""

    def launch(self, attempts: Sequence[Attempt]) -> Mapping[str, str | Exception]:
        """Hand attempts over to the engine."""

    def probe(self, attempts: Sequence[Attempt]) -> Mapping[str, Sighting]:
        """Return what the engine knows of attempts."""

    def release(self, attempts: Sequence[Attempt]) -> None:
        """Drop these attempts if they are queued."""

    def stop(self) -> None:
        """End the engine."""
