"""Ask a Quantum ESPRESSO calculator which pseudopotentials pw.x reads.

The input is written by quacc's own template, and read back: what stands in it is what pw.x sees.
"""

from __future__ import annotations

import copy
import functools
import itertools
import os
import shlex
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystalmath.preflight.calculator_errors import is_passing, trouble
from crystalmath.preflight.file_memo import FileMemo
from crystalmath.preflight.opened_files import exists
from crystalmath.preflight.report import Need, Step, Trouble

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ase import Atoms

    from crystalmath.preflight.program import Asked

_NONE = "(none)"
#: Calculations that begin where another ended: pw.x looks first among what that one saved.
_CONTINUE = ("nscf", "bands")
#: Debian's pw.x looks here for what it does not find otherwise; the name stands in the program.
_DEBIAN = "/usr/share/espresso/pseudo/"
_falls_back: FileMemo[bool] = FileMemo()


def is_espresso(calculator: object) -> bool:
    """Return whether it runs one of Quantum ESPRESSO's programs."""
    from ase.calculators.espresso import EspressoTemplate

    return isinstance(getattr(calculator, "template", None), EspressoTemplate)


def ask(name: str, calculator: Any, atoms: Atoms, asked: Asked) -> Step:
    """Find what a calculation of the atoms would read, and what keeps it from beginning.

    Parameters
    ----------
    name : str
        The program's name.
    calculator : ase.calculators.genericfileio.GenericFileIOCalculator
        quacc's ``Espresso``, or ASE's.
    atoms, asked
        As for :meth:`crystalmath.preflight.program.Program.ask`.
    """
    if getattr(calculator.template, "binary", "pw") != "pw":
        return Step(calculator=name, by_element=True)
    # A copy: writing the input changes it.
    parameters = copy.deepcopy(dict(calculator.parameters))
    known = dict(parameters.get("pseudopotentials") or {})
    unnamed = [symbol for symbol in dict.fromkeys(atoms.symbols) if symbol not in known]
    parameters["pseudopotentials"] = known | dict.fromkeys(unnamed, _NONE)
    troubles = []
    if unnamed:
        message = f"no pseudopotential is given for {', '.join(unnamed)}"
        troubles.append(Trouble(where="input", type="KeyError", message=message))
    try:
        control, species = _write(calculator, atoms, parameters, asked.directory)
    except Exception as error:
        # Whatever the calculation would die of.
        if is_passing(error):
            raise
        return Step(calculator=name, troubles=(*troubles, trouble("input", error)))
    root = str(control.get("pseudo_dir", ""))
    reason = _reason(calculator)
    saved = _saved(calculator, control, asked.copy_files)
    needs = []
    for symbol, file in species.items():
        path = _place(root, file, saved, asked.copy_files) if file != _NONE else None
        if path and not exists(path) and _is_debians(calculator):
            path = _DEBIAN + file if exists(_DEBIAN + file) else path
        if path:
            needs.append(Need(symbol=symbol, setup=file, path=path, reason=reason))
    return Step(
        calculator=name,
        by_element=True,
        needs=tuple(needs),
        root=None if root in ("", "None") else root,
        troubles=tuple(troubles),
    )


def _write(
    calculator: Any, atoms: Atoms, parameters: dict[str, Any], directory: Path
) -> tuple[Mapping[str, Any], dict[str, str]]:
    """Write the input, and give its ``&CONTROL`` and the file of each species."""
    from ase.io.espresso import read_fortran_namelist

    template = copy.copy(calculator.template)
    # Elsewhere it would unpack files, or leave one.
    template.outdir = None
    template.test_run = False
    with tempfile.TemporaryDirectory(dir=directory) as folder:
        template.write_input(
            profile=calculator.profile,
            directory=Path(folder),
            atoms=atoms,
            parameters=parameters,
            properties=["energy", "forces"],
        )
        with open(os.path.join(folder, template.inputname), encoding="utf-8") as file:
            namelists, cards = read_fortran_namelist(file)
    return namelists.get("control", {}), dict(_species(cards))


def _species(cards: list[str]) -> Iterator[tuple[str, str]]:
    begin = cards.index("ATOMIC_SPECIES") + 1
    # The points in reciprocal space are what ASE writes next.
    for line in itertools.takewhile(lambda line: not line.startswith("K_POINTS"), cards[begin:]):
        label, _, file = line.split(maxsplit=2)
        # One symbol with several magnetic moments is several species of the same file.
        yield label.rstrip("0123456789"), file


def _reason(calculator: Any) -> str:
    given = getattr(calculator, "kwargs", calculator.parameters)
    preset = getattr(calculator, "preset", None)
    if preset and not given.get("pseudopotentials"):
        return f"preset {preset}"
    if preset:
        return f"preset {preset}, parameter pseudopotentials"
    return "parameter pseudopotentials"


def _saved(calculator: Any, control: Mapping[str, Any], copy_files: Iterable[Any]) -> list[Path]:
    """Return the folders of an earlier calculation that this one goes on from."""
    if control.get("calculation") not in _CONTINUE:
        return []
    folders = [getattr(calculator.template, "outdir", None), *_sources(copy_files)]
    name = f"{control.get('prefix', 'pwscf')}.save"
    return [Path(folder).expanduser() / name for folder in folders if folder]


def _sources(copy_files: Iterable[Any]) -> list[Any]:
    return [spec["source"] for spec in copy_files if isinstance(spec, dict) and "source" in spec]


def _place(root: str, file: str, saved: list[Path], copy_files: Iterable[Any]) -> str | None:
    """Return where pw.x finds a file, or ``None`` where that needs no look: a job unpacks it."""
    path = f"{root.rstrip('/')}/{file}" if root else file
    places = [str(folder / file) for folder in saved]
    if not os.path.isabs(path):
        places += [str(Path(source).expanduser() / path) for source in _sources(copy_files)]
    for place in places:
        if exists(place):
            return place
        if exists(f"{place}.gz"):
            return None
    return path


def _is_debians(calculator: Any) -> bool:
    words = shlex.split(str(calculator.profile.command))
    programs = [path for word in words if (path := shutil.which(word))]
    return any(_falls_back.get(path, [path], functools.partial(_names, path)) for path in programs)


def _names(program: str) -> bool:
    try:
        return _DEBIAN.encode() in Path(program).read_bytes()
    except OSError:  # it may be run, but not read
        return False
