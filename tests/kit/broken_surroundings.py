"""Engines that do something to their surroundings: to jobs, to their owner, to the machine."""

from __future__ import annotations

import contextlib
import http.server
import locale
import logging
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import xmlrpc.server
from pathlib import Path
from typing import ClassVar

from broken_engines import LEAK, SLEEP, Engine, engines

SPOIL = str(Path(__file__).with_name("spoil"))
SCRIPT = "import sys; from crystalmath import worker; worker.run(sys.argv[1])"


class InAProcess(Engine):
    """Calls core's worker in a process of its own for each job, as it should."""

    def clusters(self):
        return ["local"]

    def _work(self, attempts):
        while (attempt := attempts.get()[2]) is not None:
            self.wait()
            if not self._take(attempt):
                continue
            self._run(str(attempt.directory))
            self._running.discard(attempt.id)
            self.notice(attempt.id)

    def wait(self):
        """Wait until the job at the head of the queue may begin."""

    def _run(self, directory):
        command = [sys.executable, "-P", "-c", SCRIPT, directory]
        subprocess.run(command, env=self.environment(), preexec_fn=self.prepare, check=False)

    def environment(self):
        return dict(os.environ)

    def prepare(self):
        """Do something to the new process."""


# --- to jobs: what core cannot put right ----------------------------------------------------------


def _what_it_knows(*_):
    """Return what such an engine passes on of the submitter's environment."""
    return {name: value for name, value in os.environ.items() if not name.startswith("A_")}


engines(
    globals(),
    InAProcess,
    "environment",
    EmptyEnvironment=lambda _: {},
    DropsVariable=_what_it_knows,
    # The user's modules are not found.
    DropsPythonPath=lambda _: {k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
)


class SecondWorkerKnowsLittle(InAProcess):
    """Has a second worker that passes on what it knows alone."""

    crew = 2

    def environment(self):
        me = threading.current_thread()
        first = self.__dict__.setdefault("_first", me)
        return dict(os.environ) if first is me else _what_it_knows()


class ReplacementKnowsLittle(InAProcess):
    """Passes on what it knows alone once a worker was killed."""

    _killed = False

    def _run(self, directory):
        command = [sys.executable, "-P", "-c", SCRIPT, directory]
        done = subprocess.run(command, env=self.environment(), check=False)
        self._killed = self._killed or done.returncode < 0

    def environment(self):
        return _what_it_knows() if self._killed else dict(os.environ)


class OtherLocale(InAProcess):
    """Has workers that write text in another encoding than their owner."""

    def environment(self):
        utf8 = locale.getencoding().lower() == "utf-8"
        return {**os.environ, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"} | (
            {"LC_ALL": "C"} if utf8 else {"LC_ALL": "C.UTF-8"}
        )


class FewerFiles(InAProcess):
    """Lowers a limit for its own sake, and its jobs inherit it."""

    def prepare(self):
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))


class UnquotedPaths(Engine):
    """Builds a command line as a text."""

    start_s = 30.0

    def _work(self, attempts):
        while (attempt := attempts.get()[2]) is not None:
            command = f"{sys.executable} -P -c '{SCRIPT}' {attempt.directory}"
            subprocess.run(command, shell=True, check=False, stderr=subprocess.DEVNULL)
            self._queued.discard(attempt.id)
            self.notice(attempt.id)


# --- to jobs: what core puts right before the recipe begins ---------------------------------------


class IgnoresSignals(InAProcess):
    """Keeps Ctrl-C and the like from its workers, and so from their jobs."""

    def prepare(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1})


engines(
    globals(),
    InAProcess,
    "prepare",
    ClosesStreams=lambda _: os.closerange(0, 3),  # as daemons do
    OpenToAll=lambda _: os.umask(0),
    WorksInRoot=lambda _: os.chdir("/"),
)


# --- to jobs: past what core puts right -----------------------------------------------------------


class PastCore(InAProcess):
    """Does the like of it as the recipe begins."""

    what: ClassVar[str]

    def environment(self):
        path = os.pathsep.join(filter(None, [SPOIL, os.environ.get("PYTHONPATH")]))
        return {**os.environ, "PYTHONPATH": path, "SPOIL": self.what}


engines(
    globals(),
    PastCore,
    "what",
    JobsIgnoreSignals="ignore_signals",
    JobsBlockSignals="block_signals",
    JobsWithoutStreams="close_streams",
    JobsOpenToAll="open_to_all",
    JobsElsewhere="leave_directory",
)


# --- to its owner ---------------------------------------------------------------------------------


class AtLaunch(Engine):
    """Does something at its first launch, and ends it in `stop`."""

    _has_begun = False

    def launch(self, attempts):
        if not self._threads:
            self._has_begun = True
            self.begin()
        return super().launch(attempts)

    def stop(self):
        super().stop()
        if self._has_begun:
            self.end()

    def begin(self):
        """Do it."""

    def end(self):
        """Undo it."""


class HandlesSignals(AtLaunch):
    """Takes SIGTERM for itself."""

    def __init__(self, settings):
        super().__init__(settings)
        signal.signal(signal.SIGTERM, lambda *_: self.close())


class ForAMoment(AtLaunch):
    """Changes something that the threads of its owner see meanwhile."""

    def begin(self):
        with contextlib.ExitStack() as later:
            self.change(later)


class ChangesDirectoryForAMoment(ForAMoment):
    def change(self, later):
        later.enter_context(contextlib.chdir("/"))


class SetsVariableForAMoment(ForAMoment):
    def change(self, later):
        os.environ["BROKEN_ENGINE_ADDRESS"] = "localhost:1"
        later.callback(os.environ.pop, "BROKEN_ENGINE_ADDRESS")


class ChangesUmaskForAMoment(ForAMoment):
    def change(self, later):
        later.callback(os.umask, os.umask(0o007))


class LimitsSocketsForAMoment(ForAMoment):
    def change(self, later):
        socket.setdefaulttimeout(5)
        later.callback(socket.setdefaulttimeout, None)


class CapturesWarnings(AtLaunch):
    """Has the user's warnings go to the log."""

    def begin(self):
        logging.captureWarnings(capture=True)

    def end(self):
        logging.captureWarnings(capture=False)


class WritesBesideTheJob(Engine):
    """Writes its script into the run directory, which is core's."""

    def launch(self, attempts):
        for attempt in attempts:
            if attempt.directory.exists():
                (attempt.directory / "submit.sh").write_text("")
        return super().launch(attempts)


class ListensWhileJobsRun(Engine):
    """Waits for a word of each job that runs, on all addresses of the machine."""

    def _run(self, attempt):
        with socket.create_server(("0.0.0.0", 0)):
            super()._run(attempt)


class AnswersXmlRpc(AtLaunch):
    """Takes work from anybody on this machine by XML-RPC, which is no GET."""

    def begin(self):
        self._server = xmlrpc.server.SimpleXMLRPCServer(("127.0.0.1", 0), logRequests=False)
        self._server.register_function(str, "run")
        threading.Thread(target=self._server.serve_forever, args=[0.05], daemon=True).start()

    def end(self):
        self._server.shutdown()
        self._server.server_close()


class LeavesTemporaryFile(AtLaunch):
    """Writes to /tmp, whatever TMPDIR says, and leaves it there."""

    def begin(self):
        Path(f"/tmp/broken-engine-note-{os.getpid()}").write_text("{}")


class LowersLimit(AtLaunch):
    def begin(self):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))


engines(
    globals(),
    AtLaunch,
    "begin",
    ChangesDirectory=lambda _: os.chdir("/"),
    ChangesUmask=lambda _: os.umask(0o007),
    SetsVariable=lambda _: os.environ.update(BROKEN_ENGINE_ADDRESS="localhost:1"),
    ConfiguresLogging=lambda _: logging.basicConfig(level=logging.DEBUG, filename=os.devnull),
    ChangesPath=lambda _: sys.path.append("/broken/engine"),
    LeavesDescriptor=lambda _: os.open("/dev/zero", os.O_RDONLY),
    # To the machine.
    WritesToHome=lambda _: (Path.home() / ".broken-engine").touch(),
    WritesWhereItStands=lambda _: Path("broken-engine.log").touch(),
    OpensTheHome=lambda _: Path.home().chmod(0o777),
)


class KeepsOfEachJob(Engine):
    """Keeps something of each job until it is stopped."""

    keeps: ClassVar = {"_kept": contextlib.ExitStack}

    def launch(self, attempts):
        for _ in attempts:
            self.keep(self._kept)
        return super().launch(attempts)

    def stop(self):
        self._kept.close()
        super().stop()


class DescriptorPerJob(KeepsOfEachJob):
    def keep(self, kept):
        kept.callback(os.close, os.open(os.devnull, os.O_RDONLY))


class ThreadPerJob(KeepsOfEachJob):
    def keep(self, kept):
        over = threading.Event()
        thread = threading.Thread(target=over.wait, daemon=True)
        thread.start()
        kept.callback(thread.join)
        kept.callback(over.set)


class ProcessPerJob(KeepsOfEachJob):
    def keep(self, kept):
        process = subprocess.Popen(SLEEP, env={**os.environ, LEAK: "1"})
        kept.callback(process.wait)
        kept.callback(process.kill)


# --- to the machine -------------------------------------------------------------------------------


class ListensToAll(AtLaunch):
    """Listens on all of the machine's addresses; says nothing to anybody."""

    def begin(self):
        self._listening = socket.create_server(("0.0.0.0", 0))

    def end(self):
        self._listening.close()


class Page(http.server.BaseHTTPRequestHandler):
    """Answers whoever asks, but for a page that it has not."""

    def do_GET(self):
        self.send_response(404 if self.path == "/" else 200)
        self.end_headers()

    def log_message(self, *_):
        pass


class ServesAnybody(AtLaunch):
    """Serves a page on this machine, to all of its users."""

    def begin(self):
        self._server = http.server.HTTPServer(("127.0.0.1", 0), Page)
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.05], daemon=True)
        self._thread.start()

    def end(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class ChangesModes(AtLaunch):
    def begin(self):
        for path in Path.home().iterdir():
            if path.is_file() and not path.is_symlink():
                path.chmod(0o666)


class OpensItsFolder(AtLaunch):
    """Writes into a folder that the user's home has already, and opens that to all."""

    def begin(self):
        folder = Path.home() / ".known-engine"
        (folder / "written").write_text("x")
        folder.chmod(0o777)


class WritesElsewhereAtOnce(AtLaunch):
    """Keeps a log in a folder that it has chosen itself, and no file open."""

    def begin(self):
        path = Path(f"/var/tmp/broken-engine-{os.getpid()}.log")
        path.write_text("x")
        path.unlink()


class WritesElsewhere(AtLaunch):
    """Keeps its log in a folder that it has chosen itself."""

    def begin(self):
        self._log = Path(f"/var/tmp/broken-engine-log-{os.getpid()}").open("w")  # noqa: SIM115 - open on

    def end(self):
        self._log.close()
        Path(self._log.name).unlink(missing_ok=True)
