"""What the stand-in for VASP writes: OUTCAR, OSZICAR and vasprun.xml, as far as they are read.

By ablation that is what ASE, pymatgen, emmet and custodian ask for; the bands are made up.
"""

import numpy as np
from ase.units import GPa

VERSION = "6.4.2"
RULE = "-" * 104


def begin(asked):
    """Write what is there before the first electronic step."""
    said = [" running    1 mpi-ranks, with    1 threads/rank", *asked.warnings]
    print("\n".join([*said, f" vasp.{VERSION} 20Jul23 complex", " entering main loop"]))
    ions = sum(count for _, count in asked.blocks)
    lines = [
        f" vasp.{VERSION} 20Jul23 (build stand-in) complex",
        " executed on             Linux date 2024.01.01  00:00:00",
        " running    1 mpi-ranks, with    1 threads/rank, on    1 nodes",
        *(f" POTCAR:    {dataset['TITEL']}" for dataset in asked.datasets),
        *(f"   TITEL  = {dataset['TITEL']}" for dataset in asked.datasets),
        f"   k-points           NKPTS =      1   number of bands    NBANDS= {_bands(asked):6d}",
        f"   number of ions     NIONS = {ions:6d}",
        "   total plane-waves  NPLWV =   4096",
        f"   NELECT = {_electrons(asked):12.4f}    total number of electrons",
        f"   ISPIN  = {asked.integer('ISPIN', 1):6d}    spin polarized calculation?",
        f"   IBRION = {asked.integer('IBRION', -1):6d}    ionic relax: 0-MD 1-quasi-New 2-CG",
        "",
    ]
    with open("OUTCAR", "w", encoding="ascii") as file:
        file.write("\n".join(lines))


def finish(asked, steps, relaxed, *, converged):
    """Write what is there at the end."""
    electronic = min(5, asked.integer("NELM", 60) - 1) if converged else asked.integer("NELM", 60)
    _outcar(asked, steps, relaxed, electronic, converged)
    write_oszicar(steps, electronic)
    _vasprun(asked, steps, electronic)
    # Some of what VASP writes is looked for, or copied to the next step, and not read.
    for name in ("DOSCAR", "EIGENVAL", "IBZKPT", "CHGCAR", "WAVECAR"):
        with open(name, "w", encoding="ascii") as file:
            file.write("stand-in\n")


def _electrons(asked):
    pairs = zip(asked.blocks, asked.datasets, strict=True)
    return sum(count * dataset["ZVAL"] for (_, count), dataset in pairs)


def _bands(asked):
    return int(_electrons(asked)) // 2 + 4


def _fermi(asked):
    # Bands are at 0, 1, 2, ... eV, and two electrons in each: between the last and the next.
    return _electrons(asked) / 2 - 0.5


def _outcar(asked, steps, relaxed, electronic, converged):
    reason = "EDIFF is reached" if converged else "EDIFF was not reached (unconverged)"
    lines = []
    moments = asked.moments()
    for number, step in enumerate(steps, 1):
        results = step.info["results"]
        energy = f"{results['energy']:18.8f}"
        lines += [
            f"{RULE}\n\n\n- Iteration {number:6d}({electronic:4d})  ---------------------------",
            f"------------------------ aborting loop because {reason} ----------",
            f" number of electron {_electrons(asked):14.7f} magnetization {sum(moments):14.7f}",
            f" E-fermi : {_fermi(asked):8.4f}     XC(G=0):  -8.0000     alpha+bet : -5.0000",
            f"  free  energy   TOTEN  = {energy} eV",
            f"  energy  without entropy= {energy}  energy(sigma->0) = {energy}",
            "  entropy T*S    EENTRO =         0.00000000",
            " POSITION                                       TOTAL-FORCE (eV/Angst)",
            " " + RULE[:83],
        ]
        for position, force in zip(step.positions, results["forces"], strict=True):
            lines.append("".join(f"{x:13.5f}" for x in (*position, *force)))
        drift = results["forces"].sum(axis=0)
        lines += [" " + RULE[:83], "    total drift:" + "".join(f"{x:20.6f}" for x in drift), ""]
    lines += ["", " magnetization (x)", "", "# of ion       s       p       d       tot", RULE[:40]]
    lines += [
        f"{ion:5d}        0.000   0.000 {moment:7.3f} {moment:7.3f}"
        for ion, moment in enumerate(moments, 1)
    ]
    total = sum(moments)
    lines += [RULE[:40], f"tot          0.000   0.000 {total:7.3f} {total:7.3f}", ""]
    if relaxed:
        lines.append(" reached required accuracy - stopping structural energy minimisation")
        print(lines[-1])
    lines += [
        " General timing and accounting informations for this job:",
        "                  Total CPU time used (sec):        1.000",
        "                         Elapsed time (sec):        1.000",
        "                   Maximum memory used (kb):       10000.",
        "",
    ]
    with open("OUTCAR", "a", encoding="ascii") as file:
        file.write("\n".join(lines))


def write_oszicar(steps, electronic):
    """Write what it has of the steps that were done."""
    lines = []
    for number, step in enumerate(steps, 1):
        energy = step.info["results"]["energy"]
        lines.append("       N       E                     dE             d eps       ncg     rms")
        for loop in range(1, electronic + 1):
            change = 10.0**-loop
            lines.append(
                f"DAV: {loop:3d}    {energy + change:18.12E}   {-change:.5E}   {-change:.5E}"
                f"   100   {change:.3E}"
            )
        lines.append(f"{number:4d} F= {energy:.8E} E0= {energy:.8E}  d E =0.000000E+00")
    with open("OSZICAR", "w", encoding="ascii") as file:
        file.write("\n".join(lines) + "\n")


# --- vasprun.xml ---------------------------------------------------------------------------------


def _vasprun(asked, steps, electronic):
    parts = [
        '<?xml version="1.0" encoding="ISO-8859-1"?>\n<modeling>\n',
        '<generator><i name="program" type="string">vasp</i>',
        f'<i name="version" type="string">{VERSION}</i></generator>\n',
        "<incar>",
        *(_item(tag, value) for tag, value in asked.incar.items() if tag in _TYPES),
        "</incar>\n",
        '<kpoints><generation param="Gamma"><v type="int" name="divisions">1 1 1</v>',
        '<v name="usershift">0 0 0</v></generation>',
        _array("kpointlist", [[0.0, 0.0, 0.0]]),
        _array("weights", [[1.0]]),
        "</kpoints>\n<parameters>",
        *(_item(tag, value) for tag, value in _parameters(asked).items()),
        "</parameters>\n",
        _atominfo(asked, steps[0]),
        _structure(steps[0], ' name="initialpos"'),
        *(_calculation(asked, step, electronic, last=step is steps[-1]) for step in steps),
        _structure(steps[-1], ' name="finalpos"'),
        "</modeling>\n",
    ]
    with open("vasprun.xml", "w", encoding="ascii") as file:
        file.write("".join(parts))


_TYPES = {
    **dict.fromkeys(("NELM", "NSW", "IBRION", "ISIF", "ISPIN", "ISMEAR", "LORBIT"), "int"),
    **dict.fromkeys(("ALGO", "PREC"), "string"),
    **dict.fromkeys(("ENCUT", "EDIFF", "EDIFFG", "SIGMA", "NELECT", "NBANDS", "KSPACING"), ""),
}


def _item(tag, value):
    kind = "int" if tag == "NBANDS" else _TYPES[tag]
    return f'<i name="{tag}"{kind and f" type={chr(34)}{kind}{chr(34)}"}>{value}</i>'


def _parameters(asked):
    nsw = asked.integer("NSW", 0)
    return {
        "NELM": asked.integer("NELM", 60),
        "NSW": nsw,
        "IBRION": asked.integer("IBRION", 0 if nsw else -1),
        "ISIF": asked.integer("ISIF", 2),
        "ISPIN": asked.integer("ISPIN", 1),
        "ISMEAR": asked.integer("ISMEAR", 1),
        "SIGMA": asked.number("SIGMA", 0.2),
        "EDIFF": asked.number("EDIFF", 1e-4),
        "EDIFFG": asked.number("EDIFFG", 1e-3),
        "NELECT": _electrons(asked),
        "NBANDS": _bands(asked),
        # No densities of single orbitals are made up.
        "LORBIT": 0,
    }


def _vectors(rows):
    return "".join("<v>" + " ".join(f"{x:.16f}" for x in row) + "</v>" for row in rows)


def _array(name, rows):
    return f'<varray name="{name}">{_vectors(rows)}</varray>'


def _atominfo(asked, atoms):
    kinds = [kind for kind, (_, count) in enumerate(asked.blocks, 1) for _ in range(count)]
    ions = zip(atoms.symbols, kinds, strict=True)
    types = zip(asked.blocks, asked.datasets, strict=True)
    return "".join(
        [
            f"<atominfo><atoms>{len(atoms)}</atoms><types>{len(asked.blocks)}</types>",
            '<array name="atoms"><set>',
            *(f"<rc><c>{symbol:2s}</c><c>{kind}</c></rc>" for symbol, kind in ions),
            '</set></array><array name="atomtypes"><set>',
            *(
                f"<rc><c>{count}</c><c>{each['element']:2s}</c><c>1.0</c><c>{each['ZVAL']}</c>"
                f"<c>{each['TITEL']}</c></rc>"
                for (_, count), each in types
            ),
            "</set></array></atominfo>\n",
        ]
    )


def _structure(atoms, name=""):
    basis, positions = atoms.cell, atoms.get_scaled_positions(wrap=False)
    return (
        f"<structure{name}><crystal>{_array('basis', basis)}</crystal>"
        f"{_array('positions', positions)}</structure>\n"
    )


def _energies(energy):
    names = ("e_fr_energy", "e_wo_entrp", "e_0_energy")
    return "<energy>" + "".join(f'<i name="{n}">{energy:.12f}</i>' for n in names) + "</energy>"


def _calculation(asked, atoms, electronic, *, last):
    results = atoms.info["results"]
    six = np.asarray(results["stress"])[[0, 5, 4, 5, 1, 3, 4, 3, 2]]
    stress = (-six / GPa * 10).reshape(3, 3)  # in kB
    loops = [_energies(results["energy"] + 10.0**-loop) for loop in range(1, electronic)]
    loops.append(_energies(results["energy"]))
    return "".join(
        [
            "<calculation>",
            *(f"<scstep>{loop}</scstep>" for loop in loops),
            _structure(atoms),
            _array("forces", results["forces"]),
            _array("stress", stress),
            _energies(results["energy"]),
            _electrons_xml(asked) if last else "",
            "</calculation>\n",
        ]
    )


def _electrons_xml(asked):
    spins = range(1, asked.integer("ISPIN", 1) + 1)
    full = _electrons(asked) / 2
    bands = "".join(
        f"<r>{band:.4f} {min(1.0, max(0.0, full - band)):.4f}</r>" for band in range(_bands(asked))
    )
    eigenvalues = "".join(
        f'<set comment="spin {spin}"><set comment="kpoint 1">{bands}</set></set>' for spin in spins
    )
    levels = "".join(f"<r>{level:.2f} 1.0 {level:.2f}</r>" for level in range(10))
    total = "".join(f'<set comment="spin {spin}">{levels}</set>' for spin in spins)
    return (
        f"<eigenvalues><array><set>{eigenvalues}</set></array></eigenvalues>"
        f'<dos><i name="efermi">{_fermi(asked):.4f}</i>'
        f"<total><array><set>{total}</set></array></total></dos>"
    )
