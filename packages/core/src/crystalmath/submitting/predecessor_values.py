"""The values and geometries that jobs take from the results of others."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from crystalmath.errors import InvalidJob, shown
from crystalmath.models.job_notes import awaited
from crystalmath.recipes.decoding import ResultDecoder
from crystalmath.recipes.encoding import AS_TEXT, NUMPY, ResultEncoder, formless, with_numpy_types
from crystalmath.recipes.json_text import structure_of
from crystalmath.recipes.lookup import is_quaccs
from crystalmath.recipes.structures import parse_structure
from crystalmath.recipes.summary import find_structures, read_structure
from crystalmath.submitting.going_on import moves_atoms_alone

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ase import Atoms

    from crystalmath.models.job_notes import Parent
    from crystalmath.quacc.store import JobMetadata
    from crystalmath.reading.home_jobs import HomeJobs
    from crystalmath.reading.predecessors import Predecessors
    from crystalmath.recipes.job_structure import JobStructure

__all__ = ["PredecessorValues"]

#: The search for the atoms that a job will get goes through this many predecessors at most.
_MOST_PREDECESSORS = 100
#: A key that can be looked up in a stored result without reading all of it; none of our tags.
_KEY = re.compile(r"(?!(?:data|items|string)$)[A-Za-z_]\w*", re.ASCII)
#: An error lists this many keys at most.
_MOST_KEYS = 30


class PredecessorValues:
    """Read values and geometries of completed jobs, each value once."""

    def __init__(self, jobs: HomeJobs, predecessors: Predecessors) -> None:
        self._jobs = jobs
        self._predecessors = predecessors
        self._values: dict[tuple[str, tuple[str | int, ...]], Any] = {}

    # --- values ------------------------------------------------------------------------------

    def value(self, job: JobMetadata, path: tuple[str | int, ...]) -> Any:
        """Return a value of a job's result in its stored form.

        Raises
        ------
        InvalidJob
            The result has no such value, or only its text.
        """
        key = (job.job_id, path)
        if key not in self._values:
            try:
                value = self.read(job, path)
                self._values[key] = _without_host(value) if path[-1:] == ("dir_name",) else value
            except InvalidJob:
                if path != ("dir_name",):
                    raise
                # A recipe that returns no dir_name has run in the job's work directory.
                folder = str(self._jobs.work_directory(job.job_id))
                self._values[key] = {"@module": "pathlib", "@class": "Path", "string": folder}
        return self._values[key]

    def read(self, job: JobMetadata, path: tuple[str | int, ...]) -> Any:
        """Return a value of a job's result as it stands there; errors as `value`."""
        results, text, start = self._jobs.results, b"", 0
        if path and isinstance(path[0], str) and _KEY.fullmatch(path[0]):
            with contextlib.suppress(InvalidJob):  # The error below lists the keys.
                text, start = results.part(job, results.locate(job, path[0])), 1
        node = json.loads(text or b"".join(results.chunks(job)))
        if start and not isinstance(node, dict):
            with contextlib.suppress(InvalidJob):  # The result has no NumPy scalars.
                types = json.loads(results.part(job, results.locate(job, NUMPY)))
                node = with_numpy_types(node, types.get(path[0]))
        for index in range(start, len(path)):
            try:
                node = _member(node, path[index])
            except _NoMemberError as error:
                where = _indices(path[:index]) or "it"
                raise InvalidJob(
                    f"the result of job {job.job_id} ({job.recipe}) has no {_indices(path)}; "
                    f"{where} {error}"
                ) from None
        if (job.summary or {}).get("as_text"):
            _require_form(job, node, path)
        return node

    # --- geometries --------------------------------------------------------------------------

    def input_structure(self, job: JobMetadata) -> dict[str, Any] | None:
        """Return the stored structure that a job was submitted with, if it has one."""
        text = getattr(job, "specification", None) or self._jobs.specification(job.job_id)
        document = text.split("\n", 1)[1]
        structure = structure_of(json.loads(document))
        return None if structure is None or "data" not in structure else structure

    def expected(self, parents: Sequence[Parent]) -> Mapping[str, Any] | None:
        """Return a structure of the atoms that a waiting job will get, if these are known."""
        for _ in range(_MOST_PREDECESSORS):
            waited_for = awaited(parents)
            sources = [parent for parent in waited_for if parent["role"] == "structure"]
            if not sources or any(parent["role"] == "value" for parent in waited_for):
                return None
            job = self._predecessors.job(sources[0]["job_id"])
            if not self._keeps_atoms(job, sources[0]):
                return None
            if (structure := self.input_structure(job)) is not None:
                return structure
            parents = job.parents
        return None

    def formula(self, parents: Sequence[Parent]) -> str | None:
        """Return the formula of the structure that a waiting job will get, if it is known."""
        for parent in parents:
            if parent["role"] == "structure":
                job = self._predecessors.job(parent["job_id"])
                return job.formula if self._keeps_atoms(job, parent) else None
        return None

    def _keeps_atoms(self, job: JobMetadata, parent: Parent) -> bool:
        """Return whether the geometry has the atoms of the job's input, at most moved."""
        moves = is_quaccs(job.recipe) and moves_atoms_alone(job.recipe, self._jobs.config)
        return parent.get("frame") == 0 or (moves and parent.get("path", ["atoms"]) == ["atoms"])

    def geometry(self, job: JobMetadata, reference: JobStructure) -> Atoms | dict[str, Any]:
        """Return a geometry of a job in a form that a submission takes.

        A final geometry keeps the tags, constraints and magnetic moments of its recipe's result;
        quacc hands on the moments of calculations that have them (VASP). Anything of these that
        the result lacks comes from the job's input.

        Raises
        ------
        InvalidJob
            The job has no such geometry.
        """
        if reference.frame == 0:
            structure = self.input_structure(job)
            if structure is None:
                raise InvalidJob(
                    f"job {job.job_id} has no input structure: {job.recipe} takes none"
                )
            return structure

        if reference.path is not None:
            where = _indices(reference.path)
            text = json.dumps(self.value(job, reference.path)).encode()
            try:
                return self._with_input_arrays(read_structure(text, f"its result{where} is"), job)
            except InvalidJob as error:
                raise InvalidJob(f"structure: job {job.job_id}: {error}") from error
        try:
            atoms = self._of_result(job, reference.frame)
        except InvalidJob as error:
            raise InvalidJob(f"job {job.job_id} ({job.recipe}): {error}") from error
        return self._with_input_arrays(atoms, job)

    def _of_result(self, job: JobMetadata, frame: int | None) -> Atoms:
        structures = find_structures(b"".join(self._jobs.results.chunks(job)))
        frames = structures.trajectory
        if frame is None or frame == -1:
            return read_structure(structures.final)
        if not frames:
            raise InvalidJob(
                f"its result holds no trajectory, and so no geometry {frame}; there are 0, the "
                "input, and the final one"
            )
        try:
            return read_structure(frames[frame])
        except IndexError:
            raise InvalidJob(
                f"its trajectory has {len(frames)} geometries; there is none numbered {frame}"
            ) from None

    def _with_input_arrays(self, atoms: Atoms, job: JobMetadata) -> Atoms:
        """Add the per-atom arrays and constraints of a job's input that its result lacks."""
        import numpy as np

        document = self.input_structure(job)
        before = None if document is None else parse_structure(document)
        if before is None or not np.array_equal(before.numbers, atoms.numbers):
            return atoms
        for name in ("tags", "initial_magmoms", "initial_charges"):
            if before.has(name) and not atoms.has(name):
                atoms.set_array(name, before.get_array(name))
        if before.constraints and not atoms.constraints:
            atoms.set_constraint(before.constraints)
        return atoms


def _require_form(job: JobMetadata, node: Any, path: tuple[str | int, ...]) -> None:
    """Raise `InvalidJob` if a value contains an object that is stored as text only."""
    for place, kind in formless(node, path):
        raise InvalidJob(
            f"the result{_indices(place)} of job {job.job_id} ({job.recipe}) is {kind}, which has "
            "no form in JSON: only its text is stored, and no job takes that for the value; take "
            "a part of the result that has one, or have the recipe return numbers, texts, arrays, "
            "structures or dicts of such"
        )


class _NoMemberError(Exception):
    """A path leads no further; the text continues a sentence about the place."""


def _member(node: Any, step: str | int) -> Any:
    """Return a member of a stored result, in its stored form."""
    if isinstance(node, dict) and node.get(AS_TEXT) is True:
        raise _NoMemberError(f"is {node.get('type')}, which has no form in JSON")
    if isinstance(node, dict) and "@module" in node:
        tag = (node["@module"], node.get("@class"))
        if tag == ("builtins", "dict"):
            return _item({_hashable(key): item for key, item in node["items"]}, step)
        if tag == ("builtins", "tuple"):
            return _item(node["data"], step)
        if tag == ("numpy", "array"):
            return ResultEncoder().encode(_item(ResultDecoder().decode(node, ()), step), ())
        if tag[0] == "numpy":
            return _item(node["data"], step)
        if tag[0] == "pymatgen.io.ase":
            raise _NoMemberError("is a structure, into which no path leads")
    member, types = _item(node, step), node.get(NUMPY) if isinstance(node, dict) else None
    return with_numpy_types(member, types.get(step)) if isinstance(types, dict) else member


def _item(node: Any, step: str | int) -> Any:
    """Return an item of a mapping or a sequence."""
    if isinstance(node, Mapping):
        if step in node:
            return node[step]
        keys = [repr(key) for key in node if not str(key).startswith("@")]
        more = ", ..." if len(keys) > _MOST_KEYS else ""
        raise _NoMemberError(f"has the keys {', '.join(keys[:_MOST_KEYS])}{more}")
    # A zero-dimensional array has a `__len__` that raises.
    if isinstance(node, str) or not hasattr(node, "__len__") or getattr(node, "shape", None) == ():
        raise _NoMemberError(f"is {shown(node)}")
    if not isinstance(step, int):
        raise _NoMemberError(f"has {len(node)} items, which are counted from 0")
    try:
        return node[step]
    except IndexError:
        raise _NoMemberError(f"has {len(node)} items") from None


def _indices(path: Iterable[object]) -> str:
    return "".join(f"[{step!r}]" for step in path)


def _hashable(key: Any) -> Any:
    return json.dumps(key) if isinstance(key, (list, dict)) else key


def _without_host(node: Any) -> Any:
    """Remove the host that emmet writes before a directory: ``node17:/scratch/run``."""
    if isinstance(node, str):
        return re.sub(r"^[\w.-]+:(?=/)", "", node)
    return node
