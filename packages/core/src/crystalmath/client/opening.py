"""How to get a client."""

from __future__ import annotations

from crystalmath import config
from crystalmath.client.client import Client
from crystalmath.client.remote import Remote
from crystalmath.server.endpoint import Place

__all__ = ["connect", "in_process"]


def connect(*, start: bool = True) -> Client:
    """Connect to the server of the present home.

    Jobs are the server's: they go on when this process ends.

    Parameters
    ----------
    start : bool
        Start a server in the background where none runs, now and whenever it is asked for
        something later. One that was stopped while somebody merely waits for jobs stays stopped.

    Raises
    ------
    ServerNotRunning
        None runs, and none is to be started.
    ServerError
        None could be started; or it speaks another version of the protocol.
    """
    place = Place.of(config.home())
    remote = Remote(place, (lambda: _start(place)) if start else None)
    remote.open()
    return Client(remote)


def _start(place: Place) -> None:
    from crystalmath.client import launch

    launch.start(place)


def in_process() -> Client:
    """Run jobs in this process, without a server.

    The jobs of the home are all seen, those of this process are its own: they are cancelled when
    the client is closed or the process ends.
    """
    from crystalmath.client.embedded import InProcess

    return Client(InProcess())
