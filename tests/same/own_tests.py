"""A plugin of pytest that has quacc's own tests run its recipes as jobs.

quacc's distribution on the index has no tests, so they come from a checkout of its repository, at
the release that is installed: ``nox -s own -- QUACC/tests/core/recipes/emt_recipes`` runs those
three times. ``--through`` says the way: ``bare``, the recipes as they are, ``runner``
(`get_runner`), or ``client`` (a client and a server). The last two run what passed bare, and all of
it passes but tests that look into the process of the recipe, which is another one: at its log
(`caplog`), at what `monkeypatch` has replaced there, or at files that it leaves in its directory.
"""

import contextlib
import functools
import importlib
import inspect
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

#: How often `get_status` is asked, in seconds.
POLL_S = 0.02


def pytest_addoption(parser):
    parser.addoption(
        "--through",
        choices=["bare", *WAYS],
        default="bare",
        help="how quacc's recipes are run",
    )
    parser.addoption(
        "--passed",
        type=Path,
        help="a file that gets the ids of tests that pass bare, which alone are run another way",
    )


def pytest_configure(config):
    way, passed = config.getoption("--through"), config.getoption("--passed")
    if way != "bare":
        config.pluginmanager.register(_Replaced(WAYS[way]))
    if passed:
        config.pluginmanager.register(_Recorded(passed) if way == "bare" else _Selected(passed))


class _Recorded:
    """Tests that pass are written down."""

    def __init__(self, file):
        self._file = file
        self._passed = []

    def pytest_runtest_logreport(self, report):
        if report.when == "call" and report.passed:
            self._passed.append(report.nodeid)

    def pytest_sessionfinish(self):
        self._file.write_text("\n".join(self._passed), encoding="utf-8")


class _Selected:
    """Tests that were written down are run, and no others."""

    def __init__(self, file):
        self._passed = set(file.read_text(encoding="utf-8").splitlines())

    def pytest_collection_modifyitems(self, config, items):
        others = [item for item in items if item.nodeid not in self._passed]
        items[:] = [item for item in items if item.nodeid in self._passed]
        config.hook.pytest_deselected(items=others)


class _Replaced:
    """Quacc's recipes, replaced before the tests import them."""

    def __init__(self, way):
        self._way = way
        self._stack = contextlib.ExitStack()

    # quacc's own conftest sets variables when the session starts, which count at the import.
    @pytest.hookimpl(trylast=True)
    def pytest_sessionstart(self):
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="home-"))
        Path(folder, "config.toml").write_text("[engines.local]\nworkers = 1\n", encoding="ascii")
        patch = self._stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("CRYSTALMATH_HOME", folder)
        replace(self._stack.enter_context(self._way()))

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self):
        self._stack.close()


def replace(run):
    """Have quacc's modules hold, instead of each recipe, a function that runs it as a job.

    Parameters
    ----------
    run : callable
        It gets a recipe's full name, its structure or ``None``, and its other parameters.
    """
    from crystalmath.recipes.lookup import catalogue

    instead = {}
    for recipe in catalogue():
        module, _, name = recipe.name.rpartition(".")
        try:
            function = getattr(importlib.import_module(module), name)
        except ImportError:  # an extra of quacc is missing
            continue
        instead[function] = _as_job(recipe, function, run)
    for name, module in list(sys.modules.items()):
        if name.startswith("quacc.recipes."):
            for attribute, value in list(vars(module).items()):
                if inspect.isfunction(value) and value in instead:
                    setattr(module, attribute, instead[value])


def _as_job(recipe, function, run):
    from crystalmath.recipes.arguments import structure_argument

    signature = inspect.signature(function)
    first = structure_argument(recipe)

    @functools.wraps(function)
    def as_job(*args, **kwargs):
        given = signature.bind(*args, **kwargs).arguments
        for parameter in signature.parameters.values():
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                given.update(given.pop(parameter.name, {}))
        atoms = given.pop(first.name, None) if first else None
        return run(recipe.name, atoms, given)

    return as_job


@contextlib.contextmanager
def _through_runner():
    from crystalmath.client.results import raised
    from crystalmath.quacc import JobState, get_runner

    runner: Any = get_runner("local")

    def run(name, atoms, parameters):
        job = runner.submit(name, atoms, **parameters)
        while not (state := runner.get_status(job)).is_terminal():
            time.sleep(POLL_S)
        result = runner.get_result(job)
        if state is not JobState.COMPLETED:
            # Of the runner's there is the traceback; the client makes the exception of it.
            error = raised(result.get("traceback", ""))
            raise error or RuntimeError(result["error"])
        return result["value"] if result.keys() == {"value"} else result

    try:
        yield run
    finally:
        runner.close()


@contextlib.contextmanager
def _through_client():
    from crystalmath.client import connect

    try:
        with connect() as client:
            yield lambda name, atoms, parameters: client.submit(
                name, atoms, parameters, engine="local"
            ).result(original=True)
    finally:
        command = [sys.executable, "-m", "crystalmath", "stop", "--cancel", "--json"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


WAYS = {"runner": _through_runner, "client": _through_client}
