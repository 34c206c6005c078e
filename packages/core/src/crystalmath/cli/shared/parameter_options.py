"""Parse the values of options: parameters, sweeps, times, labels, resources."""

from __future__ import annotations

import ast
import contextlib
import difflib
import itertools
import json
import math
import re
import warnings
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from crystalmath.cli.shared.output import refuse
from crystalmath.models.written import label_of, read_megabytes, read_timespan

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from crystalmath.recipes.lookup import Recipe

#: The longest walltime, in seconds; a longer one is a mistake.
_LONGEST_S = 3650 * 86400.0
#: The least amount of memory that is taken without a unit, in MB.
_LEAST_MB = 100
_OPENING = tuple("[{(\"'")


@contextlib.contextmanager
def of_option(name: str) -> Iterator[None]:
    """Name this option in usage errors of the block."""
    try:
        yield
    except typer.BadParameter as error:
        error.param_hint = error.param_hint or name
        raise


def parse_parameters(
    assignments: Iterable[str], file: Path | None = None, option: str = "--param"
) -> dict[str, Any]:
    """Merge the parameters of a JSON or TOML file with ``KEY=VALUE`` from the command line.

    The command line overrides the file; a dotted key sets a value in a table,
    ``opt_params.fmax=0.01``.
    """
    table = _read_file(file) if file else {}
    with of_option(option):
        return _join(table, [_assignment(text) for text in assignments])


def parse_sweep(
    sweeps: Iterable[str], assignments: Iterable[str] = (), file: Path | None = None
) -> list[tuple[dict[str, str], dict[str, Any]]]:
    """Return the labels and the parameters of each combination of ``KEY=[VALUE, ...]``.

    The last one varies fastest. Without sweeps there is one combination, without labels.
    """
    table = _read_file(file) if file else {}
    with of_option("--param"):
        fixed = [_assignment(text) for text in assignments]
    with of_option("--sweep"):
        combinations = itertools.product(*[_swept(text) for text in sweeps])
    return [
        (
            {".".join(keys): label_of(value) for keys, value, _ in combination},
            _join(table, [*fixed, *combination]),
        )
        for combination in combinations
    ]


def parse_value(text: str) -> object:
    """Parse a value: JSON, else a Python literal, else a reference to a job, else the text."""
    try:
        value = _json(text)
    except json.JSONDecodeError:
        try:
            value = _literal(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            if text.lstrip().startswith(_OPENING):
                raise ValueError(
                    f"{text!r} opens a bracket or a quote, but is neither JSON nor a Python "
                    "literal; texts and keys in it stand in double quotes"
                ) from None
            return _text(text)
    except RecursionError:
        raise ValueError("the value is nested too deeply") from None
    if value is Ellipsis:
        return text
    _refuse_unfit(value)
    return value


def _text(text: str) -> object:
    if not text.startswith("job:"):
        return text
    from crystalmath.recipes.job_structure import as_value, read_job_text

    of_job = read_job_text(text)
    return text if of_job is None else as_value(of_job)


def parse_walltime(text: str) -> float:
    """Parse a time span in s: ``2h``, ``1h30m``, or Slurm's ``HH:MM:SS`` and ``D-HH[:MM[:SS]]``."""
    seconds = read_timespan(text)
    if seconds is None:
        lacks = "" if set(text) - set("0123456789. ") else ", which has no unit"
        refuse(f"cannot read {text!r} as a time{lacks}; write 2h, 1h30m, 90s or 1-02:00:00")
    if not 0 < seconds <= _LONGEST_S:
        refuse(f"{text!r} is not a walltime; it must be above zero, and at most 3650d")
    return seconds


def nearest(option: str | None, options: Sequence[str]) -> list[str]:
    """Return the option that an unknown one misspells, if one is near enough."""
    return difflib.get_close_matches(option or "", options, 1, 0.8)


def source_of(recipe: str) -> Recipe:
    """Return the source of a recipe of this home (`InvalidJob` if there is none)."""
    from crystalmath.config import load
    from crystalmath.recipes.lookup import full_name, look_up

    allow = load().recipes_allow
    return look_up(full_name(recipe, allow), allow)


def as_parameter(option: str | None, arguments: Sequence[str], *, is_slip: bool) -> str | None:
    """Return an unknown option, or ``--param fmax VALUE``, as an option with a parameter.

    ``None`` if the recipe has no such parameter. If the name is similar to an option (`is_slip`),
    the recipe must name the parameter itself.
    """
    from crystalmath.errors import CrystalMathError
    from crystalmath.preflight.unread_parameters import place_of

    if option is None:
        for flag, name, value in zip(arguments, arguments[1:], arguments[2:], strict=False):
            if flag in ("--param", "--sweep") and "=" not in name and name.isidentifier():
                return f"{flag} {name}={value}"
        return None
    name = option.lstrip("-").replace("-", "_")
    if (
        arguments[:1] not in (["run"], ["submit"], ["check"])
        or not name.replace(".", "").isidentifier()
    ):
        return None
    at = next((at for at, text in enumerate(arguments) if text.partition("=")[0] == option), -1)
    value = arguments[at].partition("=")[2] or next(iter(arguments[at + 1 :]), "")
    if option == "-p" and "=" in value:
        return f"--param {value}"
    for text in arguments[1:]:
        with contextlib.suppress(CrystalMathError):
            if place := place_of(source_of(text), name, named=is_slip):
                return f"--param {place}={'VALUE' if value[:1] in ('', '-') else value}"
    return None


def parse_labels(texts: Iterable[str], option: str = "--label") -> dict[str, str]:
    """Parse labels, ``KEY=VALUE`` each."""
    labels: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            refuse(f"cannot read {text!r} as a label; write KEY=VALUE", option)
        if key in labels:
            refuse(f"the label {key!r} is given twice", option)
        labels[key] = value
    return labels


def parse_after(texts: Iterable[str]) -> list[str | dict[str, Any]]:
    """Parse the jobs to wait for: ``ID``, ``ID:any``, several with commas, or filters."""
    from crystalmath.errors import InvalidJob
    from crystalmath.recipes.job_structure import read_job

    after: list[str | dict[str, Any]] = []
    for text in (part.strip() for each in texts for part in each.split(",")):
        job = text.removeprefix("job:").removesuffix(":any")
        if not job:
            refuse(f"cannot read {text!r} as a job; write ID, or ID:any for one that may fail")
        try:
            known = read_job(job)
        except InvalidJob as error:
            refuse(str(error))
        after.append({"job_id": known, "ends": "any" if text.endswith(":any") else "ok"})
    return after


def parse_on_failure(text: str) -> str:
    """Parse the action on the failure of an awaited job: ``wait`` or ``fail``."""
    if text not in {"wait", "fail"}:
        refuse(f"{text!r} must be wait or fail")
    return text


def parse_memory(text: str) -> int:
    """Parse an amount of memory, ``4GB`` or ``1.5T``, in MB of 1024 * 1024 bytes."""
    megabytes = read_megabytes(text)
    if megabytes is None:
        refuse(f"cannot read {text!r} as an amount of memory; write 4GB, 512MB or 1TB")
    if megabytes < 1 or not megabytes.is_integer():
        refuse(f"{text!r} must be a whole number of MB, from 1")
    if text.isdecimal() and megabytes < _LEAST_MB:
        refuse(f"{text!r} has no unit, and MB would be too little; write {text}GB or {text}MB")
    return int(megabytes)


def read_resource(name: str, value: str, text: str) -> object:
    """Parse the value of a resource within `text`, the value of another option."""
    from crystalmath.models.resources import RESOURCES

    if name == "memory_mb":
        return parse_memory(value)
    schema = RESOURCES["properties"][name]
    if schema["type"] == "string":
        return value
    if not value.isdecimal() or int(value) < schema["minimum"]:
        refuse(f"{value!r} in {text!r} must be a whole number of at least {schema['minimum']}")
    return int(value)


@of_option("--step-cluster")
def parse_step_clusters(texts: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Parse clusters by step, ``NAME=CLUSTER`` each."""
    by_step: dict[str, dict[str, Any]] = {}
    for text in texts:
        name, _, cluster = text.partition("=")
        if not name or not cluster:
            refuse(f"cannot read {text!r}; write STEP=CLUSTER: relax_job=big")
        if name in by_step:
            refuse(f"the cluster of {name!r} is given twice")
        by_step[name] = {"cluster": cluster}
    return by_step


@of_option("--step-resources")
def parse_step_resources(texts: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Parse resources and walltime by step, ``NAME=RESOURCE=VALUE,...`` each."""
    from crystalmath.errors import did_you_mean
    from crystalmath.models.resources import RESOURCE_NAMES

    by_step: dict[str, dict[str, Any]] = {}
    for text in texts:
        step, _, assignments = text.partition("=")
        terms = by_step.setdefault(step, {})
        for each in assignments.split(","):
            name, _, value = each.partition("=")
            known, place = RESOURCE_NAMES.get(name), terms.setdefault("resources", {})
            if not step or not value:
                refuse(f"cannot read {text!r}; write STEP=RESOURCE=VALUE: relax_job=ranks=16")
            if known is None and name != "walltime":
                meant = did_you_mean(name, [*RESOURCE_NAMES, "walltime"])
                refuse(f"{name!r} in {text!r} is not a resource of a step; {meant}")
            if (known or "walltime_s") in {**terms, **place}:
                refuse(f"{name!r} of {step!r} is given twice")
            if known is None:
                terms["walltime_s"] = parse_walltime(value)
            else:
                place[known] = read_resource(known, value, text)
    return by_step


@of_option("--larger")
def parse_size(text: str) -> int:
    """Parse a size of files, ``500kB`` or ``1.5GB``, in bytes."""
    read = _SIZE.fullmatch(text.strip())
    if read is None:
        refuse(f"cannot read {text!r} as a size; write 500kB, 20MB, 1.5GB, or bytes")
    return int(float(read[1]) * 1024 ** " KMGT".index((read[2] or " ").upper()))


def parse_scheduler_options(texts: Iterable[str]) -> dict[str, str]:
    """Parse options of a scheduler: ``KEY=VALUE``, or ``KEY`` for an option without a value."""
    options: dict[str, str] = {}
    for text in texts:
        key, _, value = text.partition("=")
        if not key.strip("-"):
            refuse(f"cannot read {text!r} as an option of the scheduler; write KEY=VALUE or KEY")
        if key.startswith("-"):
            refuse(f"write {key.lstrip('-')!r} instead of {key!r}, without the dashes")
        if key in options:
            refuse(f"the scheduler's option {key!r} is given twice")
        options[key] = value
    return options


# The keys, the value, and the whole text.
_Assignment = tuple[list[str], Any, str]


def _assignment(text: str) -> _Assignment:
    name, equals, value = text.partition("=")
    if not equals:
        refuse(f"cannot read {text!r}; write KEY=VALUE")
    keys = name.strip().split(".")
    if not all(keys) or not keys[0].isidentifier():
        refuse(f"{name!r} in {text!r} is not the name of a parameter")
    try:
        return keys, parse_value(value), text
    except ValueError as error:
        refuse(f"{name}: {error}")


def _swept(text: str) -> list[_Assignment]:
    keys, values, _ = _assignment(text)
    if not isinstance(values, list | tuple) or not values:
        refuse(f"write a list of values, {'.'.join(keys)}=[1, 2], not {text!r}")
    written = [label_of(value) for value in values]
    for label in written:
        if written.count(label) > 1:
            refuse(f"the value {label} stands twice in {text!r}")
    return [(keys, value, text) for value in values]


def _join(table: dict[str, Any], assignments: Sequence[_Assignment]) -> dict[str, Any]:
    assigned: dict[str, Any] = {}
    for keys, value, text in assignments:
        _place(assigned, keys, value, text)
    return _merge(table, assigned)


def _place(table: dict[str, Any], keys: list[str], value: object, text: str) -> None:
    # Dotted keys may add only to tables that dotted keys made.
    for key in keys[:-1]:
        inner = table.setdefault(key, _Dotted())
        if not isinstance(inner, _Dotted):
            refuse(f"{text!r} contradicts another parameter that gives {key!r} as a whole")
        table = inner
    if keys[-1] in table:
        refuse(f"{'.'.join(keys)!r} is given twice, the second time in {text!r}")
    table[keys[-1]] = value


class _Dotted(dict[str, Any]):
    """A table that dotted keys made; others may add to it."""


def _merge(base: dict[str, Any], added: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in added.items():
        if not isinstance(value, _Dotted):
            merged[key] = value
            continue
        below = base.get(key, {})
        if not isinstance(below, dict):
            refuse(f"--params gives {key!r} as {below!r}; --param cannot reach into that")
        merged[key] = _merge(below, value)
    return merged


@of_option("--params")
def _read_file(path: Path) -> dict[str, Any]:
    import tomllib

    from crystalmath.config import UNQUOTED
    from crystalmath.errors import shown

    toml = path.suffix.lower() == ".toml"
    try:
        # Windows editors write a byte order mark.
        text = path.read_text(encoding="utf-8-sig")
        table: object = tomllib.loads(text) if toml else _json(text)
        _refuse_unfit(table)
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, OSError):
            refuse(f"cannot read {path}: {error.strerror or error}")
        kind = "TOML" if toml else "JSON (TOML files end in .toml)"
        hint = f"; {UNQUOTED}" if isinstance(error, tomllib.TOMLDecodeError) else ""
        refuse(f"cannot read {path} as {kind}: {error}{hint}")
    if not isinstance(table, dict):
        refuse(f"{path} must hold a table of parameters, not {shown(table)}")
    return table


def _json(text: str) -> object:
    return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a finite number (in quotes it would be text)")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} is given twice")
    return table


def _literal(text: str) -> object:
    with warnings.catch_warnings():
        # Hide Python's warnings about backslashes in the text.
        warnings.simplefilter("ignore")
        return ast.literal_eval(text)


def _refuse_unfit(value: object) -> None:
    if isinstance(value, float | complex) and not math.isfinite(abs(value)):
        raise ValueError(f"{value!r} is not a finite number")
    if isinstance(value, set | bytes):
        raise ValueError(  # noqa: TRY004 - the text is wrong, not its type
            f"{value!r} cannot be passed to a job; write a list or a string"
        )
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list | tuple):
        for item in value:
            _refuse_unfit(item)


_SIZE = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*(?:([KMGT])?I?B)?", re.IGNORECASE)
