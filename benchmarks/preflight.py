"""Measure what the check of pseudopotentials adds to a submission.

``python benchmarks/preflight.py`` makes a library of POTCARs as large as VASP's own. It prints the
milliseconds of the first check, which starts a process and imports quacc there; of new checks in
the warm process; and of many structures of the same elements. It exits 1 if a limit is broken.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase.build import bulk, fcc111

from crystalmath import config
from crystalmath.engines.registry import plugins
from crystalmath.preflight import inspector
from crystalmath.quacc.engine import submission_environment
from crystalmath.recipes import codec
from crystalmath.recipes.structures import parse_and_keep

if TYPE_CHECKING:
    from collections.abc import Callable

    from ase import Atoms

ROOT = Path(__file__).resolve().parents[1]
#: The limit of what a warm check adds to a submission, in milliseconds.
LIMIT_MS = 25.0
#: How much longer the check of 1,000 structures may take than the first check of one.
MANY, MANY_RATIO = 1000, 2.0
#: The typical size of a POTCAR, in bytes.
POTCAR_BYTES = 250_000
OXIDE = bulk("MgO", "rocksalt", 4.2)
SLAB = fcc111("Cu", (2, 2, 4), vacuum=10.0, periodic=True)
#: Recipe, structure, and whether the limit is for it.
CASES = [
    ("vasp.core.static_job", OXIDE, True),
    ("vasp.core.relax_job", OXIDE, True),
    ("vasp.core.double_relax_flow", OXIDE, False),
    ("vasp.slabs.static_job", SLAB, True),
    ("vasp.mp24.mp_metagga_relax_job", OXIDE, True),
    ("vasp.qmof.qmof_relax_job", OXIDE, False),
    ("vasp.core.static_job", OXIDE.repeat(8), False),
    ("vasp.slabs.bulk_to_slabs_flow", bulk("Cu"), False),
]


def main() -> int:
    """Measure, print, and return whether a limit is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=20, help="questions of each kind")
    runs = parser.parse_args().n
    with tempfile.TemporaryDirectory(prefix="crystalmath-bench-") as folder:
        _set_environment(Path(folder))
        try:
            return _measure(runs)
        finally:
            inspector.close()


def _set_environment(folder: Path) -> None:
    sys.path.insert(0, str(ROOT / "tests"))
    from vasp.potcars import END, potcar

    body = "  0.61440880E+02  0.61430080E+02  0.61397770E+02  0.61343910E+02  0.61268610E+02\n"
    filling = body * (POTCAR_BYTES // len(body))
    for version in ("54", "64", "original"):
        for setup in ("Mg", "Mg_pv", "O", "Cu", "Cu_pv"):
            place = folder / f"potpaw_PBE.{version}" / setup
            place.mkdir(parents=True)
            text = potcar(setup).replace(END, filling + END)
            (place / "POTCAR").write_text(text, encoding="ascii")
    # Workers inherit it; users have bytecode.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ |= {"CRYSTALMATH_HOME": str(folder / "home"), "VASP_PP_PATH": str(folder)}


def _check(recipe: str, atoms: Atoms, **parameters: object) -> list[Any]:
    """Check a job as a submission does."""
    arguments = {
        "recipe": f"quacc.recipes.{recipe}",
        "atoms": atoms,
        "parameters": parameters,
        "environment": submission_environment(config.load()),
        "document": codec.body_text(codec.body_of(parse_and_keep(atoms)[1], parameters)),
    }
    findings = plugins().preflight(**arguments)
    plugins().pseudopotentials(**arguments)
    return [finding for finding in findings if finding.severity == "error"]


def _ms(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - start)


def _measure(runs: int) -> int:
    bare = [sys.executable, "-c", "import quacc.recipes.vasp.core"]
    imported = _ms(lambda: subprocess.run(bare, check=True))
    first = _ms(lambda: _check("vasp.core.static_job", OXIDE))
    print(f"{'bare import of quacc.recipes.vasp.core':52} {imported:8.0f} ms")
    print(f"{'first check, cold':52} {first:8.0f} ms  ratio {first / imported:.2f}")
    broken = False
    for recipe, atoms, limited in CASES:
        name = f"{recipe}, {len(atoms)} atoms"
        if errors := _check(recipe, atoms):
            print(f"{name:52} not measured: {str(errors[0])[:60]}...")
            continue
        took = statistics.median(_new(recipe, atoms) for _ in range(runs))
        again = statistics.median(_ms(partial(_check, recipe, atoms)) for _ in range(runs))
        line = f"{name:52} {took:8.1f} ms  known before {again:5.2f} ms"
        if limited:
            broken |= took > LIMIT_MS
            line += f"  limit {LIMIT_MS:g}" + "  BROKEN" * (took > LIMIT_MS)
        print(line)
    return int(_many(first) or broken)


_cutoffs = itertools.count(400)


def _new(recipe: str, atoms: Atoms) -> float:
    """Check a job that was never checked before."""
    parameters: dict[str, Any] = {"encut": next(_cutoffs)}
    if recipe.endswith("double_relax_flow"):
        parameters = {"relax2_kwargs": parameters}
    elif recipe.endswith("slabs_flow"):
        parameters = {"job_params": {"static_job": parameters}}
    return _ms(lambda: _check(recipe, atoms, **parameters))


def _many(first: float) -> bool:
    structures = []
    for number in range(MANY):
        structure = OXIDE.repeat(2)
        structure.rattle(0.05, seed=number)
        structures.append(structure)
    one = _ms(lambda: _check("vasp.core.relax_job", structures[0], encut=390))
    check = partial(_check, "vasp.core.relax_job", encut=390)
    rest = [_ms(partial(check, structure)) for structure in structures]
    ratio = (first + sum(rest)) / first
    print(
        f"{f'{MANY} structures of the same elements':52} {sum(rest):8.0f} ms  "
        f"{statistics.median(rest):.2f} ms each, the first of them {one:.1f} ms\n"
        f"{'with the first check, cold':52} ratio {ratio:.2f}  limit {MANY_RATIO:g}"
        + "  BROKEN"
        * (ratio > MANY_RATIO)
    )
    return ratio > MANY_RATIO


if __name__ == "__main__":
    sys.exit(main())
