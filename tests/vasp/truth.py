"""What really happens: recipes run by quacc itself, in a warm process, with the stand-in for VASP.

As a program (``python -P truth.py FD``) it is that process, and knows nothing of the verdict; the
class :class:`Truth` starts it and asks it. How a job died is told from where the exception was
raised and from what the stand-in noted, never from the words of a message.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import os
import pkgutil
import shutil
import socket
import subprocess
import sys
import tempfile
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType, TracebackType

#: Where ASE looks for POTCARs and reads them ...
_ASE = "ase/calculators/vasp/create_input.py"
_ASE_FUNCTIONS = {
    "_build_pp_list",
    "default_nelect_from_ppp",
    "open_potcar",
    "read_potcar_numbers_of_electrons",
    "write_potcar",
}
#: ... and where custodian has them parsed before it starts VASP.
_PYMATGEN = "pymatgen/io/vasp/inputs.py"
_PYMATGEN_CLASSES = ("Potcar.", "PotcarSingle.")
#: There, POSCAR's blocks of ions are named by what was made of POTCAR.
_NAMED = ("Poscar.from_str", "default_names")
#: What raises where an extra of quacc is missing.
_EXTRAS = "monty/dev.py"


@dataclass(frozen=True)
class Fate:
    """What became of a job.

    ``end`` is ``ran``; ``potcar`` (it died for its pseudopotentials, before VASP or by VASP's
    refusal); ``other`` (it died for something else); or ``extras`` (it wants a package that is not
    here). ``started`` counts the calculations for which VASP was started.
    """

    end: str
    started: int
    error: str


@dataclass(frozen=True)
class Recipe:
    """A recipe, and the parameters that its function names; ``free`` where it takes any more."""

    name: str
    parameters: tuple[str, ...]
    required: tuple[str, ...]
    free: bool


class Truth:
    """The warm process, in an environment that is the same for all its jobs."""

    def __init__(self, environment: dict[str, str], scratch: Path) -> None:
        self._scratch = scratch
        ours, theirs = socket.socketpair()
        with theirs, (scratch / "truth.log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment | {"OMP_NUM_THREADS": "1", "QUACC_WORKFLOW_ENGINE": "None"},
            )
        self._socket = ours
        self._lines = ours.makefile("rb")
        self.recipes = [
            Recipe(
                name=told["name"],
                parameters=tuple(told["parameters"]),
                required=tuple(told["required"]),
                free=told["free"],
            )
            for told in self._read()["recipes"]
        ]

    def begin(self, recipe: str, document: str, *, full: bool = False) -> None:
        """Have a job run; in full, or only until VASP has judged its first input."""
        request = {"recipe": recipe, "document": document, "full": full}
        self._socket.sendall(json.dumps(request | {"scratch": str(self._scratch)}).encode() + b"\n")

    def fate(self) -> Fate:
        """Wait for the end of the job that was begun."""
        return Fate(**self._read())

    def close(self) -> None:
        """End the process."""
        self._lines.close()
        self._socket.close()
        self._process.wait(30)

    def _read(self) -> dict[str, Any]:
        line = self._lines.readline()
        if not line:
            log = (self._scratch / "truth.log").read_text(errors="replace")
            raise RuntimeError(f"the process that runs the recipes ended: {log[-2000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer


# ---- the process -------------------------------------------------------------------------------


def main() -> None:
    """Run recipes until the owner is gone."""
    warnings.simplefilter("ignore")
    with socket.socket(fileno=int(sys.argv[1])) as control:
        recipes = _recipes()
        # Custodian's monitors, which molecular dynamics has in any case, look every ten seconds.
        custodian = importlib.import_module("custodian.custodian").Custodian
        defaults = list(custodian.__init__.__defaults__)
        defaults[defaults.index(10)] = 0.02
        custodian.__init__.__defaults__ = tuple(defaults)
        control.sendall(json.dumps({"recipes": recipes}).encode() + b"\n")
        for line in control.makefile("rb"):
            fate = _run(**json.loads(line))
            control.sendall(json.dumps(asdict(fate)).encode() + b"\n")


def _recipes() -> list[dict[str, Any]]:
    """Describe all jobs and flows below quacc.recipes.vasp."""
    package = importlib.import_module("quacc.recipes.vasp")
    found = []
    for _, name, _ in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        module = importlib.import_module(name)
        for each, function in inspect.getmembers(module, inspect.isfunction):
            if each.startswith("_") or function.__module__ != name:
                continue
            if each.endswith(("_job", "_flow")):
                found.append(_described(f"{name}.{each}", function))
    return found


def _described(name: str, function: Any) -> dict[str, Any]:
    # The first is the structure's.
    parameters = list(inspect.signature(function).parameters.values())[1:]
    named = [each for each in parameters if each.kind is not each.VAR_KEYWORD]
    return {
        "name": name,
        "parameters": [each.name for each in named],
        "required": [each.name for each in named if each.default is each.empty],
        "free": len(named) < len(parameters),
    }


def _run(recipe: str, document: str, scratch: str, *, full: bool) -> Fate:
    from quacc import change_settings

    from crystalmath.recipes import codec

    environment = dict(os.environ)
    work = tempfile.mkdtemp(dir=scratch)
    judged = Path(work, "judged")
    os.environ["STANDIN_LOG" if full else "STANDIN_JUDGE"] = str(judged)
    results = Path(work, "results")
    results.mkdir()
    os.chdir(results)
    error: BaseException | None = None
    try:
        atoms, parameters = codec.decode_spec(document)
        module, _, name = recipe.rpartition(".")
        function = getattr(importlib.import_module(module), name)
        with change_settings({"RESULTS_DIR": results}):
            function(atoms, **parameters)
    except Exception as raised:  # noqa: BLE001 - whatever a job dies of
        error = raised
    os.environ.clear()
    os.environ.update(environment)
    verdicts = judged.read_text(encoding="utf-8").splitlines() if judged.exists() else []
    os.chdir("/")
    shutil.rmtree(work)
    return _fate(error, verdicts, full=full)


def _fate(error: BaseException | None, verdicts: list[str], *, full: bool) -> Fate:
    if error is None:
        return Fate("ran", len(verdicts), "")
    # quacc wraps what a calculation died of.
    while error.__cause__ is not None:
        error = error.__cause__
    frames = list(_frames(error.__traceback__))
    last = frames[-1].f_code
    words = f"{type(error).__name__}: {str(error)[:500]} (in {last.co_qualname})"
    refused = bool(verdicts) and not verdicts[-1].startswith("accepted")
    if refused:
        words = f"VASP {verdicts[-1]}"
    if (refused and "POTCAR" in words) or (not refused and any(map(_about_potcars, frames))):
        end = "potcar"
    elif last.co_filename.endswith(_EXTRAS) or isinstance(error, ImportError):
        end = "extras"
    elif not full and verdicts and not refused:
        end = "ran"  # nothing was computed, so that there was nothing to read
    else:
        end = "other"
    return Fate(end, len(verdicts), words)


def _frames(trace: TracebackType | None) -> Iterator[FrameType]:
    while trace is not None:
        yield trace.tb_frame
        trace = trace.tb_next


def _about_potcars(frame: FrameType) -> bool:
    file, function = frame.f_code.co_filename, frame.f_code.co_qualname
    if file.endswith(_ASE):
        return function.rpartition(".")[2] in _ASE_FUNCTIONS
    if not file.endswith(_PYMATGEN):
        return False
    return function.startswith(_PYMATGEN_CLASSES) or (
        function == _NAMED[0] and bool(frame.f_locals.get(_NAMED[1]))
    )


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        main()
