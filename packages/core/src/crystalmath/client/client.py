"""Submit, follow and cancel jobs from Python."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, Unpack, overload

from crystalmath.client.asking import Asking
from crystalmath.client.caller import PAGE
from crystalmath.client.client_errors import answered_error, raise_answered
from crystalmath.client.follower import Follower
from crystalmath.errors import CrystalMathError
from crystalmath.models import Finding, Inputs, Job, JobCheck, Submission

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike
    from types import TracebackType

    from ase import Atoms

    from crystalmath.client.future import JobFuture
    from crystalmath.client.installed import RecipeLike
    from crystalmath.client.transport import Transport
    from crystalmath.models import Filters, HasJobId, MapOptions, SubmissionOptions
    from crystalmath.models.curves import EquationOfState, Sweep
    from crystalmath.models.retry import RetryOptions

__all__ = ["Client"]

# The client has a method called list, which hides the type inside its class.
_Futures: TypeAlias = "list[JobFuture]"
_Accepted: TypeAlias = "list[JobFuture | CrystalMathError]"
_Rehearsed: TypeAlias = "list[CrystalMathError | None]"
_Findings: TypeAlias = "list[Finding]"
_Values: TypeAlias = list[Any]
_Jobs: TypeAlias = list[Job]

#: A structure (Å), or what ``jobs.submit`` takes in its place; a job for its final geometry.
Structure: TypeAlias = "Atoms | str | Mapping[str, Any] | HasJobId"


class Client(Asking):
    """Submit, follow and cancel the jobs of a home. Threads may share a client.

    :func:`~crystalmath.client.connect` and :func:`~crystalmath.client.in_process` make one. It is
    synchronous and has threads of its own, so it works where an event loop runs already, as in a
    notebook.

    Parameters
    ----------
    transport : Transport
        Whom it asks.
    """

    def __init__(self, transport: Transport) -> None:
        super().__init__(transport)
        self._follower = Follower(self._waiting)

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

    # --- submitting --------------------------------------------------------------------------

    def submit(
        self,
        recipe: RecipeLike,
        atoms: Structure | None = None,
        parameters: Mapping[str, Any] | None = None,
        **options: Unpack[SubmissionOptions],
    ) -> JobFuture:
        """Submit a job; it is on record when this returns.

        Parameters
        ----------
        recipe, atoms, parameters, **options
            The fields of :class:`~crystalmath.models.Submission`.

        Raises
        ------
        InvalidJob
            The job was refused (`JobRefused` with the findings of the preflight). Nothing of it
            is left behind.
        UnknownEngine
            The engine is not installed.
        """
        asked = Submission(recipe=recipe, atoms=atoms, parameters=parameters or {}, **options)
        (answer,) = self.submit_many([asked])
        if isinstance(answer, CrystalMathError):
            raise answer
        return answer

    def submit_many(self, submissions: Sequence[Submission]) -> _Accepted:
        """Submit jobs with one call, each accepted or refused on its own.

        Returns
        -------
        list of (JobFuture or CrystalMathError)
            In their order; what was refused has its error in its place. So has what was not
            answered once others were accepted, as where the server went away.
        """
        from crystalmath.client.batches import batches

        answers: _Accepted = []
        for batch in batches(submissions, *self._configured()):
            refused = {i: one for i, one in batch.items() if isinstance(one, CrystalMathError)}
            given = {i: one for i, one in batch.items() if not isinstance(one, CrystalMathError)}
            try:
                told = refused | (self._submit(given) if given else {})
            except CrystalMathError as error:
                if all(isinstance(one, CrystalMathError) for one in answers):
                    raise
                # What earlier batches were answered must not be lost with this one.
                told = {**refused, **dict.fromkeys(given, error)}
            answers += [told[index] for index in batch]
        return answers

    def _submit(
        self, documents: Mapping[int, dict[str, Any]]
    ) -> dict[int, JobFuture | CrystalMathError]:
        from crystalmath.client.future import JobFuture

        answers: dict[int, JobFuture | CrystalMathError] = {}
        futures: list[JobFuture] = []
        begun = False
        with self._follower.submitting() as overheard:
            answer = self._answer("jobs.submit_many", jobs=list(documents.values()))
            for (index, document), job in zip(documents.items(), answer["jobs"], strict=True):
                if job["job_id"] is None:
                    answers[index] = answered_error(job)
                else:
                    future = JobFuture(
                        self, job["job_id"], document.get("name"), document.get("labels", {})
                    )
                    answers[index] = future
                    futures.append(future)
                    # Its key has given the job of an earlier submission.
                    begun = begun or job["status"] != "pending"
            self._follower.follow(futures, overheard=overheard, look=begun)
        return answers

    def map(
        self,
        recipe: RecipeLike,
        structures: Iterable[Structure],
        parameters: Mapping[str, Any] | None = None,
        *,
        key: str | None = None,
        progress: bool | None = None,
        return_exceptions: bool = False,
        **options: Unpack[MapOptions],
    ) -> _Values:
        """Run a recipe on each of many structures, and wait for all results.

        Parameters
        ----------
        recipe, parameters, **options
            For all jobs alike; the fields of :class:`~crystalmath.models.Submission`.
        structures : iterable of ase.Atoms
            One job for each.
        key : str, optional
            The jobs get the keys ``key/0``, ``key/1`` and so on: the same call again, in a new
            kernel too, gives the same jobs.
        progress : bool, optional
            Whether to show a bar; default: on a terminal and in a notebook.
        return_exceptions : bool
            Give the error of a job that was refused, failed or was cancelled in its place.

        Returns
        -------
        list
            What the recipe returned for each structure, in their order.

        Raises
        ------
        InvalidJob
            A job was refused: at once. Those that were accepted go on.
        JobFailed, concurrent.futures.CancelledError
            A job has no result: the first such, once all have ended.
        """
        from crystalmath.client.gathering import gather

        submissions = [
            Submission(
                recipe=recipe,
                atoms=atoms,
                parameters=parameters or {},
                key=None if key is None else f"{key}/{index}",
                **options,
            )
            for index, atoms in enumerate(structures)
        ]
        answers = self.submit_many(submissions)
        return gather(answers, progress=progress, return_exceptions=return_exceptions)

    @overload
    def check(
        self,
        recipe: RecipeLike,
        atoms: Structure | None = None,
        parameters: Mapping[str, Any] | None = None,
        *,
        inputs: Literal[False] = False,
        **options: Unpack[SubmissionOptions],
    ) -> _Findings: ...

    @overload
    def check(
        self,
        recipe: RecipeLike,
        atoms: Structure | None = None,
        parameters: Mapping[str, Any] | None = None,
        *,
        inputs: Literal[True],
        **options: Unpack[SubmissionOptions],
    ) -> JobCheck: ...

    def check(
        self,
        recipe: RecipeLike,
        atoms: Structure | None = None,
        parameters: Mapping[str, Any] | None = None,
        *,
        inputs: bool = False,
        **options: Unpack[SubmissionOptions],
    ) -> _Findings | JobCheck:
        """Say all that is wrong with a job, without submitting it.

        Parameters
        ----------
        recipe, atoms, parameters, **options
            The fields of :class:`~crystalmath.models.Submission`.
        inputs : bool
            Also tell what its programs would get, step by step.

        Returns
        -------
        list of Finding, or JobCheck
            The latter with `inputs`.
        """
        from crystalmath.client.request import document

        asked = Submission(recipe=recipe, atoms=atoms, parameters=parameters or {}, **options)
        sent = document(asked, *self._configured())
        answer = self._transport.call("jobs.check", {**sent, "inputs": True} if inputs else sent)
        if not answer.get("findings"):
            raise_answered(answer)
        findings = [Finding(**finding) for finding in answer["findings"]]
        if not inputs:
            return findings
        told = answer.get("inputs")
        return JobCheck(findings=findings, inputs=Inputs.read(told) if told else Inputs())

    # --- curves ---------------------------------------------------------------------------------

    def sweep(
        self,
        job_ids: Sequence[str],
        x: str,
        y: str = "energy_per_atom",
        by: str | None = None,
    ) -> Sweep:
        """Give a value of completed jobs against a label or a parameter of theirs.

        Parameters
        ----------
        job_ids : sequence of str
            The jobs; `UnknownJob` if there is no such one.
        x : str
            A label, else a parameter: ``encut``, ``opt_params.fmax``.
        y : str
            ``energy`` (eV), ``energy_per_atom`` (eV), ``max_force`` (eV/Å), or a number in the
            result by its path: ``results.free_energy``.
        by : str, optional
            Another label or parameter, which tells several series apart.

        Raises
        ------
        InvalidJob
            No job has such a label or parameter, or none has a value.
        """
        from crystalmath.client.sweeping import make_sweep

        return make_sweep(self, self._records(job_ids), x, y, by)

    def equation_of_state(self, job_ids: Sequence[str]) -> EquationOfState:
        """Fit the energies of completed jobs of one cell against its volume (Birch-Murnaghan).

        Parameters
        ----------
        job_ids : sequence of str
            The jobs, at five volumes or more; `UnknownJob` if there is no such one.

        Raises
        ------
        InvalidJob
            They are of different cells, too few, or have no minimum.
        """
        from crystalmath.client.sweeping import make_equation_of_state

        return make_equation_of_state(self, self._records(job_ids))

    def _records(self, job_ids: Sequence[str]) -> _Jobs:
        found = []
        for start in range(0, len(job_ids), PAGE):
            page = list(job_ids[start : start + PAGE])
            for told in self._answer("jobs.status_many", job_ids=page)["jobs"]:
                if told["status"] == "error":
                    raise_answered(told)
                found.append(Job.read(told))
        return found

    @overload
    def retry(
        self,
        jobs: str | HasJobId | Iterable[str | HasJobId] | None = None,
        parameters: Mapping[str, Any] | None = None,
        *,
        filters: Filters | None = None,
        dry_run: Literal[False] = False,
        **changes: Unpack[RetryOptions],
    ) -> _Accepted: ...

    @overload
    def retry(
        self,
        jobs: str | HasJobId | Iterable[str | HasJobId] | None = None,
        parameters: Mapping[str, Any] | None = None,
        *,
        filters: Filters | None = None,
        dry_run: Literal[True],
        **changes: Unpack[RetryOptions],
    ) -> _Rehearsed: ...

    def retry(
        self,
        jobs: str | HasJobId | Iterable[str | HasJobId] | None = None,
        parameters: Mapping[str, Any] | None = None,
        *,
        filters: Filters | None = None,
        dry_run: bool = False,
        **changes: Unpack[RetryOptions],
    ) -> _Accepted | _Rehearsed:
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
            accepted: _Accepted = [
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
        """Give the future of a job that anybody submitted (`UnknownJob` if there is none)."""
        return self._futures([self.job(job_id)])[0]

    def jobs(
        self,
        *,
        label: Mapping[str, str] | None = None,
        sort: str | None = None,
        **filters: Unpack[Filters],
    ) -> _Futures:
        """Give futures of jobs, newest first: those of an earlier kernel too.

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

    def _futures(self, infos: Iterable[Job]) -> _Futures:
        from crystalmath.client.future import JobFuture

        futures = []
        for info in infos:
            future = JobFuture(self, info.job_id, info.name, info.labels)
            future.update(info)
            futures.append(future)
        self._follower.follow(futures)
        return futures

    # --- tables ------------------------------------------------------------------------------

    def table(
        self,
        *,
        columns: Sequence[str] | None = None,
        sort: str | None = None,
        limit: int | None = None,
        **filters: Unpack[Filters],
    ) -> Any:
        """Give jobs as a pandas DataFrame: parameters, labels, energies, geometry, results.

        Columns are named as in ``crystalmath list``; labels are ``labels.NAME``, parameters
        ``params.NAME``, and what a recipe gives has the recipe's own names
        (``results.gibbs_energy``). Of a flow the last result counts, as in its summary.

        Parameters
        ----------
        columns : sequence of str, optional
            Which columns; default: all that any of the jobs has.
        sort, limit, **filters
            See :meth:`list`.

        Raises
        ------
        CrystalMathError
            pandas is not installed.
        """
        from crystalmath.client.table_files import frame
        from crystalmath.client.table_rows import lines

        return frame(lines(self, self.list(sort=sort, limit=limit, **filters)), columns)

    def export(
        self,
        path: str | PathLike[str],
        *,
        columns: Sequence[str] | None = None,
        sort: str | None = None,
        limit: int | None = None,
        **filters: Unpack[Filters],
    ) -> tuple[int, int]:
        """Write jobs as a table to a file.

        Parameters
        ----------
        path : str or path
            A new file; its end names the format: ``.csv``, ``.jsonl``, ``.extxyz``, ``.db``,
            ``.parquet``.
        columns, sort, limit, **filters
            See :meth:`table`.

        Returns
        -------
        tuple of int
            How many jobs were written, and how many were left out of ``.extxyz`` and ``.db``
            because they have no geometry.

        Raises
        ------
        InvalidJob
            The file is there already, or its name ends in no format.
        CrystalMathError
            pyarrow, which Parquet needs, is not installed.
        """
        from pathlib import Path

        from crystalmath.client.table_files import write_table
        from crystalmath.client.table_rows import lines

        jobs = self.list(sort=sort, limit=limit, **filters)
        return write_table(Path(path), lines(self, jobs), columns)

    def result(self, job_id: str, *, field: str | None = None, original: bool = False) -> Any:
        """Give what a job's recipe returned, as :meth:`JobFuture.result` does, without waiting.

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
