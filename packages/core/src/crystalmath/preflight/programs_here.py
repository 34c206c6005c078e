"""The programs of the installed plugins, the recipes that run them, and their presets."""

from __future__ import annotations

import ast
import functools
import importlib.util
import json
import re
import sys
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from attrs import frozen

from crystalmath import config
from crystalmath.engines.registry import plugins
from crystalmath.errors import InvalidJob, did_you_mean, shown
from crystalmath.models import Finding
from crystalmath.models.inputs import Preset
from crystalmath.plugins.checked_job import said
from crystalmath.plugins.program import Condition, Program
from crystalmath.recipes.lookup import is_quaccs
from crystalmath.recipes.quacc_settings import expanded, quacc_setting
from crystalmath.recipes.source import locate, parse
from crystalmath.worker.imports import Edited, signature

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from crystalmath.plugins.checked_job import FileKind


class _Unknown(Program):
    """The program of a calculator that no plugin knows."""

    name = ""


_UNKNOWN = _Unknown()
_Result = TypeVar("_Result")


def programs() -> tuple[Program, ...]:
    """Return all programs, each name once."""
    return plugins().programs()


def program_named(name: str) -> Program:
    """Return a program by its name; if there is none, one with all the defaults."""
    return next((each for each in programs() if each.name == name), _UNKNOWN)


def program_of(recipe: str) -> Program | None:
    """Return the program of one of quacc's recipes."""
    return next((each for each in programs() if _is_of(recipe, each)), None)


def file_kinds() -> Mapping[str, FileKind]:
    """Return the words for each program's files, by its name."""
    return {each.name: each.files for each in programs()}


def may_be_asked(recipe: str) -> bool:
    """Return, from its full name alone, whether a recipe may be asked which files it reads.

    The first question takes seconds. One of quacc's recipes is asked only if its program is known.
    A user's recipe may be asked: its source decides (`concerns`).
    """
    return program_of(recipe) is not None or not is_quaccs(recipe)


def concerns(recipe: str, environment: Mapping[str, str]) -> bool:
    """Return whether a recipe must be asked; neither it nor quacc is imported."""
    if is_quaccs(recipe):
        return program_of(recipe) is not None
    allow = config.admitted(environment)
    if not recipe.startswith(tuple(f"{name}." for name in allow)):
        return False
    roots = [name.split(".")[0] for name in allow]
    used = [module for each in programs() for module in (*each.recipes, *each.imports)]
    return imports_any(recipe.rpartition(".")[0], used, roots)


def conditions(environment: Mapping[str, str]) -> Iterator[Condition]:
    """Yield the conditions of each program on this machine."""
    for program in programs():
        results = _call(program.conditions, environment)
        if isinstance(results, Exception):
            failed = failure(program, results)
            yield Condition(name="plugin", ok=False, message=failed.message, remedy=failed.remedy)
        else:
            yield from results


def guarded(
    program: Program, call: Callable[..., Iterable[Finding]], *arguments: Any
) -> list[Finding]:
    """Return the findings of a program's code; its exception becomes a warning that names it."""
    results = _call(call, *arguments)
    return [failure(program, results)] if isinstance(results, Exception) else results


def _call(call: Callable[..., Iterable[_Result]], *arguments: Any) -> list[_Result] | Exception:
    try:
        return list(call(*arguments))
    except Exception as error:  # noqa: BLE001 - a plugin's code may raise anything; the job goes on
        return error


def failure(program: Program, error: Exception) -> Finding:
    """Return the warning that a program's own code has failed."""
    module = type(program).__module__
    return Finding(
        severity="warning",
        code="plugin_failed",
        message=f"the checks of {program.files.title} ({module}) failed, so the job is only partly "
        f"checked: {said(f'{type(error).__name__}: {error}')}",
        remedy=f"correct or uninstall the plugin that provides {module}",
    )


def _is_of(recipe: str, program: Program) -> bool:
    return recipe.startswith(tuple(f"{module}." for module in program.recipes))


def presets(environment: Mapping[str, str], name: str | None = None) -> list[Preset]:
    """Return the presets of all programs, or those of one name.

    Raises
    ------
    InvalidJob
        No preset has that name, or one is damaged.
    """
    every = [each for program in programs() for each in _of_program(program, environment)]
    if name is None:
        return every
    if chosen := [each for each in every if each.name == name]:
        return chosen
    known = [each.name for each in every]
    listed = ", ".join(known) or "none, as quacc is not installed"
    meant = f"{near} " if (near := did_you_mean(name, known, "")) else ""
    raise InvalidJob(f"there is no preset {shown(name)}; {meant}there are {listed}")


def _of_program(program: Program, environment: Mapping[str, str]) -> Iterator[Preset]:
    quacc = importlib.util.find_spec("quacc")
    if program.presets is None or quacc is None or quacc.origin is None:
        return
    setting, below = program.presets
    folder = Path(quacc.origin).parent / below
    try:
        if named := quacc_setting(setting, environment):
            folder = expanded(str(named[0]), environment)
    except ValueError as error:
        raise InvalidJob(f"the folder of {program.files.title}'s presets: {error}") from error
    load = _loader(str(Path(quacc.origin).parent / "utils/files.py"))
    for file in sorted(folder.glob("*.yaml")):
        try:
            document = json.loads(json.dumps(load(file), default=str))
        except Exception as error:
            raise InvalidJob(f"the preset {file} cannot be read: {error}") from error
        if parameters := program.preset(document):
            yield Preset(
                name=file.stem, program=program.files.title, file=str(file), settings=parameters
            )


@cache
def _loader(file: str) -> Callable[[Path], Any]:
    from crystalmath.preflight.files import PresetReader

    spec = importlib.util.spec_from_file_location("_crystalmath_quacc_files", file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no Python module")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    vars(module)["YAML"] = PresetReader
    load: Callable[[Path], Any] = module.load_yaml_calc
    return load


#: The name of a module in text, as an argument of ``import_module()``.
_NAMED = re.compile(r"\w+(\.\w+)+")


#: An answer holds for so many seconds while its files are unchanged; after that, a name may stand
#: for another module. To find the modules takes ten times as long as to check their signatures.
_HOLDS_S = 1.0

_Question: TypeAlias = tuple[str, tuple[str, ...], tuple[str, ...], tuple[str, ...]]


@frozen
class _Answer:
    """The answer to a question, with its time (monotonic, in s) and its files."""

    value: bool
    at: float
    files: Mapping[str, tuple[int, ...]]

    def holds(self) -> bool:
        return time.monotonic() - self.at < _HOLDS_S and all(
            signature(file) == known for file, known in self.files.items()
        )


#: The last questions with their answers, at most `_MOST_ANSWERS`.
_answers: dict[_Question, _Answer] = {}
_MOST_ANSWERS = 256


def imports_any(module: str, wanted: Sequence[str], roots: Sequence[str]) -> bool:
    """Return from its source whether a module imports any of some packages.

    Imports within functions count, and names of modules in text. Modules that it imports are
    followed if they are below the same roots, or are not installed.
    """
    question = module, tuple(wanted), tuple(roots), tuple(sys.path)
    answer = _answers.get(question)
    if answer is None or not answer.holds():
        at = time.monotonic()
        files: dict[str, tuple[int, ...]] = {}
        answer = _Answer(_imports_any(module, question[1], question[2], files), at, files)
        if len(_answers) >= _MOST_ANSWERS:
            _answers.clear()
        _answers[question] = answer
    return answer.value


def _imports_any(
    module: str,
    wanted: tuple[str, ...],
    roots: tuple[str, ...],
    files: dict[str, tuple[int, ...]],
) -> bool:
    """Answer the question; `files` receives the signatures of the files that were read."""
    queue, seen = [module], {module}
    follow: dict[str, bool] = {}
    while queue:
        imported, named = _imports(queue.pop(), files)
        if any(_is_below(name, wanted) for name in imported | named):
            return True
        for name in imported:
            top = name.partition(".")[0]
            if top not in follow:
                follow[top] = _is_edited(top, _edited(roots))
            if name not in seen and follow[top]:
                seen.add(name)
                queue.append(name)
    return False


def _is_below(name: str, packages: Sequence[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


_NOTHING: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset())
_edited = functools.cache(Edited)


def _is_edited(top: str, edited: Edited) -> bool:
    if top in sys.stdlib_module_names:
        return False
    spec = locate(top)
    places = [spec.origin, *(spec.submodule_search_locations or ())] if spec else []
    return any(edited.covers(top, place) for place in places if place)


def _imports(
    module: str, files: dict[str, tuple[int, ...]]
) -> tuple[frozenset[str], frozenset[str]]:
    """Return the names that a module imports, and the names of modules in its text."""
    spec = locate(module)
    file = spec.origin if spec else None
    if spec is None or file is None or not file.endswith((".py", ".pyw")):
        return _NOTHING
    package = module if spec.submodule_search_locations is not None else spec.parent
    files[file] = signature(file)
    return _read(file, package or "", files[file])


@functools.lru_cache(maxsize=1024)
def _read(
    file: str, package: str, signature: tuple[int, ...]
) -> tuple[frozenset[str], frozenset[str]]:
    del signature  # it is a part of the key: an edited module is read again
    try:
        tree = parse(file)
        return frozenset(_names(tree, package)), frozenset(_texts(tree))
    except (OSError, SyntaxError, ValueError, RecursionError):
        # Looking up the recipe reports the error.
        return _NOTHING


def _names(tree: ast.Module, package: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            name = "." * node.level + (node.module or "")
            try:
                home = importlib.util.resolve_name(name, package)
            except ImportError:  # more dots than there are packages
                continue
            yield home
            yield from (f"{home}.{alias.name}" for alias in node.names)


def _texts(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        text = node.value if isinstance(node, ast.Constant) else None
        if isinstance(text, str) and _NAMED.fullmatch(text):
            yield text
