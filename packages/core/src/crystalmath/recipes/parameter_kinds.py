"""Check that parameters are of the kinds that a recipe's annotations name.

Another kind would end the recipe with an error of Python's (``'list' object has no attribute
'items'``), or it would take a text for a list of letters. Only certain errors are refused: a number
or a text in place of a table, a text in place of a number. Users' own recipes are checked
less strictly than quacc's: their annotations may be loose, and they may convert texts themselves.
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
#: The ends of the names of quacc's tables: `OptParams`, `OptParamsNoCell`, `VibKwargs`.
_TABLE_ENDS = ("Params", "ParamsNoCell", "Kwargs")
_NOT_NUMBERS = (str, list, tuple, Mapping, PurePath)
#: The numbers in `opt_params` and `md_params`; the names of the tables in them end in `_kwargs`.
_INNER_NUMBERS = frozenset(("fmax", "max_steps", "steps"))
#: The kinds in messages, each with its names in the annotations of users' own recipes.
_OWN_KINDS = {
    "a number": _NUMBERS,
    'a table, {"key": value}': _TABLES | {"MutableMapping", "Dict"},
    "a list": frozenset(("list", "tuple", "set", "List", "Tuple", "Sequence", "Iterable")),
}
#: Parameters of calculators that are not in their `default_parameters`, or are no number there.
_DEFAULTS: dict[str, dict[str, object]] = {
    "lj": {"rc": 3.0, "ro": 2.0},
    "espresso": {"crystal_coordinates": False},
}
_NO_NAMES = (int, float, list, tuple, Mapping)
_NAMED = {
    "preset": "the name of a preset, or of its file",
    "dynamics": 'an ensemble ("nvt_langevin"), or a dynamics of ase.md ("NPT")',
}
#: The units of parameters of quacc's recipes, by their names in lower case.
UNITS = {
    "compressibility_au": "Å³/eV",
    "fmax": "eV/Å",
    "pressure_au": "eV/Å³",
    **dict.fromkeys(("rc", "ro"), "Å"),
    "temperature": "K",
    "temperature_k": "K",
    "timestep_fs": "fs",
    **dict.fromkeys(("ediff", "encut", "enaug", "sigma"), "eV"),
    **dict.fromkeys(("conv_thr", "degauss", "ecutrho", "ecutwfc", "etot_conv_thr"), "Ry"),
    "ediffg": "eV (or, below zero, eV/Å)",
    "forc_conv_thr": "Ry/bohr",
    "kspacing": "1/Å",
    "potim": "fs",
}
#: Texts that ASE takes for true and false in INCAR, beside Python's values.
_FLAGS = (".true.", "t", ".false.", "f")
#: The names of ASE's lists of tags of INCAR, without `_keys`.
_KINDS = ("float", "exp", "string", "int", "bool", "list_int", "list_bool", "list_float", "special")
#: The values of ISPIN (https://www.vasp.at/wiki/index.php/ISPIN).
_SPINS = (1, 2)
#: The numbers of a mesh of k-points.
_MESH = 3
_KPTS = "a list of three whole numbers, each at least 1: [3, 3, 3]"
_COPY = 'a list of tables, [{"source": "/the/folder", "filenames": ["WAVECAR"]}]'


def check_kinds(recipe: Recipe, parameters: Mapping[str, Any]) -> None:
    """Raise `InvalidJob`, which names all parameters of a wrong kind, and the right kinds."""
    if recipe.signature is None:
        return
    arguments = recipe.signature.parameters
    present = {name: value for name, value in parameters.items() if value is not None}
    if is_quaccs(recipe.name):
        wrong = [
            problem
            for name, value in present.items()
            for problem in _wrong(
                name, value, repr(arguments[name].annotation) if name in arguments else ""
            )
        ]
        calculators = {name: value for name, value in present.items() if name not in arguments}
        wrong += _wrong_input(recipe.name, present)
        wrong += _wrong_for_calculator(recipe.name, calculators)
    else:
        wrong = [
            _wrong_kind(name, what, value)
            for name, value in present.items()
            if name in arguments and (what := _right_kind(arguments[name], value)) is not None
        ]
    if wrong:
        raise InvalidJob(f"the recipe {recipe.name} cannot run: {'; '.join(wrong)}")


def check_flag(recipe: Recipe, argument: inspect.Parameter, value: object) -> None:
    """Raise `InvalidJob` for a text in place of true or false."""
    # All texts but the empty one are true: "no" would switch the option on.
    if not isinstance(value, str) or argument.annotation is argument.empty:
        return
    kinds = members(repr(argument.annotation))
    if "bool" in kinds and kinds <= {"bool", "None"}:
        raise InvalidJob(
            f"the parameter {argument.name!r} of {recipe.name} must be true or false, "
            f"not the text {value!r:.80}"
        )


def annotation_of(argument: inspect.Parameter) -> ast.expr | None:
    """Return an argument's annotation, parsed; ``None`` if it has none, or one in words."""
    return None if argument.annotation is argument.empty else parsed(repr(argument.annotation))


def parsed(annotation: str) -> ast.expr | None:
    """Return an annotation, parsed; ``None`` for one in words."""
    try:
        return ast.parse(annotation, mode="eval").body
    except (SyntaxError, SystemError):  # SystemError: see recipes.source
        return None


def choices(argument: inspect.Parameter) -> tuple[str, ...]:
    """Return the texts of an argument's ``Literal[...]``; none for another annotation."""
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
    """Return the types in an annotation: ``list`` and ``None`` for ``list[int] | None``."""
    node = parsed(annotation)
    try:
        return set() if node is None else set(_members(node))
    except (SyntaxError, SystemError):  # in a forward reference
        return set()


def _members(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):  # a forward reference
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


def _right_kind(argument: inspect.Parameter, value: object) -> str | None:
    """Return the right kind of a parameter of a user's own recipe, if its value has another."""
    if argument.annotation is argument.empty:
        return None
    kinds = members(repr(argument.annotation)) - {"None"}
    what = next((what for what, names in _OWN_KINDS.items() if kinds and kinds <= names), None)
    if what is None or not _is_other(what, value):
        return None
    default = None
    with contextlib.suppress(ValueError, SyntaxError, SystemError):
        default = ast.literal_eval(repr(argument.default))
    # A default of another kind shows that the annotation is loose.
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


def _wrong_input(recipe: str, parameters: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with parameters that become input of VASP or Quantum ESPRESSO."""
    family = family_of(recipe)
    if family == "vasp":
        yield from _wrong_in_vasp(parameters)
    elif family == "espresso":
        yield from _wrong_in_espresso(parameters)


def _wrong_in_vasp(parameters: Mapping[str, Any]) -> Iterator[str]:
    kpts = parameters.get("kpts")
    listed = kpts if isinstance(kpts, (list, tuple)) else ()
    if isinstance(kpts, str) or any(isinstance(each, float) for each in listed) or _no_mesh(kpts):
        yield _wrong_kind("kpts", _KPTS, kpts)
    if isinstance(parameters.get("setups"), (int, float, list, tuple)):
        what = 'the name of a file of setups, or a table, {"Al": "_pv"}'
        yield _wrong_kind("setups", what, parameters["setups"])
    yield from _twice(parameters, "tag of INCAR")
    for name, value in parameters.items():
        if (due := _right_kind_in_incar(name.lower(), value)) is not None:
            yield _wrong_kind(name, due, value)
        elif name.lower() == "ispin" and float(value) not in _SPINS:
            yield _wrong_kind(name, "1, without spin, or 2, spin-polarized", value)


def _twice(names: Mapping[Any, Any], what: str) -> Iterator[str]:
    """Yield names that differ in capitals alone; recipes differ in which one they take."""
    spelt: dict[str, str] = {}
    for name in map(str, names):
        if (before := spelt.setdefault(name.lower(), name)) != name:
            yield f"{before!r} and {name!r} are one {what}; give it once, as {before!r}"


def _no_mesh(kpts: object) -> bool:
    """Return whether a mesh has no k-point, so that VASP and pw.x would end at once."""
    listed = kpts if isinstance(kpts, (list, tuple)) else ()
    return len(listed) == _MESH and any(type(each) is int and each < 1 for each in listed)


def _is_cut(kpts: object) -> bool:
    """Return whether a mesh has too few numbers for pw.x, or one that is not whole."""
    return isinstance(kpts, (list, tuple)) and (
        len(kpts) < _MESH or any(isinstance(each, float) for each in kpts)
    )


def _wrong_in_espresso(parameters: Mapping[str, Any]) -> Iterator[str]:
    kpts = parameters.get("kpts")
    text = isinstance(kpts, str) and kpts != "gamma"
    # A single number is a density of k-points in VASP only.
    if text or isinstance(kpts, (int, float)) or _is_cut(kpts) or _no_mesh(kpts):
        yield _wrong_kind("kpts", _KPTS, kpts)
    if isinstance(parameters.get("kspacing"), _NOT_NUMBERS):
        yield _wrong_kind("kspacing", "a number, in 1/Å", parameters["kspacing"])
    for table in _tables_of(parameters):
        yield from _twice(table, "name in input_data")
    for name, value in _numbers_of(parameters):
        if isinstance(value, str):
            yield _wrong_kind(name, f"a number, in {UNITS[name.lower()]}", value)


def _right_kind_in_incar(name: str, value: Any) -> str | None:
    """Return the right kind of a tag of INCAR, if ASE or VASP would fail at its value."""
    text = isinstance(value, str)
    if name in _tags("float") or name in _tags("exp"):
        unit = f", in {UNITS[name]}" if name in UNITS else ""
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
    """Return the tags of one of ASE's lists."""
    return keys_of("ase.calculators.vasp.create_input", f"{kind}_keys")


def _numbers_of(parameters: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the numbers of Quantum ESPRESSO's input that have a unit, with their names."""
    for table in _tables_of(parameters):
        for name, value in table.items():
            if str(name).lower() in UNITS:
                yield str(name), value


def _tables_of(parameters: Mapping[str, Any]) -> Iterator[Mapping[Any, Any]]:
    """Yield the table of Quantum ESPRESSO's input, and each namelist in it."""
    data = parameters.get("input_data")
    flat = data if isinstance(data, Mapping) else {}
    yield flat
    yield from (each for each in flat.values() if isinstance(each, Mapping))


def _wrong(name: str, value: Any, annotation: str) -> Iterator[str]:
    kind = _kind(annotation)
    if kind == "copy":
        if not _is_copy(value):
            yield _wrong_kind(name, _COPY, value)
    elif kind == "number":
        if isinstance(value, _NOT_NUMBERS):
            yield _wrong_kind(name, "a number", value)
    elif name in _NAMED:
        if isinstance(value, _NO_NAMES):
            yield _wrong_kind(name, _NAMED[name], value)
    elif kind == "table" or name in {"input_data", "pseudopotentials"}:
        if _is_no_table(value):
            yield _wrong_kind(name, 'a table, {"key": value}', value)
        elif isinstance(value, Mapping):
            yield from _inner(name, value)


def _wrong_for_calculator(recipe: str, parameters: Mapping[str, Any]) -> Iterator[str]:
    """Yield the parameters of another kind than the defaults in a calculator's source."""
    family = family_of(recipe)
    defaults: Mapping[str, Any] | None = _DEFAULTS.get(family)
    if parameters and family in CALCULATORS:
        defaults = {**(defaults_of(*CALCULATORS[family]) or {}), **(defaults or {})}
    for name, value in parameters.items():
        default = (defaults or {}).get(name)
        # As in `check_flag`.
        if isinstance(default, bool):
            if isinstance(value, _NOT_NUMBERS):
                yield _wrong_kind(name, "true or false", value)
        elif isinstance(default, (int, float)) and isinstance(value, _NOT_NUMBERS):
            yield _wrong_kind(name, "a number", value)


def _inner(name: str, table: Mapping[Any, Any]) -> Iterator[str]:
    if name == "job_params":
        yield from (
            _wrong_kind(f"{name}.{job}", "a table of that job's parameters", of_job)
            for job, of_job in table.items()
            if _is_no_table(of_job)
        )
    for key, value in table.items() if name in {"opt_params", "md_params"} else ():
        place = f"{name}.{key}"
        if value is None:
            continue
        if key == "optimizer" and isinstance(value, (int, float, *_NOT_TEXT)):
            yield _wrong_kind(place, "an optimizer of ase.optimize, such as FIRE", value)
        elif key in _INNER_NUMBERS and isinstance(value, _NOT_NUMBERS):
            yield _wrong_kind(place, "a number", value)
        elif str(key).endswith("_kwargs") and _is_no_table(value):
            yield _wrong_kind(place, 'a table, {"key": value}', value)


def _wrong_kind(name: str, what: str, value: object) -> str:
    return f"the parameter {name!r} must be {what}, not {shown(value)}"


def _is_no_table(value: object) -> bool:
    # quacc ignores an empty value.
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
    """Return the kind that an annotation names; ``None`` if it names several."""
    kinds = {_meaning(name) for name in members(annotation) - {"None"}}
    return kinds.pop() if len(kinds) == 1 else None


def _meaning(name: str) -> str:
    if name in _NUMBERS:
        return "number"
    if name in _TABLES or name.endswith(_TABLE_ENDS):
        return "table"
    return "copy" if name == "CopyFiles" else "other"
