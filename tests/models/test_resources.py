"""What a job asks of the machine: refused, or told to its programs; never ignored."""

import re

import pytest
import typer
from attrs import evolve

from crystalmath import config
from crystalmath.cli.shared.parameter_options import parse_memory, parse_scheduler_options
from crystalmath.cli.submit import parse_resource_sweep, split_sweeps
from crystalmath.engines.allotment import PARALLEL_COMMANDS, filled, job_environment
from crystalmath.engines.local import LocalRunner
from crystalmath.errors import InvalidJob, JobRefused, KeyConflict
from crystalmath.models import EngineSettings, JobSpec, Resources
from crystalmath.models.cluster import read_cluster
from crystalmath.models.fields import declared
from crystalmath.preflight.commands import check_asked_ranks
from crystalmath.service import JobService
from ends import AL, completed, finish, lab_job

COMMANDS = [f"QUACC_{name}" for name in PARALLEL_COMMANDS]
STATIC = "quacc.recipes.vasp.core.static_job"


@pytest.fixture
def service(home, lab, monkeypatch):
    monkeypatch.setattr(LocalRunner, "cores", lambda *_: 4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with JobService() as service:
        yield service


def asked(resources, recipe="where", **more):
    return lab_job(recipe, resources=resources, **more)


def environment(service, resources):
    job = finish(service, service.submit(asked(resources)).job_id)
    assert job.resources == Resources(**resources)
    return completed(service, job)["environment"]


# --- every resource is seen, or refused ----------------------------------------------------------

REFUSED = {
    "nodes": 2,
    "ranks_per_node": None,  # decides the ranks, and is seen in them
    "gpus_per_rank": 1,
    "memory_mb": 4096,
    "queue": "long",
    "account": "alloys",
    "reservation": "monday",
    "options": {"constraint": "skylake"},
}
SEEN = {
    "ranks": (3, "QUACC_VASP_PARALLEL_CMD", "mpirun -np 3"),
    "ranks_per_node": (2, "QUACC_VASP_PARALLEL_CMD", "mpirun -np 2"),
    "cores_per_rank": (4, "OMP_NUM_THREADS", "4"),
}


def test_every_resource_is_gone_through():
    assert REFUSED.keys() | SEEN.keys() == {one.name for one in declared(Resources)}


@pytest.mark.parametrize("name", [name for name, value in REFUSED.items() if value])
def test_what_this_host_cannot_honour_is_refused(service, name):
    (option,) = (one.about.option.name for one in declared(Resources) if one.name == name)
    said = rf"the engine 'local' on its cluster 'local' cannot honour '{name}' \(.*{option}, or"
    with pytest.raises(InvalidJob, match=said):
        service.submit(asked({name: REFUSED[name]}))
    (finding,) = service.check(asked({name: REFUSED[name]})).errors
    assert re.search(said, finding.message)
    assert service.jobs() == []


@pytest.mark.parametrize("name", SEEN)
def test_what_this_host_can_honour_reaches_the_job(service, name):
    value, variable, text = SEEN[name]
    assert environment(service, {name: value})[variable] == text


def test_one_rank_on_one_node_is_what_every_engine_gives(service):
    given = {"nodes": 1, "ranks": 1, "ranks_per_node": 1, "gpus_per_rank": 0}
    seen = environment(service, given)
    assert not {*COMMANDS} & seen.keys()


@pytest.mark.parametrize("given", [{"ranks": 5}, {"ranks": 2, "cores_per_rank": 3}])
def test_more_cores_than_there_are_are_refused(service, given):
    with pytest.raises(InvalidJob, match=r"a node of it has 4, not [56]; ask for fewer with --r"):
        service.submit(asked(given))


def test_ranks_that_do_not_fit_are_refused(service):
    with pytest.raises(InvalidJob, match="3 ranks cannot be spread evenly over 2 nodes"):
        service.submit(asked({"ranks": 3, "nodes": 2}))


def test_other_resources_make_another_job(service):
    first = service.submit(asked({"ranks": 2}, "value", key="k"))
    assert service.submit(asked({"ranks": 2}, "value", key="k")).job_id == first.job_id
    with pytest.raises(KeyConflict):
        service.submit(asked({"ranks": 3}, "value", key="k"))
    with pytest.raises(KeyConflict):
        service.submit(asked({}, "value", key="k"))


# --- launchers -----------------------------------------------------------------------------------


def test_quacc_has_these_parallel_commands():
    settings = pytest.importorskip("quacc.settings").QuaccSettings.model_fields
    assert {name for name in settings if name.endswith("_PARALLEL_CMD")} == set(PARALLEL_COMMANDS)


def test_a_template_is_filled_in():
    template = "srun -N {nodes} -n {ranks} -c {cores_per_rank} -r {ranks_per_node} ${HOME} {x}"
    resources = Resources(ranks=64, ranks_per_node=16, cores_per_rank=2)
    assert filled(template, resources) == "srun -N 4 -n 64 -c 2 -r 16 ${HOME} {x}"
    assert filled("-N {nodes} -n {ranks}", Resources(nodes=3)) == "-N 3 -n 3"


def test_a_cluster_s_launcher_starts_one_rank_too(home):
    told = job_environment(Resources(), {}, "srun -n {ranks}")
    assert {told[name] for name in COMMANDS} == {"srun -n 1"}
    assert job_environment(Resources(), {"A": "b"}) == {"A": "b"}


def test_ranks_of_one_host_are_not_bound(home):
    told = job_environment(Resources(ranks=2), {"PRTE_MCA_hwloc_default_binding_policy": "core"})
    assert told["OMPI_MCA_hwloc_base_binding_policy"] == "none"
    assert told["PRTE_MCA_hwloc_default_binding_policy"] == "core"
    assert not [name for name in job_environment(Resources(ranks=2), {}, "srun") if "MCA" in name]


@pytest.mark.parametrize(
    ("own", "told"),
    [
        ("", "mpirun -np 8"),
        ("srun -n 4", "srun -n 4"),
        ("mpiexec -n {ranks} --verbose", "mpiexec -n 8 --verbose"),
        ('["srun -n {ranks}", "-nk {nodes}"]', '["srun -n 8", "-nk 1"]'),
    ],
)
def test_what_the_user_has_set_stays(home, own, told):
    environ = {"quacc_espresso_parallel_cmd": own, "OMP_NUM_THREADS": "3"}
    made = job_environment(Resources(ranks=8, cores_per_rank=2), environ)
    seen = [value for name, value in made.items() if name.upper() == COMMANDS[1]]
    assert (seen, made["OMP_NUM_THREADS"]) == ([told], "3")


def test_what_the_settings_file_says_stays(home, tmp_path):
    (tmp_path / "quacc.yaml").write_text(
        'VASP_PARALLEL_CMD: srun -n 4\nESPRESSO_PARALLEL_CMD: ["srun -n {ranks}", "-nk 2"]\n'
    )
    environ = {"QUACC_CONFIG_FILE": str(tmp_path / "quacc.yaml")}
    told = job_environment(Resources(ranks=8), environ)
    assert "QUACC_VASP_PARALLEL_CMD" not in told
    assert told["QUACC_ESPRESSO_PARALLEL_CMD"] == '["srun -n 8", "-nk 2"]'
    assert told["QUACC_AIMS_PARALLEL_CMD"] == "mpirun -np 8"


@pytest.mark.parametrize(
    ("recipe", "own", "found"),
    [
        (STATIC, {"QUACC_VASP_PARALLEL_CMD": "mpirun -np 4"}, [("error", "ranks_contradicted")]),
        (STATIC, {"QUACC_VASP_PARALLEL_CMD": "my-launcher"}, [("warning", "ranks_unsure")]),
        (STATIC, {"QUACC_VASP_PARALLEL_CMD": "mpirun -np 8"}, []),
        (STATIC, {"QUACC_VASP_PARALLEL_CMD": "mpirun -np {ranks}"}, []),
        (STATIC, {"QUACC_ESPRESSO_PARALLEL_CMD": "mpirun -np 4"}, []),
        (STATIC, {}, []),
        (STATIC, {"OMP_NUM_THREADS": "1"}, [("warning", "threads_differ")]),
        ("mylab.f", {"QUACC_AIMS_PARALLEL_CMD": "srun -n 4"}, [("warning", "ranks_contradicted")]),
        ("quacc.recipes.aims.core.static_job", {}, []),
        ("quacc.recipes.emt.core.static_job", {}, [("warning", "ranks_unused")]),
    ],
)
def test_a_command_of_the_user_s_own_is_held_against_the_ranks(home, recipe, own, found):
    resources = Resources(ranks=8, cores_per_rank=2)
    told = check_asked_ranks(recipe, {}, own, resources)
    assert [(each.severity, each.code) for each in told] == found
    assert all(each.remedy for each in told)
    assert check_asked_ranks(recipe, {}, own, Resources()) == []


@pytest.mark.parametrize(
    ("own", "found"),
    [
        ("srun --ntasks-per-node 4", []),
        ("srun -N 2 --ntasks-per-node=4", []),
        ("srun -N 1 -n 8", []),
        ("srun --ntasks-per-node 8", ["ranks_contradicted"]),
        ("srun -N 1 --ntasks-per-node 4", ["ranks_contradicted"]),
        ("srun -N 4 --ntasks-per-node 2", ["ranks_unsure"]),
    ],
)
def test_ranks_on_each_of_the_nodes_count_on_all_of_them(home, own, found):
    resources = Resources(nodes=2, ranks_per_node=4)
    told = check_asked_ranks(STATIC, {}, {"QUACC_VASP_PARALLEL_CMD": own}, resources)
    assert [each.code for each in told] == found


def test_a_contradiction_refuses_the_job(service):
    own = {"PATH": "/bin", "QUACC_AIMS_PARALLEL_CMD": "mpirun -np 4"}
    aims = "quacc.recipes.aims.core.static_job"  # is not asked which files it reads
    submission = evolve(asked({"ranks": 2}), recipe=aims, environment=own)
    said = "asks for 2 ranks, but QUACC_AIMS_PARALLEL_CMD = mpirun -np 4 starts 4"
    with pytest.raises(JobRefused, match=said):
        service.submit(submission)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"kpar": 3}, "kpar = 3 does not divide the 8 ranks"),
        ({"KPAR": 2, "NCORE": 3}, "NCORE = 3 does not divide the 4 ranks of each k-point"),
        ({"npar": 5}, "npar = 5 does not divide the 8 ranks"),
        ({"kpar": 2, "ncore": 4}, None),
        ({"kpar": "many", "ncore": 0}, None),
        ({}, None),
    ],
)
def test_tags_of_vasp_that_do_not_divide_the_ranks(home, given, said):
    found = check_asked_ranks(STATIC, given, {}, Resources(ranks=8))
    assert [each.message.partition(": ")[0] for each in found] == ([said] if said else [])
    assert all(each.severity == "warning" for each in found)


def test_ranks_of_a_cluster_are_held_against_the_program_too(home):
    eight = Resources(ranks=8)

    def found(environment, asked, recipe=STATIC, **given):
        told = check_asked_ranks(recipe, given, environment, asked, eight)
        return [(each.severity, each.code) for each in told]

    assert found({}, Resources(), kpar=3) == [("warning", "ranks_undivided")]
    assert found({}, Resources(ranks=9), kpar=3) == []
    own = {"QUACC_VASP_PARALLEL_CMD": "mpirun -np 4"}
    # It may be meant so; who asks for ranks contradicts himself.
    assert found(own, Resources()) == [("warning", "ranks_contradicted")]
    assert found(own, Resources(ranks=2)) == [("error", "ranks_contradicted")]
    assert found(own, Resources(ranks=4)) == []
    (told,) = check_asked_ranks(STATIC, {}, own, Resources(), eight)
    assert told.message.startswith("the job's cluster sets 8 ranks, but QUACC_VASP_PARALLEL")
    # Jobs that use none of them run on such a cluster, too.
    assert found({}, Resources(), "quacc.recipes.emt.core.static_job") == []


# --- a cluster's defaults ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ({}, {"nodes": 2, "ranks_per_node": 16}),
        ({"ranks": 64}, {"ranks": 64, "ranks_per_node": 16}),
        ({"ranks": 32}, {"nodes": 2, "ranks": 32, "ranks_per_node": 16}),
        ({"ranks": 8}, {"ranks": 8}),
        ({"nodes": 4}, {"nodes": 4, "ranks_per_node": 16}),
        ({"nodes": 1, "ranks": 4}, {"nodes": 1, "ranks": 4}),
    ],
)
def test_a_cluster_s_defaults_give_way(given, made):
    rest = {"queue": "short", "options": {"constraint": "skylake"}}
    defaults = Resources(nodes=2, ranks_per_node=16, **rest)
    assert Resources(**given).over(defaults) == Resources(**made, **rest)
    own = Resources(queue="long", options={"exclusive": ""}, **given).over(defaults)
    assert own.queue == "long"
    assert own.options == {"constraint": "skylake", "exclusive": ""}


def test_a_home_that_is_narrowed_takes_none(home, lab):
    (home / "config.toml").write_text('[restricted]\n"lab_recipes.value" = ["number"]\n')
    with (
        JobService(config.load()) as service,
        pytest.raises(InvalidJob, match="takes no resources from a submission"),
    ):
        service.submit(asked({"ranks": 2}, "value"))


# --- a cluster's launcher ------------------------------------------------------------------------


class Sixty(LocalRunner):
    def clusters(self):
        return ["local", "sixty"]

    def cores(self, cluster):
        return 60


def test_a_cluster_s_launcher_and_defaults_reach_the_job(home):
    table = {"engine": "local", "launcher": "srun -n {ranks} -c {cores_per_rank}", "ranks": 4}
    settings = EngineSettings(
        name="local", home=home, clusters={"sixty": read_cluster("sixty", table)}
    )
    runner = Sixty(settings)
    spec = JobSpec(job_id="1", recipe="r", atoms=AL, cluster="sixty", resources={"ranks": 8})
    assert runner.allotted(spec).environment[COMMANDS[0]] == "srun -n 8 -c 1"
    assert runner.allotted(evolve(spec, resources=None)).environment[COMMANDS[0]] == (
        "srun -n 4 -c 1"
    )
    with pytest.raises(InvalidJob, match="a node of it has 60, not 80"):
        runner.allotted(evolve(spec, resources={"cores_per_rank": 20}))


# --- on the command line -------------------------------------------------------------------------


def test_sweeps_of_resources_are_told_from_those_of_parameters(home, lab):
    sweeps = ["ranks=16,32", "number=[1,2]", "resources.nodes=1,2", "opt.ranks=[1]", "cores=2"]
    resources, parameters = split_sweeps(sweeps, "lab_recipes.value")
    assert resources == ["ranks=16,32", "resources.nodes=1,2", "cores=2"]
    assert parameters == ["number=[1,2]", "opt.ranks=[1]"]
    # A recipe's own parameter goes before a resource of that name.
    assert split_sweeps(["ranks=[1]", "resources.ranks=2"], "lab_recipes.with_ranks") == (
        ["resources.ranks=2"],
        ["ranks=[1]"],
    )


def test_a_sweep_of_a_resource_is_read():
    read = parse_resource_sweep("memory=[4GB, 512MB]", ())
    assert read == [("memory", "memory_mb", "4GB", 4096), ("memory", "memory_mb", "512MB", 512)]
    assert parse_resource_sweep("resources.queue=a,b", ())[1] == ("queue", "queue", "b", "b")


@pytest.mark.parametrize(
    ("text", "given", "said"),
    [
        ("ranks=0", (), "'0' in 'ranks=0' must be a whole number of at least 1"),
        ("ranks=2,x", (), "'x' in"),
        ("ranks=2,2", (), "each once"),
        ("ranks=", (), "takes values"),
        ("resources.rank=2", (), "there is no resource 'rank'"),
        ("memory=4XB", (), "cannot read '4XB' as an amount of memory"),
        ("cores=2", ["cores_per_rank"], "is swept, and also set for all jobs"),
    ],
)
def test_a_sweep_of_a_resource_that_cannot_be_read(text, given, said):
    with pytest.raises(typer.BadParameter, match=said):
        parse_resource_sweep(text, given)


@pytest.mark.parametrize(
    ("text", "megabytes"), [("4GB", 4096), ("512", 512), ("1.5 g", 1536), ("2TiB", 2 * 1024**2)]
)
def test_memory(text, megabytes):
    assert parse_memory(text) == megabytes


@pytest.mark.parametrize("text", ["", "4GX", "-1GB", "0", "100K", "1.5", "GB"])
def test_memory_that_cannot_be_read(text):
    with pytest.raises(typer.BadParameter, match=r"as an amount of memory|whole number of MB"):
        parse_memory(text)


def test_a_small_amount_of_memory_needs_a_unit():
    with pytest.raises(typer.BadParameter, match=r"'4' has no unit.*write 4GB or 4MB"):
        parse_memory("4")
    assert parse_memory("4MB") == 4


def test_options_of_a_scheduler():
    assert parse_scheduler_options(["a=b=c", "exclusive"]) == {"a": "b=c", "exclusive": ""}
    for texts in (["--a=b"], ["=b"], ["a=1", "a=2"]):
        with pytest.raises(typer.BadParameter):
            parse_scheduler_options(texts)


def test_a_sweep_of_ranks_on_the_command_line(home, lab, cli, tmp_path):
    AL.write(tmp_path / "Al.poscar", format="vasp")
    swept = ["--sweep", "ranks=1,2", "--sweep", "number=[1,2]", "--cores", "1"]
    try:
        done = cli("submit", "lab_recipes.value", tmp_path / "Al.poscar", *swept)
        assert done.code == 0, done.err
        listed = cli("list", "--json").json["jobs"]
        assert sorted((job["labels"]["ranks"], job["resources"]["ranks"]) for job in listed) == [
            ("1", 1), ("1", 1), ("2", 2), ("2", 2)
        ]  # fmt: skip
        assert {job["resources"]["cores_per_rank"] for job in listed} == {1}
        assert "RESOURCES" in cli("list").out
        told = cli("status", listed[0]["job_id"]).out
        assert re.search(r"resources +ranks=2, cores_per_rank=1", told)
    finally:
        cli("stop", "--cancel")
