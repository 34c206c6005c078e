"""A question of ssh comes where somebody sees it, or it fails with the remedy."""

import os
import pty
import subprocess
import sys

import pytest

from commands import ran

pytestmark = pytest.mark.server


@pytest.fixture
def locked(hawk, home):
    """Have the machine's key lie under a passphrase."""
    key = hawk.folder / "locked_key"
    if not key.exists():
        key.write_bytes((hawk.folder / "user_key").read_bytes())
        key.chmod(0o600)
        change = ["ssh-keygen", "-q", "-p", "-P", "", "-N", "the passphrase", "-f", str(key)]
        subprocess.run(change, check=True, capture_output=True)
    (home / "config.toml").write_text(hawk.table().replace("user_key", "locked_key"))


COMMAND = [sys.executable, "-m", "crystalmath", "--on", "hawk", "list", "--json"]


def test_without_a_terminal_nothing_asks(locked):
    answer = ran(*COMMAND, stdin=subprocess.DEVNULL, start_new_session=True)
    assert answer.returncode == 1
    assert "Permission denied" in answer.stderr
    assert "`crystalmath remotes check hawk` in a terminal" in answer.stderr


def test_in_a_terminal_ssh_asks_and_the_next_command_does_not(locked):
    seen = _typed(COMMAND, b"the passphrase\n")
    assert b"passphrase for key" in seen
    assert b'"jobs": []' in seen
    # The connection is there now, and needs no answer.
    answer = ran(*COMMAND, stdin=subprocess.DEVNULL, start_new_session=True)
    assert (answer.returncode, answer.stderr) == (0, "")


def _typed(command, text):
    """Run a command in a terminal, and type a text once it asks; return what it has shown."""
    pid, terminal = pty.fork()
    if not pid:
        os.execv(command[0], command)
    seen = b""
    try:
        while data := os.read(terminal, 4096):
            before, seen = seen, seen + data
            if b"passphrase for key" in seen and b"passphrase for key" not in before:
                os.write(terminal, text)
    except OSError:
        pass  # the terminal is closed
    os.waitpid(pid, 0)
    os.close(terminal)
    return seen
