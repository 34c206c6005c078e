"""A recipe called as quacc's own documentation has it, and as a job: both give the same."""

import contextlib
import os
from pathlib import Path

import pytest

from crystalmath.client import JobFailed, in_process
from crystalmath.recipes.lookup import resolve
from crystalmath.recipes.source_folders import FOLDERS
from digests import digests
from same.comparing import assert_same

__all__ = ["assert_runs_as_bare", "kept", "opened"]

LONG = 600


@contextlib.contextmanager
def opened(home, **environment):
    """Yield a client of a home with one worker, in an environment with more variables."""
    (home / "config.toml").write_text("[engines.local]\nworkers = 1\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRYSTALMATH_HOME", str(home))
        for name, value in environment.items():
            patch.setenv(name, value)
        with in_process() as client:
            yield client


@contextlib.contextmanager
def kept(*folders):
    """Assert that folders, and what earlier jobs of the home have left, stay as they are."""
    jobs = Path(os.environ["CRYSTALMATH_HOME"], "jobs").glob("*/*.work")
    left = {folder: digests(folder) for folder in (*folders, *jobs)}
    yield
    for folder, held in left.items():
        assert digests(folder) == held, folder


def assert_runs_as_bare(client, name, atoms, parameters, folder, **instead):
    """Run a recipe both ways and compare what it gave, or its error, and give that.

    Ours leaves each folder that it names, and those of earlier jobs, as they were.

    Parameters
    ----------
    client : Client
        The client.
    name : str
        The recipe's, without ``quacc.recipes.``
    atoms : ase.Atoms or None
        What it is given, if it takes a structure.
    parameters : mapping of str to object
        Its parameters.
    folder : path-like
        Where the bare calculation leaves its files.
    **instead
        Parameters that are others for the bare one: files that it writes to.
    """
    with kept(*_named(parameters)):
        job = client.submit(name, atoms, parameters, engine="local")
        failed = job.exception(LONG)
    bare, error = _bare(name, atoms, {**parameters, **instead}, folder)
    if error is not None:
        assert isinstance(failed, JobFailed), failed
        assert f"{type(error).__name__}: " in failed.traceback
        return error
    assert_same(job.result(LONG), bare, name)
    return bare


def _named(parameters):
    """Return the folders of earlier calculations among a recipe's parameters."""
    sources = [spec["source"] for spec in parameters.get("copy_files") or ()]
    sources += [parameters[name] for name in FOLDERS if parameters.get(name)]
    return [source for source in sources if Path(source).is_dir()]


def _bare(name, atoms, parameters, folder):
    from quacc import change_settings

    recipe = resolve(f"quacc.recipes.{name}", ())
    given = () if atoms is None else (atoms.copy(),)
    try:
        with change_settings({"RESULTS_DIR": folder}):
            return recipe(*given, **parameters), None
    except Exception as error:  # noqa: BLE001 - whatever it is, ours must be the same
        return None, error
