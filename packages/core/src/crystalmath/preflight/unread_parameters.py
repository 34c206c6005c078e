"""Find parameters of quacc's recipes that nothing reads, or that would end the recipe.

A recipe hands parameters that its signature does not name to a calculator. EMT, Lennard-Jones and
tblite keep unknown names and never read them; Quantum ESPRESSO's writer drops keys that its program
does not have. A table goes to a function that takes no other keys: the recipe would end with an
error, perhaps after hours. Only ASE's list of keywords is imported for this.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import functools
import inspect
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from crystalmath.errors import MISSPELT, InvalidJob, is_slip
from crystalmath.models import Finding
from crystalmath.preflight.espresso_parameters import (
    beaten_input,
    program_of_recipe,
    unread_input,
    unread_keywords,
)
from crystalmath.recipes.arguments import structure_argument
from crystalmath.recipes.lookup import family_of, is_quaccs, look_up, nearest
from crystalmath.recipes.parameter_kinds import check_flag, check_kinds
from crystalmath.recipes.source import (
    CALCULATORS,
    arguments_of,
    defaults_of,
    definition,
    documented,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from crystalmath.recipes.lookup import Recipe

_RUNNER = ("quacc.runners.ase", "Runner")
#: The methods of quacc's runner that get a table.
RUN_BY = {"opt_params": "run_opt", "md_params": "run_md"}
_SLABS = "quacc.atoms.slabs"
#: The functions that share another table, and the arguments that they get beside it.
_GOES_TO: dict[str, tuple[tuple[tuple[str, ...], ...], tuple[str, ...]]] = {
    "vib_kwargs": (
        (("ase.vibrations.vibrations", "Vibrations", "__init__"),),
        ("atoms", "name"),
    ),
    "make_slabs_kwargs": (
        (
            (_SLABS, "make_slabs_from_bulk"),
            ("pymatgen.core.surface", "generate_all_slabs"),
        ),
        (),
    ),
    "make_ads_kwargs": (((_SLABS, "make_adsorbate_structures"),), ("adsorbate",)),
    "deform_kwargs": ((("quacc.atoms.deformation", "make_deformations_from_bulk"),), ()),
}
#: Ensembles that need a compressibility, which quacc does not set.
_COMPRESSED = ("npt_berendsen", "npt_inhomogeneous")
_LIKE = 0.75


def keys_run_by(table: str) -> tuple[str, ...]:
    """Return the keys of ``opt_params`` or ``md_params``."""
    return arguments_of(*_RUNNER, RUN_BY[table])


def members_of(recipe: Recipe, table: str) -> Iterator[tuple[inspect.Parameter, str]]:
    """Yield the members that a table of a recipe's may have, and the docstring about each.

    A member that the recipe sets itself is left out.
    """
    functions, beside = _GOES_TO.get(table, ((), ()))
    if table in RUN_BY:
        functions = ((*_RUNNER, RUN_BY[table]),)
        beside = tuple(_runner_arguments(recipe.name, table, keys_run_by(table)))
    for function in functions:
        arguments, docstring = documented(*function)
        yield from ((item, docstring) for item in arguments if item.name not in beside)


def named_jobs(recipe: Recipe) -> dict[str, str]:
    """Return the recipes of a flow's jobs by their names in ``job_params``."""
    jobs = dict(_JOB.findall(recipe.docstring or ""))
    return {name: jobs[name] for name in _named_jobs(recipe.name) if name in jobs}


def check_tables(recipe: Recipe, parameters: Mapping[str, Any], place: str) -> Iterator[Finding]:
    """Yield findings about keys of tables that would end a recipe with an error."""
    named = {} if recipe.signature is None else recipe.signature.parameters
    for table in (*RUN_BY, *_GOES_TO):
        keys = parameters.get(table)
        if table not in named or not isinstance(keys, Mapping):
            continue
        taken = keys_run_by(table) if table in RUN_BY else _keys_of(table)
        itself = _runner_arguments(recipe.name, table, taken) if taken else frozenset()
        for name in keys if taken else ():
            if name in itself:
                yield _set_by_recipe(recipe, place, table, name)
            elif name not in taken:
                yield _unknown(recipe, f"{place}{table}", name, taken)
        if table == "opt_params":
            yield from _optimizer_findings(recipe, keys, f"{place}{table}.optimizer_kwargs")
    if "md_params" in named and isinstance(parameters.get("dynamics"), str):
        yield from _ensemble_findings(recipe, parameters, place)


def _keys_of(table: str) -> tuple[str, ...]:
    functions, beside = _GOES_TO[table]
    taken = [arguments_of(*function, others=True) for function in functions]
    if not all(taken):
        return ()  # of another release, or not installed
    return tuple(dict.fromkeys(name for each in taken for name in each if name not in beside))


@functools.cache
def _runner_arguments(recipe: str, table: str, taken: Sequence[str]) -> frozenset[str]:
    """Return the arguments that a recipe passes to the runner beside the table."""
    module, _, name = recipe.rpartition(".")
    function = definition(module, name)
    for node in ast.walk(function) if function is not None and table in RUN_BY else ():
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == RUN_BY[table]
        ):
            return frozenset(
                (*taken[: len(node.args)], *(each.arg for each in node.keywords if each.arg))
            )
    return frozenset()


def _optimizer_findings(recipe: Recipe, table: Mapping[str, Any], place: str) -> Iterator[Finding]:
    kwargs = table.get("optimizer_kwargs")
    if isinstance(kwargs, Mapping) and kwargs:
        taken = _optimizer_takes(table.get("optimizer"))
        for name in (name for name in kwargs if taken and name not in taken):
            yield _unknown(recipe, place, name, taken)


def _optimizer_takes(optimizer: object) -> tuple[str, ...]:
    """Return the keys that an optimizer of ASE's takes; those of all if the recipe chooses it."""
    from ase import optimize

    from crystalmath.recipes.ase_classes import class_named

    kinds = [getattr(optimize, name) for name in optimize.__all__]
    with contextlib.suppress(InvalidJob):
        chosen = class_named(optimizer) if isinstance(optimizer, str) else optimizer
        if isinstance(chosen, type):
            kinds = [chosen]
    if not all(kind.__module__.startswith("ase.") for kind in kinds):
        return ()
    names = [
        name
        for kind in kinds
        for base in kind.__mro__
        if "__init__" in vars(base) and base is not object
        for name in inspect.signature(base.__init__).parameters
    ]
    quaccs = {"self", "atoms", "trajectory", "args", "kwargs"}
    return tuple(name for name in dict.fromkeys(names) if name not in quaccs)


def _ensemble_findings(
    recipe: Recipe, parameters: Mapping[str, Any], place: str
) -> Iterator[Finding]:
    """Yield a finding about a parameter that an ensemble needs: ASE's class would not start."""
    ensemble = parameters["dynamics"].lower()
    table = parameters.get("md_params")
    kwargs = table.get("dynamics_kwargs") if isinstance(table, Mapping) else None
    names = set(kwargs) if isinstance(kwargs, Mapping) else set()
    if parameters.get("temperature_K") is not None:
        names.add("temperature_K")
    if ensemble.startswith(("nvt", "npt")) and not names & {"temperature_K", "temperature"}:
        full, remedy = f"{place}temperature_K", "give it, in K"
    elif ensemble in _COMPRESSED and not names & {"compressibility_au", "compressibility"}:
        full = f"{place}md_params.dynamics_kwargs.compressibility_au"
        remedy = "give it, in Å³/eV: the 4.57e-5 per bar of water are 73.2"
    else:
        return
    yield Finding(
        severity="error",
        code="parameter_missing",
        message=f"{recipe.name} needs {full!r} with dynamics = {parameters['dynamics']!r}",
        source=f"the parameter {full}",
        remedy=remedy,
    )


def _set_by_recipe(recipe: Recipe, place: str, table: str, name: object) -> Finding:
    named = {} if recipe.signature is None else recipe.signature.parameters
    return Finding(
        severity="error",
        code="parameter_unknown",
        message=f"{recipe.name} sets {name!r} itself: '{place}{table}' cannot hold it",
        source=f"the parameter {place}{table}.{name}",
        remedy=f"give it as {place}{name}" if name in named else "leave it out",
    )


def _unknown(recipe: Recipe, place: str, name: object, taken: Sequence[str]) -> Finding:
    like = difflib.get_close_matches(str(name)[:80], taken, 1, _LIKE)
    full = f"{place}.{name}"
    return Finding(
        severity="error",
        code="parameter_unknown",
        message=f"{recipe.name} has no {full!r}: it takes {', '.join(taken)}",
        source=f"the parameter {full}",
        remedy=f"did you mean {place}.{like[0]}?" if like else "leave it out",
    )


#: Parameters that all calculators of ASE's take.
_ALL_TAKE = ("restart", "ignore_bad_restart_file", "label", "atoms", "directory")
#: A job in the docstring of a flow: `- name: "relax_job"`, and below it `- job: [quacc....][]`.
_JOB = re.compile(r'- name: "(\w+)"\s*\n\s*- job: \[([\w.]+)\]')
#: The key in `job_params` for parameters of all jobs of a flow.
_ALL = "all"
_NO_PLACE = "leave it out"
#: The begin of a remedy that names another parameter.
_SUGGESTS = re.compile("did you mean |it belongs into ")
_SHORTEST_WORD = 4
#: The dots in the name of a namelist's key: ``input_data.system.ecutwfc``.
_IN_NAMELIST = 2


def check_unread(recipe: Recipe, parameters: Mapping[str, Any]) -> list[Finding]:
    """Return findings about parameters of a recipe that nothing reads, or that would end it.

    The parameters of a flow's jobs are in ``job_params``. Codes: ``parameter_unread`` and
    ``parameter_misspelt``, warnings; the errors ``parameter_unknown``, ``parameter_kind`` and
    ``parameter_missing``.
    """
    if not is_quaccs(recipe.name):
        return []
    return [*job_faults(recipe, parameters, ""), *_flow_findings(recipe, parameters)]


def place_of(recipe: Recipe, name: str, *, named: bool = False) -> str | None:
    """Return the place of a parameter in a recipe of quacc's, ``opt_params.fmax``, if it has one.

    With `named`, a recipe that takes parameters of any name has a place for its own names only.
    """
    arguments = {} if recipe.signature is None else recipe.signature.parameters
    if name.partition(".")[0] in arguments:
        return name
    for full, key in _inner(arguments).items():
        if key == name:
            return full
    others = any(item.kind is inspect.Parameter.VAR_KEYWORD for item in arguments.values())
    return name if others and not named else None


def _flow_findings(recipe: Recipe, parameters: Mapping[str, Any]) -> Iterator[Finding]:
    job_params = parameters.get("job_params")
    for name, key in _required_keys(recipe.name):
        of_job = job_params.get(name) if isinstance(job_params, Mapping) else None
        if not isinstance(of_job, Mapping) or key not in of_job:
            full = f"job_params.{name}.{key}"
            yield Finding(
                severity="error",
                code="parameter_missing",
                message=f"{recipe.name} needs {full!r}: the flow itself reads it",
                source=f"the parameter {full}",
                remedy="give it; an empty table, {}, is enough",
            )
    if not isinstance(job_params, Mapping):
        return
    named = _named_jobs(recipe.name)
    for name in job_params if named else ():
        if name not in (*named, _ALL):
            yield _unknown(recipe, "job_params", name, named)
    jobs = {}
    for name, full in _JOB.findall(recipe.docstring or ""):
        with contextlib.suppress(InvalidJob):  # the docstring may be about another release
            jobs[name] = look_up(full)
    for name, job in jobs.items():
        if isinstance(job_params.get(name), Mapping):
            yield from job_faults(job, job_params[name], f"job_params.{name}.")
    if isinstance(job_params.get(_ALL), Mapping):
        yield from _findings_for_all(list(jobs.values()), job_params[_ALL])


@functools.cache
def _required_keys(recipe: str) -> frozenset[tuple[str, str]]:
    """Return the job and key of values in ``job_params`` that a flow reads unconditionally."""
    module, _, name = recipe.rpartition(".")
    flow = definition(module, name)
    return frozenset(
        (str(node.value.slice.value), str(node.slice.value))
        for node in ([] if flow is None else ast.walk(flow))
        if isinstance(node, ast.Subscript)
        and isinstance(node.ctx, ast.Load)
        and isinstance(node.slice, ast.Constant)
        and isinstance(node.value, ast.Subscript)
        and isinstance(node.value.slice, ast.Constant)
        and getattr(node.value.value, "id", "") == "job_params"
    )


@functools.cache
def _named_jobs(recipe: str) -> tuple[str, ...]:
    """Return the names of jobs that a flow takes in its ``job_params``; none: it is unknown."""
    module, _, name = recipe.rpartition(".")
    flow = definition(module, name)
    for node in [] if flow is None else ast.walk(flow):
        if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Dict):
            keywords = {each.arg: getattr(each.value, "id", "") for each in node.keywords}
            if keywords.get("param_swaps") == "job_params":
                return tuple(str(getattr(key, "value", "")) for key in node.args[0].keys)
    return ()


def _findings_for_all(jobs: list[Recipe], parameters: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield findings about parameters of all jobs of a flow, unless one job reads them."""
    by_job = [
        {each.source: each for each in job_faults(job, parameters, f"job_params.{_ALL}.")}
        for job in jobs
    ]
    for source in dict.fromkeys(name for of_job in by_job for name in of_job):
        findings = [of_job[source] for of_job in by_job if source in of_job]
        # Findings with a suggestion go first.
        findings.sort(key=lambda each: (each.severity != "error", each.code != MISSPELT))
        if findings[0].severity == "error" or len(findings) == len(jobs):
            yield findings[0]


def job_faults(recipe: Recipe, parameters: Mapping[str, Any], place: str) -> Iterator[Finding]:
    """Yield findings about some of a job's parameters.

    With a `place`, ``job_params.relax_job.``, the job is one that a flow calls.
    """
    if place:
        yield from _step_errors(recipe, parameters, place)
    yield from check_tables(recipe, parameters, place)
    family = family_of(recipe.name)
    if family == "espresso":
        yield from _espresso_findings(recipe, parameters, place)
    calculator = CALCULATORS.get(family)
    if calculator is None or recipe.signature is None:
        return
    arguments = recipe.signature.parameters
    if not any(item.kind is inspect.Parameter.VAR_KEYWORD for item in arguments.values()):
        return  # `argument_faults` refuses unknown names
    unnamed = [name for name in parameters if name not in arguments]
    taken = defaults_of(*calculator) if unnamed else None
    if taken is None:
        return  # the calculator is not installed, or another release
    for name in unnamed:
        if name not in taken and name not in _ALL_TAKE:
            yield _finding(
                f"{place}{name}",
                f"nothing reads the parameter {name!r} of {recipe.name}: the calculator "
                f"{calculator[1]} takes it and never looks at it",
                _suggestion(name, arguments, taken, place),
            )


def _step_errors(recipe: Recipe, parameters: Mapping[str, Any], place: str) -> Iterator[Finding]:
    """Yield the errors in parameters of a flow's job, at which the flow would end."""
    arguments = {} if recipe.signature is None else recipe.signature.parameters
    first = structure_argument(recipe) if arguments else None
    wrong = []
    try:
        for name, item in arguments.items():
            check_flag(recipe, item, parameters.get(name))
        check_kinds(recipe, parameters)
    except InvalidJob as error:
        remedy = "correct it, or leave it out"
        wrong.append(("parameter_kind", str(error), place.removesuffix("."), remedy))
    takes_any = any(item.kind is inspect.Parameter.VAR_KEYWORD for item in arguments.values())
    for name in parameters if arguments else ():
        message = ""
        if first is not None and name == first.name == "atoms":
            message = f"{name!r} is the structure that {recipe.name} is called with"
        elif name not in arguments and not takes_any:
            near = nearest(str(name), list(arguments))
            message = f"the recipe {recipe.name} has no parameter {name!r:.80}{near}"
        if message:
            wrong.append(("parameter_unknown", message, f"{place}{name}", _NO_PLACE))
    for code, message, source, remedy in wrong:
        yield Finding(
            severity="error",
            code=code,
            message=message,
            source=f"the parameter {source}",
            remedy=remedy,
        )


def _espresso_findings(
    recipe: Recipe, parameters: Mapping[str, Any], place: str
) -> Iterator[Finding]:
    program = program_of_recipe(recipe.name)
    if program is None:
        return
    named = {} if recipe.signature is None else recipe.signature.parameters
    keywords = {name: value for name, value in parameters.items() if name not in named}
    input_data = parameters.get("input_data")
    table = input_data if isinstance(input_data, Mapping) else {}
    unread = [
        (name, f"the parameter {name!r} of {recipe.name}", why, remedy)
        for name, why, remedy in unread_keywords(program, keywords)
    ]
    unread += [
        (
            f"input_data.{name}",
            f"{name!r} in the parameter 'input_data' of {recipe.name}",
            why,
            remedy,
        )
        for name, why, remedy in (
            *unread_input(program, table),
            *beaten_input(program, table, keywords),
        )
    ]
    for name, what, why, remedy in unread:
        meant = _table_suggestion(name, named, place)
        if meant is None and remedy is not None:
            meant = remedy.replace("%", place, 1)
        elif meant is None:
            meant = _suggestion(name, named, (), place)
        # ASE writes namelists without a check, and a newer program may know more keys.
        certain = name.count(".") < _IN_NAMELIST or (meant is not None and _is_slip(name, meant))
        yield _finding(f"{place}{name}", f"nothing reads {what}: {why}", meant, certain=certain)


def _is_slip(name: str, meant: str) -> bool:
    written, key = (each.rpartition(".")[2].lower() for each in (name, meant.removesuffix("?")))
    return written == key or is_slip(written, key)


def _finding(name: str, message: str, remedy: str | None, *, certain: bool = True) -> Finding:
    """Return a warning; its code is that of a slip if it is `certain` that nothing reads it."""
    return Finding(
        severity="warning",
        code=MISSPELT if remedy and certain and _SUGGESTS.match(remedy) else "parameter_unread",
        message=message,
        source=f"the parameter {name}",
        remedy=remedy or _NO_PLACE,
    )


def _suggestion(
    name: str, arguments: Mapping[str, inspect.Parameter], taken: Iterable[str], place: str
) -> str | None:
    """Return words on where a parameter may belong, if anywhere."""
    if certain := _table_suggestion(name, arguments, place):
        return certain
    inner = _inner(arguments)
    places = {key: key for key in (*arguments, *taken)} | inner
    wanted = name.lower()
    like = difflib.get_close_matches(
        wanted[:80], [key.lower() for key in places.values()], 1, _LIKE
    )
    words = {word for word in wanted.split("_") if len(word) >= _SHORTEST_WORD}
    for full, key in places.items():
        if key.lower() in like or words & set(key.lower().split("_")):
            return f"did you mean {place}{full}?"
    return None


def _table_suggestion(
    name: str, arguments: Mapping[str, inspect.Parameter], place: str
) -> str | None:
    for full, key in _inner(arguments).items():
        if key == name:
            return f"it belongs into {place}{full.partition('.')[0]}: {place}{full}"
    return None


def _inner(arguments: Mapping[str, inspect.Parameter]) -> dict[str, str]:
    return {
        f"{table}.{key}": key
        for table in RUN_BY
        if table in arguments
        for key in keys_run_by(table)
    }
