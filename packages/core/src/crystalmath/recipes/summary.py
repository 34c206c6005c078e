"""The results of recipes: their summaries, scalars and structures."""

from __future__ import annotations

import contextlib
import gzip
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen

from crystalmath.errors import InvalidJob
from crystalmath.recipes.ase_json import check_atoms, decode_atoms

if TYPE_CHECKING:
    from ase import Atoms

# Flows nest a few levels ({"relax": [...], "static": [...]}); deeper is something else.
_MAX_DEPTH = 8


def summarize(result: object, flow_steps: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Summarise a recipe's result, without raising for any result.

    Parameters
    ----------
    result : object
        The recipe's return value. A flow's collection of results, a list or a dict of them, is
        summarised by its last one: the second of two relaxations, the static calculation after
        them, the last of the slabs.
    flow_steps : mapping, optional
        For a flow whose steps are jobs: ``flow_steps``, the number of these jobs in each state; if
        there are any, ``steps_in_pass`` that ran in its own process, and ``steps_taken_over`` from
        the flow that it retries; and ``by_step_unused``, the patterns of its ``by_step`` that match
        none of its steps. The summary then has no energy, force and formula, as each step has its
        own.

    Returns
    -------
    dict
        ``energy_ev`` (float or None, eV; the converged one for a hybrid functional of pw.x, whose
        ``results.energy`` is without exact exchange), ``max_force_ev_ang`` (the largest norm of the
        force on an atom after its constraints, float or None, eV/Å), ``formula`` (of all atoms that
        contribute to the energy, in Hill's order, str or None), ``work_dir`` (str or None);
        ``natoms``, the number of atoms, if there are any; and ``steps``, the number of results of a
        flow's collection.
    """
    if flow_steps is not None:
        empty = dict.fromkeys(("energy_ev", "max_force_ev_ang", "formula", "work_dir"))
        return empty | dict(flow_steps)
    calculations = list(steps(result))
    last = _of_one(calculations[-1] if calculations else result)
    summary = {
        "energy_ev": _or_none(_energy, last),
        "max_force_ev_ang": _or_none(_max_force, last),
        "formula": _or_none(_formula, last),
        "work_dir": _or_none(_work_dir, last),
    }
    natoms = _or_none(_natoms, last)
    if natoms:
        summary["natoms"] = natoms
    if calculations and calculations[-1] is not result:
        summary["steps"] = len(calculations)
    return summary


def _of_one(result: Any) -> Any:
    """Return a result of TorchSim that is of one structure as other recipes return theirs."""
    with contextlib.suppress(Exception):  # any other result, which stays as it is
        (atoms,), output = result["atoms"], result["output"]
        values = {name: output[name] and output[name][0] for name in ("energy", "forces")}
        return {"atoms": atoms, "results": values, "dir_name": result["dir_name"]}
    return result


def _or_none(read: Any, result: object) -> Any:
    # A summary is a convenience: an unforeseen result must not fail its job.
    with contextlib.suppress(Exception):
        return read(result) if isinstance(result, Mapping) else None
    return None


def steps(value: object, depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """Yield the results in a flow's collection, a list or a dict of them."""
    if depth > _MAX_DEPTH:
        return
    if isinstance(value, Mapping):
        if isinstance(value.get("results"), Mapping):
            yield value
            return
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from steps(item, depth + 1)


def _energy(result: Mapping[str, Any]) -> float | None:
    results = result["results"]
    # The energy of vibrations is the caller's reference, by default 0.
    energy = None if "vib_freqs" in results else _number(results.get("energy"))
    exchanged = None if energy is None else _or_none(_exact_exchange_energy, result)
    return energy if exchanged is None else _number(exchanged)


def _exact_exchange_energy(result: Mapping[str, Any]) -> float | None:
    """Return the last energy in the output of pw.x, in eV, if its functional is a hybrid.

    pw.x refines exact exchange in a loop, and ASE reads the energy before that loop.
    """
    folder = _work_dir(result)
    if folder is None or "input_data" not in result["parameters"]:
        return None
    from ase.io.espresso import units

    path, packed = Path(folder, "pw.out"), Path(folder, "pw.out.gz")
    last, is_hybrid = b"", False
    with gzip.open(packed) if packed.exists() else path.open("rb") as output:
        for line in output:
            is_hybrid = is_hybrid or b"EXX" in line
            if line.startswith(b"!"):
                if not is_hybrid:  # the head of the output would name it
                    return None
                last = line
    return float(last.split()[-2]) * float(units["Ry"])


def _number(value: Any) -> float | None:
    if hasattr(value, "item") and getattr(value, "size", 1) == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def _max_force(result: Mapping[str, Any]) -> float | None:
    import numpy as np

    forces = result["results"].get("forces")
    if isinstance(forces, Mapping):  # monty's form of an array, not decoded
        forces = forces["data"]
    forces = np.array(forces, dtype=float)
    if forces.shape != (len(forces), 3) or not len(forces):
        return None
    atoms = _atoms(result)
    if atoms is not None and len(atoms) == len(forces):
        # Relaxations converge this force, and `atoms.get_forces` returns it.
        for constraint in atoms.constraints:
            constraint.adjust_forces(atoms, forces)
    return _number(np.linalg.norm(forces, axis=1).max())


def _formula(result: Mapping[str, Any]) -> str | None:
    if (atoms := _atoms(result)) is not None:
        return str(atoms.get_chemical_formula(mode="hill"))
    metadata = result.get("structure_metadata")
    named = result.get("formula_pretty")
    if named is None and isinstance(metadata, Mapping):
        named = metadata.get("formula_pretty")
    return str(named) if isinstance(named, str) and named else None


def _natoms(result: Mapping[str, Any]) -> int | None:
    atoms = _atoms(result)
    return None if atoms is None else len(atoms)


def _atoms(result: Mapping[str, Any]) -> Any:
    atoms = result.get("atoms")
    if isinstance(atoms, Mapping):
        atoms = decode_atoms(atoms.get("atoms_json", atoms), finite=False)
    return atoms if atoms is not None and len(atoms) else None


def _work_dir(result: Mapping[str, Any]) -> str | None:
    directory = result.get("dir_name")
    if isinstance(directory, Mapping):  # monty's form of a path, not decoded
        directory = directory.get("string")
    if not isinstance(directory, (str, PurePath)) or not str(directory):
        return None
    # emmet prefixes the host: node17:/scratch/run
    path = re.sub(r"^[\w.-]+:(?=/)", "", str(directory))
    # A relative path starts from the recipe's working directory, which is gone.
    return path if path.startswith("/") else None


#: The columns of a geometry: Å, Å³, atomic numbers.
GEOMETRY = ("volume_ang3", "cell_ang", "pbc", "numbers", "positions_ang")
#: Members that are input, that tables have in other columns, or that describe programs.
_LEFT_OUT = {
    *("atoms", "input_atoms", "input_structure", "structure", "molecule", "input", "orig_inputs"),
    *("parameters", "structure_metadata", "molecule_metadata", "builder_meta", "cell"),
}
_MAX_VALUES_DEPTH = 6
_LONGEST = 200


def result_values(document: object, *, of_last: bool = True) -> dict[str, Any]:
    """Return the scalars of a result by the recipe's own names, ``results.gibbs_energy``.

    A flow's collection has the scalars of its last result (if `of_last`), and those beside the
    results of its steps, ``elasticity_doc.bulk_modulus.vrh``.
    """
    last, beside = last_step(document), _beside_steps(document)
    of_step = of_last or last is document
    values = dict(_scalars(last, "", 0)) if isinstance(last, Mapping) and of_step else {}
    for name, value in beside.items():
        values |= _scalars(value, f"{name}.", 1) if isinstance(value, Mapping) else {name: value}
    return values


def _beside_steps(document: object) -> dict[str, Any]:
    """Return the members of a flow's collection beside the results of its steps."""
    if not isinstance(document, Mapping) or last_step(document) is document:
        return {}
    return {
        name: value
        for name, value in document.items()
        if name not in _LEFT_OUT and not name.startswith("@") and _is_documented(value)
    }


def _is_documented(value: object) -> bool:
    """Return whether a value is a scalar, or holds some: emmet's documents are tagged."""
    if not isinstance(value, Mapping):
        return _is_scalar(value)
    is_own = str(value.get("@module", "emmet")).startswith("emmet")
    return is_own and next(steps(value), None) is None


def _scalars(node: Mapping[str, Any], prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        if name.startswith(("@", "parameters_")) or name in _LEFT_OUT:
            continue
        if not isinstance(value, Mapping):
            if _is_scalar(value):
                yield f"{prefix}{name}", value
        elif "@module" not in value and depth < _MAX_VALUES_DEPTH:
            yield from _scalars(value, f"{prefix}{name}.", depth + 1)


def _is_scalar(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) or (isinstance(value, str) and len(value) <= _LONGEST)


def brief(document: object) -> dict[str, Any] | None:
    """Return the part of a result for tables, with all that :func:`result_values` reads."""
    last = last_step(document)
    if not isinstance(last, Mapping):
        return None
    kept = _pruned(last, 0)
    if "atoms" in last:
        kept["atoms"] = last["atoms"]
    results = last.get("results")
    if isinstance(results, Mapping):
        wanted = ("forces", "stress", "vib_freqs")
        whole = {name: results[name] for name in wanted if name in results}
        kept["results"] = {**kept.get("results", {}), **whole}
    if last is document:
        return kept
    beside = _beside_steps(document).items()
    return {n: _pruned(v, 1) if isinstance(v, Mapping) else v for n, v in beside} | {"last": kept}


def _pruned(node: Mapping[str, Any], depth: int) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, value in node.items():
        if name.startswith("@"):
            continue
        if not isinstance(value, Mapping):
            if _is_scalar(value):
                kept[name] = value
        elif "@module" not in value and name not in _LEFT_OUT and depth < _MAX_VALUES_DEPTH:
            kept[name] = _pruned(value, depth + 1)
    return kept


def last_step(document: object) -> object:
    """Return the result that a summary is about: the last one of a flow's collection."""
    calculations = list(steps(document))
    return calculations[-1] if calculations else document


def final_atoms(document: object, energy: float | None = None) -> Atoms | None:
    """Return the geometry of a stored result, with its energy, forces and stress, if any.

    They are in eV, eV/Å and eV/Å³, the stress with ASE's sign and in its order. The `energy` of the
    job's summary replaces that of the result; see :func:`summarize`.
    """
    last = last_step(document)
    if not isinstance(last, Mapping) or not isinstance(stored := last.get("atoms"), Mapping):
        return None
    atoms = decode_atoms(stored.get("atoms_json", stored), finite=False)
    if not len(atoms):
        return None
    values = _calculated(last.get("results"), len(atoms))
    if energy is not None and "energy" in values:
        values["energy"] = energy
    if values:
        from ase.calculators.singlepoint import SinglePointCalculator

        atoms.calc = SinglePointCalculator(atoms, **values)
    return atoms


def _calculated(results: object, natoms: int) -> dict[str, Any]:
    """Return energy, forces and stress of the results of a calculation."""
    if not isinstance(results, Mapping) or "vib_freqs" in results:
        return {}
    values: dict[str, Any] = {}
    energy = results.get("energy")
    if isinstance(energy, (int, float)) and _is_scalar(energy):
        values["energy"] = float(energy)
    if (forces := _array(results.get("forces"), (natoms, 3))) is not None:
        values["forces"] = forces
    if (stress := _array(results.get("stress"), (6,), (3, 3))) is not None:
        from ase.stress import full_3x3_to_voigt_6_stress

        values["stress"] = stress if stress.shape == (6,) else full_3x3_to_voigt_6_stress(stress)
    return values


def _array(value: object, *shapes: tuple[int, ...]) -> Any:
    """Return numbers as an array, if it has one of these shapes."""
    import numpy as np

    if isinstance(value, Mapping):  # monty's form of an array, not decoded
        value = value.get("data")
    try:
        array = np.asarray(value, dtype=float)
    except (ArithmeticError, TypeError, ValueError):
        return None
    return array if array.shape in shapes else None


def geometry_values(atoms: Atoms) -> dict[str, Any]:
    """Return a geometry as columns of a table."""
    return {
        "volume_ang3": float(atoms.cell.volume) if atoms.cell.mask().all() else None,
        "cell_ang": atoms.cell.tolist(),
        "pbc": [bool(one) for one in atoms.pbc],
        "numbers": atoms.numbers.tolist(),
        "positions_ang": atoms.positions.tolist(),
    }


#: Strings, with the colon that makes keys of them, and brackets. The quantifiers are possessive: no
#: character of a string, which may have megabytes, is read twice.
_TOKEN = re.compile(rb'"((?:[^"\\]++|\\.)*+)"(:?)|[{}\[\]]', re.DOTALL)


@frozen
class CalculationText:
    """The texts of one calculation's structures in the text of a result."""

    #: Its ``atoms``; empty if it has none.
    final: bytes
    #: The structures of its ``trajectory``, in their order; empty if it has none.
    trajectory: tuple[bytes, ...]


@define
class _Node:
    """An object or a list that is not closed yet."""

    start: int
    is_list: bool
    name: bytes = b""
    key: bytes = b""
    #: Begin and end of the values of some keys, and of the items of a trajectory.
    spans: dict[bytes, tuple[int, int]] = field(factory=dict)
    items: list[tuple[int, int]] = field(factory=list)
    trajectory: list[tuple[int, int]] = field(factory=list)
    #: The calculations in it, and whether some are items of one list.
    steps: list[CalculationText] = field(factory=list)
    beside: bool = False


def find_structures(text: bytes) -> CalculationText:
    """Return the final structure of a result, and the trajectory that led to it, as texts.

    A flow has those of its last calculation. Raises `InvalidJob`: there is none, or no last one.
    """
    root = _scan(text)
    if len(root.steps) > 1 and root.beside:
        raise InvalidJob(
            f"its result holds {len(root.steps)} calculations beside each other, and none of them "
            "is its final one; name one by its place (job:ID:static.0.atoms, or from Python "
            "future['static'][0]['atoms'])"
        )
    if not root.steps or not root.steps[-1].final:
        raise InvalidJob("its result holds no structure ('atoms')")
    return root.steps[-1]


def structures_of(text: bytes) -> tuple[list[Atoms], int]:
    """Return the structures that a recipe returned as a list, and the number of calculations.

    The list is empty for a single structure; the number is 0 if each calculation follows another.
    """
    document = json.loads(text)
    atoms = document.get("atoms") if isinstance(document, Mapping) else None
    root = _scan(text)
    listed = atoms if isinstance(atoms, list) else []
    together = [one.get("atoms_json") for one in listed if isinstance(one, Mapping)]
    return (
        [decode_atoms(one, finite=False) for one in together if one is not None],
        len(root.steps) if root.beside else 0,
    )


def read_structure(text: bytes, what: str = "its result's 'atoms' are") -> Atoms:
    """Read the text of a structure; `InvalidJob`: it is none (the message begins with `what`)."""
    node = json.loads(text)
    if not isinstance(node, Mapping) or "atoms_json" not in node:
        raise InvalidJob(f"{what} no structure of ASE's")
    atoms = check_atoms(decode_atoms(node["atoms_json"]))
    info = node.get("atoms_info")
    if isinstance(info, Mapping):
        # Tagged members need a decoder, and are left out.
        atoms.info.update({k: v for k, v in info.items() if k[:1] != "@" and _is_plain(v)})
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
    """Hand the calculations in an object or a list to the one that holds it."""
    span = (node.start, end)
    if parent.is_list:
        if parent.name == b"trajectory":
            parent.items.append(span)
    elif not node.is_list and node.name in {b"atoms", b"results"}:
        parent.spans[node.name] = span
    elif node.is_list and node.name == b"trajectory":
        parent.trajectory = node.items
    if not node.is_list and b"results" in node.spans:
        node.steps, node.beside = [_calculation(node, text)], False
    elif depth == 1 and not node.is_list and b"atoms" in node.spans:
        # The recipe returned a structure without quacc's `results`.
        node.steps, node.beside = [_calculation(node, text)], False
    if depth <= _MAX_DEPTH and node.steps:
        parent.beside = parent.beside or node.beside or (parent.is_list and bool(parent.steps))
        parent.steps += node.steps


def _calculation(node: _Node, text: bytes) -> CalculationText:
    return CalculationText(
        final=text[slice(*node.spans.get(b"atoms", (0, 0)))],
        trajectory=tuple(text[start:end] for start, end in node.trajectory),
    )
