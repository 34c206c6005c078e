"""The child: a warm process that reports what recipes would calculate, one after another.

The supervisor starts it as ``python -P -m crystalmath.preflight.recipe_child FD PARENT``. No
calculation of a recipe runs here (:mod:`~crystalmath.preflight.gate`).
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
from typing import TYPE_CHECKING, Any

from attrs import evolve

from crystalmath import config
from crystalmath.preflight.files import OpenedFiles, PresetReader
from crystalmath.preflight.settings_check import LEAVES_NOTHING
from crystalmath.recipes import codec, lookup, quacc_settings
from crystalmath.worker.imports import Edited, install
from crystalmath.worker.isolation import Baseline
from crystalmath.worker.starting import begin_below

if TYPE_CHECKING:
    from crystalmath.plugins.report import Report


def _install_presets() -> None:
    """Have quacc read a preset again only if its file has changed."""
    import quacc.utils.files

    quacc.utils.files.YAML = PresetReader


#: The folder of CrystalMath's own modules.
_OWN = os.path.join(os.path.dirname(config.__file__), "")


def main() -> None:
    """Answer the supervisor's questions until it is gone."""
    descriptor, parent = int(sys.argv[1]), int(sys.argv[2])
    begin_below(parent)
    os.environ.update(LEAVES_NOTHING)
    os.chdir("/")
    with socket.socket(fileno=descriptor) as control:
        _serve(control)


def _serve(control: socket.socket) -> None:
    edited = Edited(config.admitted())
    edited.watch(quacc_settings.settings_files(os.environ))
    install(edited)
    started = time.time()
    _warm_up()
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
        # A change of our own modules needs more than a new child.
        answer["watched"] = {path: watched[path] for path in watched if not path.startswith(_OWN)}
        if leak := baseline.restore():
            print(f"crystalmath: the recipe left {leak} behind", file=sys.stderr)
            answer["keep"] = False
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # the recipe may have closed them
                stream.flush()
        control.sendall(json.dumps(answer).encode() + b"\n")


def _warm_up() -> None:
    # Nobody reads the warnings of quacc and ASE about a job that does not run.
    warnings.simplefilter("ignore")
    logging.disable()
    if importlib.util.find_spec("quacc") is None:
        return
    import quacc

    from crystalmath.preflight import gate
    from crystalmath.preflight.programs_here import programs

    gate.install(programs())
    _install_presets()
    quacc.get_settings()


def _report(request: dict[str, Any]) -> Report:
    from crystalmath.preflight import gate

    me = os.getpid()
    os.chdir(request["directory"])
    directory, name = request["directory"], request["recipe"]
    atoms, parameters = codec.decode_spec(request["spec"])

    def call() -> object:
        recipe = lookup.resolve(name, tuple(request["allow"]))
        # Each call decodes them again: a recipe may change its arguments.
        structure = () if atoms is None else (atoms.copy(),)
        return recipe(*structure, **codec.decode_parameters(request["spec"]))

    wanted = {name: bool(request.get(name)) for name in ("inputs", "calls")}
    report = gate.ask(call, directory, parameters, **wanted)
    is_users = not lookup.is_quaccs(name)
    if is_users and report.steps and gate.cannot_begin(report.steps[0], report.files):
        report = evolve(report, survives=gate.survives(call, directory))
    if os.getpid() != me:
        # The recipe forked, and this is the fork: only the child itself answers.
        os._exit(0)
    return report


if __name__ == "__main__":
    main()
