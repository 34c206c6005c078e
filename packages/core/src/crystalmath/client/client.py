"""Submit, follow and cancel jobs from Python."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack, overload

from crystalmath.client.client_errors import answered_error
from crystalmath.client.job_curves import JobCurves
from crystalmath.client.job_tables import JobTables
from crystalmath.client.submitting import Submitting

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from crystalmath.client.future import JobFuture
    from crystalmath.errors import CrystalMathError
    from crystalmath.models import Filters, HasJobId, Job
    from crystalmath.models.retry import RetryOptions

__all__ = ["Client"]


class Client(Submitting, JobCurves, JobTables):
    """Submit, follow and cancel the jobs of a home. Threads may share a client.

    :func:`~crystalmath.client.connect` and :func:`~crystalmath.client.in_process` make one. It is
    synchronous and has threads of its own, so it works where an event loop runs already, as in a
    notebook.

    Parameters
    ----------
    transport : Transport
        Whom it asks.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the client.

        Jobs of a server go on. Jobs of :func:`~crystalmath.client.in_process` are cancelled.
        Futures that are not done get :class:`~crystalmath.client.ClientClosed`.
        """
        self._transport.finish()
        self._follower.close()
        self._waiting.close()
        self._transport.close()

    # --- running again ------------------------------------------------------------------------

    @overload
    def retry(
        self,
        jobs: str | HasJobId | Iterable[str | HasJobId] | None = None,
        parameters: Mapping[str, Any] | None = None,
        *,
        filters: Filters | None = None,
        dry_run: Literal[False] = False,
        **changes: Unpack[RetryOptions],
    ) -> list[JobFuture | CrystalMathError]: ...

    @overload
    def retry(
        self,
        jobs: str | HasJobId | Iterable[str | HasJobId] | None = None,
        parameters: Mapping[str, Any] | None = None,
        *,
        filters: Filters | None = None,
        dry_run: Literal[True],
        **changes: Unpack[RetryOptions],
    ) -> list[CrystalMathError | None]: ...

    def retry(
        self,
        jobs: str | HasJobId | Iterable[str | HasJobId] | None = None,
        parameters: Mapping[str, Any] | None = None,
        *,
        filters: Filters | None = None,
        dry_run: bool = False,
        **changes: Unpack[RetryOptions],
    ) -> list[JobFuture | CrystalMathError] | list[CrystalMathError | None]:
        """Run jobs again that have ended, each as a new job that points to the old one.

        Parameters
        ----------
        jobs : str, Job, JobFuture, or several
            The jobs, or their ids.
        parameters, **changes
            What is other this time, the fields of :class:`~crystalmath.models.retry.Retry`. The
            rest is as it was submitted, the environment too.
        filters : mapping, optional
            In place of `jobs` the filters of :meth:`list`: those that failed or were cancelled,
            unless ``state`` says otherwise. Those that were run again already are passed over.
        dry_run : bool
            Say what would come of it, and submit nothing.

        Returns
        -------
        list of (JobFuture or CrystalMathError)
            For each job the new one; what was refused has its error in its place. In a dry run
            ``None`` stands for each new job.
        """
        from crystalmath.client.future import JobFuture

        named = None if jobs is None else _ids(jobs)
        given = {"parameters": parameters or {}, **changes}
        if dry_run:
            answers = self.asked_again(given, job_ids=named, filters=filters, dry_run=True)
            told = [one for one in answers if one.get("code") != "retried"]
            return [answered_error(one) if one["status"] == "error" else None for one in told]
        with self._follower.submitting() as overheard:
            answers = self.asked_again(given, job_ids=named, filters=filters)
            told = [one for one in answers if one.get("code") != "retried"]
            accepted: list[JobFuture | CrystalMathError] = [
                answered_error(one)
                if one["job_id"] is None
                else JobFuture(self, one["job_id"], one["name"], one["labels"])
                for one in told
            ]
            futures = [one for one in accepted if isinstance(one, JobFuture)]
            self._follower.follow(futures, overheard=overheard)
        return accepted

    def reread(
        self,
        job_id: str,
        *,
        settings: Mapping[str, str] | None = None,
        engine: str | None = None,
        cluster: str | None = None,
    ) -> JobFuture:
        """Read the calculations of a failed job again, as a new job that points to it.

        For a job whose program came to its end, and whose output could not be read, or was refused.
        Nothing is computed.

        Parameters
        ----------
        job_id : str
            The job.
        settings : mapping of str to str, optional
            Settings of quacc that are other this time (``{"CHECK_CONVERGENCE": "False"}``).
        engine, cluster : str, optional
            Where they are read; default: where the job ran.

        Raises
        ------
        InvalidJob
            It has not failed, or its last calculation has not come to its end.
        """
        place = {"engine": engine, "cluster": cluster}
        answer = self._answer("jobs.reread", job_id=job_id, settings=settings or None, **place)
        return self.future(answer["job_id"])

    # --- futures -----------------------------------------------------------------------------

    def future(self, job_id: str) -> JobFuture:
        """Return the future of a job that anybody submitted (`UnknownJob` if there is none)."""
        return self._futures([self.job(job_id)])[0]

    def jobs(
        self,
        *,
        label: Mapping[str, str] | None = None,
        sort: str | None = None,
        **filters: Unpack[Filters],
    ) -> list[JobFuture]:
        """Return futures of jobs, newest first: those of an earlier kernel too.

        Parameters
        ----------
        label : mapping of str to str, optional
            The same as ``labels``.
        sort, **filters
            See :meth:`list`.
        """
        if every := {**(filters.get("labels") or {}), **(label or {})}:
            filters["labels"] = every
        return self._futures(self.list(sort=sort, **filters))

    def _futures(self, infos: Iterable[Job]) -> list[JobFuture]:
        from crystalmath.client.future import JobFuture

        futures = []
        for info in infos:
            future = JobFuture(self, info.job_id, info.name, info.labels)
            future.update(info)
            futures.append(future)
        self._follower.follow(futures)
        return futures

    def result(self, job_id: str, *, field: str | None = None, original: bool = False) -> Any:
        """Return what a job's recipe returned, as :meth:`JobFuture.result` does, without waiting.

        Parameters
        ----------
        job_id : str
            The job.
        field : str, optional
            Only this part of it: ``results.energy``, ``static.0.atoms``.
        original : bool
            See :meth:`JobFuture.result`.

        Raises
        ------
        JobFailed, concurrent.futures.CancelledError
            The job has no result.
        TimeoutError
            It has not ended.
        InvalidJob
            The result has no such field.
        """
        future = self.future(job_id)
        if field is None or (future.done() and future.exception(timeout=0) is not None):
            return future.result(timeout=0, original=original)
        text = self.result_json(job_id, field)
        if text is None:
            return future.result(timeout=0, original=original)  # it has not ended, which this says
        from crystalmath.recipes import codec

        return codec.decode_result_json(text)


def _ids(jobs: str | HasJobId | Iterable[str | HasJobId]) -> list[str]:
    several = [jobs] if isinstance(jobs, str) or not isinstance(jobs, Iterable) else jobs
    return [one if isinstance(one, str) else one.job_id for one in several]
