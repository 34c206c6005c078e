"""Records that pass between core and an engine: attempts, sightings, capabilities, settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from attrs import field, frozen

from crystalmath.errors import ConfigError, did_you_mean
from crystalmath.models.submission import Terms

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from crystalmath.models.cluster import Cluster


@frozen(kw_only=True)
class Attempt(Terms):
    """One try at a job, as an engine sees it, with the job's terms.

    Core enforces the walltime. A batch engine may request it, and pass on the job's name.

    Parameters
    ----------
    id : str
        Unique and stable. The engine tags its native work with it. So ``probe`` also finds an
        attempt whose launcher died before it recorded a handle.
    job_id : str
        The job.
    directory : pathlib.Path
        The run directory, which the engine's worker passes to :func:`crystalmath.worker.run`.
    handle : str, optional
        The handle that ``launch`` returned, if it was recorded.
    """

    id: str
    job_id: str
    directory: Path
    handle: str | None = None

    @property
    def number(self) -> int:
        """The number of this attempt among those of its job, from 1."""
        return int(self.id.rpartition(".")[2])


@frozen
class Sighting:
    """An engine's report on an attempt: a hint whether it is alive, never an outcome.

    Parameters
    ----------
    state : {"queued", "running", "gone", "unknown"}
        ``gone`` promises only that the engine will not start the attempt any more.
    reason : str, optional
        The engine's own word (``Priority``, ``OUT_OF_MEMORY``); it reaches the user.
    fatal : bool
        With ``gone``: another attempt would end the same way (``TIMEOUT``). The job fails with the
        reason. A running job does so only if `Capabilities.gone_means_dead`.
    unseen : bool
        With ``gone``: the engine cannot reach the host any more (``NODE_FAIL``), and the attempt
        may go on there. Its heartbeat decides, even if `Capabilities.gone_means_dead`.
    ended : bool
        With ``gone``: the attempt had an allocation of its own, which has ended. If three of them
        in a row end before the job begins, it fails with the reason.
    boot_id : str, optional
        With `unseen`: the present boot id of the attempt's only host. Processes of an earlier boot
        are dead, and `Capabilities.gone_means_dead` holds for them.
    """

    state: Literal["queued", "running", "gone", "unknown"]
    reason: str | None = None
    fatal: bool = False
    unseen: bool = False
    ended: bool = False
    boot_id: str | None = None


@frozen(kw_only=True)
class Capabilities:
    """The abilities of an engine. Core and front ends read them, never the engine's name.

    Parameters
    ----------
    max_queued : int
        The most attempts that core keeps launched and unfinished.
    gone_means_dead : bool
        A ``gone`` from ``probe`` also vouches that no process of the attempt is alive.
    queue_dies_with_owner : bool
        Queued attempts that have not started are dropped when the process that launched them ends
        or is killed.
    drops_queued : bool
        After ``release`` an attempt that ``probe`` called queued is not started any more. One that
        was on its way to a worker may still start.
    workers_here : bool
        Jobs run on the host of the process that submits them.
    shares_files : bool
        Workers see the home under the same path. Without this, specification and answer travel as
        bytes (:mod:`crystalmath.worker.apart`), and only the engine knows of a job's processes.
        So `gone_means_dead` must be yes, and `workers_here` no.
    starts_in_order : bool
        Attempts of the same priority on one cluster start in the order of their launches. Core
        looks at the first ones to find those that have begun; without this, at all in turns.
    workers_inherit : bool
        Workers have the environment, the locale and the limits of the process that launched. Say
        no if they belong to a server that somebody else has started. Then a missing package does
        not refuse a job, because the workers' Python may have it.
    resources : frozenset of str
        The names of the resources (:class:`~crystalmath.models.Resources`) that it can honour. A
        job that requests another one is refused.

    Raises
    ------
    ValueError
        `shares_files` is no, and `gone_means_dead` is no or `workers_here` is yes.
    """

    max_queued: int = 1000
    gone_means_dead: bool = False
    queue_dies_with_owner: bool = False
    drops_queued: bool = False
    workers_here: bool = True
    shares_files: bool = True
    starts_in_order: bool = True
    workers_inherit: bool = True
    resources: frozenset[str] = frozenset()

    def __attrs_post_init__(self) -> None:
        if not self.shares_files and (self.workers_here or not self.gone_means_dead):
            raise ValueError(
                "Capabilities(shares_files=False) needs gone_means_dead=True and "
                "workers_here=False: only the engine can see that a job's processes have ended"
            )


#: The options that core reads for every engine, with type and meaning.
OF_CORE = {
    "parcel": (
        "whole number",
        "most small jobs in one parcel; 1: no parcels, no batches; default: as many as take 2 s",
    )
}


@frozen(kw_only=True)
class EngineSettings:
    """The settings that core passes to the plugin that makes a runner.

    Parameters
    ----------
    name : str
        The engine's name, which is its entry point's.
    home : pathlib.Path
        The folder below which the program writes everything.
    options : mapping of str to object
        The table ``[engines.<name>]`` of the configuration file.
    clusters : mapping of str to Cluster
        The tables ``[clusters.<name>]`` of the configuration file that belong to this engine.
    parcel : int, optional
        How many small jobs core packs into one attempt; by default as many as take some 2 s.
    """

    name: str
    home: Path
    options: Mapping[str, Any] = field(factory=dict)
    clusters: Mapping[str, Cluster] = field(factory=dict)
    parcel: int | None = None

    @property
    def directory(self) -> Path:
        """The folder for the engine's own files."""
        return self.home / "engines" / self.name

    def check_options(self, *known: str) -> None:
        """Raise `ConfigError` for an option that the engine does not know, with the nearest one."""
        for option in self.options:
            if option not in known:
                hint = did_you_mean(option, (*known, *OF_CORE))
                raise ConfigError(f"[engines.{self.name}] {option} is no option; {hint}")
