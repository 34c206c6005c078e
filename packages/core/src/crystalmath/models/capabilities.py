"""What core and an engine tell each other: attempts, what became of them, what it can do."""

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

    Core enforces the walltime; a batch engine may ask for it, and give the job's name on.

    Parameters
    ----------
    id : str
        Unique and stable. The engine tags its native work with it, so that ``probe`` finds what
        was launched by a process that died before it could record a handle.
    job_id : str
        The job.
    directory : pathlib.Path
        What the engine's worker hands to :func:`crystalmath.worker.run`.
    handle : str, optional
        What ``launch`` returned for it, if that was recorded.
    """

    id: str
    job_id: str
    directory: Path
    handle: str | None = None

    @property
    def number(self) -> int:
        """Which of the job's attempts it is; the first is 1."""
        return int(self.id.rpartition(".")[2])


@frozen
class Sighting:
    """What an engine can say about an attempt: a hint about liveness, never an outcome.

    Parameters
    ----------
    state : {"queued", "running", "gone", "unknown"}
        ``gone`` promises only that the engine will not start the attempt any more.
    reason : str, optional
        The engine's own word (``Priority``, ``OUT_OF_MEMORY``); it reaches the user.
    fatal : bool
        Of what is ``gone``: another attempt would end the same way (``TIMEOUT``). The job fails
        with the reason; where it was running, only if `Capabilities.gone_means_dead`.
    unseen : bool
        Of what is ``gone``: the engine has lost sight of the host (``NODE_FAIL``), where it may go
        on. `Capabilities.gone_means_dead` does not vouch for it; its heart tells.
    ended : bool
        Of what is ``gone``: it had an allocation of its own, which came to its end. Where three in
        a row have ended without having begun the job, it fails with the reason.
    boot_id : str, optional
        Of what is `unseen`: the present boot id of its host, if it had only one. Nothing that began
        in another boot is alive, and `Capabilities.gone_means_dead` vouches for that.
    """

    state: Literal["queued", "running", "gone", "unknown"]
    reason: str | None = None
    fatal: bool = False
    unseen: bool = False
    ended: bool = False
    boot_id: str | None = None


@frozen(kw_only=True)
class Capabilities:
    """What an engine can do. Core and front ends ask this, never the engine's name.

    Parameters
    ----------
    max_queued : int
        Core keeps at most so many attempts launched and unfinished.
    gone_means_dead : bool
        A ``gone`` from ``probe`` also vouches that no process of the attempt is alive.
    queue_dies_with_owner : bool
        What was queued and not started is dropped when the process that launched it ends, also
        when that process is killed.
    drops_queued : bool
        After ``release`` an attempt that ``probe`` called queued is not started any more; one that
        was on its way to a worker may be.
    workers_here : bool
        Jobs run on the host of the process that submits them.
    shares_files : bool
        Workers see the home under the same path. Without it a specification and an answer travel
        as bytes (:mod:`crystalmath.worker.apart`), and only the engine knows of a job's processes:
        `gone_means_dead` must be yes, `workers_here` no.
    starts_in_order : bool
        Of two attempts of the same priority on one cluster, the one that was launched first starts
        first.
    workers_inherit : bool
        Workers have the environment, the locale and the limits of the process that launched; no
        where they belong to a server that somebody else has started.
    resources : frozenset of str
        The names of the resources (:class:`~crystalmath.models.Resources`) that it can honour;
        a job that asks for another one is refused.

    Raises
    ------
    ValueError
        An engine without shared files vouches for no end, or says that its workers are here.
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
                "workers_here=False: nothing but the engine can tell that a job's processes ended"
            )


#: The options of every engine that are core's own.
OF_CORE = ("parcel",)


@frozen(kw_only=True)
class EngineSettings:
    """What core tells a plugin that makes a runner.

    Parameters
    ----------
    name : str
        The engine's name, the entry point's.
    home : pathlib.Path
        Everything the program writes lives below it.
    options : mapping of str to object
        The table ``[engines.<name>]`` of the configuration file.
    clusters : mapping of str to Cluster
        The tables ``[clusters.<name>]`` of it that are this engine's.
    parcel : int, optional
        How many small jobs core packs into one attempt; without it as many as take some 2 s.
    """

    name: str
    home: Path
    options: Mapping[str, Any] = field(factory=dict)
    clusters: Mapping[str, Cluster] = field(factory=dict)
    parcel: int | None = None

    @property
    def directory(self) -> Path:
        """Where the engine may write files of its own."""
        return self.home / "engines" / self.name

    def check_options(self, *known: str) -> None:
        """Refuse options that the engine does not know; `ConfigError` names the nearest."""
        for option in self.options:
            if option not in known:
                hint = did_you_mean(option, (*known, *OF_CORE))
                raise ConfigError(f"[engines.{self.name}] {option} is no option; {hint}")
