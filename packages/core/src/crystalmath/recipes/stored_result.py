"""How a result is stored: its JSON text, gzipped in blocks, and an index by which parts are found.

A text of several blocks is followed by its index, itself gzipped JSON:

==========  ====================================================================================
``blocks``  the size of each block as it is stored, in bytes; each holds `BLOCK` bytes of text
``tree``    of a large object or list where its members stand: ``[offset, size]`` in bytes of text
            from its own begin, and a third item that is the tree of a member that is large, too
``brief``   what a table has of the result (:func:`crystalmath.recipes.summary.brief`)
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

    #: Where the members of an object, or of a list, stand.
    Tree: TypeAlias = dict[str, list[Any]] | list[list[Any]]

#: So many bytes of text are in a block.
BLOCK = 256 * 2**10
#: An object or a list of so many bytes has a tree, if its members have so many on average: else
#: the index would be as large as the text.
_LARGE = 64 * 2**10
_MEMBER = 256
#: An index has no more bytes, unpacked, than the text twice, or than these.
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
    #: index as it is stored, 0 where there is none; in bytes.
    sizes: Mapping[str, int]


def store(document: Any) -> StoredResult:
    """Write a result, which is encoded already, the same bytes for the same result."""
    from crystalmath.recipes.summary import brief

    text = _json(document).encode("ascii")
    blocks = [_packed(text[at : at + BLOCK]) for at in range(0, len(text), BLOCK)]
    index = b""
    if len(blocks) > 1:
        tree = _located(document)[1]
        found = {"blocks": list(map(len, blocks)), "tree": tree, "brief": brief(document)}
        index = _packed(_json(found).encode("ascii"))
    return StoredResult(b"".join([*blocks, index]), {"text": len(text), "index": len(index)})


def _packed(data: bytes) -> bytes:
    return gzip.compress(data, _GZIP_LEVEL, mtime=0)


def _located(value: Any) -> tuple[int, Tree | None]:
    """Return the size of a value's text; and its tree, where it has one."""
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
    """Return whether a list is one of objects, and no array of numbers."""
    while isinstance(value, list) and value:
        value = value[0]
    return isinstance(value, dict)


# --- reading ---------------------------------------------------------------------------------

#: What is raised by reading what is no index.
_DAMAGED = (
    *(OSError, EOFError, zlib.error, RecursionError, ArithmeticError),
    *(AttributeError, LookupError, TypeError, ValueError),
)


def result_chunks(stored: BinaryIO, size: int) -> Iterator[bytes]:
    """Yield the JSON text of a stored result, undecoded; `BadFile`: it is damaged."""
    # Not gzip.open: it goes through the interpreter once for every few kilobytes.
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
    """A stretch of the text of a result in which a field stands."""

    #: In bytes of text.
    start: int
    size: int
    #: What of the field's name is still to be found in it, and what has been.
    left: str
    way: str = ""


class ResultIndex:
    """The index of a stored result, which an archive may have brought.

    The outcome is opened where its first block begins, and its header is read.
    """

    def __init__(self, stored: BinaryIO, header: Mapping[str, Any]) -> None:
        self._stored, self._begin, self._size = stored, stored.tell(), int(header["text"])
        stored.seek(self._begin + block_size(header))
        try:
            unpacking = zlib.decompressobj(wbits=_GZIP_WBITS)
            most = 2 * self._size + _MOST_SMALL
            found = json.loads(unpacking.decompress(stored.read(int(header["index"])), most))
            self._blocks = [abs(int(size)) for size in found["blocks"]]
            self._tree: Tree | None = found["tree"]
            #: What a table has of the result.
            self.brief: Any = found["brief"]
        except _DAMAGED as error:
            raise self._damaged() from error

    def _damaged(self) -> BadFile:
        return BadFile(f"the index of the result in {self._stored.name} is damaged")

    def locate(self, field: str) -> Located:
        """Find a field, as far as the index tells; `InvalidJob` if there is no such field."""
        tree, found = self._tree, Located(0, self._size, field)
        try:
            while found.left and tree is not None:
                found, tree = _step(tree, found)
        except InvalidJob:
            raise
        except _DAMAGED as error:
            raise self._damaged() from error
        if not 0 <= found.start <= found.start + found.size <= self._size:
            raise self._damaged()
        return found

    def text(self, place: Located) -> bytes:
        """Read a stretch of the text."""
        first, end = place.start // BLOCK, -(-(place.start + place.size) // BLOCK)
        self._stored.seek(self._begin + sum(self._blocks[:first]))
        text = bytearray()
        try:
            for size in self._blocks[first:end]:
                unpacking = zlib.decompressobj(wbits=_GZIP_WBITS)
                text += unpacking.decompress(self._stored.read(size), BLOCK)
                # Its checksum stands behind the text, and is compared when that is passed.
                if unpacking.decompress(unpacking.unconsumed_tail, 1) or not unpacking.eof:
                    raise self._damaged()
        except _DAMAGED as error:
            raise self._damaged() from error
        begin = place.start - first * BLOCK
        return bytes(text[begin : begin + place.size])


def _step(tree: Tree, found: Located) -> tuple[Located, Tree | None]:
    """Go to the member with which a field's name goes on."""
    members = tree if isinstance(tree, dict) else {str(at): tree[at] for at in range(len(tree))}
    name, way, left = next_name(found.way, found.left, members)
    at, size, *inner = members[name]
    place = Located(found.start + int(at), int(size), left, way)
    return place, inner[0] if inner else None
