"""A Sphinx extension that writes the pages that are not in git, before Sphinx reads the folder.

The reference of the commands, of the server's methods and of ``config.toml`` comes from the
declarations that the program itself uses. The pages of the project are files that stand above this
folder.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

HERE = Path(__file__).parent
#: Files of the repository, with the pages of the site that show them.
OUTSIDE = {
    "SECURITY.md": "project/security.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "CHANGELOG.md": "project/changelog.md",
}
COMMANDS = """\
# Commands

`crystalmath COMMAND --help` shows the same. Each command also takes `--verbose`, which shows
tracebacks, and each one is preceded by `--home DIR` or `--on NAME` where another home is meant.
"""

CONFIGURATION = """\
# Settings

Every key of `config.toml` in the home. [Configuration](../configuration.md) shows an example,
and how files and environment variables combine. This page is made of the declarations that
check the file.
"""
#: The kinds of values, by the types of the declarations and of JSON Schema.
KINDS = {
    str: "text",
    bool: "true or false",
    list: "list of texts",
    float: "number from 0",
    (str, list): "text or list of texts",
    "string": "text",
    "integer": "whole number",
    "object": "table of texts",
}


def commands() -> str:
    """Return the page of the commands, as Markdown."""
    import click
    from typer.main import get_command

    from crystalmath.cli import app, build

    group = get_command(app)
    parts = [COMMANDS]
    for name in group.list_commands(click.Context(group)):
        parts += [f"## {name}\n", *_command(name, build(name))]
    return "\n".join(parts)


def _command(name: str, command: Any) -> Iterator[str]:
    import click

    context = click.Context(command, info_name=f"crystalmath {name}")
    yield f"```text\n{command.get_usage(context)}\n```\n"
    yield (command.help or "").replace("\b\n", "").strip() + "\n"
    rows = [record for each in command.params if (record := _row(each, context))]
    if rows:
        yield "| option | meaning |\n|---|---|"
        yield from (f"| {left} | {right} |" for left, right in rows)
        yield ""
    if command.epilog:
        yield f"```sh\n{command.epilog.removeprefix('Example: ')}\n```\n"


def _row(parameter: Any, context: Any) -> tuple[str, str] | None:
    if getattr(parameter, "hidden", False) or parameter.name in {"verbose", "help"}:
        return None
    record = parameter.get_help_record(context)
    if record is None:
        return None
    left, right = (" ".join(text.split()).replace("|", "\\|") for text in record)
    return f"`{left}`", right


def methods() -> str:
    """Return the page of the server's methods, as Markdown."""
    import methods_page

    from crystalmath.server.handlers import METHODS
    from crystalmath.server.rpc.openrpc import document

    return methods_page.page(document(METHODS))


def configuration() -> str:
    """Return the page of the keys of ``config.toml``, as Markdown."""
    from crystalmath.config import SETTINGS
    from crystalmath.engines import local
    from crystalmath.models.capabilities import OF_CORE
    from crystalmath.models.cluster import CLUSTER_KEYS
    from crystalmath.models.fields import declared
    from crystalmath.models.resources import Resources

    # The site is built without the engines; these modules import none of the engines' libraries.
    sys.path += [str(path) for path in HERE.parent.glob("packages/engine-*/src")]
    from crystalmath_engine_covalent import config as covalent
    from crystalmath_engine_parsl import config as parsl
    from crystalmath_engine_psij import options as psij

    resources = {
        one.name: (KINDS[one.about.schema["type"]], one.about.doc) for one in declared(Resources)
    }
    parts = [CONFIGURATION]
    parts += _keys("Outside tables", {k: v for k, v in SETTINGS.items() if isinstance(v, tuple)})
    for name, keys in SETTINGS.items():
        if isinstance(keys, dict):
            parts += _tables(name, keys)
    parts += _keys("`[engines.NAME]`, every engine", OF_CORE)
    engines = {"local": local, "parsl": parsl, "psij": psij, "covalent": covalent}
    for name, engine in engines.items():
        parts += _keys(f"`[engines.{name}]`", engine.OPTIONS)
    parts += _keys("`[clusters.NAME]`", CLUSTER_KEYS)
    parts += _keys("`[clusters.NAME]`, defaults of submissions", resources)
    parts += _keys('`[clusters.NAME]` with `engine = "parsl"`', parsl.CLUSTER_OPTIONS)
    return "\n".join(parts)


def _tables(name: str, keys: Mapping[str, Any]) -> Iterator[str]:
    """Yield the keys of a table, then the tables in it; the key ``*`` is any name."""
    own = {key: value for key, value in keys.items() if isinstance(value, tuple)}
    if own:
        yield from _keys(f"`[{name}]`", own)
    for key, value in keys.items():
        if not isinstance(value, tuple):
            yield from _tables(f"{name}.{key.replace('*', 'NAME')}", value)


def _keys(title: str, keys: Mapping[str, tuple[Any, str]]) -> Iterator[str]:
    yield f"## {title}\n"
    yield "| key | type | meaning |\n|---|---|---|"
    for key, (kind, meaning) in keys.items():
        text = meaning.replace("|", "\\|").replace("*", "\\*")
        yield f"| `{key.replace('*', 'NAME')}` | {KINDS.get(kind, kind)} | {text} |"
    yield ""


def write(_app: object = None) -> None:
    """Write the pages, where they have changed."""
    pages = {
        "reference/commands.md": commands(),
        "reference/methods.md": methods(),
        "reference/configuration.md": configuration(),
    }
    for file, page in OUTSIDE.items():
        text = (HERE.parent / file).read_text(encoding="utf-8")
        pages[page] = text.replace("](docs/", "](../")
    for page, text in pages.items():
        path = HERE / page
        path.parent.mkdir(exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def setup(app: Any) -> dict[str, Any]:
    """Have the pages written first."""
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True}
