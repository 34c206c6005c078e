"""Geometries and files from earlier attempts, with which the next attempt begins."""

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

#: Words in the names of recipes that also compute other geometries.
_OTHER_GEOMETRIES = {
    *("band", "bands", "defects", "elastic", "eos", "freq", "irc", "neb", "phonon", "phonons"),
    *("slabs", "tensor", "thermo", "vib"),
}


def moves_atoms_alone(name: str, configured: Config) -> bool:
    """Return whether a recipe can continue from its last geometry."""
    if _words(name) & _OTHER_GEOMETRIES:
        return False
    if "relax" in _words(name):
        return True
    try:
        return look_up(name, configured.recipes_allow).kind != "flow"
    except InvalidJob:
        return True  # the check of the recipe reports the error


def with_continuation(spec: JobSpec, configured: Config) -> JobSpec:
    """Return a job with the `continue_lost` of its cluster, or of its home.

    The default is for relaxations alone, whose end does not depend on their start; submissions of
    dynamics must set the term themselves. `InvalidJob`: it is set, and the recipe cannot continue
    from a geometry.
    """
    # The recipe of most jobs need not be looked up.
    if spec.continue_lost is None and "relax" not in _words(spec.recipe):
        return spec
    goes_on = spec.atoms is not None and moves_atoms_alone(spec.recipe, configured)
    if spec.continue_lost and not goes_on:
        why = "takes no structure" if spec.atoms is None else "also computes displaced geometries"
        raise InvalidJob(
            f"{spec.recipe} cannot continue from the geometry of a lost attempt, as it {why}; "
            "leave out continue_lost (--continue-lost)"
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


#: The parameter of quacc's recipes that names the files to copy.
PARAMETER = "copy_files"


def copied_files(
    job: JobMetadata,
    names: Sequence[str],
    directory: RunDirectory,
    configured: Config,
    copy_files: object = None,
) -> dict[str, Any]:
    """Return the parameter that makes a recipe also copy files of a job's last calculation.

    The files must lie in one folder, compressed or not; the newest such folder counts. `copy_files`
    is the job's own value of the parameter. `InvalidJob`: the recipe copies no files, or a file is
    missing, empty, or must not be copied.
    """
    for name in names:
        if not name or "/" in name or is_potcar(name):
            raise InvalidJob(
                f"{name!r} is no file that a calculation can begin with; name one such as WAVECAR "
                "or CHGCAR"
            )
    _check_recipe(job.recipe, names, configured)
    folders: dict[str, dict[str, tuple[float, str]]] = {}
    for number in range(job.attempt, 0, -1):
        work = directory.work(number)
        for root in [work, *scratch_folders(work)]:
            for file in files_below(root):
                path = Path(root, file.path)
                name = path.name.removesuffix(".gz")
                if name in names and file.size and not file.is_link:
                    there = folders.setdefault(str(path.parent), {})
                    there[name] = max(there.get(name, (0.0, "")), (file.modified_at, path.name))
    whole = {
        folder: max(there.values())
        for folder, there in folders.items()
        if len(there) == len(set(names))
    }
    if not whole:
        raise InvalidJob(
            f"job {job.job_id} has left no {' and '.join(names)} in {directory.path}, or an empty "
            "one; without --copy it begins without it"
        )
    source = max(whole, key=lambda folder: (whole[folder], folder))
    # With their suffixes: quacc does not find WAVECAR.gz under the name WAVECAR.
    filenames = [folders[source][name][1] for name in names]
    return {PARAMETER: [*_others(copy_files, names), {"source": source, "filenames": filenames}]}


def _others(copy_files: object, names: Sequence[str]) -> Iterator[Any]:
    """Yield the entries of `copy_files` without some files; patterns and folders stay."""
    for spec in copy_files if isinstance(copy_files, list | tuple) else ():
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
            "leave out --copy"
        )
