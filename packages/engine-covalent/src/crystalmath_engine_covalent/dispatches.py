"""Dispatches in the format of Covalent 0.240: one electron, which runs one attempt.

A dispatch is a manifest, and the archives in which Covalent keeps pickled objects.
"""

from __future__ import annotations

import base64
import functools
import json
import pickle
import platform
import uuid
from typing import TYPE_CHECKING, Any

from crystalmath import worker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from crystalmath.models import Attempt

#: Dispatch ids are made from attempt ids by this namespace.
_NAMESPACE = uuid.UUID("7a0b3a5e-8f0c-4f5e-9d53-3c4b4f7c1d9e")
#: An attempt may have so many dispatches with ids made from its own. Core gives up after as many.
TRIES = 6
#: Covalent closes a dispatch when its postprocessing electron has ended; here it is the only one.
_ELECTRON = ":postprocess:run"
_OFFSET_BYTES = 8


def all_ids(attempt: Attempt) -> list[str]:
    """Name the dispatches that an attempt may have, in the order of their launch."""
    ids = _made_ids(attempt)
    return ids if attempt.handle is None or attempt.handle in ids else [*ids, attempt.handle]


def fresh_ids(attempt: Attempt) -> Iterator[str]:
    """Name the dispatches that a launch may make, those after the recorded one."""
    ids = all_ids(attempt)
    yield from ids[ids.index(attempt.handle) + 1 :] if attempt.handle else ids
    while True:
        yield str(uuid.uuid4())


def _made_ids(attempt: Attempt) -> list[str]:
    return [str(uuid.uuid5(_NAMESPACE, f"{attempt.id}/{number}")) for number in range(TRIES)]


def files(dispatch: str, attempt: Attempt) -> dict[str, bytes]:
    """Return the files of a dispatch, by their names on the server."""
    return {
        f"{dispatch}/node_0/function.tobj": _task(attempt.directory),
        f"{dispatch}/node_0/hooks.json": b"{}",
    }


def _task(run_directory: Path) -> bytes:
    """Archive the call that Covalent's worker makes; of our packages it imports only core."""
    task = functools.partial(worker.run, str(run_directory))
    versions = {"py_version": platform.python_version(), "cloudpickle_version": ""}
    header = json.dumps({**versions, "attrs": {"doc": "", "name": "run"}}).encode()
    text = str(run_directory).encode(errors="backslashreplace")
    data = base64.b64encode(pickle.dumps(task, protocol=4))
    text_at = 2 * _OFFSET_BYTES + len(header)
    offsets = [text_at, text_at + len(text)]
    return b"".join(
        [*(each.to_bytes(_OFFSET_BYTES, "big") for each in offsets), header, text, data]
    )


def manifest(dispatch: str, name: str) -> dict[str, Any]:
    """Describe a dispatch: its id, new to the server, and the name that Covalent's pages show."""
    dask = {"executor": "dask", "executor_data": {}}
    electron = {
        "id": 0,
        "metadata": {"task_group_id": 0, "name": _ELECTRON, "status": "NEW_OBJECT"} | dask,
        "assets": _assets(
            *("function", "function_string", "value", "output"),
            *("error", "stdout", "stderr", "hooks"),
        ),
    }
    lattice = {
        "metadata": {
            "name": name,
            "workflow_executor": "dask",
            "workflow_executor_data": {},
            "python_version": platform.python_version(),
            "covalent_version": "0.240.0",
        }
        | dask,
        "assets": _assets(
            "workflow_function", "workflow_function_string", "doc", "inputs", "hooks"
        ),
        "transport_graph": {"nodes": [electron], "links": []},
    }
    return {
        "metadata": {"dispatch_id": dispatch, "root_dispatch_id": "", "status": "NEW_OBJECT"},
        "assets": _assets("result", "error"),
        "lattice": lattice,
    }


def _assets(*names: str) -> dict[str, Any]:
    # The server has to fetch no file: all of them have been sent.
    return {name: {"size": 0} for name in names}
