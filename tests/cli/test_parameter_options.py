"""What people write after --param, --params, --sweep, --walltime and --label."""

import ast
import contextlib
import json
import math

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from crystalmath.cli.shared.parameter_options import (
    parse_labels,
    parse_parameters,
    parse_sweep,
    parse_value,
    parse_walltime,
)
from crystalmath.cli.shared.structure_files import read_document
from crystalmath.errors import InvalidJob

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
python_values = st.recursive(
    json_values | st.complex_numbers(allow_nan=False, allow_infinity=False, max_magnitude=1e300),
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner),
    max_leaves=8,
)


@given(json_values)
def test_json_means_what_json_means(value):
    assert parse_value(json.dumps(value)) == value


@given(python_values)
def test_a_python_literal_means_what_python_means(value):
    assert parse_value(repr(value)) == ast.literal_eval(repr(value))


@given(st.text())
def test_any_text_is_a_value_or_wrong_usage(text):
    try:
        value = parse_value(text)
    except ValueError:
        return
    if isinstance(value, str) and value == text:
        assert not text.lstrip().startswith(tuple("[{(\"'"))
    if isinstance(value, float):
        assert math.isfinite(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("True", True),
        ("null", None),
        ("None", None),
        ("0.01", 0.01),
        ("1.", 1.0),
        ("-3", -3),
        ("[3, 3, 3]", [3, 3, 3]),
        ("(3,3,3)", (3, 3, 3)),
        ("3,3,3", (3, 3, 3)),
        ("PBE", "PBE"),
        ("", ""),
        ("007", "007"),
        ("...", "..."),
        ("Fe,Ni", "Fe,Ni"),
        ("a b", "a b"),
        ("it's", "it's"),
        ('"520"', "520"),
        ("'520'", "520"),
        ("x=y", "x=y"),
        ("{'Al': '_pv'}", {"Al": "_pv"}),
        ('{"Al": "_pv"}', {"Al": "_pv"}),
        ("{0: '_pv'}", {0: "_pv"}),
        ("1e-3", 1e-3),
        ("1if", "1if"),
    ],
)
def test_values(text, value):
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "[3,3,3",
        " [3,3,3",
        "{a: 1}",
        "(3,3",
        '"open',
        "'open",
        "[1, x]",
        "NaN",
        "-Infinity",
        "[1, NaN]",
        "1e999",
        "[1e999]",
        "{'a': 1e999}",
        "{1, 2}",
        "b'x'",
        '{"a": 1, "a": 2}',
        "[" * 100_000,
    ],
)
def test_what_is_no_value(text):
    with pytest.raises(ValueError, match=r"\S"):
        parse_value(text)


def test_dotted_keys_reach_into_tables():
    given = ["opt_params.fmax=0.01", "opt_params.max_steps=5", "relax_cell=true"]
    assert parse_parameters(given) == {
        "opt_params": {"fmax": 0.01, "max_steps": 5},
        "relax_cell": True,
    }


@pytest.mark.parametrize(
    "assignments",
    [
        ["a"],
        ["=1"],
        ["a.=1"],
        [".a=1"],
        ["1a=1"],
        ["a b=1"],
        ["a=[1"],
        ["a=1", "a=1"],
        ["a=1", "a.b=2"],
        ["a.b=2", "a=1"],
        ['a={"b": 1}', "a.c=2"],
        ["a.b=1", "a.b.c=2"],
        ["a.b=1", "a.b=2"],
    ],
)
def test_wrong_assignments(assignments):
    with pytest.raises(typer.BadParameter):
        parse_parameters(assignments)


def test_the_command_line_goes_before_the_file(tmp_path):
    file = tmp_path / "p.json"
    file.write_text('{"opt_params": {"fmax": 0.05, "max_steps": 9}, "relax_cell": false, "k": {}}')
    read = parse_parameters(["opt_params.fmax=0.01", "relax_cell=true", "k=1"], file)
    assert read == {"opt_params": {"fmax": 0.01, "max_steps": 9}, "relax_cell": True, "k": 1}


def test_a_toml_file(tmp_path):
    file = tmp_path / "p.toml"
    file.write_text("relax_cell = true\n[opt_params]\nfmax = 0.01\n")
    assert parse_parameters([], file) == {"relax_cell": True, "opt_params": {"fmax": 0.01}}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.json", "[1]"),
        ("p.json", '{"a": NaN}'),
        ("p.json", '{"a": 1e999}'),
        ("p.json", '{"a": 1, "a": 2}'),
        ("p.json", "a = 1"),
        ("p.json", "\x00"),
        ("p.toml", "a = nan"),
        ("p.toml", "a = "),
        ("p.json", '{"opt_params": 3}'),
    ],
)
def test_files_that_are_refused(tmp_path, name, text):
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(typer.BadParameter):
        parse_parameters(["opt_params.fmax=1"], file)


def test_a_toml_file_without_quotes_says_what_is_missing(tmp_path):
    file = tmp_path / "p.toml"
    file.write_text("xc = PBE\n")
    with pytest.raises(typer.BadParameter, match=r"line 1, column 6.*text stands in quotes"):
        parse_parameters([], file)


@pytest.mark.parametrize(("name", "text"), [("p.json", '{"a": 1}'), ("p.toml", "a = 1")])
def test_a_file_may_begin_with_a_byte_order_mark(tmp_path, name, text):
    file = tmp_path / name
    file.write_text(text, encoding="utf-8-sig")
    assert parse_parameters([], file) == {"a": 1}


def test_of_a_long_list_in_place_of_a_table_the_beginning_is_told(tmp_path):
    file = tmp_path / "p.json"
    file.write_text(f"[{', '.join(['1'] * 100_000)}]")
    with pytest.raises(typer.BadParameter, match=r"table of parameters, not \[1") as refused:
        parse_parameters([], file)
    assert len(str(refused.value)) < 500


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(typer.BadParameter, match=r"nowhere\.json: No such file"):
        parse_parameters([], tmp_path / "nowhere.json")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("30m", 1800),
        ("2h", 7200),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        ("1.5h", 5400),
        ("1D2H3M4S", 93784),
        ("01:30:00", 5400),
        ("1-02:00:00", 93600),
        ("1-02", 93600),
        ("1-02:30", 95400),
    ],
)
def test_walltimes(text, seconds):
    assert parse_walltime(text) == seconds


@pytest.mark.parametrize(
    "text", ["", " ", "0", "2", "90", "0.5", "0h", "-1", "-1h", "h", "1x", "30m1h", "02:30",
             "1:2:3:4", "nan", "inf", "9" * 400, "1h2", "٣h", "1-", "2M", "1.5 M"]
)  # fmt: skip
def test_what_is_no_walltime(text):
    with pytest.raises(typer.BadParameter):
        parse_walltime(text)


@pytest.mark.parametrize("text", ["2", " 90", "0.5"])
def test_a_walltime_without_a_unit_asks_for_one(text):
    with pytest.raises(typer.BadParameter, match="which has no unit; write 2h"):
        parse_walltime(text)


@given(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99), st.integers(1, 99))
def test_units_add_up(days, hours, minutes, seconds):
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    assert parse_walltime(f"{days}d{hours}h{minutes}m{seconds}s") == total
    assert parse_walltime(f"{days}-{hours}:{minutes}:{seconds}") == total


@given(st.text())
def test_a_walltime_is_a_positive_number_or_wrong_usage(text):
    with contextlib.suppress(typer.BadParameter):
        assert 0 < parse_walltime(text) < math.inf


def test_labels():
    assert parse_labels(["project=Al", "empty=", "eq=a=b"]) == {
        "project": "Al",
        "empty": "",
        "eq": "a=b",
    }


@pytest.mark.parametrize("texts", [["a"], ["=1"], ["a=1", "a=2"]])
def test_wrong_labels(texts):
    with pytest.raises(typer.BadParameter):
        parse_labels(texts)


def test_without_a_sweep_there_is_one_combination_without_labels():
    assert parse_sweep([], ["a=1"]) == [({}, {"a": 1})]


def test_a_sweep_gives_each_combination_the_last_varying_fastest(tmp_path):
    file = tmp_path / "set.json"
    file.write_text('{"encut": 300, "opt_params": {"fmax": 1, "steps": 5}}')
    swept = parse_sweep(
        ["encut=[400, 500]", "opt_params.fmax=(0.1, 0.05)"], ["xc=PBE", "opt_params.log=x"], file
    )
    assert [labels for labels, _ in swept] == [
        {"encut": "400", "opt_params.fmax": "0.1"},
        {"encut": "400", "opt_params.fmax": "0.05"},
        {"encut": "500", "opt_params.fmax": "0.1"},
        {"encut": "500", "opt_params.fmax": "0.05"},
    ]
    assert swept[3][1] == {
        "encut": 500,
        "opt_params": {"fmax": 0.05, "steps": 5, "log": "x"},
        "xc": "PBE",
    }


def test_labels_of_a_sweep_are_text():
    swept = parse_sweep(['a=["PBE", null, true, [3, 3, 3]]', "b=[{'x': 1}]", "c=[(1j, 2)]"])
    assert [labels["a"] for labels, _ in swept] == ["PBE", "null", "true", "[3,3,3]"]
    assert swept[0][0] == {"a": "PBE", "b": '{"x":1}', "c": "(1j, 2)"}
    assert swept[0][1] == {"a": "PBE", "b": {"x": 1}, "c": (1j, 2)}


@pytest.mark.parametrize(
    ("sweeps", "assignments"),
    [
        (["a=1"], []),
        (["a=PBE"], []),
        (["a=[]"], []),
        (["a=[1"], []),
        (["a"], []),
        (["a=[1, 1]"], []),
        (["a=[1]", "a=[2]"], []),
        (["a=[1]"], ["a=2"]),
        (["a.b=[1]"], ["a=2"]),
        (['a=[1, "1"]'], []),
    ],
)
def test_what_is_no_sweep(sweeps, assignments):
    with pytest.raises(typer.BadParameter):
        parse_sweep(sweeps, assignments)


@pytest.fixture
def trajectory(tmp_path):
    from ase.build import bulk
    from ase.io import write

    file = tmp_path / "relax.xyz"
    write(file, [bulk("Cu"), bulk("Al"), bulk("Ag")])
    return file


def numbers(document):
    return document["data"]["numbers"]["__ndarray__"][-1]


def test_one_of_several_structures_must_be_chosen(trajectory):
    with pytest.raises(InvalidJob, match=r"3 structures.*@-1"):
        read_document(str(trajectory))
    assert numbers(read_document(f"{trajectory}@1")[1]) == [13]
    name, last = read_document(f"{trajectory}@-1")
    assert (name, numbers(last)) == ("relax-2", [47])
    for index in (3, -4):
        with pytest.raises(InvalidJob, match=f"none numbered {index}"):
            read_document(f"{trajectory}@{index}")


def test_a_file_that_is_not_there_is_wrong_usage(tmp_path):
    with pytest.raises(typer.BadParameter, match="nowhere"):
        read_document(str(tmp_path / "nowhere"))
