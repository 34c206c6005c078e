"""Find a module and read the names that its source binds, without importing it."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import re
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from attrs import evolve, field, frozen

from crystalmath.errors import InvalidJob

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


@frozen(kw_only=True)
class BatchMark:
    """The decorator ``@batched`` of a function, as the source shows it (`crystalmath.batch`)."""

    #: The dotted name of the recipe, relative if the source has it so.
    recipe: str
    #: The most structures of a call, if it is written as a number.
    most: int | None = None


@frozen(kw_only=True)
class Binding:
    """A name that a module binds, and its value as far as the source shows it."""

    name: str
    line: int
    #: The reason why the value is certainly no recipe.
    problem: str | None = None
    #: The module defines it by ``def``.
    is_function: bool = False
    #: The dotted name that it is imported from, relative if the source has it so.
    origin: str | None = None
    #: The next three are as in :class:`crystalmath.recipes.lookup.Recipe`.
    docstring: str | None = None
    signature: inspect.Signature | None = None
    kind: Literal["job", "flow"] | None = None
    #: The recipe that the function computes for many structures.
    batch: BatchMark | None = None


@frozen(kw_only=True)
class Module:
    """A module as its source describes it."""

    name: str
    #: Its file, empty for a namespace package.
    file: str
    #: The folders of its submodules, if it is a package.
    path: Sequence[str] | None = None
    #: The names bound at its top level.
    bindings: Mapping[str, Binding] = field(factory=dict)
    #: It may have names that its source does not show.
    dynamic: bool = False

    @property
    def package(self) -> str:
        """The package that its relative imports start from."""
        return self.name if self.path is not None else self.name.rpartition(".")[0]


def find_spec(name: str, path: Sequence[str] | None) -> ModuleSpec | None:
    """Find a module as the import system would, importing neither it nor its parents."""
    spec = _ask_finders(name, path)
    if spec is None:
        # A file may be newer than the finders' listing of its directory.
        importlib.invalidate_caches()
        spec = _ask_finders(name, path)
    return spec


def locate(name: str) -> ModuleSpec | None:
    """Find a module by its full name, importing neither it nor its parents."""
    path: Sequence[str] | None = None
    spec: ModuleSpec | None = None
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        spec = find_spec(".".join(parts[:depth]), path)
        path = spec.submodule_search_locations if spec else None
        if path is None and depth < len(parts):
            return None
    return spec


def _ask_finders(name: str, path: Sequence[str] | None) -> ModuleSpec | None:
    # importlib.util.find_spec would import the parents. Editable installations have finders of
    # their own.
    for finder in sys.meta_path:
        look = getattr(finder, "find_spec", None)
        try:
            spec: ModuleSpec | None = look(name, path) if look else None
        except KeyError:
            # The finder needs the parent of a namespace package to be imported.
            spec = _namespace(name, path or ())
        if spec is not None:
            return spec
    return None


def _namespace(name: str, path: Sequence[str]) -> ModuleSpec | None:
    """Find a package without ``__init__.py``: all folders of its name."""
    folders = [Path(entry, name.rpartition(".")[2]) for entry in path]
    spec = ModuleSpec(name, None, is_package=True)
    spec.submodule_search_locations = [str(folder) for folder in folders if folder.is_dir()]
    return spec if spec.submodule_search_locations else None


def read_module(spec: ModuleSpec) -> Module:
    """Read the source of a module; `InvalidJob` names the line that cannot be parsed."""
    path = None
    if spec.submodule_search_locations is not None:
        path = tuple(spec.submodule_search_locations)
    file = spec.origin or ""
    if not spec.has_location or not file.endswith((".py", ".pyw")):
        # A namespace package binds nothing; an extension module does not show its names.
        return Module(
            name=spec.name, file=file, path=path, dynamic=spec.loader is not None and path is None
        )
    try:
        status = Path(file).stat()
        bindings, dynamic = _scan(file, status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise InvalidJob(f"the source of {spec.name} cannot be read: {error}") from error
    return Module(name=spec.name, file=file, path=path, bindings=bindings, dynamic=dynamic)


def parse(file: str) -> ast.Module:
    """Parse a module's source; `SyntaxError` or `ValueError`: it is no Python."""
    text = Path(file).read_bytes()
    try:
        return ast.parse(text, file)
    except SystemError:
        # Up to Python 3.11.7 and 3.12.1 another thread can disturb the parser's count of its depth
        # (python/cpython#106905).
        return ast.parse(text, file)


@functools.lru_cache(maxsize=1024)
def _scan(file: str, mtime_ns: int, size: int) -> tuple[dict[str, Binding], bool]:
    # Time and size are the cache's key: a changed file is read again.
    del mtime_ns, size
    try:
        tree = parse(file)
    except (SyntaxError, ValueError, RecursionError) as error:
        line = getattr(error, "lineno", None)
        place = f"{file}:{line}" if line else file
        raise InvalidJob(f"the recipe's module cannot be parsed: {place}: {error}") from error
    scanner = _Scanner()
    scanner.statements(tree.body, certain=True)
    dynamic = scanner.star or "__getattr__" in scanner.bindings or _binds_at_run_time(tree)
    return scanner.bindings, dynamic


_RUN_TIME = frozenset(("globals", "vars", "locals", "setattr", "exec", "eval"))


def _binds_at_run_time(tree: ast.AST) -> bool:
    return any(
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _RUN_TIME
        for node in ast.walk(tree)
    )


# Decorators that keep the signature. `requires` raises if a package is missing, and else passes all
# arguments on.
_KIND: dict[str, Literal["job", "flow"] | None] = {"job": "job", "flow": "flow", "subflow": None}
_BATCHED = "crystalmath.batch.batched"
_TRUSTED = frozenset(
    [f"{home}.{name}" for home in ("quacc", "quacc.wflow_tools.decorators") for name in _KIND]
    + ["monty.dev.requires"]
)


class _Scanner:
    """Reader of the statements at a module's top level, in their order."""

    def __init__(self) -> None:
        self.bindings: dict[str, Binding] = {}
        self.imports: dict[str, str] = {}
        self.star = False

    def statements(self, body: Sequence[ast.stmt], *, certain: bool) -> None:
        for node in body:
            self._statement(node, certain=certain)

    def _statement(self, node: ast.stmt, *, certain: bool) -> None:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            self._bind(self._function(node), certain=certain)
        elif isinstance(node, ast.ClassDef):
            docstring = ast.get_docstring(node)
            self._bind(
                Binding(name=node.name, line=node.lineno, docstring=docstring), certain=certain
            )
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            self._import(node, certain=certain)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            self._assign(node, certain=certain)
        elif isinstance(node, ast.Delete):
            for target in node.targets:
                if isinstance(target, ast.Name) and certain:
                    self.bindings.pop(target.id, None)
        else:
            self._compound(node, certain=certain)

    def _bind(self, binding: Binding, *, certain: bool) -> None:
        if not certain and binding.name in self.bindings:
            # Only a run of the module shows which of the two bindings counts.
            binding = evolve(binding, problem=None, origin=None, signature=None)
        self.bindings[binding.name] = binding

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> Binding:
        decorators = [self._dotted(item) for item in node.decorator_list]
        trusted = all(name in _TRUSTED for name in decorators)
        kinds = [_KIND.get(name.rpartition(".")[2]) for name in decorators if name in _TRUSTED]
        is_async = isinstance(node, ast.AsyncFunctionDef) and trusted
        return Binding(
            name=node.name,
            line=node.lineno,
            problem="it is a coroutine function; recipes are plain functions" if is_async else None,
            is_function=True,
            docstring=ast.get_docstring(node),
            signature=_signature(node.args, node.returns) if trusted else None,
            kind=next((kind for kind in kinds if kind), None),
            batch=next(filter(None, map(self._batch, node.decorator_list)), None),
        )

    def _batch(self, decorator: ast.expr) -> BatchMark | None:
        if not isinstance(decorator, ast.Call) or self._dotted(decorator) != _BATCHED:
            return None
        words = {word.arg: word.value for word in decorator.keywords}
        recipe = next(iter(decorator.args), words.get("recipe"))
        most = words.get("most")
        number = most.value if isinstance(most, ast.Constant) else None
        if recipe is None:
            return None
        number = number if isinstance(number, int) else None
        return BatchMark(recipe=self._dotted(recipe), most=number)

    def _dotted(self, node: ast.expr) -> str:
        parts: list[str] = []
        if isinstance(node, ast.Call):
            node = node.func
        while isinstance(node, ast.Attribute):
            parts.insert(0, node.attr)
            node = node.value
        root = self.imports.get(node.id, node.id) if isinstance(node, ast.Name) else "?"
        return ".".join([root, *parts])

    def _import(self, node: ast.Import | ast.ImportFrom, *, certain: bool) -> None:
        for alias in node.names:
            if alias.name == "*":
                self.star = True
                continue
            name = alias.asname or alias.name.split(".")[0]
            origin = problem = None
            if isinstance(node, ast.ImportFrom):
                home = "." * node.level + (node.module or "")
                origin = f"{home}.{alias.name}" if node.module else f"{home}{alias.name}"
                self.imports[name] = origin
            else:
                self.imports[name] = alias.name if alias.asname else name
                problem = "it is an imported module"
            binding = Binding(name=name, line=node.lineno, problem=problem, origin=origin)
            self._bind(binding, certain=certain)

    def _assign(self, node: ast.Assign | ast.AnnAssign, *, certain: bool) -> None:
        if node.value is None:
            return
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            if isinstance(target, ast.Name):
                self._bind(_value(target.id, node.value), certain=certain)
            else:
                self._targets(target)

    def _targets(self, target: ast.AST) -> None:
        for inner in ast.walk(target):
            if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
                self._bind(Binding(name=inner.id, line=inner.lineno), certain=False)

    def _compound(self, node: ast.stmt, *, certain: bool) -> None:
        if isinstance(node, ast.If) and _is_type_checking(node.test):
            self.statements(node.orelse, certain=certain)
            return
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.expr, ast.withitem)):
                self._targets(child)
        for body in _bodies(node):
            self.statements(body, certain=certain and isinstance(node, (ast.With, ast.AsyncWith)))


def _bodies(node: ast.AST) -> Iterator[list[ast.stmt]]:
    for name in ("body", "handlers", "cases", "orelse", "finalbody"):
        inner = getattr(node, name, None) or []
        if name in {"handlers", "cases"}:
            for part in inner:
                yield from _bodies(part)
        else:
            yield inner


def _is_type_checking(test: ast.expr) -> bool:
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", None)
    return name == "TYPE_CHECKING"


_DATA = (
    *(ast.Constant, ast.List, ast.Dict, ast.Set, ast.Tuple, ast.JoinedStr, ast.ListComp),
    *(ast.DictComp, ast.SetComp, ast.GeneratorExp, ast.Compare),
)


def _value(name: str, value: ast.expr) -> Binding:
    if isinstance(value, _DATA):
        kind = type(value.value if isinstance(value, ast.Constant) else value).__name__
        return Binding(name=name, line=value.lineno, problem=f"it is data ({kind})")
    signature = _signature(value.args, None) if isinstance(value, ast.Lambda) else None
    return Binding(name=name, line=value.lineno, signature=signature)


class _Written:
    """A default or an annotation in the source's own words."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def _signature(arguments: ast.arguments, returns: ast.expr | None) -> inspect.Signature:
    kind = inspect.Parameter
    positional = [
        *((item, kind.POSITIONAL_ONLY) for item in arguments.posonlyargs),
        *((item, kind.POSITIONAL_OR_KEYWORD) for item in arguments.args),
    ]
    padding: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults))
    defaults = [*padding, *arguments.defaults]
    parameters = [
        kind(item.arg, where, default=_written(value), annotation=_written(item.annotation))
        for (item, where), value in zip(positional, defaults, strict=True)
    ]
    if arguments.vararg:
        parameters.append(kind(arguments.vararg.arg, kind.VAR_POSITIONAL))
    for item, value in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        written = {"default": _written(value), "annotation": _written(item.annotation)}
        parameters.append(kind(item.arg, kind.KEYWORD_ONLY, **written))
    if arguments.kwarg:
        parameters.append(kind(arguments.kwarg.arg, kind.VAR_KEYWORD))
    return inspect.Signature(parameters, return_annotation=_written(returns))


def _written(value: ast.expr | None) -> Any:
    return inspect.Parameter.empty if value is None else _Written(ast.unparse(value))


#: The calculators that get the further parameters of recipes, by the family of the recipe.
CALCULATORS = {
    "emt": ("ase.calculators.emt", "EMT"),
    "lj": ("ase.calculators.lj", "LennardJones"),
    "tblite": ("tblite.ase", "TBLite"),
}

_Definition = ast.ClassDef | ast.FunctionDef


@functools.cache
def defaults_of(module: str, name: str) -> Mapping[str, Any] | None:
    """Return the ``default_parameters`` of a calculator's class."""
    node_of_class = definition(module, name)
    for node in [] if node_of_class is None else node_of_class.body:
        if not isinstance(node, (ast.Assign, ast.AnnAssign)) or node.value is None:
            continue
        target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
        if isinstance(target, ast.Name) and target.id == "default_parameters":
            try:
                return dict(ast.literal_eval(node.value))
            except (ValueError, TypeError):
                return None
    return None


@functools.cache
def arguments_of(
    module: str, name: str, method: str | None = None, *, others: bool = False
) -> tuple[str, ...]:
    """Return the arguments of a function, or of a class's method, without the first.

    Without `others` the result is empty for a function that takes further ones (``**kwargs``).
    """
    function = definition(module, name)
    if method is not None and function is not None:
        inner = [node for node in function.body if isinstance(node, ast.FunctionDef)]
        function = next((node for node in inner if node.name == method), None)
    if not isinstance(function, ast.FunctionDef):
        return ()
    taken = function.args
    if taken.kwarg is not None and not others:
        return ()
    return tuple(item.arg for item in (*taken.args, *taken.kwonlyargs))[1:]


def documented(
    module: str, name: str, method: str | None = None
) -> tuple[Sequence[inspect.Parameter], str]:
    """Return the arguments of a function, or of a class's method, without the first; its docstring.

    Both are empty if the source does not show them.
    """
    function = definition(module, name)
    if method is not None and function is not None:
        inner = [node for node in function.body if isinstance(node, ast.FunctionDef)]
        function = next((node for node in inner if node.name == method), None)
    if not isinstance(function, ast.FunctionDef):
        return (), ""
    arguments = list(_signature(function.args, None).parameters.values())
    return arguments[1:], ast.get_docstring(function) or ""


@functools.cache
def notes_of(module: str, name: str) -> Mapping[str, str]:
    """Return the comments beside the items of a list in a module's source, by these items."""
    spec = locate(module)
    keys = keys_of(module, name)
    if not keys or spec is None or spec.origin is None:
        return {}
    text = Path(spec.origin).read_text(encoding="utf-8")
    item = re.compile(r"^ *'(\w+)', *# *(.*\w.*)$", re.MULTILINE)
    return {key: " ".join(note.split()) for key, note in item.findall(text) if key in keys}


@functools.cache
def keys_of(module: str, name: str) -> tuple[str, ...]:
    """Return the keys of a dict, or the items of a list, in a module's source; else none."""
    for node in _statements(module):
        if not isinstance(node, (ast.Assign, ast.AnnAssign)):
            continue
        target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
        if isinstance(target, ast.Name) and target.id == name:
            inside = node.value
            keys = list(inside.keys) if isinstance(inside, ast.Dict) else []
            keys += inside.elts if isinstance(inside, ast.List) else []
            return tuple(str(key.value) for key in keys if isinstance(key, ast.Constant))
    return ()


def definition(module: str, name: str) -> _Definition | None:
    """Return the definition of a class or a function in a module's source."""
    for node in _statements(module):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == name:
            return node
    return None


def _statements(module: str) -> list[ast.stmt]:
    spec = locate(module)
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        return []
    try:
        return parse(spec.origin).body
    except (OSError, SyntaxError, ValueError):
        return []
