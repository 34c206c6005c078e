"""Ways to another machine: over a jump host, and by commands that set up its environment first."""

import pytest

from conftest import AL
from remotes.machine import Machine

pytestmark = pytest.mark.server

HOST = """
Host {name}
HostName 127.0.0.1
Port {machine.port}
IdentitiesOnly yes
IdentityFile {machine.folder}/user_key
StrictHostKeyChecking yes
UserKnownHostsFile {machine.folder}/known_hosts
"""


@pytest.fixture
def gate(tmp_path):
    """Yield a machine through which the way leads."""
    machine = Machine(tmp_path)
    yield machine
    machine.end()


def job(there):
    """Run a job, and return its id."""
    answer = there("run", "lab_recipes.value", AL, "--param", "number=4", "--json")
    assert answer.code == 0, answer.err
    job_id = answer.json["job_id"]
    assert there("result", job_id, "--json").json["result"] == 4
    return job_id


def test_over_a_jump_host(hawk, gate, home, cli, there, tmp_path):
    configured = tmp_path / "ssh_config"
    hosts = {"gate": gate, "inner": hawk}
    configured.write_text(
        "".join(HOST.format(name=name, machine=one) for name, one in hosts.items() if one.ssh)
    )
    (home / "config.toml").unlink()
    way = ["-F", configured, "-p", hawk.port, "-J", "gate", "inner"]
    added = cli("remotes", "add", "hawk", "--command", hawk.command, "--", *way)
    assert added.code == 0, added.err
    assert 'ssh": [' in cli("remotes", "--json").out
    job(there)
    assert "Accepted publickey" in gate.log.read_text()
    gate.cut()
    gate.process.kill()
    answer = there("list")
    assert answer.code == 1
    assert "hawk (inner) cannot be reached" in answer.err


#: Commands of the machine, with the script that each calls.
COMMANDS = {
    ". {script} && module load crystalmath && crystalmath": (
        'module() { [ "$*" = "load crystalmath" ] && PATH="{folder}:$PATH"; }\n'
    ),
    "sh {script} exec --bind /scratch jobs.sif {folder}/crystalmath": (
        '[ "$1 $4" = "exec jobs.sif" ] || exit 9\n'
        'shift 4; exec env -i PATH="$PATH" HOME="$HOME" "$@"\n'
    ),
}


@pytest.mark.parametrize(("command", "script"), COMMANDS.items())
def test_a_command_that_sets_up_its_environment(hawk, home, cli, there, tmp_path, command, script):
    file = tmp_path / "script"
    file.write_text(script.replace("{folder}", str(hawk.folder)))
    jobs = tmp_path / "my jobs"
    line = command.format(script=file, folder=hawk.folder)
    (home / "config.toml").write_text(hawk.table(command=line, home=str(jobs)))
    job_id = job(there)
    assert there("path", job_id).out.startswith(f"hawk:{jobs}/jobs/{job_id}")
    checks = cli("remotes", "check", "hawk", "--json").checks
    assert checks["home"]["message"].startswith(f"hawk:{jobs}, served by process ")
    assert there("stop").code == 0


def test_a_module_that_is_not_there_is_named(hawk, home, there):
    line = "module load crystalmath && crystalmath"
    (home / "config.toml").write_text(hawk.table(command=f"unset -f module; {line}"))
    answer = there("list")
    assert answer.code == 1
    assert "has no program" in answer.err
    assert "module" in answer.err
