"""Finding and checking VASP's pseudopotentials, on real directory trees."""

import importlib.util
import json
import os
import random
import re
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path
from threading import Thread
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commands import ran, restricted
from crystalmath.quacc.potcar import get_potcar_info, get_potcar_path, validate_potcars
from crystalmath.recipes.quacc_settings import potcars_of

FOREIGN = ("VASP_", "QUACC_", "ASE_", "CRYSTALMATH_")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A home of its own, no variable set, and no quacc imported."""
    for name in list(os.environ):
        if name.upper().startswith(FOREIGN):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    monkeypatch.delitem(sys.modules, "quacc", raising=False)
    return tmp_path / "home"


def library(root, *names, folder="potpaw_PBE.64"):
    for name in names:
        (root / folder / name).mkdir(parents=True)
        (root / folder / name / "POTCAR").write_text(f"PAW_PBE {name}\n")
    return root


@pytest.fixture
def pots(tmp_path, monkeypatch):
    root = library(tmp_path / "vasp" / "pots", "Al", "Si_sv", "O", "O_h")
    monkeypatch.setenv("VASP_PP_PATH", str(root))
    return root


def refused(elements, *words):
    valid, message = validate_potcars(elements)
    assert valid is False
    for word in words:
        assert str(word) in message
    assert message.isprintable()
    return message


# ---- what is there ----


def test_elements_and_variants_are_found(pots):
    assert validate_potcars({"Al", "Si", "O"}) == (True, None)


def test_no_elements_need_nothing():
    assert validate_potcars(set()) == (True, None)


def test_unset_path_names_the_variable_and_the_elements():
    refused({"Al", "O"}, "VASP_PP_PATH", "Al, O", "potpaw_PBE.64")


def test_an_empty_variable_is_an_unset_one(monkeypatch):
    monkeypatch.setenv("VASP_PP_PATH", "")
    refused({"Al"}, "VASP_PP_PATH is not set")
    assert get_potcar_path() is None


def test_all_missing_elements_are_named_at_once(pots):
    message = refused({"Al", "Cu", "Fe"}, "Cu, Fe", pots / "potpaw_PBE.64", "VASP_PP_PATH")
    assert "for Al" not in message


@pytest.mark.parametrize("there", ["Si", "Si_sv", "S.5", "SS", "s", "Sx_sv"])
def test_a_neighbour_in_the_alphabet_is_no_variant(tmp_path, monkeypatch, there):
    monkeypatch.setenv("VASP_PP_PATH", str(library(tmp_path / "pots", there)))
    refused({"S"}, "no POTCAR folder for S ")


def test_one_library_must_hold_them_all(pots):
    library(pots, "Cu", folder="potpaw_PBE.54")
    refused({"Al", "O", "Cu"}, "folder for Cu", "potpaw_PBE.54 lacks Al, O")
    library(pots, "Al", "O", folder="potpaw_PBE.54")
    assert validate_potcars({"Al", "O", "Cu"}) == (True, None)


def test_the_path_is_itself_a_library(pots, monkeypatch):
    monkeypatch.setenv("VASP_PP_PATH", str(pots / "potpaw_PBE.64"))
    refused({"Al"}, "point at the parent folder", f"VASP_PP_PATH = {pots}")


def test_datasets_without_a_library_around_them(tmp_path, monkeypatch):
    monkeypatch.setenv("VASP_PP_PATH", str(library(tmp_path, "Al", folder="mine") / "mine"))
    refused({"Al"}, "holds datasets itself", "potpaw_PBE.64")


def test_other_functionals_are_no_pbe_library(tmp_path, monkeypatch):
    monkeypatch.setenv("VASP_PP_PATH", str(library(tmp_path / "pots", "Al", folder="potpaw_LDA")))
    refused({"Al"}, "no PBE folder", tmp_path / "pots", "wanted for Al")


def test_what_is_no_folder(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name, words in {
        "file": "is not a folder",
        "link": "is a broken link",
        "loop": "cannot be reached",
        "nowhere": "does not exist",
        "file/below": "cannot be reached",
        "x" * 300: "cannot be reached",
    }.items():
        monkeypatch.setenv("VASP_PP_PATH", str(tmp_path / name))
        refused({"Al"}, words, tmp_path / name, "VASP_PP_PATH")
        assert get_potcar_info()["valid"] is False


def test_files_and_broken_links_are_no_datasets(pots):
    inside = pots / "potpaw_PBE.64"
    (inside / "Cu").touch()
    (inside / "Fe").symlink_to(inside / "gone")
    (inside / "Ni").symlink_to(inside / "Al")
    refused({"Cu", "Fe", "Ni"}, "folder for Cu, Fe in")
    (pots / "potpaw_PBE.64").rename(pots / "aside")
    (pots / "potpaw_PBE").symlink_to(pots / "gone")
    refused({"Al"}, "potpaw_PBE cannot be opened")


@pytest.mark.parametrize(
    "name",
    ["../x", "", "Si*", "S\u0456", "Al\x00", "\ud800", "al", "[A]l", ".", "A" * 10**4, None, 3],
)
def test_hostile_elements_are_answered(pots, name):
    refused({"Al", name}, "no chemical symbol", repr(name))


def test_names_no_terminal_can_show(tmp_path, monkeypatch):
    root = tmp_path / os.fsdecode(b"a\xff\nb")
    monkeypatch.setenv("VASP_PP_PATH", str(root))
    assert refused({"Al"}, "does not exist").encode()
    library(root, "Si")
    assert refused({"Al"}, "folder for Al").encode()


RESTRICTED = """
import json, os, sys
from pathlib import Path
from crystalmath.quacc.potcar import get_potcar_info, validate_potcars
root = Path(os.environ["VASP_PP_PATH"]); pbe = root / "potpaw_PBE.64"
answers = {}
for name, path, mode in [
    ("root closed", root, 0), ("root unlisted", root, 0o100), ("root unsearchable", root, 0o400),
    ("parent closed", root.parent, 0), ("library closed", pbe, 0), ("library unlisted", pbe, 0o100),
    ("dataset closed", pbe / "Al", 0), ("dataset unlisted", pbe / "Al", 0o100),
]:
    before = path.stat().st_mode
    path.chmod(mode)
    try:
        answers[name] = [validate_potcars({"Al"}), get_potcar_info()["valid"]]
    finally:
        path.chmod(before)
print(json.dumps(answers))
"""


def test_unreadable_folders(pots):
    done = ran(*restricted(), sys.executable, "-c", RESTRICTED, check=True, timeout=60)
    answers = json.loads(done.stdout)
    expected = {
        "root closed": "cannot be opened",
        "root unlisted": "cannot be listed",
        "root unsearchable": "cannot be opened",
        "parent closed": "cannot be reached: Permission denied",
        "library closed": "potpaw_PBE.64 cannot be opened",
        "library unlisted": "cannot be listed",
        "dataset closed": "no POTCAR folder for Al",
    }
    for name, words in expected.items():
        (valid, message), _ = answers.pop(name)
        assert not valid, name
        assert words in message, name
    assert answers == {"dataset unlisted": [[True, None], True]}


# ---- any tree ----

ELEMENTS = ["S", "Si", "Al", "O", "H", "He"]
ENTRIES = [*ELEMENTS, "Si_sv", "S_h", "O_s", "Al_sv_GW", "H.5", "SI", "Ssv", "He_", "_S", "notes"]
LIBRARIES = ["potpaw_PBE", "potpaw_PBE.64", "PBE", "PBE_54", "potpaw_LDA", "potpaw", "pbe", "aPBE"]
KINDS = ["folder", "folder", "folder", "file", "broken", "link"]
TREES = st.dictionaries(
    st.sampled_from(LIBRARIES),
    st.tuples(
        st.sampled_from(KINDS),
        st.dictionaries(st.sampled_from(ENTRIES), st.sampled_from(KINDS), max_size=12),
    ),
    max_size=4,
)


def grow(path, kind, aside):
    if kind == "file":
        path.touch()
    elif kind == "broken":
        path.symlink_to("gone")
    elif kind == "link":
        target = Path(tempfile.mkdtemp(dir=aside))
        path.symlink_to(target)
    else:
        path.mkdir()


@settings(max_examples=150, deadline=None)
@given(tree=TREES, elements=st.sets(st.sampled_from(ELEMENTS)))
def test_any_tree_against_its_description(tree, elements):
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        root, aside = Path(name, "pots"), Path(name)
        root.mkdir()
        for folder, (kind, entries) in tree.items():
            grow(root / folder, kind, aside)
            if kind in {"folder", "link"}:
                for entry, what in entries.items():
                    grow(root / folder / entry, what, aside)
        patch.setenv("VASP_PP_PATH", str(root))
        verdict, info = validate_potcars(elements), get_potcar_info()

    # The oracle reads the description: which element each entry stands for.
    real = {"folder", "link"}
    held = {
        folder: {entry.split("_")[0] for entry, what in entries.items() if what in real}
        for folder, (kind, entries) in tree.items()
        if kind in real and re.match("(potpaw_)?PBE", folder)
    }
    assert info["valid"] is bool(held)
    assert info["path"] == root
    assert info["source"] == "VASP_PP_PATH"
    for folder, (kind, entries) in tree.items():
        datasets = {entry for entry, what in entries.items() if what in real}
        count = len(datasets - {"SI", "Ssv", "_S", "notes"})
        wanted = count if kind in real else None
        if wanted == 0 and not folder.startswith(("potpaw", "PBE")):
            wanted = None
        assert info["functionals"].get(folder) == wanted
    if not elements or any(elements <= names for names in held.values()):
        assert verdict == (True, None)
    else:
        valid, message = verdict
        assert valid is False
        assert str(root) in message
        for element in elements.difference(*held.values()):
            assert re.search(rf"\b{element}\b", message)


@given(st.sets(st.text() | st.sampled_from(ELEMENTS) | st.from_regex("[A-Z][a-z]?_?.*")))
def test_any_element_set_is_answered(elements):
    valid, message = validate_potcars(elements)
    assert valid is (not elements)
    assert message is None or "VASP_PP_PATH" in message or "no chemical symbol" in message


# ---- where the path comes from ----


def test_highest_first(home, tmp_path, monkeypatch):
    def found():
        info = get_potcar_info()
        assert info["path"] == get_potcar_path()
        return str(info["path"]), info["source"]

    assert get_potcar_info() == {"path": None, "source": None, "valid": False, "functionals": {}}
    monkeypatch.setenv("VASP_PP_PATH", "~/plain")
    assert found() == (f"{home}/plain", "VASP_PP_PATH")
    (home / ".quacc.yaml").write_text("VASP_PP_PATH: ~/yaml\n")
    assert found() == (f"{home}/yaml", f"VASP_PP_PATH in {home}/.quacc.yaml")
    (tmp_path / "other.yaml").write_text("VASP_PP_PATH: /other\n")
    monkeypatch.setenv("QUACC_CONFIG_FILE", str(tmp_path / "other.yaml"))
    assert found() == ("/other", f"VASP_PP_PATH in {tmp_path}/other.yaml")
    monkeypatch.setenv("QUACC_VASP_PP_PATH", "/variable")
    assert found() == ("/variable", "QUACC_VASP_PP_PATH")
    quacc: Any = ModuleType("quacc")
    monkeypatch.setitem(sys.modules, "quacc", quacc)
    assert found()[0] == "/variable"  # a module without settings
    quacc.get_settings = lambda: SimpleNamespace(VASP_PP_PATH=Path("/new"))
    assert found() == ("/new", "quacc.get_settings().VASP_PP_PATH")
    assert potcars_of(os.environ).source == "QUACC_VASP_PP_PATH"
    config = home / ".config" / "ase" / "config.ini"
    config.parent.mkdir(parents=True)
    config.write_text("[environment]\nVASP_PP_PATH = /ase\n")
    assert found() == ("/ase", f"[environment] VASP_PP_PATH in {config}")
    (tmp_path / "ase.ini").write_text("[environment]\nvasp_pp_path = ~/elsewhere\n")
    monkeypatch.setenv("ASE_CONFIG_PATH", f"/gone.ini:{tmp_path / 'ase.ini'}")
    assert found() == ("~/elsewhere", f"[environment] VASP_PP_PATH in {tmp_path}/ase.ini")
    refused({"Al"}, "does not exist", "without '~'")


def test_where_quacc_says_none_the_variable_counts(monkeypatch):
    quacc = SimpleNamespace(get_settings=lambda: SimpleNamespace(VASP_PP_PATH=None))
    monkeypatch.setitem(sys.modules, "quacc", quacc)
    assert get_potcar_path() is None
    monkeypatch.setenv("VASP_PP_PATH", "/set/later")
    assert get_potcar_path() == Path("/set/later")


@pytest.mark.parametrize(
    "module",
    [
        None,
        ModuleType("quacc"),
        SimpleNamespace(get_settings=object),
        SimpleNamespace(get_settings=lambda: SimpleNamespace(VASP_PP_PATH=7)),
    ],
)
def test_a_module_that_is_not_quacc_hinders_nothing(pots, monkeypatch, module):
    monkeypatch.setitem(sys.modules, "quacc", module)
    assert get_potcar_path() == pots


def test_settings_that_cannot_be_made(pots, monkeypatch):
    def broken():
        raise ValueError("no such\nsetting")

    monkeypatch.setitem(sys.modules, "quacc", SimpleNamespace(get_settings=broken))
    refused({"Al"}, "quacc.get_settings()", "no such setting")


@pytest.mark.parametrize(
    "text",
    [
        "a: [",
        "# comment only",
        "- a\n",
        "VASP_PP_PATH: 12",
        "VASP_PP_PATH: [a]",
        "VASP_PP_PATH: ''",
        "VASP_PP_PATH: ~nobody.here/x",
        "a: 1\na: 2",
        "[" * 800,
        "\x01",
    ],
)
def test_settings_files_that_quacc_would_not_survive(pots, home, text):
    (home / ".quacc.yaml").write_text(text)
    refused({"Al"}, ".quacc.yaml", "VASP_PP_PATH there must name")
    assert get_potcar_info()["valid"] is False


def test_more_places_that_cannot_be_read(pots, home, monkeypatch):
    (home / ".quacc.yaml").write_text('VASP_PP_PATH: "/a\\0b"')
    refused({"Al"}, "cannot be reached", "'/a\\x00b'")
    (home / ".quacc.yaml").unlink()
    (home / ".quacc.yaml").mkdir()
    refused({"Al"}, ".quacc.yaml", "Is a directory")
    (home / ".quacc.yaml").rmdir()
    for text in ("VASP_PP_PATH\n", "[environment]\nVASP_PP_PATH = ${no:where}\n"):
        (home / "ase.ini").write_text(text)
        monkeypatch.setenv("ASE_CONFIG_PATH", str(home / "ase.ini"))
        refused({"Al"}, "ASE's configuration", "ase.ini")


# What quacc's and ASE's own modules make of an environment; importing all of quacc takes seconds.
ORACLE = """
import json, os, runpy, sys, warnings
warnings.simplefilter("ignore")
base = dict(os.environ)
def ask(environment, settings, config):
    os.environ.clear(); os.environ.update(base | environment)
    try:
        path = runpy.run_path(settings)["QuaccSettings"]().VASP_PP_PATH
        if path:  # as quacc.calculators.vasp.Vasp does
            os.environ["VASP_PP_PATH"] = str(path)
        cfg = runpy.run_path(config)["cfg"]
        return cfg["VASP_PP_PATH"] if "VASP_PP_PATH" in cfg else None
    except Exception as error:
        return {"error": repr(error)}
print(json.dumps([ask(case, *sys.argv[1:]) for case in json.load(sys.stdin)]))
"""


def test_a_fresh_process_agrees_with_quacc_and_ase(tmp_path, home):
    origin = importlib.util.find_spec("quacc")
    if origin is None:
        pytest.skip("quacc is not installed")
    yaml, ini = {}, {}
    values = ("~/yaml", "", "'none'", "$R/y", "1", "''")
    for i, text in enumerate(["", "a: [", "[]", *(f"VASP_PP_PATH: {value}" for value in values)]):
        yaml[text] = tmp_path / f"{i}.yaml"
        yaml[text].write_text(text)
    for i, value in enumerate(["/ase", "~/ase", "", "${R}"]):
        ini[value] = tmp_path / f"{i}.ini"
        ini[value].write_text(f"[environment]\nvasp_pp_path = {value}\n")
    unset = (None,)
    everything = [
        {name: str(value) for name, value in zip(NAMES, values, strict=True) if value is not None}
        for values in product(
            (*unset, "", "/v", "~/v", "$R/v", "None", "~nobody.here/v"),
            (*unset, "", "/q", "~/q", "${R}/q", "None", "null"),
            (*unset, *yaml.values()),
            (*unset, *unset, *unset, *ini.values()),
        )
    ]
    cases = [case | {"R": "/root of all"} for case in random.Random(0).sample(everything, 150)]
    cases += [
        {"quacc_vasp_pp_path": "/low"},
        {"QUACC_VASP_PP_PATH": "/a", "Quacc_VASP_pp_path": "b"},
    ]
    ase = importlib.util.find_spec("ase")
    modules = (
        Path(origin.origin).with_name("settings.py"),
        Path(ase.origin).with_name("config.py"),
    )
    command = (sys.executable, "-c", ORACLE, *modules)
    done = ran(*command, input=json.dumps(cases), check=True, timeout=120)
    for case, answer in zip(cases, json.loads(done.stdout), strict=True):
        where = potcars_of(case)
        if isinstance(answer, dict):  # quacc or ASE does not even start
            assert where.trouble or "ASE_CONFIG_PATH" in case, (case, answer)
        elif answer in (None, "", "."):  # an empty path is the job's own directory to quacc
            assert where.path is None, (case, answer)
        else:
            assert str(where.path) == answer, case


NAMES = ("VASP_PP_PATH", "QUACC_VASP_PP_PATH", "QUACC_CONFIG_FILE", "ASE_CONFIG_PATH")


def test_it_costs_no_import_of_quacc_ase_or_pymatgen(pots, home):
    (home / ".quacc.yaml").write_text("VASP_USE_CUSTODIAN: false\n")
    code = (
        "import sys, crystalmath.quacc.potcar as p\n"
        "assert p.validate_potcars({'Al'}) == (True, None)\n"
        "assert p.get_potcar_info()['functionals'] == {'potpaw_PBE.64': 4}\n"
        "assert not {'quacc', 'pymatgen', 'ase', 'numpy'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_threads_may_ask_at_once(pots):
    answers = []
    threads = [Thread(target=lambda: answers.append(validate_potcars({"Al"}))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [(True, None)] * 16
