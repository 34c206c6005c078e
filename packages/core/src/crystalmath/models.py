"""Records that cross the boundaries between core, engines, plugins and front ends."""

from __future__ import annotations

import difflib
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal

from attrs import field, frozen

from crystalmath.errors import ConfigError, Finding

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ase import Atoms

__all__ = [
    "Attempt",
    "Capabilities",
    "EngineSettings",
    "Finding",
    "JobSpec",
    "JobState",
    "Pseudopotential",
    "Sighting",
]


class JobState(str, Enum):
    """The states of a job that people see."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    def is_terminal(self) -> bool:
        """Tell whether the state never changes any more."""
        return self in {JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED}


@frozen(kw_only=True)
class JobSpec:
    """Everything that decides what a job computes.

    Parameters
    ----------
    job_id : str
        A UUID4 as text.
    recipe : str
        Full dotted name, ``quacc.recipes.emt.core.relax_job``.
    atoms : ase.Atoms
        Passed to the recipe as its first argument (positions in Å).
    parameters : mapping of str to object
        Passed to the recipe by name, all of them.
    cluster : str
        One of the engine's clusters.
    walltime_s : float, optional
        Time in seconds, counted from the moment the job starts, after which it is stopped.
    environment : mapping of str to str
        Environment variables that the job sees, on top of its worker's own.
    files : mapping of str to str
        The pseudopotential files that it reads, and the SHA-256 of each when it was checked. They
        do not make it another job.
    """

    job_id: str
    recipe: str
    atoms: Atoms
    parameters: Mapping[str, Any] = field(factory=dict)
    cluster: str = "local"
    walltime_s: float | None = None
    environment: Mapping[str, str] = field(factory=dict)
    files: Mapping[str, str] = field(factory=dict)


@frozen(kw_only=True)
class Attempt:
    """One try at a job, as an engine sees it.

    Parameters
    ----------
    id : str
        Unique and stable. The engine tags its native work with it, so that ``probe`` finds what
        was launched by a process that died before it could record a handle.
    job_id : str
        The job.
    directory : pathlib.Path
        What the engine's worker hands to :func:`crystalmath.worker.run`.
    cluster : str
        Which of the engine's clusters runs it.
    walltime_s : float, optional
        How long the job may run, in seconds. Core enforces it; a batch engine may ask for it.
    handle : str, optional
        What ``launch`` returned for it, if that was recorded.
    """

    id: str
    job_id: str
    directory: Path
    cluster: str
    walltime_s: float | None = None
    handle: str | None = None


@frozen
class Sighting:
    """What an engine can say about an attempt: a hint about liveness, never an outcome.

    Parameters
    ----------
    state : {"queued", "running", "gone", "unknown"}
        ``gone`` promises only that the engine will not start the attempt any more.
    reason : str, optional
        The engine's own word (``Priority``, ``OUT_OF_MEMORY``); it reaches the user.
    """

    state: Literal["queued", "running", "gone", "unknown"]
    reason: str | None = None


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
        After ``release`` an attempt that had not begun is not started any more.
    workers_here : bool
        Jobs run on the host of the process that submits them.
    """

    max_queued: int = 1000
    gone_means_dead: bool = False
    queue_dies_with_owner: bool = False
    drops_queued: bool = False
    workers_here: bool = True


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
    """

    name: str
    home: Path
    options: Mapping[str, Any] = field(factory=dict)

    @property
    def directory(self) -> Path:
        """Where the engine may write files of its own."""
        return self.home / "engines" / self.name

    def check_options(self, *known: str) -> None:
        """Refuse options that the engine does not know; `ConfigError` names the nearest."""
        for option in self.options:
            if option not in known:
                near = difflib.get_close_matches(option, known, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
                raise ConfigError(f"[engines.{self.name}] {option} is no option; {hint}")


@frozen(kw_only=True)
class Pseudopotential:
    """A pseudopotential file that a job reads, as it was when the job was submitted.

    Parameters
    ----------
    symbol : str
        Chemical symbol.
    setup : str
        The dataset: the name of the POTCAR's folder (``Ba_sv``), or of the UPF file.
    path : str
        The file.
    sha256 : str
        Of the whole file, in hexadecimal.
    titel : str, optional
        ``PAW_PBE Ba_sv 06Sep2000``.
    lexch : str, optional
        Its functional: ``PE``, ``CA``, ...
    zval : float, optional
        Number of valence electrons.
    """

    symbol: str
    setup: str
    path: str
    sha256: str
    titel: str | None = None
    lexch: str | None = None
    zval: float | None = None
