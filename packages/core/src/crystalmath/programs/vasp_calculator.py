"""The POTCARs that a VASP calculator reads, and the troubles of its input.

ASE's own code answers both, called as in a calculation. Only the warm child imports this module,
since it imports quacc.
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
from crystalmath.programs.vasp_findings import JUDGED, noncollinear
from crystalmath.programs.vasp_inputs import without_potcar

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from ase import Atoms

    from crystalmath.plugins.program import Context, Program
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
    """Load the tables of the first question, and replace VASP's own calculation and summary."""
    _known()
    # pymatgen loads its table of VASP's POTCARs with the first dataset.
    with contextlib.suppress(Exception):
        PotcarSingle(_NOTHING)
    gate.patch(AseVasp, calculate=gate.calculate)
    gate.patch(VaspSummarize, run=gate.summary, ase_opt=gate.summary)
    _patch_converter()


def _patch_converter() -> None:
    """Keep an input set from reading the files of a calculation that was only recorded.

    The moments and the band gap in those files do not choose pseudopotentials.
    """
    begin = MPtoASEConverter.__init__

    def begin_without(converter: Any, atoms: Any = None, prev_dir: Any = None) -> None:
        begin(converter, atoms, None if gate.is_unmade(prev_dir) else prev_dir)

    gate.patch(MPtoASEConverter, __init__=begin_without)


def ask(program: Program, calculator: Any, atoms: Atoms, context: Context) -> Step:
    """Return the step of a calculation: its POTCARs, and why it cannot begin."""
    troubles = [*troubles_of("structure", lambda: check_atoms(atoms))]
    custodian = bool(getattr(calculator, "use_custodian", False))
    needs: tuple[Need, ...] = ()
    start = Started()
    unnamed = [*troubles_of("input", lambda: _initialize(calculator, atoms))]
    if not unnamed:
        needs = _needs(calculator, context.user_parameters)
    if not (troubles or unnamed):
        readable = all(facts(path, program).problem is None for path in calculator.ppp_list)
        how = {"custodian": custodian, "readable": readable}
        of_input, start = _write(calculator, atoms, context, **how)
        troubles += of_input
    return Step(
        calculator=program.name,
        needs=needs,
        root=_configured(_PATH),
        custodian=custodian,
        troubles=(*troubles, *unnamed),
        unknown=_unknown(calculator, context.user_parameters),
        by_index=not unnamed and bool(_special(calculator)),
        # With spin-orbit coupling the cell decides the program, so no report is shared.
        by_element=not noncollinear(start.tags),
        starts=start.starts,
        tags=start.tags,
    )


def _initialize(calculator: Any, atoms: Atoms) -> None:
    calculator.make_command(calculator.command)
    with _everything_exists():
        calculator.initialize(atoms)


class _Os:
    """The module ``os`` as if every path existed, so that ASE names all the files that it needs."""

    def __init__(self) -> None:
        self.path = self

    def __getattr__(self, name: str) -> Any:
        return getattr(os.path if hasattr(os.path, name) else os, name)

    @staticmethod
    def exists(_: object) -> bool:
        return True


@contextlib.contextmanager
def _everything_exists() -> Iterator[None]:
    create_input.os = _Os()
    try:
        yield
    finally:
        create_input.os = os


def _needs(calculator: Any, user_parameters: Collection[str]) -> tuple[Need, ...]:
    reason = _reason(calculator, user_parameters)
    return tuple(
        Need(
            symbol=symbol,
            setup=os.path.basename(os.path.dirname(path)),
            path=path,
            reason=reason,
        )
        for (symbol, _), path in zip(calculator.symbol_count, calculator.ppp_list, strict=True)
    )


def _reason(calculator: Any, user_parameters: Collection[str]) -> str:
    parameters = _parameters(calculator)
    explicit = getattr(calculator, "kwargs", parameters)
    preset = getattr(calculator, "preset", None)
    reasons = []
    if preset and any(parameters.get(name) is not None for name in _DECIDE if name not in explicit):
        reasons.append(f"preset {preset}")
    for name in _DECIDE:
        if (value := explicit.get(name)) is not None:
            whose = "parameter" if name in user_parameters else "the recipe's"
            shown = name if isinstance(value, dict) else f"{name}={str(value)!r}"
            reasons.append(f"{whose} {shown}")
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
    calculator: Any, atoms: Atoms, context: Context, *, custodian: bool, readable: bool
) -> tuple[list[Trouble], Started]:
    """Write and parse the input as before VASP's start; the POTCARs are judged elsewhere."""
    start = Started()
    with tempfile.TemporaryDirectory(dir=context.directory) as folder:
        with without_potcar(calculator, readable=readable):
            write = create_input.GenerateVaspInput.write_input
            troubles = [
                _with_texts(each, calculator)
                for each in troubles_of("input", lambda: write(calculator, atoms, directory=folder))
            ]
        if custodian and not troubles:
            troubles += _parse_input(folder)
        if not troubles:
            start = started(calculator, folder, exact=context.exact)
        if readable and (problem := _parse_potcar(calculator, folder, custodian=custodian)):
            troubles.append(problem)
    return troubles, start


def _with_texts(problem: Trouble, calculator: Any) -> Trouble:
    """Add the texts that should be numbers to a trouble: ASE's exception does not name them."""
    texts = [
        f"{name} = {value[:40]!r}"
        for kind in ("float_params", "exp_params")
        for name, value in getattr(calculator, kind).items()
        if isinstance(value, str)
    ]
    if not texts:
        return problem
    words = f"text in place of a number: {', '.join(texts[:_MANY])}"
    return evolve(problem, message=f"{words} ({problem.message})")


def _parse_input(folder: str) -> list[Trouble]:
    """Return the troubles of custodian with the input, POTCAR apart."""
    together = [*troubles_of("input", lambda: VaspInput.from_directory(folder))]
    if not together:
        return []
    # The exception does not name the file, so each is read alone.
    files: dict[str, Any] = {"INCAR": Incar, "KPOINTS": Kpoints, "POSCAR": Poscar}
    alone = [
        problem
        for name, kind in files.items()
        if os.path.exists(path := os.path.join(folder, name))
        for problem in troubles_of(name, functools.partial(kind.from_file, path))
    ]
    return alone or together


def _parse_potcar(calculator: Any, folder: str, *, custodian: bool) -> Trouble | None:
    """Return the trouble of writing the POTCAR, or of custodian with it."""

    def make() -> Trouble | None:
        path = os.path.join(folder, "POTCAR")
        problem = next(
            troubles_of("input", lambda: calculator.write_potcar(directory=folder)), None
        )
        if custodian and not problem:
            problem = next(troubles_of("parse", lambda: Potcar.from_file(path)), None)
        return problem

    paths = tuple(calculator.ppp_list)
    return _parsed.get((custodian, paths), paths, make)


def _unknown(calculator: Any, user_parameters: Collection[str]) -> dict[str, str | None]:
    """Return the unknown parameters of the user or a preset, each with the nearest known one."""
    parameters = _parameters(calculator)
    recipes = {name for name in getattr(calculator, "kwargs", ()) if name not in user_parameters}
    unknown = [name for name in parameters if name not in recipes and name not in _known()]
    near = {name: difflib.get_close_matches(name, _known(), n=1) for name in unknown}
    return {name: matches[0] if matches else None for name, matches in near.items()}


@functools.cache
def _known() -> frozenset[str]:
    """Return the parameters of ASE's and quacc's calculators, and the tags of INCAR."""
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
    """The commands that start a calculation, and the tags that findings use; as in `Step`."""

    starts: Starts = ()
    tags: Mapping[str, str] = field(factory=dict)


def started(calculator: Any, folder: str, *, exact: bool) -> Started:
    """Return the commands and tags of a calculation whose input, POTCAR apart, is in a folder.

    Unless the report serves this structure alone (`exact`), another cell may have more k-points or
    fewer, so both programs may start.
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
    # Custodian takes the usual command if the other one is missing.
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
    # Another release of custodian may lack this private name.
    check = getattr(jobs, "_gamma_point_only_check", None)
    return None if check is None else bool(check(VaspInput.from_directory(folder)))
