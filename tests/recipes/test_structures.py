"""Structures from requests and files."""

from __future__ import annotations

import contextlib
import io
import json
import math

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import (
    FixAtoms,
    FixCartesian,
    FixedLine,
    FixScaled,
    FixSymmetry,
    Hookean,
)
from ase.io import read, write
from ase.io.jsonio import encode
from hypothesis import example, given, settings
from hypothesis import strategies as st

from crystalmath.errors import InvalidJob
from crystalmath.recipes.structures import (
    parse_structure,
    read_structures,
    read_text,
    to_ase_json,
)

POSCAR = """Al cell
4.05
0.0 0.5 0.5
0.5 0.0 0.5
0.5 0.5 0.0
Al
1
Direct
0.0 0.0 0.0
"""


def rich() -> Atoms:
    atoms = fcc111("Al", (1, 1, 3), vacuum=5.0)
    atoms.set_constraint(
        [
            FixAtoms([0]),
            FixCartesian([1], (True, False, True)),
            FixedLine([2], (0, 0, 1)),
            Hookean(0, 1, 5.0, 2.0),
        ]
    )
    atoms.set_initial_magnetic_moments([1.0, -1.0, 0.5])
    atoms.set_initial_charges([0.1, 0, -0.1])
    atoms.set_masses([26, 27, 28])
    atoms.set_momenta(np.arange(9.0).reshape(3, 3))
    atoms.set_array("custom", np.array(["a", "b", "c"]))
    atoms.set_celldisp([0.1, 0, 0])
    atoms.info = {"key": "v", "list": [1, 2], "array": np.eye(2), "deep": {"0": {"x": 1.5}}}
    return atoms


def same(left: Atoms, right: Atoms) -> None:
    assert left == right
    assert left.arrays.keys() == right.arrays.keys()
    for name, values in left.arrays.items():
        assert values.dtype.kind == right.arrays[name].dtype.kind, name
        assert np.array_equal(values, right.arrays[name]), name
    assert np.array_equal(left.get_celldisp(), right.get_celldisp())
    assert [str(item.todict()) for item in left.constraints] == [
        str(item.todict()) for item in right.constraints
    ]


@pytest.mark.parametrize("text", [False, True])
def test_ase_json_keeps_everything(text):
    atoms = rich()
    document = to_ase_json(atoms)
    json.dumps(document, allow_nan=False)
    if text:
        document["data"] = json.dumps(document["data"])
    back = parse_structure(json.loads(json.dumps(document)))
    same(atoms, back)
    assert back.info["deep"] == {"0": {"x": 1.5}}
    assert back.info["list"] == [1, 2]
    assert np.array_equal(back.info["array"], np.eye(2))


def test_what_ase_itself_writes_is_read():
    atoms = rich()
    same(atoms, parse_structure({"format": "ase-json", "data": encode(atoms)}))


def test_every_kind_of_constraint_in_files_survives():
    for constraint in (FixScaled([0], (True, False, False)), FixSymmetry(bulk("Al"))):
        atoms = bulk("Al")
        atoms.set_constraint(constraint)
        assert type(parse_structure(to_ase_json(atoms)).constraints[0]) is type(constraint)


def test_info_that_json_cannot_hold_is_left_out():
    atoms = bulk("Al")
    loop = []
    loop.append(loop)
    unfinished = bulk("Cu")
    unfinished.set_array("forces", np.full((1, 3), math.nan))
    atoms.info = {
        "a": 1,
        "b": object(),
        "c": math.nan,
        4: 1,
        "d": {1: 2},
        "e": [object()],
        "f": {"__ndarray__": 1},
        "g": np.float64(2.5),
        "h": np.array([1.0, math.nan]),
        "i": 1j,
        "j": np.longdouble(1),
        "k": loop,
        "l": unfinished,
    }
    assert parse_structure(to_ase_json(atoms)).info == {"a": 1, "g": 2.5}


def test_a_constraint_without_json_is_refused():
    class Mine:
        pass

    atoms = bulk("Al")
    atoms.set_constraint(Mine())
    with pytest.raises(InvalidJob, match="Mine"):
        to_ase_json(atoms)


def test_computed_moments_become_initial_ones():
    atoms = Atoms("Fe", cell=[2, 2, 2], pbc=True)
    atoms.calc = SinglePointCalculator(atoms, energy=1.0, magmoms=np.array([2.2]))
    for back in (parse_structure(to_ase_json(atoms)), parse_structure(atoms)):
        assert back.get_initial_magnetic_moments().tolist() == [2.2]
        assert back.calc is None
    assert not atoms.has("initial_magmoms")
    atoms.set_initial_magnetic_moments([5.0])
    assert parse_structure(atoms).get_initial_magnetic_moments().tolist() == [5.0]


def test_a_poscar_is_read():
    assert parse_structure(POSCAR) == bulk("Al")
    assert parse_structure(POSCAR.replace("\n", "\r\n")) == bulk("Al")
    selective = POSCAR.replace("Direct", "Selective\nDirect").replace("0.0\n", "0.0 F F F\n")
    selective = selective.replace("0.5 0.0 F F F", "0.5 0.0")
    assert parse_structure(selective).constraints[0].index.tolist() == [0]


def test_a_dict_is_read():
    atoms = parse_structure(
        {
            "symbols": "Al2",
            "positions": [[0, 0, 0], [1, 1, 1]],
            "cell": [4, 4, 4],
            "pbc": True,
            "magmoms": [1, 2],
            "tags": None,
        }
    )
    assert atoms.get_initial_magnetic_moments().tolist() == [1.0, 2.0]
    assert atoms.pbc.all()
    assert parse_structure(
        {
            "numbers": [13],
            "scaled_positions": [[0, 0, 0]],
            "cell": [1, 1, 1],
            "pbc": [True, False, 0],
        }
    ).pbc.tolist() == [True, False, False]
    water = molecule("H2O")
    assert parse_structure({"symbols": list(water.symbols), "positions": water.positions}) == water


def node(shape, dtype, items):
    return {"__ndarray__": [shape, dtype, items]}


def ase_json(**changes):
    data = to_ase_json(bulk("Al"))["data"] | changes
    return {"format": "ase-json", "data": {k: v for k, v in data.items() if v is not ...}}


BAD = {
    "none": None,
    "list": [1],
    "empty": "",
    "blank": "\n" * 20,
    "path": "/etc/passwd",
    "nul": POSCAR.replace("Al cell", "\0"),
    "no counts": POSCAR.replace("\n1\n", "\nx\n"),
    "many": POSCAR.replace("\n1\n", "\n99999999999\n"),
    "more than lines": POSCAR.replace("\n1\n", "\n500000\n"),
    "negative": POSCAR.replace("\n1\n", "\n-1\n"),
    "no symbols": POSCAR.replace("Al\n", "").replace("Al cell", "cell"),
    "cut": POSCAR.replace("0.0 0.0 0.0\n", "0.0\n\n"),
    "cut cell": POSCAR.replace("0.5 0.0 0.5", "0.5"),
    "nan": POSCAR.replace("Direct\n0.0", "Direct\nnan"),
    "inf cell": POSCAR.replace("4.05", "inf"),
    "unknown element": POSCAR.replace("Al\n1", "Qq\n1"),
    "empty dict": {},
    "calculator": {"symbols": "Al", "calculator": "emt"},
    "unknown key": {"symbols": "Al", "position": [[0, 0, 0]]},
    "no atoms": {"symbols": "", "positions": []},
    "huge formula": {"symbols": "H999999999"},
    "formula without positions": {"symbols": "H1000000"},
    "formula with too few positions": {"symbols": "H1000000", "positions": [[0, 0, 0]]},
    "nested formula": {"symbols": "(" * 10000},
    "lengths": {"symbols": "Al2", "positions": [[0, 0, 0]]},
    "ragged": {"symbols": "Al2", "positions": [[0, 0, 0], [1]]},
    "nan positions": {"symbols": "Al", "positions": [[0, 0, math.nan]]},
    "a metre apart": {"symbols": "Al", "positions": [[0, 0, -1e300]]},
    "a cell of metres": {"symbols": "Al", "positions": [[0, 0, 0]], "cell": [1e11, 1, 1]},
    "strings": {"symbols": "Al", "positions": [["0", "0", "0"]]},
    "nan moments": {"symbols": "Al", "magmoms": [math.inf]},
    "both": {"symbols": "Al", "numbers": [13]},
    "pbc": {"symbols": "Al", "pbc": "TTT"},
    "number": {"numbers": [1000]},
    "negative number": {"numbers": [-1]},
    "constraint": {"symbols": "Al", "constraint": [{"name": "FixAtoms"}]},
    "info": {"symbols": "Al", "info": [1]},
    "format": {"format": "cif", "data": "x"},
    "no data": {"format": "ase-json"},
    "beside": {"format": "ase-json", "data": {}, "calculator": 1},
    "no json": {"format": "ase-json", "data": "{"},
    "deep json": {"format": "ase-json", "data": "[" * 10**5},
    "no objtype": ase_json(__ase_objtype__=...),
    "other objtype": ase_json(info={"__ase_objtype__": "bandpath", "labelseq": "G"}),
    "missing": ase_json(pbc=...),
    "shape": ase_json(positions=node([2, 3], "float64", [0.0] * 3)),
    "bomb": ase_json(positions=node([10**11, 3], "float64", [])),
    "wide": ase_json(info={"a": node([1], "<U1000000000000", ["a"])}),
    "negative shape": ase_json(positions=node([-1, -3], "float64", [0.0] * 3)),
    "object": ase_json(info={"a": node([1], "object", [1])}),
    "structured": ase_json(info={"a": node([1], "f8,f8", [1])}),
    "items": ase_json(positions=node([1, 3], "float64", ["0", "0", "0"])),
    "overflow": ase_json(numbers=node([1], "int8", [1000])),
    "nan in json": ase_json(positions=node([1, 3], "float64", [math.nan, 0.0, 0.0])),
    "nan info": ase_json(info={"a": math.nan}),
    "extra": ase_json(tags=node([2], "int64", [1, 2])),
    "constraint name": ase_json(constraints=[{"name": "constrained_indices", "kwargs": {}}]),
    "constraint kwargs": ase_json(constraints=[{"name": "FixAtoms", "kwargs": {"x": 1}}]),
    "constraint form": ase_json(constraints=[1]),
    "date": ase_json(info={"a": {"__datetime__": "x"}}),
    "zero atoms": to_ase_json(Atoms()),
    "nan atoms": Atoms("Al", positions=[[math.nan, 0, 0]]),
}


@pytest.mark.parametrize("structure", BAD.values(), ids=BAD)
def test_what_is_no_structure_is_a_clear_value_error(structure):
    with pytest.raises(InvalidJob) as caught:
        parse_structure(structure)
    assert len(str(caught.value)) > 15


XYZ = "1\nAl\nAl 0 0 0\n"


@pytest.mark.parametrize(
    ("structure", "message"),
    [
        (XYZ, "text must be a POSCAR; send XYZ"),
        (XYZ + "Al 0 0 1\n" * 9, "no POSCAR: .* text must be a POSCAR; send XYZ"),
        ({"symbols": "Al2", "positions": [[0, 0, 0]]}, "positions must .* its 2 atoms, not 1 x 3"),
        ({"symbols": ["Al"], "positions": [0, 0, 0]}, "positions must .* its 1 atoms, not 3"),
        ({"numbers": [13, 13], "tags": [1]}, "tags must have 2 values, one for each atom, not 1"),
        ({"symbols": "Al", "cell": [[1, 2, 3]]}, "cell must be three lengths"),
        ({"symbols": ["Qq"]}, "there is no element 'Qq'"),
        ({"symbols": "Al", "numbers": [13]}, "only one of them"),
    ],
)
def test_what_does_not_fit_is_named(structure, message):
    with pytest.raises(InvalidJob, match=message):
        parse_structure(structure)


fuzz = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-3, 200), st.floats(), st.text(max_size=4)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.sampled_from(
                [
                    "symbols",
                    "numbers",
                    "positions",
                    "cell",
                    "pbc",
                    "info",
                    "format",
                    "data",
                    "__ndarray__",
                    "__ase_objtype__",
                    "constraints",
                    "name",
                    "kwargs",
                    "tags",
                ]
            ),
            inner,
            max_size=5,
        ),
    ),
    max_leaves=15,
)


@given(fuzz, st.sampled_from(["plain", "changed", "poscar"]), st.integers(0, 120))
@example({"numbers": 0}, "plain", 0)
@settings(deadline=None)
def test_anything_is_a_structure_or_a_value_error(value, way, position):
    if way == "changed":
        changes = value if isinstance(value, dict) else {"info": value}
        value = {"format": "ase-json", "data": to_ase_json(bulk("Al"))["data"] | changes}
    elif way == "poscar":
        value = POSCAR[:position] + str(value)[:20] + POSCAR[position:]
    try:
        atoms = parse_structure(value)
    except ValueError:
        return
    assert len(atoms)
    assert np.isfinite(atoms.positions).all()


def test_files_of_any_format_are_read_with_all_their_frames(tmp_path):
    atoms = rich()
    atoms.set_constraint(FixAtoms([0]))
    write(tmp_path / "one.traj", atoms)
    [(name, back)] = read_structures(tmp_path / "one.traj")
    assert name == "one"
    same(read(tmp_path / "one.traj"), back)
    write(tmp_path / "many.extxyz", [bulk("Al"), bulk("Cu")])
    found = read_structures(str(tmp_path / "many.extxyz"))
    assert [(name, str(item.symbols)) for name, item in found] == [
        ("many-0", "Al"),
        ("many-1", "Cu"),
    ]
    (tmp_path / "Al.poscar").write_text(POSCAR)
    assert read_structures(tmp_path / "Al.poscar")[0][1] == bulk("Al")
    (tmp_path / "POSCAR").write_text(POSCAR)
    assert read_structures(tmp_path / "POSCAR")[0][0] == "POSCAR"


def test_an_at_sign_in_the_name_of_a_file_means_no_other_file(tmp_path):
    write(tmp_path / "slab.xyz", bulk("Al"))
    copper = (tmp_path / "slab.xyz").read_text().replace("Al", "Cu")
    (tmp_path / "slab@300K.xyz").write_text(copper)
    [(name, atoms)] = read_structures(tmp_path / "slab@300K.xyz")
    assert (name, str(atoms.symbols)) == ("slab@300K", "Cu")
    (tmp_path / "slab.xyz@0").write_text(copper)
    with pytest.raises(InvalidJob, match="neither its name nor its content shows a format"):
        read_structures(tmp_path / "slab.xyz@0")


@pytest.mark.parametrize("name", ["a.xyz", "a.cif", "POSCAR"])
def test_a_mark_of_the_byte_order_before_a_text_changes_nothing(tmp_path, name):
    write(tmp_path / name, bulk("Al"))
    text = (tmp_path / name).read_text()
    plain = read_structures(tmp_path / name)
    (tmp_path / name).write_text(f"\ufeff{text}", encoding="utf-8")
    assert read_structures(tmp_path / name) == plain
    assert read_text(f"\ufeff{text}", name) == read_text(text, name)


@pytest.mark.parametrize(
    ("kind", "ending"),
    [
        *(("espresso-in", "pwi"), ("xsf", "xsf"), ("proteindatabank", "pdb"), ("gen", "gen")),
        *(("sdf", "sdf"), ("vasp", "poscar"), ("extxyz", "xyz")),
    ],
)
def test_a_text_shows_its_format_and_an_error_its_line(kind, ending):
    atoms = bulk("Cu", cubic=True)
    with io.StringIO() as file:
        more = {"pseudopotentials": {"Cu": "Cu.UPF"}} if kind == "espresso-in" else {}
        write(file, atoms, format=kind, **more)
        text = file.getvalue()
    for name in ("pasted", f"slab.{ending}"):
        [(_, read)] = read_text(text, name)
        assert str(read.symbols) == "Cu4"
        distances = read.get_all_distances(), atoms.get_all_distances()
        assert distances[0] == pytest.approx(distances[1], abs=1e-3)
    lines = text.splitlines()
    if kind not in {"espresso-in", "proteindatabank"}:  # their readers do not name the value
        number = next(n for n, line in enumerate(lines) if "  0.0" in line)
        lines[number] = lines[number].replace(" 0.0", " 0.x", 1)
        end = " of the POSCAR" if kind == "vasp" else ": "
        with pytest.raises(InvalidJob, match=f"line {number + 1}{end}"):
            read_text("\n".join(lines), "pasted")
    with pytest.raises(InvalidJob, match=r"cut|too early|three numbers|lines in all|its scale"):
        read_text("\n".join(text.splitlines()[:-3]), f"slab.{ending}")


def _written(kind):
    more = {"pseudopotentials": {"Cu": "Cu.UPF"}} if kind == "espresso-in" else {}
    with io.StringIO() as file:
        write(file, bulk("Cu", cubic=True), format=kind, **more)
        return file.getvalue().splitlines()


ODD = ("", "-1", "999999999", "1e999", "nan", "\0", "nat = 999999999", "ANIMSTEPS 99999999", "9**9")


@given(
    st.sampled_from(["espresso-in", "xsf", "proteindatabank", "gen", "sdf", "vasp", "extxyz"]),
    st.sampled_from(["pasted", "a.pwi", "a.xsf", "a.pdb", "a.gen", "a.sdf", "a.xyz"]),
    st.lists(st.tuples(st.integers(0, 30), st.sampled_from(ODD)), max_size=4),
    st.integers(0, 40),
)
@example("gen", "a.gen", [], 0)
def test_a_damaged_text_is_read_or_refused(kind, name, damage, length):
    lines = _written(kind)[:length]
    for number, odd in damage:
        if number < len(lines):
            lines[number] = " ".join([odd, *lines[number].split()[1:]])
    with contextlib.suppress(InvalidJob):
        assert read_text("\n".join(lines), name)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.cif", None, "does not exist"),
        (".", None, "is a directory"),
        ("a.unknown", "nonsense", "cannot read"),
        ("a.cif", "data_x\n", "a.cif"),
        ("empty.xyz", "", "empty.xyz"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InvalidJob, match=message):
        read_structures(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("POSCAR", b"", "the structure file .*POSCAR is empty"),
        ("cut.POSCAR", b"Al\n1.0\n4 0 0\n0 4 0\n0 0 4\n", "it ends too early"),
        ("notes.txt", b"about aluminium", "neither its name nor its content shows a format"),
        ("picture.xyz", b"\x91\x00\xff", "it is no text"),
        ("xq.xyz", b"1\n\nXq 0 0 0\n", r"there is no element 'Xq' \(line 3\)$"),
        ("label.xyz", b"2\n\nAl 0 0 0\nCu1 0 0 3\n", r"'Cu1' \(line 4\); write its symbol, Cu$"),
        ("number.xyz", b"1\n\n29 0 0 0\n", r"'29' \(line 3\); write its symbol, Cu$"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_in_words(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidJob, match=said) as told:
        read_structures(tmp_path / name)
    assert name in str(told.value)


def test_texts_of_an_extended_xyz_file_stay_and_other_objects_are_left_out(tmp_path):
    atoms = bulk("Cu", cubic=True)
    atoms.set_array("bulk_wyckoff", np.array(["a", "a", "b", "c"]))
    write(tmp_path / "slab.extxyz", atoms)
    [(_, read_back)] = read_structures(tmp_path / "slab.extxyz")
    assert read_back.arrays["bulk_wyckoff"].dtype.kind == "O"  # by ASE's reader
    sent = parse_structure(to_ase_json(read_back))
    assert sent.arrays["bulk_wyckoff"].tolist() == ["a", "a", "b", "c"]
    assert read_back.arrays["bulk_wyckoff"].dtype.kind == "O"  # the caller's is not changed
    read_back.set_array("mine", np.array([None, 1, {}, "x"], dtype=object))
    with pytest.warns(UserWarning, match="'mine' is left out"):
        assert "mine" not in parse_structure(to_ase_json(read_back)).arrays
