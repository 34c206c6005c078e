"""Reads about jobs with one request to the home's server, or from the home if none runs here.

A shell user waits for every import, so no client, future or event loop is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from crystalmath import config
from crystalmath.client.client_errors import ConnectionLost, raise_answered
from crystalmath.client.remote import ANSWER_S, HELLO_S
from crystalmath.client.transport import Caller, Transport, find, pages, read_result
from crystalmath.errors import ServedElsewhere, ServerNotRunning
from crystalmath.server.endpoint import Connection, Place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from crystalmath.reading.home_jobs import HomeJobs
    from crystalmath.server import Method
    from crystalmath.wire.answers import JobDocument, JobList

_Answer = TypeVar("_Answer")


class HomeReader(Transport):
    """Asks the home's server, or reads the home's files and rows if none runs on this host."""

    def __init__(self, answer_s: float = ANSWER_S) -> None:
        self._answer_s = answer_s
        self._place = Place.of(config.home())
        self._connection: Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()

    def require_build(self) -> None:
        """Refuse a server of another build, before it is asked (`ProtocolMismatch`)."""
        server = self._place.read_lock()
        if server is not None:
            from crystalmath.client.handshake import check_build

            host = None if server.is_here() else server.identity.host
            check_build(server.version, self._place.home, host)

    def ask(self, method: Method[_Answer], **params: Any) -> _Answer:
        """Call a method that only reads (docs/protocol.md), and return its result.

        `CrystalMathError`: the answer is an error, or the server went away or does not answer.
        """
        sent = {name: value for name, value in params.items() if value is not None}
        document = self._answered(
            lambda: self.call(method, sent),
            lambda jobs, answers: answers.answer(jobs, method, sent),
        )
        raise_answered(document)
        answer: _Answer = document
        return answer

    def result_json(
        self, job_id: str, field: str | None = None, *, brief: bool = False
    ) -> bytes | None:
        """Return a result as :meth:`Client.result_json` does."""
        text: bytes | None = self._answered(
            lambda: Caller(self).result_text(job_id, field, brief=brief),
            lambda jobs, answers: answers.result_text(jobs, job_id, field, brief=brief),
        )
        return text

    def find(self, prefix: str) -> str:
        """Return the one id that begins with a prefix.

        `UnknownJob`: there is none; `InvalidJob`: there are several.
        """
        return find(self.ask, prefix)

    def jobs(self, limit: int | None, **filters: Any) -> Iterator[JobDocument]:
        """Yield jobs, newest first, page by page; see ``jobs.list``."""
        return pages(self.ask, limit, filters)

    def listed(
        self, limit: int | None, **filters: Any
    ) -> tuple[list[JobDocument], Mapping[str, int]]:
        """Return jobs as `jobs` does, and the counts of all by state, with the same requests."""
        totals: dict[str, int] = {}

        def ask(method: Method[_Answer], **params: Any) -> _Answer:
            page = self.ask(method, **params, totals=None if totals else True)
            totals.update(cast("JobList", page).get("totals") or {})
            return page

        return list(pages(ask, limit, filters)), totals

    def _answered(
        self, of_server: Callable[[], Any], of_home: Callable[[HomeJobs, Any], Any]
    ) -> Any:
        try:
            return of_server()
        except (ServerNotRunning, ServedElsewhere):
            from crystalmath.reading import job_answers
            from crystalmath.reading.home_jobs import HomeJobs

            server = self._place.read_lock()
            if server is not None:
                from crystalmath.client.other_host import require_home

                require_home(self._place, server)
            with HomeJobs.look(config.load()) as jobs:
                return of_home(jobs, job_answers)

    def message(
        self, method: str, params: Mapping[str, Any], timeout: float | None = None
    ) -> bytes:
        """Send a request to the server; the first time also compare its version."""
        seconds = timeout or self._answer_s + params.get("timeout_s", 0.0)
        for again in (True, False):
            try:
                if self._connection is not None:
                    return self._connection.ask(method, params, seconds)
                self._connection = Connection.to(self._place)
                return self._begin(self._connection, (method, params), seconds)
            except (OSError, EOFError) as error:
                if self._connection is not None:
                    self._connection.close()
                    self._connection = None
                if again and not isinstance(error, TimeoutError):
                    continue  # a new server may have taken its place
                raise ConnectionLost(
                    f"the server of {self._place.home} went away before it answered {method}, or "
                    f"has not answered in time; its log is {self._place.log}"
                ) from error
        raise AssertionError  # the second time returns or raises

    def _begin(
        self, connection: Connection, request: tuple[str, Mapping[str, Any]], seconds: float
    ) -> bytes:
        """Check the server's version and ask it: in one go if its lock names the build."""
        from crystalmath.client.handshake import check_server

        hello: tuple[str, Mapping[str, Any]] = ("system.version", {})
        hello_s = min(HELLO_S, seconds)  # a suspended server does not answer
        server = self._place.read_lock()
        if server is None:
            check_server(read_result(connection.ask(*hello, hello_s)), self._place.home)
            return connection.ask(*request, seconds)
        version, answer = connection.ask_both([hello, request], seconds, hello_s)
        check_server(read_result(version), self._place.home)
        return answer
