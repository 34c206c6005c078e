"""The form of a stored result: its JSON text, gzipped in blocks, and an index of its parts.

A text of several blocks is followed by its index, itself gzipped JSON:

==========  ====================================================================================
``blocks``  the size of each block as it is stored, in bytes; each holds `BLOCK` bytes of text
``tree``    the places of the members of a large object or list: ``[offset, size]`` in bytes of
            text from its own begin, with the tree of a large member as a third item
``brief``   the part of the result for tables (:func:`crystalmath.recipes.summary.brief`)
==========  ====================================================================================

All blocks together are a gzip file of the whole text.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

from attrs import frozen

from crystalmath.errors import BadFile, InvalidJob
from crystalmath.recipes.json_text import next_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    #: The places of the members of an object or a list.
    Tree: TypeAlias = dict[str, list[Any]] | list[list[Any]]

#: The bytes of text in a block.
BLOCK = 256 * 2**10
#: The fewest bytes of an object or a list that has a tree, and of its members on average: with
#: smaller members the index would be as large as the text.
_LARGE = 64 * 2**10
_MEMBER = 256
#: An unpacked index has at most this number of bytes more than twice its text.
_MOST_SMALL = 2**20
#: For zlib: a gzip header, and the largest window.
_GZIP_WBITS = 16 + zlib.MAX_WBITS
# Measured on the 293 kB of an EMT slab flow, levels 1, 3, 6, 9: 1.7, 2.2, 6.0, 11.1 ms for
# 55, 52, 42, 42 kB.
_GZIP_LEVEL = 3
_json = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


@frozen
class StoredResult:
    """A result as an outcome holds it."""

    #: The blocks, and the index after them.
    data: bytes
    #: For the outcome's header: ``text``, the size of the JSON text, and ``index``, that of the
    #: stored index, 0 if there is none; in bytes.
    sizes: Mapping[str, int]


def store(document: Any) -> StoredResult:
    """Return an encoded result in its stored form; equal results give equal bytes."""
    from crystalmath.recipes.summary import brief

    text = _json(document).encode("ascii")
    blocks = [_packed(text[at : at + BLOCK]) for at in range(0, len(text), BLOCK)]
    index = b""
    if len(blocks) > 1:
        tree = _located(document)[1]
        parts = {"blocks": list(map(len, blocks)), "tree": tree, "brief": brief(document)}
        index = _packed(_json(parts).encode("ascii"))
    return StoredResult(b"".join([*blocks, index]), {"text": len(text), "index": len(index)})


def _packed(data: bytes) -> bytes:
    return gzip.compress(data, _GZIP_LEVEL, mtime=0)


def _located(value: Any) -> tuple[int, Tree | None]:
    """Return the size of a value's text, and its tree if it is large."""
    tree: Tree
    size = 1
    if isinstance(value, dict):
        tree = {}
        for name, item in value.items():
            size += len(_json(name)) + (2 if tree else 1)
            tree[name], size = _member(item, size)
    elif isinstance(value, list) and _holds_objects(value):
        tree = []
        for item in value:
            size += bool(tree)
            entry, size = _member(item, size)
            tree.append(entry)
    else:
        return len(_json(value)), None
    size += 1
    return size, tree if size >= max(_LARGE, _MEMBER * len(tree)) else None


def _member(item: Any, at: int) -> tuple[list[Any], int]:
    size, tree = _located(item)
    return [at, size] if tree is None else [at, size, tree], at + size


def _holds_objects(value: Any) -> bool:
    """Return whether a list holds objects; others are arrays of numbers."""
    while isinstance(value, list) and value:
        value = value[0]
    return isinstance(value, dict)


# --- reading ---------------------------------------------------------------------------------

#: The errors that reading a damaged index raises.
_DAMAGED = (
    *(OSError, EOFError, zlib.error, RecursionError, ArithmeticError),
    *(AttributeError, LookupError, TypeError, ValueError),
)


def result_chunks(stored: BinaryIO, size: int) -> Iterator[bytes]:
    """Yield the JSON text of a stored result, undecoded; `BadFile`: it is damaged."""
    # gzip.open would return to the interpreter after every few kilobytes.
    place = f"the result in {getattr(stored, 'name', 'memory')}"
    unpacking, data, left = None, b"", max(size, 1)
    try:
        while left or data:
            if not data:
                data = stored.read(min(left, BLOCK))
                left -= len(data)
            if not data:
                raise BadFile(f"{place} is damaged: it is cut short")
            unpacking = unpacking or zlib.decompressobj(wbits=_GZIP_WBITS)
            if chunk := unpacking.decompress(data, BLOCK):
                yield chunk
            data = unpacking.unconsumed_tail
            if unpacking.eof:  # another block may follow
                data, unpacking = unpacking.unused_data, None
    except zlib.error as error:
        raise BadFile(f"{place} is damaged: {error}") from error
    if unpacking is not None:
        raise BadFile(f"{place} is damaged: it is cut short")


def unpacked(data: bytes) -> bytes:
    """Return the text of all blocks; the gzip module would copy the rest for each of them."""
    return b"".join(result_chunks(io.BytesIO(data), len(data)))


def block_size(header: Mapping[str, Any]) -> int:
    """Return the size of all blocks of an outcome together, by its header, in bytes."""
    return int(header["size"]) - int(header.get("index", 0))


@frozen
class Located:
    """The stretch of a result's text that holds a field."""

    #: In bytes of text.
    start: int
    size: int
    #: The rest of the field's name, to be located within the stretch, and the located beginning.
    left: str
    way: str = ""


class ResultIndex:
    """The index of a stored result, which may come from an archive.

    The outcome is open at the begin of its first block; its header has been read.
    """

    def __init__(self, stored: BinaryIO, header: Mapping[str, Any]) -> None:
        self._stored, self._begin, self._size = stored, stored.tell(), int(header["text"])
        stored.seek(self._begin + block_size(header))
        try:
            unpacking = zlib.decompressobj(wbits=_GZIP_WBITS)
            most = 2 * self._size + _MOST_SMALL
            index = json.loads(unpacking.decompress(stored.read(int(header["index"])), most))
            self._blocks = [abs(int(size)) for size in index["blocks"]]
            self._tree: Tree | None = index["tree"]
            #: The part of the result for tables.
            self.brief: Any = index["brief"]
        except _DAMAGED as error:
            raise self._damaged() from error

    def _damaged(self) -> BadFile:
        return BadFile(f"the index of the result in {self._stored.name} is damaged")

    def locate(self, field: str) -> Located:
        """Return the stretch of a field, as far as the index reaches; `InvalidJob`: none."""
        tree, place = self._tree, Located(0, self._size, field)
        try:
            while place.left and tree is not None:
                place, tree = _step(tree, place)
        except InvalidJob:
            raise
        except _DAMAGED as error:
            raise self._damaged() from error
        if not 0 <= place.start <= place.start + place.size <= self._size:
            raise self._damaged()
        return place

    def text(self, place: Located) -> bytes:
        """Return a stretch of the text."""
        first, end = place.start // BLOCK, -(-(place.start + place.size) // BLOCK)
        self._stored.seek(self._begin + sum(self._blocks[:first]))
        text = bytearray()
        try:
            for size in self._blocks[first:end]:
                unpacking = zlib.decompressobj(wbits=_GZIP_WBITS)
                text += unpacking.decompress(self._stored.read(size), BLOCK)
                # zlib compares the checksum after the last byte of the text.
                if unpacking.decompress(unpacking.unconsumed_tail, 1) or not unpacking.eof:
                    raise self._damaged()
        except _DAMAGED as error:
            raise self._damaged() from error
        begin = place.start - first * BLOCK
        return bytes(text[begin : begin + place.size])


def _step(tree: Tree, place: Located) -> tuple[Located, Tree | None]:
    """Return the stretch of the next member in a field's name, and the tree of that member."""
    members = tree if isinstance(tree, dict) else {str(at): tree[at] for at in range(len(tree))}
    name, way, left = next_name(place.way, place.left, members)
    at, size, *inner = members[name]
    member = Located(place.start + int(at), int(size), left, way)
    return member, inner[0] if inner else None
