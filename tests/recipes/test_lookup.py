"""Recipes by their source, with nothing imported."""

import importlib
import inspect
import itertools
import sys
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crystalmath.errors import InvalidJob
from crystalmath.recipes import lookup
from crystalmath.recipes.arguments import check_arguments, structure_taken, structures_argument
from crystalmath.server.parameter_schemas import parameters_schema

EMT = "quacc.recipes.emt.core.relax_job"
_names = itertools.count()


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """Write a package of the test's own; its name is given back."""
    monkeypatch.syspath_prepend(str(tmp_path))
    name = f"mylab{next(_names)}"

    def make(**modules):
        (tmp_path / name).mkdir(exist_ok=True)
        for module, source in ({"__init__": ""} | modules).items():
            (tmp_path / name / f"{module}.py").write_text(textwrap.dedent(source))
        return name

    yield make
    assert not [module for module in sys.modules if module.startswith(name)]


@pytest.mark.parametrize("name", [EMT, "quacc.recipes.a", "quacc.recipes._base.run", "mylab.x"])
def test_permitted(name):
    lookup.check_name(name, ["mylab"])


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "quacc.recipes",
        "quacc.recipes.",
        "quacc.recipesx.f",
        ".quacc.recipes.f",
        "quacc.recipes..f",
        "quacc.recipes.f ",
        " quacc.recipes.f",
        "quacc.recipes.f\n",
        "quacc.recipes.emt.core.__dict__",
        "quacc.recipes.emt.__class__.x",
        "quacc.recipes.a-b",
        "quacc.recipes.1a",
        "quacc.recipes.a.import",
        "quacc.recipes.\u0435mt.core.relax_job",
        "\uff51uacc.recipes.f",
        "quacc.recipes.\ufb01",
        "quacc.recipes.a" + "a" * 300,
        "",
        "f",
        "mylabx.f",
        "mylab",
        "mylab.",
        "quacc.recipes:f",
        "quacc/recipes/f",
        None,
        7,
        b"quacc.recipes.f",
        [EMT],
    ],
)
def test_not_permitted(name):
    with pytest.raises(InvalidJob, match="not permitted"):
        lookup.check_name(name, ["mylab", ""])
    with pytest.raises(InvalidJob, match="not permitted"):
        lookup.look_up(name, ["mylab", ""])
    with pytest.raises(InvalidJob, match="not permitted"):
        lookup.resolve(name, ["mylab", ""])


def test_a_shortened_name_is_told_its_full_form():
    with pytest.raises(InvalidJob, match=f"is not permitted: .* write {EMT}$"):
        lookup.check_name("emt.core.relax_job")
    with pytest.raises(InvalidJob, match="not permitted: .* CRYSTALMATH_RECIPES"):
        lookup.check_name("os.system")


@given(
    st.one_of(st.text(), st.text("quac.reips_ 1é\u0435", max_size=20).map("quacc.recipes.".__add__))
)
def test_a_name_is_an_ascii_path_below_the_namespace_or_refused(name):
    refusal = None
    try:
        lookup.check_name(name)
    except InvalidJob as error:
        refusal = str(error)
    else:
        assert name.isascii()
        assert name.startswith("quacc.recipes.")
        assert all(part.isidentifier() and part[:2] != "__" for part in name.split("."))
    assert refusal is None or "not permitted" in refusal


def test_the_namespace_may_be_left_out():
    assert lookup.full_name("emt.core.relax_job") == EMT
    assert lookup.full_name(EMT) == EMT
    assert lookup.full_name("mylab.f", ["mylab"]) == "mylab.f"
    assert lookup.full_name("mylab", ["mylab"]) == "mylab"
    assert lookup.full_name("mylabx.f", ["mylab"]) == "quacc.recipes.mylabx.f"


def test_the_names_of_the_catalogue():
    names = [recipe.name for recipe in lookup.catalogue()]
    assert EMT in names
    # quacc 1.8.1 has 34 of them, 1.8.2 has 35.
    assert sum(".vasp." in name for name in names) >= 34
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("quacc.recipes.emt.core.relx_job", "did you mean relax_job"),
        ("quacc.recipes.emt.cor.relax_job", "no module 'cor'; did you mean core"),
        ("quacc.recipes.emt.core", "not callable: it is a module"),
        ("quacc.recipes.emt.core.TYPE_CHECKING", "not callable"),
        ("quacc.recipes.emt.core.relax_job.func", "not a package"),
        ("nowhere7.f", r"nowhere7 is not installed .* PYTHONPATH; a running server .* stop"),
    ],
)
def test_what_is_not_there(name, message):
    with pytest.raises(InvalidJob, match=message):
        lookup.look_up(name, ["nowhere7"])


NO_RECIPES = ["job", "EMT", "Runner", "Summarize", "annotations", "TYPE_CHECKING"]


@pytest.mark.parametrize("name", NO_RECIPES)
def test_what_a_module_of_quacc_imports_is_no_recipe(name):
    with pytest.raises(InvalidJob, match="is no recipe|is not callable"):
        lookup.look_up(f"quacc.recipes.emt.core.{name}")
    with pytest.raises(InvalidJob, match="is no recipe|is not callable"):
        lookup.resolve(f"quacc.recipes.emt.core.{name}")


def test_of_quaccs_names_exactly_those_of_the_catalogue_are_recipes():
    """Imported and private names, decorators, classes and helpers are not, and nor are aliases."""
    names = {recipe.name for recipe in lookup.catalogue()}
    assert len(names) > 100
    found, others = set(), 0
    for module_name in lookup._module_names("quacc.recipes"):
        for binding in lookup._module(module_name, module_name).bindings:
            try:
                found.add(lookup.look_up(f"{module_name}.{binding}").name)
            except InvalidJob:
                others += 1
    assert found == names
    assert others > 300


def test_what_a_module_of_ones_own_imports_from_elsewhere_is_no_recipe(lab):
    name = lab(
        work="from os import system\nfrom .other import mine\nfrom quacc import job\n"
        "from quacc.recipes.emt.core import relax_job, EMT\n",
        other="def mine(atoms): ...\n",
    )
    for function in ("mine", "relax_job"):
        assert lookup.look_up(f"{name}.work.{function}", [name]).signature is not None
    for function in ("system", "job", "EMT"):
        with pytest.raises(InvalidJob, match="is no recipe: .* only imports it"):
            lookup.look_up(f"{name}.work.{function}", [name])


def test_an_admitted_namespace_that_is_not_there_says_why(lab):
    lookup.check_namespace(lab(work=""))
    with pytest.raises(InvalidJob, match=r"below nowhere7\.x: .* nowhere7 is not installed"):
        lookup.check_namespace("nowhere7.x")


def test_a_missing_quacc_says_what_to_install(monkeypatch):
    monkeypatch.setattr(sys, "meta_path", [])
    with pytest.raises(InvalidJob, match=r'pip install "crystalmath\[quacc\]"'):
        lookup.look_up(EMT)
    assert list(lookup.catalogue()) == []


SOURCE = '''
import os
import quacc as q
from functools import partial, wraps
from quacc import job as quick, flow
from typing import TYPE_CHECKING
from .other import helper, number
from . import other
if TYPE_CHECKING:
    from somewhere import Ghost

LIMIT = 5
NAMES = ["a"]

def plain(atoms, /, a, b=2, *rest, c, d={}, **more):
    """Say
    what."""

@quick
def one(structure, steps=3): ...

@q.flow(name="x")
def two(atoms): ...

@wraps(plain)
def wrapped(*args): ...

@os.path.job
def foreign(atoms): ...

async def later(atoms): ...

class Tool:
    """A class."""

made = partial(plain, 1)
small = lambda atoms, x=1: None
first, second = plain, one

try:
    from missing import maybe
except ImportError:
    maybe = None

if LIMIT:
    def depends(atoms, a): ...
else:
    def depends(atoms, b): ...

if LIMIT:
    def only(atoms, a): ...

def gone(atoms): ...
del gone

def _private(atoms): ...
'''


@pytest.fixture
def mine(lab):
    return lab(work=SOURCE, other="number = 3\ndef helper(atoms, speed): ...\n")


def test_what_a_module_defines(mine):
    def find(name):
        return lookup.look_up(f"{mine}.work.{name}", [mine])

    assert str(find("plain").signature) == "(atoms, /, a, b=2, *rest, c, d={}, **more)"
    assert find("plain").docstring == "Say\nwhat."
    assert find("plain").kind is None
    assert (find("one").kind, str(find("one").signature)) == ("job", "(structure, steps=3)")
    assert (find("two").kind, str(find("two").signature)) == ("flow", "(atoms)")
    assert find("helper").file.endswith("other.py")
    assert str(find("helper").signature) == "(atoms, speed)"
    assert str(find("small").signature) == "(atoms, x=1)"
    assert str(find("only").signature) == "(atoms, a)"
    for name in ("wrapped", "foreign", "Tool", "made", "first", "second", "maybe", "depends"):
        assert find(name).signature is None, name
    for name in ("LIMIT", "NAMES", "os", "number", "later"):
        with pytest.raises(InvalidJob, match="not callable"):
            find(name)
    for name in ("Ghost", "gone", "nothing"):
        with pytest.raises(InvalidJob, match="no function"):
            find(name)


def test_the_catalogue_of_a_namespace_of_ones_own(mine):
    names = [
        item.name.rpartition(".")[2]
        for item in lookup.catalogue([mine])
        if item.name.startswith(mine)
    ]
    assert names == ["helper", "plain", "one", "two", "wrapped", "foreign", "depends", "only"]


@pytest.mark.parametrize(
    "source",
    ["from os.path import *", "def __getattr__(name): ...", "globals().update(f=print)"],
)
def test_what_the_source_cannot_tell_is_let_through(lab, source):
    name = lab(work=source)
    found = lookup.look_up(f"{name}.work.f", [name])
    assert found.signature is None
    check_arguments(found, {"anything": 1})
    with pytest.raises(InvalidJob, match="structure itself"):
        check_arguments(found, {"atoms": 1})


def test_a_module_that_cannot_be_parsed_names_the_line(lab):
    name = lab(work="x = 1\ndef f(:\n", fine="def g(atoms): ...")
    with pytest.raises(InvalidJob, match=r"work\.py:2"):
        lookup.look_up(f"{name}.work.f", [name])
    assert f"{name}.fine.g" in [item.name for item in lookup.catalogue([name])]


def test_a_recipe_that_was_mended_is_read_again(lab):
    name = lab(work="def f(atoms, a): ...")
    assert str(lookup.look_up(f"{name}.work.f", [name]).signature) == "(atoms, a)"
    lab(work="def f(atoms, longer): ...", new="def g(atoms): ...")
    assert str(lookup.look_up(f"{name}.work.f", [name]).signature) == "(atoms, longer)"
    lookup.look_up(f"{name}.new.g", [name])


def recipe(text):
    function = eval(f"lambda {text}: None")
    return lookup.Recipe(name="x.f", file="f.py", line=1, signature=inspect.signature(function))


@pytest.mark.parametrize(
    ("signature", "parameters"),
    [
        ("atoms", {}),
        ("atoms, a", {"a": 1}),
        ("atoms, a=1, *, b", {"b": 1}),
        ("atoms, **more", {"x": 1, "y": 2}),
        ("*args", {}),
        ("structure, atoms=None", {"atoms": 1}),
        ("atoms, /, a=1", {"a": 1}),
    ],
)
def test_arguments_that_fit(signature, parameters):
    assert check_arguments(recipe(signature), parameters) == []


FLAGS = """
def f(
    atoms,
    flag: bool = False,
    maybe: bool | None = None,
    old: t.Optional[bool] = None,
    quoted: "bool | None" = None,
    either: bool | str = False,
    words: "on or off" = False,
    free=False,
): ...

def g(atoms, relax_cell: bool = False, *, preset=None, **calc_kwargs): ...
"""


def test_text_is_no_flag(lab):
    name = lab(work=FLAGS)
    found = lookup.look_up(f"{name}.work.f", [name])
    for key in ("flag", "maybe", "old", "quoted"):
        assert check_arguments(found, {key: False}) == []
        with pytest.raises(InvalidJob, match=f"'{key}' of .* must be true or false, not .* 'no'"):
            check_arguments(found, {key: "no"})
    assert check_arguments(found, dict.fromkeys(("either", "words", "free"), "no")) == []


def test_what_looks_like_a_slip_is_told(lab):
    name = lab(work=FLAGS)
    found = lookup.look_up(f"{name}.work.g", [name])
    assert check_arguments(found, {"relax_cell": True, "prec": "Accurate", "fmax": 1}) == []
    (finding,) = check_arguments(found, {"relax_cel": True})
    assert (finding.severity, finding.code) == ("warning", "parameter_misspelt")
    said = "no parameter 'relax_cel'; it goes into calc_kwargs; did you mean 'relax_cell'?"
    assert said in finding.message


@pytest.mark.parametrize(
    ("signature", "parameters", "message"),
    [
        ("atoms, fmax=1", {"fmx": 1}, "no parameter 'fmx'; did you mean fmax"),
        ("atoms, a", {}, "needs the parameter 'a'"),
        ("atoms, a, /", {"a": 1}, "no parameter 'a'"),
        ("atoms, *, b", {}, "needs the parameter 'b'"),
        ("structure", {"structure": 1}, "'structure' is the structure itself"),
        ("atoms, **more", {"atoms": 1}, "structure itself"),
        ("", {}, "takes no structure; leave it out"),
        ("*, a", {"a": 1}, "takes no structure; its arguments begin with 'a'"),
        ("atoms, **more", {1: 1}, "no string"),
    ],
)
def test_arguments_that_do_not_fit(signature, parameters, message):
    with pytest.raises(InvalidJob, match=message):
        check_arguments(recipe(signature), parameters)


@pytest.mark.parametrize(
    ("signature", "taken"),
    [
        ("atoms", "required"),
        ("slab: Atoms", "required"),
        ("structure, number=1", "required"),
        ("atoms: Atoms | None = None", "optional"),
        ("atoms: dict = {}", "optional"),
        ("number=1", "optional"),
        ("*some", "optional"),
        ("", "none"),
        ("*, atoms", "none"),
        ("number: int = 1", "none"),
        ("path: Path | str", "none"),
        ("copy_files: CopyFiles | None = None", "none"),
        ("table: dict[str, Any]", "none"),
        ("files: Optional[list[str]] = None", "none"),
        ("kind: 'Literal[\"a\"]'", "none"),
        ("images: list[Atoms]", "none"),
        ("images: 'Sequence[ase.Atoms]'", "none"),
        ("images: list[Atoms] | Atoms", "required"),
        ("first: 'in words'", "required"),
    ],
)
def test_whether_a_recipe_takes_a_structure(lab, signature, taken):
    name = lab(first=f"def f({signature}): ...\n")
    found = lookup.look_up(f"{name}.first.f", [name])
    assert structure_taken(found) == taken
    if taken == "required":
        with pytest.raises(InvalidJob, match="needs a structure, its first argument"):
            check_arguments(found, {}, structure=False)
    elif taken == "optional":
        assert check_arguments(found, {}) == check_arguments(found, {}, structure=False) == []


def test_those_of_quacc_that_take_a_list_of_structures():
    found = {each.name for each in lookup.catalogue() if structures_argument(each) is not None}
    assert found == {f"quacc.recipes.torchsim.core.{job}_job" for job in ("md", "relax", "static")}


def test_those_of_quacc_that_take_no_structure():
    """The dozen that go on from another calculation's files, of which each has a parameter."""
    without = {
        found.name.rpartition(".")[2]: parameters_schema(found)
        for found in lookup.catalogue()
        if structure_taken(found) != "required" and structures_argument(found) is None
    }
    assert sorted(without) == [
        *("bands_pp_job", "dos_job", "dvscf_q2r_job", "fermi_surface_job", "grid_phonon_flow"),
        *("matdyn_job", "phonon_dos_flow", "phonon_job", "post_processing_job", "postahc_job"),
        *("projwfc_job", "q2r_job"),
    ]
    assert all("copy_files" in schema["properties"] for schema in without.values())


@pytest.mark.parametrize(
    ("annotation", "schema"),
    [
        ("Literal['a', 1, None]", {"enum": ["a", 1, None]}),
        ("Literal[Color.RED]", {}),
        ("Literal[b'x']", {}),
        ("Literal[Color.RED] | None", {}),
    ],
)
def test_a_literal_as_json_has_it(lab, annotation, schema):
    name = lab(colors=f"def paint(atoms, color: {annotation}): ...\n")
    found = parameters_schema(lookup.look_up(f"{name}.colors.paint", [name]))
    assert found["properties"]["color"] == {**schema, "x-annotation": annotation}


def test_resolving_imports(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "mylabr.py").write_text("def f(atoms): return 7\nx = 3\n")
    importlib.invalidate_caches()
    try:
        assert lookup.resolve("mylabr.f", ["mylabr"])(None) == 7
        with pytest.raises(InvalidJob, match="not callable"):
            lookup.resolve("mylabr.x", ["mylabr"])
        with pytest.raises(InvalidJob, match="no recipe 'g'"):
            lookup.resolve("mylabr.g", ["mylabr"])
    finally:
        sys.modules.pop("mylabr", None)
    with pytest.raises(ModuleNotFoundError):
        lookup.resolve("nowhere7.f", ["nowhere7"])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("phonon", "did you mean .*emt.phonons.phonon_flow"),
        ("vasp.relax", "did you mean vasp.core.relax_job or vasp.slabs.relax_job"),
        ("relax_job", r"did you mean \w+.\w+.relax_job or"),
        ("emt.core.phonon", "did you mean .*emt.phonons.phonon_flow"),
        ("vasp.slab", "did you mean slabs"),
        ("xyzzy", "has no function 'xyzzy'$"),
        ("vasp.x", "has no function 'x'$"),
        ("mylab.recipes.my_job", r'allow = \["mylab.recipes"\] in config.toml, or CRYSTALMATH_R'),
        ("vaps.core.relax_job", "has no module 'vaps'; did you mean vasp"),
        ("EMT.core.relax_job", "has no module 'EMT'; did you mean emt"),
    ],
)
def test_a_mistyped_group_is_answered_with_what_may_be_meant(name, said):
    with pytest.raises(InvalidJob, match=said):
        lookup.look_up(f"quacc.recipes.{name}")
