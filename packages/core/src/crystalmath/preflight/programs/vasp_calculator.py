"""Ask a VASP calculator which POTCARs it reads, and whether its input can be written.

All is said by ASE's own code, called as a calculation would call it. Only the process that asks
recipes imports this module: it brings quacc.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import inspect
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pymatgen.io.vasp
from ase.calculators.vasp import Vasp as AseVasp
from ase.calculators.vasp import create_input
from ase.calculators.vasp.vasp import check_atoms
from ase.config import cfg
from attrs import evolve, field, frozen
from custodian.vasp import jobs
from pymatgen.io.vasp.inputs import Incar, Kpoints, Poscar, Potcar, PotcarSingle, VaspInput
from quacc import get_settings
from quacc.calculators.vasp import Vasp as QuaccVasp
from quacc.calculators.vasp.params import MPtoASEConverter
from quacc.schemas.vasp import VaspSummarize

from crystalmath.plugins.program import assignments
from crystalmath.plugins.report import Need, Step, Trouble, troubles_of
from crystalmath.preflight import gate
from crystalmath.preflight.files import FileMemo, facts
from crystalmath.preflight.programs.vasp_findings import JUDGED, noncollinear
from crystalmath.preflight.programs.vasp_inputs import without_potcar

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from ase import Atoms

    from crystalmath.plugins.program import Asked, Program
    from crystalmath.plugins.report import Starts

_PATH = "VASP_PP_PATH"
_VERSION = "VASP_PP_VERSION"
#: The parameters that decide on a POTCAR.
_DECIDE = ("setups", "pp", "pp_version", "xc")
_MANY = 5
_NOTHING = """\
PAW_PBE H 01Jan2001
parameters from PSCTR are:
 VRHFIN =H:
 TITEL  = PAW_PBE H 01Jan2001
 LEXCH  = PE
END of PSCTR-controll parameters
"""
_parsed: FileMemo[Trouble | None] = FileMemo()


def install() -> None:
    """Load what the first question would wait for, and close the gate in what is VASP's alone."""
    _known()
    # pymatgen loads its table of VASP's POTCARs for the first of them.
    with contextlib.suppress(Exception):
        PotcarSingle(_NOTHING)
    gate.patch(AseVasp, calculate=gate.calculate)
    gate.patch(VaspSummarize, run=gate.summary, ase_opt=gate.summary)
    _patch_converter()


def _patch_converter() -> None:
    """Have an input set not look for the files of a calculation that was not made.

    What it takes from them (moments, a band gap) has no say in its pseudopotentials.
    """
    begin = MPtoASEConverter.__init__

    def begin_without(converter: Any, atoms: Any = None, prev_dir: Any = None) -> None:
        begin(converter, atoms, None if gate.is_unmade(prev_dir) else prev_dir)

    gate.patch(MPtoASEConverter, __init__=begin_without)


def ask(program: Program, calculator: Any, atoms: Atoms, asked: Asked) -> Step:
    """Find what a calculation of the atoms would read, and what keeps it from beginning."""
    troubles = [*troubles_of("structure", lambda: check_atoms(atoms))]
    custodian = bool(getattr(calculator, "use_custodian", False))
    needs: tuple[Need, ...] = ()
    start = Started()
    unnamed = [*troubles_of("input", lambda: _initialize(calculator, atoms))]
    if not unnamed:
        needs = _needs(calculator, asked.given)
    if not (troubles or unnamed):
        readable = all(facts(path, program).problem is None for path in calculator.ppp_list)
        how = {"custodian": custodian, "readable": readable}
        found, start = _write(calculator, atoms, asked, **how)
        troubles += found
    return Step(
        calculator=program.name,
        needs=needs,
        root=_configured(_PATH),
        custodian=custodian,
        troubles=(*troubles, *unnamed),
        unknown=_unknown(calculator, asked.given),
        by_index=not unnamed and bool(_special(calculator)),
        # Of the few with spin-orbit coupling each is asked what starts it.
        by_element=not noncollinear(start.tags),
        starts=start.starts,
        tags=start.tags,
    )


def _initialize(calculator: Any, atoms: Atoms) -> None:
    calculator.make_command(calculator.command)
    with _everything_exists():
        calculator.initialize(atoms)


class _Os:
    """The module ``os``, for which every path exists: so that ASE names all the files it needs."""

    def __init__(self) -> None:
        self.path = self

    def __getattr__(self, name: str) -> Any:
        return getattr(os.path if hasattr(os.path, name) else os, name)

    def exists(self, path: object) -> bool:  # noqa: ARG002 - as os.path.exists
        return True


@contextlib.contextmanager
def _everything_exists() -> Iterator[None]:
    create_input.os = _Os()
    try:
        yield
    finally:
        create_input.os = os


def _needs(calculator: Any, given: Collection[str]) -> tuple[Need, ...]:
    reason = _reason(calculator, given)
    return tuple(
        Need(
            symbol=symbol,
            setup=os.path.basename(os.path.dirname(path)),
            path=path,
            reason=reason,
        )
        for (symbol, _), path in zip(calculator.symbol_count, calculator.ppp_list, strict=True)
    )


def _reason(calculator: Any, given: Collection[str]) -> str:
    parameters = _parameters(calculator)
    explicit = getattr(calculator, "kwargs", parameters)
    preset = getattr(calculator, "preset", None)
    reasons = []
    if preset and any(parameters.get(name) is not None for name in _DECIDE if name not in explicit):
        reasons.append(f"preset {preset}")
    for name in _DECIDE:
        if (value := explicit.get(name)) is not None:
            whose = "parameter" if name in given else "the recipe's"
            said = name if isinstance(value, dict) else f"{name}={str(value)!r}"
            reasons.append(f"{whose} {said}")
    if parameters.get("pp_version") is None and (version := _configured(_VERSION)):
        reasons.append(f"{_VERSION}={version}")
    return ", ".join(reasons) or "ASE's default"


def _parameters(calculator: Any) -> Mapping[str, Any]:
    parameters: Mapping[str, Any] = getattr(calculator, "user_calc_params", calculator.parameters)
    return parameters


def _configured(name: str) -> str | None:
    return str(cfg[name]) if name in cfg else None


def _special(calculator: Any) -> Sequence[int]:
    special: Sequence[int] = create_input.get_pp_setup(calculator.input_params["setups"])[1]
    return special


def _write(
    calculator: Any, atoms: Atoms, asked: Asked, *, custodian: bool, readable: bool
) -> tuple[list[Trouble], Started]:
    """Do what is done before VASP starts. The POTCARs themselves are judged apart."""
    start = Started()
    with tempfile.TemporaryDirectory(dir=asked.directory) as folder:
        with without_potcar(calculator, readable=readable):
            write = create_input.GenerateVaspInput.write_input
            found = [
                *troubles_of("input", lambda: write(calculator, atoms, directory=folder)),
            ]
        found = [_with_texts(problem, calculator) for problem in found]
        if custodian and not found:
            found += _parse_input(folder)
        if not found:
            start = started(calculator, folder, exact=asked.exact)
        if readable and (problem := _parse_potcar(calculator, folder, custodian=custodian)):
            found.append(problem)
    return found, start


def _with_texts(problem: Trouble, calculator: Any) -> Trouble:
    """Name the texts that stand where ASE writes a number: its exception does not."""
    texts = [
        f"{name} = {value[:40]!r}"
        for kind in ("float_params", "exp_params")
        for name, value in getattr(calculator, kind).items()
        if isinstance(value, str)
    ]
    if not texts:
        return problem
    words = f"text where a number is due: {', '.join(texts[:_MANY])}"
    return evolve(problem, message=f"{words} ({problem.message})")


def _parse_input(folder: str) -> list[Trouble]:
    """Read the other files as custodian does."""
    found = [*troubles_of("input", lambda: VaspInput.from_directory(folder))]
    if not found:
        return []
    # Which of them was it?
    files: dict[str, Any] = {"INCAR": Incar, "KPOINTS": Kpoints, "POSCAR": Poscar}
    alone = [
        problem
        for name, kind in files.items()
        if os.path.exists(path := os.path.join(folder, name))
        for problem in troubles_of(name, functools.partial(kind.from_file, path))
    ]
    return alone or found


def _parse_potcar(calculator: Any, folder: str, *, custodian: bool) -> Trouble | None:
    """Put the POTCAR together, and read it as custodian does."""

    def make() -> Trouble | None:
        found = next(troubles_of("input", lambda: calculator.write_potcar(directory=folder)), None)
        if custodian and not found:
            found = next(
                troubles_of("parse", lambda: Potcar.from_file(os.path.join(folder, "POTCAR"))), None
            )
        return found

    paths = tuple(calculator.ppp_list)
    return _parsed.get((custodian, paths), paths, make)


def _unknown(calculator: Any, given: Collection[str]) -> dict[str, str | None]:
    """Name what a user, or a preset, has misspelt; a recipe's own parameters are not theirs."""
    parameters = _parameters(calculator)
    recipes = {name for name in getattr(calculator, "kwargs", ()) if name not in given}
    misspelt = [name for name in parameters if name not in recipes and name not in _known()]
    near = {name: difflib.get_close_matches(name, _known(), n=1) for name in misspelt}
    return {name: found[0] if found else None for name, found in near.items()}


@functools.cache
def _known() -> frozenset[str]:
    """Collect the parameters of ASE's calculator and of quacc's, and the tags of INCAR."""
    names: set[str] = set(create_input.GenerateVaspInput().input_params)
    for kind in vars(create_input):
        if kind.endswith("_keys"):
            names.update(getattr(create_input, kind))
    for function in (AseVasp.__init__, QuaccVasp.__init__):
        names.update(inspect.signature(function).parameters)
    tags = Path(pymatgen.io.vasp.__file__).with_name("incar_parameters.json")
    names.update(json.loads(tags.read_text(encoding="utf-8")))
    return frozenset(name.lower() for name in names)


@frozen(kw_only=True)
class Started:
    """Commands that start a calculation, and the tags that findings go by; as in `Step`."""

    starts: Starts = ()
    tags: Mapping[str, str] = field(factory=dict)


def started(calculator: Any, folder: str, *, exact: bool) -> Started:
    """Return what would start a calculation whose input, POTCAR apart, lies in a folder.

    Unless it is for this structure alone (`exact`) another cell may have more k-points or fewer.
    """
    incar = Path(folder, "INCAR").read_text(errors="replace")
    tags = {
        name: each.value or ""
        for each in assignments("INCAR", incar)
        if (name := each.name.upper()) in JUDGED
    }
    exact = exact or bool(noncollinear(tags))
    return Started(starts=_starts(calculator, folder, exact=exact), tags=tags)


def _starts(calculator: Any, folder: str, *, exact: bool) -> Starts:
    if not isinstance(calculator, QuaccVasp):
        return ()
    settings = get_settings()
    usual, gamma = settings.VASP_CMD, settings.VASP_GAMMA_CMD
    # Custodian takes the usual one where the other is not there.
    for_gamma = (gamma, usual) if calculator.use_custodian else (gamma,)
    if not exact:
        return (usual,), for_gamma
    if calculator.use_custodian:
        is_gamma = _is_gamma_alone(folder)
        if is_gamma is None:
            return (usual,), for_gamma
        return (for_gamma,) if is_gamma else ((usual,),)
    chosen = {f"{settings.VASP_PARALLEL_CMD} {each}": each for each in (gamma, usual)}
    return ((chosen[calculator.command],),) if calculator.command in chosen else ()


def _is_gamma_alone(folder: str) -> bool | None:
    # A private name of custodian's, which another release may not have.
    check = getattr(jobs, "_gamma_point_only_check", None)
    return None if check is None else bool(check(VaspInput.from_directory(folder)))
