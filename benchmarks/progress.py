"""Measure what the progress of 200 running jobs costs the server.

python benchmarks/progress.py [JOBS]   (default 200; VASP's files in a folder that is removed)

Each job has an OUTCAR of 2 MB. The benchmark prints the time of one `jobs.progress` of all jobs:
the first time, without a change since, and after a tenth or all of them have written. It also
prints the share of a core that this takes if a client asks every ten seconds.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from crystalmath.engines.registry import plugins
from crystalmath.progress.search import read_progress

EVERY_S = 10.0
_OSZICAR = "DAV: {:3d}    -0.3510947E+01   -0.18112E+02   -0.17432E+02  4048   0.718E+01\n"
_IONIC = "   1 F= -.37221404E+01 E0= -.37210001E+01  d E =-.228072E-02\n"
_FORCES = """ POSITION                                       TOTAL-FORCE (eV/Angst)
 -----------------------------------------------------------------------------------
      0.00000      0.00000      0.00000         0.000000      0.030000      0.040000
 -----------------------------------------------------------------------------------
"""


def main(count: int) -> None:
    """Print the times, in ms and in percent of a core."""
    with tempfile.TemporaryDirectory() as folder:
        works = [Path(folder, str(number)) for number in range(count)]
        for work in works:
            _fill(work)
        readers = plugins().progress_readers()
        _print_time("at first", works, readers)
        _print_time("nothing new", works, readers)
        for what, every in (("a tenth new", 10), ("all new", 1)):
            for work in works[::every]:
                with (work / "quacc-1/OSZICAR").open("a") as file:
                    file.write(_OSZICAR.format(2))
                os.utime(work / "quacc-1/OSZICAR", (time.time() - 30 + 1 / every,) * 2)
            _print_time(what, works, readers)


def _fill(work: Path) -> None:
    run = work / "quacc-1"
    run.mkdir(parents=True)
    steps = "".join(_OSZICAR.format(n) for n in range(1, 41))
    (run / "OSZICAR").write_text(f"{steps}{_IONIC}{_OSZICAR.format(1)}")
    line = "  k-point 1 : 0.0000 0.0000 0.0000  plane waves:  4048\n"
    (run / "OUTCAR").write_text(line * 20_000 + _FORCES + line * 18_000)
    before = time.time() - 60  # what was just written is read again in any case
    os.utime(run / "OSZICAR", (before, before))


def _print_time(what: str, works: list[Path], readers: Any) -> None:
    begun = time.process_time()
    for work in works:
        for _ in read_progress(work, readers):
            pass
    spent = time.process_time() - begun
    print(f"{spent * 1e3:8.1f} ms  {100 * spent / EVERY_S:6.2f} % of a core  {what}")


if __name__ == "__main__":
    os.nice(10)
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
