"""What an engine does to its surroundings: to its jobs, to its owner, and to the machine."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from crystalmath.testing import snapshot
from crystalmath.testing.contract.base import Base
from crystalmath.testing.contract.stage import JOBS, TYPED, Stage
from crystalmath.testing.killed_launches import KilledLaunches
from crystalmath.testing.oracle import Oracle
from crystalmath.testing.owner import CHILD_EXITS_WITH, OwnerError

if TYPE_CHECKING:
    from pathlib import Path

    from crystalmath.testing.contract.base import Kit


class Staged(Base):
    """One process runs a few jobs; what they, it and the machine found is compared at the end."""

    @pytest.fixture
    def stage(
        self, kit: Kit, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
    ) -> Stage:
        """Return what was noted; the tests of a class share it."""

        def make() -> Stage | Exception:
            items: list[Any] = [
                each for each in request.session.items if each.parent is request.node.parent
            ]
            try:
                return Stage(kit, tmp_path_factory.mktemp("stage"), {i.originalname for i in items})
            except Exception as error:  # noqa: BLE001 - once for all tests, in each of them
                return error

        stage = kit.once("stage", make)
        if isinstance(stage, Exception):
            raise stage
        return stage


class Inheritance(Staged):
    """What a job finds around itself on each worker, compared with what core promises."""

    guide: ClassVar[str] = "What a job inherits"

    @pytest.mark.parametrize(
        "name", ["A_VARIABLE", "VASP_VARIABLE", "HOME", "LANG", "LC_ALL", "TMPDIR", "USER"]
    )
    def test_a_job_finds_the_variables_of_its_owner(
        self, kit: Kit, stage: Stage, name: str
    ) -> None:
        name = f"{name}_OF_THE_SUBMITTER" if name.endswith("VARIABLE") else name
        if not name.startswith("VASP_"):  # which core brings itself
            kit.needs("workers_inherit")
        expected = stage.born.get(name)
        if (
            name == "USER" and expected is None
        ):  # as in a container; who looks up its name may set it
            pytest.skip("there is no USER in the environment of the process that submits")
        what = f"a worker that has the variable {name} of the process that submits, {expected!r}"
        for job in stage.jobs.values():
            value = job["environment"].get(name)
            _kept(value == expected, what, value)

    def test_a_job_finds_the_pythonpath_of_its_owner(self, kit: Kit, stage: Stage) -> None:
        kit.needs("workers_inherit")
        # Only the first of them is known to be no relative path.
        expected = stage.born["PYTHONPATH"].split(":")[0]
        what = f"a worker that has the PYTHONPATH of the process that submits, with {expected}"
        for job in stage.jobs.values():
            _kept(expected in job["path"], what, job["path"])

    def test_a_job_hears_all_signals(self, stage: Stage) -> None:
        what = "no signal that is ignored or blocked, SIGINT and SIGTERM above all"
        for job in stage.jobs.values():
            _kept(not any(job["signals"].values()), what, job["signals"])

    def test_a_job_has_standard_streams(self, stage: Stage) -> None:
        expected = {"input": "at its end", "output": "open, utf-8", "error": "open, utf-8"}
        for job in stage.jobs.values():
            streams = job["streams"]
            _kept(streams == expected, f"standard streams that are {expected}", streams)

    def test_a_job_has_the_locale_of_its_owner(self, kit: Kit, stage: Stage) -> None:
        kit.needs("workers_inherit")
        what = f"a worker with the locale of the process that submits, {stage.own['encodings']}"
        for job in stage.jobs.values():
            _kept(job["encodings"] == stage.own["encodings"], what, job["encodings"])

    def test_a_job_has_the_umask_that_keeps_others_out(self, stage: Stage) -> None:
        for job in stage.jobs.values():
            umask = f"{job['umask']:03o}"
            _kept(umask == "077", "the umask 077, which core sets", umask)

    def test_a_job_has_the_limits_of_its_owner(self, kit: Kit, stage: Stage) -> None:
        kit.needs("workers_inherit")
        kit.needs("workers_here")
        lowered = [
            f"{name} is {limit} and was {stage.own['limits'][name]}"
            for job in stage.jobs.values()
            for name, limit in job["limits"].items()
            if any(map(_is_lower, limit, stage.own["limits"][name]))
        ]
        what = (
            "a worker with the limits, soft and hard, of the process that submits, or higher ones"
        )
        _kept(not lowered, what, lowered)

    def test_jobs_have_the_cores_of_their_owner(self, kit: Kit, stage: Stage) -> None:
        """All of them, or so many as there are jobs at once: workers may be bound to cores."""
        kit.needs("workers_inherit")
        kit.needs("workers_here")
        enough = min(len(stage.own["cores"]), len(stage.jobs))
        if enough == 1 or not stage.ran_at_once:
            pytest.skip("there is one core, or one job at a time")
        cores_of_jobs = [job["cores"] for job in stage.jobs.values()]
        what = (
            f"{len(cores_of_jobs)} jobs at once that have {enough} cores together, of those of the "
            f"process that submits ({stage.own['cores']}): bind each worker to others, or none"
        )
        _kept(
            len({core for cores in cores_of_jobs for core in cores}) >= enough, what, cores_of_jobs
        )

    def test_a_job_begins_in_its_work_directory(self, stage: Stage) -> None:
        for directory, job in stage.jobs.items():
            _kept(job["cwd"] == directory, f"the work directory {directory}", job["cwd"])


class Surroundings(Staged):
    """What its owner and the machine find: nothing has changed."""

    guide: ClassVar[str] = "What your engine leaves as it was"

    # --- what its owner finds ----------------------------------------------------------------

    @pytest.mark.parametrize("topic", snapshot.TOPICS)
    def test_its_owner_stays_as_it_was(self, stage: Stage, topic: str) -> None:
        what = f"that it leaves the {topic} of the process that submits alone"
        changes = stage.changed_by_use[topic] or stage.changed[topic]
        _kept(not changes, what, changes)

    def test_no_descriptor_is_left_open(self, stage: Stage) -> None:
        what = "no descriptor that its owner has not had before, once it is closed"
        _kept(not stage.descriptors, what, stage.descriptors)

    def test_a_job_costs_its_owner_nothing(self, stage: Stage) -> None:
        what = (
            "no descriptor, thread or process more in its owner for each job that has ended, of "
            f"{JOBS} that completed, {JOBS} that were cancelled, and {JOBS} that failed"
        )
        _kept(not stage.leaks, what, stage.leaks)

    def test_its_owner_hears_of_its_children(self, stage: Stage) -> None:
        what = (
            f"that the process that submits is told that a child of its own exited with "
            f"{CHILD_EXITS_WITH}: wait for your own children alone, by their pids"
        )
        code = f"{stage.child_ended_with}, as if somebody else had waited for it"
        _kept(stage.child_ended_with == CHILD_EXITS_WITH, what, code)

    def test_its_owner_reads_its_standard_input(self, stage: Stage) -> None:
        what = (
            f"that it leaves {TYPED!r} in the standard input of the process that submits: start "
            "your commands with `stdin=subprocess.DEVNULL`, or a pipe"
        )
        _kept(stage.typed == TYPED, what, f"{stage.typed!r} is left")

    def test_its_owner_runs_its_script_alone(self, stage: Stage) -> None:
        what = (
            "that no worker runs the script of the process that submits again, which "
            "`multiprocessing` does with its `__main__`: its jobs would be submitted again. Start "
            "workers in an agent, or as processes with a module of your own"
        )
        _kept(not stage.was_run_again, what, "a worker that has imported it as `__mp_main__`")

    def test_its_owner_closes_its_pipes(self, stage: Stage) -> None:
        what = (
            "that a pipe of the process that submits is at its end once that has closed it: while "
            "a worker keeps what it had open, a thread or a `multiprocessing.Process` of the "
            "script that reads up to the end hangs. Start workers as programs of their own, with "
            "`subprocess` or in an agent, and not by `os.fork`"
        )
        _kept(not stage.pipe_holders, what, f"it is open in {', '.join(stage.pipe_holders)}")

    # --- what the machine finds --------------------------------------------------------------

    def test_no_port_beyond_loopback(self, kit: Kit, stage: Stage) -> None:
        kit.needs("workers_here")
        what = "that it listens on this machine alone (127.0.0.1), and connects what sends by UDP"
        _kept(not stage.strange_ports, what, stage.strange_ports)

    def test_no_port_for_everybody(self, stage: Stage) -> None:
        what = (
            "that its ports serve nobody who shows no key: other users reach them, too; and that a "
            "Unix socket has a path, in a folder of mode 700"
        )
        _kept(not stage.open_ports, what, stage.open_ports)

    def test_what_waits_sleeps(self, stage: Stage) -> None:
        what = (
            "that its threads and processes sleep while they have nothing to do, so that jobs get "
            "the cores: wait for an event, a queue or a pipe, or pause before you look again"
        )
        _kept(not stage.restless, what, "; ".join(stage.restless))

    def test_no_variable_in_a_command_line(self, stage: Stage) -> None:
        what = (
            "that no command line of its processes has the environment, which all users of the "
            "machine could read with `ps`: pass it as an environment, or in a file of mode 600"
        )
        _kept(not stage.shown_to_all, what, stage.shown_to_all)

    def test_no_file_elsewhere(self, stage: Stage) -> None:
        files = stage.files + stage.files_in_use
        what = "that it writes below `settings.directory`, and changes no file or mode elsewhere"
        _kept(not files, what, files)

    def test_a_home_with_blanks_and_accents(self, kit: Kit) -> None:
        """It works; a scheduler's scripts may have no way to name it, which is said plainly."""
        home = kit.home / "a b \N{LATIN SMALL LETTER E WITH ACUTE}'s $1"
        home.mkdir()
        kit.engine.configure(home)
        tenant = kit.owner(CRYSTALMATH_HOME=str(home))
        try:
            (job_id,) = tenant.ask("submit", "echo")
        except OwnerError:
            refusal = re.search(
                rf"ConfigError: .*{re.escape(repr(str(home)))}.*", tenant.new_output()[1]
            )
            if kit.capabilities.workers_here or refusal is None:
                raise
            pytest.skip(refusal[0])
        promised = f"that it runs jobs in a home named {home.name!r}"

        def what() -> str:
            return _promise(promised, f"a job that is {tenant.ask('status', job_id)!r}")

        outcome = Oracle(home).ended(job_id, kit.engine.limit_s, what)
        _kept(outcome["state"] == "completed", promised, outcome["error"])
        tenant.ask("close")

    def test_killed_at_each_moment_of_a_launch(self, kit: Kit, tmp_path: Path) -> None:
        """Nothing is left: no process; no file, socket or shared memory that the next one keeps."""
        temporary = tmp_path / "tmp"
        temporary.mkdir()
        launches = KilledLaunches(kit, temporary)
        launches.kill_all()
        launches.wait_for_the_end()
        if launches.left():
            launches.tidy_up()
        what = "that what its killed owners leave is gone once the next one has come and gone"
        _kept(not launches.left(), what, launches.left())


def _is_lower(limit: int, other: int) -> bool:
    unlimited = -1
    return limit != unlimited and (other == unlimited or limit < other)


def _kept(kept: bool, expected: str, actual: object) -> None:  # noqa: FBT001
    if not kept:
        pytest.fail(_promise(expected, actual))


def _promise(expected: str, actual: object) -> str:
    return f"expected of the engine: {expected}; found: {actual}"
