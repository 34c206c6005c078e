"""Which of VASP's programs a calculation starts: quacc and custodian choose by its k-points.

Asked is their own code, with the input that was written.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import frozen

from crystalmath.preflight.input_files import assignments

if TYPE_CHECKING:
    from crystalmath.preflight.report import Starts

#: Tags with which moments have a direction: of VASP's programs one alone computes that.
NONCOLLINEAR = ("LSORBIT", "LNONCOLLINEAR")


@frozen(kw_only=True)
class Started:
    """What starts a calculation.

    Parameters
    ----------
    starts : tuple of tuple of str
        As in :class:`~crystalmath.preflight.report.Step`.
    noncollinear : tuple of str
        Those of the tags `NONCOLLINEAR` that are on.
    """

    starts: Starts = ()
    noncollinear: tuple[str, ...] = ()


def started(calculator: Any, folder: str, *, exact: bool) -> Started:
    """Return what would start a calculation.

    Parameters
    ----------
    calculator : ase.calculators.vasp.Vasp
        quacc's or ASE's; what ASE's starts is not known.
    folder : str
        Where its input was written, POTCAR apart.
    exact : bool
        Whether it is for this structure alone. In another cell there may be more k-points or fewer.
    """
    incar = Path(folder, "INCAR").read_text(errors="replace")
    on = {each.name.upper() for each in assignments("INCAR", incar) if _is_true(each.value)}
    noncollinear = tuple(tag for tag in NONCOLLINEAR if tag in on)
    exact = exact or bool(noncollinear)
    return Started(starts=_starts(calculator, folder, exact=exact), noncollinear=noncollinear)


def _is_true(value: str | None) -> bool:
    return (value or "").upper().lstrip(".").startswith("T")


def _starts(calculator: Any, folder: str, *, exact: bool) -> Starts:
    from quacc import get_settings
    from quacc.calculators.vasp import Vasp

    if not isinstance(calculator, Vasp):
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
    from custodian.vasp import jobs
    from pymatgen.io.vasp.inputs import VaspInput

    # A private name of custodian's, which another release may not have.
    check = getattr(jobs, "_gamma_point_only_check", None)
    return None if check is None else bool(check(VaspInput.from_directory(folder)))
