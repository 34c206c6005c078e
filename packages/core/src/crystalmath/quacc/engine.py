"""What an engine author subclasses: the four methods of `JobRunner`, done once for all engines."""

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
    """A runner on run directories; an engine adds `launch` and what it can of the rest.

    Core calls `launch`, `probe`, `release` and `stop` one at a time, on one thread. They may
    block. :class:`~crystalmath.errors.EngineUnavailable` means that the same is tried again
    later; any other exception from `launch` fails the attempt, with its message. Where there
    were several, each is handed over alone, so that only those fail that raise it again.

    Parameters
    ----------
    settings : EngineSettings
        The engine's name, home and options.

    Attributes
    ----------
    capabilities : Capabilities
        What the engine can do on its clusters; see `capabilities_of` where they differ.
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
            For each attempt's id a handle, a string that means the same in another process; the
            id itself where the engine finds its work by that. An exception says why this attempt
            alone was not taken, and means what it would mean if it were raised. An attempt that is
            left out was not taken either, and is handed over again later.
        """

    def probe(self, attempts: Sequence[Attempt]) -> Mapping[str, Sighting]:
        """Return what the engine knows of attempts; what is left out is ``unknown``."""
        del attempts
        return {}

    def release(self, attempts: Sequence[Attempt]) -> None:
        """Drop what is queued, and tidy up after a cancel; core has stopped what ran."""

    def stop(self) -> None:
        """End the engine. Called once, and only after a `launch` or a `probe`.

        Jobs that were let go, as a server does with all of its own, may go on in their
        supervisors (`spared`); no other job of this process is alive any more.
        """

    def warm(self, environment: Mapping[str, str]) -> None:
        """Have a worker on this host ready for jobs with this environment, where that is possible.

        A server calls it at its start where ``[server] warm`` is set. It returns at once.
        """

    def clusters(self) -> Sequence[str]:
        """Name the clusters; the first is the default."""
        return ["local"]

    def workers(self) -> int | None:
        """Return the number of jobs that run at once by `workers_here`; ``None``: unknown."""
        return None

    def capabilities_of(self, cluster: str) -> Capabilities:
        """Return what the engine can do on a cluster: `capabilities`, unless clusters differ.

        Parameters
        ----------
        cluster : str
            Any name: a cluster may have been taken out of the configuration while its jobs waited.
        """
        del cluster
        return self.capabilities

    def honoured(self, cluster: str) -> frozenset[str]:
        """Name the resources that a cluster can honour: those of `capabilities_of`."""
        return self.capabilities_of(cluster).resources

    def runs_here(self, cluster: str) -> bool:
        """Return whether a cluster's jobs run on this host: what they need is then looked for here.

        It is `workers_here` of `capabilities_of`.
        """
        return self.capabilities_of(cluster).workers_here

    def cores(self, cluster: str) -> int | None:
        """Return how many cores a job can have on a node of a cluster; ``None`` if unknown."""
        del cluster
        return None

    # --- what core and an engine tell each other ---------------------------------------------

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings
        self.log = logging.getLogger(f"crystalmath.engines.{settings.name}")
        # The only private name here: a subclass must not meet ours by accident.
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
        """Return whether somebody has claimed an attempt; who comes later leaves it alone."""
        return self._driver.has_begun(attempt)

    def has_ended(self, attempt: Attempt) -> bool:
        """Return whether an attempt has its outcome."""
        return self._driver.has_ended(attempt)

    def allocation_of(self, attempt: Attempt) -> str | None:
        """Return in which allocation of a scheduler's an attempt that was begun runs, or ran.

        It is what ``CRYSTALMATH_ALLOCATION`` said in its worker's environment; ``None`` if nothing,
        or if nobody has begun it.

        Raises
        ------
        EngineUnavailable
            Its files cannot be read just now.
        """
        directory = RunDirectory(attempt.directory)
        try:
            if directory.is_gone():  # `OSError` where the file system is
                return None
            allocation = directory.containment(attempt.number).get("allocation")
        except (BadFile, OSError) as error:
            raise EngineUnavailable(f"nobody knows where {attempt.id} runs: {error}") from error
        return allocation if isinstance(allocation, str) else None

    def own_name(self) -> dict[str, Any]:
        """Return this process as :meth:`is_orphan` knows it, to record with its children."""
        return dict(self._driver.host.own_fields())

    def is_orphan(self, owner: object) -> bool:
        """Return whether the process of such a record has died.

        Of one on another host nothing was heard for its lease: what it left there is that host's.
        """
        return self._driver.host.is_orphan(owner)

    def notice(self, attempt: str) -> None:
        """Notify core that something happened to an attempt; it looks at once."""
        self._driver.notice(attempt)

    def subscribe(self, listener: Listener) -> None:
        """Have a function called with each batch of changes; it must return quickly."""
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
        """Take a job, whose run directory is written and which is queued for the engine.

        Parameters
        ----------
        spec : JobSpec
            The job.
        document : str, optional
            The encoded atoms and parameters of a specification whose recipe and cluster the
            caller has checked, and which is on record: its run directory is written afterwards,
            and later if that cannot be done just now, for want of descriptors say. A job of
            which it never can be fails, and `subscribe` tells it.

        Raises
        ------
        InvalidJob
            Something in the specification cannot be used; nothing is left behind.
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
        """Begin at the end with what is started meanwhile."""
        return self._driver.together()

    def adopt(self, job_id: str, recorded: Recorded | None = None) -> bool:
        """Take over a job of this engine that nobody follows: its owner has died.

        It is followed from here on as one that was submitted here, and `close` lets it go. The
        other methods do so by themselves when they are asked about such a job.

        Parameters
        ----------
        job_id : str
            The job.
        recorded : Recorded, optional
            What is on record of it elsewhere, from which missing or damaged files are written.

        Returns
        -------
        bool
            Whether it is followed here; ``False`` for a finished job, another engine's, and one
            whose owner is alive.

        Raises
        ------
        UnknownJob
            No job has this id.
        """
        return self._driver.adopt(job_id, recorded)

    def follows(self, job_id: str) -> bool:
        """Return whether this runner, not yet closed, submitted the job or took it over."""
        return self._driver.follows(job_id)

    def check_cluster(self, cluster: str) -> None:
        """Refuse an unknown cluster, naming those there are (:class:`InvalidJob`)."""
        if cluster not in self.clusters():
            raise InvalidJob(
                f"the engine {self.settings.name!r} has no cluster {cluster!r}; "
                f"it has: {', '.join(self.clusters())}; a table [clusters.{cluster}] in "
                "config.toml makes one ('crystalmath clusters init' writes an example)"
            )

    def default_resources(self, cluster: str) -> Resources:
        """Return what a job on a cluster has of what it does not ask for itself."""
        known = self.settings.clusters.get(cluster)
        # Of the rest, as the queue of pilot jobs, a job has no share of its own.
        return known.defaults(self.honoured(cluster)) if known else Resources()

    def allotted(self, spec: JobSpec) -> JobSpec:
        """Return a job with what it asks of the machine told to its programs.

        Without shared files the other variables are the worker's own, but those of its cluster.

        Raises
        ------
        InvalidJob
            Its cluster cannot honour that.
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
        """Return what the recipe returned; see :meth:`JobRunner.get_result`."""
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
            what runs goes on, and what waits is for whoever takes it over.
        """
        self._driver.close(cancel=cancel)

    def leave(self, listener: Listener, own: Collection[str], *, cancel: bool) -> None:
        """End the jobs of somebody who listens, and the engine unless somebody else needs it.

        Parameters
        ----------
        listener : callable
            As `subscribe` took it; it is told nothing more.
        own : collection of str
            His jobs.
        cancel : bool
            Cancel the unfinished ones of them. Without it they are let go with the engine, and
            followed on as long as that is needed.
        """
        self._driver.leave(listener, own, cancel=cancel)

    def close_if_idle(self) -> bool:
        """End the engine unless it has unfinished jobs; tell whether it is closed now.

        A job that another thread submits at the same time is either among them, or refused.
        """
        return self._driver.close_if_idle()

    def unwritten(self) -> list[SpecDocument]:
        """Return the specifications of jobs that were taken and have no run directory yet."""
        return self._driver.unwritten()


def submission_environment(
    settings: config.Config, environ: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """Return the variables that reach a job.

    The admitted recipe namespaces travel along, so that workers admit what the home does, and the
    bound of the log: never what the submitter asks for.

    Parameters
    ----------
    settings : Config
        Which are forwarded, and which namespaces are admitted.
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
    """Refuse a helper of quacc's, and what the source shows to be wrong about the structure."""
    from crystalmath.recipes import lookup
    from crystalmath.recipes.arguments import check_structure

    try:
        recipe = lookup.look_up(spec.recipe, allow)
    except NoRecipe:
        raise
    except InvalidJob:
        return  # workers may have more than this process sees; they say what is wrong
    check_structure(recipe, has_structure=spec.atoms is not None)


def _require_no_reference(spec: JobSpec, body: str) -> None:
    """Refuse a value of another job's result: nobody keeps a record of what waits for it."""
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
