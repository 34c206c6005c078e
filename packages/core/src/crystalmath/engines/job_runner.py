"""The caller's side of an engine, and how a job gets its id."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ase import Atoms

    from crystalmath.models import JobState


class JobRunner(ABC):
    """Submit recipes to one engine, and follow the jobs."""

    @abstractmethod
    def submit(
        self,
        recipe_fullname: str,
        atoms: Atoms | None = None,
        cluster_name: str = "local",
        **kwargs: Any,
    ) -> str:
        """Submit a recipe.

        It either raises and leaves nothing behind, or returns and reports later trouble through
        :meth:`get_status`. It does not wait for the engine.

        Parameters
        ----------
        recipe_fullname : str
            Dotted path of the recipe, ``quacc.recipes.emt.core.relax_job``.
        atoms : ase.Atoms, optional
            The structure, the recipe's first argument. It is copied. Left out for a recipe that
            takes none.
        cluster_name : str
            One of the engine's clusters.
        **kwargs
            The recipe's parameters, all of them; no name is reserved.

        Returns
        -------
        str
            The job's id, a UUID4.

        Raises
        ------
        ValueError
            The recipe's name is not permitted, the cluster is unknown, a parameter cannot be
            written down, or a structure is missing or not taken
            (:class:`~crystalmath.errors.InvalidJob`).
        """

    @abstractmethod
    def get_status(self, job_id: str) -> JobState:
        """Return a job's present state. Never blocks on the engine.

        Raises
        ------
        KeyError
            No job has this id.
        """

    @abstractmethod
    def get_result(self, job_id: str) -> dict[str, Any] | None:
        """Return the result of a job.

        Returns
        -------
        dict or None
            ``None`` while the job is not finished; ``{"error": message, ...}`` if it failed;
            ``{"error": "cancelled"}`` if it was cancelled; else the recipe's return value, which
            is ``{"value": ...}`` if it is no dict.

        Raises
        ------
        KeyError
            No job has this id.
        """

    @abstractmethod
    def cancel(self, job_id: str) -> bool:
        """Request that a job be stopped.

        The state reads ``cancelled`` only once no process of the job is alive.

        Returns
        -------
        bool
            Whether a cancellation was requested; ``False`` for a job that had finished.

        Raises
        ------
        KeyError
            No job has this id.
        """


def generate_job_id() -> str:
    """Make a new job id, a UUID4 as text."""
    return str(uuid.uuid4())
