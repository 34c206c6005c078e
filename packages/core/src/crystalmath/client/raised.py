"""The exception that a recipe raised, made again of its traceback."""

from __future__ import annotations

import ast
import builtins
import re
import sys

_RAISED = re.compile(r"([A-Za-z_]\w*(?:\.(?:[A-Za-z_]\w*|<locals>))*)(?:: (.*))?", re.DOTALL)


def raised(traceback: str) -> Exception | None:
    """Make what a recipe raised, with its message and none of its other attributes.

    Nothing is imported for it: a type that this process has not imported nobody here waits for.

    Parameters
    ----------
    traceback : str
        As Python writes it, to the last line.

    Returns
    -------
    Exception or None
        ``None`` where its type is not at hand.
    """
    told = _RAISED.fullmatch(_last(traceback))
    kind = _type(told[1]) if told else None
    if told is None or kind is None:
        return None
    message = told[2]
    try:
        # Past its own __init__, which builds a message that is there already.
        error = kind.__new__(kind)
        error.args = () if message is None else (_argument(kind, message),)
    except Exception:  # noqa: BLE001 - whatever a type says that wants more to be made
        return None
    return error


def _last(traceback: str) -> str:
    """Return the line that names the exception, and what follows it of a longer message."""
    lines = traceback.rstrip("\n").split("\n")
    frames = [number for number, line in enumerate(lines) if line.startswith('  File "')]
    begin = frames[-1] + 1 if frames else 0
    while begin < len(lines) and lines[begin].startswith("    "):  # its source
        begin += 1
    return "\n".join(lines[begin:])


def _type(name: str) -> type[Exception] | None:
    module, _, last = name.rpartition(".")
    found = getattr(sys.modules.get(module) if module else builtins, last, None)
    return found if isinstance(found, type) and issubclass(found, Exception) else None


def _argument(kind: type[Exception], message: str) -> object:
    # A KeyError shows the key as Python writes it.
    if issubclass(kind, KeyError) and kind.__str__ is KeyError.__str__:
        try:
            return ast.literal_eval(message)
        except (ValueError, SyntaxError):
            return message
    return message
