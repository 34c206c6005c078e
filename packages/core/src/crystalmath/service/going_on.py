"""Which jobs may go on from a geometry that an earlier calculation of theirs has left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import evolve

from crystalmath.errors import InvalidJob

if TYPE_CHECKING:
    from crystalmath.config import Config
    from crystalmath.models import JobSpec

#: What recipes are called that look at geometries beside their own.
_OTHER_GEOMETRIES = {
    *("band", "bands", "defects", "elastic", "eos", "freq", "irc", "neb", "phonon", "phonons"),
    *("slabs", "tensor", "thermo", "vib"),
}


def moves_atoms_alone(name: str, configured: Config) -> bool:
    """Return whether a recipe's last geometry is one that it may go on from."""
    from crystalmath.recipes.lookup import look_up

    if _words(name) & _OTHER_GEOMETRIES:
        return False
    try:
        is_flow = look_up(name, configured.recipes_allow).kind == "flow"
    except InvalidJob:
        return True  # what is wrong with the recipe is told where it is checked
    return not is_flow or "relax" in _words(name)


def with_continuation(spec: JobSpec, configured: Config) -> JobSpec:
    """Return a job with what its cluster, or its home, says of attempts that follow a lost one.

    That counts for relaxations alone, whose end does not depend on where they begin: who submits
    dynamics has to ask for it.

    Parameters
    ----------
    spec : JobSpec
        The job.
    configured : Config
        The home's configuration.

    Raises
    ------
    InvalidJob
        It was asked for, and the recipe has no geometry from which it may go on.
    """
    # Most jobs are asked for nothing of the kind; of those the recipe need not be looked up.
    if spec.continue_lost is None and "relax" not in _words(spec.recipe):
        return spec
    goes_on = spec.atoms is not None and moves_atoms_alone(spec.recipe, configured)
    if spec.continue_lost and not goes_on:
        why = "takes no structure" if spec.atoms is None else "computes displaced geometries, too"
        raise InvalidJob(
            f"{spec.recipe} cannot go on from the geometry of an attempt that was lost, as it "
            f"{why}; leave continue_lost (--continue-lost) out"
        )
    if spec.continue_lost is not None or not goes_on:
        return spec
    cluster = configured.clusters.get(spec.cluster)
    of_cluster = cluster.continue_lost if cluster else None
    says = configured.continue_lost if of_cluster is None else of_cluster
    return evolve(spec, continue_lost=True) if says else spec


def _words(recipe: str) -> set[str]:
    return set(recipe.rpartition(".")[2].split("_"))
