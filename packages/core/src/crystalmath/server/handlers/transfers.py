"""The methods ``transfers.*``: files on their way to or from a client on another machine."""

from __future__ import annotations

import base64
import binascii
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypedDict

from crystalmath import server
from crystalmath.errors import InvalidJob
from crystalmath.jobs.workfiles import digest, read_stored
from crystalmath.models.fields import Limits
from crystalmath.server.endpoint import make_private
from crystalmath.server.pools import in_slices
from crystalmath.server.rpc.declare import method
from crystalmath.wire.answers import Bytes, Transfer, TransferPart

if TYPE_CHECKING:
    from collections.abc import Generator

    from crystalmath.service import JobService

#: How much of a file a message has at most, in bytes.
_MOST = 16 * 2**20
#: The age at which a file is removed, in seconds.
_KEPT_S = 86400.0


def place_of(home: Path, transfer: str) -> Path:
    """Return the place of a transfer's file, in a private folder; old files there are removed."""
    if not all(digit in "0123456789abcdef" for digit in transfer):
        raise InvalidJob(f"{transfer!r} is no transfer: it has 32 hexadecimal digits")
    folder = home / "server/transfers"
    make_private(folder)
    for file in folder.iterdir():
        if file.stat().st_mtime < time.time() - _KEPT_S:
            file.unlink(missing_ok=True)
    return folder / transfer


class _TransferParams(TypedDict):
    transfer: Transfer


class ReadParams(_TransferParams, total=False):
    """The parameters of ``transfers.read``."""

    offset: Annotated[Bytes, "the number of bytes to skip; default: 0"]
    max_bytes: Annotated[int, Limits(minimum=1, maximum=_MOST), "how many bytes at most"]
    sha256: Annotated[bool, "also return the checksum of the file up to the end of these bytes"]


@method(server.TRANSFERS_READ, by_server=True, bulk=True)
async def handle_transfers_read(service: JobService, params: ReadParams) -> TransferPart:
    """Return bytes of a file that ``jobs.archive`` has made.

    To read all of it, call again with ``offset`` until that is ``size``.
    """
    return await in_slices("files", _read(service, params))


def _read(service: JobService, params: ReadParams) -> Generator[None, None, TransferPart]:
    path = place_of(service.config.home, params["transfer"])
    if not path.exists():
        raise InvalidJob(f"there is no transfer {params['transfer']}: it was a day ago, or is over")
    offset = params.get("offset", 0)
    data, size = read_stored(path, offset, params.get("max_bytes", _MOST))
    yield
    part: TransferPart = {
        "transfer": params["transfer"],
        "data": base64.b64encode(data).decode(),
        "offset": offset + len(data),
        "size": size,
        "error": None,
    }
    if params.get("sha256"):
        part["sha256"] = yield from digest(path, offset + len(data))
    return part


class WriteParams(_TransferParams):
    """The parameters of ``transfers.write``."""

    offset: Annotated[Bytes, "where the bytes belong, at most the end of what is there"]
    data: Annotated[str, "the bytes in base64"]


@method(server.TRANSFERS_WRITE, pool="files", by_server=True)
def handle_transfers_write(service: JobService, params: WriteParams) -> TransferPart:
    """Add bytes to a file for ``jobs.import``; it is made if there is none of that name."""
    if service.config.restricted is not None:
        raise InvalidJob("this home is restricted: it takes no files")
    try:
        data = base64.b64decode(params["data"], validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidJob(f"'data' is no base64: {error}") from error
    path = place_of(service.config.home, params["transfer"])
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "r+b") as file:
        size = os.fstat(descriptor).st_size
        if params["offset"] > size:
            raise InvalidJob(f"the file has {size} bytes; 'offset' is beyond its end")
        file.seek(params["offset"])
        file.write(data)
    end = params["offset"] + len(data)
    return {
        "transfer": params["transfer"],
        "data": "",
        "offset": end,
        "size": max(size, end),
        "error": None,
    }
