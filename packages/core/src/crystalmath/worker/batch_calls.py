"""The runner's side of batches: group jobs by their parameters, and call the batched function."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystalmath.jobs.rundir import RunDirectory
from crystalmath.jobs.written_spec import WrittenSpec
from crystalmath.recipes import batched_recipes, codec, lookup
from crystalmath.recipes.torchsim_enums import with_members
from crystalmath.worker import outcomes
from crystalmath.worker.child import BEGUN

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from crystalmath.batch import Batched

#: The names of the classes of errors that mean that memory was short, also on a GPU.
_MEMORY = frozenset(("MemoryError", "OutOfMemoryError"))


class BatchCalls:
    """Calls of batched functions in this process; `send` takes the outcome of each structure."""

    def __init__(self, allow: tuple[str, ...], send: Callable[[dict[str, Any]], object]) -> None:
        self._allow = allow
        self._send = send
        self._process = os.getpid()
        # The structures and parameters of planned jobs, by run directory.
        self._planned: dict[str, tuple[Any, dict[str, Any]]] = {}

    def plan(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Group the jobs of a parcel by their parameters; return the limits of a call, too.

        The plan is ``None`` if the recipe has no batched function here. A job that cannot be read,
        or that has no structure, is alone.
        """
        try:
            batch = batched_recipes.load(lookup.resolve(request["recipe"], self._allow))
        except BaseException as error:  # noqa: BLE001 - each job fails with it by itself
            print(f"crystalmath: the jobs run one by one: {error}", file=sys.stderr)
            batch = None
        if batch is None:
            return {"plan": None}
        self._planned.clear()
        groups: dict[str, list[int]] = {}
        sizes: list[int] = []
        for index, (path, _) in enumerate(request["calls"]):
            alike, size = self._read(path)
            groups.setdefault(alike or path, []).append(index)
            sizes.append(size)
        limits = {"most": batch.most, "atoms": batch.atoms}
        return {"plan": {"groups": [*groups.values()], "sizes": sizes, **limits}}

    def _read(self, path: str) -> tuple[str | None, int]:
        """Read a job; return a text that jobs of one call share, and its number of atoms."""
        try:
            header, body = RunDirectory(path).read_spec()
            if WrittenSpec.of(header).flow is not None:
                return None, 0
            atoms, parameters = _decoded(body)
            _, alike = batched_recipes.parted(body)
            size = _size(atoms)
        except Exception:  # noqa: BLE001 - the job fails with it by itself
            return None, 0
        if not size:
            return None, 0
        self._planned[path] = atoms, parameters
        return alike, size

    def call(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Compute jobs with equal parameters; send the outcome of each as soon as it is there.

        Return the error of the call, if it failed, and whether memory was short.
        """
        jobs = [(RunDirectory(path), attempt) for path, attempt in request["calls"]]
        directory, attempt = jobs[0]
        work = directory.work(attempt)
        started = time.time()
        try:
            batch = batched_recipes.load(lookup.resolve(request["recipe"], self._allow))
            read = [self._decoded(each) for each, _ in jobs]
            structures = [atoms for atoms, _ in read]
            parameters = with_members(request["recipe"], read[0][1])
            os.chdir(work)
            with outcomes.results_in(Path(work)):
                if request["timed"]:
                    self._send(BEGUN)
                for index, result in enumerate(_results(batch, structures, parameters)):
                    if os.getpid() != self._process:
                        os._exit(0)  # the function forked, and this is the child
                    times = {"started": started, "finished": time.time()}
                    answer = self._outcome(result, jobs, index, times, request)
                    self._send({"index": index, **answer})
        except BaseException as error:  # noqa: BLE001 - sys.exit() of a function is a failure, too
            return {"error": _described(error), "memory": _is_memory(error)}
        return {"error": None, "memory": False}

    def _decoded(self, directory: RunDirectory) -> tuple[Any, dict[str, Any]]:
        """Return structure and parameters of a job; a function may change the planned ones."""
        if directory.path in self._planned:
            return self._planned.pop(directory.path)
        return _decoded(directory.read_spec()[1])

    def _outcome(
        self,
        result: object,
        jobs: Sequence[tuple[RunDirectory, int]],
        index: int,
        times: Mapping[str, float],
        request: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Return the outcome of one job, or nothing if the recipe itself must compute the job."""
        directory, attempt = jobs[index]
        replaced = request["replaced"][index]
        log, payload = "", b""
        if isinstance(result, BaseException):
            header = outcomes.failed(result, directory, attempt)
            log = header["traceback"]
        elif isinstance(result, Mapping):
            leader, number = jobs[0]
            more = {"batch": len(jobs), **({"process_replaced": replaced} if replaced else {})}
            payload, header = outcomes.completed(result, leader.work(number), more)
        else:
            print(f"crystalmath: no dict for structure {index} of the batch", file=sys.stderr)
            return {}
        header |= {**times, "begun_from": directory.begun_from(attempt)}
        if replaced:
            header["process_replaced"] = replaced
        small = request["small"]
        return {
            "log": log,
            **outcomes.delivered(directory, attempt, header, payload, small=small),
        }


def _decoded(body: str) -> tuple[Any, dict[str, Any]]:
    """Return the structure, or the list of structures, and the other parameters of a job."""
    atoms, parameters = codec.decode_spec(body)
    if atoms is None and (name := batched_recipes.parted(body)[0]) is not None:
        atoms = parameters.pop(name)
    return atoms, parameters


def _size(structure: Any) -> int:
    """Return the number of atoms of a structure, or of all structures in a list."""
    if isinstance(structure, (list, tuple)):
        return sum(map(len, structure))
    return 0 if structure is None else len(structure)


def _results(
    batch: Batched | None, structures: list[Any], parameters: Mapping[str, Any]
) -> Iterator[object]:
    """Yield the result of each structure; raise `ValueError` if there are more, or fewer."""
    if batch is None:
        raise LookupError("the recipe has no batched function any more")
    results = batch.function(structures, **parameters)
    count, name = len(structures), getattr(batch.function, "__name__", "the batched function")
    if not isinstance(results, (list, tuple, Iterator)):
        raise TypeError(f"{name} returned {type(results).__name__}, not a list of {count} results")
    if not isinstance(results, Iterator) and len(results) != count:
        raise ValueError(f"{name} returned {len(results)} results for {count} structures")
    number = 0
    for number, result in enumerate(results, 1):
        if number > count:
            raise ValueError(f"{name} yields more than {count} results")
        yield result
    if number < count:
        raise ValueError(f"{name} yielded {number} results for {count} structures")


def _described(error: BaseException) -> str:
    text = f"{type(error).__name__} (its message cannot be shown)"
    with contextlib.suppress(Exception):  # the message of a foreign exception may fail
        traceback.print_exception(error)
        text = f"{type(error).__name__}: {error}"
    return text


def _is_memory(error: BaseException) -> bool:
    """Return whether memory was short; free what an error on a GPU holds."""
    is_memory = any(each.__name__ in _MEMORY for each in type(error).__mro__)
    if is_memory:
        traceback.clear_frames(error.__traceback__)
        gc.collect()
        torch = sys.modules.get("torch")
        with contextlib.suppress(Exception):
            if torch is not None and torch.cuda.is_initialized():
                torch.cuda.empty_cache()
    return is_memory
