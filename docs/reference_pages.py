"""A Sphinx extension that writes the pages that are not in git, before Sphinx reads the folder.

The reference of the commands and of the server's methods comes from the declarations that the
program itself uses. The pages of the project are files that stand above this folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

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


def write(_app: object = None) -> None:
    """Write the pages, where they have changed."""
    pages = {"reference/commands.md": commands(), "reference/methods.md": methods()}
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
