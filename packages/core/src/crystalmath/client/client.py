"""Submit, follow and cancel jobs from Python.

:class:`Client` documents the methods. The work is in modules of this package: ``submitting``,
``job_reading``, ``storage`` and ``clusters``, which get the client's caller.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, TypeVar, Unpack, overload

from crystalmath import server
from crystalmath.client import clusters, job_reading, storage
from crystalmath.client.client_errors import warn_of
from crystalmath.client.follower import Follower, change_events, changes
from crystalmath.client.request import RecipeLike, Writer
from crystalmath.client.results import Results
from crystalmath.client.submitting import Submitter, cancel_jobs, refuse_options, submission_of
from crystalmath.client.tracker import Tracker
from crystalmath.client.transport import LONG_S, Caller, chosen, filters_document, find
from crystalmath.models import Inputs, Job, JobCheck, Preset, Progress, Submission
from crystalmath.models.notebook import Findings, Jobs

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from typing import Never

    from ase import Atoms

    from crystalmath.client.chaining import StepLike
    from crystalmath.client.future import JobFuture
    from crystalmath.client.sweeping import EquationOfState, EquationsOfState, Sweep
    from crystalmath.client.transport import JobsLike, Transport
    from crystalmath.errors import CrystalMathError
    from crystalmath.models import Filters, HasJobId, JobChange, MapOptions, SubmissionOptions
    from crystalmath.models.resources import Resources, ResourcesGiven
    from crystalmath.models.retry import RetryOptions
    from crystalmath.remotes.downloads import Downloaded
    from crystalmath.wire.answers import (
        ArchivedJobs,
        CancelledJob,
        ClusterChecked,
        ClusterEntry,
        ImportedJobs,
        JobFiles,
        LogPart,
        PackedJobs,
        Pruned,
        ServerStatus,
        Specification,
        Usage,
    )

_Answer = TypeVar("_Answer")
#: A structure (Å) in any form that ``jobs.submit`` takes; a job stands for its final geometry.
Structure: TypeAlias = "Atoms | str | Mapping[str, Any] | HasJobId"


class Client:
    """Submit, follow and cancel the jobs of a home. Threads may share a client.

    :func:`~crystalmath.client.connect` and :func:`~crystalmath.client.in_process` make one. It is
    synchronous and has threads of its own, so it also works beside a running event loop, as in a
    notebook.

    Parameters
    ----------
    transport : Transport
        Carries requests to the server, or to the job service of this process.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._waiting = transport.for_waiting()
        self._caller = Caller(transport)
        #: Whether the first recipe has yet to be imported, in this process or a new server.
        self.is_cold = transport.is_cold
        self._follower = Follower(self._waiting)
        self._results = Results(self._caller)
        self._tracker = Tracker(self, self._follower, self._results)
        self._writer = Writer(transport.remote)
        self._submitter = Submitter(self._caller, self._writer, self._tracker)

    def __repr__(self) -> str:
        return f"<Client: {self._transport}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections and stop following jobs.

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
        """Call a method of the server (docs/protocol.md) and return its result unchanged.

        Raises
        ------
        ServerNotRunning
            No server runs, and this client starts none.
        ConnectionLost
            The server went away, or has not answered in time.
        """
        return self._caller.call(method, params, timeout)

    def call_json(self, method: str, params: Mapping[str, Any] | None = None) -> bytes:
        """Call a method as :meth:`call` does, and return the result as JSON text."""
        return self._transport.call_raw(method, params or {})

    def ask(
        self, method: server.Method[_Answer], *, timeout: float | None = None, **params: Any
    ) -> _Answer:
        """Call a method without the parameters that are ``None``, and raise an answer's error."""
        return self._caller.ask(method, timeout=timeout, **params)

    # --- submitting --------------------------------------------------------------------------

    def submit(
        self,
        recipe: RecipeLike,
        atoms: Structure | None = None,
        parameters: Mapping[str, Any] | None = None,
        *,
        cluster: str | None = "local",
        walltime_s: float | None = None,
        resources: Resources | ResourcesGiven | None = None,
        priority: int = 0,
        continue_lost: bool | None = None,
        parcel: int | None = None,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        key: str | None = None,
        in_one_job: bool = False,
        serial: bool = False,
        walltime_total_s: float | None = None,
        by_step: Mapping[str, Mapping[str, Any]] | None = None,
        engine: str | None = None,
        strict: bool = False,
        lax: bool = False,
        after: Sequence[str | Mapping[str, Any] | HasJobId] = (),
        on_failure: str = "wait",
        inherit_labels: bool = False,
        environment: Mapping[str, str] | None = None,
        **unknown: Never,
    ) -> JobFuture:
        """Submit a job; it is on record when this method returns.

        Every argument is the field of :class:`~crystalmath.models.Submission` with its name, where
        it is described with its unit and limits.

        Raises
        ------
        InvalidJob
            The job was refused (`JobRefused` with the findings of the preflight). Nothing of it
            is left behind.
        UnknownEngine
            The engine is not installed.
        TypeError
            A keyword is no field of a submission. The recipe's parameters belong into `parameters`.
        """
        refuse_options(unknown)
        return self._submitter.submit(
            Submission(
                recipe=recipe,
                atoms=atoms,
                parameters=parameters or {},
                cluster=cluster,
                walltime_s=walltime_s,
                resources=resources,
                priority=priority,
                continue_lost=continue_lost,
                parcel=parcel,
                name=name,
                labels=labels,
                key=key,
                in_one_job=in_one_job,
                serial=serial,
                walltime_total_s=walltime_total_s,
                by_step=by_step,
                engine=engine,
                strict=strict,
                lax=lax,
                after=after,
                on_failure=on_failure,
                inherit_labels=inherit_labels,
                environment=environment,
            )
        )

    def submit_many(self, submissions: Sequence[Submission]) -> Jobs[JobFuture | CrystalMathError]:
        """Submit jobs with one call; each is accepted or refused on its own.

        Returns
        -------
        list of (JobFuture or CrystalMathError)
            One for each submission, in their order. An error stands in the place of a refused job.
            If the server goes away after it has accepted some jobs, the rest have that error.
        """
        return self._submitter.submit_many(submissions)

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
            Common to all jobs; the keywords of :meth:`submit`.
        structures : iterable of ase.Atoms
            One job for each.
        key : str, optional
            The jobs get the keys ``key/FINGERPRINT``, made of their structures as ``crystalmath
            submit --key`` makes them. The same call again returns the same jobs, whatever the
            order of the structures, and submits the missing ones.
        progress : bool, optional
            Whether to show a bar; default: on a terminal and in a notebook.
        return_exceptions : bool
            Return the error of a job that was refused, failed or was cancelled in its place.

        Returns
        -------
        list
            The recipe's result for each structure, in their order.

        Raises
        ------
        InvalidJob
            A job was refused. It is raised at once; accepted jobs go on.
        JobFailed, concurrent.futures.CancelledError
            A job has no result. The first such error is raised once all jobs have ended.
        """
        from crystalmath.client.future import gather

        jobs = self._submitter.submit_each(recipe, structures, parameters, key, options)
        return gather(jobs, progress=progress, return_exceptions=return_exceptions)

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
            The steps by name, in their order. In the parameters
            ``Reference("static")["dir_name"]`` stands for the directory of the earlier step
            ``static``, and so on.
        key : str, optional
            The jobs get the keys ``key/FINGERPRINT/relax`` and so on, made of the structures as
            ``crystalmath chain --key`` makes them. The same call again returns the same jobs, and
            submits the missing ones.
        **options
            Common to all jobs; the keywords of :meth:`submit`. Each job also gets the label
            ``step``. If there is a name, the step's name follows it.

        Returns
        -------
        list of dict of str to (JobFuture or CrystalMathError)
            The jobs of each structure by step. One request submits up to 1,000 jobs. If one job of
            a request is refused, none of them is submitted, and each has its error in its place.

        Raises
        ------
        InvalidJob
            A step refers to a later one, or there are no steps.
        """
        return self._submitter.submit_chains(structures, steps, key, options)

    def recording(
        self, *, label: Mapping[str, str] | None = None, **options: Unpack[MapOptions]
    ) -> AbstractContextManager[None]:
        """Turn each call of a quacc job or flow inside the block into a submission.

        A call returns the job's future, whose parts can be passed on (``relaxed["atoms"]``). A
        script written for quacc alone therefore goes on without waiting. A flow that the script
        itself defines runs in it, and the calls in the flow are submitted.

        Parameters
        ----------
        label : mapping of str to str, optional
            The same as ``labels``.
        **options
            Common to all jobs; the keywords of :meth:`submit`.

        Raises
        ------
        CrystalMathError
            quacc is set to run its jobs by an engine of its own.
        InvalidJob
            Raised by a call: the job was refused, or no worker can import its function.
        """
        if labels := {**(options.get("labels") or {}), **(label or {})}:
            options["labels"] = labels
        return self._submitter.recording(options)

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
        """Return everything that is wrong with a job, without submitting it.

        Parameters
        ----------
        recipe, atoms, parameters, **options
            The arguments of :meth:`submit`.
        inputs : bool
            Also return the inputs that its programs would get, step by step.

        Returns
        -------
        list of Finding, or JobCheck
            The latter with `inputs`.
        """
        submission = submission_of(recipe, atoms, parameters, options)
        checked = self._submitter.check(submission, inputs=inputs)
        return checked if inputs else Findings(checked.findings)

    # --- running again -----------------------------------------------------------------------

    @overload
    def retry(
        self,
        jobs: JobsLike | None = None,
        parameters: Mapping[str, Any] | None = None,
        *,
        filters: Filters | None = None,
        dry_run: Literal[False] = False,
        **changes: Unpack[RetryOptions],
    ) -> Jobs[JobFuture | CrystalMathError]: ...

    @overload
    def retry(
        self,
        jobs: JobsLike | None = None,
        parameters: Mapping[str, Any] | None = None,
        *,
        filters: Filters | None = None,
        dry_run: Literal[True],
        **changes: Unpack[RetryOptions],
    ) -> list[CrystalMathError | None]: ...

    def retry(
        self,
        jobs: JobsLike | None = None,
        parameters: Mapping[str, Any] | None = None,
        *,
        filters: Filters | None = None,
        dry_run: bool = False,
        **changes: Unpack[RetryOptions],
    ) -> Jobs[JobFuture | CrystalMathError] | list[CrystalMathError | None]:
        """Run ended jobs again, each as a new job that points to the old one.

        Parameters
        ----------
        jobs : str, Job, JobFuture, or several
            The jobs, or their ids.
        parameters, **changes
            The changes, as fields of :class:`~crystalmath.models.retry.Retry`. All else, the
            environment included, is as it was submitted.
        filters : mapping, optional
            The filters of :meth:`list`. Without `jobs` they select failed and cancelled jobs that
            were not run again yet; ``state`` selects others.
        dry_run : bool
            Return the outcome without submitting anything.

        Returns
        -------
        list of (JobFuture or CrystalMathError)
            The new job for each old one; an error stands in the place of a refused one. In a dry
            run ``None`` stands for each new job.
        """
        ids = chosen(self.ask, jobs, filters or {})
        which = None if ids is not None else filters
        retried = {"parameters": parameters or {}, **changes}
        if dry_run:
            return self._submitter.would_retry(ids, which, retried)
        return self._submitter.retry(ids, which, retried)

    def reread(
        self,
        job_id: str,
        *,
        settings: Mapping[str, str] | None = None,
        engine: str | None = None,
        cluster: str | None = None,
    ) -> JobFuture:
        """Read the calculations of a failed job again, as a new job that points to it.

        This is for a job whose program finished, and whose output could not be read or was
        refused. Nothing is computed.

        Parameters
        ----------
        job_id : str
            The job.
        settings : mapping of str to str, optional
            Settings of quacc to change this time (``{"CHECK_CONVERGENCE": "False"}``).
        engine, cluster : str, optional
            Where they are read; default: where the job ran.

        Raises
        ------
        InvalidJob
            The job has not failed, or its last calculation has not finished.
        """
        reread: dict[str, Any] = {"settings": settings or None, "engine": engine}
        answer = self.ask(server.JOBS_REREAD, job_id=job_id, cluster=cluster, **reread)
        warn_of([answer])
        return self.future(str(answer["job_id"]))

    # --- futures and results -----------------------------------------------------------------

    def future(self, job_id: str) -> JobFuture:
        """Return the future of any job, whoever submitted it (`UnknownJob` if there is none)."""
        return self._tracker.futures_of([self.job(job_id)])[0]

    def jobs(
        self,
        *,
        label: Mapping[str, str] | None = None,
        sort: str | None = None,
        **filters: Unpack[Filters],
    ) -> Jobs[JobFuture]:
        """Return futures of jobs, newest first, including jobs of an earlier kernel.

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
        return self._tracker.futures_of(self.list(sort=sort, **filters))

    def result(self, job_id: str, *, field: str | None = None, original: bool = False) -> Any:
        """Return the result of a job's recipe, as :meth:`JobFuture.result` does, without waiting.

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
            The job has not ended.
        InvalidJob
            The result has no such field.
        """
        future = self.future(job_id)
        if field is None or (future.done() and future.exception(timeout=0) is not None):
            return future.result(timeout=0, original=original)
        text = self.result_json(job_id, field)
        if text is None:
            return future.result(timeout=0, original=original)  # raises: the job has not ended
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
            Return only the part of a large result that tables show: the scalars, final geometry
            and forces of its last calculation.
        """
        return self._caller.result_text(job_id, field, brief=brief)

    # --- lists -------------------------------------------------------------------------------

    def job(self, job_id: str) -> Job:
        """Return the record of a job (`UnknownJob` if there is none)."""
        return Job.read(self.ask(server.JOBS_STATUS, job_id=job_id))

    def totals(self, **filters: Unpack[Filters]) -> dict[str, int]:
        """Count jobs by state; states without jobs are left out.

        Parameters
        ----------
        **filters
            See :meth:`list`.
        """
        answer = self.ask(server.JOBS_LIST, limit=0, totals=True, **filters_document(filters))
        return dict(answer["totals"] or {})

    def find(self, prefix: str) -> str:
        """Return the one job id that begins with a prefix; a full id is returned unchecked.

        Raises
        ------
        UnknownJob
            No id begins so.
        InvalidJob
            Several ids begin so, or `prefix` is empty: a script whose variable is not set names
            no job.
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
        ``params.NAME``, and results have the recipe's own names (``results.gibbs_energy``). The
        row of a flow shows its last result, as its summary does.

        Parameters
        ----------
        columns : sequence of str, optional
            The columns; default: those of the record, and all others that any of the jobs has.
            ``formation_energy`` and ``e_above_hull`` (eV/atom) are there only if they are named.
        references : mapping of str to str, optional
            Labels of the jobs to which formation energies refer. Only those of pure elements
            count. Default: the pure elements among the jobs of the table.
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
        job_ids: JobsLike | None = None,
        sort: str | None = None,
        limit: int | None = None,
        **filters: Unpack[Filters],
    ) -> tuple[int, int]:
        """Write jobs as a table to a file.

        Parameters
        ----------
        path : str or path
            A new file; its suffix names the format: ``.csv``, ``.jsonl``, ``.extxyz``, ``.db``,
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
            The file exists, or its suffix names no format; see also :meth:`table`.
        CrystalMathError
            pyarrow for Parquet, or pymatgen for formation energies, is not installed.
        """
        from crystalmath.client.table_files import chosen_lines, write_table

        jobs = job_reading.selected_jobs(self.ask, job_ids, filters, sort)
        lines = chosen_lines(self._caller, jobs, columns, references, limit)
        return write_table(Path(path), lines, columns)

    def sweep(
        self,
        job_ids: JobsLike,
        x: str,
        y: str = "energy_per_atom",
        by: str | None = None,
    ) -> Sweep:
        """Return a value of completed jobs against one of their labels or parameters.

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
            Another label or parameter, by which points are divided into series. If jobs of
            several formulas have the same `x`, each (reduced) formula has a series of its own.

        Raises
        ------
        InvalidJob
            No job has such a label or parameter, or none has a value.
        """
        from crystalmath.client.sweeping import make_sweep

        return make_sweep(self._caller, job_reading.named_jobs(self.ask, job_ids), x, y, by)

    def equation_of_state(self, job_ids: JobsLike) -> EquationOfState:
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

        return make_equation_of_state(self._caller, job_reading.named_jobs(self.ask, job_ids))

    def equations_of_state(self, job_ids: JobsLike, by: str) -> EquationsOfState:
        """Fit an equation of state for each of several materials.

        Parameters
        ----------
        job_ids : str, Job, JobFuture, or several
            The jobs; `UnknownJob` if there is no such one.
        by : str
            The label or parameter that tells the materials apart. ``formula`` is the formula of
            each job, unless a label or parameter has this name.

        Raises
        ------
        InvalidJob
            No job has such a label or parameter, or no equation of state can be fitted. If some
            can, ``left_out`` has the jobs of the others.
        """
        from crystalmath.client.sweeping import make_equations_of_state

        return make_equations_of_state(self._caller, job_reading.named_jobs(self.ask, job_ids), by)

    # --- one job -----------------------------------------------------------------------------

    def specification(self, job_id: str) -> Specification:
        """Return the specification of a job as JSON, without its environment.

        Returns
        -------
        dict
            The answer of ``jobs.specification`` (the page Methods).
        """
        return self.ask(server.JOBS_SPECIFICATION, job_id=job_id)

    def script(self, job_id: str) -> str:
        """Return a Python script that runs the same calculation as a job with quacc alone.

        Raises
        ------
        InvalidJob
            A parameter cannot be written as Python.
        """
        return self.ask(server.JOBS_SCRIPT, job_id=job_id)["script"]

    def inputs(self, job_id: str) -> Inputs:
        """Return the inputs of a job's programs for each calculation, before and after it ran.

        Input files that the job has written are read (``source`` is ``files``). Before that, and
        for calculators that write none, the recipe is asked, which may take seconds.

        Parameters
        ----------
        job_id : str
            The job; `UnknownJob` if there is no such one.
        """
        return Inputs.read(self.ask(server.JOBS_INPUTS, job_id=job_id)["inputs"])

    def export_inputs(self, job_id: str, directory: str | os.PathLike[str]) -> list[Path]:
        """Write a folder from which a job's calculation runs without us.

        ``run.py`` runs it with quacc. For VASP and Quantum ESPRESSO the folder also has the input
        files and ``run.sh``, which starts the program. Several steps have ``step-1`` and so on.
        A POTCAR is put together when ``run.sh`` runs, from the files of the library.

        Parameters
        ----------
        job_id : str
            The job.
        directory : str or path
            The folder, which may exist.
        names : collection of str
            Names of files, their paths, or patterns such as ``*.gz``; default: all files.

        Returns
        -------
        list of pathlib.Path
            The files that were written.

        Raises
        ------
        CrystalMathError
            One of the files exists; nothing was written.
        """
        return job_reading.write_inputs(self.ask, job_id, directory)

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
        """Read a job's log, or another file that it has written.

        Parameters
        ----------
        job_id : str
            The job.
        file : str, optional
            A file below its work directory; default: its log.
        tail : int, optional
            Return only this number of last lines.
        offset : int, optional
            Read from this byte on: the ``offset`` of the previous answer.
        max_bytes : int, optional
            Return at most this many bytes.
        timeout_s : float, optional
            How long to wait for more to be written, in seconds.

        Returns
        -------
        dict
            ``{"job_id", "file", "others", "text", "offset", "size", "finished"}``. If several
            files have the name, `file` is the newest, and `others` lists the rest.
        """
        part: dict[str, Any] = {"tail": tail, "offset": offset, "max_bytes": max_bytes}
        return self.ask(server.JOBS_LOGS, job_id=job_id, file=file, timeout_s=timeout_s, **part)

    def files(self, job_id: str, *, attempt: int | None = None) -> JobFiles:
        """List the files of a job, with their sizes in bytes and times in s since the epoch.

        Parameters
        ----------
        job_id : str
            The job.
        attempt : int, optional
            The attempt; default: the present one.

        Returns
        -------
        dict
            ``{"job_id", "attempt", "work_dir", "files", "more"}``; each file is ``{"file",
            "size", "modified_at", "is_link"}``, and :meth:`logs` reads it by its ``file``.
        """
        return self.ask(server.JOBS_FILES, job_id=job_id, attempt=attempt)

    def download(
        self, job_id: str, directory: str | os.PathLike[str], names: Collection[str] = ()
    ) -> list[Downloaded]:
        """Write the files of a job's work directory into a folder, also from another machine.

        A later call goes on where one was interrupted, and fetches no file twice. Links are left
        out.

        Parameters
        ----------
        job_id : str
            The job.
        directory : str or path
            The folder, which may exist.

        Returns
        -------
        list of Downloaded
            The ``file`` below the folder, ``size`` in bytes and ``sha256`` of each file.

        Raises
        ------
        BadFile
            A file is there already and differs, or one has changed meanwhile.
        """
        from crystalmath.remotes.downloads import download

        return download(self.ask, job_id, Path(directory), names)

    def progress(self, job_ids: JobsLike, *, history: bool = False) -> dict[str, Progress | None]:
        """Return the progress of jobs' calculations, read from the output of their programs.

        Parameters
        ----------
        job_ids : str, Job, JobFuture, or several
            The jobs; `UnknownJob` if there is no such one.
        history : bool
            Include the ionic steps of all their calculations, as ``history``.

        Returns
        -------
        dict of str to (Progress or None)
            By job id; ``None`` as long as there is no output that a reader knows.
        """
        return job_reading.read_progress(self.ask, job_ids, history=history)

    def view(self, job_id: str) -> Any:
        """Return the structure of a job with the frames it has written, for a notebook to show.

        The package ``crystalmath-web`` draws it, as on the page of ``crystalmath ui``. Long
        trajectories are shown with fewer frames. The view does not change while the job goes on.

        Parameters
        ----------
        job_id : str
            The job; `UnknownJob` if there is no such one.

        Raises
        ------
        CrystalMathError
            ``crystalmath-web`` is not installed.
        """
        return job_reading.show_structure(self, job_id)

    # --- changes -----------------------------------------------------------------------------

    def wait(
        self,
        job_ids: JobsLike | None = None,
        timeout: float | None = None,
        **filters: Unpack[Filters],
    ) -> Iterator[Job]:
        """Yield the present state of each job and then each change, until all have ended.

        A waiting job is also yielded when another job begins or ceases to hold it up
        (``held_up_by``).

        Parameters
        ----------
        job_ids : str, Job, JobFuture, or several, optional
            The jobs; default: those that fit the filters now.
        timeout : float, optional
            Time in seconds after which the iteration ends, though jobs may go on.
        **filters
            Only jobs that fit these filters; see :meth:`list`.

        Raises
        ------
        InvalidJob
            There are neither ids nor filters.
        """
        ids = job_reading.ids_to_wait_for(self.ask, job_ids, filters)
        return changes(self._waiting, ids, timeout)

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
        """Yield changes of jobs as they happen, in the order of the event log.

        Parameters
        ----------
        after : int, optional
            Only changes with a larger ``seq``, such as that of the last change you saw. Default:
            changes from now on; 0 means all that are on record.
        job : bool
            Whether each change has its job, as it is by then.
        labels, engine, cluster, recipe, name
            Only changes of these jobs; see :meth:`list`.
        state : str or sequence of str, optional
            Only changes to this state, or to one of these.
        timeout : float, optional
            Time in seconds after which the iteration ends; 0 yields only past changes. Default:
            it never ends.

        Yields
        ------
        JobChange
            Each change once, even if connections and servers are replaced meanwhile.
        """
        filters: dict[str, Any] = {"labels": labels, "state": state, "engine": engine}
        filters |= {"cluster": cluster, "recipe": recipe, "name": name, "job": job or None}
        return change_events(self._waiting, after, timeout, filters_document(filters))

    def cancel(self, job_id: str, *, with_successors: bool = False) -> bool:
        """Request that a job be cancelled; return ``False`` if it had ended.

        The job is cancelled once none of its processes is alive. With `with_successors` the jobs
        that wait for it are cancelled, too, and those that wait for them.
        """
        successors = with_successors or None
        answer = self.ask(server.JOBS_CANCEL, job_id=job_id, with_successors=successors)
        return answer["cancelled"]

    def cancel_many(
        self,
        job_ids: JobsLike | None = None,
        *,
        with_successors: bool = False,
        **filters: Unpack[Filters],
    ) -> list[CancelledJob]:
        """Request that jobs be cancelled.

        Parameters
        ----------
        job_ids : str, Job, JobFuture, or several, optional
            The jobs; default: all unfinished ones.
        with_successors : bool
            Also cancel the jobs that wait for these, and those that wait for them.
        **filters
            Only jobs that fit these filters; see :meth:`list`.

        Returns
        -------
        list of dict
            ``{"job_id", "cancelled", "error"}`` for each job and then for each successor;
            ``error`` says why a job cannot be cancelled, for instance because it had ended.

        Raises
        ------
        InvalidJob
            There are neither ids nor filters. Nothing was cancelled.
        UnknownJob
            There are filters, and one of the ids is unknown. Nothing was cancelled.
        """
        return cancel_jobs(self.ask, job_ids, filters, with_successors=with_successors)

    # --- storage -----------------------------------------------------------------------------

    def usage(self, **filters: Unpack[Filters]) -> Usage:
        """Measure the files of jobs: in all, by state, by recipe and by label.

        Parameters
        ----------
        **filters
            See :meth:`list`.

        Returns
        -------
        dict
            ``{"total", "states", "recipes", "labels"}``, each with ``{"jobs", "files", "size",
            "heavy_size"}``. Sizes are in bytes; heavy files can be computed again.
        """
        return self.ask(server.JOBS_USAGE, timeout=LONG_S, **filters_document(filters))

    def prune(
        self,
        job_ids: JobsLike | None = None,
        *,
        older_s: float | None = None,
        larger: int | None = None,
        keep_results: bool = False,
        dry_run: bool = False,
        **filters: Unpack[Filters],
    ) -> Pruned:
        """Remove the run directories of ended jobs; their records stay.

        Parameters
        ----------
        job_ids : str, Job, JobFuture, or several, optional
            The jobs. Without ids, an age, a size or a filter must select them.
        older_s : float, optional
            Only jobs that ended longer ago, in seconds.
        larger : int, optional
            Only jobs whose removable files are larger, in bytes.
        keep_results : bool
            Only the heavy files: wave functions, charge densities, copies of POTCARs.
        dry_run : bool
            Remove nothing, and return the jobs whose files would be removed.
        **filters
            Only jobs that fit these filters; see :meth:`list`.

        Returns
        -------
        dict
            ``{"jobs", "left"}``. A job whose files were removed is ``{"job_id", "name",
            "status", "recipe", "finished_at", "size"}``, any other ``{"job_id", "error", "code"}``.

        Raises
        ------
        InvalidJob
            Nothing selects the jobs, or one has not ended. Nothing was removed.
        UnknownJob
            There are filters, and one of the ids is unknown. Nothing was removed.
        """
        options: dict[str, Any] = {"older_s": older_s, "larger": larger}
        options |= {"keep_results": keep_results, "dry_run": dry_run}
        return storage.in_pages(self.ask, server.JOBS_PRUNE, job_ids, filters, **options)

    def pack(
        self,
        job_ids: JobsLike | None = None,
        *,
        older_s: float | None = None,
        dry_run: bool = False,
        **filters: Unpack[Filters],
    ) -> PackedJobs:
        """Put the run directories of ended jobs into packs, files of up to 1000 jobs.

        Without ids, an age (in seconds) and filters all jobs that have ended are packed; else the
        arguments select them as in :meth:`prune`. A dry run returns them, and changes nothing.

        Returns
        -------
        dict
            ``{"job_ids", "left"}``: the packed jobs, and those that stay, each with
            ``{"job_id", "error", "code"}``.

        Raises
        ------
        InvalidJob
            The filters choose jobs that have not ended.
        CrystalMathError
            Another process packs jobs, or the disk has no room for a pack. Nothing is lost.
        """
        options = {"older_s": older_s, "dry_run": dry_run}
        return storage.in_pages(self.ask, server.JOBS_PACK, job_ids, filters, **options)

    def unpack(self, job_ids: JobsLike | None = None, **filters: Unpack[Filters]) -> PackedJobs:
        """Bring the run directories of packed jobs back; arguments and answer as :meth:`pack`."""
        return storage.in_pages(self.ask, server.JOBS_UNPACK, job_ids, filters)

    def archive(
        self,
        path: str | os.PathLike[str],
        job_ids: JobsLike | None = None,
        **filters: Unpack[Filters],
    ) -> int:
        """Write ended jobs into a file, as :meth:`write_archive`; return their number."""
        return self.write_archive(path, job_ids, **filters)["jobs"]

    def write_archive(
        self,
        path: str | os.PathLike[str],
        job_ids: JobsLike | None = None,
        **filters: Unpack[Filters],
    ) -> ArchivedJobs:
        """Write ended jobs into a file that another home can import.

        The file has the record, results and files of each job, and those of the ended steps of
        flows. It never has POTCARs or environments.

        Parameters
        ----------
        path : str or path
            The new file, a zip.
        job_ids : str, Job, JobFuture, or several, optional
            The jobs; default: all.
        **filters
            Only jobs that fit these filters; see :meth:`list`.

        Returns
        -------
        dict
            ``{"jobs", "files", "left_out"}``: how many it has, and the files that were left out
            (such as pipes, or unreadable ones), with the reason.

        Raises
        ------
        InvalidJob
            The file exists, or a job has not ended. Nothing was written.
        """
        away = self._transport.remote is not None
        return storage.write_archive(self.ask, path, job_ids, filters, away=away)

    def import_archive(self, path: str | os.PathLike[str]) -> ImportedJobs:
        """Import the jobs of an archive that :meth:`archive` of another home has written.

        Returns
        -------
        dict
            ``{"job_ids", "known", "without_key"}``. Jobs in ``known`` were here already, and stay
            as they are. Jobs in ``without_key`` lost their keys, which other jobs have here.

        Raises
        ------
        InvalidJob
            The archive is damaged or inconsistent. Nothing was imported.
        """
        return storage.import_archive(self.ask, path, away=self._transport.remote is not None)

    # --- clusters and the server -------------------------------------------------------------

    def clusters(self) -> list[ClusterEntry]:
        """List the clusters of the configuration file, and why one cannot be used."""
        return [*self.ask(server.CLUSTERS_LIST)["clusters"]]

    def check_cluster(
        self, name: str, job_id: str | None = None, *, timeout: float | None = None
    ) -> ClusterChecked:
        """Send a small job to a cluster, wait for it, and return its findings.

        Parameters
        ----------
        name : str
            The cluster; every engine has one named ``local``.
        job_id : str, optional
            An earlier check's job, to be used in place of a new one.
        timeout : float, optional
            How long to wait for the job at most, in seconds.

        Returns
        -------
        dict
            ``{"job_id", "status", "checks", "error"}``. Once the job has ended, `checks` has its
            findings, each with ``name``, ``state``, ``message`` and ``remedy``.
        """
        return clusters.check_cluster(
            self._caller,
            name,
            job_id,
            self._writer.configured()[1],
            lambda sent: self.wait([sent], timeout=timeout),
        )

    def presets(self, name: str | None = None) -> list[Preset]:
        """List quacc's presets with their settings, or one by name (`InvalidJob` if none)."""
        return clusters.list_presets(self.ask, name, self._writer.configured()[1])

    def status(self) -> ServerStatus:
        """Return the server's state: jobs, engines, workers, backlog, disk, newest failures.

        Returns
        -------
        dict
            ``{"jobs", "connections", "quiet_s", "engines", "workers", "backlog", "disk",
            "failures"}``; `workers` and `backlog` (how many jobs wait to begin) by engine, `disk`
            in bytes.
        """
        return self.ask(server.SYSTEM_STATUS)

    # `list` is the last method, because it hides the builtin from the annotations below it.

    def list(
        self,
        *,
        sort: str | None = None,
        limit: int | None = None,
        **filters: Unpack[Filters],
    ) -> Iterator[Job]:
        """Yield jobs, newest first, fetched page by page.

        Parameters
        ----------
        sort : str, optional
            Sort by this column instead: ``energy_ev``, with a minus the largest first
            (:data:`~crystalmath.models.columns.SORTED_BY`). Jobs without a value come last.
        limit : int, optional
            The largest number of jobs.
        **filters
            The fields of :class:`~crystalmath.models.JobFilter`; a job must fit all of them. Times
            are seconds since the epoch or a ``datetime``, energies are in eV.
        """
        return job_reading.list_jobs(self.ask, filters, sort=sort, limit=limit)
