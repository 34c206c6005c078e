"""How a client asks: a transport carries requests, a caller raises what their answers say."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from crystalmath import server
from crystalmath.client.client_errors import answered_error, raise_answered
from crystalmath.errors import ID_LENGTH, CrystalMathError, InvalidJob, the_one
from crystalmath.wire import messages

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from crystalmath.models import HasJobId
    from crystalmath.wire.answers import JobDocument

_Answer = TypeVar("_Answer")
_Item = TypeVar("_Item")

#: How long a server may look at, or remove, the files of many jobs, in seconds.
LONG_S = 3600.0


class Transport:
    """Carries a request to its handler, and the answer back; threads may share it."""

    #: Whether `finish` ends jobs.
    ends_jobs = False
    #: Whether nobody has asked a recipe there yet: whoever does waits until quacc is imported.
    is_cold = False

    def call(
        self, method: str, params: Mapping[str, Any], timeout: float | None = None
    ) -> dict[str, Any]:
        """Return a method's result.

        After `timeout` seconds without an answer it gives up; by default after far too long for a
        server that is alive.
        """
        return read_result(self.message(method, params, timeout))

    def call_raw(
        self, method: str, params: Mapping[str, Any], timeout: float | None = None
    ) -> bytes:
        """Return a method's result as JSON text, not decoded."""
        message = self.message(method, params, timeout)
        _, result = split_last(message, "result")
        return messages.dumps(read_result(message)) if result is None else result

    def message(self, method: str, params: Mapping[str, Any], timeout: float | None) -> bytes:
        """Send a request to the server, and return the message that answers it."""
        raise NotImplementedError

    def for_waiting(self) -> Transport:
        """Return the same for somebody who waits for jobs; it is to be closed too."""
        return self

    def adopt_orphans(self, job_ids: Collection[str]) -> None:
        """See to it that somebody follows jobs that are waited for; never blocks."""

    def finish(self) -> None:
        """End the jobs that do not go on without the client."""

    def close(self) -> None:
        """Let go of everything."""
        raise NotImplementedError


def read_result(message: bytes) -> dict[str, Any]:
    """Return the result that a message carries, or raise the error."""
    document = messages.loads(message, limited=False)
    if "error" in document:
        error = document["error"]
        code = (error.get("data") or {}).get("code", "rpc")
        raise answered_error({"code": code, "error": error["message"]})
    result: dict[str, Any] = document["result"]
    return result


class Caller:
    """Call methods through a transport."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport

    def call(
        self, method: str, params: Mapping[str, Any] | None = None, timeout: float | None = None
    ) -> dict[str, Any]:
        """Call a method and return its result as it is."""
        return self.transport.call(method, params or {}, timeout)

    def ask(
        self, method: server.Method[_Answer], *, timeout: float | None = None, **params: Any
    ) -> _Answer:
        """Call a method, without parameters that are ``None``; raise what its answer says."""
        given = {name: value for name, value in params.items() if value is not None}
        answer: Any = self.transport.call(method, given, timeout)
        raise_answered(answer)
        return answer  # type: ignore[no-any-return]

    def result_text(
        self, job_id: str, field: str | None = None, *, brief: bool = False
    ) -> bytes | None:
        """Return a result as JSON text; see :meth:`.Client.result_json`."""
        given = {"job_id": job_id, "field": field, "brief": brief or None}
        asked = {name: one for name, one in given.items() if one is not None}
        told, result = split_last(self.transport.call_raw("jobs.result", asked), "result")
        raise_answered(told)
        return result if told["status"] == "completed" else None


# --- which jobs ------------------------------------------------------------------------------

#: Jobs of one page, and how many ids are named where several begin alike.
PAGE = 500
SHOWN = 5
#: Of so many named jobs each is looked up; of more it is cheaper to list all that fit.
_EACH = 20


def pages(ask: server.Ask, limit: int | None, filters: Mapping[str, Any]) -> Iterator[JobDocument]:
    """Go through the pages of ``jobs.list``."""
    cursor: str | None = None
    left = limit
    while left is None or left > 0:
        size = PAGE if left is None else min(left, PAGE)
        page = ask(server.JOBS_LIST, limit=size, cursor=cursor, **filters)
        yield from page["jobs"]
        cursor = page["cursor"]
        if cursor is None:
            return
        left = None if left is None else left - len(page["jobs"])


def parts(items: Sequence[_Item], size: int = PAGE) -> list[list[_Item]]:
    """Divide what is sent in several requests."""
    return [list(items[start : start + size]) for start in range(0, len(items), size)]


def find(ask: server.Ask, prefix: str) -> str:
    """Return the one id that begins so; `UnknownJob`: none does, `InvalidJob`: several do."""
    if len(prefix) == ID_LENGTH:
        return prefix
    found = pages(ask, SHOWN, {"prefix": prefix})
    return the_one(prefix, [job["job_id"] for job in found])


def ids_of(jobs: str | HasJobId | Iterable[str | HasJobId]) -> list[str]:
    """Return the ids of jobs that are named by ids, futures or records.

    `InvalidJob`: among them is the error of a job that was refused.
    """
    several = [jobs] if isinstance(jobs, str) or not isinstance(jobs, Iterable) else jobs
    found = []
    for number, one in enumerate(several):
        if isinstance(one, CrystalMathError) and getattr(one, "job_id", None) is None:
            raise InvalidJob(f"number {number} of the jobs was not submitted: {one}") from one
        found.append(one if isinstance(one, str) else one.job_id)
    return found


def chosen(
    ask: server.Ask,
    job_ids: str | HasJobId | Iterable[str | HasJobId] | None,
    filters: Mapping[str, Any],
) -> list[str] | None:
    """Return the jobs that are named, each once, of which filters leave those that fit.

    ``None`` where filters alone choose. `UnknownJob`: filters are given, and no job has one of the
    ids.
    """
    if job_ids is None:
        return None
    named = list(dict.fromkeys(ids_of(job_ids)))
    written = filters_document(filters)
    if not written or not named:
        return named
    written |= {"steps": True, "all_tries": True}  # whoever names one means it
    if len(named) > _EACH or "prefix" in written:
        fitting = {job["job_id"] for job in pages(ask, None, written)}
    else:
        each = (pages(ask, 1, {**written, "prefix": job_id}) for job_id in named)
        fitting = {job["job_id"] for found in each for job in found}
    for _ in records(ask, [job_id for job_id in named if job_id not in fitting]):
        pass  # one that is not on record is an error
    return [job_id for job_id in named if job_id in fitting]


def records(ask: server.Ask, job_ids: Sequence[str]) -> Iterator[JobDocument]:
    """Go through what is on record of jobs, in their order; raise what is wrong with one."""
    for part in parts(job_ids):
        for told in ask(server.JOBS_STATUS_MANY, job_ids=part)["jobs"]:
            raise_answered(told)
            yield told


def filters_document(filters: Mapping[str, Any]) -> dict[str, Any]:
    """Write filters as ``jobs.list`` takes them, without those that are ``None`` or empty."""
    return {
        name: _plain(name, value)
        for name, value in filters.items()
        if value is not None and not (name in {"labels", "exclude"} and not value)
    }


def _plain(name: str, value: Any) -> Any:
    from datetime import datetime

    # Whoever answers says what is wrong with another value.
    if name == "exclude" and isinstance(value, Mapping):
        return filters_document(value)
    if name == "elements" and isinstance(value, str):
        return [symbol for symbol in value.replace(",", " ").split() if symbol]
    if isinstance(value, datetime):
        return value.timestamp()
    if name == "labels" and isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (list, tuple, set, frozenset)):
        return list(value)
    return value


# --- large answers ---------------------------------------------------------------------------

#: Before the last member, which may be large, stand small ones: in so many bytes, all of them.
_HEAD = 2**16


def split_last(text: bytes, name: str) -> tuple[dict[str, Any], bytes | None]:
    """Cut the last member, if it has that name, out of an object's JSON text, without decoding it.

    Returns the members before it, and its value, ``None`` where there is no such member. Our own
    server puts what is large last. To decode 20 MB takes 0.4 s and 300 MB. `WireError`: the text is
    no JSON object.
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
        raise messages.WireError(f"the answer is no JSON object: {head[:80]!r}") from error
    return members, None


def _after(text: str, at: int, mark: str) -> int:
    """Return the place of what follows a mark, if it is there, and the blanks around it."""
    while at < len(text) and text[at] in f" \n\r\t{mark}":
        at += 1
    return at
