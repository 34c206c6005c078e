"""Sends requests: a transport carries them, a caller raises the errors in their answers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from crystalmath import server
from crystalmath.client.client_errors import answered_error, raise_answered
from crystalmath.errors import ID_LENGTH, CrystalMathError, InvalidJob, the_one
from crystalmath.wire import messages

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from crystalmath.models import HasJobId
    from crystalmath.remotes.remote_home import RemoteHome
    from crystalmath.wire.answers import JobDocument

_Answer = TypeVar("_Answer")
_Item = TypeVar("_Item")
#: One job or several, by ids, futures or records.
JobsLike: TypeAlias = "str | HasJobId | Iterable[str | HasJobId]"

#: The timeout of requests about the files of many jobs, in seconds.
LONG_S = 3600.0


class Transport:
    """Carries a request to its handler, and the answer back; threads may share it."""

    #: Whether `finish` ends jobs.
    ends_jobs = False
    #: Whether the first recipe has yet to be imported, which takes seconds.
    is_cold = False
    #: The home on another machine to which it leads; ``None``: a home that this machine sees.
    remote: RemoteHome | None = None

    def call(
        self, method: str, params: Mapping[str, Any], timeout: float | None = None
    ) -> dict[str, Any]:
        """Return a method's result.

        It raises after `timeout` seconds without an answer. The default is far longer than a live
        server needs.
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
        """Return a transport to the same place for waiting; the caller closes it, too."""
        return self

    def adopt_orphans(self, job_ids: Collection[str]) -> None:
        """Adopt those of some jobs whose owner has died; never blocks."""

    def finish(self) -> None:
        """End the jobs that do not go on without the client."""

    def close(self) -> None:
        """Close connections and files."""
        raise NotImplementedError


def read_result(message: bytes) -> dict[str, Any]:
    """Return the result in a message, or raise its error."""
    match messages.loads(message, limited=False):
        case {"result": dict() as result}:
            return result
        case {"error": {"message": str() as text, **more}}:
            data = more.get("data")
            code = data.get("code") if isinstance(data, dict) else None
            raise answered_error({"code": code or "rpc", "error": text})
    raise messages.WireError("the answer has neither a result nor an error")


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
        """Call a method without the parameters that are ``None``, and raise an answer's error."""
        sent = {name: value for name, value in params.items() if value is not None}
        document: Any = self.transport.call(method, sent, timeout)
        raise_answered(document)
        answer: _Answer = document
        return answer

    def result_text(
        self, job_id: str, field: str | None = None, *, brief: bool = False
    ) -> bytes | None:
        """Return a result as JSON text; see :meth:`.Client.result_json`."""
        options = {"field": field, "brief": brief or None}
        params = {name: value for name, value in options.items() if value is not None}
        text = self.transport.call_raw("jobs.result", {"job_id": job_id, **params})
        header, result = split_last(text, "result")
        raise_answered(header)
        return result if header["status"] == "completed" else None


# --- which jobs ------------------------------------------------------------------------------

#: Jobs of one page, and the most ids in an error about several that begin alike.
PAGE = 500
SHOWN = 5
#: Up to this number, each job is looked up; beyond, listing all that fit is cheaper.
_EACH = 20


def pages(ask: server.Ask, limit: int | None, filters: Mapping[str, Any]) -> Iterator[JobDocument]:
    """Yield the jobs of ``jobs.list``, page by page."""
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
    """Divide items into parts for several requests."""
    return [list(items[start : start + size]) for start in range(0, len(items), size)]


def find(ask: server.Ask, prefix: str) -> str:
    """Return the one id that begins with a prefix; `UnknownJob`: none, `InvalidJob`: several."""
    if len(prefix) == ID_LENGTH:
        return prefix
    matches = pages(ask, SHOWN, {"prefix": prefix})
    return the_one(prefix, [job["job_id"] for job in matches])


def ids_of(jobs: JobsLike) -> list[str]:
    """Return the ids of jobs, which may be ids, futures or records.

    `InvalidJob`: one of them is the error of a refused job.
    """
    several = [jobs] if isinstance(jobs, str) or not isinstance(jobs, Iterable) else jobs
    ids = []
    for number, one in enumerate(several):
        if isinstance(one, CrystalMathError) and getattr(one, "job_id", None) is None:
            raise InvalidJob(f"number {number} of the jobs was not submitted: {one}") from one
        ids.append(one if isinstance(one, str) else one.job_id)
    return ids


def chosen(
    ask: server.Ask,
    job_ids: JobsLike | None,
    filters: Mapping[str, Any],
) -> list[str] | None:
    """Return the ids of those named jobs that fit the filters, each once.

    ``None``: no ids are named, so the filters alone choose. `UnknownJob`: there are filters, and
    one of the ids is unknown.
    """
    if job_ids is None:
        return None
    named = list(dict.fromkeys(ids_of(job_ids)))
    written = filters_document(filters)
    if not written or not named:
        return named
    written |= {"steps": True, "all_tries": True}  # an id always selects its job
    if len(named) > _EACH or "prefix" in written:
        fitting = {job["job_id"] for job in pages(ask, None, written)}
    else:
        each = (pages(ask, 1, {**written, "prefix": job_id}) for job_id in named)
        fitting = {job["job_id"] for matches in each for job in matches}
    for _ in records(ask, [job_id for job_id in named if job_id not in fitting]):
        pass  # raises for an unknown id
    return [job_id for job_id in named if job_id in fitting]


def requests(job_ids: list[str] | None, filters: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the parameters of requests for jobs: some of the ids each, or the filters."""
    if job_ids is None:
        return [filters_document(filters)]
    return [{"job_ids": part} for part in parts(job_ids) or [[]]]


def records(ask: server.Ask, job_ids: Sequence[str]) -> Iterator[JobDocument]:
    """Yield the records of jobs, in their order; raise the error of one."""
    for part in parts(job_ids):
        for document in ask(server.JOBS_STATUS_MANY, job_ids=part)["jobs"]:
            raise_answered(document)
            yield document


def filters_document(filters: Mapping[str, Any]) -> dict[str, Any]:
    """Return filters as parameters of ``jobs.list``, without ``None`` and empty ones."""
    return {
        name: _plain(name, value)
        for name, value in filters.items()
        if value is not None and not (name in {"labels", "exclude"} and not value)
    }


def _plain(name: str, value: Any) -> Any:
    from datetime import datetime

    # Any other value goes through; the server's check names what is wrong with it.
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

#: The members before the last, large one fit into this number of bytes.
_HEAD = 2**16


def split_last(text: bytes, name: str) -> tuple[dict[str, Any], bytes | None]:
    """Cut the last member out of an object's JSON text without decoding it, if it has that name.

    Returns the members before it, and its text, or ``None`` if there is no such member. Our server
    puts a large member last; decoding 20 MB would take 0.4 s and 300 MB. `WireError`: the text is
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
    """Return the position after a mark, if it is there, and the blanks around it."""
    while at < len(text) and text[at] in f" \n\r\t{mark}":
        at += 1
    return at
