"""Make the home of a release, which later releases must open: ``python make_home.py 0.1.0``.

It writes ``VERSION.tar.gz`` beside itself, by the commands of the code that is installed. Run it
once for each release, and never again for the same one.
"""

import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples"
#: A server makes its own files again.
LEFT_OUT = {"server", "jobs.sqlite.lock", ".reserve"}


def make(version):
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        home.mkdir(mode=0o700)
        (home / "config.toml").write_text('engine = "local"\n\n[engines.local]\nworkers = 1\n')
        # Jobs keep variables of their submitter, which should not name a developer's folders.
        environment = {"CRYSTALMATH_HOME": str(home), "HOME": folder, "PATH": "/usr/bin:/bin"}

        def run(*arguments, codes=(0,)):
            command = [sys.executable, "-m", "crystalmath", *map(str, arguments)]
            done = subprocess.run(
                command, env=environment, stdout=subprocess.PIPE, text=True, check=False
            )
            assert done.returncode in codes, arguments
            return done.stdout.strip()

        copper, aluminium = EXAMPLES / "Cu.poscar", EXAMPLES / "Al.poscar"
        static = ("emt.core.static_job", copper, aluminium, "--key", "static")
        run("submit", *static, "--label", "set=packed")
        failing = ("--param", "opt_params.max_steps=1", "--param", "opt_params.fmax=0.001")
        relaxing = ("submit", "emt.core.relax_job", aluminium, *failing)
        failed = run(*relaxing, "--label", "set=failed")
        retried = run(*relaxing, "--label", "set=retried")
        run("wait", failed, retried, codes=[1])
        run("retry", retried, "--continue", "--param", "opt_params.max_steps=100")
        run("wait", "--label", "set=packed")
        run("wait", "--label", "set=retried")
        run("pack", "--label", "set=packed")
        run("stop")
        with tarfile.open(HERE / f"{version}.tar.gz", "w:gz") as archive:
            archive.add(
                home,
                "home",
                filter=lambda member: None if Path(member.name).name in LEFT_OUT else member,
            )


if __name__ == "__main__":
    make(sys.argv[1])
