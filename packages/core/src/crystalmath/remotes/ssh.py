"""Runs ssh, whose streams lead to the server of a remote home."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from crystalmath.errors import PlaceError, Unreachable
from crystalmath.processes import start_process
from crystalmath.server.endpoint import make_private

if TYPE_CHECKING:
    from crystalmath.remotes.remote_home import RemoteHome

#: How long a connection serves further commands after the last one, in seconds.
SHARED_S = 600
#: How long ssh may take to reach a host, and to notice that it has gone, in seconds.
REACH_S = 20
_ALIVE_S, _ALIVE_COUNT = 15, 3
#: How long a program may take to end, in seconds.
_END_S = 3.0
#: The longest path of a shared connection; ssh adds 17 characters while it makes one.
_LONGEST = 85
#: How much of an error of ssh is read, in bytes, and shown, in characters.
_READ, _SHOWN = 65536, 300
#: The variables that ssh and the programs of its configuration need. No others are passed on, so
#: that no ``SendEnv`` of a configuration can send them.
_PASSED = frozenset(
    (
        *("HOME", "USER", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "DISPLAY", "XAUTHORITY"),
        *("WAYLAND_DISPLAY", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS"),
        *("KRB5CCNAME", "KRB5_CONFIG"),
    )
)
_OPTIONS = {
    "ClearAllForwardings": "yes",
    "ConnectTimeout": REACH_S,
    "ControlMaster": "auto",
    "ControlPersist": SHARED_S,
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "PermitLocalCommand": "no",
    "RemoteCommand": "none",
    "RequestTTY": "no",
    "ServerAliveCountMax": _ALIVE_COUNT,
    "ServerAliveInterval": _ALIVE_S,
}
#: The exit codes of ssh itself, and of shells that cannot run a program.
_OF_SSH, *_NO_PROGRAM = _NOT_RUN = (255, 126, 127)
#: The remotes that this process has connected to; only the first connection may ask the user.
_begun: set[RemoteHome] = set()


def ask_nobody(remote: RemoteHome) -> None:
    """Have connections of this process to a remote fail where ssh would ask the user."""
    _begun.add(remote)


class Link:
    """A running ssh, which connects `socket` to a command of ours on the other machine.

    `may_ask` says whether ssh can ask for a password on the terminal. Otherwise it fails.
    """

    def __init__(self, remote: RemoteHome, *arguments: str) -> None:
        self.remote = remote
        self.may_ask = remote not in _begun and has_terminal()
        if shutil.which("ssh") is None:
            raise Unreachable("ssh is not installed here; Debian's package is openssh-client")
        batch = {"BatchMode": "no" if self.may_ask else "yes", "ControlPath": _shared_by(remote)}
        options = [f"-o{name}={value}" for name, value in {**_OPTIONS, **batch}.items()]
        words = ["ssh", "-T", *options, *remote.ssh, remote.words(*arguments)]
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - it is closed with the link
        self.socket, theirs = socket.socketpair()
        with theirs:
            self._process = start_process(
                # Ctrl-C reaches ssh, too, and must not end it: `run` still cancels its job.
                ["/bin/sh", "-c", 'trap "" INT; exec "$@"', "sh", *words],
                stdin=theirs,
                stdout=theirs,
                stderr=self._errors,
                env=_environment(),
            )

    def close(self) -> None:
        """End ssh, and with it the command on the other machine."""
        self.socket.close()
        self._end()
        self._errors.close()

    def abort(self) -> None:
        """Have ssh end soon."""
        self._process.terminate()

    def _end(self) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self._process.poll() is None:
                self._process.send_signal(number)
            try:
                self._process.wait(_END_S)
            except subprocess.TimeoutExpired:
                continue
            return

    def ended(self, within_s: float = _END_S) -> tuple[int, str]:
        """Return the exit code and the errors of a command that ends soon, or is ended then.

        The code is 0 if it had to be ended.
        """
        try:
            code = self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            self._end()
            code = 0
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - _READ))
        return code, self._errors.read().decode(errors="replace").strip()

    def failure(self, wrote: bytes, within_s: float = _END_S) -> Unreachable:
        """Return the error of a command that has ended, or has answered with something else.

        `wrote` is what came from it.
        """
        return Unreachable(_explained(self.remote, *self.ended(within_s), wrote))


def _explained(remote: RemoteHome, code: int, said: str, wrote: bytes) -> str:
    """Return the message of a failure: what has happened, and the remedy."""
    last = said.splitlines()[-1].strip()[:_SHOWN] if said else ""
    setting = f"[remotes.{remote.name}]"
    login = f"crystalmath remotes check {remote.name}"
    if code == _OF_SSH:
        for signs, remedy in _REMEDIES.items():
            if any(sign in said for sign in signs):
                return (
                    f"{remote} cannot be reached: {last}; "
                    f"{remedy.format(to=' '.join(remote.ssh), login=login, setting=setting)}"
                )
        return f"{remote} cannot be reached: {last or 'ssh has failed'}; try `{login}`"
    if code in _NO_PROGRAM:
        return (
            f"{remote} has no program {remote.command!r}: {last}; install crystalmath there, or "
            f"name its full path, or `module load ... && crystalmath`, as command in {setting}"
        )
    if last:
        return f"{remote.command!r} on {remote} has failed ({code}): {last}; see `{login}`"
    text = wrote.decode(errors="replace").strip()
    shown = f"answers {text[:_SHOWN]!r}" if text else f"has ended ({code}) without an answer"
    return (
        f"{remote.command!r} on {remote} {shown}: it is no server of crystalmath; check command in "
        f"{setting}"
    )


_REMEDIES = {
    ("Permission denied", "Too many authentication failures", "authentication methods"): (
        "`ssh-copy-id {to}` puts your key there; a password or a second factor is asked for by "
        "`{login}` in a terminal, and further commands use its connection for 10 minutes"
    ),
    ("Host key verification failed", "HOST IDENTIFICATION HAS CHANGED"): (
        "its key is unknown or has changed; compare it: `ssh {to}` in a terminal"
    ),
    ("Could not resolve",): "check the name of the host in {setting} ssh, and your network",
    ("refused", "timed out", "No route", "unreachable", "reset by", "closed by", "Broken pipe"): (
        "check your network or VPN, and whether a jump host is needed (-J in {setting} ssh)"
    ),
}


def has_terminal() -> bool:
    """Return whether ssh can ask the user: this process is in the foreground of a terminal."""
    try:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            return False
        return os.tcgetpgrp(sys.stderr.fileno()) == os.getpgrp()
    except (OSError, ValueError, AttributeError):
        return False  # a stream is closed, or is none of the system's, as in a notebook


def _environment() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if name in _PASSED or name.startswith("SSH_")
    }


def _shared_by(remote: RemoteHome) -> str:
    """Return the path of the connection that commands share; ``none`` without a private folder."""
    name = hashlib.sha256("\0".join(remote.ssh).encode()).hexdigest()[:16]
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR") or "-", "crystalmath")
    # Batch nodes and cron have no XDG_RUNTIME_DIR.
    short = Path("/tmp") / f"crystalmath-{os.geteuid()}"  # noqa: S108 - it is checked first
    fits = runtime.is_absolute() and len(os.fsencode(runtime / name)) <= _LONGEST
    for folder in (runtime, short) if fits else (short,):
        try:
            make_private(folder)
        except (PlaceError, OSError):
            continue
        return str(folder / name)
    return "none"


def run_there(remote: RemoteHome, *arguments: str, most: int = 2**20) -> tuple[int, str, str]:
    """Run a command of ours on the other machine; return its exit code, output and errors.

    `Unreachable`: it was not run, or has written more than `most` bytes.
    """
    link = Link(remote, *arguments)
    try:
        parts: list[bytes] = []
        link.socket.shutdown(socket.SHUT_WR)
        while sum(map(len, parts)) <= most and (part := link.socket.recv(65536)):
            parts.append(part)
        wrote = b"".join(parts)
        if len(wrote) > most:
            raise Unreachable(f"{remote.command!r} on {remote} has written more than {most} bytes")
        code, said = link.ended()
        if code in _NOT_RUN:
            raise link.failure(wrote)
        return code, wrote.decode(errors="replace"), said
    finally:
        link.close()
