"""The child: a warm process that asks recipes what they would calculate, one after another.

Started by the supervisor as ``python -P -m crystalmath.preflight.recipe_child FD PARENT``. Nothing
that a recipe would run is run here (:mod:`~crystalmath.preflight.gate`).
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import socket
import sys
import time
import warnings
from typing import TYPE_CHECKING, Any, cast

from attrs import evolve

from crystalmath import config
from crystalmath.preflight.opened_files import OpenedFiles
from crystalmath.recipes import codec, lookup, quacc_settings
from crystalmath.recipes.one_line import words_of
from crystalmath.worker.imports import Edited, install
from crystalmath.worker.isolation import Baseline, begin_below

if TYPE_CHECKING:
    from crystalmath.preflight.report import Report

__all__ = ["main"]

#: Where this program's modules are.
_OWN = os.path.join(os.path.dirname(config.__file__), "")

#: quacc makes folders and a log file as soon as it reads its settings. The working directory is
#: there already; it is the question's own, and emptied afterwards.
_LEAVES_NOTHING = {
    "QUACC_RESULTS_DIR": ".",
    "QUACC_SCRATCH_DIR": "None",
    "QUACC_LOG_FILENAME": "None",
    "QUACC_WORKFLOW_ENGINE": "None",
}

#: Whose errors, while quacc is imported, are about variables or a file of settings.
_READERS = ("pydantic_settings", "ruamel")


def main() -> None:
    """Answer the supervisor's questions, until it is gone."""
    descriptor, parent = int(sys.argv[1]), int(sys.argv[2])
    begin_below(parent)
    os.environ.update(_LEAVES_NOTHING)
    os.chdir("/")
    with socket.socket(fileno=descriptor) as control:
        _serve(control)


def _serve(control: socket.socket) -> None:
    edited = Edited(config.admitted())
    edited.watch(quacc_settings.settings_files(os.environ))
    install(edited)
    started = time.time()
    try:
        _warm_up()
    except Exception as error:
        if refused := _refused(error):
            control.sendall(json.dumps({"refused": refused}).encode() + b"\n")
            return
        raise
    edited.note(started)
    opened = OpenedFiles()
    baseline = Baseline()
    control.sendall(b'{"ready": true}\n')
    for line in control.makefile("rb"):
        request = json.loads(line)
        if edited.changed():
            control.sendall(b"{}\n")
            continue
        began = time.time()
        with opened.outside(request["directory"]) as read:
            answer: dict[str, Any] = {"report": _report(request).to_json()}
        edited.note(began)
        watched = {**edited.files, **read}
        # Whoever edits these has more to restart than this process.
        answer["watched"] = {path: watched[path] for path in watched if not path.startswith(_OWN)}
        if leak := baseline.restore():
            print(f"crystalmath: the recipe left {leak} behind", file=sys.stderr)
            answer["keep"] = False
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # the recipe may have closed them
                stream.flush()
        control.sendall(json.dumps(answer).encode() + b"\n")


def _warm_up() -> None:
    # Nobody reads what quacc and ASE say about a job that does not run.
    warnings.simplefilter("ignore")
    logging.disable()
    if importlib.util.find_spec("quacc") is None:
        return
    import quacc

    from crystalmath.preflight import gate, presets
    from crystalmath.preflight.programs_here import programs

    gate.install(programs())
    presets.install()
    quacc.get_settings()


def _refused(error: Exception) -> dict[str, str]:
    """Say which settings quacc does not start with, and why; empty if something else is wrong."""
    told: dict[str, str] = {}
    if getattr(error, "title", None) == "QuaccSettings":  # pydantic's, which is imported by now
        for each in cast("Any", error).errors(include_url=False, include_context=False):
            name = str(each["loc"][0]) if each["loc"] else ""
            extra = each["type"] == "extra_forbidden"
            words = "quacc has no such setting" if extra else each["msg"]
            # A setting that may be of several types is wrong for each of them.
            told[name] = f"{told[name]}; {words}" if name in told else words
    elif type(error).__module__.partition(".")[0] in _READERS:
        told[""] = words_of(error)
    return told


def _report(request: dict[str, Any]) -> Report:
    from crystalmath.preflight import gate

    me = os.getpid()
    os.chdir(request["directory"])
    directory, name = request["directory"], request["recipe"]
    atoms, given = codec.decode_spec(request["spec"])

    def call() -> object:
        recipe = lookup.resolve(name, tuple(request["allow"]))
        # Each call has its own: a recipe may change what it is given.
        structure = () if atoms is None else (atoms.copy(),)
        return recipe(*structure, **codec.decode_parameters(request["spec"]))

    report = gate.ask(call, directory, given, inputs=bool(request.get("inputs")))
    theirs = not name.startswith(f"{lookup.NAMESPACE}.")
    if theirs and report.steps and gate.cannot_begin(report.steps[0], report.files):
        report = evolve(report, survives=gate.survives(call, directory))
    if os.getpid() != me:
        # The recipe forked, and the child came back: it must not speak for it.
        os._exit(0)
    return report


if __name__ == "__main__":
    main()
