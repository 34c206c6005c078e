"""Commands that several tests type."""

import subprocess
import sys

from conftest import AL


def submit(cli, recipe, *arguments):
    """Submit one job and give its id."""
    answer = cli("submit", f"lab_recipes.{recipe}", AL, *arguments)
    assert answer.code == 0, answer.err
    return answer.out.strip()


def names(cli, *filters):
    """Return the jobs that fit, by their names."""
    jobs = cli("list", "--limit", 0, "--json", *filters).json["jobs"]
    return {job["name"]: job for job in jobs}


def imported(*commands):
    """Return what is heavy and was imported by these commands, in one process."""
    code = (
        "import sys\nfrom crystalmath.cli import main\n"
        f"for command in {commands!r}:\n"
        "    try: main(list(command))\n    except SystemExit as left: assert left.code in (0, 1)\n"
        "heavy = {'sqlalchemy', 'alembic', 'ase', 'numpy', 'asyncio', 'rich', 'pluggy', 'quacc'}\n"
        "print(sorted(heavy & {name.split('.')[0] for name in sys.modules}))"
    )
    return subprocess.check_output([sys.executable, "-c", code], text=True).splitlines()[-1]
