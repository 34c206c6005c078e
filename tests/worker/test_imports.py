"""Files that a warm process has read: it is replaced if they have changed, and only then."""

import os

import pytest

from crystalmath import worker
from crystalmath.jobs.reading import read_result

pytestmark = [pytest.mark.processes, pytest.mark.usefixtures("chains_end")]

#: The clock of a node that is an hour behind the clock of its file server.
BEHIND = "import time\nnow = time.time\ntime.time = lambda: now() - 3600\n"
RECIPE = """
import os, edited_helper
def f(atoms):
    return {"value": edited_helper.VALUE, "process": os.getpid()}
"""
#: A module that is edited between its import and the look at its file.
EDITS = "from pathlib import Path\nPath(edited_helper.__file__).write_text('VALUE = 2\\n')\n"
#: An object of a library that names a file, but was not imported from it, as `torch.ops` is.
NAMES_A_FILE = (
    "import sys, types\nsys.modules['ops'] = types.ModuleType('ops')\n"
    "sys.modules['ops'].__file__ = '_ops.py'\n"
)


@pytest.fixture
def run(make, tmp_path, monkeypatch):
    """Run a recipe of a module that people edit; return what its helper says, and its process."""
    path = [str(tmp_path), os.environ["PYTHONPATH"]]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    (tmp_path / "edited.py").write_text(RECIPE)
    (tmp_path / "edited_helper.py").write_text("VALUE = 1\n")

    def run():
        directory = make("edited.f")
        worker.run(directory.path)
        assert directory.outcome(1)["state"] == "completed", directory.outcome(1)
        found = read_result(directory)
        return found["value"], found["process"]

    return run


def test_a_node_whose_clock_is_behind_keeps_its_process(run, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(BEHIND)
    (one, process), *others = [run() for _ in range(3)]
    assert others == [(one, process)] * 2
    (tmp_path / "edited_helper.py").write_text("VALUE = 2\n")
    (two, process), *others = [run() for _ in range(3)]
    assert (one, two) == (1, 2)
    assert others == [(two, process)] * 2


def test_a_file_that_was_just_written_costs_no_process(run, tmp_path):
    for value in (1, 2):
        (tmp_path / "edited_helper.py").write_text(f"VALUE = {value}\n")
        first = run()
        assert first[0] == value
        assert run() == first


@pytest.mark.parametrize("clock", ["", BEHIND], ids=["right", "behind"])
def test_a_file_that_was_edited_once_it_was_read_is_read_anew(run, tmp_path, clock):
    (tmp_path / "sitecustomize.py").write_text(clock)
    (tmp_path / "edited.py").write_text(RECIPE + EDITS)
    (first, process), second, third = run(), run(), run()
    assert (first, second[0]) == (1, 2)
    assert second[1] != process
    assert third == second


def test_a_module_that_only_names_a_file_costs_no_process(run, tmp_path):
    (tmp_path / "edited.py").write_text(RECIPE + NAMES_A_FILE)
    assert run() == run()


def test_a_library_that_lies_on_the_path_is_compiled_once(run, tmp_path, monkeypatch):
    site = tmp_path / "software/lib"
    for name in ("library-1.0.dist-info", "library/inner", "spaces"):
        (site / name).mkdir(parents=True)
    names = ("alone", "library/__init__", "library/inner/__init__", "library/inner/one")
    for name in (*names, "spaces/two"):
        (site / f"{name}.py").write_text("")
    paths = [os.environ["PYTHONPATH"], str(site)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    (tmp_path / "edited_helper.py").write_text(
        "import alone, library.inner.one, spaces.two\nVALUE = 3\n"
    )
    assert run()[0] == 3
    # What people edit is compiled each time, without a file.
    compiled = {file.name.partition(".")[0] for file in tmp_path.rglob("*.pyc")}
    assert compiled == {"__init__", "alone", "one", "two"}
    assert len(list(site.rglob("*.pyc"))) == 5
