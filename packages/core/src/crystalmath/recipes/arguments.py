"""Check structure and parameters against the source of a recipe, which is not imported."""

from __future__ import annotations

import ast
import contextlib
import difflib
import inspect
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from crystalmath.errors import MISSPELT, InvalidJob, did_you_mean
from crystalmath.models import Finding
from crystalmath.recipes.lookup import family_of, nearest
from crystalmath.recipes.parameter_kinds import (
    annotation_of,
    check_flag,
    check_kinds,
    choices,
    is_tag,
    last_name,
    parsed,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from crystalmath.recipes.lookup import Recipe

#: Whether a recipe takes a structure; ``None`` if its source does not show it.
Taken: TypeAlias = Literal["required", "optional", "none"] | None

POSITIONAL = frozenset(
    (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.VAR_POSITIONAL,
    )
)

#: Names in annotations that are never a structure: Python's own types, and quacc's for files.
_PLAIN = frozenset(("None", "bool", "int", "float", "complex", "str", "bytes")) | {
    *("Path", "PathLike", "Literal", "Optional", "Union"),
    *("CopyFiles", "SourceDirectory", "Filenames"),
}
_LISTS = frozenset(("list", "tuple", "Sequence", "Iterable"))
_TABLES = frozenset(("dict", "Mapping"))


def structure_taken(recipe: Recipe) -> Taken:
    """Return whether a recipe's first argument is a structure.

    An argument without an annotation is a structure; one whose annotation names only plain types,
    as ``copy_files: CopyFiles | None`` does, is none. A list of structures is none either. A
    structure with a default is optional.
    """
    if recipe.signature is None:
        return None
    first = _first(recipe)
    if first is None or structures_argument(recipe) is not None:
        return "none"
    if first.kind is inspect.Parameter.VAR_POSITIONAL:
        return "optional"
    if first.name != "atoms" and _is_plain(first):
        return "none"
    return "required" if first.default is inspect.Parameter.empty else "optional"


def structures_argument(recipe: Recipe) -> str | None:
    """Return the name of a recipe's first argument if that is a list of structures."""
    first = _first(recipe)
    node = None if first is None or first.kind not in _BY_NAME else annotation_of(first)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):  # a forward reference
        with contextlib.suppress(SyntaxError):
            node = ast.parse(node.value, mode="eval").body
    if first is None or not (isinstance(node, ast.Subscript) and last_name(node.value) in _LISTS):
        return None
    names = {last_name(part) for part in ast.walk(node.slice) if isinstance(part, ast.expr)}
    return first.name if names & {"Atoms", "MSONAtoms"} else None


def returns_beside(recipe: Recipe) -> str | None:
    """Return a flow's annotation of its result if it names a list of calculations."""
    written = None if recipe.signature is None else recipe.signature.return_annotation
    if recipe.kind != "flow" or written in {None, inspect.Signature.empty}:
        return None
    node = parsed(repr(written))
    parts = [] if node is None else ast.walk(node)
    lists = (part for part in parts if isinstance(part, ast.expr) and last_name(part) in _LISTS)
    return repr(written) if any(lists) else None


def _first(recipe: Recipe) -> inspect.Parameter | None:
    arguments = recipe.signature.parameters.values() if recipe.signature else ()
    return next((item for item in arguments if item.kind in POSITIONAL), None)


def structure_argument(recipe: Recipe) -> inspect.Parameter | None:
    """Return the argument that takes the structure, if it has a name."""
    if recipe.signature is None or structure_taken(recipe) == "none":
        return None
    first = next(item for item in recipe.signature.parameters.values() if item.kind in POSITIONAL)
    return None if first.kind is inspect.Parameter.VAR_POSITIONAL else first


def check_structure(recipe: Recipe, *, has_structure: bool) -> None:
    """Raise `InvalidJob` for a structure that a recipe does not take, or the lack of one."""
    taken = structure_taken(recipe)
    if taken == "required" and not has_structure:
        first = structure_argument(recipe)
        name = f", its first argument {first.name!r}" if first else ""
        raise InvalidJob(f"the recipe {recipe.name} needs a structure{name}, and none was given")
    if taken == "none" and has_structure:
        arguments = recipe.signature.parameters if recipe.signature else {}
        first_name = next(iter(arguments), None)
        if structures_argument(recipe) is not None:
            raise InvalidJob(
                f"the recipe {recipe.name} takes a list of structures, its first argument "
                f"{first_name!r}, not a single one; submit --together makes one job of all"
            )
        begins = f"; its arguments begin with {first_name!r}" if first_name else ""
        raise InvalidJob(f"the recipe {recipe.name} takes no structure{begins}; leave it out")


def _is_plain(argument: inspect.Parameter) -> bool:
    node = annotation_of(argument)
    try:
        return node is not None and _names_plain(node)
    except (SyntaxError, SystemError):  # in a forward reference
        return False


def _names_plain(node: ast.expr) -> bool:
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):  # a forward reference
            return _names_plain(ast.parse(node.value, mode="eval").body)
        return node.value is None
    if isinstance(node, ast.BinOp):
        return _names_plain(node.left) and _names_plain(node.right)
    if isinstance(node, ast.Subscript):
        name = last_name(node.value)
        if name in _TABLES or name == "Literal":
            return True
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        return name in _PLAIN | _LISTS and all(map(_names_plain, parts))
    return last_name(node) in _PLAIN | _TABLES


_BY_NAME = frozenset((inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY))

# From this similarity on, an unknown name is taken for a slip. Calculators have many parameters of
# their own that no signature names.
_LIKE = 0.8


def check_arguments(
    recipe: Recipe, parameters: Mapping[str, Any], *, structure: bool = True
) -> list[Finding]:
    """Return the findings of :func:`argument_faults`, or raise its first error (`InvalidJob`)."""
    findings = []
    for fault in argument_faults(recipe, parameters, structure=structure):
        if isinstance(fault, InvalidJob):
            raise fault
        findings.append(fault)
    return findings


def argument_faults(
    recipe: Recipe, parameters: Mapping[Any, Any], *, structure: bool = True
) -> Iterator[InvalidJob | Finding]:
    """Yield the errors and findings about a recipe's parameters.

    Errors are names that are unknown, missing, no string, or that of the recipe's structure.
    Others are values of a wrong kind, such as a text for true or false, and a structure that is
    missing or not taken.
    """
    if strange := [key for key in parameters if not isinstance(key, str)]:
        yield InvalidJob(f"the parameter name {strange[0]!r} of {recipe.name} is no string")
        return
    first = None if recipe.signature is None else structure_argument(recipe)
    itself = "atoms" if recipe.signature is None else first and first.name
    if itself in parameters:
        yield InvalidJob(
            f"{itself!r} is the structure itself, the first argument of {recipe.name}; "
            "it cannot be a parameter too"
        ).at(f"params.{itself}")
    if recipe.signature is None:
        return
    try:
        check_structure(recipe, has_structure=structure)
    except InvalidJob as error:
        yield error.at("structure")
    others = [item for item in recipe.signature.parameters.values() if item is not first]
    yield from _check_unknown(recipe, parameters, others)
    listed = structures_argument(recipe)
    for name in (item.name for item in others if _is_missing(item, parameters)):
        if name == listed:
            if not structure:
                needs = f"the recipe {recipe.name} needs a list of structures, its first argument"
                yield InvalidJob(f"{needs} {name!r}, and none was given").at("structure")
            continue
        values = choices(recipe.signature.parameters[name])
        which = f", one of {', '.join(values)}: --param {name}={values[0]}" if values else ""
        needed = f"the recipe {recipe.name} needs the parameter {name!r}{which}"
        yield InvalidJob(needed).at(f"params.{name}")
    yield from _check_values(recipe, parameters, others)
    yield from _check_choices(recipe, parameters, others)


def _check_values(
    recipe: Recipe, parameters: Mapping[str, Any], others: Sequence[inspect.Parameter]
) -> Iterator[InvalidJob]:
    for item in others:
        try:
            if item.kind in _BY_NAME:
                check_flag(recipe, item, parameters.get(item.name))
        except InvalidJob as error:
            yield error.at(f"params.{item.name}")
    try:
        check_kinds(recipe, parameters)
    except InvalidJob as error:
        yield error.at("params")


def _check_unknown(
    recipe: Recipe, parameters: Mapping[str, Any], others: Sequence[inspect.Parameter]
) -> Iterator[InvalidJob | Finding]:
    known = [item.name for item in others if item.kind in _BY_NAME]
    rest = [item.name for item in others if item.kind is inspect.Parameter.VAR_KEYWORD]
    first = structure_argument(recipe)
    for name in parameters:
        if first is not None and name == first.name:
            continue  # `argument_faults` yields an error for it
        if name in known or (rest and family_of(recipe.name) == "vasp" and is_tag(name)):
            continue
        unknown = f"the recipe {recipe.name} has no parameter {name!r}"
        if not rest:
            yield InvalidJob(f"{unknown}{nearest(name, known)}").at(f"params.{name}")
        elif like := difflib.get_close_matches(name[:80], known, 1, _LIKE):
            message = f"{unknown}; it goes into {rest[0]}; did you mean {like[0]!r}?"
            source = f"the parameter {name}"
            yield Finding(severity="warning", code=MISSPELT, message=message, source=source)


def _check_choices(
    recipe: Recipe, parameters: Mapping[str, Any], others: Sequence[inspect.Parameter]
) -> Iterator[Finding]:
    """Find texts that are none of the choices in an annotation; a recipe may take more."""
    for item in others:
        value = parameters.get(item.name)
        if not isinstance(value, str) or not (values := choices(item)):
            continue
        if value.lower() not in map(str.lower, values):
            # quacc takes no other library of machine-learned potentials.
            certain = (recipe.name.split(".")[2:3], item.name) == (["mlip"], "library")
            yield Finding(
                severity="error" if certain else "warning",
                code="parameter_choice",
                message=f"{item.name} = {value!r:.80} is none of the choices of {recipe.name}: "
                f"{', '.join(values)}",
                source=f"the parameter {item.name}",
                remedy=did_you_mean(value, values, "name one of them"),
            )


def _is_missing(argument: inspect.Parameter, parameters: Mapping[str, Any]) -> bool:
    if argument.default is not inspect.Parameter.empty:
        return False
    if argument.kind is inspect.Parameter.POSITIONAL_ONLY:
        return True  # parameters are passed by name
    return argument.kind in _BY_NAME and argument.name not in parameters
