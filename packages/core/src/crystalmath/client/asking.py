"""Ask about jobs, and about what there is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Unpack, cast

from crystalmath import config
from crystalmath.client.client_errors import raise_answered
from crystalmath.client.event_log import changes, news
from crystalmath.client.filters_document import filters_document
from crystalmath.client.result_fetcher import ResultFetcher
from crystalmath.client.transport import split_last
from crystalmath.errors import InvalidJob, UnknownJob
from crystalmath.models import Inputs, Job, JobChange, JobState, Preset, Progress
from crystalmath.models.fields import from_wire
from crystalmath.recipes.changed_settings import changed_settings

if TYPE_CHECKING:
    from crystalmath.client.transport import Transport
    from crystalmath.models import Filters
    from crystalmath.models.answers import (
        CancelledJob,
        ClusterEntry,
        Counted,
        CountedOverTime,
        EngineEntry,
        ImportedJobs,
        JobFiles,
        LogPart,
        Pruned,
        RecipeDescription,
        RecipeEntry,
        ServerStatus,
        ServerVersion,
        Specification,
        Story,
        Usage,
    )

__all__ = ["Asking", "RecipeLike"]

# The class has a method called list, which hides the type inside it.
_Engines: TypeAlias = "list[EngineEntry]"
_Clusters: TypeAlias = "list[ClusterEntry]"
_Recipes: TypeAlias = "list[RecipeEntry]"
_Cancelled: TypeAlias = "list[CancelledJob]"
_Retried: TypeAlias = "list[dict[str, Any]]"
_Presets: TypeAlias = "list[Preset]"
_Paths: TypeAlias = "list[Path]"

#: A recipe's name, or the function as imported.
RecipeLike: TypeAlias = str | Callable[..., Any]

#: Jobs of one page.
PAGE = 500

#: So many jobs at once are asked for their progress.
READ_AT_ONCE = 200

#: So many with the histories of their ionic steps.
HISTORIES_AT_ONCE = 20

#: How long a server may look at, or remove, the files of many jobs, in seconds.
LONG_S = 3600.0

#: So many ids are named where several begin alike.
SHOWN = 5


class Asking:
    """What a client can ask without a future.

    Parameters
    ----------
    transport : Transport
        Whom it asks.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._waiting = transport.for_waiting()
        #: What futures get their results from.
        self.results = ResultFetcher(transport)
        # It belongs to the home that it was made for, whatever becomes of os.environ.
        self._environ = dict(os.environ)

    def _configured(self) -> tuple[config.Config, dict[str, str]]:
        """Give the home's configuration, and what reaches a job of the environment as it is now."""
        configured = config.load(self._environ)
        environ = {**os.environ, **changed_settings()}
        return configured, config.submitters_environment(configured, environ)

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
        return self._transport.call(method, params or {}, timeout)

    def call_raw(
        self, method: str, params: Mapping[str, Any] | None = None, timeout: float | None = None
    ) -> bytes:
        """Call a method and give its result as JSON text."""
        return self._transport.call_raw(method, params or {}, timeout)

    def _answer(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method, and raise what its answer says was wrong."""
        return self._answered(method, params)

    def _answered(
        self, method: str, params: Mapping[str, Any], timeout: float | None = None
    ) -> dict[str, Any]:
        given = {name: value for name, value in params.items() if value is not None}
        answer = self._transport.call(method, given, timeout)
        raise_answered(answer)
        return answer

    # --- jobs --------------------------------------------------------------------------------

    def job(self, job_id: str) -> Job:
        """Tell what is on record of a job (`UnknownJob` if there is none)."""
        return Job.read(self._answer("jobs.status", job_id=job_id))

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
            (:data:`~crystalmath.models.filters.SORTED_BY`). Jobs without a value come last.
        limit : int, optional
            So many at most.
        **filters
            The fields of :class:`~crystalmath.models.JobFilter`; all must agree. Times are seconds
            since the epoch or a ``datetime``, energies are in eV.
        """
        given = filters_document(filters)
        cursor: str | None = None
        left = limit
        while left is None or left > 0:
            size = PAGE if left is None else min(left, PAGE)
            page = self._answer("jobs.list", limit=size, cursor=cursor, sort=sort, **given)
            yield from map(Job.read, page["jobs"])
            cursor = page["cursor"]
            if cursor is None:
                return
            left = None if left is None else left - len(page["jobs"])

    def totals(self, **filters: Unpack[Filters]) -> dict[str, int]:
        """Count jobs by state; states that none is in are left out.

        Parameters
        ----------
        **filters
            See :meth:`list`.
        """
        answer = self._answer("jobs.list", limit=0, totals=True, **filters_document(filters))
        totals: dict[str, int] = answer["totals"]
        return totals

    def summary(self, **filters: Unpack[Filters]) -> Counted:
        """Count jobs by state and by error: ``{"states", "errors"}``.

        Parameters
        ----------
        **filters
            See :meth:`list`.
        """
        return cast("Counted", self._answer("jobs.summary", **filters_document(filters)))

    def counts(
        self,
        *,
        bucket_s: float | None = None,
        start: float | None = None,
        end: float | None = None,
        **filters: Unpack[Filters],
    ) -> CountedOverTime:
        """Count the jobs that ended in each state, over time.

        Parameters
        ----------
        bucket_s : float, optional
            The length of a bucket in seconds; default: an hour.
        start, end : float, optional
            From when until when, in seconds since the epoch; default: 24 buckets until now.
        **filters
            See :meth:`list`; ``state`` is that to which jobs changed, by default those in which
            a job ends.

        Returns
        -------
        dict
            ``{"bucket_s", "buckets", "states"}``; each bucket is ``{"at", "states"}``, from the
            oldest to the newest without a gap.
        """
        asked = {"bucket_s": bucket_s, "start": start, "end": end, **filters_document(filters)}
        return cast("CountedOverTime", self._answered("jobs.counts", asked))

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
        return cast("Usage", self._answered("jobs.usage", filters_document(filters), LONG_S))

    def prune(
        self,
        job_ids: Sequence[str] | None = None,
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
        job_ids : sequence of str, optional
            Of exactly these jobs; else something of what follows must say which are meant.
        older_s : float, optional
            Only of jobs that ended longer ago, in seconds.
        larger : int, optional
            Only of jobs of which more would be removed, in bytes.
        keep_results : bool
            Only the heavy files: wave functions, charge densities, copies of POTCARs.
        dry_run : bool
            Remove nothing, and tell of which jobs files would be removed.
        **filters
            See :meth:`list`.

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
        """
        asked = {
            "older_s": older_s,
            "larger": larger,
            "keep_results": keep_results,
            "dry_run": dry_run,
            **filters_document(filters),
        }
        if job_ids is None:
            return self._prune(asked)
        whole: Pruned = {"jobs": [], "left": [], "cursor": None, "error": None}
        for start in range(0, len(job_ids) or 1, PAGE):
            part = self._prune({**asked, "job_ids": list(job_ids[start : start + PAGE])})
            whole["jobs"] += part["jobs"]
            whole["left"] += part["left"]
        return whole

    def _prune(self, asked: Mapping[str, Any]) -> Pruned:
        whole = cast("Pruned", self._answered("jobs.prune", asked, LONG_S))
        while whole["cursor"] is not None:
            rest = self._answered("jobs.prune", {**asked, "cursor": whole["cursor"]}, LONG_S)
            whole["jobs"] += rest["jobs"]
            whole["left"] += rest["left"]
            whole["cursor"] = rest["cursor"]
        return whole

    def find(self, prefix: str) -> str:
        """Give the one job id that begins so.

        Raises
        ------
        UnknownJob
            None does.
        InvalidJob
            Several do.
        """
        found = [info.job_id for info in self.list(prefix=prefix, limit=SHOWN)]
        if not found:
            raise UnknownJob(prefix)
        if len(found) > 1:
            raise InvalidJob(f"several job ids begin with {prefix!r}: {', '.join(found)}, ...")
        return found[0]

    def wait(
        self,
        job_ids: Sequence[str] | None = None,
        timeout: float | None = None,
        **filters: Unpack[Filters],
    ) -> Iterator[Job]:
        """Yield the present state of each job and then each change, until all have ended.

        Parameters
        ----------
        job_ids : sequence of str, optional
            The jobs.
        timeout : float, optional
            Time in seconds after which it ends all the same.
        **filters
            In place of `job_ids` the filters of :meth:`list`, of the jobs that there are now.

        Raises
        ------
        InvalidJob
            Nothing says which jobs are meant.
        """
        if (job_ids is None) == (not filters):
            raise InvalidJob("say which jobs to wait for: either ids or filters")
        if job_ids is None:
            job_ids = [job.job_id for job in self.list(**filters)]
        return changes(self._waiting, job_ids, timeout)

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
        return news(self._waiting, after, timeout, asked)

    def asked_again(
        self,
        changes: Mapping[str, Any],
        *,
        job_ids: Sequence[str] | None = None,
        filters: Mapping[str, Any] | None = None,
        dry_run: bool = False,
    ) -> _Retried:
        """Have jobs run again, and give what was answered of each; :meth:`Client.retry` uses it.

        Parameters
        ----------
        changes : mapping
            What is other this time, the fields of :class:`~crystalmath.models.retry.Retry`.
        job_ids, filters, dry_run
            As ``jobs.retry`` takes them.
        """
        from crystalmath.client.request import retry_document

        asked = retry_document(changes)
        chosen = None if filters is None else filters_document(filters)
        found: _Retried = self._answer(
            "jobs.retry", job_ids=job_ids, filters=chosen, dry_run=dry_run, **asked
        )["jobs"]
        return found

    # --- one job -----------------------------------------------------------------------------

    def result_json(self, job_id: str, field: str | None = None) -> bytes | None:
        """Give a result as JSON text, as it is stored; ``None`` unless the job completed.

        Parameters
        ----------
        job_id : str
            The job.
        field : str, optional
            Only this part of it: ``results.energy``.
        """
        part = {} if field is None else {"field": field}
        answer = self._transport.call_raw("jobs.result", {"job_id": job_id, **part})
        told, result = split_last(answer, "result")
        raise_answered(told)
        return result if told["status"] == JobState.COMPLETED.value else None

    def specification(self, job_id: str) -> Specification:
        """Tell what a job was asked to do, as JSON; its environment is left out.

        Returns
        -------
        dict
            ``{"job_id", "recipe", "structure", "params", "engine", "cluster", "walltime_s",
            "priority", "name", "labels", "potcars"}``.
        """
        return cast("Specification", self._answer("jobs.specification", job_id=job_id))

    def described(
        self, job_id: str, *, progress: bool = False
    ) -> tuple[Job, Specification, Progress | None]:
        """Give what :meth:`job` and :meth:`specification` do, by one request.

        Parameters
        ----------
        job_id : str
            The job.
        progress : bool
            Of a job that runs also tell what :meth:`progress` does.
        """
        # A server of an earlier release knows no progress here.
        asked = self._answer(
            "jobs.specification", job_id=job_id, job=True, progress=progress or None
        )
        job, read = Job.read(asked.pop("job")), asked.pop("progress", None)
        reached = read and Progress(**from_wire(Progress, read))
        return job, cast("Specification", asked), reached

    def show(self, job_id: str) -> Story:
        """Tell a job's whole story: what it came of, its attempts and events, what came of it.

        Returns
        -------
        dict
            ``{"job", "params", "potcars", "parents", "children", "attempts", "events"}``.
        """
        return cast("Story", self._answer("jobs.show", job_id=job_id))

    def traceback(self, job_id: str) -> str | None:
        """Give the traceback of a job that failed, if its recipe raised."""
        return self._answer("jobs.result", job_id=job_id).get("traceback")

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
        return cast(
            "LogPart",
            self._answer(
                "jobs.logs",
                job_id=job_id,
                file=file,
                tail=tail,
                offset=offset,
                max_bytes=max_bytes,
                timeout_s=timeout_s,
            ),
        )

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
        return cast("JobFiles", self._answer("jobs.files", job_id=job_id, attempt=attempt))

    def inputs(self, job_id: str) -> Inputs:
        """Tell what the programs of a job get, calculation by calculation, before it ran and after.

        Once the job has written input files, they are read (``source`` is ``files``). Before, and
        of calculators that write none, its recipe is asked, which may take seconds.

        Parameters
        ----------
        job_id : str
            The job; `UnknownJob` if there is no such one.
        """
        return Inputs.read(self._answer("jobs.inputs", job_id=job_id)["inputs"])

    def script(self, job_id: str) -> str:
        """Write a job as a Python script that runs the same calculation with quacc alone.

        Raises
        ------
        InvalidJob
            A parameter cannot be written as Python.
        """
        return str(self._answer("jobs.script", job_id=job_id)["script"])

    def export_inputs(self, job_id: str, directory: str | os.PathLike[str]) -> _Paths:
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
        from crystalmath.client.input_folder import input_files, write_texts

        told = self._answered("jobs.script", {"job_id": job_id, "shell": True})
        texts = input_files(self.inputs(job_id), os.fspath(directory))
        texts[Path(directory, "run.py")] = told["script"]
        if told["shell"] is not None:
            texts[Path(directory, "run.sh")] = told["shell"]
        return write_texts(texts, "--inputs")

    def archive(
        self,
        path: str | os.PathLike[str],
        job_ids: Sequence[str] | None = None,
        **filters: Unpack[Filters],
    ) -> int:
        """Write jobs that have ended into a file that another home takes in.

        Record, results and files are in it; POTCARs and environments never are.

        Parameters
        ----------
        path : str or path
            The new file, a zip.
        job_ids : sequence of str, optional
            Exactly these jobs.
        **filters
            In their place the filters of :meth:`list`.

        Returns
        -------
        int
            How many jobs are in it.

        Raises
        ------
        InvalidJob
            The file is there already, or a job has not ended. Nothing was written.
        """
        asked: dict[str, Any] = {"file": str(Path(path).absolute())}
        if job_ids is None:
            asked["filters"] = filters_document(filters)
        else:
            asked["job_ids"] = list(job_ids)
        return int(self._answered("jobs.archive", asked, LONG_S)["jobs"])

    def import_archive(self, path: str | os.PathLike[str]) -> ImportedJobs:
        """Take in the jobs of an archive that :meth:`archive` of another home has written.

        Returns
        -------
        dict
            ``{"job_ids", "known"}``; the latter were here already, and stay as they are.

        Raises
        ------
        InvalidJob
            Something in it is not as it should be. Nothing was taken in.
        """
        answer = self._answered("jobs.import", {"file": str(Path(path).absolute())}, LONG_S)
        return {"job_ids": answer["job_ids"], "known": answer["known"]}

    def progress(
        self, job_ids: Sequence[str], *, history: bool = False
    ) -> dict[str, Progress | None]:
        """Tell how far the calculations of jobs have come, from what their programs write.

        Parameters
        ----------
        job_ids : sequence of str
            The jobs; `UnknownJob` if there is no such one.
        history : bool
            Tell the ionic steps of all of their calculations too, as ``history`` of each.

        Returns
        -------
        dict of str to (Progress or None)
            By job id; ``None`` where nothing is written yet that a reader knows.
        """
        told: dict[str, Progress | None] = {}
        most = HISTORIES_AT_ONCE if history else READ_AT_ONCE
        for start in range(0, len(job_ids), most):
            page = list(job_ids[start : start + most])
            # A server of an earlier release knows no histories.
            asked = self._answer("jobs.progress", job_ids=page, history=history or None)
            for job in asked["jobs"]:
                if job["status"] == "error":
                    raise_answered(job)
                read = job["progress"]
                told[job["job_id"]] = read and Progress(**from_wire(Progress, read))
        return told

    def cancel(self, job_id: str) -> bool:
        """Ask for a job to be stopped; ``False`` if it had ended.

        It reads cancelled once none of its processes is alive.
        """
        return bool(self._answer("jobs.cancel", job_id=job_id)["cancelled"])

    def cancel_many(
        self, job_ids: Sequence[str] | None = None, **filters: Unpack[Filters]
    ) -> _Cancelled:
        """Ask for jobs to be stopped: exactly these, or all unfinished ones that fit filters.

        Parameters
        ----------
        job_ids : sequence of str, optional
            The jobs.
        **filters
            See :meth:`list`.

        Returns
        -------
        list of dict
            Of each job ``{"job_id", "cancelled", "error"}``; ``error`` tells why it cannot be
            stopped, as one that had ended.

        Raises
        ------
        InvalidJob
            Nothing says which jobs are meant. Nothing was stopped.
        """
        asked = filters_document(filters)
        if job_ids is None:
            return cast("_Cancelled", self._answered("jobs.cancel_many", asked, LONG_S)["jobs"])
        answers: _Cancelled = []
        for start in range(0, len(job_ids), PAGE):
            part = {**asked, "job_ids": list(job_ids[start : start + PAGE])}
            answers += self._answered("jobs.cancel_many", part, LONG_S)["jobs"]
        return answers

    # --- what there is -----------------------------------------------------------------------

    def engines(self) -> _Engines:
        """List the installed engines, and why one cannot serve."""
        found: _Engines = self._answer("engines.list")["engines"]
        return found

    def clusters(self) -> _Clusters:
        """List the clusters of the configuration file, and why one cannot be used."""
        found: _Clusters = self._answer("clusters.list")["clusters"]
        return found

    def recipes(self, prefix: str | None = None) -> _Recipes:
        """List the recipes there are, or those whose name begins so (``emt``)."""
        found: _Recipes = self._answer("recipes.list", prefix=prefix)["recipes"]
        return found

    def presets(self, name: str | None = None) -> _Presets:
        """List quacc's presets with what each sets, or those of one name (`InvalidJob` if none)."""
        _, environment = self._configured()
        answer = self._answer("presets.list", name=name, environment=environment)
        return [Preset.read(each) for each in answer["presets"]]

    def describe(self, recipe: RecipeLike) -> RecipeDescription:
        """Tell a recipe's docstring, and the JSON Schema of its parameters."""
        from crystalmath.client.request import recipe_name

        configured, _ = self._configured()
        name = recipe_name(recipe, configured.recipes_allow)
        return cast("RecipeDescription", self._answer("recipes.describe", recipe=name))

    def version(self) -> ServerVersion:
        """Tell what answers: its release, protocol, process and interpreter."""
        return cast("ServerVersion", self._answer("system.version"))

    def status(self) -> ServerStatus:
        """Tell what answers is doing: jobs, engines, workers, backlog, disk, newest failures.

        Returns
        -------
        dict
            ``{"jobs", "connections", "quiet_s", "engines", "workers", "backlog", "disk",
            "failures"}``; `workers` and `backlog` (how many jobs wait to begin) by engine, `disk`
            in bytes.
        """
        return cast("ServerStatus", self._answer("system.status"))

    def decoded(self, job_id: str) -> Any:
        """Give what the recipe of a completed job returned; the job's future calls it."""
        from crystalmath.recipes import codec

        fetched = self.results.take(job_id)
        if fetched is not None:
            return codec.decode_result_document(fetched["result"])
        text = self.result_json(job_id)
        if text is None:
            raise InvalidJob(f"the job {job_id} has not completed")
        return codec.decode_result_json(text)
