"""The space group of a structure that the page shows."""

import pytest
from ase.build import bulk

NONE = {"symbol": None, "number": None}


def asked(page, atoms):
    params = {
        "numbers": atoms.numbers.tolist(),
        "positions": atoms.positions.ravel().tolist(),
        "cell": atoms.cell[:].ravel().tolist(),
    }
    return page.call("page.space_group", params)


def test_a_crystal_has_a_space_group(page):
    atoms = bulk("Cu", cubic=True)
    assert asked(page, atoms) == (200, {"symbol": "Fm-3m", "number": 225})
    atoms.rattle(0.001, seed=1)  # as a relaxation leaves atoms
    assert asked(page, atoms)[1]["number"] == 225
    atoms.rattle(0.2, seed=1)
    assert asked(page, atoms)[1] == {"symbol": "P1", "number": 1}
    assert asked(page, bulk("NaCl", "zincblende", a=5.6))[1]["symbol"] == "F-43m"


def test_what_has_none_is_no_error(page):
    atoms = bulk("Cu", cubic=True)
    atoms.positions[1] = atoms.positions[0]
    assert asked(page, atoms) == (200, NONE)
    assert asked(page, bulk("Cu", cubic=True) * (7, 7, 7)) == (200, NONE)  # 1372 atoms


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"numbers": [29], "positions": [0, 0], "cell": [1, 0, 0, 0, 1, 0, 0, 0, 1]},
        {"numbers": [29], "positions": [0, 0, 0], "cell": [0] * 9},
        {"numbers": [29], "positions": [0, 0, 0], "cell": "cubic"},
        {"numbers": ["Cu"], "positions": [0, 0, 0], "cell": [1, 0, 0, 0, 1, 0, 0, 0, 1]},
        {"numbers": [2**70], "positions": [0, 0, 0], "cell": [1, 0, 0, 0, 1, 0, 0, 0, 1]},
        {"numbers": 29, "positions": 0, "cell": 1},
    ],
)
def test_what_is_no_crystal_is_refused(page, params):
    status, told = page.call("page.space_group", params)
    assert status == 400
    assert "a crystal has 'numbers'" in told["error"]


@pytest.mark.parametrize("far", [float("nan"), float("inf"), 1e300, -1e9])
@pytest.mark.parametrize("what", ["positions", "cell"])
def test_what_is_beyond_all_bounds_ends_nothing(page, what, far):
    # spglib's C code ends the process for a place that is no number.
    params = {"numbers": [29], "positions": [0, 0, 0.5], "cell": [1, 0, 0, 0, 1, 0, 0, 0, 1]}
    params[what] = [far, *params[what][1:]]
    status, told = page.call("page.space_group", params)
    assert status == 400 or told == NONE
