"""AiiDA: a profile of `verdi presto`, and a calcfunction with its provenance for each job."""

import os
import subprocess
import sys
from pathlib import Path

from contestant import run


def compute(task: str, count: int, folder: str) -> None:
    """Make a profile in the folder if there is none, and call the function for each number."""
    os.environ["AIIDA_PATH"] = folder
    verdi = str(Path(sys.executable).with_name("verdi"))
    if not Path(folder, ".aiida/config.json").exists():
        subprocess.run([verdi, "presto"], check=True, capture_output=True)
    import work
    from aiida import load_profile, orm
    from aiida.engine import calcfunction

    load_profile()
    function = getattr(work, task)

    def job(structure: orm.StructureData, number: orm.Int) -> orm.Dict:
        """Compute one job."""
        return orm.Dict(function(structure.get_ase(), folder, number.value))

    called = calcfunction(job)
    for number in range(count):
        called(orm.StructureData(ase=work.structure(number)), orm.Int(number))


if __name__ == "__main__":
    run(compute)
