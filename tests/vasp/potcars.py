"""POTCARs that have the form of VASP's own, and nothing of their content."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vasp import standin

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

END = " End of Dataset\n"


def potcar(setup: str, *, element: str | None = None, lexch: str = "PE", zval: float = 4.0) -> str:
    """Write the dataset of a setup (``Ba_sv``)."""
    element = element or setup.partition("_")[0].partition(".")[0]
    kind = "PAW" if lexch == "CA" else "PAW_PBE"
    return (
        f"  {kind} {setup} 01Jan2001\n"
        f"   {zval:.12f}\n"
        " parameters from PSCTR are:\n"
        f"   VRHFIN ={element}: s2p2\n"
        f"   LEXCH  = {lexch}\n"
        "   EATOM  =   100.0000 eV,    7.3499 Ry\n"
        "\n"
        f"   TITEL  = {kind} {setup} 01Jan2001\n"
        "   LULTRA =        F    use ultrasoft PP ?\n"
        "   IUNSCR =        1    unscreen: 0-lin 1-nonlin 2-no\n"
        "   RPACOR =    1.500    partial core radius\n"
        f"   POMASS =   28.085; ZVAL   = {zval:8.3f}    mass and valenz\n"
        "   RCORE  =    1.900    outmost cutoff radius\n"
        "   RWIGS  =    2.480; RWIGS  =    1.312    wigner-seitz radius (au A)\n"
        "   ENMAX  =  245.345; ENMIN  =  184.009 eV\n"
        "   ICORE  =        2    local potential\n"
        "   LCOR   =        T    correct aug charges\n"
        "   LPAW   =        T    paw PP\n"
        "   EAUG   =  322.069\n"
        "   RMAX   =    1.950    core radius for proj-oper\n"
        "   RAUG   =    1.300    factor for augmentation sphere\n"
        "   RDEP   =    1.993    radius for radial grids\n"
        "   RDEPT  =    1.837    core radius for aug-charge\n"
        "\n"
        "END of PSCTR-controll parameters\n"
        " local part\n"
        "    98.2660780400000\n"
        "  0.61440880E+02  0.61430080E+02  0.61397770E+02  0.61343910E+02  0.61268610E+02\n"
        + "".join(f"  {x:.8E}\n" for x in range(1, 60))
        + END
    )


def library(root: Path, *setups: str, folder: str = "potpaw_PBE.64", **options: object) -> Path:
    """Write the POTCARs of setups below ``root/folder``, and give ``root``."""
    for setup in setups:
        place = root / folder / setup
        place.mkdir(parents=True, exist_ok=True)
        (place / "POTCAR").write_text(potcar(setup, **options), encoding="ascii")
    return root


def beside_vasp(
    root: Path, *setups: str, versions: Iterable[str] = ("54", "64"), **more: str
) -> dict[str, str]:
    """Write POTCARs and the stand-in for VASP below ``root``; give what a job needs of them."""
    for version in versions:
        library(root / "potcars", *setups, folder=f"potpaw_PBE.{version}")
    standin.install(root / "bin")
    own = {"PATH": f"{root / 'bin'}:/usr/bin:/bin", "VASP_PP_PATH": str(root / "potcars")}
    return {**own, **more}


def concatenated(setups: Iterable[str]) -> str:
    """Write what a calculation's POTCAR holds."""
    return "".join(map(potcar, setups))
