"""The wire: LSP's framing (``Content-Length``) and strict JSON, for server and client alike.

A message is a header of lines that end with CRLF, an empty line, and as many bytes of JSON (UTF-8)
as the header announces. The server refuses messages that are no JSON (RFC 8259), name a member
twice, overflow a number, or would take far more memory than they have bytes. The requests and
errors of JSON-RPC 2.0 come last.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NoReturn

from crystalmath.errors import CrystalMathError

#: The largest message that the server takes, in bytes. Answers have no limit: results are whole.
MAX_MESSAGE = 64 * 2**20

#: The longest header, in bytes.
MAX_HEADER = 8 * 2**10

#: How much of a :class:`Stream` is in memory at once, in bytes.
CHUNK = 256 * 2**10

#: How deep arrays and objects of a message may be nested.
MAX_DEPTH = 64

#: How many values a message may hold, counted by commas and opening brackets, also those in
#: strings. A value takes about 100 bytes: 64 MiB of ``[],`` would become 1.5 GB of empty lists.
MAX_VALUES = 2_000_000

#: How many levels of an answer are encoded piece by piece: document, `result`, a list in it.
_LEVELS = 3

#: A document of fewer values is encoded at once, in 0.1 ms. Each `_SHORT` characters of a text
#: count as one more.
_FEW, _SHORT = 500, 64

#: How many characters of a string are encoded, and bytes of a message counted, at once.
_STRETCH = 2**16
_BLOCK = 2**20

_TOO_DEEP = f"the message is nested deeper than {MAX_DEPTH} levels"

#: How many digits a length may have.
_DIGITS = 18

_CHARSETS = ("utf-8", "utf8")

#: More bytes than the message of a stopping server has.
_STOPPING = 2**10


class WireError(CrystalMathError, ValueError):
    """A broken frame, or a message that is no strict JSON."""

    code = "wire"


class Raw:
    """Encoded JSON text, which :func:`dumps` inserts as it is.

    It may be the value of a member of the document or of its ``result``, or an item of a list
    there.
    """

    __slots__ = ("text",)

    def __init__(self, text: bytes) -> None:
        self.text = text


class Stream:
    """Encoded JSON text of a known length, as :class:`Raw`; threads read it while it is sent."""

    __slots__ = ("chunks", "size")

    def __init__(self, size: int, chunks: Iterator[bytes]) -> None:
        self.size = size
        self.chunks = chunks

    def close(self) -> None:
        """Close its source, unless a thread is reading from it just now."""
        with contextlib.suppress(ValueError):
            if isinstance(self.chunks, Generator):
                self.chunks.close()


def frame(body: bytes) -> bytes:
    """Return a message with its header."""
    return header(len(body)) + body


def header(length: int) -> bytes:
    """Return the header for a body of `length` bytes."""
    return b"Content-Length: %d\r\n\r\n" % length


def read_length(header: bytes, *, most: int | None = MAX_MESSAGE) -> int:
    """Check all lines of a header, and return the length of the body; `most` may be ``None``."""
    length: int | None = None
    for line in header.removesuffix(b"\r\n").split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if not line:
            continue
        field = name.lower()
        if not colon or not field.replace(b"-", b"").isalnum():
            raise WireError(
                f"{_shown(line)} is no header line; a message begins with 'Content-Length: <bytes>'"
                " and an empty line, both ending with CRLF"
            )
        if field == b"content-length":
            if length is not None:
                raise WireError("a header has 'Content-Length' twice")
            length = _number(value.strip())
        elif field == b"content-type":
            _check_charset(value)
    if length is None:
        raise WireError("the header has no 'Content-Length'")
    if most is not None and length > most:
        raise WireError(f"a message of {length} bytes is too long; at most {most} are taken")
    return length


def loads(body: bytes, *, limited: bool = True) -> Any:
    """Decode a message.

    `limited` is for the server: it also refuses messages that are nested too deep, hold too many
    values, name a member twice, or escape half a surrogate pair. A client trusts its server.
    """
    may_be_deep = limited and _check_count(body) > MAX_DEPTH
    try:
        with _alone(len(body)):
            text = body.decode("utf-8")
        with _alone(len(body)):
            document = (_LIMITED if limited else _UNLIMITED).decode(text)
    except WireError:
        raise
    except (ValueError, RecursionError) as error:
        reason = _reason(error)
    else:
        if may_be_deep and not _is_flat(document):
            raise WireError(_TOO_DEEP)
        # A client takes results as their recipes returned them.
        if limited and "\\" in text and ("\\ud" in text or "\\uD" in text):
            _check_surrogates(document)
        return document
    # Raised here, the error does not keep the text, as the parser's own error does.
    raise WireError(reason)


def _alone(size: int) -> AbstractContextManager[None]:
    if size < _BLOCK:  # most commands have none that is larger, and save the import
        return contextlib.nullcontext()
    from crystalmath.recipes.json_text import one_at_a_time

    return one_at_a_time(size)


def _reason(error: ValueError | RecursionError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"the message is no UTF-8: {error.reason} at byte {error.start}"
    if isinstance(error, json.JSONDecodeError):
        return f"the message is no JSON: {error.msg} at character {error.pos}"
    if isinstance(error, RecursionError):
        return _TOO_DEEP
    return "the message has a whole number with too many digits"  # Python's own limit


def is_stopping(message: bytes) -> bool:
    """Return whether a message says that the server is stopping, in place of an answer."""
    if len(message) > _STOPPING or b'"stopping"' not in message:
        return False
    error = loads(message, limited=False).get("error") or {}
    return (error.get("data") or {}).get("code") == "stopping"


def dumps(document: Any) -> bytes:
    """Encode a message, or raise `WireError` for a value that JSON does not have."""
    return b"".join(
        chunk
        for piece in pieces(document)
        for chunk in (piece.chunks if isinstance(piece, Stream) else (piece,))
    )


def pieces(document: Any) -> Iterator[bytes | Stream]:
    """Encode a message piece by piece, so that other threads and tasks come between."""
    text = short(document)
    return _pieces(document, _LEVELS) if text is None else iter((text,))


def short(document: Any) -> bytes | None:
    """Encode a document of few values at once; ``None`` for a larger one, or with encoded parts."""
    return _encode(document) if _room(document, _FEW) > 0 else None


_ATOMS = frozenset((bool, float, int, type(None)))


def _room(value: Any, left: int) -> int:
    """Return how many of `left` values remain after this one; encoded parts leave none."""
    if isinstance(value, str):
        return left - 1 - len(value) // _SHORT
    if isinstance(value, dict):
        left -= 1
        for name, member in value.items():
            kind = type(member)
            if kind in _ATOMS or (kind is str and len(member) < _SHORT):  # the usual case
                left = left - 1 if isinstance(name, str) else 0
            else:
                left = _room(member, left) if left > 0 and isinstance(name, str) else 0
        return left
    if isinstance(value, list | tuple):
        left -= 1
        if len(value) < left and _ATOMS.issuperset(map(type, value)):  # such as positions
            return left - len(value)
        for item in value:
            left = _room(item, left) if left > 0 else 0
        return left
    return 0 if isinstance(value, Raw | Stream) else left - 1


def _pieces(value: Any, levels: int) -> Iterator[bytes | Stream]:
    if isinstance(value, Raw):
        yield value.text
    elif isinstance(value, Stream):
        yield value
    elif isinstance(value, str) and len(value) > _STRETCH:
        yield b'"'
        for start in range(0, len(value), _STRETCH):
            yield _encode(value[start : start + _STRETCH])[1:-1]
        yield b'"'
    elif levels and isinstance(value, Mapping):
        before = b"{"
        for name, member in value.items():
            if not isinstance(name, str):
                raise WireError(f"the name of a member must be a string, not {name!r:.80}")
            yield before + _encode(name) + b":"
            yield from _pieces(member, levels - 1)
            before = b","
        yield b"{}" if before == b"{" else b"}"
    elif levels and isinstance(value, list | tuple):
        before = b"["
        for item in value:
            yield before
            yield from _pieces(item, levels - 1)
            before = b","
        yield b"[]" if before == b"[" else b"]"
    else:
        yield _encode(value)


def size(document: Any) -> int:
    """Return the encoded size of a document without :class:`Raw` and :class:`Stream`, in bytes."""
    return len(_encode(document))


_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _encode(value: Any) -> bytes:
    try:
        return _ENCODER.encode(value).encode("utf-8")
    except UnicodeEncodeError as error:
        text = error.object[max(0, error.start - 20) : error.end]
        raise WireError(f"a string cannot be sent as UTF-8: {text!r}") from None
    except RecursionError:
        raise WireError("a value is nested too deep to be sent") from None
    except (TypeError, ValueError) as error:
        raise WireError(f"a value cannot be sent as JSON: {error}") from None


def _check_count(body: bytes) -> int:
    """Return how many arrays and objects a message opens; refuse too many values."""
    opened = commas = 0
    # In blocks: no other thread runs while one is counted.
    for at in range(0, len(body), _BLOCK):
        end = at + _BLOCK
        commas += body.count(b",", at, end)
        opened += body.count(b"[", at, end) + body.count(b"{", at, end)
    if commas + opened > MAX_VALUES:
        raise WireError(f"the message holds more than {MAX_VALUES} values; send it in parts")
    return opened


def _is_flat(document: Any) -> bool:
    """Return whether a document is at most `MAX_DEPTH` levels deep, level by level."""
    level = [document] if isinstance(document, dict | list) else []
    for _ in range(MAX_DEPTH):
        level = [
            item
            for parent in level
            for item in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(item, dict | list)
        ]
        if not level:
            return True
    return False


def _check_surrogates(document: Any) -> None:
    """Refuse half a surrogate pair: neither files nor databases take such a string."""
    try:
        json.dumps(document, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise WireError("the message escapes half a surrogate pair (\\ud800 to \\udfff)") from None


def _no_constant(name: str) -> NoReturn:
    raise WireError(f"{name} is no JSON; numbers must be finite")


def _whole(text: str) -> int:
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise WireError(f"the number {text:.40} is too large")
    return value


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(members)
    if len(document) != len(members):
        counts = Counter(name for name, _ in members)
        twice = next(name for name, count in counts.items() if count > 1)
        raise WireError(f"an object has the member {twice!r:.80} twice")
    return document


# Other threads run between calls of these functions; the parser itself never lets them.
_LIMITED = json.JSONDecoder(
    parse_constant=_no_constant,
    parse_float=_finite,
    parse_int=_whole,
    object_pairs_hook=_object,
)
_UNLIMITED = json.JSONDecoder(parse_constant=_no_constant)


def _number(value: bytes) -> int:
    if not value.isdigit() or len(value) > _DIGITS:
        raise WireError(f"'Content-Length' must be a number of bytes, not {_shown(value)}")
    return int(value)


def _check_charset(value: bytes) -> None:
    for parameter in value.lower().split(b";")[1:]:
        name, _, charset = parameter.partition(b"=")
        named = charset.strip().strip(b'"').decode("ascii", "replace")
        if name.strip() == b"charset" and named not in _CHARSETS:
            raise WireError(f"the character set must be utf-8, not {named!r:.40}")


def _shown(value: bytes) -> str:
    return repr(value[:80].decode("ascii", "backslashreplace"))


# --- JSON-RPC 2.0 ---------------------------------------------------------------------------------

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
#: LSP's code for a request that its client cancelled.
CANCELLED = -32800
#: The server refuses: too many connections, it is stopping, an error with a ``code`` in ``data``.
REFUSED = -32000

#: The message of the error for connections beyond the limit.
BUSY = (
    "there are too many connections; close one, or use one for several requests (methods that"
    " begin with 'system.' are answered nevertheless)"
)

_BATCH = (
    "batches are not supported; send requests one after another without waiting, or many jobs with"
    " jobs.submit_many and jobs.status_many"
)


class RpcError(Exception):
    """An error of JSON-RPC: one of the codes above, a message for people, data for programs."""

    def __init__(
        self,
        code: int,
        message: str,
        *,
        request_id: Any = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.request_id = request_id
        self.data = data

    def document(self, request_id: Any = None) -> dict[str, Any]:
        """Return the message that answers a request with this error."""
        error: dict[str, Any] = {"code": self.code, "message": str(self)}
        if self.data is not None:
            error["data"] = dict(self.data)
        if request_id is None:
            request_id = self.request_id
        return {"jsonrpc": "2.0", "id": request_id, "error": error}


@dataclass
class Call:
    """A request or a notification."""

    method: str
    params: Mapping[str, Any]
    request_id: Any
    wants_answer: bool


def as_call(document: Any) -> Call:
    """Return a message as a request or a notification; raise `RpcError` if it is neither."""
    if isinstance(document, list):
        raise RpcError(INVALID_REQUEST, _BATCH)
    if not isinstance(document, dict):
        raise RpcError(INVALID_REQUEST, "a message must be an object")
    wants_answer = "id" in document
    request_id = document.get("id")
    if not is_id(request_id):
        raise RpcError(INVALID_REQUEST, "'id' must be a string or a number")
    method = document.get("method")
    if document.get("jsonrpc") != "2.0":
        raise RpcError(INVALID_REQUEST, "'jsonrpc' must be \"2.0\"", request_id=request_id)
    if not isinstance(method, str):
        raise RpcError(INVALID_REQUEST, "'method' must be a string", request_id=request_id)
    params = document.get("params")
    if params is None or params == []:  # some clients send this for no parameters
        params = {}
    if not isinstance(params, dict):
        if not wants_answer:
            raise RpcError(INVALID_REQUEST, f"the parameters of {method!r:.80} must be an object")
        message = "'params' must be an object: parameters go by their names"
        raise RpcError(INVALID_PARAMS, message, request_id=request_id)
    return Call(method, params, request_id, wants_answer)


def is_id(value: object) -> bool:
    """Return whether a value may be a request's id."""
    return value is None or (isinstance(value, str | int | float) and not isinstance(value, bool))
