"""AiiDA: a profile of `verdi presto`, and a calcfunction with its provenance for each job."""

import os
import subprocess
import sys
import uuid
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


def record(count: int, folder: str) -> list[list[str]]:
    """Compute one job, and copy its process so often."""
    compute("noop", 1, folder)
    from aiida import orm
    from aiida.manage import get_manager
    from aiida.orm.entities import EntityTypes

    process = orm.QueryBuilder().append(orm.CalcFunctionNode).one()[0]
    kept = ("node_type", "process_type", "label", "description", "ctime", "mtime")
    row = {name: getattr(process, name) for name in kept}
    row |= {"attributes": process.base.attributes.all, "user_id": process.user.pk}
    row |= {"extras": {}, "repository_metadata": {}, "dbcomputer_id": None}
    storage = get_manager().get_profile_storage()
    for start in range(0, count - 1, 1000):
        rows = [{**row, "uuid": str(uuid.uuid4())} for _ in range(min(1000, count - 1 - start))]
        storage.bulk_insert(EntityTypes.NODE, rows)
    verdi = str(Path(sys.executable).with_name("verdi"))
    listed = [verdi, "process", "list", "--all", "--limit", "50"]
    return [listed, [verdi, "process", "show", str(process.pk)]]


if __name__ == "__main__":
    run(compute, record=record)
