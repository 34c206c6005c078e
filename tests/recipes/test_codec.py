"""Specifications, requests and results survive the way through JSON, and nothing else gets in."""

from __future__ import annotations

import base64
import datetime as dt
import gzip
import importlib
import json
import math
import subprocess
import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.constraints import FixAtoms
from hypothesis import given, settings
from hypothesis import strategies as st
from monty.json import MSONable
from pymatgen.core import Structure
from pymatgen.io.ase import MSONAtoms

from crystalmath.errors import BadFile, InvalidJob
from crystalmath.models import JobSpec
from crystalmath.recipes import codec

if TYPE_CHECKING:
    from collections.abc import Iterator

AL = bulk("Al")


def spec(**parameters: Any) -> JobSpec:
    return JobSpec(
        job_id="1", recipe="quacc.recipes.emt.core.relax_job", atoms=AL, parameters=parameters
    )


def through_spec(value: Any) -> Any:
    return codec.decode_spec(codec.encode_spec(spec(x=value)))[1]["x"]


def through_request(value: Any) -> Any:
    text = json.dumps(codec.encode_request(value), allow_nan=False)
    return codec.decode_request(json.loads(text))


def through_result(value: Any) -> Any:
    return codec.decode_result(codec.encode_result(value))


def same(left: Any, right: Any) -> bool:
    if isinstance(left, np.ndarray):
        return (
            type(right) is type(left)
            and left.dtype == right.dtype
            and left.shape == right.shape
            and np.array_equal(left, right, equal_nan=left.dtype.kind in "fc")
        )
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, (float, complex, np.inexact)):
        return bool(np.array_equal(left, right, equal_nan=True))
    return bool(left == right)


arrays = st.sampled_from(
    [
        np.arange(6).reshape(2, 3),
        np.eye(3),
        np.array([1 + 2j, -0.5j]),
        np.array([[True], [False]]),
        np.array(["a", "bcd"]),
        np.zeros((0, 3)),
        np.zeros((2, 0), dtype="complex64"),
        np.array(3.5),
        np.array([1, 255], dtype="uint8"),
        np.array([0.1, 1e-7], dtype="float32"),
    ]
)
keys = st.one_of(
    st.text(max_size=5),
    st.sampled_from(["@module", "@class", "@callable", "__ndarray__"]),
    st.integers(-5, 200),
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=10),
    st.binary(max_size=10),
    st.complex_numbers(allow_nan=False, allow_infinity=False),
    st.dates(),
    st.datetimes(timezones=st.sampled_from([None, dt.UTC])),
    st.sampled_from([Path("/a/b"), Path("c")]),
    arrays,
    st.frozensets(st.integers(), max_size=3),
    st.sets(st.text(max_size=3), max_size=3),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(keys, inner, max_size=4),
    ),
    max_leaves=12,
)


@given(values)
@settings(deadline=None)
def test_parameters_come_back_as_they_were(value: Any) -> None:
    assert same(value, through_spec(value))


@given(values)
@settings(deadline=None)
def test_requests_give_the_value_or_are_refused(value: Any) -> None:
    refusal = None
    try:
        returned = through_request(value)
    except InvalidJob as error:
        refusal = str(error)
    else:
        assert same(value, returned)
    assert refusal is None or "not permitted here" in refusal


def monty_free(value: Any) -> bool:
    """In results, dicts that monty wrote mean what monty means by them."""
    if isinstance(value, dict):
        return not any(str(key).startswith("@") and key != "@numpy" for key in value) and all(
            map(monty_free, value.values())
        )
    return not isinstance(value, (list, tuple)) or all(map(monty_free, value))


numpy_scalars = st.one_of(
    *(st.integers(0, 100).map(getattr(np, kind)) for kind in ("int64", "int8", "uint32")),
    *(st.floats(width=32).map(getattr(np, kind)) for kind in ("float64", "float32", "float16")),
    st.complex_numbers().map(np.complex128),
    st.booleans().map(np.bool_),
    st.text(max_size=5).map(np.str_),
)
results = st.recursive(
    st.one_of(scalars, numpy_scalars, st.floats(), st.sampled_from([bulk("Cu"), MSONAtoms("Ni")])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(st.floats().map(np.float64), max_size=3),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(st.one_of(keys, st.just("@numpy")), inner, max_size=4),
        st.dictionaries(st.tuples(st.integers(0, 3), st.text(max_size=2)), inner, max_size=2),
    ),
    max_leaves=12,
)


@given(results.filter(monty_free))
@settings(deadline=None)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
def test_results_come_back_as_they_were(value: Any) -> None:
    data = codec.encode_result(value)
    back = codec.decode_result(data)
    assert same(value, back)
    assert codec.encode_result(back) == data
    json.loads(codec.unpacked(data), parse_constant=pytest.fail)


def test_numbers_of_numpy_in_a_dict_are_plain_numbers_for_other_readers() -> None:
    given = {"energy": np.float64(1.5), "list": [np.int64(1), np.int64(2)], "own": 1.5}
    read = json.loads(codec.unpacked(codec.encode_result({"results": given})))
    assert read["results"].pop("@numpy") == {"energy": "float64", "list": ["int64"]}
    assert read["results"] == {"energy": 1.5, "list": [1, 2], "own": 1.5}


@pytest.mark.parametrize("kind", ["object", "float64", ["float64"], [["int8"]], 3, None, {}])
@pytest.mark.parametrize("value", ["x", {"a": 1}, [1, "x"], 10**400, None])
def test_types_of_numpy_that_do_not_fit_are_refused(kind: Any, value: Any) -> None:
    with pytest.raises(InvalidJob, match="of numpy's"):
        codec.decode_result_document({"x": value, "@numpy": {"x": kind}})


#: What an archive may bring: documents that name what is no data, nested as the encoding nests.
NAMED = st.sampled_from(
    [
        ("os", "system"),
        ("ase.__main__", "main"),
        ("crystalmath_hostile", "Anything"),
        ("quacc.settings", "QuaccSettings"),
        ("pymatgen.io.vasp.outputs", "Vasprun"),
        ("pymatgen.io.vasp.inputs", "Potcar"),
        ("pymatgen.io.vasp.inputs", "Incar"),
        ("pymatgen.core.structure", "Structure"),
        ("pymatgen.core.structure", "os"),
        ("pymatgen.core.lattice", "Lattice"),
        ("pymatgen.core.entries", "ComputedEntry"),
        ("custodian.vasp.jobs", "VaspJob"),
        ("builtins", "eval"),
        ("builtins", "dict"),
        ("builtins", "tuple"),
        ("numpy", "array"),
        ("numpy.random", "Generator"),
        ("pymatgen.io.ase", "MSONAtoms"),
        ("ase.optimize.test", "run"),
        (__name__, "Trap"),
    ]
)
ENTRY = {"composition": {"Al": 1}, "energy": 1.0, "correction": 0.0}
PARTS = st.sampled_from(
    [
        {},
        {"value": 1},
        {"filename": "/etc/passwd"},
        {"string": "now"},
        {"dtype": "S2000000000", "data": ["a", "b"]},
        {"dtype": "U2000000000", "data": ["a", "b"]},
        {"dtype": "float64", "data": [1.0], "shape": [10**12]},
        {"dtype": "object", "data": ["a"]},
        {"MAGMOM": "999999999*99999*0.6"},
        {"atoms_json": '{"__ase_objtype__": "atoms", "numbers": {"__ndarray__": [[9], "i8", []]}}'},
        {"symbols": ["Al"], "functional": "PBE"},
        {"matrix": [[1, 0, 0], [0, 1, 0], [0, 0, 1]]},
        ENTRY,
    ]
)
#: Where an object of pymatgen may hold anything.
HOLDERS = st.sampled_from(["data", "parameters", "properties", "items", "state", "vasp_cmd"])


def tagged(named: tuple[str, str], parts: dict[str, Any], held: dict[str, Any]) -> dict[str, Any]:
    return {"@module": named[0], "@class": named[1], **parts, **held}


def hidden(node: Any) -> Any:
    """Write a table as pairs, of which a decoder may make the table again."""
    if not isinstance(node, dict):
        return node
    return {"@module": "builtins", "@class": "dict", "items": [list(pair) for pair in node.items()]}


HOSTILE = st.recursive(
    st.one_of(
        st.none(),
        st.floats(),
        st.text(max_size=3),
        st.builds(tagged, NAMED, PARTS, st.just({})),
        st.builds(
            lambda named, bound: {"@module": named[0], "@callable": named[1], "@bound": bound},
            NAMED,
            st.none() | st.builds(tagged, NAMED, PARTS, st.just({})),
        ),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        inner.map(hidden),
        st.dictionaries(HOLDERS, inner, max_size=2),
        st.builds(tagged, NAMED, PARTS, st.dictionaries(HOLDERS, inner, max_size=2)),
        st.builds(
            tagged,
            st.just(("pymatgen.core.entries", "ComputedEntry")),
            st.just(ENTRY),
            st.fixed_dictionaries({"data": st.fixed_dictionaries({"a": inner})}),
        ),
    ),
    max_leaves=8,
)


#: What was done while hostile documents were decoded.
DONE: list[str] = []


class Trap(MSONable):
    """Is of a module that nobody has admitted."""

    def __init__(self, **_: Any) -> None:
        DONE.append("called")


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Note what Python tells its auditors, and the import of a module that is there."""
    folder = tmp_path_factory.mktemp("hostile")
    source = f"from {__name__} import DONE, Trap as Anything\n"
    Path(folder, "crystalmath_hostile.py").write_text(source)
    open_for: list[bool] = [True]

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        told = f"{event} {arguments[:1]}"
        if open_for and (
            (event in {"import", "open"} and ("hostile" in told or "passwd" in told))
            or event in {"os.system", "os.mkdir", "subprocess.Popen"}
        ):
            DONE.append(told)

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        # What the import of a listed module does is no attack: custodian's starts `uname`.
        for module in ("pymatgen.core.entries", "pymatgen.io.ase", "custodian.vasp.jobs"):
            importlib.import_module(module)
        sys.addaudithook(audit)
        yield
        open_for.clear()


@given(document=HOSTILE)
@settings(deadline=None, max_examples=400)
@pytest.mark.usefixtures("watched")
def test_a_hostile_result_is_data_or_an_error(document: Any) -> None:
    DONE.clear()
    try:
        value = codec.decode_result_json(json.dumps(document).encode())
    except (BadFile, InvalidJob):
        value = None
    assert DONE == []
    assert not {"ase.__main__", "crystalmath_hostile"} & sys.modules.keys()
    for leaf in leaves(value):
        assert not callable(leaf)
        assert getattr(leaf, "nbytes", 0) < 10**6


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for key in value for leaf in (key, *leaves(value[key]))]
    if isinstance(value, (list, tuple, set, frozenset)):
        return [leaf for item in value for leaf in leaves(item)]
    return [value]


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                [
                    "@module",
                    "@class",
                    "data",
                    "dtype",
                    "string",
                    "items",
                    "shape",
                    "atoms_json",
                    "atoms_info",
                    "a",
                ]
            ),
            st.one_of(
                inner,
                st.sampled_from(
                    [
                        "numpy",
                        "array",
                        "builtins",
                        "dict",
                        "tuple",
                        "set",
                        "complex",
                        "bytes",
                        "pathlib",
                        "Path",
                        "datetime",
                        "date",
                        "pymatgen.io.ase",
                        "MSONAtoms",
                        "float64",
                        "os",
                        "ase.atoms",
                        "Atoms",
                        "quacc",
                        "Remove",
                    ]
                ),
            ),
            max_size=5,
        ),
    ),
    max_leaves=10,
)


@given(json_values)
@settings(deadline=None)
def test_requests_raise_nothing_but_value_errors(value: Any) -> None:
    try:
        decoded = codec.decode_request(value)
    except ValueError:
        return
    codec.encode_spec(spec(x=decoded))


@pytest.mark.parametrize(
    "node",
    [
        {"@module": "os", "@class": "System"},
        {"@module": "os", "@callable": "system"},
        {"@module": "numpy", "@class": "array", "@callable": "x", "dtype": "int", "data": [1]},
        {"@callable": "system"},
        {"@class": "array"},
        {"@module": ["os"], "@class": {"a": 1}},
        {"@module": "builtins", "@class": "dict", "items": [["@module", "os"]]},
        {"@module": "builtins", "@class": "float", "string": "nan"},
        {"@module": "builtins", "@class": "eval", "data": "1"},
        {"@module": "numpy", "@class": "array", "dtype": "object", "data": ["x"]},
        {"@module": "numpy", "@class": "array", "dtype": "float64", "data": ["nan"]},
        {"@module": "numpy", "@class": "array", "dtype": "float64", "data": [[1], [1, 2]]},
        {"@module": "numpy", "@class": "array", "dtype": "float64", "data": [], "shape": [10**9]},
        {"@module": "builtins", "@class": "complex", "data": [math.inf, 0.0]},
        math.nan,
        [1.0, {"a": -math.inf}],
        np.array([math.nan]),
        pytest.param(object(), id="object"),
        print,
    ],
    ids=str,
)
def test_requests_refuse(node: Any) -> None:
    with pytest.raises(InvalidJob, match=r"params\.a\[1\]"):
        codec.decode_request({"a": [0, node]})


def test_what_monty_writes_of_permitted_types_is_read() -> None:
    atoms = {
        "@module": "pymatgen.io.ase",
        "@class": "MSONAtoms",
        "@version": "3",
        "atoms_json": json.dumps(codec.encode_request(AL)["data"]),
        "atoms_info": {"a": 1},
    }
    read = codec.decode_request(
        {
            "atoms": atoms,
            "z": {
                "@module": "numpy",
                "@class": "array",
                "dtype": "complex128",
                "data": [[1.0], [2.0]],
            },
        }
    )
    assert read["atoms"] == AL
    assert read["atoms"].info == {"a": 1}
    assert read["z"] == np.array([1 + 2j])


def test_a_structure_keeps_what_a_recipe_reads() -> None:
    atoms = molecule("O2")
    atoms.set_constraint(FixAtoms([0]))
    atoms.info = {"charge": 1, "lost": object()}
    job = JobSpec(job_id="1", recipe="r", atoms=atoms, parameters={"other": atoms})
    text = codec.encode_spec(job)
    assert text.isascii()
    assert "\n" not in text
    read, parameters = codec.decode_spec(text)
    for copy in (read, parameters["other"]):
        assert copy == atoms
        assert copy.get_initial_magnetic_moments().tolist() == [1.0, 1.0]
        assert copy.constraints[0].index.tolist() == [0]
        assert copy.info == {"charge": 1}


class Colour(Enum):
    red = 1


def looped() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return loop


@pytest.mark.parametrize(
    "value",
    [
        object(),
        print,
        dict,
        Colour.red,
        math.nan,
        np.array([math.inf]),
        np.array([None]),
        looped(),
        10**5000,
        np.datetime64("2020-01-01"),
        Atoms(),
        range(3),
        complex(math.nan, 0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_specifications_name_the_place_of_what_they_refuse(value: Any) -> None:
    with pytest.raises(InvalidJob, match=r"^opt_params\.optimizer\[0\]"):
        codec.encode_spec(spec(opt_params={"optimizer": [value]}))


def test_a_specification_has_a_limit() -> None:
    with pytest.raises(InvalidJob, match="64 MiB"):
        codec.encode_spec(spec(x="x" * (65 * 2**20)))


def test_a_damaged_specification_says_so() -> None:
    for body in ("", "[]", "{}", '{"atoms": 1, "parameters": 2}', "[" * 10**5):
        with pytest.raises(InvalidJob):
            codec.decode_spec(body)


def test_quaccs_sentinels_pass_without_importing_quacc() -> None:
    source = """
import sys
from crystalmath.recipes import codec, encoding
value = codec.decode_request({"@module": "quacc", "@class": "Remove"})
assert value == encoding.Sentinel("Remove")
assert codec.encode_request(value) == {"@module": "quacc", "@class": "Remove"}
assert "quacc" not in sys.modules and "monty" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", source], check=True)


def test_results_hold_what_recipes_return(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRYSTALMATH_RECIPES", __name__)
    atoms = bulk("Cu")
    atoms.positions[0, 0] = math.nan
    atoms.arrays["custom"] = np.array([7])
    result = {
        "atoms": atoms,
        "converged": np.True_,
        "energy": np.float64(1.5),
        "dir_name": Path("/a"),
        "at": dt.datetime(2026, 1, 2, tzinfo=dt.UTC),
        "nan": math.nan,
        "zero_d": np.array(1.5),
        "inf": [-math.inf, 1],
        "array": np.array([math.nan, math.inf, 2.0]),
        "z": np.array([complex(math.inf, 1)]),
        "times": np.array(["2020-01-01"], dtype="datetime64[D]"),
        3: (1, 2),
        "colour": Colour.red,
        "objects": np.array([{"a": 1}, None], dtype=object),
    }
    back = through_result(result)
    assert type(back["atoms"]) is Atoms
    assert math.isnan(back["atoms"].positions[0, 0])
    assert back["atoms"].arrays["custom"].tolist() == [7]
    assert same(result["objects"], back["objects"])
    assert back["colour"] is Colour.red
    for name in ("dir_name", "at", "nan", "zero_d", "inf", "array", "z", "times", 3):
        assert same(result[name], back[name]), name
    for name in ("converged", "energy"):
        assert same(result[name], back[name]), name


@pytest.mark.filterwarnings("ignore::DeprecationWarning:spglib")
@pytest.mark.parametrize("symmetry", [False, True])
def test_deformed_structures_come_back_as_they_were(*, symmetry: bool) -> None:
    strain = pytest.importorskip("pymatgen.core.elasticity.strain")
    given = strain.DeformedStructureSet(
        Structure.from_ase_atoms(AL), norm_strains=[0.01], symmetry=symmetry
    )
    back = through_result({"set": given})["set"]
    assert type(back) is type(given)
    assert vars(back).keys() == vars(given).keys()
    assert list(back) == list(given)
    assert all(map(np.array_equal, back.deformations, given.deformations))
    assert [type(each) for each in back.deformations] == [strain.Deformation] * len(given)
    if symmetry:
        assert list(map(len, back.sym_dict.values())) == list(map(len, given.sym_dict.values()))


def test_a_result_is_plain_gzip_and_valid_json() -> None:
    data = codec.encode_result({"x": [math.nan, {1, 2}], "b": b"\0"})
    text = gzip.decompress(data)
    assert codec.unpacked(data) == text
    read = json.loads(text, parse_constant=pytest.fail)
    assert read["x"][0] == {"@module": "builtins", "@class": "float", "string": "nan"}
    assert base64.b64decode(read["b"]["data"]) == b"\0"
    assert codec.encode_result({"x": [math.nan, {2, 1}], "b": b"\0"}) == data


def test_monty_reads_a_result_too() -> None:
    from monty.json import MontyDecoder

    data = codec.encode_result({"a": np.array([1.0, math.nan]), "p": Path("/x"), "k": {1: 2}})
    read = json.loads(codec.unpacked(data), cls=MontyDecoder)
    assert same(read["a"], np.array([1.0, math.nan]))
    assert read["p"] == Path("/x")


def test_objects_in_a_result_read_their_own_tuples() -> None:
    """Every result of VASP's holds such k-points; `from_dict` of pymatgen reads them itself."""
    from pymatgen.io.vasp.inputs import Kpoints

    result = {"input": Kpoints.gamma_automatic((2, 3, 4)), "bands": Kpoints(kpts=[(0, 0, 0)])}
    back = through_result(result)
    assert isinstance(back["input"], Kpoints)
    assert back["input"].kpts == [(2, 3, 4)]
    assert back == result


class Own(MSONable):
    """Reads what it wrote as it is."""

    def __init__(self, held: Any) -> None:
        self.held = held

    @classmethod
    def from_dict(cls, node: dict[str, Any]) -> Own:
        return cls(node["held"])

    def as_dict(self) -> dict[str, Any]:
        return {"@module": type(self).__module__, "@class": "Own", "held": self.held}


def test_what_monty_has_no_word_for_reaches_an_object_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CRYSTALMATH_RECIPES", __name__)
    back = through_result([Own([(1, (2.0, math.inf)), {3: {4}}, b"5", {"@module": "builtins"}])])
    assert back[0].held == [[1, [2.0, math.inf]], {3: {4}}, b"5", {"@module": "builtins"}]


class Silent:
    """Cannot even be shown."""

    def __repr__(self) -> str:
        raise RuntimeError

    def as_dict(self) -> dict[str, Any]:
        raise RuntimeError


@pytest.mark.parametrize(
    ("value", "told", "text"),
    [
        (object(), "builtins.object", "<object object at 0x"),
        (range(2), "builtins.range", "range(0, 2)"),
        (Silent(), f"{__name__}.Silent", "<"),
        (1 << 20_000, "builtins.int", ""),
        (lambda: None, "builtins.function", "<function"),
    ],
    ids=["object", "sequence", "silent", "long", "function"],
)
def test_what_cannot_be_written_is_text_with_its_type(value: Any, told: str, text: str) -> None:
    noted: list[str] = []
    back = codec.decode_result(codec.encode_result({"steps": [0, {"it": value}], "e": 1.0}, noted))
    assert noted == [f"result.steps[1].it ({told})"]
    written = back["steps"][1]["it"]
    assert back == {"steps": [0, {"it": written}], "e": 1.0}
    assert written["type"] == told
    assert written["text"].startswith(text)
    assert written.get("items") == ([0, 1] if value == range(2) else None)


def test_what_holds_itself_is_text_once_and_all_else_is_kept() -> None:
    twice: list[Any] = []
    twice += [twice, twice]  # each level would be written twice
    noted: list[str] = []
    back = codec.decode_result(codec.encode_result({"it": {"loop": twice}, "e": 1.0}, noted))
    assert noted == ["result.it (builtins.dict)"]
    assert back["e"] == 1.0
    assert back["it"]["type"] == "builtins.dict"
