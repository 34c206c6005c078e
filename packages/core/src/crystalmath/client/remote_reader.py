"""Reads about the jobs of homes on other machines, as `HomeReader` does here."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar, cast

from crystalmath import server
from crystalmath.client.home_reader import HomeReader
from crystalmath.client.over_ssh import OverSsh
from crystalmath.errors import InvalidJob, UnknownJob
from crystalmath.remotes.merged_answers import SUMS, in_order, of_remote, summed
from crystalmath.remotes.remote_home import named
from crystalmath.remotes.ssh import ask_nobody

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from crystalmath.remotes.remote_home import RemoteHome
    from crystalmath.server import Method
    from crystalmath.wire.answers import JobDocument

_Answer = TypeVar("_Answer")
_Each = TypeVar("_Each")


class RemoteReader(HomeReader):
    """Reads about the jobs of a remote home with requests to its server."""

    def __init__(self, remote: RemoteHome) -> None:
        self._transport = OverSsh(remote, reads=True)

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def require_build(self) -> None:
        """Do nothing: the first answer has the version."""

    def _answered(self, of_server: Callable[[], Any], *_: object) -> Any:
        return of_server()

    def message(
        self, method: str, params: Mapping[str, Any], timeout: float | None = None
    ) -> bytes:
        """Send a request to the server, and return its answer."""
        return self._transport.message(method, params, timeout)


def reader_of(names: str) -> HomeReader:
    """Return the reader of a remote, or of several whose names stand between commas."""
    remotes = [named(name.strip()) for name in names.split(",")]
    return RemoteReader(remotes[0]) if len(remotes) == 1 else SeveralReader(remotes)


class SeveralReader(HomeReader):
    """Reads about the jobs of several remote homes at a time.

    Each job in an answer has its remote as ``remote``. Nobody is asked for a password.
    """

    def __init__(self, remotes: Sequence[RemoteHome]) -> None:
        for remote in remotes:
            ask_nobody(remote)
        self._readers = {remote.name: RemoteReader(remote) for remote in remotes}
        self._threads = ThreadPoolExecutor(len(self._readers))

    def close(self) -> None:
        """Close the connections."""
        for reader in self._readers.values():
            reader.close()
        self._threads.shutdown()

    def require_build(self) -> None:
        """Do nothing: the first answers have the versions."""

    def ask(self, method: Method[_Answer], **params: Any) -> _Answer:
        """Ask all remotes, and return their answers as one.

        `InvalidJob`: answers to this method cannot be put together.
        """
        if method == server.JOBS_SPECIFICATION:
            return self._of_one(method, params)
        if method not in SUMS:
            raise InvalidJob(f"several remotes are for list, status and counts, not for {method}")
        answers = self._each(lambda reader: reader.ask(method, **params))
        return cast("_Answer", summed(list(answers.values())))

    def jobs(self, limit: int | None, **filters: Any) -> Iterator[JobDocument]:
        """Yield the jobs of all remotes in their order; see ``jobs.list``."""
        return iter(self.listed(limit, **filters)[0])

    def listed(
        self, limit: int | None, **filters: Any
    ) -> tuple[list[JobDocument], Mapping[str, int]]:
        """Return the jobs of all remotes in their order, and the sums of their counts."""
        looks = self._each(lambda reader: reader.listed(limit, **filters))
        every = [of_remote(name, job) for name, (jobs, _) in looks.items() for job in jobs]
        counts: dict[str, int] = summed([totals for _, totals in looks.values()])
        return in_order(every, filters.get("sort") or "-created_at")[:limit], counts

    def _each(self, look: Callable[[RemoteReader], _Each]) -> dict[str, _Each]:
        names, readers = list(self._readers), list(self._readers.values())
        return dict(zip(names, self._threads.map(look, readers), strict=True))

    def _of_one(self, method: Method[_Answer], params: Mapping[str, Any]) -> _Answer:
        """Return the answer of the remote that knows the job."""

        def look(reader: RemoteReader) -> Any:
            try:
                return reader.ask(method, **params)
            except UnknownJob as error:
                return error

        answers = self._each(look)
        known = {name: one for name, one in answers.items() if not isinstance(one, UnknownJob)}
        if len(known) > 1:
            raise InvalidJob(f"{params['job_id']!r} is a job on each of {', '.join(known)}")
        for name, answer in known.items():
            return cast("_Answer", {**answer, "job": of_remote(name, answer["job"])})
        raise next(iter(answers.values()))
