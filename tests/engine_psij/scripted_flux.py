"""A Flux of one host, in one command: of flux(1) what an engine and its scripts use, as documented.

Jobs are files of a folder, which is this command's; each has a process that is its instance.
"""

import argparse
import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

F58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
UNLIMITED = 2**32 - 1
#: So long after its time limit, or SIGTERM, an instance is killed, in seconds.
KILL_S = 5.0


class Flux:
    """What was asked of it, and what it is to say.

    Parameters
    ----------
    folder : pathlib.Path
        Where its jobs are.
    """

    def __init__(self, folder):
        self.folder = folder
        #: What `flux batch` says that takes nothing.
        self.refusal = folder / "refusal"
        #: While it is there, its queue is stopped.
        self.is_stopped = folder / "is_stopped"

    def install(self):
        """Write the command; give the folder in which it is."""
        (self.folder / "jobs").mkdir(parents=True)
        (self.folder / "bin").mkdir()
        command = self.folder / "bin/flux"
        line = shlex.join([sys.executable, "-S", "-E", __file__, str(self.folder)])
        command.write_text(f'#!/bin/sh\necho "$@" >> {self.folder}/calls\nexec {line} "$@"\n')
        command.chmod(0o755)
        return command.parent

    def calls(self, word):
        """Tell how often a command was called."""
        lines = (self.folder / "calls").read_text().splitlines()
        return len([line for line in lines if line.split()[0] == word])

    # --- jobs ------------------------------------------------------------------------------------

    def jobs(self):
        """Return all of them, by number."""
        paths = sorted((self.folder / "jobs").glob("*.json"))
        return {int(path.stem): self.read(int(path.stem)) for path in paths}

    def read(self, number):
        """Return a job, with the exception that was raised on it."""
        job = json.loads((self.folder / f"jobs/{number}.json").read_text())
        raised = self.folder / f"jobs/{number}.raised"
        return {**job, "exception": json.loads(raised.read_text())} if raised.exists() else job

    def change(self, number, **changes):
        """Write down what became of a job; once it is taken, its instance does."""
        path = self.folder / f"jobs/{number}.json"
        job = {**(json.loads(path.read_text()) if path.exists() else {}), **changes}
        written = path.with_suffix(f".{os.getpid()}")
        written.write_text(json.dumps(job))
        written.rename(path)

    def batch(self, arguments):
        """Take a script."""
        if self.refusal.exists():
            sys.exit(self.refusal.read_text())
        script = Path(arguments[-1]).read_text()
        asked = vars(_options(script))
        number = 1000 * (len(self.jobs()) + 1)
        (self.folder / f"jobs/{number}.script").write_text(script)
        (self.folder / f"jobs/{number}.script").chmod(0o700)
        job = {"id": number, "jobid": _f58(number), "name": asked["job_name"], "asked": asked}
        self.change(number, **job, state="SCHED", urgency=16, priority=16, annotations={})
        with contextlib.suppress(FileNotFoundError):
            os.chdir(asked["cwd"])
        instance = [sys.executable, "-S", "-E", __file__, str(self.folder), "broker", str(number)]
        with Path(asked["output"]).open("wb") as output:
            subprocess.Popen(
                instance,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        print(_f58(number))

    def broker(self, arguments):
        """Be the instance of a job: wait, run its script, and tell how it ended."""
        number = int(arguments[0])
        if self.is_stopped.exists():
            reason = {"sched": {"reason_pending": "insufficient resources"}}
            self.change(number, annotations=reason)
        while self.is_stopped.exists():
            if self._ended(number):
                return
            time.sleep(0.05)
        limit = _seconds(self.read(number)["asked"]["time_limit"])
        ends = time.time() + limit if limit else None
        self.change(number, state="RUN", annotations={}, ends=ends)
        environment = {**os.environ, "FLUX_URI": str(number)}
        environment.pop("FLUX_JOB_ID", None)
        script = subprocess.Popen([self.folder / f"jobs/{number}.script"], env=environment)
        kill_at = None
        while script.poll() is None:
            if ends is not None and time.time() > ends:
                self._raise(number, "timeout", "resource allocation expired")
            if kill_at is None and self.read(number).get("exception"):
                kill_at = time.time() + KILL_S
                script.terminate()
            if kill_at is not None and time.time() > kill_at:
                script.kill()
            time.sleep(0.02)
        if not self._ended(number):
            result = "FAILED" if script.returncode else "COMPLETED"
            self.change(number, state="INACTIVE", result=result, returncode=script.returncode)
        # What else is in it ends with it; so do we.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.killpg(0, signal.SIGKILL)

    def _raise(self, number, kind, note):
        raised = self.folder / f"jobs/{number}.raised"
        if not raised.exists():
            told = {"occurred": True, "severity": 0, "type": kind, "note": note}
            written = raised.with_suffix(f".{os.getpid()}")
            written.write_text(json.dumps(told))
            written.rename(raised)

    def _ended(self, number):
        """Tell whether an exception has ended a job, and write down as what."""
        if exception := self.read(number).get("exception"):
            results = {"cancel": "CANCELED", "timeout": "TIMEOUT"}
            self.change(number, state="INACTIVE", result=results.get(exception["type"], "FAILED"))
        return bool(exception)

    # --- what is asked of them -------------------------------------------------------------------

    def list_jobs(self, arguments):
        """Tell of some jobs, or all."""
        parser = argparse.ArgumentParser(prog="flux-jobs", allow_abbrev=False)
        parser.add_argument("--json", action="store_true", required=True)
        parser.add_argument("--count", type=int, default=1000)
        parser.add_argument("--since", default="")
        parser.add_argument("jobids", nargs="*", type=_number)
        asked = parser.parse_args(arguments)
        jobs, numbers = self.jobs(), asked.jobids
        for number in numbers:
            if number not in jobs:
                print(f"JobID {_f58(number)} unknown", file=sys.stderr)
        told = [jobs[number] for number in numbers or jobs if number in jobs]
        if not numbers and not asked.since:
            told = [job for job in told if job["state"] != "INACTIVE"]
        told = [{"exception": {"occurred": False}, **job} for job in told]
        if len(numbers) != 1:
            print(json.dumps({"jobs": told}))
        elif told:
            print(json.dumps(told[0]))

    def cancel(self, arguments):
        """Raise an exception on each of some jobs."""
        for number in map(_number, arguments):
            if self.read(number)["state"] == "INACTIVE":
                sys.exit(f"flux-cancel: ERROR: {_f58(number)}: job is inactive")
            self._raise(number, "cancel", "")

    def job(self, arguments):
        """Tell how long the instance still lasts."""
        if arguments != ["timeleft"]:
            sys.exit(f"flux-job: {arguments} is not known here")
        ends = self.read(int(os.environ["FLUX_URI"]))["ends"]
        print(UNLIMITED if ends is None else max(0, int(ends - time.time())))

    def getattr(self, arguments):
        """Tell which job the instance is."""
        if arguments != ["jobid"]:
            sys.exit(f"flux-getattr: {arguments} is not known here")
        print(_f58(int(os.environ["FLUX_URI"])))

    def run(self, arguments):
        """Start the ranks of a program in the instance."""
        parser = argparse.ArgumentParser(prog="flux-run", allow_abbrev=False)
        for option in ("-N", "-n", "-c", "-g"):
            parser.add_argument(option, type=int, default=1)
        parser.add_argument("command", nargs=argparse.REMAINDER)
        asked = parser.parse_args(arguments)
        given = self.read(int(os.environ["FLUX_URI"]))["asked"]
        if (asked.N, asked.n, asked.c) != (
            given["nodes"],
            given["nslots"],
            given["cores_per_slot"],
        ):
            sys.exit(f"flux-run: ERROR: unsatisfiable request: {asked} in {given}")
        for rank in range(asked.n):
            subprocess.run(
                asked.command, env={**os.environ, "FLUX_TASK_RANK": str(rank)}, check=True
            )


def _options(script):
    """Read the directives of a script as RFC 36 says: together, and with one sentinel."""
    words, is_over = [], False
    for line in script.splitlines():
        match = re.match(r"([^\w]*(?:flux|FLUX):)(.*)", line)
        if match and (is_over or match[1] != "#FLUX:"):
            sys.exit(f"flux-batch: ERROR: orphan directive: {line}")
        if match:
            words += shlex.split(match[2], comments=True)
        elif words and line.strip() and not line.startswith("#"):
            is_over = True
    parser = argparse.ArgumentParser(prog="flux-batch", allow_abbrev=False)
    parser.add_argument("--nodes", type=int)
    parser.add_argument("--nslots", type=int, required=True)
    parser.add_argument("--cores-per-slot", type=int, default=1)
    parser.add_argument("--gpus-per-slot", type=int)
    for option in ("time-limit", "queue", "bank", "job-name", "cwd", "output", "requires"):
        parser.add_argument(f"--{option}")
    parser.add_argument("--exclusive", action="store_true")
    return parser.parse_args(words)


def _seconds(duration):
    """Read Flux's standard duration (RFC 23); a bare number is minutes."""
    if duration is None:
        return None
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    return float(duration.rstrip("smhd")) * units.get(duration[-1], 60)


def _f58(number):
    text = ""
    while number:
        number, digit = divmod(number, 58)
        text = F58[digit] + text
    return f"ƒ{text}"


def _number(text):
    """Read an id in either of the two forms that are used here."""
    if text.isdigit():
        return int(text)
    number = 0
    for digit in text.removeprefix("ƒ").removeprefix("f"):
        number = number * 58 + F58.index(digit)
    return number


if __name__ == "__main__":
    _, place, word, *rest = sys.argv
    flux = Flux(Path(place))
    getattr(flux, {"jobs": "list_jobs"}.get(word, word))(rest)
