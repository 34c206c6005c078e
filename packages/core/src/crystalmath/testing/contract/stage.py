"""A process that uses an engine, with records of its surroundings before and afterwards."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from collections import Counter
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from crystalmath.testing import traces
from crystalmath.testing.oracle import TRANSIENT, links, shown
from crystalmath.testing.owner import NOTE, Owner
from crystalmath.testing.waiting import within

if TYPE_CHECKING:
    from crystalmath.testing.contract.base import Kit

#: How many jobs run one after another: something that is left of each shows as many times.
JOBS = 4
#: In how many rounds in a row a leak must show: a pool, as of the database, grows less often.
ROUNDS = 3
#: The tests of jobs that leave something behind, and of processes that never sleep.
LEAKS, IDLENESS = "test_a_job_costs_its_owner_nothing", "test_what_waits_sleeps"
#: How long an engine may keep things that were of use for a job alone, in seconds.
SETTLE_S = 15.0
#: How long a descriptor or a thread may outlive `close`, in seconds.
LINGER_S = 30.0
#: The process's standard input, like a script that is piped into Python.
TYPED = "the first line\nthe second line\nthe third line\n"
#: The name of a variable whose value no other user may read.
HIDDEN = "A_SECRET_OF_THE_SUBMITTER"
MODULE = "a_module_of_the_submitter"
#: A value of a variable with all kinds of characters, as of a function that a shell exports.
WORDS = "some words, \N{GREEK SMALL LETTER ALPHA} {\n  '$HOME' \"\\\n}"


class Stage:
    """Records of a process that runs some jobs and closes its engine, with all faults in words.

    `folder` is empty; the process has its working directory, temporary files and home directory
    there. Records that take long are made only if one of the `tests` needs them.
    """

    def __init__(self, kit: Kit, folder: Path, tests: set[str]) -> None:
        self._kit = kit
        self._tests = tests
        self._folder = folder
        self._places = traces.Places(folder)
        self._ports: set[traces.Port] = set()
        self._secret = secrets.token_hex(16)
        self._note = folder / "note"
        self.strange_ports: list[str] = []
        self.open_ports: list[str] = []
        self.born = self._environment()
        errors = folder / "errors"
        work = self._places.work
        typed = TYPED.encode()
        with Owner(
            kit.engine.name, self.born, errors, kit.engine.cluster, work, typed
        ) as self._owner:
            # The imports of this call may open something that is not the engine's.
            self._owner.ask("write", "echo")
            descriptors = self._descriptors()
            self._owner.ask("note_passing", str(kit.home), str(folder))
            self._use()
            self._owner.ask("close")
            self.was_run_again = self._note.exists()
            self.typed: str = self._owner.ask("typed")
            self.changed: dict[str, list[str]] = self._owner.ask("changes")
            passing: dict[str, Any] = self._owner.ask("passing")
            self.files_in_use += passing.pop("files")
            temporary: dict[str, str] = passing.pop("temporary")
            self.changed_by_use |= {
                topic: self.changed_by_use[topic] + changes for topic, changes in passing.items()
            }
            # Garbage may hold temporary files, which Python would remove sooner or later.
            self._owner.ask("collect")
            # A turn is longer on a slow machine.
            linger = max(LINGER_S, 10 * kit.engine.turn_s)
            within(lambda: not self._left(descriptors), linger)
            self.descriptors = sorted(self._left(descriptors).elements())
        self.files: list[str] = []

        def is_as_it_was() -> bool:
            left = [
                f"{path} is left ({who})"
                for path, who in temporary.items()
                if os.path.lexists(path)
            ]
            self.files = self._places.changes() + left
            return not self.files

        # Its processes remove their files at their end, which may be a while after its own.
        within(is_as_it_was, kit.engine.linger_s + 10 * kit.engine.turn_s)
        shutil.rmtree(self._places.home, ignore_errors=True)

    def _use(self) -> None:
        # Each worker has one of these jobs before the first one ends.
        gate = Path(tempfile.mkdtemp(dir=self._kit.home, prefix="stage-"), "gate")
        count = self._kit.engine.workers
        jobs: list[str] = self._owner.ask("submit", "surroundings", count, path=str(gate))
        # Another test checks whether there are so many workers.
        self.ran_at_once = self._kit.are_begun(jobs)
        self._look_at_ports()
        listening = traces.ports(self._processes(), "udp")
        self.shown_to_all = [each for one in self._processes() for each in self._betrayed(one)]
        self.pipe_holders = self._pipe_holders()
        wants_idleness = IDLENESS in self._tests
        self.restless = []
        if wants_idleness:
            self.restless = [
                f"{each}, while its jobs slept" for each in traces.restless(self._processes)
            ]
        self._owner.ask("start_child")
        gate.touch()
        self._end(jobs)
        self.child_ended_with: int = self._owner.ask("child_ended_with")
        self.jobs: dict[str, dict[str, Any]] = {
            str(self._kit.oracle.directory(job_id) / "1.work"): self._kit.oracle.payload(job_id)
            for job_id in jobs
        }
        self.own: dict[str, Any] = self._owner.ask("surroundings")
        self.changed_by_use: dict[str, list[str]] = self._owner.ask("changes")
        self._look_at_ports()
        # A socket that existed for a moment, as for a query of a name, served nobody.
        stayed = [port for port in traces.ports(self._processes(), "udp") if port in listening]
        self.strange_ports += [f"UDP {port}" for port in stayed if not port.is_loopback]
        self.files_in_use = [each for one in self._processes() for each in self._written(one)]
        rounds = (self._leaks() for _ in range(ROUNDS if LEAKS in self._tests else 0))
        shown = list(takewhile(bool, rounds))
        self.leaks = shown[-1] if len(shown) == ROUNDS else []
        if wants_idleness and not self.restless:
            idle = traces.restless(self._processes)
            self.restless = [f"{each}, while it had no job" for each in idle]

    def _processes(self) -> list[psutil.Process]:
        return [psutil.Process(self._owner.process.pid), *self._owner.others()]

    def _look_at_ports(self) -> None:
        """Look at the new ports; some are open only while jobs run."""
        new = [port for port in traces.ports(self._processes(), "tcp") if port not in self._ports]
        self._ports.update(new)
        self.strange_ports += [str(port) for port in new if not port.is_loopback]
        self.open_ports += traces.open_to_strangers(new)
        abstract = {
            f"the abstract Unix socket {name} of process {process}, which has no mode"
            for name, process in traces.unix_sockets(self._processes()).items()
            if name.startswith("@")
        }
        self.open_ports += sorted(abstract.difference(self.open_ports))

    def _pipe_holders(self) -> list[str]:
        """Return the processes that hold a pipe which the owner had before its engine."""
        name: str | None = self._owner.ask("end_pipe")
        if name is None:
            return []
        holders = [
            shown(each) for each in self._owner.others() if name in links(f"/proc/{each.pid}/fd")
        ]
        return holders or ["a process that has ended since"]

    def _leaks(self) -> list[str]:
        """Return what jobs have left in their owner: failed, completed and cancelled ones."""
        before = traces.held(self._owner.process.pid)
        # These come first, because an engine may learn of an end only after some time. They come
        # one by one, because core may pack jobs that come together into one attempt.
        jobs = [self._begin("fail", message="as the test wants") for _ in range(JOBS)]
        self._end(jobs, "failed")
        jobs = [self._begin("echo") for _ in range(JOBS)]
        self._end(jobs)
        jobs = self._owner.ask("submit", "wait_for", JOBS, path=str(self._folder / "never"))
        # The engine gets no release of a job that it has not got.
        self._kit.started(jobs[0])
        for job_id in jobs:
            self._owner.ask("cancel", job_id)
            self._end([job_id], "cancelled")

        def grown() -> list[str]:
            self._owner.ask("collect")
            return traces.grown(self._owner.process.pid, before, JOBS)

        within(lambda: not grown(), SETTLE_S)
        return grown()

    def _begin(self, recipe: str, **parameters: str) -> str:
        """Submit a job, and wait until it has begun, after the end of its launch."""
        job_id: str
        (job_id,) = self._owner.ask("submit", recipe, **parameters)
        self._kit.started(job_id)
        return job_id

    def _end(self, jobs: list[str], state: str = "completed") -> None:
        for job_id in jobs:
            outcome = self._kit.oracle.ended(job_id, self._kit.engine.limit_of(len(jobs)))
            assert outcome["state"] == state, outcome["error"]

    def _environment(self) -> dict[str, str]:
        """Return the environment of the process."""
        modules = self._folder / "modules"
        modules.mkdir()
        (modules / f"{MODULE}.py").touch()
        paths = [str(modules), os.environ.get("PYTHONPATH")]
        return {
            **os.environ,
            "A_VARIABLE_OF_THE_SUBMITTER": WORDS,
            "VASP_VARIABLE_OF_THE_SUBMITTER": "forwarded",
            HIDDEN: self._secret,
            NOTE: str(self._note),
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "HOME": str(self._places.home),
            # Matplotlib, which quacc imports, keeps files there; they are not the engine's.
            "MPLCONFIGDIR": str(self._folder / "matplotlib"),
            "TMPDIR": str(self._places.temporary),
        }

    def _descriptors(self) -> Counter[str]:
        """Return the open descriptors of the process."""
        return Counter(links(f"/proc/{self._owner.process.pid}/fd"))

    def _left(self, before: Counter[str]) -> Counter[str]:
        """Return the descriptors of the process that were not open before."""
        if self._descriptors() - before:
            self._owner.ask("collect")
        return self._descriptors() - before

    def _betrayed(self, process: psutil.Process) -> list[str]:
        """Describe a process whose command line has a variable of its owner."""
        with contextlib.suppress(*TRANSIENT):
            words = process.cmdline()
            if any(self._secret in word for word in words):
                return [f"the value of {HIDDEN} in that of {process.pid} ({words[0]})"]
        return []

    def _written(self, process: psutil.Process) -> list[str]:
        """List the files outside the home that a process has open for writing."""
        places = [str(self._kit.home), str(self._folder), "/dev/", "/proc/"]
        with contextlib.suppress(*TRANSIENT):
            return [
                f"{file.path}, open in {shown(process)}"
                for file in process.open_files()
                if file.mode != "r" and not file.path.startswith(tuple(places))
            ]
        return []
