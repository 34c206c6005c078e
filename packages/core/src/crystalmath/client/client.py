"""Submit, follow and cancel jobs from Python."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, TypeVar, Unpack, overload

from attrs import fields

from crystalmath import server
from crystalmath.client.client_errors import answered_error, raise_answered, warn_of
from crystalmath.client.follower import Follower, change_events, changes
from crystalmath.client.job_keys import keyed
from crystalmath.client.request import RecipeLike, Writer, ask_again, batched
from crystalmath.client.results import Results
from crystalmath.client.transport import (
    LONG_S,
    Caller,
    chosen,
    filters_document,
    find,
    ids_of,
    pages,
    parts,
    records,
)
from crystalmath.errors import CrystalMathError, InvalidJob, did_you_mean
from crystalmath.models import (
    Finding,
    FlowCheck,
    Inputs,
    Job,
    JobCheck,
    Preset,
    Progress,
    Submission,
)
from crystalmath.models.cluster import Check
from crystalmath.models.filters import choosing
from crystalmath.models.notebook import Findings, Jobs
from crystalmath.models.submission import OF_FLOW

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from ase import Atoms

    from crystalmath.client.chaining import StepLike
    from crystalmath.client.future import JobFuture
    from crystalmath.client.request import Written
    from crystalmath.client.sweeping import EquationOfState, EquationsOfState, Sweep
    from crystalmath.client.transport import Transport
    from crystalmath.models import Filters, HasJobId, JobChange, MapOptions, SubmissionOptions
    from crystalmath.models.retry import RetryOptions
    from crystalmath.wire.answers import (
        ArchivedJobs,
        CancelledJob,
        ClusterChecked,
        ClusterEntry,
        ImportedJobs,
        JobFiles,
        LogPart,
        Pruned,
        ServerStatus,
        Specification,
        Usage,
    )

_Answer = TypeVar("_Answer")
#: A structure (Å), or what ``jobs.submit`` takes in its place; a job for its final geometry.
Structure: TypeAlias = "Atoms | str | Mapping[str, Any] | HasJobId"
#: Jobs that a method is about: ids, futures or records, one or several.
Named: TypeAlias = "str | HasJobId | Iterable[str | HasJobId]"

#: So many jobs at once are asked for their progress, and with the histories of their ionic steps.
READ_AT_ONCE = 200
HISTORIES_AT_ONCE = 20


class Client:
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
        self._transport = transport
        self._waiting = transport.for_waiting()
        self._caller = Caller(transport)
        #: Whether no recipe has been asked there before, in this process or a server just started.
        self.is_cold = transport.is_cold
        self._follower = Follower(self._waiting)
        self._results = Results(self._caller)
        self._writer = Writer()

    def __repr__(self) -> str:
        return f"<Client: {self._transport}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
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
        return self._caller.call(method, params, timeout)

    def call_json(self, method: str, params: Mapping[str, Any] | None = None) -> bytes:
        """Do as :meth:`call`, and give the result as JSON text, which is not decoded."""
        return self._transport.call_raw(method, params or {})

    def ask(
        self, method: server.Method[_Answer], *, timeout: float | None = None, **params: Any
    ) -> _Answer:
        """Do as :meth:`call`, without parameters that are ``None``; raise what the answer says."""
        return self._caller.ask(method, timeout=timeout, **params)

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
        asked = _asked(recipe, atoms, parameters, options)
        (answer,) = self.submit_many([asked])
        if isinstance(answer, CrystalMathError):
            raise answer
        return answer

    def submit_many(self, submissions: Sequence[Submission]) -> Jobs[JobFuture | CrystalMathError]:
        """Submit jobs with one call, each accepted or refused on its own.

        Returns
        -------
        list of (JobFuture or CrystalMathError)
            In their order; what was refused has its error in its place. So has what was not
            answered once others were accepted, as where the server went away.
        """
        answers: Jobs[JobFuture | CrystalMathError] = Jobs()
        given = list(submissions)
        for each in given:
            if not isinstance(each, Submission):
                raise TypeError(
                    f"submit_many takes a list of Submission(...), not of {each!r:.100}"
                )
        for batch in self._writer.batches(given):
            answers += self._batch(batch, accepted=bool(_accepted(answers)))
        return answers

    def _batch(
        self, batch: Mapping[int, Written], *, accepted: bool, all_or_none: bool = False
    ) -> list[JobFuture | CrystalMathError]:
        """Submit with one request, after others of which some were `accepted` or none."""
        refused = {i: one for i, one in batch.items() if isinstance(one, CrystalMathError)}
        given = {i: one for i, one in batch.items() if not isinstance(one, CrystalMathError)}
        try:
            told = refused | (self._submit(given, all_or_none=all_or_none) if given else {})
        except CrystalMathError as error:
            if not accepted:
                raise
            # What earlier batches were answered must not be lost with this one.
            told = {**refused, **dict.fromkeys(given, error)}
        return [told[index] for index in batch]

    def _submit(
        self, documents: Mapping[int, dict[str, Any]], *, all_or_none: bool
    ) -> dict[int, JobFuture | CrystalMathError]:
        answers: dict[int, JobFuture | CrystalMathError] = {}
        begun = False
        with self._follower.submitting() as overheard:
            jobs = list(documents.values())
            answer = self.ask(server.JOBS_SUBMIT_MANY, jobs=jobs, all_or_none=all_or_none or None)
            for (index, document), job in zip(documents.items(), answer["jobs"], strict=True):
                if job["job_id"] is None:
                    answers[index] = answered_error(job)
                else:
                    answers[index] = self._future(
                        job["job_id"], document.get("name"), document.get("labels", {})
                    )
                    # Its key has given the job of an earlier submission.
                    begun = begun or job["status"] != "pending"
            self._follower.follow(_accepted(answers.values()), overheard=overheard, look=begun)
        warn_of(answer["jobs"])
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
    ) -> list[Any]:
        """Run a recipe on each of many structures, and wait for all results.

        Parameters
        ----------
        recipe, parameters, **options
            For all jobs alike; the fields of :class:`~crystalmath.models.Submission`.
        structures : iterable of ase.Atoms
            One job for each.
        key : str, optional
            The jobs get the keys ``key/FINGERPRINT``, made of their structures as ``crystalmath
            submit --key`` makes them: the same call again gives the same jobs, in whatever order
            the structures come, and submits what is missing.
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
        from crystalmath.client.future import gather

        answers = self.submit_many(
            [
                _asked(recipe, atoms, parameters, {**options, "key": own})
                # The command line's fingerprint has swept values, too, and here are none.
                for atoms, own in keyed(_several(structures), key, lambda one: [one, {}])
            ]
        )
        return gather(answers, progress=progress, return_exceptions=return_exceptions)

    def chain(
        self,
        structures: Iterable[Structure],
        steps: Mapping[str, StepLike],
        *,
        key: str | None = None,
        **options: Unpack[MapOptions],
    ) -> list[dict[str, JobFuture | CrystalMathError]]:
        """Submit several steps for each of many structures; all are on record when this returns.

        Each step begins once the one before has completed, from the final geometry of the last
        step that takes a structure.

        Parameters
        ----------
        structures : iterable of ase.Atoms
            One chain for each.
        steps : mapping of str to (recipe or (recipe, parameters))
            By name, in their order. In the parameters ``Reference("static")["dir_name"]`` stands
            for the directory of the earlier step ``static``, and so on.
        key : str, optional
            The jobs get the keys ``key/FINGERPRINT/relax`` and so on, made of the structures as
            ``crystalmath chain --key`` makes them: the same call again gives the same jobs, and
            submits what is missing.
        **options
            For all jobs alike; the fields of :class:`~crystalmath.models.Submission`. Each job gets
            the label ``step`` too, and with a name that of the step after it.

        Returns
        -------
        list of dict of str to (JobFuture or CrystalMathError)
            For each structure its jobs by step. They are submitted with one request, as long as
            there are no more than 1,000, and none is where one is refused: then each has its error
            in its place.

        Raises
        ------
        InvalidJob
            A step refers to a later one, or there is none.
        """
        from crystalmath.client.chaining import Chain

        chain = Chain(steps, self._writer.configured()[0].recipes_allow)
        written = chain.written(
            (
                (atoms, {**options, "key": own})
                for atoms, own in keyed(_several(structures), key, lambda one: one)
            ),
            self._writer.document,
        )
        told: list[JobFuture | CrystalMathError] = []
        for batch in batched(enumerate(written), len(chain.names)):
            told += self._batch(dict(batch), accepted=bool(_accepted(told)), all_or_none=True)
        answers = iter(told)
        # A step takes the next answer, and so does each of the next structure.
        return [
            dict(zip(chain.names, answers, strict=False))
            for _ in range(len(told) // len(chain.names))
        ]

    def recording(
        self, *, label: Mapping[str, str] | None = None, **options: Unpack[MapOptions]
    ) -> AbstractContextManager[None]:
        """Have each call of a quacc job or flow within it be a submission, in this process.

        A call returns the job's future, of which parts are passed on (``relaxed["atoms"]``), so
        that a script written for quacc alone goes on by itself once it has ended. A flow that is
        defined in the script is run in it, and what it calls is submitted.

        Parameters
        ----------
        label : mapping of str to str, optional
            The same as ``labels``.
        **options
            For all jobs alike; the fields of :class:`~crystalmath.models.Submission`.

        Raises
        ------
        CrystalMathError
            quacc is set to run its jobs by an engine of its own.
        InvalidJob
            A call: the job was refused, or no worker can import its function.
        """
        from crystalmath.client.recording import recording

        if every := {**(options.get("labels") or {}), **(label or {})}:
            options["labels"] = every
        of_jobs: dict[str, Any] = {**options}
        for name in OF_FLOW:
            of_jobs.pop(name, None)
        return recording(
            lambda recipe, atoms, parameters, is_flow: self.submit(
                recipe, atoms, parameters, **(options if is_flow else of_jobs)
            ),
            self._writer.configured()[0].recipes_allow,
        )

    @overload
    def check(
        self,
        recipe: RecipeLike,
        atoms: Structure | None = None,
        parameters: Mapping[str, Any] | None = None,
        *,
        inputs: Literal[False] = False,
        **options: Unpack[SubmissionOptions],
    ) -> Findings: ...

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
    ) -> Findings | JobCheck:
        """Return all that is wrong with a job, without submitting it.

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
        sent = self._writer.document(_asked(recipe, atoms, parameters, options))
        answer = self.call(server.JOBS_CHECK, {**sent, "inputs": True} if inputs else sent)
        if not answer.get("findings"):
            raise_answered(answer)
        findings = Findings(Finding(**finding) for finding in answer["findings"])
        if not inputs:
            return findings
        told, flow = answer.get("inputs"), answer.get("flow")
        return JobCheck(
            findings=findings,
            inputs=Inputs.read(told) if told else Inputs(),
            flow=FlowCheck.read(flow) if flow else None,
        )

    # --- running again -----------------------------------------------------------------------

    @overload
    def retry(
        self,
        jobs: Named | None = None,
        parameters: Mapping[str, Any] | None = None,
        *,
        filters: Filters | None = None,
        dry_run: Literal[False] = False,
        **changes: Unpack[RetryOptions],
    ) -> Jobs[JobFuture | CrystalMathError]: ...

    @overload
    def retry(
        self,
        jobs: Named | None = None,
        parameters: Mapping[str, Any] | None = None,
        *,
        filters: Filters | None = None,
        dry_run: Literal[True],
        **changes: Unpack[RetryOptions],
    ) -> list[CrystalMathError | None]: ...

    def retry(
        self,
        jobs: Named | None = None,
        parameters: Mapping[str, Any] | None = None,
        *,
        filters: Filters | None = None,
        dry_run: bool = False,
        **changes: Unpack[RetryOptions],
    ) -> Jobs[JobFuture | CrystalMathError] | list[CrystalMathError | None]:
        """Run jobs again that have ended, each as a new job that points to the old one.

        Parameters
        ----------
        jobs : str, Job, JobFuture, or several
            The jobs, or their ids.
        parameters, **changes
            What is other this time, the fields of :class:`~crystalmath.models.retry.Retry`. The
            rest is as it was submitted, the environment too.
        filters : mapping, optional
            The filters of :meth:`list`. Without `jobs` they choose among those that failed or were
            cancelled, unless ``state`` says otherwise, and were not run again yet.
        dry_run : bool
            Say what would come of it, and submit nothing.

        Returns
        -------
        list of (JobFuture or CrystalMathError)
            For each job the new one; what was refused has its error in its place. In a dry run
            ``None`` stands for each new job.
        """
        named = chosen(self.ask, jobs, filters or {})
        if named is not None:
            filters = None
        given = {"parameters": parameters or {}, **changes}
        if dry_run:
            answers = ask_again(self.ask, given, job_ids=named, filters=filters, dry_run=True)
            warn_of(answers)
            told = [one for one in answers if one.get("code") != "retried"]
            return [answered_error(one) if one["status"] == "error" else None for one in told]
        with self._follower.submitting() as overheard:
            answers = ask_again(self.ask, given, job_ids=named, filters=filters)
            accepted = Jobs(
                answered_error(one)
                if one["job_id"] is None
                else self._future(one["job_id"], one["name"], one["labels"])
                for one in answers
                if one.get("code") != "retried"
            )
            self._follower.follow(_accepted(accepted), overheard=overheard)
        warn_of(answers)
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
        answer = self.ask(
            server.JOBS_REREAD,
            job_id=job_id,
            settings=settings or None,
            engine=engine,
            cluster=cluster,
        )
        warn_of([answer])
        return self.future(str(answer["job_id"]))

    # --- futures and results -----------------------------------------------------------------

    def future(self, job_id: str) -> JobFuture:
        """Return the future of a job that anybody submitted (`UnknownJob` if there is none)."""
        return self._futures([self.job(job_id)])[0]

    def jobs(
        self,
        *,
        label: Mapping[str, str] | None = None,
        sort: str | None = None,
        **filters: Unpack[Filters],
    ) -> Jobs[JobFuture]:
        """Return futures of jobs, newest first: those of an earlier kernel too.

        Parameters
        ----------
        label : mapping of str to str, optional
            The same as ``labels``.
        sort, **filters
            See :meth:`list`.
        """
        if label:
            labels = filters.get("labels")
            filters["labels"] = {**labels, **label} if labels else label
        return self._futures(self.list(sort=sort, **filters))

    def _futures(self, infos: Iterable[Job]) -> Jobs[JobFuture]:
        futures: Jobs[JobFuture] = Jobs()
        for info in infos:
            future = self._future(info.job_id, info.name, info.labels)
            future.update(info)
            futures.append(future)
        self._follower.follow(futures)
        return futures

    def _future(self, job_id: str, name: str | None, labels: Mapping[str, str]) -> JobFuture:
        from crystalmath.client.future import JobFuture

        return JobFuture(self, self._results, job_id, name, labels)

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

    def result_json(
        self, job_id: str, field: str | None = None, *, brief: bool = False
    ) -> bytes | None:
        """Return a result as JSON text, as it is stored; ``None`` unless the job completed.

        Parameters
        ----------
        job_id : str
            The job.
        field : str, optional
            Only this part of it: ``results.energy``.
        brief : bool
            Of a large result only what a table has of it: the scalars, final geometry and forces
            of its last calculation.
        """
        return self._caller.result_text(job_id, field, brief=brief)

    # --- lists -------------------------------------------------------------------------------

    def job(self, job_id: str) -> Job:
        """Return what is on record of a job (`UnknownJob` if there is none)."""
        return Job.read(self.ask(server.JOBS_STATUS, job_id=job_id))

    def totals(self, **filters: Unpack[Filters]) -> dict[str, int]:
        """Count jobs by state; states that none is in are left out.

        Parameters
        ----------
        **filters
            See :meth:`list`.
        """
        answer = self.ask(server.JOBS_LIST, limit=0, totals=True, **filters_document(filters))
        return dict(answer["totals"] or {})

    def find(self, prefix: str) -> str:
        """Return the one job id that begins so; a full one goes through as it is.

        Raises
        ------
        UnknownJob
            None does.
        InvalidJob
            Several do, or `prefix` is empty: every id begins with nothing, and a script whose
            variable is not set means none.
        """
        return find(self.ask, prefix)

    def table(
        self,
        *,
        columns: Sequence[str] | None = None,
        references: Mapping[str, str] | None = None,
        sort: str | None = None,
        limit: int | None = None,
        **filters: Unpack[Filters],
    ) -> Any:
        """Return jobs as a pandas DataFrame: parameters, labels, energies, geometry, results.

        Columns are named as in ``crystalmath list``; labels are ``labels_NAME``, parameters
        ``params.NAME``, and what a recipe gives has the recipe's own names
        (``results.gibbs_energy``). Of a flow the last result counts, as in its summary.

        Parameters
        ----------
        columns : sequence of str, optional
            Which columns; default: those of the record, and all that any of the jobs has.
            ``formation_energy`` and ``e_above_hull`` (eV/atom) are there only if they are named.
        references : mapping of str to str, optional
            Labels of the jobs to which formation energies refer, of which those of pure elements
            count; default: the pure elements among the jobs of the table.
        sort, limit, **filters
            See :meth:`list`. The hull is made of all jobs that fit, whatever the `limit`.

        Raises
        ------
        InvalidJob
            An element has no reference, or the jobs of a hull are of several programs.
        CrystalMathError
            pandas, or pymatgen for formation energies, is not installed.

        Warns
        -----
        UserWarning
            The jobs of a hull differ in their recipes or parameters.
        """
        from crystalmath.client.table_files import chosen_lines, frame

        jobs = self.list(sort=sort, **filters)
        return frame(chosen_lines(self._caller, jobs, columns, references, limit), columns)

    def export(
        self,
        path: str | os.PathLike[str],
        *,
        columns: Sequence[str] | None = None,
        references: Mapping[str, str] | None = None,
        job_ids: Named | None = None,
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
        columns, references
            See :meth:`table`.
        job_ids : str, Job, JobFuture, or several, optional
            The jobs; default: all.
        sort, limit, **filters
            See :meth:`list`.

        Returns
        -------
        tuple of int
            How many jobs were written, and how many were left out of ``.extxyz`` and ``.db``
            because they have no geometry.

        Raises
        ------
        InvalidJob
            The file is there already, or its name ends in no format; see also :meth:`table`.
        CrystalMathError
            pyarrow for Parquet, or pymatgen for formation energies, is not installed.
        """
        from crystalmath.client.table_files import chosen_lines, write_table

        jobs: Iterable[Job] = self.list(sort=sort, **filters)
        if job_ids is not None:
            named = chosen(self.ask, job_ids, filters) or []
            jobs = self._records(named)
            if sort is not None:
                # A step of a flow, or an earlier try, that is named is meant.
                fitting: Filters = {**filters, "steps": True, "all_tries": True}
                every, wanted = self.list(sort=sort, **fitting), set(named)
                jobs = (job for job in every if job.job_id in wanted)
        of_jobs = chosen_lines(self._caller, jobs, columns, references, limit)
        return write_table(Path(path), of_jobs, columns)

    def sweep(
        self,
        job_ids: Named,
        x: str,
        y: str = "energy_per_atom",
        by: str | None = None,
    ) -> Sweep:
        """Return a value of completed jobs against a label or a parameter of theirs.

        Parameters
        ----------
        job_ids : str, Job, JobFuture, or several
            The jobs; `UnknownJob` if there is no such one.
        x : str
            A label, else a parameter: ``encut``, ``opt_params.fmax``.
        y : str
            ``energy`` (eV), ``energy_per_atom`` (eV), ``max_force`` (eV/Å), or a number in the
            result by its path: ``results.free_energy``.
        by : str, optional
            Another label or parameter, which tells several series apart. Where jobs of several
            formulas have the same `x`, each (reduced) formula has a series of its own, too.

        Raises
        ------
        InvalidJob
            No job has such a label or parameter, or none has a value.
        """
        from crystalmath.client.sweeping import make_sweep

        return make_sweep(self._caller, self._records(job_ids), x, y, by)

    def equation_of_state(self, job_ids: Named) -> EquationOfState:
        """Fit the energies of completed jobs of one cell against its volume (Birch-Murnaghan).

        Parameters
        ----------
        job_ids : str, Job, JobFuture, or several
            The jobs, at five volumes or more; `UnknownJob` if there is no such one.

        Raises
        ------
        InvalidJob
            They are of different cells, too few, or have no minimum.
        """
        from crystalmath.client.sweeping import make_equation_of_state

        return make_equation_of_state(self._caller, self._records(job_ids))

    def equations_of_state(self, job_ids: Named, by: str) -> EquationsOfState:
        """Fit an equation of state for each of several materials.

        Parameters
        ----------
        job_ids : str, Job, JobFuture, or several
            The jobs; `UnknownJob` if there is no such one.
        by : str
            The label or parameter that tells the materials apart; ``formula`` is that of the job
            where neither has this name.

        Raises
        ------
        InvalidJob
            No job has such a label or parameter, or no equation of state can be fitted. Where
            some can, the jobs of the others are in ``left_out``.
        """
        from crystalmath.client.sweeping import make_equations_of_state

        return make_equations_of_state(self._caller, self._records(job_ids), by)

    def _records(self, job_ids: Named) -> list[Job]:
        return [*map(Job.read, records(self.ask, ids_of(job_ids)))]

    # --- one job -----------------------------------------------------------------------------

    def specification(self, job_id: str) -> Specification:
        """Return what a job was asked to do, as JSON; its environment is left out.

        Returns
        -------
        dict
            As ``jobs.specification`` answers (docs/methods.md).
        """
        return self.ask(server.JOBS_SPECIFICATION, job_id=job_id)

    def script(self, job_id: str) -> str:
        """Write a job as a Python script that runs the same calculation with quacc alone.

        Raises
        ------
        InvalidJob
            A parameter cannot be written as Python.
        """
        return self.ask(server.JOBS_SCRIPT, job_id=job_id)["script"]

    def inputs(self, job_id: str) -> Inputs:
        """Return the inputs of a job's programs for each calculation, before and after it ran.

        Once the job has written input files, they are read (``source`` is ``files``). Before, and
        of calculators that write none, its recipe is asked, which may take seconds.

        Parameters
        ----------
        job_id : str
            The job; `UnknownJob` if there is no such one.
        """
        return Inputs.read(self.ask(server.JOBS_INPUTS, job_id=job_id)["inputs"])

    def export_inputs(self, job_id: str, directory: str | os.PathLike[str]) -> list[Path]:
        """Write a folder from which a job's calculation runs without us.

        ``run.py`` runs it with quacc. Of VASP and Quantum ESPRESSO there are the input files, too,
        and ``run.sh`` starts the program, of several steps each in ``step-1`` and so on. A POTCAR
        is put together there from where it is kept.

        Parameters
        ----------
        job_id : str
            The job.
        directory : str or path
            The folder; it may be there already.

        Returns
        -------
        list of pathlib.Path
            What was written.

        Raises
        ------
        CrystalMathError
            One of the files is there already; nothing was written.
        """
        from crystalmath.models.inputs import input_files, write_texts

        told = self.ask(server.JOBS_SCRIPT, job_id=job_id, shell=True)  # noqa: S604 - no call of one
        texts = input_files(self.inputs(job_id), os.fspath(directory))
        texts[Path(directory, "run.py")] = told["script"]
        if told["shell"] is not None:
            texts[Path(directory, "run.sh")] = told["shell"]
        return write_texts(texts, "--inputs")

    def logs(
        self,
        job_id: str,
        file: str | None = None,
        *,
        tail: int | None = None,
        offset: int | None = None,
        max_bytes: int | None = None,
        timeout_s: float | None = None,
    ) -> LogPart:
        """Read what a job has written.

        Parameters
        ----------
        job_id : str
            The job.
        file : str, optional
            A file below its work directory; default: its log.
        tail : int, optional
            Only so many last lines.
        offset : int, optional
            From this byte on: the ``offset`` of the answer before.
        max_bytes : int, optional
            So much at most.
        timeout_s : float, optional
            How long to wait for more to be written, in seconds.

        Returns
        -------
        dict
            ``{"job_id", "file", "others", "text", "offset", "size", "finished"}``; of several
            files of a name `file` is the newest, and `others` names the rest.
        """
        asked: dict[str, Any] = {"tail": tail, "offset": offset, "max_bytes": max_bytes}
        asked |= {"job_id": job_id, "file": file, "timeout_s": timeout_s}
        return self.ask(server.JOBS_LOGS, **asked)

    def files(self, job_id: str, *, attempt: int | None = None) -> JobFiles:
        """List the files of a job, with their sizes in bytes and times in s since the epoch.

        Parameters
        ----------
        job_id : str
            The job.
        attempt : int, optional
            Of this attempt; default: the present one.

        Returns
        -------
        dict
            ``{"job_id", "attempt", "work_dir", "files", "more"}``; each file is ``{"file",
            "size", "modified_at", "is_link"}``, and :meth:`logs` reads it by its ``file``.
        """
        return self.ask(server.JOBS_FILES, job_id=job_id, attempt=attempt)

    def progress(self, job_ids: Named, *, history: bool = False) -> dict[str, Progress | None]:
        """Return how far the calculations of jobs have come, from what their programs write.

        Parameters
        ----------
        job_ids : str, Job, JobFuture, or several
            The jobs; `UnknownJob` if there is no such one.
        history : bool
            Tell the ionic steps of all of their calculations too, as ``history`` of each.

        Returns
        -------
        dict of str to (Progress or None)
            By job id; ``None`` where nothing is written yet that a reader knows.
        """
        told: dict[str, Progress | None] = {}
        for part in parts(ids_of(job_ids), HISTORIES_AT_ONCE if history else READ_AT_ONCE):
            for job in self.ask(server.JOBS_PROGRESS, job_ids=part, history=history)["jobs"]:
                raise_answered(job)
                read = job["progress"]
                told[job["job_id"]] = None if read is None else Progress.read(read)
        return told

    def view(self, job_id: str) -> Any:
        """Return the structure of a job with the frames it has written, for a notebook to show.

        The package ``crystalmath-web`` draws it, as on the page of ``crystalmath ui``. Of long
        trajectories some frames are left out. It shows the job as it is now.

        Parameters
        ----------
        job_id : str
            The job; `UnknownJob` if there is no such one.

        Raises
        ------
        CrystalMathError
            ``crystalmath-web`` is not installed.
        """
        from crystalmath import entry_points_of

        for viewer in entry_points_of("crystalmath.viewers"):
            return viewer.load()(self, job_id)
        raise CrystalMathError(
            "crystalmath-web, which draws structures, is not installed: install it beside "
            "crystalmath (pip install ./packages/web in a clone)"
        )

    # --- changes -----------------------------------------------------------------------------

    def wait(
        self,
        job_ids: Named | None = None,
        timeout: float | None = None,
        **filters: Unpack[Filters],
    ) -> Iterator[Job]:
        """Yield the present state of each job and then each change, until all have ended.

        A job that waits is also yielded once another holds it up (``held_up_by``), or does no more.

        Parameters
        ----------
        job_ids : str, Job, JobFuture, or several, optional
            The jobs; default: those that fit the filters now.
        timeout : float, optional
            Time in seconds after which it ends all the same.
        **filters
            Of these only those that fit the filters of :meth:`list`.

        Raises
        ------
        InvalidJob
            Nothing says which jobs are meant.
        """
        if job_ids is None and not choosing(filters_document(filters)):
            raise InvalidJob("nothing says which jobs to wait for; name them, or give filters")
        named = chosen(self.ask, job_ids, filters)
        if named is None:
            named = [job.job_id for job in self.list(**filters)]
        return changes(self._waiting, named, timeout)

    def changes(
        self,
        *,
        after: int | None = None,
        job: bool = False,
        labels: Mapping[str, str] | None = None,
        state: str | Sequence[str] | None = None,
        engine: str | None = None,
        cluster: str | None = None,
        recipe: str | None = None,
        name: str | None = None,
        timeout: float | None = None,
    ) -> Iterator[JobChange]:
        """Go through what happens to jobs, as it happens, in the order of the event log.

        Parameters
        ----------
        after : int, optional
            Only changes whose ``seq`` is larger: the last one that was seen, say. Default: what
            happens from now on; 0 is all that ever happened.
        job : bool
            Whether each comes with the job, as it is by then.
        labels, engine, cluster, recipe, name
            Only of these jobs; see :meth:`list`.
        state : str or sequence of str, optional
            Only changes to this state, or to one of these.
        timeout : float, optional
            Time in seconds after which it ends; 0: what there is already. Default: it never ends.

        Yields
        ------
        JobChange
            Each once, whatever becomes of connections and servers meanwhile.
        """
        filters = {
            "labels": labels,
            "state": state,
            "engine": engine,
            "cluster": cluster,
            "recipe": recipe,
            "name": name,
        }
        asked = {**filters_document(filters), **({"job": True} if job else {})}
        return change_events(self._waiting, after, timeout, asked)

    def cancel(self, job_id: str, *, with_successors: bool = False) -> bool:
        """Ask for a job to be stopped; ``False`` if it had ended.

        It reads cancelled once none of its processes is alive. With `with_successors` the jobs that
        wait for it are cancelled, too, and those that wait for them.
        """
        successors = with_successors or None
        answer = self.ask(server.JOBS_CANCEL, job_id=job_id, with_successors=successors)
        return answer["cancelled"]

    def cancel_many(
        self,
        job_ids: Named | None = None,
        *,
        with_successors: bool = False,
        **filters: Unpack[Filters],
    ) -> list[CancelledJob]:
        """Ask for jobs to be stopped.

        Parameters
        ----------
        job_ids : str, Job, JobFuture, or several, optional
            The jobs; default: all unfinished ones.
        with_successors : bool
            Also cancel the jobs that wait for these, and those that wait for them.
        **filters
            Of these only those that fit the filters of :meth:`list`.

        Returns
        -------
        list of dict
            Of each job ``{"job_id", "cancelled", "error"}``, and then of each successor; ``error``
            tells why it cannot be stopped, as one that had ended.

        Raises
        ------
        InvalidJob
            Nothing says which jobs are meant. Nothing was stopped.
        UnknownJob
            Filters are given, and no job has one of the ids; likewise.
        """
        named = chosen(self.ask, job_ids, filters)
        too = {"with_successors": True} if with_successors else {}
        if named is None:
            asked = {**filters_document(filters), **too}
            return [*self.ask(server.JOBS_CANCEL_MANY, timeout=LONG_S, **asked)["jobs"]]
        answers: list[CancelledJob] = []
        for part in parts(named):
            told = self.ask(server.JOBS_CANCEL_MANY, timeout=LONG_S, job_ids=part, **too)
            answers += told["jobs"]
        return answers

    # --- storage -----------------------------------------------------------------------------

    def usage(self, **filters: Unpack[Filters]) -> Usage:
        """Measure what the files of jobs take: in all, by state, by recipe and by label.

        Parameters
        ----------
        **filters
            See :meth:`list`.

        Returns
        -------
        dict
            ``{"total", "states", "recipes", "labels"}``, of each ``{"jobs", "files", "size",
            "heavy_size"}``, sizes in bytes; heavy are the files that can be computed again.
        """
        return self.ask(server.JOBS_USAGE, timeout=LONG_S, **filters_document(filters))

    def prune(
        self,
        job_ids: Named | None = None,
        *,
        older_s: float | None = None,
        larger: int | None = None,
        keep_results: bool = False,
        dry_run: bool = False,
        **filters: Unpack[Filters],
    ) -> Pruned:
        """Throw away the run directories of jobs that have ended; their records stay.

        Parameters
        ----------
        job_ids : str, Job, JobFuture, or several, optional
            The jobs; without them something of what follows must say which are meant.
        older_s : float, optional
            Only of jobs that ended longer ago, in seconds.
        larger : int, optional
            Only of jobs of which more would be removed, in bytes.
        keep_results : bool
            Only the heavy files: wave functions, charge densities, copies of POTCARs.
        dry_run : bool
            Remove nothing, and tell of which jobs files would be removed.
        **filters
            Only of jobs that fit the filters of :meth:`list`.

        Returns
        -------
        dict
            ``{"jobs", "left"}``: of each job whose files were removed ``{"job_id", "name",
            "status", "recipe", "finished_at", "size"}``, of each other ``{"job_id", "error",
            "code"}``.

        Raises
        ------
        InvalidJob
            Nothing says which jobs are meant, or unfinished ones are. Nothing was removed.
        UnknownJob
            Filters are given, and no job has one of the ids; likewise.
        """
        asked: dict[str, Any] = {"older_s": older_s, "larger": larger}
        asked |= {"keep_results": keep_results, "dry_run": dry_run}
        named = chosen(self.ask, job_ids, filters)
        which: list[dict[str, Any]] = [filters_document(filters)]
        if named is not None:
            which = [{"job_ids": part} for part in parts(named) or [[]]]
        whole: Pruned = {"jobs": [], "left": [], "cursor": None, "error": None}
        for each in which:
            more = True
            while more:
                asked["cursor"] = whole["cursor"]
                pruned = self.ask(server.JOBS_PRUNE, timeout=LONG_S, **asked, **each)
                whole["jobs"] += pruned["jobs"]
                whole["left"] += pruned["left"]
                whole["cursor"] = pruned["cursor"]
                more = whole["cursor"] is not None
        return whole

    def archive(
        self,
        path: str | os.PathLike[str],
        job_ids: Named | None = None,
        **filters: Unpack[Filters],
    ) -> int:
        """Write jobs that have ended into a file, as :meth:`write_archive`; give their number."""
        return self.write_archive(path, job_ids, **filters)["jobs"]

    def write_archive(
        self,
        path: str | os.PathLike[str],
        job_ids: Named | None = None,
        **filters: Unpack[Filters],
    ) -> ArchivedJobs:
        """Write jobs that have ended into a file that another home takes in.

        Record, results and files are in it, of a flow those of its ended steps, too; POTCARs and
        environments never are.

        Parameters
        ----------
        path : str or path
            The new file, a zip.
        job_ids : str, Job, JobFuture, or several, optional
            The jobs; default: all.
        **filters
            Of these only those that fit the filters of :meth:`list`.

        Returns
        -------
        dict
            ``{"jobs", "files", "left_out"}``: how many are in it, and the files that could not be
            (as pipes, or what must not be read), with why.

        Raises
        ------
        InvalidJob
            The file is there already, or a job has not ended. Nothing was written.
        """
        named = chosen(self.ask, job_ids, filters)
        which = {"filters": filters_document(filters)} if named is None else {"job_ids": named}
        file = str(Path(path).absolute())
        return self.ask(server.JOBS_ARCHIVE, timeout=LONG_S, file=file, **which)

    def import_archive(self, path: str | os.PathLike[str]) -> ImportedJobs:
        """Take in the jobs of an archive that :meth:`archive` of another home has written.

        Returns
        -------
        dict
            ``{"job_ids", "known", "without_key"}``: those in ``known`` were here already, and stay
            as they are; those in ``without_key`` came without their keys, which others have here.

        Raises
        ------
        InvalidJob
            Something in it is not as it should be. Nothing was taken in.
        """
        file = str(Path(path).absolute())
        return self.ask(server.JOBS_IMPORT, timeout=LONG_S, file=file)

    # --- clusters and the server -------------------------------------------------------------

    def clusters(self) -> list[ClusterEntry]:
        """List the clusters of the configuration file, and why one cannot be used."""
        return [*self.ask(server.CLUSTERS_LIST)["clusters"]]

    def check_cluster(
        self, name: str, job_id: str | None = None, *, timeout: float | None = None
    ) -> ClusterChecked:
        """Send a small job to a cluster, wait for it, and tell what it found there.

        Parameters
        ----------
        name : str
            The cluster; every engine has one named ``local``.
        job_id : str, optional
            The job that was sent there before, in place of another one.
        timeout : float, optional
            How long to wait for the job at most, in seconds.

        Returns
        -------
        dict
            ``{"job_id", "status", "checks", "error"}``; `checks`, each with ``name``, ``state``,
            ``message`` and ``remedy``, has what was found there once the job has ended.
        """
        _, environment = self._writer.configured()
        if job_id is None:
            answer = self._checked_cluster(name, environment=environment)
            if answer["job_id"] is None:
                return answer
            job_id = answer["job_id"]
        for _ in self.wait([job_id], timeout=timeout):
            pass
        return self._checked_cluster(name, job_id=job_id)

    def _checked_cluster(self, name: str, **more: object) -> ClusterChecked:
        answer = self.call(server.CLUSTERS_CHECK, {"cluster": name, **more})
        if not answer["checks"] and answer["status"] == "error":
            raise_answered(answer)
        return {
            "job_id": answer.get("job_id"),
            "status": answer["status"],
            "checks": [Check(**check) for check in answer["checks"]],
            "error": answer["error"],
        }

    def presets(self, name: str | None = None) -> list[Preset]:
        """List quacc's presets with what each sets, or those of one name (`InvalidJob` if none)."""
        _, environment = self._writer.configured()
        answer = self.ask(server.PRESETS_LIST, name=name, environment=environment)
        return [Preset.read(each) for each in answer["presets"]]

    def status(self) -> ServerStatus:
        """Return what answers is doing: jobs, engines, workers, backlog, disk, newest failures.

        Returns
        -------
        dict
            ``{"jobs", "connections", "quiet_s", "engines", "workers", "backlog", "disk",
            "failures"}``; `workers` and `backlog` (how many jobs wait to begin) by engine, `disk`
            in bytes.
        """
        return self.ask(server.SYSTEM_STATUS)

    # --- the last, as it hides the builtin in what follows ------------------------------------

    def list(
        self,
        *,
        sort: str | None = None,
        limit: int | None = None,
        **filters: Unpack[Filters],
    ) -> Iterator[Job]:
        """Go through jobs, newest first, fetching them page by page.

        Parameters
        ----------
        sort : str, optional
            In another order: ``energy_ev``, with a minus from the largest
            (:data:`~crystalmath.models.columns.SORTED_BY`). Jobs without a value come last.
        limit : int, optional
            So many at most.
        **filters
            The fields of :class:`~crystalmath.models.JobFilter`; all must agree. Times are seconds
            since the epoch or a ``datetime``, energies are in eV.
        """
        given = {"sort": sort, **filters_document(filters)}
        yield from map(Job.read, pages(self.ask, limit, given))


def _asked(
    recipe: RecipeLike,
    atoms: Structure | None,
    parameters: Mapping[str, Any] | None,
    options: SubmissionOptions,
) -> Submission:
    known = {one.name for one in fields(Submission)}
    if unknown := [name for name in options if name not in known]:
        hint = did_you_mean(
            unknown[0],
            known,
            "if it is the recipe's, it stands in the third argument: (recipe, atoms, "
            f"{{{unknown[0]!r}: ...}})",
        )
        raise TypeError(f"{unknown[0]!r} is no option of a submission; {hint}")
    return Submission(recipe=recipe, atoms=atoms, parameters=parameters or {}, **options)


def _several(structures: Iterable[Structure]) -> Iterable[Structure]:
    """Refuse one structure where several are due; its atoms would be taken for them."""
    if isinstance(structures, str | Mapping) or hasattr(structures, "get_positions"):
        raise InvalidJob("the structures must be a list, with a job for each; submit() takes one")
    return structures


def _accepted(answers: Iterable[JobFuture | CrystalMathError]) -> list[JobFuture]:
    return [one for one in answers if not isinstance(one, CrystalMathError)]
