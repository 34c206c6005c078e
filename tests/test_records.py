"""A submission and a job are declared once; what is written a second time agrees with that."""

import inspect
import json
import math
from pathlib import Path
from typing import Any

import attrs
import jsonschema
import pytest
from ase import Atoms
from ase.build import bulk, fcc111
from ase.constraints import FixAtoms
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Boolean, Float, Integer, Text

import crystalmath.models
from conftest import eventually
from crystalmath import client, config
from crystalmath.cli import build
from crystalmath.cli.shared.submission_options import make_submission
from crystalmath.client.request import document
from crystalmath.client.submitting import Submitter
from crystalmath.client.transport import Transport
from crystalmath.errors import InvalidJob
from crystalmath.models import (
    Attempt,
    Filters,
    Job,
    JobFilter,
    JobSpec,
    JobState,
    MapOptions,
    NewJob,
    Pseudopotential,
    Resources,
    ResourcesGiven,
    Submission,
    SubmissionOptions,
    Terms,
)
from crystalmath.models.checks import check_fields, checked
from crystalmath.models.fields import declared, from_wire, properties, to_wire
from crystalmath.models.filters import Selection, StoreSelection
from crystalmath.models.job_notes import NO_RESULT, UNFINISHED
from crystalmath.models.submission import CommonTerms, TermsGiven
from crystalmath.quacc import store
from crystalmath.recipes import ase_json, decoding, encoding
from crystalmath.recipes import structures as structures_module
from crystalmath.recipes.structures import parse_and_keep, to_ase_json
from crystalmath.server.handlers import METHODS
from crystalmath.server.handlers.submission import read_submission
from crystalmath.service import JobService
from crystalmath.store.fetching import from_row
from crystalmath.store.rows import to_row
from crystalmath.store.tables import jobs, specifications
from crystalmath.wire.schemas import SUBMISSION, components

RECORDS = [Terms, Submission, JobSpec, Job, NewJob, Resources]
TYPES = {"string": str, "integer": int, "number": float, "object": dict, "array": (list, tuple)}


def names(record):
    return {one.name for one in declared(record)}


# --- one declaration -----------------------------------------------------------------------------


@pytest.mark.parametrize("record", RECORDS)
def test_a_field_says_what_it_is(record):
    for one in declared(record):
        assert one.about.doc, one.name
        assert f"\n{one.name} : " in record.__doc__
        jsonschema.Draft7Validator.check_schema(one.about.schema)


@pytest.mark.parametrize("record", RECORDS)
def test_a_type_and_its_schema_agree(record):
    for one, attribute in zip(declared(record), attrs.fields(record), strict=True):
        schema, annotation = one.about.schema, str(attribute.type)
        optional = annotation.endswith("| None")
        assert optional == (not one.required and one.default is None), one.name
        if annotation == "JobState":
            assert schema["enum"] == [state.value for state in JobState]
        elif "type" in schema:
            written = {
                "string": ("str", "Path"),
                "integer": ("int",),
                "boolean": ("bool",),
                "number": ("float",),
                "object": ("Mapping", "Resources"),
                "array": ("Sequence",),
            }[schema["type"]]
            assert annotation.startswith(written), one.name


def test_what_is_the_same_in_two_records_is_declared_once():
    for record in RECORDS[1:]:
        for one in declared(record):
            if one.name in names(Submission):
                (asked,) = (known for known in declared(Submission) if known.name == one.name)
                assert one.about is asked.about or one.name == "environment", one.name


def test_a_promised_name_is_the_one_record():
    assert store.JobMetadata is Job is client.Job is crystalmath.models.Job
    assert attrs.has(store.JobMetadata)
    assert client.Submission is Submission


def test_what_makes_another_job():
    hashed = {one.name for one in declared(Submission) if one.about.hashed}
    assert hashed == {
        *("recipe", "engine", "cluster", "walltime_s", "resources", "atoms", "parameters"),
        "by_step",
    }
    spec = JobSpec(job_id="1", recipe="r", atoms=bulk("Al"), engine="e")
    plain = {"recipe": "r", "engine": "e", "cluster": "local", "walltime_s": None, "resources": {}}
    assert spec.identity() == plain
    asked = attrs.evolve(spec, resources={"ranks": 4})
    assert asked.identity() == {**plain, "resources": {"ranks": 4}}
    asked = attrs.evolve(spec, by_step={"a": {"cluster": "c"}})
    assert asked.identity() == {**plain, "by_step": {"a": {"cluster": "c"}}}


def test_an_engine_hears_the_terms():
    terms = {
        "cluster": "c",
        "walltime_s": 5.0,
        "resources": Resources(ranks=4, options={"constraint": "skylake"}),
        "priority": 7,
        "continue_lost": True,
        "parcel": 20,
        "name": "n",
        "labels": {"a": "b"},
        "key": "k",
    }
    assert terms.keys() == names(Terms)
    spec = JobSpec(job_id="1", recipe="r", atoms=bulk("Al"), **terms)
    header = json.loads(json.dumps(spec.header()))
    told = Attempt(id="1.1", job_id="1", directory=Path("/d"), **Terms.terms_in(header))
    assert {name: getattr(told, name) for name in terms} == terms
    assert told in {told: 1}
    # What is not said is at its default.
    assert Terms.terms_in({"cluster": "c", "walltime_s": None}) == {
        "cluster": "c",
        "resources": Resources(),
    }
    # One of a later release may say more.
    assert Terms.terms_in({"resources": {"ranks": 2, "bikes": 1}})["resources"].ranks == 2


# --- what is written a second time ---------------------------------------------------------------


def test_what_a_caller_may_write_is_what_a_submission_has():
    terms = names(Terms)
    assert TermsGiven.__annotations__.keys() == terms
    assert CommonTerms.__annotations__.keys() == terms - {"key"}
    more = {"engine", "strict", "lax", "after", "on_failure", "inherit_labels"}
    more |= {"in_one_job", "serial", "walltime_total_s", "by_step", "environment"}
    assert SubmissionOptions.__annotations__.keys() == terms | more
    assert MapOptions.__annotations__.keys() == (terms | more) - {"key"}
    assert ResourcesGiven.__annotations__.keys() == names(Resources)
    types = {one.name: one.type for one in attrs.fields(Submission)}
    types["resources"] = "Resources | ResourcesGiven"
    types["after"] = "Sequence[str | Mapping[str, Any] | HasJobId]"
    for name, written in SubmissionOptions.__annotations__.items():
        said = written.__forward_arg__
        assert said in {types[name], f"{types[name]} | None"}, name


def test_filters_are_declared_once():
    declared_there = names(JobFilter)
    assert Filters.__annotations__.keys() == declared_there
    assert Selection.__annotations__.keys() == declared_there - {"labels", "all_tries"} | {
        "label",
        "superseded",
    }
    only_inside = StoreSelection.__annotations__.keys() - Selection.__annotations__
    assert only_inside == {"seen", "errors", "owner", "ended_before", "pruned"}
    filters = METHODS["jobs.list"].params["properties"].items()
    schemas = METHODS["jobs.summary"].params["properties"]
    assert dict(filters) | schemas == dict(filters)
    excluded = {"exclude": {**properties(JobFilter)["exclude"], **schemas["exclude"]}}
    assert schemas == {**properties(JobFilter), **excluded}
    taken = {param.name: param for param in build("list").params}
    for one in declared(JobFilter):
        if one.about.option is not None:
            assert taken[one.name].opts == [one.about.option.name]


class Unreached(Transport):
    """Leads nowhere; nothing may be sent through it."""

    def close(self):
        pass


def test_submit_writes_out_every_field_of_a_submission():
    _, *arguments, unknown = inspect.signature(client.Client.submit).parameters.values()
    assert (unknown.name, unknown.kind) == ("unknown", inspect.Parameter.VAR_KEYWORD)
    positional = [one.name for one in arguments if one.kind is not inspect.Parameter.KEYWORD_ONLY]
    assert positional == ["recipe", "atoms", "parameters"]
    of_record = [one.name for one in attrs.fields(Submission)]
    options = [one for one in arguments if one.name not in positional]
    assert [one.name for one in options] == [one for one in of_record if one not in positional]
    assert {one.name: one.annotation for one in options} == {
        name: written.__forward_arg__ for name, written in SubmissionOptions.__annotations__.items()
    }
    defaults = {one.name: one.default for one in options}
    assert Submission(recipe="r", **defaults) == Submission(recipe="r")
    for one in attrs.fields(Submission):
        if one.name in defaults and not isinstance(one.default, attrs.Factory):
            assert defaults[one.name] == one.default, one.name


def test_submit_passes_every_argument_on(monkeypatch):
    submitted = []
    monkeypatch.setattr(Submitter, "submit", lambda _, submission: submitted.append(submission))
    given = {
        "cluster": "c", "walltime_s": 5.0, "resources": {"ranks": 2}, "priority": 3,
        "continue_lost": True, "parcel": 4, "name": "n", "labels": {"a": "b"}, "key": "k",
        "in_one_job": True, "serial": True, "walltime_total_s": 9.0,
        "by_step": {"relax_job": {"priority": 1}}, "engine": "e", "strict": True, "lax": True,
        "after": ["job"], "on_failure": "fail", "inherit_labels": True, "environment": {"A": "b"},
    }  # fmt: skip
    assert given.keys() == SubmissionOptions.__annotations__.keys()
    with client.Client(Unreached()) as asked:
        asked.submit("r", "a POSCAR", {"x": 1}, **given)
    assert submitted == [Submission(recipe="r", atoms="a POSCAR", parameters={"x": 1}, **given)]


def test_other_methods_take_the_options_of_submit():
    for name, options in {
        "check": "SubmissionOptions",
        "map": "MapOptions",
        "chain": "MapOptions",
        "recording": "MapOptions",
    }.items():
        method = inspect.signature(getattr(client.Client, name))
        assert method.parameters["options"].annotation == f"Unpack[{options}]"


def test_an_unknown_option_is_refused_with_a_hint():
    with client.Client(Unreached()) as asked:
        for method in (asked.submit, asked.check):
            with pytest.raises(TypeError, match=r"'walltime' is no option .* mean 'walltime_s'"):
                method("r", None, {}, walltime=5)


@pytest.mark.parametrize("name", ["run", "submit", "check"])
def test_a_command_takes_every_option(name):
    taken: dict[str, Any] = {param.name: param for param in build(name).params}
    for one in [*declared(Submission), *declared(Resources)]:
        if one.about.option is not None:
            param, option = taken[one.name], one.about.option
            told = "/".join([*param.opts, *param.secondary_opts])
            assert (told, param.help) == (option.name, option.help)
    assert taken["options"].opts == ["--scheduler-option"]


def test_options_make_a_submission():
    given = {"engine": "e", "cluster": "c", "walltime_s": 5.0, "labels": {"a": "b"}, "key": "k"}
    made = make_submission("r", ("Al", "a POSCAR"), {"x": 1}, given)
    assert (made.recipe, made.parameters, made.name) == ("r", {"x": 1}, "Al")
    assert {name: getattr(made, name) for name in given} == given
    named = make_submission("r", ("Al", "a POSCAR"), {}, {"name": "n"})
    assert named.name == "n"


def test_a_row_has_what_a_job_has():
    stored = {one.name: one for one in declared(Job) if one.about.stored}
    assert {column.name for column in jobs.c} - {"number"} == stored.keys()
    assert names(NewJob) - names(Job) == {"specification", "pseudopotentials", "only_retry"}
    assert {column.name for column in specifications.c} == {"number", "specification", "potcars"}
    for name, one in stored.items():
        kinds = {"integer": Integer, "number": Float, "boolean": Boolean}
        kind = kinds.get(one.about.schema.get("type"), Text)
        assert isinstance(jobs.c[name].type, kind), name
        assert jobs.c[name].nullable == (one.default is None and not _must_be_there(one)), name


def _must_be_there(one):
    return one.required or one.name == "spec_hash"


def test_schemas_are_those_of_the_records():
    assert properties(Submission) == SUBMISSION
    assert METHODS["jobs.submit"].params["properties"] == SUBMISSION
    checked_too = METHODS["jobs.check"].params["properties"]
    assert checked_too.keys() - SUBMISSION.keys() == {"inputs"}
    assert SUBMISSION.items() <= checked_too.items()
    assert METHODS["jobs.submit"].params["required"] == ["recipe"]
    assert components()["Job"]["properties"] == properties(Job, answer=True)
    for name, record in (
        ("Finding", crystalmath.models.Finding),
        ("Potcar", Pseudopotential),
        ("Inputs", crystalmath.models.Inputs),
        ("StepInputs", crystalmath.models.StepInputs),
        ("Setting", crystalmath.models.Setting),
        ("Preset", crystalmath.models.Preset),
    ):
        assert components()[name]["properties"].keys() == record.__annotations__.keys()


# --- over the wire and back ----------------------------------------------------------------------

titles = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=255)
shorts = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=9)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=9)
label_sets = st.dictionaries(titles, shorts, max_size=3)
# hypothesis draws constants of the code, too: what is tagged with @module is no plain JSON, `$job`
# begins a reference, and the folder that `prev_dir` or `prev_outdir` names is sent as a whole path.
keys = texts.filter(lambda text: not text.startswith(("@", "$job", "prev_")))
walltimes = st.floats(min_value=0, exclude_min=True, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts | walltimes,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=5,
)  # fmt: skip
counts = st.none() | st.integers(1, 1_000_000)
resources = st.builds(
    Resources,
    ranks=counts,
    cores_per_rank=counts,
    gpus_per_rank=counts | st.just(0),
    memory_mb=counts,
    queue=st.none() | titles,
    account=st.none() | titles,
    reservation=st.none() | titles,
    options=st.dictionaries(st.sampled_from(["constraint", "exclusive"]), shorts),
)
terms = st.fixed_dictionaries(
    {},
    optional={
        "engine": titles,
        "cluster": titles,
        "walltime_s": walltimes,
        "resources": resources,
        "priority": st.integers(-1000, 1000),
        "parcel": st.integers(1, 1000),
        "name": titles,
        "labels": label_sets,
        "key": titles,
    },
)


@settings(max_examples=60, deadline=None)
@given(terms, st.dictionaries(keys, json_values, max_size=3))
def test_a_submission_comes_out_as_it_went_in(options, parameters):
    atoms = bulk("Al")
    asked = Submission(recipe="emt.core.static_job", atoms=atoms, parameters=parameters, **options)
    sent = json.loads(
        json.dumps(
            document(
                asked, config.Config(home=Path("/h"), database_url="sqlite:////h/d"), {"A": "b"}
            )
        )
    )
    jsonschema.validate(sent, {"properties": SUBMISSION})
    read = read_submission(checked(sent, METHODS["jobs.submit"].params))
    assert read == attrs.evolve(
        asked,
        recipe="quacc.recipes.emt.core.static_job",
        atoms=to_ase_json(atoms),
        environment={"A": "b"},
    )


records = st.builds(
    Job,
    job_id=titles,
    recipe=titles,
    engine=titles,
    cluster=titles,
    name=st.none() | titles,
    labels=label_sets,
    key=st.none() | titles,
    walltime_s=st.none() | walltimes,
    resources=resources,
    priority=st.integers(-1000, 1000),
    parcel=st.none() | st.integers(1, 1000),
    state=st.sampled_from(JobState),
    error=st.none() | texts,
    reason=st.none() | texts,
    formula=st.none() | texts,
    attempt=st.integers(1, 9),
    revision=st.integers(0, 9),
    created_at=walltimes,
    started_at=st.none() | walltimes,
    finished_at=st.none() | walltimes,
    cancel_requested_at=st.none() | walltimes,
    warnings=st.just([]) | st.just([{"severity": "warning", "code": "c", "message": "m"}]),
    parents=st.just([]) | st.just([{"job_id": "1", "role": "structure", "frame": 0}]),
)


@settings(max_examples=60, deadline=None)
@given(records)
def test_a_job_comes_out_as_it_went_in(job):
    told = attrs.evolve(job, work_dir=Path("/w"), log=Path("/l"))
    sent = json.loads(json.dumps(told.document()))
    unanswered = {name for name, schema in properties(Job, answer=True).items() if name not in sent}
    assert unanswered == set()
    shape = {**components()["Job"], "components": {"schemas": components()}}
    jsonschema.Draft7Validator(shape).validate({**sent, "warnings": []})
    summary = dict.fromkeys(("energy_ev", "max_force_ev_ang", "formula", "work_dir"))
    completed = job.state is JobState.COMPLETED
    assert Job.read(sent) == attrs.evolve(told, summary=summary if completed else None)
    stored = attrs.evolve(job, spec_hash="h", owner={"pid": 1}, traceback="t")
    assert Job(**from_row(to_row(stored))) == stored


def test_the_names_of_the_wire_are_translated_in_one_place():
    renamed = {one.name: one.wire for one in declared(Submission) if one.wire != one.name}
    assert renamed == {"atoms": "structure", "parameters": "params"}
    renamed = {one.name: one.wire for one in declared(Job) if one.wire != one.name}
    assert renamed == {"state": "status", "summary": "result"}
    asked = Submission(recipe="r", atoms="s", parameters={"a": 1}, walltime_s=2.0)
    assert Submission(**from_wire(Submission, to_wire(asked))) == asked


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("walltime_s", -1, r"'walltime_s' must be a number above 0, not -1"),
        ("walltime_s", math.nan, r"'walltime_s' must be a number above 0, not nan"),
        ("walltime_s", 10**400, r"'walltime_s' must be a smaller number than 1000"),
        ("walltime_s", True, r"'walltime_s' must be a number above 0, not True"),
        ("priority", 1001, r"'priority' must be a whole number from -1000 to 1000, not 1001"),
        ("parcel", 0, r"'parcel' must be a whole number from 1 to 1000, not 0"),
        ("priority", 1.5, r"'priority' must be a whole number .*, not 1\.5"),
        ("resources", {"ranks": 0}, r"'resources\.ranks' must be a whole number from 1 .* not 0"),
        ("resources", {"gpus_per_rank": -1}, r"'resources\.gpus_per_rank' must be .* not -1"),
        ("resources", {"memory_mb": "4GB"}, r"'resources\.memory_mb' must be a whole .* '4GB'"),
        ("resources", {"queue": "a\n"}, r"'resources\.queue' must be a text of 1 to 255 printable"),
        ("resources", {"options": {"--x": ""}}, r"a name in .*options' must be the name of an op"),
        ("resources", {"nodes": 2, "ranks": 3}, r"3 ranks cannot be spread evenly over 2 nodes"),
        ("resources", {"ranks_per_node": 2, "ranks": 3}, r"3 ranks do not fill nodes with 2 ranks"),
        (
            "resources",
            {"nodes": 2, "ranks": 8, "ranks_per_node": 2},
            r"8 ranks are not 2 nodes with 2 ranks each, which are 4; give two of",
        ),
        ("key", "", r"'key' must be a text of 1 to 255 printable .* not ''"),
        ("name", "a\nb", r"'name' must be a text of 1 to 255 printable .* not 'a\\nb'"),
        ("name", "n" * 256, r"'name' must be a text of 1 to 255 printable .* not 'nnn"),
        ("labels", {"a": 1}, r"'labels\.a' must be a text of at most 1000 printable"),
        ("labels", {1: "a"}, r"a name in 'labels' must be a text of 1 to 255 printable"),
        ("parameters", [], r"'params' must be an object, not \[\]"),
        ("environment", {"A=B": "x"}, r"a name in 'environment' must be the name of an envir"),
        ("environment", {"A": "secret\0"}, r"'environment\.A' must be a string .* not this one"),
        ("environment", {"A": 7}, r"'environment\.A' must be a string without NUL, not int"),
        ("environment", "secret", r"'environment' must be an object, not this one"),
        ("engine", 5, r"'engine' must be a string that is not empty, not 5"),
    ],
)
def test_one_check_and_one_message_wherever_a_value_comes_in(field, value, said):
    asked = Submission(recipe="r", atoms="s", **{field: value})
    with pytest.raises(InvalidJob, match=said):
        check_fields(asked, {field})


# --- a structure on its way ----------------------------------------------------------------------


def structures():
    slab = fcc111("Cu", (2, 2, 2), vacuum=8.0)
    slab.set_constraint(FixAtoms([0, 3]))
    slab.info = {"note": "a", "n": [1, 2.5], "table": slab.positions}
    magnetic = bulk("Fe", cubic=True)
    magnetic.set_initial_magnetic_moments([2.0, -2.0])
    magnetic.set_tags([1, 2])
    moving = Atoms("H2", [[0, 0, 0], [0, 0, 0.74]], momenta=[[0, 0, 1], [0, 0, -1]])
    return {"slab": slab, "magnetic": magnetic, "moving": moving}


@pytest.mark.parametrize("atoms", structures().values(), ids=structures().keys())
def test_what_our_client_encoded_is_kept_as_it_came(atoms, monkeypatch):
    sent = json.loads(json.dumps(to_ase_json(atoms)))
    calls = []
    monkeypatch.setattr("crystalmath.recipes.structures.encode_atoms", calls.append)
    read, kept = parse_and_keep(sent)
    assert (read, calls) == (atoms, [])
    assert kept is sent["data"]
    monkeypatch.undo()
    again = ase_json.encode_atoms(read, info=True)
    assert json.dumps(kept, sort_keys=True) == json.dumps(again, sort_keys=True)


def test_the_service_decodes_a_structure_once_and_encodes_it_never(home, lab, monkeypatch):
    done = []

    def counted(module, name):
        real = getattr(module, name)

        def call(*given, **more):
            done.append(name)
            return real(*given, **more)

        monkeypatch.setattr(module, name, call)

    counted(structures_module, "encode_atoms")
    counted(structures_module, "decode_atoms")
    counted(encoding, "encode_atoms")
    counted(decoding, "decode_atoms")
    atoms = structures()["slab"]
    asked = Submission(recipe="lab_recipes.value", atoms=atoms, parameters={"number": 1})
    sent = json.loads(json.dumps(document(asked, config.load(), {"PATH": "/bin"})))
    assert done == ["encode_atoms"]
    done.clear()
    with JobService() as service:
        job = service.submit(read_submission(sent))
        assert done == ["decode_atoms"]
        body = service.specification(job.job_id).partition("\n")[2]
        spec = service.config.jobs_directory / job.job_id / "spec"
        eventually(spec.exists)
        assert spec.read_text().endswith(body)
    assert json.loads(body)["atoms"]["data"] == sent["structure"]["data"]


def _other(data, name):
    if name == "integers among the positions":
        shape, dtype, items = data["positions"]["__ndarray__"]
        data["positions"] = {"__ndarray__": [shape, dtype, [0, *items[1:]]]}
    elif name == "single precision":
        shape, _, items = data["positions"]["__ndarray__"]
        data["positions"] = {"__ndarray__": [shape, "float32", items]}
    elif name == "plain lists":
        data["numbers"] = data["numbers"]["__ndarray__"][2]
    elif name == "a cell object":
        data["cell"] = {"__ase_objtype__": "cell", "array": data["cell"]}
    elif name == "no constraints":
        data["constraints"] = []
    elif name == "a displaced cell":
        data["celldisp"] = {"__ndarray__": [[3], "float64", [0.0, 0.0, 0.0]]}
    return data


@pytest.mark.parametrize(
    "name",
    [
        "integers among the positions",
        "single precision",
        "plain lists",
        "a cell object",
        "no constraints",
        "a displaced cell",
    ],
)
def test_another_spelling_of_a_structure_makes_no_other_job(name):
    data = json.loads(json.dumps(to_ase_json(bulk("Al"))["data"]))
    atoms, kept = parse_and_keep({"format": "ase-json", "data": _other(dict(data), name)})
    assert atoms == bulk("Al")
    assert json.dumps(kept, sort_keys=True) == json.dumps(data, sort_keys=True)


def test_no_labels_are_empty_labels():
    assert Submission(recipe="lab.value", atoms=None, labels=None).labels == {}


def test_a_state_that_ends_a_job_has_a_word_for_it():
    words = [state.ended for state in JobState if state.is_terminal()]
    assert not [word for word in words if word.startswith("ended as")]
    assert len(set(words)) == len(words)
    assert {*NO_RESULT, JobState.COMPLETED, *UNFINISHED} == set(JobState)
