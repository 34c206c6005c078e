"""Tests that an engine leaves jobs, their owner and the machine as it should."""

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
    """Tests on a stage: a process runs a few jobs, and their surroundings are recorded."""

    @pytest.fixture
    def stage(
        self, kit: Kit, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
    ) -> Stage:
        """Return the stage after its jobs; the tests of the class share it."""

        def make() -> Stage | Exception:
            items: list[Any] = [
                each for each in request.session.items if each.parent is request.node.parent
            ]
            try:
                return Stage(kit, tmp_path_factory.mktemp("stage"), {i.originalname for i in items})
            except Exception as error:  # noqa: BLE001 - every test of the class raises it
                return error

        stage = kit.once("stage", make)
        if isinstance(stage, Exception):
            raise stage
        return stage


class Inheritance(Staged):
    """The surroundings of a job on each worker, which must be as core promises."""

    guide: ClassVar[str] = "What a job inherits"

    @pytest.mark.parametrize(
        "name", ["A_VARIABLE", "VASP_VARIABLE", "HOME", "LANG", "LC_ALL", "TMPDIR", "USER"]
    )
    def test_a_job_finds_the_variables_of_its_owner(
        self, kit: Kit, stage: Stage, name: str
    ) -> None:
        """A worker passes on the environment of the process that submits."""
        name = f"{name}_OF_THE_SUBMITTER" if name.endswith("VARIABLE") else name
        if not name.startswith("VASP_"):  # core forwards these itself
            kit.needs("workers_inherit")
        expected = stage.born.get(name)
        if name == "USER" and expected is None:  # as in a container, where a worker may set it
            pytest.skip("there is no USER in the environment of the process that submits")
        what = f"a worker that has the variable {name} of the process that submits, {expected!r}"
        for job in stage.jobs.values():
            value = job["environment"].get(name)
            _require(what, value, holds=value == expected)

    def test_a_job_finds_the_pythonpath_of_its_owner(self, kit: Kit, stage: Stage) -> None:
        """A worker's Python has the PYTHONPATH of the process that submits."""
        kit.needs("workers_inherit")
        # The others may be relative paths.
        expected = stage.born["PYTHONPATH"].split(":")[0]
        what = f"a worker that has the PYTHONPATH of the process that submits, with {expected}"
        for job in stage.jobs.values():
            _require(what, job["path"], holds=expected in job["path"])

    def test_a_job_hears_all_signals(self, stage: Stage) -> None:
        """A job ignores and blocks no signal."""
        what = "no signal that is ignored or blocked, SIGINT and SIGTERM above all"
        for job in stage.jobs.values():
            _require(what, job["signals"], holds=not any(job["signals"].values()))

    def test_a_job_has_standard_streams(self, stage: Stage) -> None:
        """Its input is at its end, and its output and error are open, with UTF-8."""
        expected = {"input": "at its end", "output": "open, utf-8", "error": "open, utf-8"}
        for job in stage.jobs.values():
            streams = job["streams"]
            _require(f"standard streams that are {expected}", streams, holds=streams == expected)

    def test_a_job_has_the_locale_of_its_owner(self, kit: Kit, stage: Stage) -> None:
        """A worker has the encodings of the process that submits."""
        kit.needs("workers_inherit")
        what = f"a worker with the locale of the process that submits, {stage.own['encodings']}"
        for job in stage.jobs.values():
            _require(what, job["encodings"], holds=job["encodings"] == stage.own["encodings"])

    def test_a_job_has_the_umask_that_keeps_others_out(self, stage: Stage) -> None:
        """It is 077, so that other users cannot read a job's files."""
        for job in stage.jobs.values():
            umask = f"{job['umask']:03o}"
            _require("the umask 077, which core sets", umask, holds=umask == "077")

    def test_a_job_has_the_limits_of_its_owner(self, kit: Kit, stage: Stage) -> None:
        """A worker's resource limits are not lower than those of the process that submits."""
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
        _require(what, lowered, holds=not lowered)

    def test_jobs_have_the_cores_of_their_owner(self, kit: Kit, stage: Stage) -> None:
        """Jobs at once have as many cores together; workers may be bound, each to its own."""
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
        _require(
            what,
            cores_of_jobs,
            holds=len({core for cores in cores_of_jobs for core in cores}) >= enough,
        )

    def test_a_job_begins_in_its_work_directory(self, stage: Stage) -> None:
        """Its working directory is `N.work` in its run directory."""
        for directory, job in stage.jobs.items():
            _require(f"the work directory {directory}", job["cwd"], holds=job["cwd"] == directory)


class Surroundings(Staged):
    """The owner and the machine, in which an engine must change nothing."""

    guide: ClassVar[str] = "What your engine leaves as it was"

    # --- its owner ---------------------------------------------------------------------------

    @pytest.mark.parametrize("topic", snapshot.TOPICS)
    def test_its_owner_stays_as_it_was(self, stage: Stage, topic: str) -> None:
        """An engine changes nothing in the process that submits, also not for a moment."""
        what = f"that it leaves the {topic} of the process that submits alone"
        changes = stage.changed_by_use[topic] or stage.changed[topic]
        _require(what, changes, holds=not changes)

    def test_no_descriptor_is_left_open(self, stage: Stage) -> None:
        """After `close` its owner has no descriptor that it did not have before."""
        what = "no more open descriptors in its owner than before, once it is closed"
        _require(what, stage.descriptors, holds=not stage.descriptors)

    def test_a_job_costs_its_owner_nothing(self, stage: Stage) -> None:
        """A job that has ended leaves no descriptor, thread or process in its owner."""
        what = (
            "that no job leaves a descriptor, thread or process in its owner, after "
            f"{JOBS} jobs that completed, {JOBS} that were cancelled, and {JOBS} that failed"
        )
        _require(what, stage.leaks, holds=not stage.leaks)

    def test_its_owner_hears_of_its_children(self, stage: Stage) -> None:
        """The owner gets the exit codes of its own children; an engine waits for none of them."""
        what = (
            "that the process that submits gets the exit code of a child of its own, "
            f"{CHILD_EXITS_WITH}: wait for your own children alone, by their pids"
        )
        code = f"{stage.child_ended_with}, as if the engine had waited for it"
        _require(what, code, holds=stage.child_ended_with == CHILD_EXITS_WITH)

    def test_its_owner_reads_its_standard_input(self, stage: Stage) -> None:
        """An engine and its commands read nothing from the owner's standard input."""
        what = (
            f"that it leaves {TYPED!r} in the standard input of the process that submits: start "
            "your commands with `stdin=subprocess.DEVNULL`, or a pipe"
        )
        _require(what, f"{stage.typed!r} is left", holds=stage.typed == TYPED)

    def test_its_owner_runs_its_script_alone(self, stage: Stage) -> None:
        """No worker imports the owner's script, as `multiprocessing` does."""
        what = (
            "that no worker runs the script of the process that submits again, as "
            "`multiprocessing` does with its `__main__`: it would submit its jobs again. Start "
            "workers in an agent, or as processes with a module of your own"
        )
        _require(
            what, "a worker that has imported it as `__mp_main__`", holds=not stage.was_run_again
        )

    def test_its_owner_closes_its_pipes(self, stage: Stage) -> None:
        """No worker keeps a pipe of its owner open."""
        what = (
            "that a pipe of the process that submits ends once that process closes it. If a worker "
            "keeps it open, a thread or `multiprocessing.Process` of the script hangs that reads "
            "it to the end. Start workers as programs of their own, with `subprocess` or in an "
            "agent, and not by `os.fork`"
        )
        _require(
            what, f"it is open in {', '.join(stage.pipe_holders)}", holds=not stage.pipe_holders
        )

    # --- the machine -------------------------------------------------------------------------

    def test_no_port_beyond_loopback(self, kit: Kit, stage: Stage) -> None:
        """An engine with workers on this host listens on 127.0.0.1 alone."""
        kit.needs("workers_here")
        what = "that it listens on 127.0.0.1 alone, and connects its sockets that send by UDP"
        _require(what, stage.strange_ports, holds=not stage.strange_ports)

    def test_no_port_for_everybody(self, stage: Stage) -> None:
        """No port of an engine serves another user of the machine."""
        what = (
            "that its ports serve only who shows a key, because other users reach them, too; and "
            "that a Unix socket has a path, in a folder of mode 700"
        )
        _require(what, stage.open_ports, holds=not stage.open_ports)

    def test_what_waits_sleeps(self, stage: Stage) -> None:
        """Idle threads and processes of an engine use no core."""
        what = (
            "that its threads and processes sleep while they have nothing to do, so that jobs get "
            "the cores: wait for an event, a queue or a pipe, or pause before you look again"
        )
        _require(what, "; ".join(stage.restless), holds=not stage.restless)

    def test_no_variable_in_a_command_line(self, stage: Stage) -> None:
        """No command line shows the owner's variables, because all users can read it."""
        what = (
            "that no command line of its processes shows variables of the environment, because all "
            "users can read it with `ps`: pass them as an environment, or in a file of mode 600"
        )
        _require(what, stage.shown_to_all, holds=not stage.shown_to_all)

    def test_no_file_elsewhere(self, stage: Stage) -> None:
        """An engine writes below `settings.directory` alone."""
        files = stage.files + stage.files_in_use
        what = "that it writes below `settings.directory`, and changes no file or mode elsewhere"
        _require(what, files, holds=not files)

    def test_a_home_with_blanks_and_accents(self, kit: Kit) -> None:
        """Jobs run there. An engine whose scripts cannot name such a path refuses it plainly."""
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
        _require(promised, outcome["error"], holds=outcome["state"] == "completed")
        tenant.ask("close")

    def test_killed_at_each_moment_of_a_launch(self, kit: Kit, tmp_path: Path) -> None:
        """The next process to use the engine tidies up: no process, file or socket is left."""
        temporary = tmp_path / "tmp"
        temporary.mkdir()
        launches = KilledLaunches(kit, temporary)
        launches.kill_all()
        launches.wait_for_the_end()
        if launches.left():
            launches.tidy_up()
        what = "that nothing of its killed owners is left once the next one has come and gone"
        _require(what, launches.left(), holds=not launches.left())


def _is_lower(limit: int, other: int) -> bool:
    unlimited = -1
    return limit != unlimited and (other == unlimited or limit < other)


def _require(expected: str, actual: object, *, holds: bool) -> None:
    if not holds:
        pytest.fail(_promise(expected, actual))


def _promise(expected: str, actual: object) -> str:
    return f"expected of the engine: {expected}; found: {actual}"
