"""Jobs of workers that do not see the home: specification and answer travel as bytes.

On the owner's host an engine sends `pack(attempt)` to a worker. It calls `note_begun` once a worker
runs the job, and `collect` with the answer or the error that came instead. The worker calls
`run_apart`, which runs the job as usual, in a run directory of its own. `running_apart` lists the
jobs that run in a worker's process, and stops some of them.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import fcntl
import functools
import io
import json
import os
import shutil
import stat
import tempfile
import threading
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystalmath import config
from crystalmath.errors import BadFile
from crystalmath.jobs.changes import Publish
from crystalmath.jobs.documents import document, read_header, write
from crystalmath.jobs.host import Host
from crystalmath.jobs.potcars import is_potcar
from crystalmath.jobs.reconcile import publish
from crystalmath.jobs.rundir import RunDirectory, attempt_id
from crystalmath.jobs.worktree import as_text, files_below
from crystalmath.jobs.written_spec import WrittenSpec
from crystalmath.processes import Identity, is_locked
from crystalmath.worker.chains import WorkerLostError, run

if TYPE_CHECKING:
    from collections.abc import Collection

    from crystalmath.models import Attempt

#: The total size of the files of a work directory that travel back, the small ones first, in bytes.
MOST = 64 * 2**20
#: The number of files left behind that the log names.
_NAMED = 20
#: The prefix of workers' folders, and the age at which an unlocked one is removed, in seconds.
_PREFIX, _LEFT_S = "crystalmath-apart-", 60.0
#: The number of remembered attempts that are not wanted and have not arrived yet.
_UNWANTED = 10_000
_HEAD, _RESULT, _LOG, _WORK = "answer.json", "result", "log", "work/"
#: The fields of an outcome's own form, which are written anew.
_FORM = ("format", "size", "sha256")
#: The ends of a job in an answer; a flow's pass does not run apart.
_ENDS = frozenset(("completed", "failed", "lost", "cancelled"))
#: Errors of names that the home's file system cannot have; all others are trouble of the home.
_OF_NAMES = frozenset(
    (errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.EILSEQ)
)

_lock = threading.Lock()
_running: dict[str, RunDirectory] = {}
_unwanted: dict[str, None] = {}


# --- on the owner's host -----------------------------------------------------------------------


def pack(attempt: Attempt) -> bytes:
    """Return the specification of an attempt for a worker; no files travel.

    Raises
    ------
    BadFile, OSError
        The specification cannot be read.
    """
    header, body = RunDirectory(attempt.directory).read_spec()
    return document(header, body.encode())


def note_begun(attempt: Attempt, where: str) -> None:
    """Claim an attempt for the worker that runs it, unless it is claimed: the job is running.

    Parameters
    ----------
    attempt : Attempt
        The attempt.
    where : str
        Words for the worker, for people; its address, say.
    """
    directory, number = RunDirectory(attempt.directory), attempt.number
    if directory.claimed(number):
        return
    # It is no process of any host, so its life is unknown here, and only the engine can report it.
    worker = Identity(where, "", 0, 0, "", "apart")
    if directory.claim_for(number, worker.as_dict()):
        note = f"crystalmath: it runs at {where}; log, files and progress come with its end\n"
        with contextlib.suppress(OSError):
            write(directory.log(number), note.encode())


def collect(attempt: Attempt, answer: bytes | BaseException) -> bool:
    """Publish the outcome of an attempt, with its log and files; the first answer counts.

    An engine calls it before it reports the attempt as gone, which would decide it as lost.

    Parameters
    ----------
    attempt : Attempt
        The attempt.
    answer : bytes or BaseException
        The result of `run_apart`; or the reason why there is none, and the attempt is lost.

    Returns
    -------
    bool
        Whether the answer counts; ``False`` if the attempt was decided or the job removed.

    Raises
    ------
    OSError
        The home cannot store it just now; call again.
    """
    directory, number = RunDirectory(attempt.directory), attempt.number
    if directory.is_gone() or directory.decided(number):
        return False
    note_begun(attempt, "a worker that has answered")
    with tempfile.TemporaryDirectory(prefix=f".{number}.answer.", dir=directory.path) as aside:
        outcome: dict[str, Any] | None = None
        result, trouble = b"", answer
        if isinstance(answer, bytes):
            try:
                outcome, result = _unpack(answer, attempt, aside)
            except Exception as error:
                # Trouble of the home passes. A damaged answer stays damaged: the attempt is lost.
                if isinstance(error, MemoryError) or getattr(error, "errno", None) is not None:
                    raise
                trouble = BadFile(f"it is damaged: {error}")
        with directory.owner_lock():  # a second answer leaves the files of the first
            if directory.decided(number):
                return False
            if outcome is not None:
                _move(aside, directory, number)
                return directory.publish(number, outcome, result)
            error_text = f"no answer came from its worker ({type(trouble).__name__}: {trouble!s})"
            cancelled = directory.cancel_requested()
            lost = Publish(state="lost", error=error_text, cancelled=cancelled)
            publish(directory, number, lost, Host(attempt.directory.parent))
            return True


def _unpack(answer: bytes, attempt: Attempt, folder: str) -> tuple[dict[str, Any], bytes]:
    """Write log and files of an answer into a folder; return its outcome and the result."""
    directory = RunDirectory(attempt.directory)
    work = directory.work(attempt.number)
    with zipfile.ZipFile(io.BytesIO(answer)) as archive:
        head = json.loads(archive.read(_HEAD))
        if head["attempt"] != attempt.id:
            raise BadFile(f"it is of attempt {head['attempt']}")
        # The summary and the result keep the worker's paths, which readers translate.
        outcome = {name: value for name, value in head["outcome"].items() if name not in _FORM}
        if outcome["state"] not in _ENDS:
            raise BadFile(f"its state is {outcome['state']!r}")
        if not isinstance(outcome["summary"], dict | None):
            raise BadFile(f"its summary is {outcome['summary']!r}")
        if outcome["state"] == "cancelled" and not directory.cancel_requested():
            raise BadFile("it was cancelled without a request")
        for name in ("error", "traceback"):
            if outcome.get(name) is not None:
                outcome[name] = outcome[name].replace(as_text(head["work"]), as_text(work))
        log = archive.read(_LOG) if _LOG in archive.namelist() else b""
        log = log.replace(os.fsencode(head["work"]), os.fsencode(work))
        log += _stayed(_extract(archive, folder))
        if log:
            write(f"{folder}/{_LOG}", log)
        return outcome, archive.read(_RESULT)


def _extract(archive: zipfile.ZipFile, folder: str) -> list[str]:
    """Write the files of a work directory below a folder; return those that fail, and why."""
    left_out: list[str] = []
    room = MOST
    os.mkdir(f"{folder}/{_WORK}", 0o700)
    for member in archive.infolist():
        if not member.filename.startswith(_WORK):
            continue
        name = member.filename.removeprefix(_WORK)
        if (room := room - member.file_size) < 0:
            left_out.append(f"{name} ({member.file_size} bytes)")
            continue
        try:
            archive.extract(member, folder)  # never outside the folder, whatever the name
        except OSError as error:
            if error.errno not in _OF_NAMES:
                raise
            left_out.append(f"{name} ({error.strerror})")
    return left_out


def _stayed(left_out: list[str]) -> bytes:
    """Return the log's line about files that stayed behind, if there are any."""
    if not left_out:
        return b""
    more = f" and {len(left_out) - _NAMED} more" if len(left_out) > _NAMED else ""
    names = ", ".join(left_out[:_NAMED])
    heading = f"these files stayed behind (more than {MOST} bytes do not travel)"
    return f"crystalmath: {heading}: {names}{more}\n".encode()


def _move(folder: str, directory: RunDirectory, number: int) -> None:
    """Move work directory and log to their places."""
    work = directory.work(number)
    shutil.rmtree(work, ignore_errors=True)  # an owner may have been killed here
    os.rename(f"{folder}/{_WORK}", work)
    try:
        os.replace(f"{folder}/{_LOG}", directory.log(number))
    except FileNotFoundError:
        Path(directory.log(number)).unlink(missing_ok=True)  # the note of `note_begun` is outdated


# --- where the worker is -----------------------------------------------------------------------


def run_apart(specification: bytes) -> bytes:
    """Run a job on a worker without the home, and return the answer for its owner.

    Its run directory lies in the worker's own folder for temporary files. Variables of the job that
    its cluster does not set are the worker's own, as are licensed files. The job is ended with this
    process. Several threads may call it at once.

    Parameters
    ----------
    specification : bytes
        The result of `pack`.

    Raises
    ------
    BadFile
        This release does not read the specification.
    WorkerLostError
        There is no outcome, or the job runs here already.
    """
    line, _, body = specification.partition(b"\n")
    header = read_header(line, "the specification")
    spec = WrittenSpec.of(header)
    number, job_id = spec.attempt, spec.job_id
    name = attempt_id(job_id, number)
    own = config.forwarded(config.DEFAULT_FORWARD)
    header["environment"] = {**own, **spec.environment}
    with _lock:
        if not os.path.isdir(_jobs(os.getpid())):  # somebody tidied it away
            _jobs.cache_clear()
        directory = RunDirectory(f"{_jobs(os.getpid())}/{job_id}")
        if not directory.make():
            raise WorkerLostError(f"job {job_id} runs here already")
        _running[name] = directory
        if name in _unwanted:
            directory.request_cancel()
    try:
        directory.write_spec(header, body.decode())
        with contextlib.suppress(WorkerLostError):
            run(directory.path, tied=True)
        return _answer(directory, number, name)
    finally:
        with _lock:
            del _running[name]
        shutil.rmtree(directory.path, ignore_errors=True)


def running_apart(cancel: Collection[str] = ()) -> list[str]:
    """Return the attempts that run in this process, and ask some of them to stop.

    Parameters
    ----------
    cancel : collection of str
        Attempts that are not wanted. They are stopped and answer that they were cancelled, even if
        they arrive later.
    """
    with _lock:
        for name in cancel:
            _unwanted[name] = None
            if name in _running:
                _running[name].request_cancel()
        while len(_unwanted) > _UNWANTED:
            del _unwanted[next(iter(_unwanted))]
        return list(_running)


@functools.cache
def _jobs(pid: int) -> str:
    """Make the folder of this process, `pid`, which holds it locked; remove those of dead ones."""
    # quacc names real paths, and the owner looks for them in the answer.
    folder = os.path.realpath(tempfile.mkdtemp(prefix=_PREFIX))
    # Never closed: the kernel drops the lock with this process.
    fcntl.flock(os.open(folder, os.O_RDONLY | os.O_CLOEXEC), fcntl.LOCK_EX)
    for each in Path(folder).parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            seen = each.lstat()
            old = time.time() - seen.st_ctime > _LEFT_S
            if old and seen.st_uid == os.geteuid() and is_locked(each) is False:
                shutil.rmtree(each, ignore_errors=True)

    def remove() -> None:
        if os.getpid() == pid:
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return folder


def _answer(directory: RunDirectory, number: int, name: str) -> bytes:
    """Return outcome, log and files of a job that has ended, as one archive."""
    try:
        file, outcome = directory.open_outcome(number)
    except FileNotFoundError:
        raise WorkerLostError(f"the supervisor of {name} ended without an outcome") from None
    work = directory.work(number)
    head = {"attempt": name, "outcome": outcome, "work": work}
    answer = io.BytesIO()
    with file, zipfile.ZipFile(answer, "w", zipfile.ZIP_DEFLATED, compresslevel=3) as archive:
        archive.writestr(_HEAD, json.dumps(head))
        archive.writestr(_RESULT, file.read(), zipfile.ZIP_STORED)
        log = b""
        with contextlib.suppress(OSError):  # there is none, or the job removed the permission
            log = Path(directory.log(number)).read_bytes()
        if log := log + _stayed(_add_files(archive, work)):
            archive.writestr(_LOG, log)
    return answer.getvalue()


def _add_files(archive: zipfile.ZipFile, work: str) -> list[str]:
    """Add the files of a work directory but POTCARs and links; return those that fail, and why."""
    left_out: list[str] = []
    room = MOST
    for file in sorted(files_below(work), key=lambda each: each.size):
        path, name = f"{work}/{file.path}", as_text(file.path)
        if file.is_link or is_potcar(file.path):
            continue
        if (room := room - file.size) < 0:
            left_out.append(f"{name} ({file.size} bytes)")
            continue
        try:
            if stat.S_ISREG(os.lstat(path).st_mode):
                # Read before writing, so that a read error leaves no half of the file.
                archive.writestr(f"{_WORK}{file.path}", Path(path).read_bytes())
        except OSError as error:
            left_out.append(f"{name} ({error.strerror})")
        except UnicodeEncodeError:  # names in a zip are UTF-8
            left_out.append(f"{name} (its name is no UTF-8)")
    return left_out
