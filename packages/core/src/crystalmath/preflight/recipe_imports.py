"""Which programs a user's recipe may use, by what its source imports."""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
import sys
import time
from typing import TYPE_CHECKING, TypeAlias

from attrs import frozen

from crystalmath.recipes.source import locate, parse
from crystalmath.worker.imports import Edited, signature

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

#: As ``import_module()`` takes it.
_NAMED = re.compile(r"\w+(\.\w+)+")


#: How long an answer holds while the files are as they were, in seconds: by then it is noticed
#: too where another module is found by a name. To find the modules takes ten times as long as to
#: see that none has changed.
_HOLDS_S = 1.0

_Question: TypeAlias = tuple[str, tuple[str, ...], tuple[str, ...], tuple[str, ...]]


@frozen
class _Answer:
    """What a question was answered, when (monotonic, in s), and of which files."""

    value: bool
    at: float
    files: Mapping[str, tuple[int, ...]]

    def holds(self) -> bool:
        return time.monotonic() - self.at < _HOLDS_S and all(
            signature(file) == known for file, known in self.files.items()
        )


#: The last questions, with their answers; at most so many.
_answers: dict[_Question, _Answer] = {}
_MOST_ANSWERS = 256


def imports_any(module: str, wanted: Sequence[str], roots: Sequence[str]) -> bool:
    """Return whether a module imports any of some packages; nothing is imported.

    Imports within functions count, names of modules in text, and what other modules import that it
    imports itself: those below the same roots, and those that are not installed.
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
    """Answer the question; `files` gets what was read for it, with the signatures."""
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
    """Name all that a module imports, modules and what is in them, and what its text may name."""
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
    del signature  # part of the key: a module that was mended is read again
    try:
        tree = parse(file)
        return frozenset(_names(tree, package)), frozenset(_texts(tree))
    except (OSError, SyntaxError, ValueError, RecursionError):
        # Whoever looks up or imports the recipe says what is wrong with it.
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
