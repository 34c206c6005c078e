"""Finds the structures of a result in its text, without decoding the rest.

``json.loads`` of 20 MB would stall every thread of a server. Here the text is gone through bracket
by bracket, with numbers passed over, and others have their turn meanwhile.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen

from crystalmath.errors import InvalidJob
from crystalmath.recipes.ase_json import check_atoms, decode_atoms

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ase import Atoms

#: Strings, with the colon that makes keys of them, and brackets. Possessive: a string may have
#: megabytes, and nothing of it is to be looked at twice.
_TOKEN = re.compile(rb'"((?:[^"\\]++|\\.)*+)"(:?)|[{}\[\]]', re.DOTALL)
#: As deep as :mod:`crystalmath.recipes.summary` looks for the results of a flow.
_MAX_DEPTH = 8


@frozen
class FoundStructures:
    """Where the structures of one calculation stand in the text of a result."""

    #: Its ``atoms``; empty where it has none.
    final: bytes
    #: The structures of its ``trajectory``, if it has one, the first one first.
    trajectory: tuple[bytes, ...]


@define
class _Node:
    """An object or a list that is not closed yet."""

    start: int
    is_list: bool
    name: bytes = b""
    key: bytes = b""
    #: The ends of what is in it: of some keys of an object, of the items of a trajectory.
    spans: dict[bytes, tuple[int, int]] = field(factory=dict)
    items: list[tuple[int, int]] = field(factory=list)
    trajectory: list[tuple[int, int]] = field(factory=list)
    #: The calculations in it, and whether some stand beside each other in a list.
    steps: list[FoundStructures] = field(factory=list)
    beside: bool = False


def find_structures(text: bytes) -> FoundStructures:
    """Find the final structure of a result, and the trajectory that led to it.

    Of a flow that does one calculation after the other these are the last one's, whose energy the
    job's summary tells.

    Raises `InvalidJob`: there is none, or there are several, of which none is the last.
    """
    root = _scan(text)
    if len(root.steps) > 1 and root.beside:
        raise InvalidJob(
            f"its result holds {len(root.steps)} calculations beside each other, and none of them "
            "is its final one"
        )
    if not root.steps or not root.steps[-1].final:
        raise InvalidJob("its result holds no structure ('atoms')")
    return root.steps[-1]


def read_structure(text: bytes) -> Atoms:
    """Read one of them.

    Raises `InvalidJob`: it is no structure of ASE's.
    """
    node = json.loads(text)
    if not isinstance(node, Mapping) or "atoms_json" not in node:
        raise InvalidJob("its result's 'atoms' are no structure of ASE's")
    atoms = check_atoms(decode_atoms(node["atoms_json"]))
    info = node.get("atoms_info")
    if isinstance(info, Mapping):
        # What is tagged is read by who trusts it.
        atoms.info.update({k: v for k, v in info.items() if _is_plain(v)})
    return atoms


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return "@module" not in value and all(map(_is_plain, value.values()))
    return all(map(_is_plain, value)) if isinstance(value, list) else True


def _scan(text: bytes) -> _Node:
    root = _Node(0, is_list=False)
    stack = [root]
    for token in _tokens(text):
        top = stack[-1]
        bracket = text[token.start()]
        if bracket == _QUOTE:
            if token[2] and not top.is_list:
                top.key = token[1]
        elif bracket in _OPENING:
            stack.append(_Node(token.start(), is_list=bracket == _LIST, name=top.key))
        elif len(stack) > 1:
            stack.pop()
            _close(top, token.end(), stack[-1], text, len(stack))
    return root


def _tokens(text: bytes) -> Iterator[re.Match[bytes]]:
    return _TOKEN.finditer(text)


_QUOTE, _LIST = b'"['
_OPENING = b"[{"


def _close(node: _Node, end: int, parent: _Node, text: bytes, depth: int) -> None:
    """Take what was found in an object or a list to what holds it."""
    span = (node.start, end)
    if parent.is_list:
        if parent.name == b"trajectory":
            parent.items.append(span)
    elif not node.is_list and node.name in {b"atoms", b"results"}:
        parent.spans[node.name] = span
    elif node.is_list and node.name == b"trajectory":
        parent.trajectory = node.items
    if not node.is_list and b"results" in node.spans:
        node.steps, node.beside = [_found(node, text)], False
    elif depth == 1 and not node.is_list and b"atoms" in node.spans:
        # A recipe that gives a structure, and no results as quacc names them.
        node.steps, node.beside = [_found(node, text)], False
    if depth <= _MAX_DEPTH and node.steps:
        parent.beside = parent.beside or node.beside or (parent.is_list and bool(parent.steps))
        parent.steps += node.steps


def _found(node: _Node, text: bytes) -> FoundStructures:
    return FoundStructures(
        final=text[slice(*node.spans.get(b"atoms", (0, 0)))],
        trajectory=tuple(text[start:end] for start, end in node.trajectory),
    )
