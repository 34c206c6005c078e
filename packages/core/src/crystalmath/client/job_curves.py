"""Make curves of the results of jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crystalmath.client.asking import Asking
from crystalmath.client.client_errors import raise_answered
from crystalmath.client.transport import PAGE
from crystalmath.models import Job

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crystalmath.models.curves import EquationOfState, EquationsOfState, Sweep


class JobCurves(Asking):
    """A value of many jobs against what they differ in; see :mod:`.sweeping`."""

    def sweep(
        self,
        job_ids: Sequence[str],
        x: str,
        y: str = "energy_per_atom",
        by: str | None = None,
    ) -> Sweep:
        """Return a value of completed jobs against a label or a parameter of theirs.

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
            Another label or parameter, which tells several series apart. Where jobs of several
            formulas have the same `x`, each (reduced) formula has a series of its own, too.

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

    def equations_of_state(self, job_ids: Sequence[str], by: str) -> EquationsOfState:
        """Fit an equation of state for each of several materials.

        Parameters
        ----------
        job_ids : sequence of str
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

        return make_equations_of_state(self, self._records(job_ids), by)

    def _records(self, job_ids: Sequence[str]) -> list[Job]:
        found = []
        for start in range(0, len(job_ids), PAGE):
            page = list(job_ids[start : start + PAGE])
            for told in self._answer("jobs.status_many", job_ids=page)["jobs"]:
                if told["status"] == "error":
                    raise_answered(told)
                found.append(Job.read(told))
        return found
