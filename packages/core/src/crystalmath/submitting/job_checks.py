"""The checks of a job before it is recorded: one list, in order, for ``check`` and ``submit``."""

from __future__ import annotations

import contextlib
import difflib
from typing import TYPE_CHECKING, Any

from attrs import define, evolve, field, frozen

from crystalmath.errors import MISSPELT, BadFile, CrystalMathError, InvalidJob
from crystalmath.jobs import outdirs
from crystalmath.models import Finding, JobSpec, Pseudopotential, Resources
from crystalmath.models.resources import check_resources
from crystalmath.models.written import timespan_text
from crystalmath.preflight.required_packages import check_packages
from crystalmath.preflight.unread_parameters import check_unread, job_faults
from crystalmath.recipes import codec
from crystalmath.recipes.arguments import argument_faults
from crystalmath.recipes.job_structure import references_in
from crystalmath.recipes.lookup import look_up
from crystalmath.recipes.source_folders import check_sources, run_folders, sources
from crystalmath.recipes.structures import parse_and_keep
from crystalmath.submitting.asked_job import AskedJob, defaulted, replaced
from crystalmath.submitting.checked_commands import CheckedCommands, unless_set_there, unless_there
from crystalmath.submitting.flow_terms import by_step_faults, runs_on_cluster, terms_by_step
from crystalmath.submitting.going_on import with_continuation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from crystalmath.config import Config
    from crystalmath.models import Submission
    from crystalmath.models.inputs import FlowCheck, Inputs
    from crystalmath.quacc.engine import EngineRunner
    from crystalmath.recipes.lookup import Recipe
    from crystalmath.submitting.references import References

__all__ = ["CHECKS", "Check", "Draft", "JobChecks"]


@define
class Draft:
    """A job under check. Checks add to it what the engine is handed with the job."""

    job: AskedJob
    #: Names of the checks that have passed. Those before reading are ``structure`` and ``by_step``.
    passed: set[str]
    #: Whether `job` lacks a structure only since it could not be read.
    lacks_structure: bool = False
    #: Whether a flow is asked for its steps in any case; else only for settings by step.
    lists_steps: bool = False
    #: The job before the environment for its resources was set.
    unallotted: AskedJob | None = None
    pseudopotentials: list[Pseudopotential] = field(factory=list)
    flow: FlowCheck | None = None


@frozen(kw_only=True)
class Check:
    """A check by its name, which is also its key where its findings are kept.

    Parameters
    ----------
    name : str
        Unique among `CHECKS`.
    run : callable
        Yields what is wrong with a draft, and may change the draft. A raised error refuses the job.
    place : str, optional
        The place in the submission of errors that name none.
    after : tuple of str
        Names of the checks that must have passed.
    of_terms : bool
        Whether terms and parameters alone decide: its findings hold for every structure.
    needs_engine : bool
        Whether it loads the engine. No engine is loaded for a job that is refused already.
    """

    name: str
    run: Callable[[JobChecks, Draft], Iterable[Finding | InvalidJob]]
    place: str | None = None
    after: tuple[str, ...] = ()
    of_terms: bool = False
    needs_engine: bool = False


class JobChecks:
    """The checks of a batch, with what its jobs share: recipes, environments, commands."""

    def __init__(
        self,
        configured: Config,
        runner_of: Callable[[str], EngineRunner],
        references: References,
    ) -> None:
        self._config = configured
        self._runner_of = runner_of
        self.references = references
        # The jobs of a batch mostly have the same.
        self._environments: list[Mapping[str, str]] = []
        self._recipes: dict[str, Recipe] = {}
        self._commands = CheckedCommands()

    # --- recipe and terms --------------------------------------------------------------------

    def settle(self, draft: Draft) -> Iterator[Finding]:
        """Resolve the references to other jobs."""
        draft.job = self.references.settled(draft.job)
        yield from draft.job.findings

    def check_recipe(self, draft: Draft) -> Iterator[Finding | InvalidJob]:
        """Check the recipe's name and its arguments."""
        spec = draft.job.spec
        if draft.job.is_step:
            # The body has called it: only changed parameters can be wrong.
            name = self.recipe(spec.recipe).name.rpartition(".")[2]
            changed = codec.decode_request(spec.changed)
            yield from job_faults(self.recipe(spec.recipe), changed, f"{name}.")
        else:
            has_structure = draft.lacks_structure or draft.job.has_structure
            yield from self.recipe_faults(spec, has_structure=has_structure)

    def recipe_faults(
        self, job: Submission | JobSpec, *, has_structure: bool
    ) -> Iterator[Finding | InvalidJob]:
        """Yield what is wrong with a recipe's name and arguments; an unknown recipe raises."""
        recipe = self.recipe(str(job.recipe))
        fits = True
        for fault in argument_faults(recipe, job.parameters, structure=has_structure):
            fits &= isinstance(fault, Finding)
            yield fault
        if fits:
            yield from check_unread(recipe, job.parameters)

    def recipe(self, name: str) -> Recipe:
        """Return a recipe; raise `InvalidJob` where there is none of that name."""
        if name not in self._recipes:
            self._recipes[name] = look_up(name, self._config.recipes_allow)
        return self._recipes[name]

    def has_steps(self, job: AskedJob) -> bool:
        """Return whether a job is a flow whose steps are jobs, and whose first pass comes next."""
        is_one_job = job.is_step or job.spec.in_one_job or job.reason is not None
        return not is_one_job and self.recipe(job.spec.recipe).kind == "flow"

    def check_flow_terms(self, draft: Draft) -> Iterator[Finding]:
        """Check the terms that only flows have, and those of steps."""
        spec = draft.job.spec
        if draft.job.is_step:
            return
        for name, value in spec.flow_terms().items():
            if value and self.recipe(spec.recipe).kind != "flow":
                raise InvalidJob(
                    f"{name!r} is for flows, and {spec.recipe} is none: it is one job; leave it out"
                ).at(name)
            if value and spec.in_one_job and name != "in_one_job":
                raise InvalidJob(
                    f"{name!r} does not go with a flow in one job, which has no steps of its own; "
                    "leave out one of them"
                ).at(name)
        for pattern, settings in spec.by_step.items():
            place = f"by_step.{pattern}"
            try:
                self._check_step(spec, settings)
            except InvalidJob as error:
                raise InvalidJob(f"{place!r}: {error}").at(place) from error
        yield from _times_above_total(spec)

    def _check_step(self, spec: JobSpec, settings: Mapping[str, Any]) -> None:
        codec.decode_request(parameters := settings.get("params") or {})
        if references_in(parameters):
            raise InvalidJob("a reference to a job cannot stand in its 'params'")
        terms = {**spec.terms(), "engine": spec.engine}
        step = evolve(spec, **terms_by_step(terms, settings, self._config))
        check_resources(step.resources)
        list(self._cluster_findings(step))
        self._allotted(step)

    # --- preflight ---------------------------------------------------------------------------

    def check_plugin(self, draft: Draft) -> Iterator[Finding]:
        """Check that the engine is installed, without loading it."""
        from crystalmath.engines.registry import plugins

        plugins().require(str(draft.job.spec.engine))
        yield from ()

    def check_flow(self, draft: Draft) -> Iterator[Finding]:
        """Ask a flow for its steps: whether its body runs, and settings by step match one."""
        job = draft.job
        if job.refers or not (draft.lists_steps or job.spec.by_step) or not self.has_steps(job):
            return
        from crystalmath.preflight.verdict import judge_calls

        flow, findings = judge_calls(**job.of_hooks())
        yield from findings
        if flow is None:
            return
        faults, unknown = by_step_faults(job.spec.by_step, flow.steps, self._config, flow.rest)
        if unknown:
            which = " or ".join(map(repr, unknown))
            flow = evolve(flow, rest=f"{flow.rest}; whether {which} matches a step is known then")
        draft.flow = flow
        yield from faults

    def preflight(self, draft: Draft) -> Iterator[Finding]:
        """Ask the plugins whether the job would run; before the atoms are known, as far as can be.

        The positions of awaited atoms are unknown, and a missing POTCAR can be found all the same.
        """
        job = draft.job
        if not job.refers:
            yield from self._preflight(job)
        elif not job.is_step and (expected := self.references.expected(job.spec.parents)):
            atoms, structure = parse_and_keep(expected)
            text = codec.body_text(codec.body_of(structure, job.spec.parameters))
            job = evolve(job, spec=evolve(job.spec, atoms=atoms), document=text)
            for finding in self._preflight(job):
                if finding.severity == "error" or finding.code == MISSPELT:
                    yield finding

    def _preflight(self, job: AskedJob) -> list[Finding]:
        from crystalmath.engines.registry import plugins

        return self._on_workers(job.spec, plugins().preflight(**job.of_hooks()))

    def find_pseudopotentials(self, draft: Draft) -> Iterator[Finding]:
        """Add the pseudopotential files that the job will read."""
        from crystalmath.engines.registry import plugins

        # Workers that share no files with this machine read their own.
        if draft.job.refers or not self.shares_files(draft.job.spec):
            return
        for item in plugins().pseudopotentials(**draft.job.of_hooks()):
            if isinstance(item, Pseudopotential):
                draft.pseudopotentials.append(item)
            else:
                yield item

    def inputs(self, job: AskedJob, *, runs_here: bool) -> Inputs:
        """Return what the programs of a job would get."""
        from crystalmath.preflight.step_inputs import asked_inputs

        return asked_inputs(**job.of_hooks(), here=runs_here)

    # --- engine and cluster ------------------------------------------------------------------

    def runner(self, spec: JobSpec) -> EngineRunner:
        """Return the runner of a job's engine; raise where the engine does not load."""
        return self._runner_of(str(spec.engine))

    def load_engine(self, draft: Draft) -> Iterator[Finding]:
        """Check that the engine loads."""
        self.runner(draft.job.spec)
        yield from ()

    def runs_here(self, spec: JobSpec) -> bool:
        """Return whether a job's worker runs on this machine."""
        return self.runner(spec).runs_here(spec.cluster)

    def check_cluster(self, draft: Draft) -> Iterator[Finding]:
        """Check that the engine serves the cluster."""
        return self._cluster_findings(draft.job.spec)

    def _cluster_findings(self, spec: JobSpec) -> Iterator[Finding]:
        from crystalmath.quacc.engines import made_with

        runner, name = self.runner(spec), spec.cluster
        configured, served = self._config.clusters.get(name), made_with(runner).clusters.get(name)
        if configured is None or configured.engine != spec.engine or configured == served:
            known = [*self._config.clusters, *runner.clusters()]
            if name not in known and (near := difflib.get_close_matches(name, known, 1, 0.7)):
                raise InvalidJob(
                    f"there is no cluster {name!r}; did you mean {near[0]!r}? There are "
                    f"{', '.join(dict.fromkeys(known))}"
                )
            runner.check_cluster(name)
            return
        # A running engine keeps the configuration that it started with.
        count = len(runner.unfinished())
        until = f"until the {count} unfinished jobs of the engine {spec.engine!r} have ended"
        if served is None:
            raise InvalidJob(
                f"[clusters.{name}] is new in config.toml, and cannot be used {until}; it has: "
                f"{', '.join(runner.clusters())}"
            )
        yield Finding(
            severity="warning",
            code="cluster_outdated",
            message=f"[clusters.{name}] has changed in config.toml; {until}, only its environment "
            "counts",
        )

    def check_ranks(self, draft: Draft) -> list[Finding]:
        """Compare the ranks of the job's commands with its resources."""
        from crystalmath.preflight.commands import check_asked_ranks

        spec, defaults = draft.job.spec, Resources()
        if "cluster" in draft.passed:
            defaults = self.runner(spec).default_resources(spec.cluster)
        return check_asked_ranks(
            spec.recipe, spec.parameters, spec.environment, spec.resources, defaults
        )

    def allot(self, draft: Draft) -> Iterator[Finding]:
        """Set the environment for the job's resources, and the terms of engine and cluster."""
        before = draft.unallotted = draft.job
        spec = self._allotted(before.spec)
        if "structure" in draft.passed and not before.refers:
            spec = with_continuation(spec, self._config)
        draft.job = evolve(before, spec=evolve(spec, defaulted=defaulted(before.spec, spec)))
        yield from ()

    def _allotted(self, spec: JobSpec) -> JobSpec:
        """Return a job with the environment for its resources; equal ones are one object."""
        before = spec.environment
        spec = self.runner(spec).allotted(self._limited(spec))
        if spec.environment is not before:
            # The cluster's own variables have replaced the submitter's already.
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
        """Set the home's default walltime, at most the cluster's, unless the job is in a parcel."""
        default = self._config.walltime_s
        if default is None or spec.walltime_s is not None or (spec.parcel or 1) > 1:
            return spec
        cluster = self._config.clusters.get(spec.cluster)
        allowed = cluster.walltime_s if cluster else None
        return evolve(spec, walltime_s=default if allowed is None else min(default, allowed))

    # --- a job that its engine takes ---------------------------------------------------------

    def check_parcel(self, draft: Draft) -> Iterator[Finding]:
        """Refuse a parcel of jobs that always go alone; a step has the parcel of its flow."""
        spec = draft.job.spec
        if (spec.parcel or 1) == 1 or draft.job.is_step:
            return
        if spec.walltime_s is not None:
            why = "a job with a walltime"
        elif not self.runner(spec).capabilities_of(spec.cluster).workers_here:
            why = f"a job on the cluster {spec.cluster!r} of the engine {spec.engine!r}"
        else:
            return
        yield Finding(
            severity="error",
            code="parcel_unused",
            message=f"'parcel' is {spec.parcel}, and {why} always goes alone; leave 'parcel' out",
            place="parcel",
        )

    def engine_preflight(self, draft: Draft) -> list[Finding]:
        """Ask the engine's own plugin whether the job would run."""
        from crystalmath.engines.registry import plugins

        job = draft.job
        if job.refers:
            return []
        return plugins().engine_preflight(str(job.spec.engine), **job.of_hooks())

    def check_commands(self, draft: Draft) -> list[Finding]:
        """Look for the commands that start the job's programs."""
        if draft.job.refers:
            return []
        spec = draft.job.spec
        return self._on_workers(spec, self._commands.check(draft.job, self.runner(spec)))

    def check_sources(self, draft: Draft) -> list[Finding]:
        """Look for the folders that the job copies from, where its worker sees this machine's."""
        spec = draft.job.spec
        if not self.shares_files(spec):
            return self._unseen(draft.job, sources(spec.parameters))
        if not self.runs_here(spec):
            return []
        return check_sources(spec.recipe, spec.parameters)

    def _unseen(self, job: AskedJob, sources: Sequence[str]) -> list[Finding]:
        """Refuse a job that needs files of this machine, where its workers see none."""
        spec, remedy = job.spec, "choose another cluster, or leave it out"
        reads = [f"the parameter {name} names files" for name in sources]
        if self.has_steps(job):
            reads = []  # The steps are checked when they are called.
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
                message=f"{what}, and {where} see no files of this machine",
                remedy=remedy,
            )
            for what in reads
        ]

    def check_packages(self, draft: Draft) -> list[Finding]:
        """Look for the packages that a recipe of quacc's needs beside quacc."""
        spec = draft.job.spec
        recipe = self._recipes.get(spec.recipe)
        if recipe is None:
            return []  # Another check reports a recipe that is not there.
        certain = (
            self.runs_here(spec)
            and self.runner(spec).capabilities_of(spec.cluster).workers_inherit
            and not self._has_init(spec)  # It may set PYTHONPATH.
        )
        return check_packages(recipe, spec.environment, certain=certain)

    def copies(self, spec: JobSpec) -> Iterator[tuple[str, int]]:
        """Yield the folders that a job copies before it runs in them, with their sizes in bytes."""
        if not self.shares_files(spec):
            return
        for folder in run_folders(spec.recipe, spec.parameters):
            # A folder that cannot be read here may be readable where the job runs.
            with contextlib.suppress(OSError, BadFile):
                yield folder, outdirs.size(folder)

    # --- what is known of the workers' machine -----------------------------------------------

    def _has_init(self, spec: JobSpec) -> bool:
        cluster = self._config.clusters.get(spec.cluster)
        return cluster is not None and bool(cluster.worker_init)

    def shares_files(self, spec: JobSpec) -> bool:
        """Return whether a job's worker sees the files of this machine."""
        if spec.engine == "local":  # No engine is loaded for a job that is refused.
            return True
        with contextlib.suppress(CrystalMathError, ImportError):  # Another check says why.
            return self.runner(spec).capabilities_of(spec.cluster).shares_files
        return True

    def _on_workers(self, spec: JobSpec, findings: list[Finding]) -> list[Finding]:
        """Soften errors about this machine that may not hold where the job runs."""
        if any(finding.severity == "error" for finding in findings):
            findings = list(unless_there(findings, lambda: self.shares_files(spec)))
        return unless_set_there(findings, spec.cluster) if self._has_init(spec) else findings


def _times_above_total(spec: JobSpec) -> Iterator[Finding]:
    """Warn of walltimes of steps that are longer than that of the whole flow."""
    times = {"walltime_s": spec.walltime_s}
    times |= {
        f"by_step.{name}.walltime_s": settings.get("walltime_s")
        for name, settings in spec.by_step.items()
    }
    total = spec.walltime_total_s
    for place, walltime in times.items():
        if total is not None and walltime is not None and walltime > total:
            yield Finding(
                severity="warning",
                code="walltime_above_total",
                message=f"'{place}' is {timespan_text(walltime)}, longer than the total of "
                f"{timespan_text(total)} after which the whole flow is stopped",
                place=place,
            )


_CALLABLE = ("structure", "by_step", "recipe", "flow_terms")
_ALLOTTED = ("structure", "engine", "cluster", "allotment")

#: Every check of a job, in order. The preflight comes before the engine is loaded.
CHECKS = (
    Check(name="references", run=JobChecks.settle),
    Check(name="recipe", run=JobChecks.check_recipe, place="recipe", of_terms=True),
    Check(name="flow_terms", run=JobChecks.check_flow_terms, after=_CALLABLE[:-1], of_terms=True),
    Check(name="plugin", run=JobChecks.check_plugin, place="engine"),
    Check(name="flow", run=JobChecks.check_flow, after=_CALLABLE),
    Check(name="preflight", run=JobChecks.preflight, after=_CALLABLE),
    Check(
        name="engine",
        run=JobChecks.load_engine,
        place="engine",
        after=("plugin",),
        needs_engine=True,
    ),
    Check(
        name="pseudopotentials",
        run=JobChecks.find_pseudopotentials,
        after=(*_CALLABLE, "preflight"),
        needs_engine=True,
    ),
    Check(
        name="cluster",
        run=JobChecks.check_cluster,
        place="cluster",
        after=("engine",),
        of_terms=True,
    ),
    Check(name="ranks", run=JobChecks.check_ranks, place="resources", of_terms=True),
    Check(
        name="allotment",
        run=JobChecks.allot,
        place="resources",
        after=("engine", "cluster"),
        of_terms=True,
    ),
    Check(name="parcel", run=JobChecks.check_parcel, after=_ALLOTTED, of_terms=True),
    Check(name="engine_preflight", run=JobChecks.engine_preflight, after=_ALLOTTED),
    Check(name="commands", run=JobChecks.check_commands, after=_ALLOTTED),
    Check(name="sources", run=JobChecks.check_sources, after=_ALLOTTED, of_terms=True),
    Check(name="packages", run=JobChecks.check_packages, after=_ALLOTTED, of_terms=True),
)
