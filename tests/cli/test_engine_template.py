"""`crystalmath engine-template`; `tests/wheels` installs what it writes, and runs the kit on it."""

import tomllib

import pytest


@pytest.fixture
def here(home, tmp_path, monkeypatch):
    folder = tmp_path / "a b"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_the_distribution_of_an_engine(here, cli):
    told = cli("engine-template", "my-queue", "--json").json
    folder = here / "crystalmath-engine-my-queue"
    assert (told["engine"], told["path"], told["error"]) == ("my-queue", str(folder), None)
    assert set(told["files"]) == {str(path) for path in folder.rglob("*.*") if path.is_file()}

    project = tomllib.loads((folder / "pyproject.toml").read_text())
    assert project["project"]["name"] == "crystalmath-engine-my-queue"
    module = "crystalmath_engine_my_queue"
    points = project["project"]["entry-points"]["crystalmath.engines"]
    assert points == {"my-queue": f"{module}.plugin"}
    assert "class MyQueueRunner(EngineRunner)" in (folder / f"src/{module}/runner.py").read_text()
    for path in folder.rglob("*.py"):
        text = path.read_text()
        compile(text, path, "exec")
        assert "$" not in text

    # It says what comes next, so that it can be pasted.
    other = cli("engine-template", "two", "--dir", "other one")
    where = f"'{here / 'other one'}[test]'"
    assert other.lines[1].strip() == f"pip install -e {where} && crystalmath conform two"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("Mine", "'Mine' has more than small letters and digits"),
        ("../up", "'../up' has more than"),
        ("a--b", "'a--b' has more than"),
        ("local", "the engine 'local' is installed already"),
    ],
)
def test_a_name_that_no_engine_can_have_writes_nothing(here, cli, name, why):
    refused = cli("engine-template", name)
    assert refused.code == 2
    assert why in " ".join(refused.err.split())
    assert list(here.iterdir()) == []


def test_a_folder_that_is_there_stays_as_it_is(here, cli):
    (here / "mine").mkdir()
    refused = cli("engine-template", "mine", "--dir", "mine")
    assert refused.code == 1
    assert f"{here / 'mine'} is there already, and stays as it is" in refused.err
    assert list((here / "mine").iterdir()) == []
