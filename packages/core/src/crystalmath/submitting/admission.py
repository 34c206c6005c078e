"""What a submission must pass before it becomes a job. Nothing is changed on the way."""

from __future__ import annotations

import contextlib
import difflib
import json
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

from attrs import asdict, evolve, frozen

from crystalmath.errors import (
    MISSPELT,
    BadFile,
    CrystalMathError,
    InvalidJob,
    JobRefused,
    fault,
)
from crystalmath.jobs import outdirs
from crystalmath.models import Finding, JobSpec, NewJob, Pseudopotential, Resources, Submission
from crystalmath.models.checks import check_fields
from crystalmath.models.fields import declared
from crystalmath.models.job_notes import written_findings
from crystalmath.models.resources import check_resources
from crystalmath.models.written import timespan_text
from crystalmath.reading.flow_steps import taken_over
from crystalmath.recipes import codec
from crystalmath.recipes.arguments import argument_faults, check_arguments, structures_argument
from crystalmath.recipes.job_structure import geometry_of, references_in
from crystalmath.recipes.lookup import look_up
from crystalmath.recipes.required_packages import check_packages
from crystalmath.recipes.source_folders import check_sources, run_folders, sources
from crystalmath.recipes.structures import parse_and_keep, parse_structure
from crystalmath.recipes.unread_parameters import check_unread, job_faults
from crystalmath.submitting.asked_job import (
    OWN,
    AskedJob,
    SubmissionReader,
    check_restrictions,
    defaulted,
    replaced,
    terms_of,
)
from crystalmath.submitting.checked_commands import CheckedCommands, unless_set_there, unless_there
from crystalmath.submitting.flow_terms import (
    by_step_faults,
    first_pass,
    runs_on_cluster,
    terms_by_step,
)
from crystalmath.submitting.going_on import with_continuation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from crystalmath.config import Config
    from crystalmath.models.inputs import FlowCheck, Inputs
    from crystalmath.models.job_notes import Parent
    from crystalmath.quacc.engine import EngineRunner
    from crystalmath.recipes.lookup import Recipe
    from crystalmath.submitting.references import References

    _Look: TypeAlias = Callable[[AskedJob], list[Finding]]

_Found = TypeVar("_Found")
#: How long what was found of a job holds for equal ones, in seconds.
HOLDS_S = 1.0
#: What of a submission is no structure and no environment.
_VALUES = {one.name for one in declared(Submission)} - {"atoms", "environment"}


@frozen(kw_only=True)
class Checked:
    """What was found of a submission, whether or not it would become a job.

    `environment` has the names of the variables that the job would see of its submitter's.
    """

    findings: tuple[Finding, ...] = ()
    pseudopotentials: tuple[Pseudopotential, ...] = ()
    environment: tuple[str, ...] = ()
    inputs: Inputs | None = None
    flow: FlowCheck | None = None
    #: The folders that it would copy, to run in, and how large each copy is, in bytes.
    copies: tuple[tuple[str, int], ...] = ()

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Those that refuse the job."""
        return tuple(finding for finding in self.findings if finding.severity == "error")


@frozen
class Prepared:
    """A submission that has passed: its row, and what its engine is to be told."""

    row: NewJob
    spec: JobSpec
    document: str
    runner: EngineRunner


class _Findings(list[Finding]):
    """What is found by checks one after the other."""

    def passes(
        self, check: Callable[[], Iterable[Finding | InvalidJob] | None], place: str | None = None
    ) -> bool:
        """Add what a check finds, or raises, and return whether it finds no error of its own."""
        fits = True
        try:
            for found in check() or ():
                fits &= isinstance(found, Finding)
                self.append(found if isinstance(found, Finding) else fault(found, place))
        except (CrystalMathError, ImportError) as error:
            self.append(fault(error, place))
            return False
        return fits


class Admission:
    """Check submissions, and make them ready to be recorded; one for each batch.

    `environ` is the environment of submissions that bring none. What was found of a job holds for
    equal ones that follow, also in the next batches where these come within `HOLDS_S`. So does, for
    another structure, what was found of its terms and parameters.
    """

    def __init__(
        self,
        configured: Config,
        runner_of: Callable[[str], EngineRunner],
        environ: Mapping[str, str],
        references: References,
    ) -> None:
        self._config = configured
        self._runner_of = runner_of
        self._references = references
        self._reader = SubmissionReader(configured, environ, references.with_ids)
        # Of a batch all have mostly the same.
        self._environments: list[Mapping[str, str]] = []
        self._recipes: dict[str, Recipe] = {}
        self._commands = CheckedCommands()
        self._prepared: tuple[AskedJob, Prepared] | None = None
        # What was found of terms and parameters, by the checks' names, and of which job.
        self._found: tuple[AskedJob | None, dict[str, object]] = (None, {})
        self._ends = time.monotonic() + HOLDS_S

    def for_next(self, configured: Config, references: References) -> bool:
        """Return whether it holds for the next batch, and take up what that refers to."""
        if configured != self._config or time.monotonic() > self._ends:
            return False
        self._references = references
        self._reader.refer(references.with_ids)
        return True

    def check(self, submission: Submission, *, inputs: bool = False) -> Checked:
        """Return all that is wrong with a submission."""
        findings = _Findings()
        passes = findings.passes
        passes(lambda: check_restrictions(submission, self._config))
        try:
            submission = self._together(submission)
        except InvalidJob as error:
            return Checked(findings=(*findings, fault(error, "structure")))
        has_structure = submission.atoms is not None
        can_be_called = passes(
            lambda: self._recipe_faults(submission, has_structure=has_structure), "recipe"
        )
        for name in sorted(_VALUES - {"by_step"}):
            passes(partial(check_fields, submission, {name}))
        can_be_called &= passes(lambda: check_fields(submission, {"by_step"}))
        if not passes(lambda: check_fields(submission, {"environment"})):
            return Checked(findings=tuple(findings))
        from crystalmath.store.rows import check as check_row

        read = self._read_as_far(submission, findings)
        if read is None:
            return Checked(findings=tuple(findings))
        asked, is_whole = read
        can_be_called &= is_whole

        def settle() -> Sequence[Finding]:
            nonlocal asked
            asked = self._references.settled(asked)
            return asked.findings

        passes(settle)
        can_be_called = can_be_called and passes(lambda: self._check_flow(asked))
        # What cannot be called has nothing to say for itself.
        known = can_be_called and not asked.refers
        if can_be_called and asked.refers:
            passes(lambda: self._early_preflight(asked))
        # It is asked first for all that is wanted: that answers the other checks, too.
        flow, told = self._flow(asked) if known else (None, ())
        answers = known and passes(lambda: self._preflight(asked))
        findings += [finding for finding in told if finding not in findings]
        files, found = self._pseudopotentials(asked) if answers else ([], [])
        findings += found
        has_engine = (
            passes(lambda: self._check_plugin(asked.spec), "engine")
            and passes(lambda: self._check_cluster(asked.spec), "cluster")
            and passes(lambda: self._check_allotted(asked.spec), "resources")
        )
        here = has_engine and self._runs_here(asked.spec)
        written = self._inputs(asked, here=here) if inputs and known else None
        passes(lambda: self._check_ranks(asked.spec, has_engine=has_engine), "resources")
        if has_engine and is_whole:
            if not asked.refers:
                passes(lambda: self._check_continuation(asked.spec))
            there = evolve(asked, spec=self._allotted(asked.spec))
            for look in self._looks(there):
                passes(partial(look, there))
            passes(lambda: check_row(_row(there, files, findings)))
        return Checked(
            findings=tuple(_judged(findings, asked)),
            pseudopotentials=tuple(files),
            environment=tuple(sorted(asked.spec.environment)),
            inputs=written,
            flow=flow,
            copies=tuple(self._copies(asked.spec)) if has_engine and is_whole else (),
        )

    def _read_as_far(
        self, submission: Submission, findings: _Findings
    ) -> tuple[AskedJob, bool] | None:
        """Read a submission, else all but its structure; also return whether that is the whole."""
        found: list[AskedJob] = []

        def read(given: Submission) -> None:
            found.append(self._reader.read(given))

        if findings.passes(partial(read, submission)):
            return found[0], True
        if submission.atoms is None:
            return None
        wrong = findings.pop()
        if not findings.passes(partial(read, evolve(submission, atoms=None))):
            return None
        findings.append(replace(wrong, place=wrong.place or "structure"))
        return found[0], False

    def plan(self, row: NewJob) -> None:
        """Let what is asked for next refer to a job that is about to be recorded."""
        self._references.plan(row)

    def list_next(self, job_id: str | None, name: str | None) -> None:
        """Let what is asked for next refer to a job of its request; ``None`` if it was refused."""
        self._references.list_next(job_id, name)

    def read(
        self,
        submission: Submission,
        parents: Sequence[Parent] = (),
        body: Mapping[str, Any] | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> AskedJob:
        """Read what is asked for: its terms, its structure and parameters.

        What a flow has called has its structure and parameters in the `body`, in the form of
        results. It gets the `settings` in whatever environment. Raises `InvalidJob`: something in
        it can be no part of a job, whatever the recipe.
        """
        several = isinstance(submission.atoms, (list, tuple))
        terms = None if parents or body or settings or several else terms_of(submission)
        if terms is not None and (asked := self._reader.likewise(submission, terms)) is not None:
            check_fields(submission, OWN)
            return asked
        settings = settings or {}
        environment = {**(submission.environment or {}), **settings}
        whole = evolve(submission, environment=environment) if settings else submission
        check_fields(whole, _VALUES | {"environment"})
        if body is not None:
            if any(parent["role"] == "retry" for parent in parents):
                check_restrictions(submission, self._config, is_step=True)
            return self._reader.read_step(submission, parents, body, settings)
        check_restrictions(submission, self._config)
        return self._reader.read(self._together(submission), parents, settings, terms)

    def _together(self, submission: Submission) -> Submission:
        """Write several structures as the recipe's first argument; `InvalidJob` if it takes one."""
        given: object = submission.atoms
        if not isinstance(given, (list, tuple)):
            return submission

        recipe = self._recipe(str(submission.recipe))
        name = structures_argument(recipe)
        if name is None:
            raise InvalidJob(
                f"the recipe {recipe.name} takes no list of structures: its first argument is not "
                "annotated as one, structures: list[Atoms]; submit each as a job of its own"
            ).at("structure")
        if name in submission.parameters:
            raise InvalidJob(
                f"{name!r} are the structures themselves, the first argument of {recipe.name}; it "
                "cannot be a parameter too"
            ).at(f"params.{name}")
        structures = [geometry_of(each) or parse_structure(each) for each in given]
        parameters = {name: structures, **submission.parameters}
        return evolve(submission, atoms=None, parameters=parameters)

    def prepare(self, asked: AskedJob) -> Prepared:
        """Check what was read, and make it ready; `InvalidJob` says what is wrong with it.

        The engine's plugin is loaded last: a job that is refused touches no engine. What needs the
        values of other jobs that have not ended is checked when they have.
        """
        if self._prepared is not None and self._prepared[0] is asked.first:
            return _prepared_likewise(self._prepared[1], asked)
        prepared = self._prepare(asked)
        # A long one is not kept in memory: no other is found to be equal to it.
        self._prepared = (asked, prepared) if self._reader.is_last(asked) else None
        return prepared

    def _prepare(self, asked: AskedJob) -> Prepared:
        from crystalmath.engines.registry import plugins
        from crystalmath.store.rows import check

        # Of a long one nothing is kept in memory.
        like = (asked.like or asked) if self._reader.is_last(asked) else None
        asked = self._references.settled(asked)
        findings = [*self._once(like, self._check_recipe, asked)]
        findings += self._once(like, self._check_flow, asked)
        plugins().require(str(asked.spec.engine))
        if not asked.refers:
            findings += self._preflight(asked)
            told = self._flow(asked)[1] if asked.spec.by_step else ()
            findings += [finding for finding in told if finding not in findings]
        elif not asked.is_step:
            findings += self._early_preflight(asked)
        findings = _unless_lax(findings, asked)
        if any(finding.severity == "error" for finding in findings):
            raise JobRefused(findings)
        runner = self._runner(asked.spec)
        files, found = ([], []) if asked.refers else self._pseudopotentials(asked)
        given, told = self._once(like, self._given_terms, asked)
        findings += [*found, *told]
        asked = evolve(asked, spec=evolve(asked.spec, **given))
        of_structure = self._looks_at_structure(asked)
        for look in self._looks(asked):
            findings += look(asked) if look in of_structure else self._once(like, look, asked)
        findings = _judged([*findings, *asked.findings], asked)
        if any(finding.severity == "error" for finding in findings):
            raise JobRefused(findings)
        if files:
            spec = evolve(asked.spec, files={file.path: file.sha256 for file in files})
            asked = evolve(asked, spec=spec)
        row = _row(asked, files, findings)
        if self._has_steps(asked):
            taken = taken_over(self._references.jobs, asked.spec.parents)
            spec = first_pass(asked.spec, *taken, self._config.flows_on_cluster)
            text = _specification(spec, asked.document)
            asked = evolve(asked, spec=spec)
            row, runner = evolve(row, specification=text, stage="pass"), self._runner(spec)
        check(row)  # the store does so too, but only after it has made its database
        return Prepared(row, asked.spec, asked.document, runner)

    def _once(
        self, like: AskedJob | None, check: Callable[[AskedJob], _Found], asked: AskedJob
    ) -> _Found:
        """Make a check of terms and parameters once for all jobs that are `like` one, if any.

        What it raises is found anew for each.
        """
        if like is None:
            return check(asked)
        if self._found[0] is not like:
            self._found = like, {}
        known, name = self._found[1], check.__name__
        if name not in known:
            known[name] = check(asked)
        return cast("_Found", known[name])

    def _given_terms(self, asked: AskedJob) -> tuple[dict[str, Any], list[Finding]]:
        """Return the terms that a job is given by its engine and cluster, and what is found."""
        findings = self._check_cluster(asked.spec)
        spec = self._allotted(asked.spec)
        spec = spec if asked.refers else with_continuation(spec, self._config)
        spec = evolve(spec, defaulted=defaulted(asked.spec, spec))
        findings += self._check_ranks(asked.spec)
        given = {
            one.name: value
            for one in declared(JobSpec)
            for value in (getattr(spec, one.name),)
            if value is not getattr(asked.spec, one.name)
        }
        return given, findings

    def _has_steps(self, asked: AskedJob) -> bool:
        """Return whether a job is a flow that begins now, and whose steps are jobs."""
        one = asked.is_step or asked.spec.in_one_job or asked.reason is not None
        return not one and self._recipes[asked.spec.recipe].kind == "flow"

    def _check_flow(self, asked: AskedJob) -> list[Finding]:
        """Refuse what only a flow can have for what is none, and terms that its steps cannot have.

        Find times of steps that the time of the whole flow cuts. `InvalidJob` names the field.
        """
        spec = asked.spec
        if asked.is_step:
            return []
        for name, value in spec.flow_terms().items():
            if value and self._recipe(spec.recipe).kind != "flow":
                raise InvalidJob(
                    f"{name!r} is for flows, and {spec.recipe} is none: it is one job; leave it out"
                ).at(name)
            if value and spec.in_one_job and name != "in_one_job":
                raise InvalidJob(
                    f"{name!r} and 'in_one_job' exclude each other: in one job a flow has no steps "
                    "of its own; leave out one of them"
                ).at(name)
        for pattern, settings in spec.by_step.items():
            try:
                self._check_step(spec, settings)
            except InvalidJob as error:
                place = f"by_step.{pattern}"
                raise InvalidJob(f"{place}: {error}").at(place) from error
        times = {"walltime_s": spec.walltime_s}
        times |= {
            f"by_step.{name}.walltime_s": one.get("walltime_s")
            for name, one in spec.by_step.items()
        }
        total = spec.walltime_total_s
        return [
            Finding(
                severity="warning",
                code="walltime_above_total",
                message=f"'{place}' is {timespan_text(walltime)}, longer than 'walltime_total_s' "
                f"with {timespan_text(total)}, after which the whole flow is stopped",
                place=place,
            )
            for place, walltime in times.items()
            if total is not None and walltime is not None and walltime > total
        ]

    def _check_step(self, spec: JobSpec, settings: Mapping[str, Any]) -> None:
        codec.decode_request(parameters := settings.get("params") or {})
        if references_in(parameters):
            raise InvalidJob("a reference to a job cannot stand in its 'params'")
        terms = {**spec.terms(), "engine": spec.engine}
        step = evolve(spec, **terms_by_step(terms, settings, self._config))
        check_resources(step.resources)
        self._check_cluster(step)
        self._allotted(step)

    def _looks(self, asked: AskedJob) -> tuple[_Look, ...]:
        """Return the checks of a job that its engine takes, with its resources told to it."""
        of_structure = self._looks_at_structure(asked)
        return self._check_parcel, *of_structure, self._check_sources, self._check_packages

    def _looks_at_structure(self, asked: AskedJob) -> tuple[_Look, ...]:
        """Return those of them that look at more than its terms; some values may be awaited yet."""
        return () if asked.refers else (self._engine_preflight, self._check_commands)

    def _check_recipe(self, asked: AskedJob) -> list[Finding]:
        recipe = self._recipe(asked.spec.recipe)
        if asked.is_step:
            # Python has called it so, but for what is changed.
            place = recipe.name.rpartition(".")[2]
            return [*job_faults(recipe, codec.decode_request(asked.spec.changed), f"{place}.")]
        parameters = asked.spec.parameters
        findings = check_arguments(recipe, parameters, structure=asked.has_structure)
        return [*findings, *check_unread(recipe, parameters)]

    def _recipe(self, name: str) -> Recipe:
        if name not in self._recipes:
            self._recipes[name] = look_up(name, self._config.recipes_allow)
        return self._recipes[name]

    def _recipe_faults(
        self, asked: Submission | JobSpec, *, has_structure: bool
    ) -> Iterator[Finding | InvalidJob]:
        """Yield what is wrong with a recipe's name and arguments; it may raise, too."""
        recipe = self._recipe(str(asked.recipe))
        fits = True
        for found in argument_faults(recipe, asked.parameters, structure=has_structure):
            fits &= isinstance(found, Finding)
            yield found
        if fits:
            yield from check_unread(recipe, asked.parameters)

    def _check_continuation(self, spec: JobSpec) -> None:
        with_continuation(spec, self._config)

    def _check_plugin(self, spec: JobSpec) -> None:
        self._runner(spec)

    def _check_allotted(self, spec: JobSpec) -> None:
        self._allotted(spec)

    def _check_cluster(self, spec: JobSpec) -> list[Finding]:
        from crystalmath.quacc.engines import made_with

        runner, name = self._runner(spec), spec.cluster
        configured, served = self._config.clusters.get(name), made_with(runner).clusters.get(name)
        if configured is None or configured.engine != spec.engine or configured == served:
            known = [*self._config.clusters, *runner.clusters()]
            if name not in known and (near := difflib.get_close_matches(name, known, 1, 0.7)):
                raise InvalidJob(
                    f"there is no cluster {name!r}; did you mean {near[0]!r}? There are "
                    f"{', '.join(dict.fromkeys(known))}"
                )
            runner.check_cluster(name)
            return []
        # What has changed since the engine began, counts once it can begin anew.
        count = len(runner.unfinished())
        until = f"until the {count} unfinished jobs of the engine {spec.engine!r} have ended"
        if served is None:
            raise InvalidJob(
                f"[clusters.{name}] is new in config.toml, and cannot be used {until}; it has: "
                f"{', '.join(runner.clusters())}"
            )
        told = f"[clusters.{name}] has changed in config.toml; {until}, only its environment counts"
        return [Finding(severity="warning", code="cluster_outdated", message=told)]

    def _allotted(self, spec: JobSpec) -> JobSpec:
        """Hand a job's programs what it asks for; of a batch, equal environments stay one."""
        before = spec.environment
        spec = self._runner(spec).allotted(self._limited(spec))
        if spec.environment is not before:
            # What the cluster has replaced already was the submitter's own.
            own = {**replaced(before, spec.environment), **spec.replaced}
            spec = evolve(spec, replaced=own)
        for known in self._environments:
            if known is spec.environment:
                return spec
            if known == spec.environment:
                return evolve(spec, environment=known)
        self._environments.append(spec.environment)
        return spec

    def _limited(self, spec: JobSpec) -> JobSpec:
        """Give a job the walltime of the home, unless it has one, or is packed with others.

        What its cluster allows is no less than that.
        """
        default = self._config.walltime_s
        if default is None or spec.walltime_s is not None or (spec.parcel or 1) > 1:
            return spec
        cluster = self._config.clusters.get(spec.cluster)
        allowed = cluster.walltime_s if cluster else None
        return evolve(spec, walltime_s=default if allowed is None else min(default, allowed))

    def _check_ranks(self, spec: JobSpec, *, has_engine: bool = True) -> list[Finding]:
        from crystalmath.preflight.commands import check_asked_ranks

        defaults = Resources()
        if has_engine:
            defaults = self._runner(spec).default_resources(spec.cluster)
        return check_asked_ranks(
            spec.recipe, spec.parameters, spec.environment, spec.resources, defaults
        )

    def _runner(self, spec: JobSpec) -> EngineRunner:
        return self._runner_of(str(spec.engine))

    def _runs_here(self, spec: JobSpec) -> bool:
        return self._runner(spec).runs_here(spec.cluster)

    def _preflight(self, asked: AskedJob) -> list[Finding]:
        from crystalmath.engines.registry import plugins

        return self._unless_set_there(asked.spec, plugins().preflight(**asked.of_hooks()))

    def _early_preflight(self, asked: AskedJob) -> list[Finding]:
        """Find what is wrong whatever the positions of the atoms are: a missing POTCAR."""
        expected = self._references.expected(asked.spec.parents)
        if expected is None:
            return []
        atoms, structure = parse_and_keep(expected)
        text = codec.body_text(codec.body_of(structure, asked.spec.parameters))
        asked = evolve(asked, spec=evolve(asked.spec, atoms=atoms), document=text)
        found = self._preflight(asked)
        return [each for each in found if each.severity == "error" or each.code == MISSPELT]

    def _has_init(self, spec: JobSpec) -> bool:
        cluster = self._config.clusters.get(spec.cluster)
        return cluster is not None and bool(cluster.worker_init)

    def _shares_files(self, spec: JobSpec) -> bool:
        if spec.engine == "local":  # a refused job begins no engine
            return True
        with contextlib.suppress(CrystalMathError, ImportError):  # the engine's own check says why
            return self._runner(spec).capabilities_of(spec.cluster).shares_files
        return True

    def _unless_set_there(self, spec: JobSpec, told: list[Finding]) -> list[Finding]:
        if any(finding.severity == "error" for finding in told):
            told = list(unless_there(told, lambda: self._shares_files(spec)))
        return unless_set_there(told, spec.cluster) if self._has_init(spec) else told

    def _engine_preflight(self, asked: AskedJob) -> list[Finding]:
        from crystalmath.engines.registry import plugins

        return plugins().engine_preflight(str(asked.spec.engine), **asked.of_hooks())

    def _pseudopotentials(self, asked: AskedJob) -> tuple[list[Pseudopotential], list[Finding]]:
        from crystalmath.engines.registry import plugins

        if not self._shares_files(asked.spec):
            return [], []  # it reads those of its worker's machine
        told = plugins().pseudopotentials(**asked.of_hooks())
        files = [each for each in told if isinstance(each, Pseudopotential)]
        return files, [each for each in told if isinstance(each, Finding)]

    def _inputs(self, asked: AskedJob, *, here: bool) -> Inputs:
        from crystalmath.preflight.step_inputs import asked_inputs

        return asked_inputs(**asked.of_hooks(), here=here)

    def _flow(self, asked: AskedJob) -> tuple[FlowCheck | None, Sequence[Finding]]:
        """Return which jobs a flow would call, and findings: its body fails, terms mean no step."""
        if not self._has_steps(asked):
            return None, ()
        from crystalmath.preflight.verdict import judge_calls

        flow, findings = judge_calls(**asked.of_hooks())
        if flow is None:
            return None, findings
        told, unknown = by_step_faults(asked.spec.by_step, flow.steps, self._config, flow.rest)
        if unknown:
            which = " or ".join(map(repr, unknown))
            flow = evolve(flow, rest=f"{flow.rest}; whether {which} means a step is known then")
        return flow, [*findings, *told]

    def _check_commands(self, asked: AskedJob) -> list[Finding]:
        told = self._commands.check(asked, self._runner(asked.spec))
        return self._unless_set_there(asked.spec, told)

    def _check_parcel(self, asked: AskedJob) -> list[Finding]:
        """Refuse to pack what would go alone whatever is asked; a step has what its flow asked."""
        spec = asked.spec
        if (spec.parcel or 1) == 1 or asked.is_step:
            return []
        if spec.walltime_s is not None:
            why = "a job with a walltime"
        elif not self._runner(spec).capabilities_of(spec.cluster).workers_here:
            why = f"a job on the cluster {spec.cluster!r} of the engine {spec.engine!r}"
        else:
            return []
        told = f"'parcel' is {spec.parcel}, and {why} always goes alone; leave 'parcel' out"
        return [Finding(severity="error", code="parcel_unused", message=told, place="parcel")]

    def _check_sources(self, asked: AskedJob) -> list[Finding]:
        """Look for the folders that files are taken from, where this machine's are the worker's."""
        spec = asked.spec
        if not self._shares_files(spec):
            return self._unseen(asked, sources(spec.parameters))
        if not self._runs_here(spec):
            return []
        return check_sources(spec.recipe, spec.parameters)

    def _copies(self, spec: JobSpec) -> Iterator[tuple[str, int]]:
        """Yield the folders that a job copies, to run in, with the size of each copy in bytes."""
        if not self._shares_files(spec):
            return
        for folder in run_folders(spec.recipe, spec.parameters):
            # A folder that cannot be read here may be readable where the job runs.
            with contextlib.suppress(OSError, BadFile):
                yield folder, outdirs.size(folder)

    def _unseen(self, asked: AskedJob, sources: Sequence[str]) -> list[Finding]:
        """Refuse what needs files of this machine that its workers do not see."""
        spec, remedy = asked.spec, "choose another cluster, or leave it out"
        reads = [f"the parameter {name} names files" for name in sources]
        if self._has_steps(asked):
            reads = []  # of its steps, which are checked when they are called
            if runs_on_cluster(spec, self._config.flows_on_cluster):
                reads = ["a flow's body reads the results of its steps"]
                remedy = "leave it out of [flows] on_cluster: its steps run there all the same"
        elif any(parent["role"] == "reread" for parent in spec.parents):
            reads, remedy = ["it reads an earlier calculation"], "run it again (crystalmath retry)"
        where = f"workers of the engine {spec.engine!r} on its cluster {spec.cluster!r}"
        return [
            Finding(
                severity="error",
                code="source_unseen",
                message=f"{each}, and {where} see no files of this machine",
                remedy=remedy,
            )
            for each in reads
        ]

    def _check_packages(self, asked: AskedJob) -> list[Finding]:
        """Look for what a recipe of quacc's needs beside quacc."""
        spec = asked.spec
        recipe = self._recipes.get(spec.recipe)
        if recipe is None:  # it cannot be called, which was told
            return []
        certain = self._runs_here(spec) and not self._has_init(spec)  # it may set PYTHONPATH
        return check_packages(recipe, spec.environment, certain=certain)


def _prepared_likewise(ready: Prepared, asked: AskedJob) -> Prepared:
    """Make a job ready that differs from one that has passed in nothing but `OWN`."""
    own: dict[str, Any] = {name: getattr(asked.spec, name) for name in OWN}
    spec = evolve(ready.spec, **own)
    text = _specification(spec, asked.document)
    row = evolve(ready.row, **own, specification=text, created_at=time.time())
    return Prepared(row, spec, asked.document, ready.runner)


def _specification(spec: JobSpec, document: str, **more: bool) -> str:
    return f"{json.dumps({**spec.header(), **more})}\n{document}"


def _row(asked: AskedJob, files: Sequence[Pseudopotential], findings: Sequence[Finding]) -> NewJob:
    spec = asked.spec
    # What would not be known any more when the values are there.
    terms = {"strict": asked.strict, "lax": asked.lax and not asked.is_step}
    more = {name: True for name, on in terms.items() if on and asked.reason is not None}
    return NewJob(
        job_id=spec.job_id,
        recipe=spec.recipe,
        engine=str(spec.engine),
        spec_hash=asked.spec_hash,
        specification=_specification(spec, asked.document, **more),
        created_at=time.time(),
        formula=asked.formula if spec.atoms is None else spec.atoms.get_chemical_formula(),
        parents=spec.parents,
        reason=asked.reason,
        warnings=written_findings(findings),
        pseudopotentials=[asdict(file) for file in files],
        **spec.terms(),
    )


def _judged(findings: Sequence[Finding], asked: AskedJob) -> list[Finding]:
    """Leave out what is told twice; where that is wanted, a warning refuses the job, too."""
    kept = _once(_unless_lax(findings, asked))
    return [replace(finding, severity="error") for finding in kept] if asked.strict else kept


def _unless_lax(findings: Sequence[Finding], asked: AskedJob) -> list[Finding]:
    """Have misspelt parameters refuse the job, unless that is not wanted."""
    return [
        replace(finding, severity="error", remedy=_or_lax(finding.remedy))
        if finding.code == MISSPELT and finding.severity == "warning" and not asked.lax
        else finding
        for finding in findings
    ]


def _or_lax(remedy: str | None) -> str:
    return " ".join(filter(None, (remedy, "'lax' lets it pass")))


def _once(findings: Sequence[Finding]) -> list[Finding]:
    """Leave out what several have to say of the name of one parameter or step, after the first."""
    told: set[str | None] = set()
    kept = []
    for finding in findings:
        if finding.code in {"parameter_unknown", "parameter_unread", MISSPELT, "step_unknown"}:
            name = finding.place if finding.code == "step_unknown" else finding.source
            if name is not None and name in told:
                continue
            told.add(name)
        kept.append(finding)
    return kept
