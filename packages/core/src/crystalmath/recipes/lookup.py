"""Find recipes by their names, and read their source without importing them.

Only :func:`resolve`, which workers call, imports a recipe.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import keyword
import pkgutil
import re
from typing import TYPE_CHECKING, Any, Literal, cast

from attrs import frozen

from crystalmath.errors import InvalidJob, NoRecipe
from crystalmath.recipes.source import Binding, Module, find_spec, read_module

if TYPE_CHECKING:
    import inspect
    from collections.abc import Callable, Iterator, Sequence
    from importlib.machinery import ModuleSpec

#: The namespace that is always admitted, and that names on the command line may leave out.
NAMESPACE = "quacc.recipes"

#: The only recipe of our own: it reports on the machine that it runs on.
PROBE = "crystalmath.preflight.node_probe.probe_job"

_MAX_LENGTH = 255
_DOTTED = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)+", re.ASCII)


@frozen(kw_only=True)
class Recipe:
    """A recipe as its source describes it."""

    name: str
    file: str
    #: The line of the file that binds the name; 0 if the source does not show it.
    line: int
    #: The function's docstring, unindented.
    docstring: str | None = None
    #: With annotations and defaults as the source has them. ``None`` if it does not show them.
    signature: inspect.Signature | None = None
    #: The kind that quacc's decorator makes of the function.
    kind: Literal["job", "flow"] | None = None


def is_quaccs(recipe: str) -> bool:
    """Return whether a full name is that of one of quacc's own recipes."""
    return recipe.startswith(f"{NAMESPACE}.")


def family_of(recipe: str) -> str:
    """Return the folder of one of quacc's recipes, such as ``vasp``; empty for a user's own."""
    return recipe.split(".")[2] if is_quaccs(recipe) else ""


def full_name(name: str, allow: Sequence[str] = ()) -> str:
    """Complete a name from which a leading ``quacc.recipes.`` was left out."""
    if name == PROBE or name in allow:
        return name
    if any(_is_below(name, namespace) for namespace in (NAMESPACE, *allow)):
        return name
    return name if name.startswith("quacc.") else f"{NAMESPACE}.{name}"


def check_name(name: object, allow: Sequence[str] = ()) -> None:
    """Check that a recipe may have a name, importing nothing.

    Raises `InvalidJob` ("not permitted"): it is no dotted path of ASCII identifiers below an
    admitted namespace, or a part of it begins with two underscores.
    """
    reason = None if name == PROBE else _objection(name, allow)
    if reason:
        raise InvalidJob(f"the recipe name {str(name)[:100]!r} is not permitted: {reason}")


def _objection(name: object, allow: Sequence[str]) -> str | None:
    if not isinstance(name, str):
        return f"it is a {type(name).__name__}, not a string"
    if len(name) > _MAX_LENGTH:
        return f"it is longer than {_MAX_LENGTH} characters"
    if not _DOTTED.fullmatch(name):
        return "it is no dotted path of ASCII identifiers"
    for part in name.split("."):
        if part.startswith("__") or keyword.iskeyword(part):
            return f"{part!r} is no name of a module or recipe"
    if not any(_is_below(name, namespace) for namespace in (NAMESPACE, *allow)):
        return _not_admitted(name, allow)
    return None


def _not_admitted(name: str, allow: Sequence[str]) -> str:
    if _is_shortened(name):
        return f"it is no full name; write {NAMESPACE}.{name}"
    return (
        f"it is not below {' or '.join((NAMESPACE, *allow))}; CRYSTALMATH_RECIPES or "
        "[recipes] allow in the configuration file admit further namespaces"
    )


def _is_below(name: str, namespace: str) -> bool:
    return bool(namespace) and name.startswith(f"{namespace}.")


def _is_shortened(name: str) -> bool:
    try:
        path = _module(NAMESPACE, NAMESPACE).path
    except InvalidJob:
        return False
    return name.partition(".")[0] in {each.name for each in pkgutil.iter_modules(path)}


def look_up(name: str, allow: Sequence[str] = ()) -> Recipe:
    """Find a recipe by its source, importing nothing of it.

    Raises `InvalidJob`: the name is not permitted, or names nothing that can be called, or no
    recipe. The message suggests the nearest names, or the package to install. Recipes of quacc are
    the jobs and flows that its modules define; a name that a user's module imports from elsewhere
    is no recipe.
    """
    check_name(name, allow)
    module_name, _, function = name.rpartition(".")
    module = _module(module_name, name)
    binding = module.bindings.get(function)
    if binding is None:
        _check_absent(module, function, name)
        return Recipe(name=name, file=module.file, line=0)
    home, binding = _follow(module, binding)
    if binding.problem:
        raise InvalidJob(
            f"the recipe {name} is not callable: {binding.problem} ({home.file}:{binding.line})"
        )
    if _is_below(name, NAMESPACE):
        _require_recipe(name, module, home, binding)
    elif name != PROBE and (origin := _foreign_origin(home, binding, allow)):
        raise InvalidJob(f"{name} is no recipe: {module.name} only imports it, from {origin}")
    return _recipe(name, home, binding)


def _require_recipe(name: str, module: Module, home: Module, binding: Binding) -> None:
    """Raise `NoRecipe` for an import, a class or a helper of one of quacc's modules."""
    if home is module and _is_recipe(binding, decorated=True):
        return
    known = [item.name for item in module.bindings.values() if _is_recipe(item, decorated=True)]
    raise NoRecipe(
        f"{name} is no recipe: a recipe of quacc's is a function that its module makes a job or a "
        f"flow{nearest(name.rpartition('.')[2], known)}"
    )


def _foreign_origin(home: Module, binding: Binding, allow: Sequence[str]) -> str | None:
    """Return the module that a name comes from, if no admitted package defines it."""
    origin = home.name
    if binding.origin is not None:
        origin = importlib.util.resolve_name(binding.origin, home.package).rpartition(".")[0]
    packages = {namespace.partition(".")[0] for namespace in allow}
    known = _is_below(origin, NAMESPACE) or origin.partition(".")[0] in packages
    return None if known else origin


_MAX_IMPORTS = 8
#: The most recipes of other modules in a message, and the fewest letters of the word they share.
_MOST_SUGGESTED = 4
_WORD = 3


def _follow(module: Module, binding: Binding) -> tuple[Module, Binding]:
    """Return the module and binding that define an imported name, as far as the source shows."""
    for _ in range(_MAX_IMPORTS):
        if binding.origin is None:
            break
        try:
            origin = importlib.util.resolve_name(binding.origin, module.package)
            home, _, name = origin.rpartition(".")
            source = _module(home, origin)
        except (ImportError, InvalidJob):
            break
        if name not in source.bindings:
            break
        module, binding = source, source.bindings[name]
    return module, binding


def home_of(name: str) -> tuple[Module, str]:
    """Return the module that defines a recipe, and the name that the recipe has there.

    Raises `InvalidJob`: the source shows no such recipe.
    """
    module_name, _, function = name.rpartition(".")
    module = _module(module_name, name)
    binding = module.bindings.get(function)
    if binding is None:
        return module, function
    home, binding = _follow(module, binding)
    return home, binding.name


def check_namespace(namespace: str) -> None:
    """Raise `InvalidJob` if an admitted namespace can have no recipes; nothing is imported."""
    _module(namespace, f"below {namespace}")


def catalogue(allow: Sequence[str] = ()) -> Iterator[Recipe]:
    """Yield all public recipes of quacc and of the admitted namespaces, by their source."""
    for namespace in (NAMESPACE, *allow):
        for module_name in sorted(_module_names(namespace)):
            yield from _public(module_name, decorated=namespace == NAMESPACE)


def resolve(name: str, allow: Sequence[str] = ()) -> Callable[..., Any]:
    """Import a recipe, in a worker.

    Raises `InvalidJob`: the name is not permitted, its module lacks it, or it is not callable.
    `ImportError`: its module cannot be imported.
    """
    check_name(name, allow)
    module_name, _, function = name.rpartition(".")
    module = importlib.import_module(module_name)
    try:
        recipe = getattr(module, function)
    except AttributeError as error:
        near = nearest(function, dir(module))
        raise InvalidJob(f"the module {module_name} has no recipe {function!r}{near}") from error
    if not callable(recipe):
        raise InvalidJob(f"the recipe {name} is not callable: it is a {type(recipe).__name__}")
    if _is_below(name, NAMESPACE) and not _is_defined_in(recipe, module_name):
        raise InvalidJob(f"{name} is no recipe: {module_name} only imports it, or it is a class")
    return cast("Callable[..., Any]", recipe)


def _is_defined_in(recipe: Callable[..., Any], module_name: str) -> bool:
    return not isinstance(recipe, type) and recipe.__module__ == module_name


def _module(module_name: str, recipe: str) -> Module:
    parts = module_name.split(".")
    path: Sequence[str] | None = None
    spec = None
    for depth, part in enumerate(parts):
        parent = ".".join(parts[:depth])
        spec = find_spec(f"{parent}.{part}" if parent else part, path)
        if spec is None:
            absent = _absence(parent, part)
            help_text = nearest(part, _submodules(path)) or _admission(parent, recipe)
            raise InvalidJob(f"there is no recipe {recipe}: {absent}{help_text}")
        path = spec.submodule_search_locations
        if path is None and depth < len(parts) - 1:
            raise InvalidJob(
                f"there is no recipe {recipe}: {'.'.join(parts[: depth + 1])} is a module, "
                "not a package"
            )
    return read_module(cast("ModuleSpec", spec))


def _absence(parent: str, part: str) -> str:
    if not parent:
        remedy = (
            'pip install "crystalmath[quacc]"'
            if part == "quacc"
            else "install it, or put its folder into PYTHONPATH; a running server keeps its own: "
            "run crystalmath stop, then try again"
        )
        return f"the package {part} is not installed for this Python ({remedy})"
    return f"{parent} has no module {part!r}"


def _submodules(path: Sequence[str] | None) -> list[str]:
    return [] if path is None else [each.name for each in pkgutil.iter_modules(path)]


def _admission(parent: str, recipe: str) -> str:
    """Return the words that say how to admit a module of the user's own."""
    own = recipe.removeprefix(f"{NAMESPACE}.").rpartition(".")[0]
    if parent != NAMESPACE or not own:
        return ""
    return (
        f'; a module of your own is admitted by [recipes] allow = ["{own}"] in config.toml, or '
        f"CRYSTALMATH_RECIPES={own}"
    )


def _check_absent(module: Module, function: str, name: str) -> None:
    if module.path is not None and find_spec(f"{module.name}.{function}", module.path):
        known = [each.name.rpartition(".")[2] for each in _public(name, decorated=False)]
        inside = f"; it has {', '.join(known[:8])}" if known else ""
        raise InvalidJob(f"the recipe {name} is not callable: it is a module{inside}")
    if module.dynamic:
        return
    known = [key for key, binding in module.bindings.items() if not binding.problem]
    known += [each.name for each in pkgutil.iter_modules(module.path or [])]
    raise InvalidJob(
        f"there is no recipe {name}: {module.name} has no function {function!r}"
        f"{nearest(function, known) or _elsewhere(module.name, function)}"
    )


def _elsewhere(package: str, word: str) -> str:
    """Return a question with quacc's recipes whose names have a word; those of a package first."""
    if not _is_below(f"{package}.", NAMESPACE) or len(word) < _WORD:
        return ""
    named = {name: name.split(".") for name in (recipe.name for recipe in catalogue())}
    like = [name for name, parts in named.items() if any(word.lower() in p for p in parts[2:])]

    def order(name: str) -> tuple[bool, bool, int]:
        function = named[name][-1]
        return not _is_below(name, package), not function.startswith(word.lower()), len(function)

    near = [
        name.removeprefix(f"{NAMESPACE}.") for name in sorted(like, key=order)[:_MOST_SUGGESTED]
    ]
    return f"; did you mean {' or '.join(near)}?" if near else ""


def nearest(name: str, known: Sequence[str]) -> str:
    """Return the end of a message: a question with the known names that resemble another."""
    items = {item.lower(): item for item in known if item[:1] != "_"}
    near = [items[each] for each in difflib.get_close_matches(name[:80].lower(), items, 3, 0.5)]
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _recipe(name: str, module: Module, binding: Binding) -> Recipe:
    return Recipe(
        name=name,
        file=module.file,
        line=binding.line,
        docstring=binding.docstring,
        signature=binding.signature,
        kind=binding.kind,
    )


def _module_names(namespace: str) -> Iterator[str]:
    try:
        module = _module(namespace, namespace)
    except InvalidJob:
        return
    yield namespace
    for each in pkgutil.iter_modules(module.path) if module.path else ():
        if not each.name.startswith("_"):
            yield from _module_names(f"{namespace}.{each.name}")


def _public(module_name: str, *, decorated: bool) -> Iterator[Recipe]:
    try:
        module = _module(module_name, module_name)
    except InvalidJob:
        return
    for binding in module.bindings.values():
        if _is_recipe(binding, decorated=decorated):
            yield _recipe(f"{module_name}.{binding.name}", module, binding)


def _is_recipe(binding: Binding, *, decorated: bool) -> bool:
    public = binding.is_function and not binding.name.startswith("_") and not binding.problem
    return public and (binding.kind is not None or not decorated)
