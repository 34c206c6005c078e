"""One job's run directory: the truth about its execution.

========================  =====================================================================
``spec``                  header (JSON) and body; what to run, and as which attempt N
``cancel``                somebody asked that the job be stopped
``N.claim``               hard link to the identity file of whoever runs attempt N
``N.handle``              the engine's handle, where it differs from the attempt's id
``N.outcome``             header (JSON) and payload (gzipped result): the one decision
``N.log``                 standard output and error, made at the first byte
``N.work``                working directory, and quacc's ``RESULTS_DIR``
========================  =====================================================================

``claim`` and ``outcome`` are published once: a name that exists means that somebody was first.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from crystalmath.errors import BadFile
from crystalmath.processes import Identity

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ADOPTION_LOCK", "FORMAT", "IdentityFile", "RunDirectory", "attempt_id", "is_job_id"]

#: Format number of every file; a newer release reads an older run.
FORMAT = 1
#: The lock, beside the run directories, of whoever makes itself the owner of another's jobs.
ADOPTION_LOCK = ".adoption.lock"

_JOB_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)


def attempt_id(job_id: str, attempt: int) -> str:
    """Name one attempt of a job, everywhere and for ever."""
    return f"{job_id}.{attempt}"


def is_job_id(value: object) -> bool:
    """Tell whether a value is a job id, a UUID as text, and may become part of a path."""
    return isinstance(value, str) and _JOB_ID.fullmatch(value) is not None


class RunDirectory:
    """The files of one job.

    Parameters
    ----------
    path : str or path-like
        The directory. It need not exist.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)

    def file(self, name: str) -> str:
        """Give the path of one of the files."""
        return f"{self.path}/{name}"

    def work(self, attempt: int) -> str:
        """Give the working directory of an attempt."""
        return self.file(f"{attempt}.work")

    def log(self, attempt: int) -> str:
        """Give the log file of an attempt."""
        return self.file(f"{attempt}.log")

    def exists(self) -> bool:
        """Tell whether the job was written down."""
        return os.path.exists(self.file("spec"))

    def write_spec(self, header: Mapping[str, Any], body: str) -> None:
        """Write what to run, for the owner alone to read; it replaces an older one."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(self.path, 0o700)
        temporary = self._temporary("spec", _document(header, body.encode()))
        os.replace(temporary, self.file("spec"))

    def read_spec(self) -> tuple[dict[str, Any], str]:
        """Read header and body of the specification."""
        header, body = _read(self.file("spec"))
        return self._whole(header), body.decode()

    def read_header(self) -> dict[str, Any]:
        """Read the header of the specification alone."""
        with open(self.file("spec"), "rb") as file:
            return self._whole(_header(file.readline(), self.file("spec")))

    def _whole(self, header: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(header.get("attempt"), int) or not is_job_id(header.get("job_id")):
            raise BadFile(f"{self.file('spec')} does not say of which job and attempt it is")
        return header

    def request_cancel(self) -> None:
        """Ask whoever runs the job to stop it, or is about to write it down."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(self.path, 0o700)
        with open(self.file("cancel"), "w", encoding="ascii"):
            pass

    def cancel_requested(self) -> bool:
        """Tell whether somebody asked that the job be stopped."""
        return os.path.exists(self.file("cancel"))

    def claim(self, attempt: int, identity: IdentityFile) -> bool:
        """Claim an attempt; ``False`` if somebody was first."""
        try:
            identity.link(self.file(f"{attempt}.claim"))
        except FileExistsError:
            return False
        return True

    def unclaim(self, attempt: int) -> None:
        """Take back our own claim of an attempt that nothing was done for."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.file(f"{attempt}.claim"))

    def claimed(self, attempt: int) -> bool:
        """Tell whether somebody claimed the attempt."""
        return os.path.exists(self.file(f"{attempt}.claim"))

    def claimant(self, attempt: int) -> Identity | None:
        """Tell who claimed the attempt."""
        try:
            header, _ = _read(self.file(f"{attempt}.claim"))
        except FileNotFoundError:
            return None
        try:
            return Identity.read(header)
        except (KeyError, TypeError) as error:
            raise BadFile(f"{self.file(f'{attempt}.claim')} does not tell who made it") from error

    def write_handle(self, attempt: int, handle: str) -> None:
        """Record the engine's handle of an attempt."""
        temporary = self._temporary("handle", _document({}, handle.encode()))
        os.replace(temporary, self.file(f"{attempt}.handle"))

    def read_handle(self, attempt: int) -> str | None:
        """Read the recorded handle of an attempt."""
        try:
            return _read(self.file(f"{attempt}.handle"))[1].decode()
        except FileNotFoundError:
            return None

    def prepare_outcome(self, header: Mapping[str, Any], payload: bytes = b"") -> str:
        """Write an outcome durably under a name that nobody reads, ready to be published."""
        return self._temporary("outcome", _document(header, payload), durable=True)

    def publish_prepared(self, attempt: int, temporary: str) -> bool:
        """Publish a prepared outcome, durably; ``False`` if another was first."""
        try:
            os.link(temporary, self.file(f"{attempt}.outcome"))
        except FileExistsError:
            return False
        finally:
            os.unlink(temporary)
        _sync_directory(self.path)
        return True

    def publish(self, attempt: int, header: Mapping[str, Any], payload: bytes = b"") -> bool:
        """Publish an outcome, durably; ``False`` if another was first."""
        return self.publish_prepared(attempt, self.prepare_outcome(header, payload))

    def decided(self, attempt: int) -> bool:
        """Tell whether the attempt has an outcome."""
        return os.path.exists(self.file(f"{attempt}.outcome"))

    def outcome(self, attempt: int) -> dict[str, Any] | None:
        """Read the header of an outcome, without its result."""
        try:
            with open(self.file(f"{attempt}.outcome"), "rb") as file:
                return _header(file.readline(), file.name)
        except FileNotFoundError:
            return None

    def payload(self, attempt: int) -> bytes:
        """Read the encoded result of an outcome."""
        return _read(self.file(f"{attempt}.outcome"))[1]

    def open_payload(self, attempt: int) -> BinaryIO:
        """Open an outcome where its encoded result begins."""
        file = open(self.file(f"{attempt}.outcome"), "rb")  # noqa: SIM115 - it is given away
        try:
            _header(file.readline(), file.name)
        except BaseException:
            file.close()
            raise
        return file

    def _temporary(self, kind: str, document: bytes, *, durable: bool = False) -> str:
        path = self.file(f".{kind}.{secrets.token_hex(6)}")
        try:
            _write(path, document, durable=durable)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            raise
        return path


class IdentityFile:
    """The file to which claims are hard links: it tells who made them.

    Parameters
    ----------
    directory : str or path-like
        A folder on the file system of the run directories.
    identity : Identity
        The process that claims.
    """

    def __init__(self, directory: str | os.PathLike[str], identity: Identity) -> None:
        self._directory = Path(directory)
        self._identity = identity
        self._path: str | None = None

    def link(self, name: str) -> None:
        """Make a claim; `FileExistsError` if the name exists."""
        try:
            os.link(self._path or self._write(), name)
        except FileExistsError:
            raise
        except OSError:
            # The file was tidied away, or has as many links as the file system allows.
            os.link(self._write(), name)

    def remove(self) -> None:
        """Remove the file; the claims stay."""
        if self._path:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)

    def _write(self) -> str:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        nonce = secrets.token_hex(8)
        path = self._directory / nonce
        # Durable: a claim that survives a power cut must still tell whose it is.
        _write(
            os.fspath(path),
            _document({**self._identity.as_dict(), "nonce": nonce}, b""),
            durable=True,
        )
        self._path = os.fspath(path)
        return self._path


def _document(header: Mapping[str, Any], body: bytes) -> bytes:
    return json.dumps({"format": FORMAT, **header}).encode() + b"\n" + body


def _write(path: str, document: bytes, *, durable: bool = False) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(document)
        while view:
            view = view[os.write(descriptor, view) :]
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: str) -> tuple[dict[str, Any], bytes]:
    with open(path, "rb") as file:
        return _header(file.readline(), path), file.read()


def _header(line: bytes, path: str) -> dict[str, Any]:
    try:
        header: dict[str, Any] = json.loads(line)
        written = int(header["format"])
    except (ValueError, KeyError, TypeError) as error:
        raise BadFile(f"{path} is damaged, or no file of ours: {line[:40]!r}") from error
    if written > FORMAT:
        raise BadFile(
            f"{path} was written by a newer release (format {written}, this one reads "
            f"up to {FORMAT}); upgrade crystalmath"
        )
    return header


def _sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
