"""The runner: a warm process that runs recipes, one after another; and its template.

The supervisor starts the template as ``python -P -m crystalmath.worker.runner FD PARENT [quacc]``.
The template imports the libraries of recipes, quacc only if asked, and runs no recipe. For each
message on FD, with a socket and a pipe for output, it forks a runner, which becomes the
supervisor's child.

For each job the runner writes the outcome under a private name, or sends it if it is small; the
supervisor publishes it. A runner that a job has spoilt is replaced without another import.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import hashlib
import importlib.util
import io
import json
import math
import os
import socket
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystalmath import config
from crystalmath.errors import InvalidJob
from crystalmath.jobs.last_geometry import last_geometry
from crystalmath.jobs.rundir import RunDirectory, attempt_id
from crystalmath.jobs.written_spec import WrittenSpec
from crystalmath.recipes import codec, lookup, quacc_settings
from crystalmath.recipes.stored_result import store
from crystalmath.recipes.torchsim_enums import with_members
from crystalmath.worker import outcomes
from crystalmath.worker.batch_calls import BatchCalls
from crystalmath.worker.child import BEGUN
from crystalmath.worker.flow_pass import Awaited, FlowPass
from crystalmath.worker.imports import Edited, install
from crystalmath.worker.isolation import Baseline, count_threads, seed
from crystalmath.worker.own_outdirs import own_outdirs
from crystalmath.worker.pristine import Pristine
from crystalmath.worker.starting import Mark, begin_below, fork_beside
from crystalmath.worker.step_replay import FlowSteps

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ase import Atoms

#: How often the runner looks for edited files during a parcel, in seconds.
LOOK_S = 0.1
#: For `waitid`: also children that signal their end by another signal than SIGCHLD, or by none.
_WALL = 0x40000000


def main() -> None:
    """Import the libraries of recipes, and fork a runner for each request of the supervisor."""
    descriptor, parent = int(sys.argv[1]), int(sys.argv[2])
    # A runner must not outlive its supervisor, which alone can end it and publish its outcome.
    begin_below(parent)
    # A log is UTF-8 in every locale, and a recipe must not fail for what it prints.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
    supervisor = socket.socket(fileno=descriptor)
    supervisor.set_inheritable(False)
    # The names that were admitted at the submission; the home's file may just be edited.
    allow = config.admitted()
    mark = Mark()
    edited, pristine = Edited(allow), Pristine()
    install(edited, pristine)
    started = time.time()
    edited.watch(quacc_settings.settings_files(os.environ))
    # Imports stay: collecting garbage among them would only copy their memory into each runner.
    gc.disable()
    _warm_up(with_quacc="quacc" in sys.argv[3:])
    edited.note(started)
    pristine.add_functions()
    gc.freeze()
    gc.enable()
    with supervisor:
        control = _fork_runners(supervisor, parent)
    if control is not None:
        with control:
            _serve(control, mark, edited, pristine, allow)


def _fork_runners(supervisor: socket.socket, parent: int) -> socket.socket | None:
    """Fork a runner for each request; in the runner, return its connection to the supervisor."""
    while True:
        _, descriptors, _, _ = socket.recv_fds(supervisor, 1, 2, socket.MSG_CMSG_CLOEXEC)
        if not descriptors:
            return None
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass  # a process that an import started
        control, log = socket.socket(fileno=descriptors[0]), descriptors[1]
        for stream in (1, 2):
            os.dup2(log, stream)
        os.close(log)
        # Threads do not survive a fork. If imports have started some, this process is the runner.
        if count_threads():
            return control
        with warnings.catch_warnings(action="ignore"):  # libraries with threads handle forks
            is_runner = fork_beside(parent, functools.partial(_announce, control))
        if is_runner:
            seed()
            return control
        control.close()


def _announce(control: socket.socket, pid: int) -> None:
    """Send the pid of the forked runner, which the supervisor follows from now on."""
    control.sendall(json.dumps({"forked": pid}).encode() + b"\n")


def _serve(
    control: socket.socket, mark: Mark, edited: Edited, pristine: Pristine, allow: tuple[str, ...]
) -> None:
    """Run the supervisor's jobs until it is gone."""
    baseline = Baseline(pristine)
    batches = BatchCalls(allow, functools.partial(_send, control))
    looked = -math.inf
    for line in control.makefile("rb"):
        request = json.loads(line)
        # The jobs of a parcel were submitted before the first one began.
        if not request["follows"] or time.monotonic() - looked > LOOK_S:
            looked = time.monotonic()
            if path := edited.changed():
                _send(control, {"outdated": f"{path} has changed"})
                continue
        began = time.time()
        if "calls" in request:
            message = _call_marked(request, mark, batches, baseline)
        else:
            message = _run_marked(request, mark, allow, control, baseline)
        if message["keep"]:
            edited.note(began)
        _send(control, message)


def _send(control: socket.socket, message: dict[str, Any]) -> None:
    control.sendall(json.dumps(message).encode() + b"\n")


def _call_marked(
    request: dict[str, Any], mark: Mark, batches: BatchCalls, baseline: Baseline
) -> dict[str, Any]:
    """Plan the calls of a batch, or make one; return the message for the supervisor."""
    me, keep = os.getpid(), not request["fresh"]
    (path, attempt), *others = request["calls"]
    mark.write(attempt_id(os.path.basename(path), attempt))
    # The memory of a call grows with the number of its structures.
    baseline.begin(f"{request['recipe']} {len(others).bit_length()}")
    with warnings.catch_warnings():  # a job may change the filters
        answer = batches.plan(request) if request["plan"] else batches.call(request)
    if os.getpid() != me:
        os._exit(0)  # the function forked, and this is the child
    mark.withdraw()
    if keep and (leak := baseline.restore()):
        keep = False
        with contextlib.suppress(OSError, ValueError):
            print(f"crystalmath: the recipe left {leak} behind", file=sys.stderr)
    mark.clear()
    return {**answer, **_state(keep=keep)}


def _state(*, keep: bool) -> dict[str, Any]:
    """Return what the supervisor needs to know of this process after a job."""
    _flush()
    has_quacc = sys.modules.get("quacc") is not None
    return {"keep": keep, "quacc": has_quacc, "children": _has_children()}


def _run_marked(
    request: dict[str, Any],
    mark: Mark,
    allow: tuple[str, ...],
    control: socket.socket,
    baseline: Baseline,
) -> dict[str, Any]:
    """Run one job; return the message for the supervisor."""
    directory = RunDirectory(request["directory"])
    replaced, keep = dict(request["replaced"]), not request["fresh"]

    def restore() -> dict[str, int]:
        nonlocal keep
        mark.withdraw()
        if keep and (leak := baseline.restore()):
            keep = False
            why = f"the recipe left {leak} behind"
            with contextlib.suppress(OSError, ValueError):
                print(f"crystalmath: {why}", file=sys.stderr)
            replaced[why] = 1
        return replaced

    mark.write(attempt_id(os.path.basename(directory.path), request["attempt"]))
    baseline.begin(request["recipe"])
    small = request["small"]
    with warnings.catch_warnings():  # a job may change the filters
        outcome = _run(directory, request["attempt"], allow, control, restore, small=small)
    mark.clear()
    return {**outcome, **_state(keep=keep)}


def _has_children() -> bool:
    """Return whether there is a child, alive or not."""
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT | _WALL)
        return True
    return False


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # the recipe may have closed them
            stream.flush()


def _warm_up(*, with_quacc: bool) -> None:
    importlib.import_module("numpy")  # its settings are compared with the present ones
    if not with_quacc or importlib.util.find_spec("quacc") is None:
        return
    with warnings.catch_warnings():
        # Warnings during the import of quacc do not concern the job.
        warnings.simplefilter("ignore")
        import quacc
        import quacc.runners.ase
        import quacc.schemas.ase
    quacc.get_settings()


def _run(
    directory: RunDirectory,
    attempt: int,
    allow: tuple[str, ...],
    control: socket.socket,
    restore: Callable[[], Mapping[str, int]],
    *,
    small: bool,
) -> dict[str, Any]:
    """Run one job; return the name of its unpublished outcome, or its content if `small`.

    Return as well whether it failed.

    `restore` is called once the recipe has ended. It returns the reasons why the process was, or
    must be, replaced.
    """
    me = os.getpid()
    times = {"started": time.time()}
    payload = b""
    try:
        payload, header = _call(directory, attempt, allow, control, times)
    except BaseException as error:  # noqa: BLE001 - sys.exit() of a recipe is a failure, too
        header = outcomes.failed(error, directory, attempt)
        with contextlib.suppress(OSError, ValueError):
            print(header["traceback"], file=sys.stderr)
    if os.getpid() != me:
        # The recipe forked, and this is the child, which must not report for the job.
        os._exit(0)
    header |= {
        **times,
        "finished": time.time(),
        "begun_from": directory.begun_from(attempt),
    }
    if replaced := restore():
        header["process_replaced"] = replaced
        if header["summary"] is not None:
            header["summary"]["process_replaced"] = replaced
    outcome = outcomes.delivered(directory, attempt, header, payload, small=small)
    return {**outcome, "failed": header["state"] == "failed"}


def _call(
    directory: RunDirectory,
    attempt: int,
    allow: tuple[str, ...],
    control: socket.socket,
    times: dict[str, float],
) -> tuple[bytes, dict[str, Any]]:
    header, body = directory.read_spec()
    spec = WrittenSpec.of(header)
    work = directory.work(attempt)
    os.chdir(work)
    atoms, parameters = codec.decode_spec(body)
    if spec.flow is None and atoms is not None and attempt > 1 and spec.continue_lost:
        atoms = _last_of_lost(directory, attempt, atoms)
    function = lookup.resolve(spec.recipe, allow)
    changed = _changed(spec.files)
    # Times count from here: imports are not part of the recipe.
    times["started"] = time.time()
    if spec.walltime_s is not None:
        control.sendall(json.dumps(BEGUN).encode() + b"\n")
    parameters = with_members(spec.recipe, parameters)
    call = functools.partial(function, *([] if atoms is None else [atoms]), **parameters)
    flow = None
    if spec.flow is not None:
        flow = FlowPass(directory, FlowSteps.of(spec.flow), spec.by_step)
    with outcomes.results_in(Path(work)), own_outdirs(directory, attempt, spec):
        result = call() if flow is None else flow.run(call)
    if isinstance(result, Awaited):
        stored = store(result.document())
        return stored.data, {"state": "waits", "error": None, "summary": None, **stored.sizes}
    more: dict[str, Any] = {"changed_files": changed} if changed else {}
    if directory.asked_to_stop(attempt):
        more["asked_to_stop"] = True
    return outcomes.completed(result, work, more, None if flow is None else flow.counts())


def _last_of_lost(directory: RunDirectory, attempt: int, submitted: Atoms) -> Atoms:
    """Return the last geometry of earlier attempts, else the submitted one."""
    try:
        last = last_geometry(directory, attempt - 1, submitted)
    except InvalidJob as error:
        print(f"crystalmath: attempt {attempt} begins anew: {error}", file=sys.stderr)
        return submitted
    directory.note_begun_from(attempt, last.file)
    print(f"crystalmath: begins from the geometry in {last.file}", file=sys.stderr)
    return last.atoms


def _changed(files: Mapping[str, str]) -> list[str]:
    """Return the pseudopotentials that differ from their record."""
    changed = []
    for path, known in files.items():
        with contextlib.suppress(OSError, ValueError):  # the recipe will fail by itself
            if hashlib.sha256(Path(path).read_bytes()).hexdigest() != known:
                changed.append(path)
                print(f"crystalmath: {path} has changed since the submission", file=sys.stderr)
    return changed


if __name__ == "__main__":
    main()
