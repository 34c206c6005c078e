"""What the next try at a job begins with: a geometry, or files, that an earlier one has left."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import evolve

from crystalmath.errors import InvalidJob
from crystalmath.jobs.potcars import is_potcar
from crystalmath.jobs.worktree import files_below, scratch_folders
from crystalmath.recipes.lookup import look_up

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from crystalmath.config import Config
    from crystalmath.jobs.rundir import RunDirectory
    from crystalmath.models import JobSpec
    from crystalmath.quacc.store import JobMetadata

#: What recipes are called that look at geometries beside their own.
_OTHER_GEOMETRIES = {
    *("band", "bands", "defects", "elastic", "eos", "freq", "irc", "neb", "phonon", "phonons"),
    *("slabs", "tensor", "thermo", "vib"),
}


def moves_atoms_alone(name: str, configured: Config) -> bool:
    """Return whether a recipe's last geometry is one that it may go on from."""
    if _words(name) & _OTHER_GEOMETRIES:
        return False
    if "relax" in _words(name):
        return True
    try:
        return look_up(name, configured.recipes_allow).kind != "flow"
    except InvalidJob:
        return True  # what is wrong with the recipe is told where it is checked


def with_continuation(spec: JobSpec, configured: Config) -> JobSpec:
    """Return a job with what its cluster, or its home, says of attempts that follow a lost one.

    That counts for relaxations alone, whose end does not depend on where they begin: who submits
    dynamics has to ask for it. `InvalidJob`: it was asked for, and the recipe has no geometry from
    which it may go on.
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


# --- files -----------------------------------------------------------------------------------


#: The parameter of quacc's recipes.
PARAMETER = "copy_files"


def copied_files(
    job: JobMetadata,
    names: Sequence[str],
    directory: RunDirectory,
    configured: Config,
    given: object = None,
) -> dict[str, Any]:
    """Return the parameter with which a recipe copies files of a job's last calculation, too.

    The files must all lie in one folder, compressed or not, and the newest such counts. `given` is
    that parameter as the job has it, with files from elsewhere. `InvalidJob`: the recipe copies no
    files, or one is not there, empty, or none to be copied.
    """
    for name in names:
        if not name or "/" in name or is_potcar(name):
            raise InvalidJob(
                f"{name!r} is no file of a calculation to begin with; name one as WAVECAR or CHGCAR"
            )
    _check_recipe(job.recipe, names, configured)
    found: dict[str, dict[str, tuple[float, str]]] = {}
    for number in range(job.attempt, 0, -1):
        work = directory.work(number)
        for root in [work, *scratch_folders(work)]:
            for file in files_below(root):
                path = Path(root, file.path)
                name = path.name.removesuffix(".gz")
                if name in names and file.size and not file.is_link:
                    there = found.setdefault(str(path.parent), {})
                    there[name] = max(there.get(name, (0.0, "")), (file.modified_at, path.name))
    whole = {
        folder: max(there.values())
        for folder, there in found.items()
        if len(there) == len(set(names))
    }
    if not whole:
        raise InvalidJob(
            f"job {job.job_id} has left no {' and '.join(names)} in {directory.path}, or an empty "
            "one; without --copy it begins without"
        )
    source = max(whole, key=lambda folder: (whole[folder], folder))
    # By their own names: quacc finds no WAVECAR.gz where WAVECAR is asked for.
    filenames = [found[source][name][1] for name in names]
    return {PARAMETER: [*_others(given, names), {"source": source, "filenames": filenames}]}


def _others(given: object, names: Sequence[str]) -> Iterator[Any]:
    """Yield what is copied already but for those files; patterns and folders stay."""
    for spec in given if isinstance(given, list | tuple) else ():
        if not isinstance(spec, Mapping) or "filenames" not in spec:
            yield spec
            continue
        files = spec["filenames"]
        listed = files if isinstance(files, list | tuple) else [files]
        kept = [file for file in listed if str(file).removesuffix(".gz") not in names]
        if len(kept) == len(listed):
            yield spec
        elif kept:
            yield {**spec, "filenames": kept}


def _check_recipe(recipe: str, names: Sequence[str], configured: Config) -> None:
    signature = look_up(recipe, configured.recipes_allow).signature
    if signature is not None and PARAMETER not in signature.parameters:
        raise InvalidJob(
            f"{recipe} has no parameter {PARAMETER}, and cannot begin with {' and '.join(names)}; "
            "without --copy it begins without"
        )
