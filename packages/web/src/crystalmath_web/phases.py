"""Formation energies of a study's jobs, and their energies above the convex hull."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, cast

from crystalmath.errors import InvalidJob, UnknownJob
from crystalmath_web.guard import RefusalError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crystalmath.client import Client
    from crystalmath.client.transport import Transport


def phases(client: Client, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the energies of jobs above the convex hull, as ``crystalmath export`` writes them.

    Parameters
    ----------
    client : Client
        The client that reads the jobs.
    params : mapping
        ``job_ids``, the jobs, and perhaps ``references``, labels of the jobs of pure elements.

    Returns
    -------
    dict
        ``energies``: ``formation_energy`` and ``e_above_hull`` in eV/atom by the ids of jobs that
        have them; and ``warnings``. If there is no hull, ``error`` with its ``code`` instead.

    Raises
    ------
    RefusalError
        The parameters are of other types.
    """
    from crystalmath.client.job_reading import named_jobs
    from crystalmath.client.phase_energies import phase_energies
    from crystalmath.client.transport import Caller

    ids, references = params.get("job_ids"), params.get("references") or {}
    if not (isinstance(ids, list) and isinstance(references, dict)):
        raise RefusalError(400, "'job_ids' is a list of ids, and 'references' has labels")
    if not all(isinstance(each, str) for each in [*ids, *references, *references.values()]):
        raise RefusalError(400, "ids, and the names and values of labels, are text")
    caller = Caller(cast("Transport", client))  # a client passes calls on as its transport does
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            energies = phase_energies(caller, named_jobs(client.ask, ids), references)
        except (InvalidJob, UnknownJob) as error:
            return {"status": "error", "error": str(error), "code": error.code}
    told = [str(one.message) for one in caught if one.category is UserWarning]
    return {"energies": energies, "warnings": told}
