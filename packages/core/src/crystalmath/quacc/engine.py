"""The base class of engines: it has the methods of `JobRunner`, and calls an engine's own."""

from __future__ import annotations

import logging
import os
import sys
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from attrs import evolve

from crystalmath import config
from crystalmath.engines.allotment import check_honoured, job_environment, travelling
from crystalmath.engines.driver import Driver
from crystalmath.engines.job_runner import JobRunner, generate_job_id
from crystalmath.errors import BadFile, EngineUnavailable, InvalidJob, NoRecipe
from crystalmath.jobs.reading import read_result
from crystalmath.jobs.rundir import RunDirectory, is_job_id
from crystalmath.jobs.written_spec import spec_header
from crystalmath.models import (
    Attempt,
    Capabilities,
    EngineSettings,
    JobSpec,
    JobState,
    Resources,
    Sighting,
)
from crystalmath.models.checks import check_fields
from crystalmath.models.reference import JOB

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from contextlib import AbstractContextManager

    from ase import Atoms

    from crystalmath.jobs.changes import Listener
    from crystalmath.jobs.documents import SpecDocument
    from crystalmath.jobs.ownership import Recorded

__all__ = ["EngineRunner", "submission_environment"]


class EngineRunner(JobRunner):
    """A runner on run directories; an engine adds `launch`, and may override other methods.

    Core calls `launch`, `probe`, `release` and `stop` one at a time, on one thread. They may
    block. After :class:`~crystalmath.errors.EngineUnavailable` the call is repeated later. Any
    other exception from `launch` fails the attempt, with its message. If `launch` had several
    attempts, each is launched alone first, and only those fail that raise it again.

    Parameters
    ----------
    settings : EngineSettings
        The engine's name, home and options.

    Attributes
    ----------
    capabilities : Capabilities
        The capabilities of the engine on its clusters; see `capabilities_of` if they differ.
    log : logging.Logger
        For the engine's own messages.
    """

    capabilities: ClassVar[Capabilities] = Capabilities()

    # --- what an engine author writes -------------------------------------------------------

    @abstractmethod
    def launch(self, attempts: Sequence[Attempt]) -> Mapping[str, str | Exception]:
        """Hand attempts over to the engine.

        The engine's worker calls ``crystalmath.worker.run(attempt.directory)``. Launching an
        attempt twice is harmless: the second finds the claim of the first.

        Returns
        -------
        mapping of str to str or Exception
            For each attempt's id a handle, a string that identifies the work in other processes,
            too: the id itself if the engine finds its work by that. An exception concerns this
            attempt alone, and has the effect that it would have if raised. An attempt that is left
            out was not taken, and is handed over again later.
        """

    def probe(self, attempts: Sequence[Attempt]) -> Mapping[str, Sighting]:
        """Return what the engine knows of attempts; those left out are ``unknown``."""
        del attempts
        return {}

    def release(self, attempts: Sequence[Attempt]) -> None:
        """Drop queued attempts, and tidy up after a cancel; core has ended running jobs."""

    def stop(self) -> None:
        """End the engine. Called once, and only after a `launch`, `probe` or `release`.

        Jobs that were let go may still run in their supervisors (`spared`); a server lets all its
        jobs go. No other job of this process is alive.
        """

    def warm(self, environment: Mapping[str, str]) -> None:
        """Start a worker on this host for jobs with this environment, if the engine can.

        A server with ``[server] warm`` calls it at its start. It returns at once.
        """

    def clusters(self) -> Sequence[str]:
        """Name the clusters; the first is the default."""
        return ["local"]

    def workers(self) -> int | None:
        """Return exactly how many jobs run at once on this host; ``None``: unknown.

        Users are warned if these jobs together have more ranks than the host has cores.
        """
        return None

    def capabilities_of(self, cluster: str) -> Capabilities:
        """Return what the engine can do on a cluster: `capabilities`, unless clusters differ.

        Parameters
        ----------
        cluster : str
            Any name: a cluster may have left the configuration while its jobs waited.
        """
        del cluster
        return self.capabilities

    def honoured(self, cluster: str) -> frozenset[str]:
        """Name the resources that a cluster can honour: those of `capabilities_of`."""
        return self.capabilities_of(cluster).resources

    def runs_here(self, cluster: str) -> bool:
        """Return whether a cluster's jobs run on this host: `workers_here` of `capabilities_of`.

        Checks then search this host for the programs and files of jobs.
        """
        return self.capabilities_of(cluster).workers_here

    def cores(self, cluster: str) -> int | None:
        """Return how many cores a job can have on a node of a cluster; ``None`` if unknown."""
        del cluster
        return None

    # --- what an engine may call -------------------------------------------------------------

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings
        self.log = logging.getLogger(f"crystalmath.engines.{settings.name}")
        # The only private name here, so that a subclass can use all others.
        self._driver = Driver(self)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._driver.closed

    @property
    def left(self) -> frozenset[str]:
        """The ids of the attempts that `close` let go unfinished."""
        return self._driver.left.attempts()

    def spared(self) -> set[int]:
        """Return the pids of this host that `stop` must not end.

        They belong to jobs that were let go unfinished.
        """
        return self._driver.left.processes()

    def has_begun(self, attempt: Attempt) -> bool:
        """Return whether a worker has claimed an attempt, or a cancel has taken it.

        It only reads files. A parcel has begun once any of its jobs has.
        """
        return self._driver.has_begun(attempt)

    def has_ended(self, attempt: Attempt) -> bool:
        """Return whether an attempt, or each job of a parcel, has its outcome; reads files."""
        return self._driver.has_ended(attempt)

    def allocation_of(self, attempt: Attempt) -> str | None:
        """Return the scheduler's allocation in which a begun attempt runs, or ran.

        It is ``CRYSTALMATH_ALLOCATION`` in its worker's environment; ``None`` if that was not set,
        or if no worker has begun the attempt.

        Raises
        ------
        EngineUnavailable
            Its files cannot be read just now.
        """
        directory = RunDirectory(attempt.directory)
        try:
            if directory.is_gone():  # it raises `OSError` if the file system is gone
                return None
            allocation = directory.containment(attempt.number).get("allocation")
        except (BadFile, OSError) as error:
            raise EngineUnavailable(f"nobody knows where {attempt.id} runs: {error}") from error
        return allocation if isinstance(allocation, str) else None

    def own_name(self) -> dict[str, Any]:
        """Return a record of this process for :meth:`is_orphan`, to be kept with its children."""
        return dict(self._driver.host.own_fields())

    def is_orphan(self, owner: object) -> bool:
        """Return whether the process in a record of :meth:`own_name` has died.

        A process on another host counts as dead once its lease has expired.
        """
        return self._driver.host.is_orphan(owner)

    def notice(self, attempt: str) -> None:
        """Have core look at an attempt at once, not within 0.1 s; any thread may call it."""
        self._driver.notice(attempt)

    def subscribe(self, listener: Listener) -> None:
        """Call a function with each batch of changes from now on; it must return quickly."""
        self._driver.listeners.append(listener)

    # --- what a caller uses ------------------------------------------------------------------

    def submit(
        self,
        recipe_fullname: str,
        atoms: Atoms | None = None,
        cluster_name: str = "local",
        **kwargs: Any,
    ) -> str:
        """Submit a recipe; see :meth:`JobRunner.submit`."""
        from crystalmath.recipes.ase_classes import with_classes
        from crystalmath.recipes.quacc_settings import changed_settings
        from crystalmath.recipes.source_folders import anchored

        environ = {**os.environ, **changed_settings()}
        name = str(recipe_fullname)
        cluster = self.settings.clusters.get(cluster_name)
        there = cluster.environment if cluster else {}
        spec = JobSpec(
            job_id=generate_job_id(),
            recipe=recipe_fullname,
            atoms=atoms,
            parameters=with_classes(name, anchored(name, kwargs)),
            cluster=cluster_name,
            environment={**submission_environment(config.load(), environ), **there},
        )
        self.start(spec)
        return spec.job_id

    def start(self, spec: JobSpec, document: str | None = None) -> None:
        """Write a job's run directory, and queue the job for the engine.

        Parameters
        ----------
        spec : JobSpec
            The job.
        document : str, optional
            The encoded atoms and parameters of a job that is on record, and whose recipe and
            cluster the caller has checked. Its run directory is written after this call; a failure
            that may pass, as for want of descriptors, is repeated. If it cannot be written at all,
            the job fails, and listeners get that change.

        Raises
        ------
        InvalidJob
            A part of the specification is invalid; nothing is left behind.
        """
        from crystalmath.recipes import codec, lookup

        _require_linux()
        if document is None:
            allow = config.load().recipes_allow
            lookup.check_name(spec.recipe, allow)
            check_fields(spec, {"resources"})
            self.check_cluster(spec.cluster)
            _check_recipe(spec, allow)
            spec = self.allotted(spec)
        if not is_job_id(spec.job_id):
            raise InvalidJob(f"a job id must be a UUID4, not {spec.job_id!r}")
        body = document or codec.encode_spec(spec)
        if document is None:
            _require_no_reference(spec, body)
        host = self._driver.host
        header = spec_header(spec, self.settings.name, host.own_fields())
        header["created_at"] = host.now()
        self._driver.add(header, body, recorded=document is not None)

    def together(self) -> AbstractContextManager[None]:
        """Begin jobs that are started inside this context only at its end."""
        return self._driver.together()

    def adopt(self, job_id: str, recorded: Recorded | None = None) -> bool:
        """Take over a job of this engine whose owner has died.

        It is followed here from now on, and `close` lets it go. Other methods that take the id of
        such a job adopt it, too.

        Parameters
        ----------
        job_id : str
            The job.
        recorded : Recorded, optional
            The job's record elsewhere, from which missing or damaged files are written.

        Returns
        -------
        bool
            Whether it is followed here; ``False`` if it has ended, belongs to another engine, or
            has a living owner.

        Raises
        ------
        UnknownJob
            No job has this id.
        """
        return self._driver.adopt(job_id, recorded)

    def follows(self, job_id: str) -> bool:
        """Return whether this runner submitted the job or took it over, and is not closed."""
        return self._driver.follows(job_id)

    def check_cluster(self, cluster: str) -> None:
        """Raise :class:`InvalidJob` for an unknown cluster; the message names the known ones."""
        if cluster not in self.clusters():
            raise InvalidJob(
                f"the engine {self.settings.name!r} has no cluster {cluster!r}; "
                f"it has: {', '.join(self.clusters())}; a table [clusters.{cluster}] in "
                "config.toml makes one ('crystalmath clusters init slurm' writes an example)"
            )

    def default_resources(self, cluster: str) -> Resources:
        """Return the resources that a job on a cluster has unless it asks for others."""
        known = self.settings.clusters.get(cluster)
        # The other resources, as the queue, are those of pilot jobs.
        return known.defaults(self.honoured(cluster)) if known else Resources()

    def allotted(self, spec: JobSpec) -> JobSpec:
        """Return a job with the environment by which its programs learn of its resources.

        A worker without shared files gets no variables of the submitter's machine, only those of
        the cluster and of CrystalMath.

        Raises
        ------
        InvalidJob
            The cluster cannot honour a resource.
        """
        cluster = self.settings.clusters.get(spec.cluster)
        if not self.capabilities_of(spec.cluster).shares_files:
            there = {*(cluster.environment if cluster else ()), *spec.settings}
            spec = evolve(spec, environment=travelling(spec.environment, there))
        resources = spec.resources.over(self.default_resources(spec.cluster))
        launcher = cluster.launcher if cluster else None
        if not resources and launcher is None:
            return spec
        check_honoured(
            resources,
            self.honoured(spec.cluster),
            engine=self.settings.name,
            cluster=spec.cluster,
            cores=self.cores(spec.cluster),
        )
        environment = job_environment(resources, spec.environment, launcher)
        return evolve(spec, environment=environment)

    def get_status(self, job_id: str) -> JobState:
        """Return a job's present state; see :meth:`JobRunner.get_status`."""
        return self._driver.state(job_id)

    def get_result(self, job_id: str) -> dict[str, Any] | None:
        """Return the recipe's result; see :meth:`JobRunner.get_result`."""
        if not self.get_status(job_id).is_terminal():
            return None
        return read_result(self._driver.directory(job_id))

    def cancel(self, job_id: str) -> bool:
        """Request that a job be stopped; see :meth:`JobRunner.cancel`."""
        return self._driver.cancel(job_id)

    def unfinished(self) -> dict[str, JobState]:
        """Return the unfinished jobs that are followed here, and their states."""
        return self._driver.unfinished()

    def is_busy(self) -> bool:
        """Return whether an unfinished job is followed here."""
        return self._driver.is_busy()

    def close(self, *, cancel: bool = True) -> None:
        """End the engine.

        Parameters
        ----------
        cancel : bool
            Cancel the unfinished jobs that were submitted here. Without it all jobs are let go:
            running ones go on, and waiting ones wait for their next owner.
        """
        self._driver.close(cancel=cancel)

    def leave(self, listener: Listener, own: Collection[str], *, cancel: bool) -> None:
        """End the jobs of a listener, and the engine unless another listener needs it.

        Parameters
        ----------
        listener : callable
            The function that `subscribe` took; it is not called any more.
        own : collection of str
            The listener's jobs.
        cancel : bool
            Cancel the unfinished ones among them. Without it they are let go when the engine ends,
            and stay followed until then.
        """
        self._driver.leave(listener, own, cancel=cancel)

    def close_if_idle(self) -> bool:
        """End the engine unless it has unfinished jobs; return whether it is closed now.

        A job that another thread submits at the same time either counts, or is refused.
        """
        return self._driver.close_if_idle()

    def unwritten(self) -> list[SpecDocument]:
        """Return the specifications of started jobs without a run directory."""
        return self._driver.unwritten()


def submission_environment(
    settings: config.Config, environ: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """Return the variables that reach a job.

    Besides the forwarded ones, these are settings of the home that workers need: admitted recipe
    namespaces, the bound of the log, and times. The submitter's own values for them do not count.

    Parameters
    ----------
    settings : Config
        The names of forwarded variables, and the settings of the home.
    environ : mapping of str to str
        The submitter's environment.
    """
    environment = config.job_environment(settings, environ)
    own = {
        "CRYSTALMATH_RECIPES": ",".join(settings.recipes_allow),
        config.FRESH_VARIABLE: ",".join(settings.recipes_fresh),
        config.LOG_VARIABLE: _differing(settings.log_mb, config.LOG_MB),
        config.NOTICE_VARIABLE: _differing(settings.walltime_notice_s, 0),
        config.GRACE_VARIABLE: _differing(settings.cancel_grace_s, config.GRACE_S),
        config.LEASE_VARIABLE: _differing(settings.lease_s, config.LEASE_S),
    }
    for name, value in own.items():
        environment.pop(name, None)
        if value:
            environment[name] = value
    return environment


def _differing(value: float, default: float) -> str:
    return "" if value == default else repr(value)


def _check_recipe(spec: JobSpec, allow: Sequence[str]) -> None:
    """Refuse a helper of quacc's, and a structure that does not fit the recipe's source."""
    from crystalmath.recipes import lookup
    from crystalmath.recipes.arguments import check_structure

    try:
        recipe = lookup.look_up(spec.recipe, allow)
    except NoRecipe:
        raise
    except InvalidJob:
        return  # workers may have recipes that this process has not; they report errors
    check_structure(recipe, has_structure=spec.atoms is not None)


def _require_no_reference(spec: JobSpec, body: str) -> None:
    """Refuse references to other jobs, as a runner keeps no record of waiting jobs."""
    from crystalmath.recipes.codec import encode_request
    from crystalmath.recipes.job_structure import references_in

    if f'"{JOB}"' not in body:
        return
    encoded = {name: encode_request(value, name) for name, value in spec.parameters.items()}
    for place in references_in(encoded):
        raise InvalidJob(
            f"the parameter {place} refers to another job, and a runner keeps no job that waits; "
            "pass the value itself, or submit the job by crystalmath.client"
        )


def _require_linux() -> None:
    if sys.platform != "linux":
        raise InvalidJob(f"running jobs needs Linux (child subreapers); this is {sys.platform}")
