"""What a client asks through: a server's socket, or a job service of the same process."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Protocol

from crystalmath.server.rpc.wire import WireError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from crystalmath.models.answers import JobDocument


class Transport(Protocol):
    """Carries a request to its handler, and the answer back; threads may share it."""

    @property
    def ends_jobs(self) -> bool:
        """Whether `finish` ends jobs."""

    def call(
        self, method: str, params: Mapping[str, Any], timeout: float | None = None
    ) -> dict[str, Any]:
        """Return a method's result.

        Parameters
        ----------
        method : str
            As the server calls it.
        params : mapping
            Its parameters.
        timeout : float, optional
            After how many seconds without an answer to give up; default: far too long for a
            server that is alive.
        """

    def call_raw(
        self, method: str, params: Mapping[str, Any], timeout: float | None = None
    ) -> bytes:
        """Return a method's result as JSON text, not decoded."""

    def for_waiting(self) -> Transport:
        """Return the same for somebody who waits for jobs; it is to be closed too."""

    def adopt_orphans(self, job_ids: Collection[str]) -> None:
        """See to it that somebody follows jobs that are waited for; never blocks."""

    def finish(self) -> None:
        """End the jobs that do not go on without the client."""

    def close(self) -> None:
        """Let go of everything."""


#: Jobs of one page, and how many ids are named where several begin alike.
PAGE = 500
SHOWN = 5


def pages(
    ask: Callable[..., dict[str, Any]], limit: int | None, filters: Mapping[str, Any]
) -> Iterator[JobDocument]:
    """Go through the pages of ``jobs.list``.

    Parameters
    ----------
    ask : callable
        Calls a method with parameters.
    limit : int, optional
        So many jobs at most.
    filters : mapping
        The other parameters.
    """
    cursor: str | None = None
    left = limit
    while left is None or left > 0:
        size = PAGE if left is None else min(left, PAGE)
        page = ask("jobs.list", limit=size, cursor=cursor, **filters)
        yield from page["jobs"]
        cursor = page["cursor"]
        if cursor is None:
            return
        left = None if left is None else left - len(page["jobs"])


#: Before the last member, which may be large, stand small ones: in so many bytes, all of them.
_HEAD = 2**16


def split_last(text: bytes, name: str) -> tuple[dict[str, Any], bytes | None]:
    """Cut the last member out of an object's JSON text, without decoding it.

    Our own server puts what is large last. To decode 20 MB takes 0.4 s and 300 MB.

    Parameters
    ----------
    text : bytes
        A JSON object.
    name : str
        The member that stands last, if it is there at all.

    Returns
    -------
    dict
        The members before it.
    bytes or None
        Its value; ``None`` where there is no such member.

    Raises
    ------
    WireError
        It is no such object.
    """
    head = text[:_HEAD].decode("utf-8", "ignore")
    decoder = json.JSONDecoder()
    members: dict[str, Any] = {}
    at = _after(head, 0, "{")
    try:
        while head[at] != "}":
            member, at = decoder.raw_decode(head, at)
            at = _after(head, at, ":")
            if member == name:
                return members, text[len(head[:at].encode("utf-8")) : text.rindex(b"}")].strip()
            members[member], at = decoder.raw_decode(head, at)
            at = _after(head, at, ",")
    except (ValueError, IndexError) as error:
        raise WireError(f"the answer is no JSON object: {head[:80]!r}") from error
    return members, None


def _after(text: str, at: int, mark: str) -> int:
    """Return the place of what follows a mark, if it is there, and the blanks around it."""
    while at < len(text) and text[at] in f" \n\r\t{mark}":
        at += 1
    return at
