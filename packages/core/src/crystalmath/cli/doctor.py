"""``crystalmath doctor``: check everything that jobs need."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crystalmath.cli.shared import common_arguments, completion, output
from crystalmath.cli.shared.health import condition, job_rows, report, server_checks
from crystalmath.engines import engine_checks
from crystalmath.errors import CrystalMathError
from crystalmath.models.cluster import Check
from crystalmath.reading.home_storage import storage_checks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ase import Atoms

    from crystalmath.config import Config

#: The number of recent failures that are shown.
FAILURES = 3


def doctor(
    *,
    run: Annotated[
        bool, typer.Option("--run", help="Relax a built-in aluminium cell on an engine.")
    ] = False,
    engine: Annotated[
        str | None,
        typer.Option(
            metavar="E",
            help="The engine to check, and to run on.",
            autocompletion=completion.engines,
        ),
    ] = None,
    rebuild: Annotated[
        bool,
        typer.Option(
            "--rebuild",
            help="Record jobs again that have a run directory and no row in the database.",
        ),
    ] = False,
    deep: Annotated[
        bool, typer.Option("--deep", help="Read all results, and compare each with its checksum.")
    ] = False,
    as_json: common_arguments.Json = False,
) -> int:
    """Check the installation, and show what is missing.

    Each problem comes with its remedy. Exits 1 if a problem keeps jobs from running.
    """
    checks = _checks(run=run, engine=engine, again=rebuild, deep=deep)
    return report(checks, as_json=as_json)


def _checks(*, run: bool, engine: str | None, again: bool, deep: bool) -> Iterator[Check]:
    yield _platform()
    try:
        from crystalmath.config import load

        config = load()
    except CrystalMathError as error:
        remedy = "no job is accepted until it is corrected; docs/configuration.md describes it"
        yield Check("config", "error", str(error), remedy)
        return
    yield _guarded("home", _home, config)
    yield _guarded("disk", _disk, config)
    yield from storage_checks(config)
    yield _config(config)
    if again:
        yield _guarded("rebuild", _rebuild, config)
    yield _guarded("database", _database, config)
    yield from _journals(config)
    yield _guarded("packs", _packs, config)
    if deep:
        yield _guarded("outcomes", _outcomes, config)
    yield from _failures(config)
    yield _guarded("quacc", _quacc)
    yield from engine_checks.installed(engine)
    yield from engine_checks.schedulers(config)
    yield from engine_checks.unknown_names(config)
    yield from engine_checks.unusable_plugins()
    yield from server_checks(config)
    yield _containment()
    yield from _programs(config)
    if run:
        yield _guarded("run", _relax, engine)


def _guarded(name: str, look: Callable[..., Check], *arguments: object) -> Check:
    try:
        return look(*arguments)
    except (CrystalMathError, ImportError, OSError) as error:
        return Check(name, "error", str(error) or type(error).__name__)


def _platform() -> Check:
    version = f"Python {platform.python_version()} on {platform.system()}"
    linux = platform.system() == "Linux"
    remedy = (
        None if linux else "running jobs needs Linux, whose child subreapers hold them together"
    )
    state = "ok" if linux else "error"
    return Check("platform", state, version, remedy)


def _home(config: Config) -> Check:
    import tempfile

    source = "CRYSTALMATH_HOME" if os.environ.get("CRYSTALMATH_HOME") else "the default"
    message = f"{config.home} ({source})"
    # Before the home exists, its nearest existing parent decides.
    folder = next(place for place in (config.home, *config.home.parents) if place.exists())
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".crystalmath-"):
            return Check("home", "ok", message)
    except OSError as error:  # for root, access rights do not tell of read-only mounts
        remedy = (
            f"{folder} cannot be written to ({error.strerror}); set CRYSTALMATH_HOME to a folder "
            "that can"
        )
        return Check("home", "error", message, remedy)


def _disk(config: Config) -> Check:
    from crystalmath.reading.current_jobs import HomeDisk

    disk = HomeDisk(lambda: config.jobs_directory)
    disk.look()
    if disk.last is None or not disk.last.size:  # /proc and /sys have none
        return Check("disk", "warning", "its free space is unknown")
    seen = disk.last
    message = f"{output.size(seen.free)} of {output.size(seen.size)} are free at {seen.path}"
    remedy = "results of running jobs wait for free space; `crystalmath du` measures the jobs"
    state = "error" if seen.full else "ok"
    return Check("disk", state, message, remedy if seen.full else None)


def _config(config: Config) -> Check:
    file = config.home / "config.toml"
    said = str(file) if file.exists() else f"no {file}"
    engine = config.engine or "none (submissions use local)"
    admitted = ", ".join(config.recipes_allow) or "none"
    message = f"{said}; engine: {engine}; recipes beside quacc.recipes: {admitted}"
    return Check("config", "ok", message)


def _rebuild(config: Config) -> Check:
    from crystalmath.quacc.store import JobStore
    from crystalmath.running.rebuild import NOT_REBUILT, rebuild
    from crystalmath.server.endpoint import Place

    server = Place.of(config.home).read_lock()
    if server is not None:
        from crystalmath.client.handshake import check_build

        check_build(server.version, config.home)
    with JobStore(config.database_url, network=config.network) as store:
        rebuilt = rebuild(store, config.jobs_directory)
    message = f"recorded {len(rebuilt.recorded)} jobs again from {config.jobs_directory}"
    if rebuilt.recorded:
        message += f"; {NOT_REBUILT}"
    if not rebuilt.left_out:
        return Check("rebuild", "ok", message)
    remedy = "these could not be recorded: " + "; ".join(rebuilt.left_out[:5])
    return Check("rebuild", "warning", message, remedy)


def _database(config: Config) -> Check:
    from crystalmath.reading.current_jobs import directory_names

    count = sum(1 for _ in directory_names(config.jobs_directory))
    with job_rows(config) as store:
        newest = [] if store is None else store.list(limit=1)
        if count and not newest:
            what = "not there" if store is None else f"{store!r} is empty"
            message = f"{what}, and {config.jobs_directory} has {output.counted(count)}"
            remedy = "crystalmath doctor --rebuild records them again"
            return Check("database", "error", message, remedy)
        if store is None:
            return Check("database", "ok", "not there yet; the first job makes it")
        message = f"the last job is {output.age(newest[0].created_at)} old" if newest else "empty"
        return Check("database", "ok", f"{store!r}, {message}")


def _journals(config: Config) -> Iterator[Check]:
    """Check that the results of dead workers can be read."""
    from crystalmath.jobs.journal import unreadable

    if wrong := unreadable(os.fspath(config.jobs_directory)):
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        why, _, remedy = wrong[0].partition("; ")
        yield Check("journals", "error", why + more, remedy)


def _packs(config: Config) -> Check:
    from crystalmath.jobs.packs import packs_of

    sizes = packs_of(os.fspath(config.jobs_directory)).sizes()
    jobs, packs = sum(count for count, _ in sizes), output.counted(len(sizes), "pack")
    message = f"{output.counted(jobs)} in {packs} with {output.size(sum(n for _, n in sizes))}"
    return Check("packs", "ok", message if jobs else "none")


def _outcomes(config: Config) -> Check:
    from crystalmath.running.rebuild import damaged_outcomes

    with job_rows(config) as store:
        wrong = [] if store is None else damaged_outcomes(store, config.jobs_directory)
    if not wrong:
        return Check("outcomes", "ok", "each is as it was published")
    message = f"{len(wrong)} are not as they were published: {'; '.join(wrong[:5])}"
    remedy = "the disk may be failing, or somebody has edited them; run these jobs again"
    return Check("outcomes", "error", message, remedy)


def _failures(config: Config) -> Iterator[Check]:
    try:
        with job_rows(config) as store:
            newest = [] if store is None else store.failures(FAILURES)
    except CrystalMathError:
        return  # the check of the database reports it
    for failure in newest:
        named = f"{failure.job_id[:8]} {failure.name or output.short_recipe(failure.recipe)}"
        ago = "" if failure.finished_at is None else f", {output.age(failure.finished_at)} ago"
        message = f"{named}{ago}: {output.first_line(failure.error or '')}"
        yield Check("failed", "ok", message)


def _containment() -> Check:
    from crystalmath.jobs.cgroups import ControlGroup

    group = ControlGroup.make()
    if group is not None:
        group.remove()
        held = f"by a control group below {Path(group.path).parent}"
    else:
        held = "by a guardian process (no control group of version 2 can be made here)"
    message = f"what a killed supervisor leaves of a job is ended {held}"
    return Check("processes", "ok", message)


def _quacc() -> Check:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return Check("quacc", "ok", version("quacc"))
    except PackageNotFoundError:
        remedy = "pip install 'crystalmath[quacc]'"
        return Check("quacc", "error", "is not installed", remedy)


def _programs(config: Config) -> Iterator[Check]:
    from crystalmath.config import job_environment
    from crystalmath.preflight.programs_here import conditions

    yield from map(condition, conditions(job_environment(config)))


def _relax(engine: str | None) -> Check:
    from crystalmath.cli.run import Interrupts, run_submission
    from crystalmath.client import Submission

    recipe = "emt.core.relax_job"
    submission = Submission(recipe=recipe, atoms=_aluminium(), engine=engine, name="doctor")
    with Interrupts() as interrupts:
        job = run_submission(submission, interrupts)
    interrupts.leave_if_asked()
    if job.state.value != "completed":
        see = f"see crystalmath result {job.job_id}"
        message = f"{job.engine}: {job.state.value}: {job.error}"
        return Check("run", "error", message, see)
    values = ", ".join(
        f"{name} {value}" for name, value in output.summary_fields(job.document()) if value
    )
    return Check("run", "ok", f"{job.engine}: {values}")


def _aluminium() -> Atoms:
    from ase.build import bulk

    atoms = bulk("Al", cubic=True)
    atoms.positions[0, 0] += 0.1
    return atoms
