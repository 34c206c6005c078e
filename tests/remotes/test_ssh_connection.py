"""What answers in place of a server, and the errors that users see."""

import time

import pytest

from conftest import eventually
from crystalmath.client import ProtocolMismatch, connect
from crystalmath.errors import Unreachable
from crystalmath.remotes import ssh_connection
from crystalmath.remotes.remote_home import named
from crystalmath.wire import messages

pytestmark = pytest.mark.server


@pytest.fixture
def calls(hawk, home):
    """Return a function that sets what is called in place of ``crystalmath`` there."""

    def calls(text, **more):
        script = hawk.folder / "other"
        script.write_text(f"#!/bin/sh\n{text}\n")
        script.chmod(0o755)
        (home / "config.toml").write_text(hawk.table(command=str(script), **more))

    return calls


def framed(document):
    return messages.frame(messages.dumps(document)).decode().replace("\r", "\\r")


def answer(**result):
    return f"printf '%b' '{framed({'jsonrpc': '2.0', 'id': 1, 'result': result})}'"


VERSION = {"version": "0.1.0.dev0", "protocol": 1, "home": "/x", "pid": 1, "host": "h"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("exit 3", "has ended .3. without an answer: it is no server of crystalmath; check comm"),
        ("echo no such module >&2; exit 1", r"has failed \(1\): no such module; see `crystalmath"),
        ("cat", 'answers .*"method":"system.version".*it is no server of crystalmath'),
        ("echo Usage: other", "answers 'Usage: other': it is no server"),
        ("yes", "answers 'y.*it is no server"),
        ("head -c 100000 /dev/urandom", "it is no server"),
        ("printf 'Content-Length: x\\r\\n\\r\\n'; sleep 60", "'Content-Length' must be|no number"),
        ("printf 'Content-Length: 10000000000\\r\\n\\r\\n'; cat /dev/zero", "too long; at most"),
        (f"printf '%b' '{framed([1, 2])}'; sleep 60", "it is no server"),
        (
            f"printf '%b' '{framed({'jsonrpc': '2.0', 'id': 1, 'result': 5})}'; sleep 60",
            "no server",
        ),
        (
            "exec nothing-here",
            "has no program .*nothing-here: not found; install",
        ),
    ],
)
def test_another_program_is_told_and_soon(calls, text, said):
    calls(text)
    begun = time.monotonic()
    with pytest.raises(Unreachable, match=said) as refused:
        connect(on="hawk")
    assert time.monotonic() - begun < 30
    assert len(str(refused.value)) < 1000


def test_a_command_that_is_not_there_is_told(hawk, home):
    (home / "config.toml").write_text(hawk.table(command="/nowhere/crystalmath"))
    with pytest.raises(Unreachable, match="has no program '/nowhere/crystalmath'.*full path"):
        connect(on="hawk")


def test_a_greeting_is_skipped(hawk, calls):
    calls(f"echo Welcome to hawk; printf 'news: '; exec {hawk.command} \"$@\"")
    with connect(on="hawk") as client:
        assert client.totals() is not None


@pytest.mark.parametrize("other", [{"version": "9.9.9"}, {"protocol": 2}])
def test_another_release_is_refused(calls, other):
    calls(f"{answer(**{**VERSION, **other})}; sleep 60")
    with pytest.raises(ProtocolMismatch, match="install the same release here and there"):
        connect(on="hawk")


def test_a_silent_program_is_given_up(calls, monkeypatch):
    monkeypatch.setattr(ssh_connection, "FIRST_S", 1.0)
    calls("sleep 600")
    with pytest.raises(Unreachable, match="does not answer in time"):
        connect(on="hawk")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("user_key", "other_key"), "Permission denied.*ssh-copy-id .* puts your key there"),
        (("known_hosts", "nothing"), "Host key verification failed.*compare it: `ssh "),
    ],
)
def test_what_ssh_refuses_is_told_with_the_remedy(hawk, home, change, said):
    (home / "config.toml").write_text(hawk.table().replace(*change))
    with pytest.raises(Unreachable, match=said):
        connect(on="hawk")


def test_ssh_that_ends_before_the_request_is_told(home, hawk):
    (home / "config.toml").write_text(
        '[remotes.hawk]\nssh = ["-F", "/dev/null", "-p", "1", "127.0.0.1"]\n'
    )
    connection = ssh_connection.SshConnection(named("hawk"), bytes)
    eventually(lambda: not connection.is_fresh())
    with pytest.raises(Unreachable, match="refused"):
        connection.ask_both([("system.ping", {})], 5.0)
    connection.close()


@pytest.mark.parametrize(
    ("host", "said"),
    [("nowhere.invalid", "Could not resolve.*check the name"), ("127.0.0.1", "refused.*VPN")],
)
def test_a_host_that_is_not_there_is_told(home, hawk, host, said):
    (home / "config.toml").write_text(
        f'[remotes.hawk]\nssh = ["-F", "/dev/null", "-p", "1", "{host}"]\n'
    )
    with pytest.raises(Unreachable, match=said):
        connect(on="hawk")
