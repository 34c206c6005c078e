"""Makes clients: of the home's server, or of a job service in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crystalmath import config
from crystalmath.client.client import Client
from crystalmath.client.remote import Remote
from crystalmath.server.endpoint import Place

if TYPE_CHECKING:
    from crystalmath.server.endpoint import Server


def connect(*, start: bool = True, on: str | None = None) -> Client:
    """Connect to the server of the present home, or to that of a home on another machine.

    The server owns the jobs: they go on when this process ends. If the server runs on another
    host, the client reads jobs in the home that both hosts see. Any request that changes something
    raises `ServedElsewhere`, which says how to reach that server.

    Parameters
    ----------
    start : bool
        Start a server in the background if none runs, now and at later requests. A server that
        was stopped stays stopped while the client only waits for jobs. A home on another machine
        always has a server.
    on : str, optional
        The home ``[remotes.NAME]`` of the configuration, over SSH; default: ``CRYSTALMATH_ON``,
        else the home here.

    Raises
    ------
    ServerNotRunning
        No server runs, and `start` is false.
    ServedElsewhere
        Only the host of the server sees the job database.
    ServerError
        No server could be started, or the server is of another build.
    ConfigError
        The configuration has no such remote.
    Unreachable
        The other machine cannot be reached, or has no crystalmath; the message has the remedy.
    """
    if name := config.remote_name() if on is None else on:
        from crystalmath.client.over_ssh import opened
        from crystalmath.remotes.remote_home import named

        return Client(opened(named(name)))
    place = Place.of(config.home())
    server = _elsewhere(place)
    if server is not None:
        from crystalmath.client.other_host import OtherHost, require_home

        require_home(place, server)
        return Client(OtherHost(place, server))
    remote = Remote(place, (lambda: _start(place)) if start else None)
    remote.open()
    return Client(remote)


def _start(place: Place) -> None:
    from crystalmath.server import launch

    launch.start(place)


def _elsewhere(place: Place) -> Server | None:
    """Return the home's server if it is on another host, or in another container."""
    server = place.read_lock()
    return None if server is None or server.is_here() else server


def is_served_elsewhere() -> bool:
    """Return whether the server of the present home is on another host, or in another container."""
    return _elsewhere(Place.of(config.home())) is not None


def in_process() -> Client:
    """Run jobs in this process, without a server, or beside one.

    The client sees all jobs of the home. It owns those that it submits, and cancels them when it
    is closed or the process ends.

    Raises
    ------
    ServedElsewhere
        Only the host of the home's server sees the job database.
    ProtocolMismatch
        A server of another build uses the job database.
    """
    place = Place.of(config.home())
    server = place.read_lock()
    if server is not None:
        from crystalmath.client.other_host import require_home

        require_home(place, server)
    from crystalmath.client.embedded import InProcess

    return Client(InProcess())
