"""Parameters of quacc's recipes that nothing reads: they would be passed over without a word.

A recipe hands what its signature does not name to a calculator. EMT, Lennard-Jones and tblite keep
whatever name they are given and never look at it; Quantum ESPRESSO's writer drops the keys of
``input_data`` that none of its programs has. Nothing is imported for this but ASE's list of these.
"""

from __future__ import annotations

import ast
import difflib
import functools
import inspect
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from crystalmath.errors import InvalidJob
from crystalmath.models import Finding
from crystalmath.recipes.lookup import NAMESPACE, look_up
from crystalmath.recipes.source import find_spec, parse

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from crystalmath.recipes.lookup import Recipe

__all__ = ["check_unread"]

#: Which calculator a family of recipes hands its further parameters to.
_CALCULATORS = {
    "emt": ("ase.calculators.emt", "EMT"),
    "lj": ("ase.calculators.lj", "LennardJones"),
    "tblite": ("tblite.ase", "TBLite"),
}
#: What every calculator of ASE's takes.
_ALL_TAKE = ("restart", "ignore_bad_restart_file", "label", "atoms", "directory")
#: What reads the tables that recipes hand on as arguments.
_TABLES = {"opt_params": "run_opt", "md_params": "run_md"}
_RUNNER = ("quacc.runners.ase", "Runner")
#: How quacc's flows name their jobs: `- name: "relax_job"`, and below it `- job: [quacc....][]`.
_JOB = re.compile(r'- name: "(\w+)"\s*\n\s*- job: \[([\w.]+)\]')
_LIKE = 0.75
_SHORTEST_WORD = 4


def check_unread(recipe: Recipe, parameters: Mapping[str, Any]) -> list[Finding]:
    """Find parameters of one of quacc's recipes that nothing reads.

    Parameters
    ----------
    recipe : Recipe
        What its source says; of a user's own, nobody knows what such parameters mean.
    parameters : mapping of str to object
        The recipe's parameters; those of a flow's jobs lie in ``job_params``.

    Returns
    -------
    list of Finding
        Warnings ``parameter_unread``, each with where the parameter may belong; errors
        ``parameter_unknown`` of what quacc's runner would stumble over.
    """
    if not recipe.name.startswith(f"{NAMESPACE}."):
        return []
    return [*_of_job(recipe, parameters, ""), *_of_flow(recipe, parameters)]


def _of_flow(recipe: Recipe, parameters: Mapping[str, Any]) -> Iterator[Finding]:
    given = parameters.get("job_params")
    if not isinstance(given, Mapping):
        return
    jobs = dict(_JOB.findall(recipe.docstring or ""))
    for name, of_job in given.items():
        if name in jobs and isinstance(of_job, Mapping):
            try:
                job = look_up(jobs[name])
            except InvalidJob:  # the docstring is about another release
                continue
            yield from _of_job(job, of_job, f"job_params.{name}.")


def _of_job(recipe: Recipe, parameters: Mapping[str, Any], place: str) -> Iterator[Finding]:
    yield from _of_tables(recipe, parameters, place)
    family = recipe.name.removeprefix(f"{NAMESPACE}.").partition(".")[0]
    if family == "espresso":
        yield from _of_espresso(recipe, parameters.get("input_data"), place)
    calculator = _CALCULATORS.get(family)
    if calculator is None or recipe.signature is None:
        return
    arguments = recipe.signature.parameters
    if not any(item.kind is inspect.Parameter.VAR_KEYWORD for item in arguments.values()):
        return  # it is refused elsewhere
    unnamed = [name for name in parameters if name not in arguments]
    taken = _defaults(*calculator) if unnamed else None
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


def _of_tables(recipe: Recipe, parameters: Mapping[str, Any], place: str) -> Iterator[Finding]:
    """Look into the tables whose keys quacc hands to a method that takes no others."""
    arguments = {} if recipe.signature is None else recipe.signature.parameters
    for table, method in _TABLES.items():
        given = parameters.get(table)
        if table not in arguments or not isinstance(given, Mapping):
            continue
        taken = _arguments(*_RUNNER, method)
        for name in (name for name in given if taken and name not in taken):
            like = difflib.get_close_matches(str(name)[:80], taken, 1, _LIKE)
            full = f"{place}{table}.{name}"
            yield Finding(
                severity="error",
                code="parameter_unknown",
                message=f"{recipe.name} has no {full!r}: it takes {', '.join(taken)}",
                source=f"the parameter {full}",
                remedy=f"did you mean {place}{table}.{like[0]}?" if like else "leave it out",
            )


def _of_espresso(recipe: Recipe, given: object, place: str) -> Iterator[Finding]:
    if not isinstance(given, Mapping):
        return
    known: list[str] | None = None
    for name, value in given.items():
        if isinstance(value, Mapping) or not isinstance(name, str):
            continue  # a namelist is written as it stands, and the program says what is wrong
        known = known or _namelist_keys()
        key = name.lower().partition("(")[0]
        if key not in known:
            like = difflib.get_close_matches(key[:80], known, 1, _LIKE)
            yield _finding(
                f"{place}input_data.{name}",
                f"nothing reads {name!r} in the parameter 'input_data' of {recipe.name}: no "
                "namelist of Quantum ESPRESSO has it, so that it is not written",
                f"did you mean {place}input_data.{like[0]}?" if like else None,
            )


def _finding(name: str, message: str, remedy: str | None) -> Finding:
    return Finding(
        severity="warning",
        code="parameter_unread",
        message=message,
        source=f"the parameter {name}",
        remedy=remedy or "leave it out",
    )


def _belongs(
    name: str, arguments: Mapping[str, inspect.Parameter], taken: Iterable[str], place: str
) -> str | None:
    """Say where a parameter may belong."""
    inner = {
        f"{table}.{key}": key
        for table, method in _TABLES.items()
        if table in arguments
        for key in _arguments(*_RUNNER, method)
    }
    for full, key in inner.items():
        if key == name:
            return f"it belongs into {place}{full.partition('.')[0]}: {place}{full}"
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


@functools.cache
def _namelist_keys() -> list[str]:
    from ase.io.espresso_namelist.keys import ALL_KEYS

    sections = [section for program in ALL_KEYS.values() for section in program.items()]
    names = [name for section, keys in sections for name in (section, *keys)]
    return list(dict.fromkeys(map(str.lower, names)))


@functools.cache
def _defaults(module: str, name: str) -> frozenset[str] | None:
    """Give the parameters that a calculator's class names as its own."""
    for node in _body(module, name):
        if not isinstance(node, (ast.Assign, ast.AnnAssign)) or node.value is None:
            continue
        target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
        if isinstance(target, ast.Name) and target.id == "default_parameters":
            try:
                return frozenset(ast.literal_eval(node.value))
            except (ValueError, TypeError):
                return None
    return None


@functools.cache
def _arguments(module: str, name: str, method: str) -> tuple[str, ...]:
    for node in _body(module, name):
        if isinstance(node, ast.FunctionDef) and node.name == method and node.args.kwarg is None:
            return tuple(item.arg for item in (*node.args.args, *node.args.kwonlyargs))[1:]
    return ()


def _body(module: str, name: str) -> list[ast.stmt]:
    """Give what stands in a class, of a module that is not imported for it."""
    path = None
    parts = module.split(".")
    for number in range(1, len(parts) + 1):
        spec = find_spec(".".join(parts[:number]), path)
        if spec is None:
            return []
        path = spec.submodule_search_locations
    assert spec is not None  # noqa: S101 - a name has a part
    if not spec.origin or not spec.origin.endswith(".py"):
        return []
    try:
        tree = parse(spec.origin)
    except (OSError, SyntaxError, ValueError):
        return []
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name]
    return classes[0].body if classes else []
