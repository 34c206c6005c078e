"""Compare what came back from a job with what a recipe returned, down to numbers."""

import json
from collections.abc import Mapping, Sequence

import numpy as np
from ase import Atoms
from monty.json import MontyEncoder

__all__ = ["assert_same"]

#: What tells of one run, and not of what was computed.
OWN = {"dir_name", "nid", "uuid", "directory", "quacc_version", "machine", "_id", "_old_ids"}
#: VASP's tell when, how long, and where.
OWN |= {
    "completed_at",
    "last_updated",
    "run_stats",
    "cpu_time",
    "date",
    "time",
    "output_file_paths",
}
#: A mode that others share the frequency with may come out as any mixture of them.
OWN |= {"eigenvectors", "group_velocities"}
#: Sums in which modes at Gamma count whose frequency is zero but for noise.
OWN |= {"thermal_properties"}
#: Threads of tblite add up in any order, so that two bare runs differ by so much (eV, Å, cm^-1).
NEAR = 1e-5


def assert_same(ours, bare, place):
    """Compare; ``place`` says in a message where that is."""
    is_written = isinstance(bare, Mapping) and "@module" in bare
    if is_written and not (isinstance(ours, Mapping) and "@module" in ours):
        # What monty has written of an object in a result is that object again.
        ours, bare = _written(ours), _written(bare)
        bare = {name: value for name, value in bare.items() if name in ours}
        ours = {name: ours[name] for name in bare}
    for kind, compare in _KINDS.items():
        if isinstance(bare, kind):
            compare(ours, bare, place)
            return
    if isinstance(ours, Mapping) and ours.keys() >= {"type", "text"}:  # it has no form in JSON
        assert ours["type"] == f"{type(bare).__module__}.{type(bare).__qualname__}", place
        if isinstance(bare, Sequence):
            assert_same(ours["items"], list(bare), f"{place}.items")
        return
    assert type(ours) is type(bare), (place, ours, bare)
    if hasattr(bare, "deformations"):  # of a DeformedStructureSet
        assert_same(list(ours), list(bare), place)
        assert_same(ours.deformations, bare.deformations, place)
    if hasattr(bare, "as_dict"):  # their own JSON does not tell what in them is numpy's
        assert_same(_written(ours.as_dict()), _written(bare.as_dict()), place)


def _written(value):
    return json.loads(json.dumps(value, cls=MontyEncoder))


def _tables(ours, bare, place):
    assert set(ours) == set(bare), place
    for key, value in bare.items():
        if key not in OWN:
            assert_same(ours[key], value, f"{place}.{key}")


def _structures(ours, bare, place):
    assert type(ours) is type(bare), place
    for one in ("numbers", "positions", "cell", "pbc"):
        _numbers(getattr(ours, one), getattr(bare, one), f"{place}.{one}")
    assert_same(ours.info, bare.info, f"{place}.info")


def _lists(ours, bare, place):
    assert len(ours) == len(bare), place
    assert type(ours) is type(bare), (place, type(ours))
    for number, (one, other) in enumerate(zip(ours, bare, strict=True)):
        assert_same(one, other, f"{place}[{number}]")


def _numbers(ours, bare, place):
    is_of_yaml = type(bare).__module__.startswith("ruamel.")  # quacc's presets are
    assert type(ours) is type(bare) or is_of_yaml, (place, ours, bare)
    ours, bare = np.asarray(ours), np.asarray(bare)
    assert ours.shape == bare.shape, place
    if bare.dtype.kind in "fc":
        assert np.allclose(ours, bare, rtol=NEAR, atol=NEAR, equal_nan=True), (place, ours, bare)
    else:
        assert (ours == bare).all(), (place, ours, bare)


_KINDS = {
    Mapping: _tables,
    Atoms: _structures,
    (list, tuple): _lists,
    (bool, int, float, complex, str, np.ndarray, np.generic, type(None)): _numbers,
}
