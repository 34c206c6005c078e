"""`crystalmath init`: what it asks, looks at and writes, and what it leaves alone."""

import os
import stat
import subprocess
import sys

import pytest

from crystalmath import config
from crystalmath.quacc.engine import submission_environment


@pytest.fixture
def potcars(tmp_path):
    """Return a library of POTCARs, as far as it is looked at without elements."""
    folder = tmp_path / 'it\'s "mine" ü'
    (folder / "potpaw_PBE.64" / "Al").mkdir(parents=True)
    return folder


@pytest.fixture
def bare(home, monkeypatch):
    """Return a home in an environment that says nothing."""
    for name in list(os.environ):
        if name.startswith(("ASE_", "ESPRESSO_")):
            monkeypatch.delenv(name)
    return home


def test_what_is_found_is_written_where_jobs_see_it(bare, cli, potcars, monkeypatch):
    monkeypatch.setenv("VASP_PP_PATH", str(potcars))
    answer = cli("init", "--yes", "--json")
    assert answer.json["variables"] == {"VASP_PP_PATH": str(potcars)}
    assert [check["name"] for check in answer.json["checks"]] == ["POTCARs"]
    file = bare / "config.toml"
    assert answer.json["path"] == str(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    # Another shell, which says nothing, and one that says otherwise.
    read = config.load()
    assert submission_environment(read, {})["VASP_PP_PATH"] == str(potcars)
    assert submission_environment(read, {"VASP_PP_PATH": "/own"})["VASP_PP_PATH"] == "/own"
    monkeypatch.delenv("VASP_PP_PATH")
    checks = cli("doctor", "--json").checks
    assert checks["POTCARs"]["state"] == "ok"
    assert str(potcars) in checks["POTCARs"]["message"]


def test_who_has_pw_is_told_of_it_and_of_its_pseudopotentials(bare, cli, monkeypatch, tmp_path):
    def told():
        checks = cli("doctor", "--json").checks
        return [checks.get(name, {}).get("state") for name in ("UPF files", "pw.x")]

    monkeypatch.setenv("PATH", str(tmp_path))
    assert told() == [None, None]
    program = tmp_path / "pw.x"
    program.touch(0o755)
    assert told() == ["warning", "ok"]
    (tmp_path / "Al.UPF").touch()
    monkeypatch.setenv("QUACC_ESPRESSO_PSEUDO", str(tmp_path))
    assert told() == ["ok", "ok"]
    program.unlink()
    assert told() == ["ok", "warning"]


def test_what_options_say_is_written(bare, cli, potcars, monkeypatch, tmp_path):
    pseudo = tmp_path / "upf"
    pseudo.mkdir()
    (pseudo / "Al.UPF").touch()
    # A folder of pseudopotentials is refused where there is no program that reads them.
    (tmp_path / "pw.x").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    given = ("--potcars", potcars, "--pseudopotentials", pseudo, "--workers", 3)
    commands = ("--vasp", "/opt/vasp/bin/vasp_std", "--vasp-launcher", "mpirun -np {ranks}")
    answer = cli("init", *given, *commands, "--cluster", "slurm")
    assert answer.code == 0, answer.err
    assert "/opt/vasp/bin/vasp_std (QUACC_VASP_CMD)" in answer.out
    read = config.load()
    assert read.variables == {
        "VASP_PP_PATH": str(potcars),
        "QUACC_VASP_CMD": "/opt/vasp/bin/vasp_std",
        "QUACC_VASP_PARALLEL_CMD": "mpirun -np {ranks}",
        "QUACC_ESPRESSO_PSEUDO": str(pseudo),
    }
    assert read.engines["local"] == {"workers": 3}
    assert read.clusters["slurm"].engine == "parsl"
    assert "UPF files" in cli("doctor").out


@pytest.mark.parametrize("option", ["--potcars", "--pseudopotentials"])
def test_a_folder_that_jobs_cannot_use_is_refused(bare, cli, tmp_path, option):
    for folder in (tmp_path / "none", tmp_path):
        answer = cli("init", option, folder)
        assert answer.code == 1
        assert option in answer.err
        assert str(folder) in answer.err
        assert "nothing was written" in answer.err
    assert list(bare.iterdir()) == []


def test_what_is_found_and_cannot_be_used_is_left_out(bare, cli, monkeypatch, tmp_path):
    monkeypatch.setenv("VASP_PP_PATH", str(tmp_path / "none"))
    assert cli("init", "--yes", "--json").json["variables"] == {}
    assert config.load().variables == {}


def test_a_file_that_is_there_stays_unless_it_is_given_up(bare, cli):
    file = bare / "config.toml"
    file.write_text("engine = 'local'\n")
    answer = cli("init", "--yes", "--workers", 2)
    assert answer.code == 1
    assert str(file) in answer.err
    assert "--overwrite" in answer.err
    assert file.read_text() == "engine = 'local'\n"
    answer = cli("init", "--yes", "--workers", 2, "--overwrite")
    assert answer.code == 0
    assert "not found: VASP's POTCARs: the folder that holds potpaw_PBE (VASP_PP_PATH" in answer.err
    assert config.load().engines["local"] == {"workers": 2}
    assert (bare / "config.toml~").read_text() == "engine = 'local'\n"


@pytest.mark.parametrize("given", [("--workers", 0), ("--cluster", "moon")])
def test_what_cannot_be_is_wrong_usage(bare, cli, given):
    assert cli("init", *given).code == 2
    assert list(bare.iterdir()) == []


def test_a_terminal_is_asked_and_each_answer_looked_at(bare, potcars, tmp_path):
    master, slave = os.openpty()
    answers = [
        str(tmp_path / "none"),  # there are no POTCARs: it says so, and asks again
        "n",
        str(potcars),
        "",  # VASP is on the path
        "",
        "-",  # no Quantum ESPRESSO
        "many",
        "2",
    ]
    os.write(master, "".join(f"{answer}\n" for answer in answers).encode())
    process = subprocess.Popen(
        [sys.executable, "-m", "crystalmath", "init", "--cluster", "none"],
        stdin=slave,
        stderr=slave,
        stdout=subprocess.PIPE,
        env={**os.environ, "CRYSTALMATH_HOME": str(bare)},
        text=True,
    )
    os.close(slave)
    said = b""
    try:
        while part := os.read(master, 65536):
            said += part
    except OSError:  # the other end was closed
        pass
    out, _ = process.communicate()
    os.close(master)
    assert process.returncode == 0, said.decode()
    assert f"{tmp_path / 'none'}" in said.decode()
    assert "'many' is not a whole number of at least 1" in said.decode()
    assert str(bare / "config.toml") in out
    read = config.load()
    assert read.variables == {"VASP_PP_PATH": str(potcars)}
    assert read.engines["local"] == {"workers": 2}
