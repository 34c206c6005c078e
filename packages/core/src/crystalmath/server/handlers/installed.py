"""The handlers for engines, clusters, presets and recipes, and the one that reads structures."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Required, TypedDict, cast

from crystalmath import server
from crystalmath.errors import InvalidJob
from crystalmath.models import JobState
from crystalmath.models.fields import Limits
from crystalmath.models.job_notes import written_findings
from crystalmath.recipes.arguments import structure_taken
from crystalmath.server.parameter_schemas import parameters_schema
from crystalmath.server.pools import is_wanted
from crystalmath.server.rpc.declare import NoParams, method
from crystalmath.wire.answers import (
    ClusterList,
    EngineEntry,
    EngineList,
    JobId,
    Name,
    PresetList,
    ProvenCluster,
    ReadStructure,
    RecipeDescription,
    RecipeEntry,
    RecipeList,
    Structures,
)
from crystalmath.wire.schemas import SUBMISSION

if TYPE_CHECKING:
    from crystalmath.recipes.lookup import Recipe
    from crystalmath.service import JobService


@method(
    server.ENGINES_LIST,
    # Each plugin is imported, and a third-party one may hang.
    pool="engines",
)
def handle_engines_list(service: JobService, params: NoParams) -> EngineList:
    """List the installed workflow engines, and why one cannot be used, without starting any."""
    from attrs import asdict

    from crystalmath.quacc.engines import describe_engines

    del service, params
    engines = [
        asdict(info) | {"findings": written_findings(info.findings)} for info in describe_engines()
    ]
    return {"engines": cast("list[EngineEntry]", engines), "error": None}


# --- clusters --------------------------------------------------------------------------------


@method(
    server.CLUSTERS_LIST,
    # The engine is loaded, and a third-party one may hang.
    pool="engines",
)
def handle_clusters_list(service: JobService, params: NoParams) -> ClusterList:
    """List the clusters of the configuration file, and why their jobs would fail.

    No engine is started. Each batch system is asked whether it answers, which may take 15 s.
    """
    from crystalmath import config
    from crystalmath.service.cluster_probe import describe_clusters

    del service, params
    return {"clusters": describe_clusters(config.load()), "error": None}


class ClustersCheckParams(TypedDict, total=False):
    """The parameters of ``clusters.check``."""

    cluster: Required[Annotated[Name, "its name; every engine has one named local"]]
    job_id: Annotated[JobId, "the job of an earlier request; default: send one now"]
    environment: Annotated[Mapping[str, str], Limits(**SUBMISSION["environment"])]


@method(
    server.CLUSTERS_CHECK,
    # The engine is loaded, and a third-party one may hang.
    pool="checking clusters",
    by_server=True,
    repeatable=lambda params: params.get("job_id") is not None,  # else it sends a job
)
def handle_clusters_check(service: JobService, params: ClustersCheckParams) -> ProvenCluster:
    """Check a cluster by a small job there, which reports what jobs find.

    It is submitted with the caller's ``environment``, as any job, and may wait for hours. Call
    again with its ``job_id`` once it has ended. Then ``checks`` has what it found: host, versions,
    programs, POTCARs, clock, and how long it waited.
    """
    from attrs import asdict

    from crystalmath.service.cluster_probe import described, judged, probe

    name = params["cluster"]
    checks = described(name, service.config)
    job_id, status, error = params.get("job_id"), "error", None
    if job_id is not None:
        job = service.job(job_id)
        done = job.state is JobState.COMPLETED
        checks += judged(name, job, service.result(job_id) if done else None)
        status, error = job.state.value, job.error
    elif any(check.state == "error" for check in checks):
        error = next(check.remedy for check in checks if check.state == "error")
    else:
        job = service.submit(probe(name, params.get("environment")), wanted=is_wanted)
        job_id, status = job.job_id, job.state.value
    documents = [asdict(check) for check in checks]
    return {"job_id": job_id, "status": status, "checks": documents, "error": error}


# --- presets ---------------------------------------------------------------------------------


class PresetsListParams(TypedDict, total=False):
    """The parameters of ``presets.list``."""

    name: Annotated[Name, "only those of this name"]
    settings: Annotated[bool, "include the settings of each, not its name alone; default: true"]
    environment: Annotated[Mapping[str, str], Limits(**SUBMISSION["environment"])]


@method(server.PRESETS_LIST, pool="recipes")
def handle_presets_list(service: JobService, params: PresetsListParams) -> PresetList:
    """List quacc's presets with their settings, also the inherited ones.

    ``environment`` may name other folders of presets, as for ``jobs.submit``.
    """
    from attrs import asdict

    presets = service.presets(params.get("environment"), params.get("name"))
    documents = [asdict(each) for each in presets]
    if not params.get("settings", True):
        documents = [{**each, "settings": {}} for each in documents]
    return {"presets": documents, "error": None}


# --- structures ------------------------------------------------------------------------------

_MOST_STRUCTURES = 1000
_MOST_ATOMS = 100_000


class StructuresReadParams(TypedDict, total=False):
    """The parameters of ``structures.read``."""

    text: Required[Annotated[str, Limits(minLength=1, maxLength=4 * 2**20)]]
    name: Annotated[
        str, Limits(minLength=1, maxLength=255), "the file's name: slab.cif; default: structure"
    ]


@method(server.STRUCTURES_READ, pool="reading structures", bulk=True)
def handle_structures_read(service: JobService, params: StructuresReadParams) -> Structures:
    """Read the structures of a text: POSCAR, CIF, XYZ, extended XYZ, or the input of pw.x.

    XSF, PDB, MOL, SDF and GEN are read as well. Readers of other formats open further files,
    evaluate what they read, or do not notice a missing end. Nothing is recorded. The answer has the
    first 1000 structures, and 100,000 atoms at most.
    """
    from crystalmath.recipes.structures import read_text, to_ase_json

    del service
    in_text = read_text(params["text"], params.get("name", "structure"))
    structures: list[ReadStructure] = []
    left = _MOST_ATOMS
    for name, atoms in in_text[:_MOST_STRUCTURES]:
        left -= len(atoms)
        if left < 0:
            break
        structures.append(
            {
                "name": name,
                "formula": atoms.get_chemical_formula(),
                "structure": to_ase_json(atoms),
                "numbers": atoms.numbers.tolist(),
                "positions": atoms.positions.tolist(),
                "cell": atoms.cell.tolist(),
                "pbc": atoms.pbc.tolist(),
            }
        )
    if not structures:
        raise InvalidJob(
            f"the structure has {len(in_text[0][1])} atoms; structures.read takes {_MOST_ATOMS} at "
            "most"
        )
    return {"structures": structures, "more": len(in_text) - len(structures), "error": None}


# --- recipes ---------------------------------------------------------------------------------


class RecipesListParams(TypedDict, total=False):
    """The parameters of ``recipes.list``."""

    prefix: Annotated[str, "the beginning of the name, with or without quacc.recipes."]


@method(server.RECIPES_LIST, pool="recipes")
def handle_recipes_list(service: JobService, params: RecipesListParams) -> RecipeList:
    """List the recipes: quacc's jobs and flows, and those that the home admits."""
    from crystalmath.recipes.lookup import NAMESPACE, catalogue

    prefix = params.get("prefix", "")
    beginnings = (prefix, f"{NAMESPACE}.{prefix}")
    recipes: list[RecipeEntry] = [
        {"name": recipe.name, "kind": recipe.kind, "summary": _headline(recipe)}
        for recipe in catalogue(service.config.recipes_allow)
        if recipe.name.startswith(beginnings)
    ]
    return {"recipes": recipes, "error": None}


class RecipesDescribeParams(TypedDict, total=False):
    """The parameters of ``recipes.describe``."""

    recipe: Required[Annotated[str, Limits(**SUBMISSION["recipe"])]]
    members: Annotated[
        bool,
        "include the members of tables, and as `x-keywords` the further parameters that the "
        "recipe's program reads; default: false",
    ]


@method(server.RECIPES_DESCRIBE, pool="recipes")
def handle_recipes_describe(
    service: JobService, params: RecipesDescribeParams
) -> RecipeDescription:
    """Describe a recipe: its docstring, and the JSON Schema of its parameters.

    The parameter that gets the structure is left out.
    """
    from crystalmath.recipes.lookup import check_namespace, full_name, look_up

    allow = service.config.recipes_allow
    name = full_name(params["recipe"], allow)
    if name in allow:
        check_namespace(name)
    recipe = look_up(name, allow)
    return {
        "name": recipe.name,
        "kind": recipe.kind,
        "file": recipe.file,
        "line": recipe.line,
        "docstring": recipe.docstring,
        "structure": structure_taken(recipe),
        "parameters": parameters_schema(recipe, members=params.get("members", False)),
        "error": None,
    }


def _headline(recipe: Recipe) -> str:
    # "Workflow consisting of:" needs the list below it.
    paragraphs = re.split(r"(?<!:)\n\s*\n", (recipe.docstring or "").strip())
    return " ".join(paragraphs[0].split())
