"""Parameters that nothing of recipe, calculator and program reads."""

import importlib.util
import re

import pytest
from ase.io.espresso_namelist.keys import ALL_KEYS
from ase.optimize import FIRE

from crystalmath.client import SubmissionWarning, in_process
from crystalmath.errors import JobRefused
from crystalmath.preflight.unread_parameters import check_unread
from crystalmath.recipes.arguments import argument_faults
from crystalmath.recipes.lookup import catalogue, family_of, look_up
from crystalmath.recipes.source import keys_of

AL = {"symbols": "Al", "cell": [3, 3, 3], "pbc": True}
RELAX = "emt.core.relax_job"
PW = "espresso.core.static_job"
GRID = "espresso.phonons.grid_phonon_flow"
INCAR = "ase.calculators.vasp.create_input"
#: The names of ASE's lists of tags, before `_keys`.
KINDS = ("float", "exp", "string", "int", "bool", "list_int", "list_bool", "list_float", "special")
LONG = 120
SLABS = "emt.slabs.bulk_to_slabs_flow"


def unread(recipe, parameters):
    return check_unread(look_up(f"quacc.recipes.{recipe}"), parameters)


#: A parameter that nothing reads, by its path: its value, and what may help.
UNREAD = [
    (RELAX, "fmax", 0.01, "it belongs into opt_params: opt_params.fmax"),
    (RELAX, "encut", 400, "leave it out"),
    (RELAX, "cutoff", True, "did you mean asap_cutoff?"),
    ("emt.md.md_job", "initial_temperature", 300, "did you mean temperature_K?"),
    ("lj.core.static_job", "sigm", 2, "did you mean sigma?"),
    (
        *(SLABS, "job_params.relax_job.fmax", 0.1),
        "it belongs into job_params.relax_job.opt_params: job_params.relax_job.opt_params.fmax",
    ),
    (
        *(SLABS, "job_params.all.fmax", 0.01),
        "it belongs into job_params.all.opt_params: job_params.all.opt_params.fmax",
    ),
    (PW, "fmax", 15, "leave it out"),
    (PW, "ecutwf", 15, "did you mean input_data.ecutwfc?"),
    # A keyword is looked for as it is written.
    (PW, "ECUTWFC", 15, "did you mean input_data.ecutwfc?"),
    (PW, "autorestart", True, "leave it out"),
    ("espresso.core.relax_job", "fmax", 0.01, "leave it out"),
    ("espresso.core.ase_relax_job", "fmax", 0.01, "it belongs into opt_params: opt_params.fmax"),
    ("espresso.phonons.phonon_job", "kpts", [1, 1, 1], "did you mean qpts?"),
    ("espresso.bands.fermi_surface_job", "foo", 1, "leave it out"),
    (PW, "input_data.ecutwf", 15, "did you mean input_data.ecutwfc?"),
    (PW, "input_data.fildyn", "x", "ph.x reads it, not pw.x; leave it out"),
    (PW, "input_data.systen", {"nbnd": 9}, "did you mean input_data.system?"),
    (PW, "input_data.system.ecutwf", 15, "did you mean input_data.system.ecutwfc?"),
    (PW, "input_data.system.calculation", "scf", "did you mean input_data.control.calculation?"),
    (
        *(PW, "input_data.Hubbard_U(1)", 2),
        "if pw.x is old enough to read it: input_data.system.Hubbard_U(1)",
    ),
    (
        *(GRID, "job_params.ph_job.input_data.inputpf", {}),
        "did you mean job_params.ph_job.input_data.inputph?",
    ),
]


def at(path, value):
    """Return parameters that have this one at that path."""
    for name in reversed(path.split(".")):
        value = {name: value}
    return value


@pytest.mark.parametrize(("recipe", "name", "value", "remedy"), UNREAD)
def test_where_it_may_belong(recipe, name, value, remedy):
    (finding,) = unread(recipe, at(name, value))
    asks = remedy.startswith(("did you mean", "it belongs into"))
    code = "parameter_misspelt" if asks else "parameter_unread"
    assert (finding.severity, finding.code) == ("warning", code)
    assert finding.source == f"the parameter {name}"
    assert f"nothing reads {'the parameter ' if 'input' not in name else ''}" in finding.message
    assert finding.remedy == remedy


@pytest.mark.parametrize(
    ("parameters", "place", "said"),
    [
        (
            {"ecutwfc": 60, "input_data": {"system": {"ecutwfc": 40}}},
            "input_data.system.ecutwfc",
            "pw.x gets ecutwfc = 60, not 40",
        ),
        (
            {"input_data": {"ecutrho": 200, "SYSTEM": {"ECUTRHO": 320}}},
            "input_data.SYSTEM.ECUTRHO",
            "pw.x gets input_data.ecutrho = 200, not 320",
        ),
    ],
)
def test_a_variable_that_is_given_twice_is_told_with_what_is_written(parameters, place, said):
    (finding,) = unread(PW, parameters)
    assert (finding.severity, finding.code) == ("warning", "parameter_unread")
    assert finding.source == f"the parameter {place}"
    assert said in finding.message
    assert finding.remedy == "give it once"


@pytest.mark.parametrize(
    ("recipe", "parameters"),
    [
        (PW, {"ecutwfc": 60, "input_data": {"system": {"ecutwfc": 60.0}}}),
        (PW, {"input_data": {"system": {"Hubbard_U(1)": 2, "Hubbard_U(2)": 3}}}),
        (RELAX, {"relax_cell": True, "opt_params": {"fmax": 0.1}, "asap_cutoff": True}),
        (RELAX, {"directory": "here"}),
        ("lj.core.relax_job", {"epsilon": 1, "sigma": 1, "rc": 3, "ro": 2, "smooth": True}),
        (SLABS, {"job_params": {"relax_job": {"relax_cell": True}}}),
        (SLABS, {"job_params": {"all": {"asap_cutoff": True}, "static_job": {}}}),
        # One job that reads it is enough.
        (SLABS, {"job_params": {"all": {"opt_params": {"fmax": 1}}}}),
        (SLABS, {"job_params": None}),
        ("vasp.core.static_job", {"encutt": 520}),  # asked elsewhere
        (PW, {"input_data": {"ECUTWFC": 15, "starting_magnetization(1)": 2, "IONS": {}}}),
        # Older releases of pw.x read these; cp.x's keys may stand in pw.x's namelists.
        (PW, {"input_data": {"system": {"Hubbard_U(1)": 2, "lda_plus_u": True}}}),
        (PW, {"input_data": {"electrons": {"emass": 400}}}),
        (PW, {"ecutwfc": 15, "conv_thr": 1e-8, "kspacing": 0.1, "koffset": 1}),
        (PW, {"crystal_coordinates": True, "additional_cards": "x", "rescale_magmom_fac": 2}),
        (PW, {"pseudopotentials": {"Al": "Al.upf"}, "profile": 3}),
        ("espresso.phonons.phonon_job", {"use_phcg": True, "nat_todo_indices": [1], "tr2_ph": 1}),
        ("espresso.phonons.q2r_job", {"copy_files": [], "input_data": {"input": {"zasr": "x"}}}),
        ("lj.core.relax_job", {"opt_params": {"relax_cell": True}}),
        ("espresso.core.ase_relax_job", {"opt_params": {"relax_cell": True}}),
        (RELAX, {"opt_params": {"optimizer": "LBFGS", "optimizer_kwargs": {"memory": 9}}}),
        (RELAX, {"opt_params": {"optimizer_kwargs": {"maxstep": 0.1, "logfile": None}}}),
        ("lj.core.freq_job", {"vib_kwargs": {"delta": 0.1, "nfree": 4, "indices": [0]}}),
        (SLABS, {"make_slabs_kwargs": {"max_index": 2, "in_unit_planes": True}}),
        ("emt.elastic.elastic_tensor_flow", {"deform_kwargs": {"symmetry": True}}),
        (GRID, {"job_params": {"ph_job": {"input_data": {"inputph": {"tr2_ph": 1e-8}}}}}),
        # ASE has no list of what these read.
        ("espresso.bands.fermi_surface_job", {"input_data": {"fermi": {"x": 1}, "y": 1}}),
        ("espresso.bands.bands_flow", {"job_params": {"bands_pw_job": {"line_density": 5}}}),
        (PW, {"input_data": [1]}),
        ("espresso.phonons.phonon_job", {"input_data": {"tr2_ph": 1e-10}}),
    ],
)
def test_what_is_read_is_not_told(recipe, parameters):
    assert unread(recipe, parameters) == []


MD = "emt.md.md_job"
COMPRESSED = "md_params.dynamics_kwargs.compressibility_au"


@pytest.mark.parametrize(
    ("parameters", "missing"),
    [
        ({"dynamics": "nvt"}, "temperature_K"),
        ({"dynamics": "NPT_MTK", "pressure_bar": 1, "temperature_K": None}, "temperature_K"),
        ({"dynamics": "npt_berendsen", "temperature_K": 300}, COMPRESSED),
        (
            {
                "dynamics": "npt_inhomogeneous",
                "md_params": {"dynamics_kwargs": {"temperature_K": 9}},
            },
            COMPRESSED,
        ),
    ],
)
def test_what_an_ensemble_wants_beside_its_name_is_named(parameters, missing):
    (finding,) = unread(MD, parameters)
    assert (finding.severity, finding.code) == ("error", "parameter_missing")
    assert finding.source == f"the parameter {missing}"
    assert repr(parameters["dynamics"]) in finding.message
    assert "give it, in " in finding.remedy


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"dynamics": "nve"},
        {"dynamics": "nvt_langevin", "temperature_K": 300},
        {"dynamics": "nvt", "md_params": {"dynamics_kwargs": {"temperature_K": 300}}},
        {
            "dynamics": "npt_berendsen",
            "temperature_K": 300,
            "md_params": {"dynamics_kwargs": {"compressibility_au": 1.2}},
        },
    ],
)
def test_an_ensemble_that_has_all_it_wants_passes(parameters):
    assert unread(MD, parameters) == []


#: A key that nobody takes, by its path: its value, what stands beside it, and what may help.
UNKNOWN = [
    (RELAX, "opt_params.fmx", 0.1, {}, "did you mean opt_params.fmax?"),
    (RELAX, "opt_params.encut", 4, {}, "leave it out"),
    ("emt.md.md_job", "md_params.step", 9, {}, "did you mean md_params.steps?"),
    (
        *(SLABS, "job_params.relax_job.opt_params.max_step", 3, {}),
        "did you mean job_params.relax_job.opt_params.max_steps?",
    ),
    (SLABS, "job_params.relx_job", {}, {}, "did you mean job_params.relax_job?"),
    (GRID, "job_params.no", 3, {"ph_job": {"input_data": {}}}, "leave it out"),
    (RELAX, "opt_params.relax_cell", True, {}, "give it as relax_cell"),
    ("emt.md.md_job", "md_params.dynamics", "x", {}, "give it as dynamics"),
    (
        *(RELAX, "opt_params.optimizer_kwargs.maxste", 1, {}),
        "did you mean opt_params.optimizer_kwargs.maxstep?",
    ),
    (RELAX, "opt_params.optimizer_kwargs.memory", 1, {"optimizer": FIRE}, "leave it out"),
    ("lj.core.freq_job", "vib_kwargs.delt", 1, {}, "did you mean vib_kwargs.delta?"),
    ("lj.core.freq_job", "vib_kwargs.name", "x", {}, "leave it out"),
    (SLABS, "make_slabs_kwargs.max_inde", 1, {}, "did you mean make_slabs_kwargs.max_index?"),
    (
        *("emt.elastic.elastic_tensor_flow", "deform_kwargs.symetry", True, {}),
        "did you mean deform_kwargs.symmetry?",
    ),
]


@pytest.mark.parametrize(("recipe", "name", "value", "beside", "remedy"), UNKNOWN)
def test_a_key_that_nobody_takes_is_refused(recipe, name, value, beside, remedy):
    parameters = at(name, value)
    parameters[name.partition(".")[0]] |= beside
    (finding,) = unread(recipe, parameters)
    assert (finding.severity, finding.code) == ("error", "parameter_unknown")
    assert finding.source == f"the parameter {name}"
    assert finding.remedy == remedy


@pytest.mark.parametrize(
    ("of_jobs", "said"),
    [
        ({"relax_job": {"asap_cutoff": "no"}}, "'asap_cutoff' must be true or false, not 'no'"),
        ({"static_job": {"additional_fields": 5}}, "'additional_fields' must be a table"),
        ({"all": {"relax_cell": "no"}}, "'relax_cell' .* must be true or false"),
    ],
)
def test_a_flows_job_is_looked_at_like_one_of_its_own(of_jobs, said):
    (finding,) = unread(SLABS, {"job_params": of_jobs})
    assert (finding.severity, finding.code) == ("error", "parameter_kind")
    assert finding.source == f"the parameter job_params.{next(iter(of_jobs))}"
    assert re.search(said, finding.message)


@pytest.mark.skipif(importlib.util.find_spec("tblite") is None, reason="tblite is not installed")
def test_tblite():
    assert unread("tblite.core.static_job", {"accuracy": 1.0, "method": "GFN2-xTB"}) == []
    (finding,) = unread("tblite.core.static_job", {"acuracy": 1.0})
    assert finding.remedy == "did you mean accuracy?"


def test_no_recipes_own_parameters_are_told():
    """All that its signature names, whatever quacc's recipes are called."""
    for recipe in catalogue():
        if recipe.signature is not None:
            found = check_unread(recipe, dict.fromkeys(recipe.signature.parameters))
            assert not [each for each in found if each.code != "parameter_missing"]


@pytest.mark.parametrize("of_jobs", [None, {}, {"ph_job": None}, {"ph_job": {"test_run": True}}])
def test_what_a_flow_looks_up_must_be_there(of_jobs):
    (finding,) = unread(GRID, {"job_params": of_jobs})
    assert (finding.severity, finding.code) == ("error", "parameter_missing")
    assert finding.source == "the parameter job_params.ph_job.input_data"


def test_a_misspelt_parameter_refuses_the_job_unless_that_is_lax(home):
    with in_process() as client:
        for parameters in ({"fmax": 0.01}, {"relax_cel": True}):
            given = (f"quacc.recipes.{RELAX}", AL, parameters)
            (finding,) = client.check(*given)
            assert (finding.severity, finding.code) == ("error", "parameter_misspelt")
            assert finding.remedy.endswith("lax (--lax) lets it pass")
            with pytest.raises(JobRefused, match=r"lax \(--lax\) lets it pass"):
                client.submit(*given)
            (passes,) = client.check(*given, lax=True)
            assert passes.severity == "warning"
            assert "--lax" not in str(passes)
            (strict,) = client.check(*given, lax=True, strict=True)
            assert strict.severity == "error"
        assert list(client.list()) == []
        with pytest.warns(SubmissionWarning, match="relax_cell"):
            job = client.submit(*given, lax=True)
        assert job.result(LONG)
        (refused,) = client.retry(job)
        assert "lax (--lax) lets it pass" in str(refused)
        with pytest.warns(SubmissionWarning, match="relax_cell"):
            (again,) = client.retry(job, lax=True)
        assert again.result(LONG)


def test_no_keyword_of_a_calculator_is_taken_for_a_misspelt_one():
    for recipe in catalogue():
        family = family_of(recipe.name)
        known = {
            "vasp": [key for kind in KINDS for key in keys_of(INCAR, f"{kind}_keys")],
            "espresso": [key for each in ALL_KEYS["pw"].values() for key in each],
        }.get(family, [])
        others = [key for key in known if key not in recipe.signature.parameters]
        found = argument_faults(recipe, dict.fromkeys(others), structure=True)
        assert [each for each in found if getattr(each, "code", "") == "parameter_misspelt"] == []


def test_a_key_of_a_namelist_that_a_newer_program_may_have_is_a_warning():
    for key, code in (("ecutwf", "parameter_misspelt"), ("ecutfock_x", "parameter_unread")):
        (finding,) = unread(PW, {"input_data": {"system": {key: 1}}})
        assert (finding.code, "did you mean" in finding.remedy) == (code, True)


def test_a_warning_of_a_job_and_a_refusal_where_that_is_wanted(home):
    with in_process() as client:
        given = (f"quacc.recipes.{RELAX}", AL, {"qqqqq": 0.01})
        (finding,) = client.check(*given)
        assert (finding.severity, finding.code) == ("warning", "parameter_unread")
        (strict,) = client.check(*given, strict=True)
        assert strict.severity == "error"
        with pytest.raises(JobRefused, match="'qqqqq'"):
            client.submit(*given, strict=True)
        (home / "config.toml").write_text("strict = true\n")
        with pytest.raises(JobRefused):
            client.submit(*given)
        assert list(client.list()) == []
        assert client.check(f"quacc.recipes.{RELAX}", AL) == []


def test_on_the_command_line(alone, home, cli):
    poscar = home / "Al.poscar"
    poscar.write_text("Al\n1.0\n3 0 0\n0 3 0\n0 0 3\nAl\n1\nDirect\n0 0 0\n")
    answer = cli("check", RELAX, poscar, "--param", "fmax=0.01", "--lax")
    assert (answer.code, "it belongs into opt_params" in answer.out) == (0, True)
    answer = cli("submit", RELAX, poscar, "--param", "relax_cel=true")
    assert (answer.code, "did you mean relax_cell? lax (--lax) lets it pass" in answer.err) == (
        1,
        True,
    )
    answer = cli("run", RELAX, poscar, "--param", "fmax=0.01", "--lax", "--strict")
    assert (answer.code, "it belongs into opt_params" in answer.err) == (1, True)
    answer = cli("check", RELAX, poscar, "--fmax", "0.01")
    assert answer.code == 2
    assert "No such option: --fmax; write a parameter of the recipe as" in answer.err
    assert "--param opt_params.fmax=0.01" in " ".join(answer.err.split())
    answer = cli("check", RELAX, poscar, "--param", "fmax", "0.01")
    assert "cannot read 'fmax'; write KEY=VALUE" in answer.err
    answer = cli("run", RELAX, poscar, "--param", "fmax", "0.01")
    assert "--param fmax=0.01" in " ".join(answer.err.split())
    for slip, value, option in (
        ("--lable", "a=b", "--label"),
        ("--walltme", "1h", "--walltime"),
        ("--priorty", "5", "--priority"),
        ("--wall-time", "1h", "--walltime"),
    ):
        answer = cli("submit", RELAX, poscar, slip, value)
        # The oldest Typer shows them as Python writes a tuple.
        told = " ".join(answer.err.split()).replace("('(", "(").replace(")',)", ")")
        assert answer.code == 2
        assert told.endswith(f"No such option: {slip} (Possible options: {option})")
    answer = cli("run", RELAX, poscar, "--opt_params.fmax", "0.01")
    assert "--param opt_params.fmax=0.01" in " ".join(answer.err.split())
    assert "Possible" not in answer.err
    answer = cli("run", RELAX, poscar, "--relax-cell=true")
    assert "--param relax_cell=true" in " ".join(answer.err.split())
    answer = cli("run", RELAX, poscar, "--relax-cell")
    assert "--param relax_cell=VALUE" in " ".join(answer.err.split())
    answer = cli("run", RELAX, poscar, "-p", "relax_cell=true")
    assert "--param relax_cell=true" in " ".join(answer.err.split())
    for arguments in (("check", "no.such", poscar, "--fmax", "1"), ("list", "--fmax", "1")):
        answer = cli(*arguments)
        assert (answer.code, "--param" in answer.err) == (2, False)
