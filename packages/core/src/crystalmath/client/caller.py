"""Call methods of whoever answers a client, and raise what an answer says was wrong."""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING, Any

from crystalmath import config
from crystalmath.client.client_errors import raise_answered
from crystalmath.recipes.quacc_settings import changed_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crystalmath.client.transport import Transport

#: How long a server may look at, or remove, the files of many jobs, in seconds.
LONG_S = 3600.0


class Caller:
    """What all that a client asks goes through.

    Parameters
    ----------
    transport : Transport
        Whom it asks.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._waiting = transport.for_waiting()
        # It belongs to the home that it was made for, whatever becomes of os.environ.
        self._environ = dict(os.environ)

    @cached_property
    def _source(self) -> config.Source:
        # Not before it is needed: a client that only looks does without a configuration.
        return config.Source(self._environ)

    def _configured(self) -> tuple[config.Config, dict[str, str]]:
        """Return the home's configuration, and the present environment as jobs see it."""
        configured = self._source.current()
        environ = {**os.environ, **changed_settings()}
        return configured, config.submitters_environment(configured, environ)

    def call(
        self, method: str, params: Mapping[str, Any] | None = None, timeout: float | None = None
    ) -> dict[str, Any]:
        """Call a method of the server (docs/protocol.md) and give its result as it is.

        Raises
        ------
        ServerNotRunning
            There is no server, and none is to be started.
        ConnectionLost
            It went away, or has not answered in time.
        """
        return self._transport.call(method, params or {}, timeout)

    def call_raw(
        self, method: str, params: Mapping[str, Any] | None = None, timeout: float | None = None
    ) -> bytes:
        """Call a method and give its result as JSON text."""
        return self._transport.call_raw(method, params or {}, timeout)

    def _answer(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method, and raise what its answer says was wrong."""
        return self._answered(method, params)

    def _answered(
        self, method: str, params: Mapping[str, Any], timeout: float | None = None
    ) -> dict[str, Any]:
        given = {name: value for name, value in params.items() if value is not None}
        answer = self._transport.call(method, given, timeout)
        raise_answered(answer)
        return answer
