"""Parameters that are of another kind than a recipe's annotation says.

The recipe would die of them, with words of Python's own (``'list' object has no attribute
'items'``), or take a text for a list of its letters. Only what is certain to be wrong is refused: a
number or a text where a table is due, a text where a number is. Of users' own recipes that is less
than of quacc's: their annotations may be loose, and a recipe may make a number of a text itself.
"""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from crystalmath.errors import InvalidJob, shown
from crystalmath.recipes.lookup import family_of, is_quaccs
from crystalmath.recipes.source import CALCULATORS, defaults_of, keys_of

if TYPE_CHECKING:
    import inspect
    from collections.abc import Iterator

    from crystalmath.recipes.lookup import Recipe

_NUMBERS = frozenset(("int", "float"))
_TABLES = frozenset(("dict", "Mapping"))
_NOT_TEXT = (list, tuple, Mapping, PurePath)
#: How the names of quacc's tables end: `OptParams`, `OptParamsNoCell`, `VibKwargs`.
_TABLE_ENDS = ("Params", "ParamsNoCell", "Kwargs")
_NOT_NUMBERS = (str, list, tuple, Mapping, PurePath)
#: What quacc's runners take in `opt_params` and `md_params`, beside tables, which end in `_kwargs`.
_INNER_NUMBERS = frozenset(("fmax", "max_steps", "steps"))
#: What annotations of users' own recipes name, by what it is called here.
_OWN = {
    "a number": _NUMBERS,
    'a table, {"key": value}': _TABLES | {"MutableMapping", "Dict"},
    "a list": frozenset(("list", "tuple", "set", "List", "Tuple", "Sequence", "Iterable")),
}
#: What calculators have beside their `default_parameters`, or stands for a number there.
_DEFAULTS: dict[str, dict[str, object]] = {
    "lj": {"rc": 3.0, "ro": 2.0},
    "espresso": {"crystal_coordinates": False},
}
_NO_NAMES = (int, float, list, tuple, Mapping)
_NAMED = {
    "preset": "the name of a preset, or of its file",
    "dynamics": 'an ensemble ("nvt_langevin"), or a dynamics of ase.md ("NPT")',
}
#: Numbers of an input that people write with their units, or in those of another program.
_UNITS = {
    **dict.fromkeys(("ediff", "encut", "enaug", "sigma"), "eV"),
    **dict.fromkeys(("conv_thr", "degauss", "ecutrho", "ecutwfc", "etot_conv_thr"), "Ry"),
    "ediffg": "eV (or, below zero, eV/Å)",
    "forc_conv_thr": "Ry/bohr",
    "kspacing": "1/Å",
    "potim": "fs",
}
#: What ASE takes for true and false in INCAR, beside Python's own.
_FLAGS = (".true.", "t", ".false.", "f")
#: How ASE's lists of tags of INCAR are called, before `_keys`.
_KINDS = ("float", "exp", "string", "int", "bool", "list_int", "list_bool", "list_float", "special")
#: The values of ISPIN (https://www.vasp.at/wiki/index.php/ISPIN).
_SPINS = (1, 2)
_KPTS = "a list of three whole numbers, each at least 1: [3, 3, 3]"
_COPY = 'a list of tables, [{"source": "/the/folder", "filenames": ["WAVECAR"]}]'


def check_kinds(recipe: Recipe, parameters: Mapping[str, Any]) -> None:
    """Refuse parameters of a wrong kind; `InvalidJob` names all, and what each should be."""
    if recipe.signature is None:
        return
    arguments = recipe.signature.parameters
    given = {name: value for name, value in parameters.items() if value is not None}
    if is_quaccs(recipe.name):
        wrong = [
            problem
            for name, value in given.items()
            for problem in _wrong(
                name, value, repr(arguments[name].annotation) if name in arguments else ""
            )
        ]
        calculators = {name: value for name, value in given.items() if name not in arguments}
        wrong += _wrong_input(recipe.name, given)
        wrong += _wrong_for_calculator(recipe.name, calculators)
    else:
        wrong = [
            _must(name, what, value)
            for name, value in given.items()
            if name in arguments and (what := _due(arguments[name], value)) is not None
        ]
    if wrong:
        raise InvalidJob(f"the recipe {recipe.name} cannot run: {'; '.join(wrong)}")


def check_flag(recipe: Recipe, argument: inspect.Parameter, value: object) -> None:
    """Refuse a text where a recipe wants true or false."""
    # Any text but the empty one is true: "no" would switch on what it is to switch off.
    if not isinstance(value, str) or argument.annotation is argument.empty:
        return
    kinds = members(repr(argument.annotation))
    if "bool" in kinds and kinds <= {"bool", "None"}:
        raise InvalidJob(
            f"the parameter {argument.name!r} of {recipe.name} must be true or false, "
            f"not the text {value!r:.80}"
        )


def annotation_of(argument: inspect.Parameter) -> ast.expr | None:
    """Parse an argument's annotation; ``None`` if it has none, or a note in words."""
    return None if argument.annotation is argument.empty else parsed(repr(argument.annotation))


def parsed(annotation: str) -> ast.expr | None:
    """Parse an annotation; ``None`` for a note in words."""
    try:
        return ast.parse(annotation, mode="eval").body
    except (SyntaxError, SystemError):  # SystemError: see recipes.source
        return None


def choices(argument: inspect.Parameter) -> tuple[str, ...]:
    """Return the texts that an argument's annotation names as its only values, if it does."""
    node = annotation_of(argument)
    if isinstance(node, ast.BinOp) and last_name(node.right) == "None":
        node = node.left
    if not isinstance(node, ast.Subscript) or last_name(node.value) != "Literal":
        return ()
    values = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    constants = [each.value for each in values if isinstance(each, ast.Constant)]
    texts = tuple(each for each in constants if isinstance(each, str))
    return texts if len(texts) == len(values) else ()


def members(annotation: str) -> set[str]:
    """Return the types that an annotation unites: ``list``, ``None`` of ``list[int] | None``."""
    node = parsed(annotation)
    try:
        return set() if node is None else set(_members(node))
    except (SyntaxError, SystemError):  # in a reference forward
        return set()


def _members(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):  # a reference forward
        node = ast.parse(node.value, mode="eval").body
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        yield from _members(node.left)
        yield from _members(node.right)
    elif isinstance(node, ast.Subscript) and last_name(node.value) in {"Optional", "Union"}:
        for part in node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]:
            yield from _members(part)
    else:
        yield last_name(node.value if isinstance(node, ast.Subscript) else node)


def last_name(node: ast.expr) -> str:
    """Return a name without its module."""
    return ast.unparse(node).rpartition(".")[2]


def _due(argument: inspect.Parameter, value: object) -> str | None:
    """Return what a value of a user's own recipe should be, if it cannot be what it is."""
    if argument.annotation is argument.empty:
        return None
    kinds = members(repr(argument.annotation)) - {"None"}
    what = next((what for what, names in _OWN.items() if kinds and kinds <= names), None)
    if what is None or not _is_other(what, value):
        return None
    default = None
    with contextlib.suppress(ValueError, SyntaxError, SystemError):
        default = ast.literal_eval(repr(argument.default))
    # Where the default is no better, the annotation is not meant to the letter.
    return None if _is_other(what, default) else what


def _is_other(what: str, value: object) -> bool:
    text = isinstance(value, (str, PurePath)) and bool(value)
    if what == "a number":
        return isinstance(value, Mapping) or (text and not _spells_number(str(value)))
    if what == "a list":
        return text
    return text or (isinstance(value, (int, float)) and bool(value))


def _spells_number(text: str) -> bool:
    with contextlib.suppress(ValueError):
        float(text)
        return True
    return False


def _wrong_input(recipe: str, given: Mapping[str, Any]) -> Iterator[str]:
    """Look at what VASP's and Quantum ESPRESSO's calculators make their input of."""
    family = family_of(recipe)
    if family == "vasp":
        yield from _wrong_in_vasp(given)
    elif family == "espresso":
        yield from _wrong_in_espresso(given)


def _wrong_in_vasp(given: Mapping[str, Any]) -> Iterator[str]:
    kpts = given.get("kpts")
    listed = kpts if isinstance(kpts, (list, tuple)) else ()
    if isinstance(kpts, str) or any(isinstance(each, float) for each in listed) or _no_mesh(kpts):
        yield _must("kpts", _KPTS, kpts)
    if isinstance(given.get("setups"), (int, float, list, tuple)):
        what = 'the name of a file of setups, or a table, {"Al": "_pv"}'
        yield _must("setups", what, given["setups"])
    yield from _twice(given, "tag of INCAR")
    for name, value in given.items():
        if (due := _due_in_incar(name.lower(), value)) is not None:
            yield _must(name, due, value)
        elif name.lower() == "ispin" and float(value) not in _SPINS:
            yield _must(name, "1, without spin, or 2, spin-polarized", value)


def _twice(given: Mapping[Any, Any], what: str) -> Iterator[str]:
    """Find names that differ in capitals alone: which of them quacc takes is the recipe's doing."""
    spelt: dict[str, str] = {}
    for name in map(str, given):
        if (before := spelt.setdefault(name.lower(), name)) != name:
            yield f"{before!r} and {name!r} are one {what}; give it once, as {before!r}"


def _no_mesh(kpts: object) -> bool:
    """Return whether a mesh has no k-point, of which VASP and pw.x would end at once."""
    listed = kpts if isinstance(kpts, (list, tuple)) else ()
    return len(listed) == 3 and any(type(each) is int and each < 1 for each in listed)  # noqa: PLR2004


def _is_cut(kpts: object) -> bool:
    """Return whether a mesh has too few numbers for pw.x, or one that is not whole."""
    return isinstance(kpts, (list, tuple)) and (
        len(kpts) < 3 or any(isinstance(each, float) for each in kpts)  # noqa: PLR2004
    )


def _wrong_in_espresso(given: Mapping[str, Any]) -> Iterator[str]:
    kpts = given.get("kpts")
    text = isinstance(kpts, str) and kpts != "gamma"
    # A single number is a density for VASP alone.
    if text or isinstance(kpts, (int, float)) or _is_cut(kpts) or _no_mesh(kpts):
        yield _must("kpts", _KPTS, kpts)
    if isinstance(given.get("kspacing"), _NOT_NUMBERS):
        yield _must("kspacing", "a number, in 1/Å", given["kspacing"])
    for table in _tables_of(given):
        yield from _twice(table, "name in input_data")
    for name, value in _numbers_of(given):
        if isinstance(value, str):
            yield _must(name, f"a number, in {_UNITS[name.lower()]}", value)


def _due_in_incar(name: str, value: Any) -> str | None:
    """Return what a tag of INCAR should be, if ASE cannot write it or VASP cannot read it."""
    text = isinstance(value, str)
    if name in _tags("float") or name in _tags("exp"):
        unit = f", in {_UNITS[name]}" if name in _UNITS else ""
        return f"a number{unit}" if isinstance(value, _NOT_NUMBERS) else None
    if name in _tags("int"):
        wrong = isinstance(value, _NOT_NUMBERS) and not (text and _spells_number(str(value)))
        return "a whole number" if wrong else None
    if name in _tags("bool"):
        known = isinstance(value, bool) or (text and value.lower() in _FLAGS)
        wrong = isinstance(value, (int, float, *_NOT_NUMBERS)) and not known
        return "true or false" if wrong else None
    return None


def is_tag(name: str) -> bool:
    """Return whether ASE writes a parameter into INCAR."""
    return any(name.lower() in _tags(kind) for kind in _KINDS)


def _tags(kind: str) -> tuple[str, ...]:
    """Return the tags of INCAR that ASE writes as numbers, whole numbers or flags."""
    return keys_of("ase.calculators.vasp.create_input", f"{kind}_keys")


def _numbers_of(given: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Go through the numbers with a unit of Quantum ESPRESSO's input."""
    for table in _tables_of(given):
        for name, value in table.items():
            if str(name).lower() in _UNITS:
                yield str(name), value


def _tables_of(given: Mapping[str, Any]) -> Iterator[Mapping[Any, Any]]:
    """Yield Quantum ESPRESSO's input, and each of its namelists."""
    data = given.get("input_data")
    flat = data if isinstance(data, Mapping) else {}
    yield flat
    yield from (each for each in flat.values() if isinstance(each, Mapping))


def _wrong(name: str, value: Any, annotation: str) -> Iterator[str]:
    kind = _kind(annotation)
    if kind == "copy":
        if not _is_copy(value):
            yield _must(name, _COPY, value)
    elif kind == "number":
        if isinstance(value, _NOT_NUMBERS):
            yield _must(name, "a number", value)
    elif name in _NAMED:
        if isinstance(value, _NO_NAMES):
            yield _must(name, _NAMED[name], value)
    elif kind == "table" or name in {"input_data", "pseudopotentials"}:
        if _is_no_table(value):
            yield _must(name, 'a table, {"key": value}', value)
        elif isinstance(value, Mapping):
            yield from _inner(name, value)


def _wrong_for_calculator(recipe: str, given: Mapping[str, Any]) -> Iterator[str]:
    """Look at what goes to a calculator whose source says what it takes where none is given."""
    family = family_of(recipe)
    defaults: Mapping[str, Any] | None = _DEFAULTS.get(family)
    if given and family in CALCULATORS:
        defaults = {**(defaults_of(*CALCULATORS[family]) or {}), **(defaults or {})}
    for name, value in given.items():
        default = (defaults or {}).get(name)
        # Any text but the empty one is true: "no" would switch on what it is to switch off.
        if isinstance(default, bool):
            if isinstance(value, _NOT_NUMBERS):
                yield _must(name, "true or false", value)
        elif isinstance(default, (int, float)) and isinstance(value, _NOT_NUMBERS):
            yield _must(name, "a number", value)


def _inner(name: str, table: Mapping[Any, Any]) -> Iterator[str]:
    if name == "job_params":
        yield from (
            _must(f"{name}.{job}", "a table of that job's parameters", given)
            for job, given in table.items()
            if _is_no_table(given)
        )
    for key, value in table.items() if name in {"opt_params", "md_params"} else ():
        place = f"{name}.{key}"
        if value is None:
            continue
        if key == "optimizer" and isinstance(value, (int, float, *_NOT_TEXT)):
            yield _must(place, "an optimizer of ase.optimize, such as FIRE", value)
        elif key in _INNER_NUMBERS and isinstance(value, _NOT_NUMBERS):
            yield _must(place, "a number", value)
        elif str(key).endswith("_kwargs") and _is_no_table(value):
            yield _must(place, 'a table, {"key": value}', value)


def _must(name: str, what: str, value: object) -> str:
    return f"the parameter {name!r} must be {what}, not {shown(value)}"


def _is_no_table(value: object) -> bool:
    # What is empty says nothing, and quacc passes it over.
    return isinstance(value, (str, int, float, list, tuple, PurePath)) and bool(value)


def _is_copy(value: object) -> bool:
    if not isinstance(value, (list, tuple)):
        return not isinstance(value, (str, int, float, PurePath, Mapping))
    return all(
        isinstance(each, Mapping)
        and not isinstance(each.get("source"), (type(None), *_NO_NAMES))
        and not isinstance(each.get("filenames"), (type(None), int, float, Mapping))
        for each in value
        if isinstance(each, (str, int, float, PurePath, list, tuple, Mapping))
    )


def _kind(annotation: str) -> str | None:
    """Return what an annotation means, where it means one thing alone."""
    kinds = {_meaning(name) for name in members(annotation) - {"None"}}
    return kinds.pop() if len(kinds) == 1 else None


def _meaning(name: str) -> str:
    if name in _NUMBERS:
        return "number"
    if name in _TABLES or name.endswith(_TABLE_ENDS):
        return "table"
    return "copy" if name == "CopyFiles" else "other"
