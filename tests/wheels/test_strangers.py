"""Engines of strangers come and go as wheels, in an environment of their own."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CU = ROOT / "examples/Cu.poscar"
PROJECT = """\
[build-system]
requires = ["hatchling>=1.26"]
build-backend = "hatchling.build"

[project]
name = "{name}"
version = "7.1"
dependencies = ["crystalmath[quacc]>=0.1.0.dev0"]

[project.entry-points."crystalmath.engines"]
{engine} = "{module}"
"""
THREADS = """\
import threading

from crystalmath import worker
from crystalmath.hookspecs import hookimpl
from crystalmath.models import Sighting
from crystalmath.quacc.engine import EngineRunner


class ThreadsRunner(EngineRunner):
    def launch(self, attempts):
        for attempt in attempts:
            threading.Thread(target=worker.run, args=[attempt.directory], daemon=True).start()
        return {attempt.id: attempt.id for attempt in attempts}

    def probe(self, attempts):
        return {attempt.id: Sighting("unknown") for attempt in attempts}


@hookimpl
def crystalmath_make_runner(settings):
    return ThreadsRunner(settings)
"""
BROKEN = 'raise RuntimeError("the flux capacitor is missing")\n'


class Environment:
    """A virtual environment that sees nothing of the source tree."""

    def __init__(self, folder):
        self.folder = folder
        uv("venv", f"--python={sys.executable}", folder)

    def install(self, *wheels):
        uv("pip", "install", f"--python={self.folder}", *wheels)

    def uninstall(self, *names):
        uv("pip", "uninstall", f"--python={self.folder}", *names)

    def crystalmath(self, *arguments):
        """Run a command with ``--json``; give its exit code and its document."""
        done = subprocess.run(
            [self.folder / "bin/crystalmath", *arguments, "--json"],
            cwd=self.folder,
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            capture_output=True,
            text=True,
            # Nothing of what it imports has been compiled yet.
            timeout=600,
            check=False,
        )
        assert done.stdout, f"{done.args} ended with {done.returncode}: {done.stderr}"
        return done.returncode, json.loads(done.stdout)

    def engines(self):
        code, document = self.crystalmath("engines")
        assert code == 0
        return {each["name"]: each for each in document["engines"]}

    def run(self, engine):
        code, document = self.crystalmath("run", "emt.core.relax_job", CU, f"--engine={engine}")
        assert code == 0, document
        return document["result"]["energy_ev"]


def uv(*arguments):
    command = shutil.which("uv")
    assert command, "these tests need uv: pip install uv"
    done = subprocess.run([command, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def build(source, folder):
    """Build a wheel from a source distribution."""
    uv("build", f"--out-dir={folder}", source)
    assert len(list(folder.glob("*.tar.gz"))) == 1
    (wheel,) = folder.glob("*.whl")
    return wheel


def ours(name, folder):
    """Return the wheel of a package of ours: nox has built it, or it is built here."""
    if "WHEELS" not in os.environ:
        return build(ROOT / "packages" / name, folder)
    (wheel,) = Path(os.environ["WHEELS"], name).glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    """Write and build a distribution that brings one engine."""

    def stranger(engine, source):
        folder = tmp_path_factory.mktemp(engine)
        name = f"strange-{engine}"
        module = name.replace("-", "_")
        text = PROJECT.format(name=name, engine=engine, module=module)
        (folder / "pyproject.toml").write_text(text)
        (folder / f"{module}.py").write_text(source)
        return build(folder, folder / "dist")

    return stranger


@pytest.fixture(scope="module")
def threads(stranger):
    return stranger("threads", THREADS)


@pytest.fixture(scope="module")
def broken(stranger):
    return stranger("broken", BROKEN)


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Return an environment with core alone."""
    core = ours("core", tmp_path_factory.mktemp("core"))
    environment = Environment(tmp_path_factory.mktemp("fresh") / "venv")
    environment.install(f"{core}[quacc]")
    return environment


def test_our_own(environment, tmp_path):
    assert list(environment.engines()) == ["local"]
    environment.install(ours("engine-parsl", tmp_path))
    assert environment.engines().keys() == {"local", "parsl"}
    assert all(each["loads"] for each in environment.engines().values())
    environment.uninstall("crystalmath-engine-parsl")
    assert list(environment.engines()) == ["local"]


def test_an_engine_comes_runs_a_job_and_goes(environment, threads):
    environment.install(threads)
    found = environment.engines()["threads"]
    assert (found["distribution"], found["version"]) == ("strange-threads", "7.1")
    assert found["loads"]
    assert found["error"] is None
    assert environment.run("threads") == pytest.approx(-0.005681511358581304, abs=1e-9)

    environment.uninstall("strange-threads")
    assert list(environment.engines()) == ["local"]
    code, document = environment.crystalmath("run", "emt.core.relax_job", CU, "--engine=threads")
    assert code == 1
    assert "'threads'" in document["error"]
    assert "local" in document["error"]


def test_an_engine_that_cannot_be_imported_hinders_nothing(environment, threads, broken):
    environment.install(threads, broken)
    found = environment.engines()
    assert found.keys() == {"local", "threads", "broken"}
    assert not found["broken"]["loads"]
    assert "the flux capacitor is missing" in found["broken"]["error"]
    assert found["broken"]["distribution"] == "strange-broken"
    assert found["local"]["loads"]
    assert found["threads"]["loads"]
    for engine in ("local", "threads"):
        assert environment.run(engine) == pytest.approx(-0.005681511358581304, abs=1e-9)
    code, document = environment.crystalmath("run", "emt.core.relax_job", CU, "--engine=broken")
    assert code == 1
    assert "the flux capacitor is missing" in document["error"]
    environment.uninstall("strange-threads", "strange-broken")
    assert list(environment.engines()) == ["local"]


def test_an_engine_of_the_template_passes_the_kit_as_it_was_written(environment, tmp_path):
    folder = tmp_path / "engine"
    code, document = environment.crystalmath("engine-template", "my-pool", "--dir", folder)
    assert code == 0, document
    environment.install(build(folder, tmp_path / "dist"), "psutil", "pytest", "pytest-xdist")
    assert environment.engines()["my-pool"]["loads"]
    done = subprocess.run(
        [environment.folder / "bin/crystalmath", "conform", "my-pool"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    environment.uninstall("crystalmath-engine-my-pool")
    assert done.returncode == 0, done.stdout + done.stderr
