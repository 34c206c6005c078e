"""Parameters of quacc's recipes that nothing reads, or that a table's function does not take.

A recipe hands what its signature does not name to a calculator. EMT, Lennard-Jones and tblite keep
whatever name they are given and never look at it; Quantum ESPRESSO's writer drops what its program
does not have. A table goes to a function that takes no other keys: the recipe would end with an
error, perhaps after hours. Nothing is imported for this but ASE's list of keywords.
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
from crystalmath.recipes.source import CALCULATORS, arguments_of, defaults_of, definition

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from crystalmath.recipes.lookup import Recipe

_RUNNER = ("quacc.runners.ase", "Runner")
#: Which method of quacc's runner gets a table.
RUN_BY = {"opt_params": "run_opt", "md_params": "run_md"}
_SLABS = "quacc.atoms.slabs"
#: Which functions, all of them together, get another; and what these are given beside it.
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
#: Ensembles that want a compressibility, which quacc does not set.
_COMPRESSED = ("npt_berendsen", "npt_inhomogeneous")
_LIKE = 0.75


def keys_run_by(table: str) -> tuple[str, ...]:
    """Return the keys of ``opt_params`` or ``md_params``."""
    return arguments_of(*_RUNNER, RUN_BY[table])


def check_tables(recipe: Recipe, parameters: Mapping[str, Any], place: str) -> Iterator[Finding]:
    """Find keys that would make a recipe end with an error."""
    named = {} if recipe.signature is None else recipe.signature.parameters
    for table in (*RUN_BY, *_GOES_TO):
        given = parameters.get(table)
        if table not in named or not isinstance(given, Mapping):
            continue
        taken = keys_run_by(table) if table in RUN_BY else _keys_of(table)
        itself = _gives_itself(recipe.name, table, taken) if taken else frozenset()
        for name in given if taken else ():
            if name in itself:
                yield _given_twice(recipe, place, table, name)
            elif name not in taken:
                yield _unknown(recipe, f"{place}{table}", name, taken)
        if table == "opt_params":
            yield from _of_optimizer(recipe, given, f"{place}{table}.optimizer_kwargs")
    if "md_params" in named and isinstance(parameters.get("dynamics"), str):
        yield from _of_ensemble(recipe, parameters, place)


def _keys_of(table: str) -> tuple[str, ...]:
    functions, beside = _GOES_TO[table]
    taken = [arguments_of(*function, others=True) for function in functions]
    if not all(taken):
        return ()  # of another release, or not installed
    return tuple(dict.fromkeys(name for each in taken for name in each if name not in beside))


@functools.cache
def _gives_itself(recipe: str, table: str, taken: Sequence[str]) -> frozenset[str]:
    """Name what a recipe hands to the runner beside the table."""
    module, _, name = recipe.rpartition(".")
    found = definition(module, name)
    for node in ast.walk(found) if found is not None and table in RUN_BY else ():
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == RUN_BY[table]
        ):
            return frozenset(
                (*taken[: len(node.args)], *(each.arg for each in node.keywords if each.arg))
            )
    return frozenset()


def _of_optimizer(recipe: Recipe, table: Mapping[str, Any], place: str) -> Iterator[Finding]:
    given = table.get("optimizer_kwargs")
    if isinstance(given, Mapping) and given:
        taken = _optimizer_takes(table.get("optimizer"))
        for name in (name for name in given if taken and name not in taken):
            yield _unknown(recipe, place, name, taken)


def _optimizer_takes(given: object) -> tuple[str, ...]:
    """Return the keys that ASE's optimizers take: all, where the recipe chooses which it is."""
    from ase import optimize

    from crystalmath.recipes.ase_classes import class_named

    kinds = [getattr(optimize, name) for name in optimize.__all__]
    with contextlib.suppress(InvalidJob):
        chosen = class_named(given) if isinstance(given, str) else given
        if isinstance(chosen, type):
            kinds = [chosen]
    if not all(kind.__module__.startswith("ase.") for kind in kinds):
        return ()
    found = [
        name
        for kind in kinds
        for base in kind.__mro__
        if "__init__" in vars(base) and base is not object
        for name in inspect.signature(base.__init__).parameters
    ]
    quaccs = {"self", "atoms", "trajectory", "args", "kwargs"}
    return tuple(name for name in dict.fromkeys(found) if name not in quaccs)


def _of_ensemble(recipe: Recipe, parameters: Mapping[str, Any], place: str) -> Iterator[Finding]:
    """Find what an ensemble of quacc's wants and is not given: ASE's class would not begin."""
    ensemble = parameters["dynamics"].lower()
    table = parameters.get("md_params")
    given = table.get("dynamics_kwargs") if isinstance(table, Mapping) else None
    told = set(given) if isinstance(given, Mapping) else set()
    if parameters.get("temperature_K") is not None:
        told.add("temperature_K")
    if ensemble.startswith(("nvt", "npt")) and not told & {"temperature_K", "temperature"}:
        full, remedy = f"{place}temperature_K", "give it, in K"
    elif ensemble in _COMPRESSED and not told & {"compressibility_au", "compressibility"}:
        full = f"{place}md_params.dynamics_kwargs.compressibility_au"
        remedy = "give it, in Å³/eV: the 4.57e-5 per bar of water are 73.2"
    else:
        return
    yield Finding(
        severity="error",
        code="parameter_missing",
        message=f"{recipe.name} needs {full!r} where dynamics = {parameters['dynamics']!r}",
        source=f"the parameter {full}",
        remedy=remedy,
    )


def _given_twice(recipe: Recipe, place: str, table: str, name: object) -> Finding:
    named = {} if recipe.signature is None else recipe.signature.parameters
    return Finding(
        severity="error",
        code="parameter_unknown",
        message=f"{recipe.name} gives {name!r} itself: '{place}{table}' cannot hold it",
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


#: What every calculator of ASE's takes.
_ALL_TAKE = ("restart", "ignore_bad_restart_file", "label", "atoms", "directory")
#: How quacc's flows name their jobs: `- name: "relax_job"`, and below it `- job: [quacc....][]`.
_JOB = re.compile(r'- name: "(\w+)"\s*\n\s*- job: \[([\w.]+)\]')
#: What quacc's flows give to each of their jobs.
_ALL = "all"
_NO_PLACE = "leave it out"
#: How a remedy begins that names the parameter which was meant.
_ASKS = re.compile("did you mean |it belongs into ")
_SHORTEST_WORD = 4
#: How many dots a key of a namelist has: ``input_data.system.ecutwfc``.
_IN_NAMELIST = 2


def check_unread(recipe: Recipe, parameters: Mapping[str, Any]) -> list[Finding]:
    """Find parameters of one of quacc's recipes that nothing reads, or that would end it.

    The parameters of a flow's jobs lie in ``job_params``. Codes: ``parameter_unread`` and
    ``parameter_misspelt``, warnings; the errors ``parameter_unknown``, ``parameter_kind`` and
    ``parameter_missing``.
    """
    if not is_quaccs(recipe.name):
        return []
    return [*job_faults(recipe, parameters, ""), *_of_flow(recipe, parameters)]


def place_of(recipe: Recipe, name: str, *, named: bool = False) -> str | None:
    """Return where one of quacc's recipes takes a parameter, ``opt_params.fmax``, if it does.

    Where it must be `named`, it is not enough that the recipe takes parameters of any name.
    """
    arguments = {} if recipe.signature is None else recipe.signature.parameters
    if name.partition(".")[0] in arguments:
        return name
    for full, key in _inner(arguments).items():
        if key == name:
            return full
    others = any(item.kind is inspect.Parameter.VAR_KEYWORD for item in arguments.values())
    return name if others and not named else None


def _of_flow(recipe: Recipe, parameters: Mapping[str, Any]) -> Iterator[Finding]:
    given = parameters.get("job_params")
    for name, key in _looked_up(recipe.name):
        of_job = given.get(name) if isinstance(given, Mapping) else None
        if not isinstance(of_job, Mapping) or key not in of_job:
            full = f"job_params.{name}.{key}"
            yield Finding(
                severity="error",
                code="parameter_missing",
                message=f"{recipe.name} needs {full!r}: it reads what stands there itself",
                source=f"the parameter {full}",
                remedy="give it, be it as an empty table, {}",
            )
    if not isinstance(given, Mapping):
        return
    named = _named_jobs(recipe.name)
    for name in given if named else ():
        if name not in (*named, _ALL):
            yield _unknown(recipe, "job_params", name, named)
    jobs = {}
    for name, full in _JOB.findall(recipe.docstring or ""):
        with contextlib.suppress(InvalidJob):  # the docstring may be about another release
            jobs[name] = look_up(full)
    for name, job in jobs.items():
        if isinstance(given.get(name), Mapping):
            yield from job_faults(job, given[name], f"job_params.{name}.")
    if isinstance(given.get(_ALL), Mapping):
        yield from _of_all(list(jobs.values()), given[_ALL])


@functools.cache
def _looked_up(recipe: str) -> frozenset[tuple[str, str]]:
    """Name what a flow takes out of its ``job_params`` without asking whether it is there."""
    module, _, name = recipe.rpartition(".")
    found = definition(module, name)
    return frozenset(
        (str(node.value.slice.value), str(node.slice.value))
        for node in ([] if found is None else ast.walk(found))
        if isinstance(node, ast.Subscript)
        and isinstance(node.ctx, ast.Load)
        and isinstance(node.slice, ast.Constant)
        and isinstance(node.value, ast.Subscript)
        and isinstance(node.value.slice, ast.Constant)
        and getattr(node.value.value, "id", "") == "job_params"
    )


@functools.cache
def _named_jobs(recipe: str) -> tuple[str, ...]:
    """Return the names of jobs that a flow takes in its ``job_params``; none: nobody knows."""
    module, _, name = recipe.rpartition(".")
    found = definition(module, name)
    for node in [] if found is None else ast.walk(found):
        if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Dict):
            given = {each.arg: getattr(each.value, "id", "") for each in node.keywords}
            if given.get("param_swaps") == "job_params":
                return tuple(str(getattr(key, "value", "")) for key in node.args[0].keys)
    return ()


def _of_all(jobs: list[Recipe], given: Mapping[str, Any]) -> Iterator[Finding]:
    """Look at what all jobs of a flow get: one that reads a parameter is enough."""
    by_job = [
        {each.source: each for each in job_faults(job, given, f"job_params.{_ALL}.")}
        for job in jobs
    ]
    for source in dict.fromkeys(name for of_job in by_job for name in of_job):
        findings = [of_job[source] for of_job in by_job if source in of_job]
        # One that says where it may belong says more than another.
        findings.sort(key=lambda each: (each.severity != "error", each.code != MISSPELT))
        if findings[0].severity == "error" or len(findings) == len(jobs):
            yield findings[0]


def job_faults(recipe: Recipe, parameters: Mapping[str, Any], place: str) -> Iterator[Finding]:
    """Find what is wrong with parameters of a job, which has others, too.

    At a `place`, ``job_params.relax_job.``, it is one that a flow calls.
    """
    if place:
        yield from _refused(recipe, parameters, place)
    yield from check_tables(recipe, parameters, place)
    family = family_of(recipe.name)
    if family == "espresso":
        yield from _of_espresso(recipe, parameters, place)
    calculator = CALCULATORS.get(family)
    if calculator is None or recipe.signature is None:
        return
    arguments = recipe.signature.parameters
    if not any(item.kind is inspect.Parameter.VAR_KEYWORD for item in arguments.values()):
        return  # it is refused elsewhere
    unnamed = [name for name in parameters if name not in arguments]
    taken = defaults_of(*calculator) if unnamed else None
    if taken is None:
        return  # none, or the calculator is not installed, or has another form
    for name in unnamed:
        if name not in taken and name not in _ALL_TAKE:
            yield _finding(
                f"{place}{name}",
                f"nothing reads the parameter {name!r} of {recipe.name}: the calculator "
                f"{calculator[1]} takes it and never looks at it",
                _belongs(name, arguments, taken, place),
            )


def _refused(recipe: Recipe, parameters: Mapping[str, Any], place: str) -> Iterator[Finding]:
    """Look at a flow's job as at one of its own: it would end with an error."""
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
        told = ""
        if first is not None and name == first.name == "atoms":
            told = f"{name!r} is the structure that {recipe.name} is called with"
        elif name not in arguments and not takes_any:
            near = nearest(str(name), list(arguments))
            told = f"the recipe {recipe.name} has no parameter {name!r:.80}{near}"
        if told:
            wrong.append(("parameter_unknown", told, f"{place}{name}", _NO_PLACE))
    for code, message, source, remedy in wrong:
        yield Finding(
            severity="error",
            code=code,
            message=message,
            source=f"the parameter {source}",
            remedy=remedy,
        )


def _of_espresso(recipe: Recipe, parameters: Mapping[str, Any], place: str) -> Iterator[Finding]:
    program = program_of_recipe(recipe.name)
    if program is None:
        return
    named = {} if recipe.signature is None else recipe.signature.parameters
    keywords = {name: value for name, value in parameters.items() if name not in named}
    given = parameters.get("input_data")
    table = given if isinstance(given, Mapping) else {}
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
        meant = _in_table(name, named, place)
        if meant is None and remedy is not None:
            meant = remedy.replace("%", place, 1)
        elif meant is None:
            meant = _belongs(name, named, (), place)
        # A namelist is written as it is given, and a newer program may know more.
        certain = name.count(".") < _IN_NAMELIST or (meant is not None and _is_slip(name, meant))
        yield _finding(f"{place}{name}", f"nothing reads {what}: {why}", meant, certain=certain)


def _is_slip(name: str, meant: str) -> bool:
    given, key = (each.rpartition(".")[2].lower() for each in (name, meant.removesuffix("?")))
    return given == key or is_slip(given, key)


def _finding(name: str, message: str, remedy: str | None, *, certain: bool = True) -> Finding:
    """Make a warning; one of a misspelt parameter if it is `certain` that nothing reads it."""
    return Finding(
        severity="warning",
        code=MISSPELT if remedy and certain and _ASKS.match(remedy) else "parameter_unread",
        message=message,
        source=f"the parameter {name}",
        remedy=remedy or _NO_PLACE,
    )


def _belongs(
    name: str, arguments: Mapping[str, inspect.Parameter], taken: Iterable[str], place: str
) -> str | None:
    """Return where a parameter may belong."""
    if certain := _in_table(name, arguments, place):
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


def _in_table(name: str, arguments: Mapping[str, inspect.Parameter], place: str) -> str | None:
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
