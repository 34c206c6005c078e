"""One job's run directory: the source of truth about its execution.

========================  =====================================================================
``spec``                  header (JSON) and body; what to run, and as which attempt N
``cancel``                a request that the job be stopped
``N.claim``               hard link to the identity file of the process that runs attempt N
``N.handle``              the engine's handle, where it differs from the attempt's id
``N.parcel``              the attempts that the worker of attempt N runs after it (JSON)
``N.asked_to_stop``       which file has asked its program to stop before its time was up (JSON)
``N.begun_from``          names the file of an earlier attempt from whose geometry N has begun
``.N.prepared.*``         the outcome before it is published: a link to it, named ``N.outcome``
``N.outcome``             header (JSON) and payload (gzipped result, its index): the one decision;
                          or the journal that has it among others (jobs.journal)
``N.ended``               the engine's word that nothing is left of a stopped attempt (JSON)
``N.log``                 standard output and error, made at the first byte; bounded
``N.work``                working directory, and quacc's ``RESULTS_DIR``
``step.*``                the result of a flow's step that has run in a pass of the flow itself
========================  =====================================================================

``claim`` and ``outcome`` are published once: if the name exists, another process was first.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import re
from typing import TYPE_CHECKING, Any, BinaryIO

from crystalmath._permissions import make_own
from crystalmath.errors import BadFile
from crystalmath.jobs.documents import (
    FORMAT,
    PACKS,
    RECORD_MARK,
    document,
    read_document,
    read_header,
    to_disk,
    write,
)
from crystalmath.jobs.heartbeat import Heart
from crystalmath.jobs.worktree import as_text
from crystalmath.processes import Identity, is_locked

if TYPE_CHECKING:
    import hashlib
    from collections.abc import Iterator, Mapping, Sequence

    from crystalmath.jobs.identities import IdentityFile

#: The folder, in a flow's directory, of links to the work directories of its steps.
STEPS = "steps"
#: The lock, beside the run directories, for changing an owner or writing as one.
OWNER_LOCK = ".adoption.lock"
#: If another process holds the lock for longer, the job is left to it, in seconds.
OWNER_LOCK_S = 1.0

#: The size of the pieces in which an outcome is read for a check, in bytes.
_CHUNK = 2**20

#: The beginning of the line that replaces the middle of a log.
LEFT_OUT = b"\n[crystalmath: left out: "

_JOB_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)


def attempt_id(job_id: str, attempt: int) -> str:
    """Return the unique name of an attempt of a job."""
    return f"{job_id}.{attempt}"


def is_job_id(value: object) -> bool:
    """Return whether a value is a job id, a UUID as text, which is safe in a path."""
    return isinstance(value, str) and _JOB_ID.fullmatch(value) is not None


class RunDirectory:
    """The files of one job, in a directory that need not exist."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)

    def file(self, name: str) -> str:
        """Return the path of one of the files."""
        return f"{self.path}/{name}"

    def work(self, attempt: int) -> str:
        """Return the working directory of an attempt."""
        return self.file(f"{attempt}.work")

    def log(self, attempt: int) -> str:
        """Return the log file of an attempt."""
        return self.file(f"{attempt}.log")

    def has(self, name: str) -> bool:
        """Return whether a file exists; `OSError` if that is unknown just now."""
        return _is_there(self.file(name))

    def is_gone(self) -> bool:
        """Return whether the directory was removed; `OSError` while its parent cannot be read."""
        if _is_there(self.path) or self.is_packed():
            return False
        if _is_there(self.path):  # it has just been unpacked
            return False
        parent = os.path.dirname(self.path)
        try:
            with os.scandir(parent) as entries:
                if next(entries, None) is not None:
                    return True
        except FileNotFoundError as error:
            raise OSError(errno.ENODEV, "there is no such folder", parent) from error
        # Identities and locks are here, too, so an empty folder means an unmounted file system.
        raise OSError(errno.ENODEV, "the folder is empty, as if it were not mounted", parent)

    @contextlib.contextmanager
    def owner_lock(self) -> Iterator[None]:
        """Keep other processes from changing the owner; `TimeoutError` if one takes too long."""
        from filelock import FileLock

        jobs = os.path.dirname(self.path)
        make_own(jobs)
        with FileLock(f"{jobs}/{OWNER_LOCK}", timeout=OWNER_LOCK_S):
            yield

    def make(self) -> bool:
        """Make the directory; ``False`` if another process was first."""
        try:
            os.mkdir(self.path, 0o700)
        except FileExistsError:
            return False
        return True

    def remove_empty(self) -> None:
        """Remove the directory if nothing was written into it."""
        with contextlib.suppress(OSError):
            os.rmdir(self.path)

    def write_spec(self, header: Mapping[str, Any], body: str) -> None:
        """Write or replace the specification, for the user alone to read."""
        content = document(header, body.encode())
        try:
            temporary = self._temporary("spec", content)
        except FileNotFoundError:
            self.make()
            temporary = self._temporary("spec", content)
        os.replace(temporary, self.file("spec"))

    def read_spec(self) -> tuple[dict[str, Any], str]:
        """Read header and body of the specification."""
        header, body = self._document("spec")
        return self._whole(header), body.decode()

    def read_header(self) -> dict[str, Any]:
        """Read the header of the specification alone."""
        with self._open("spec") as file:
            return self._whole(read_header(file.readline(), self.file("spec")))

    def _whole(self, header: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(header.get("attempt"), int) or not is_job_id(header.get("job_id")):
            raise BadFile(f"{self.file('spec')} does not say of which job and attempt it is")
        return header

    def request_cancel(self) -> None:
        """Ask the process that runs or submits the job to stop it."""
        self.make()
        with open(self.file("cancel"), "w", encoding="ascii"):
            pass

    def cancel_requested(self) -> bool:
        """Return whether a cancel was requested."""
        return os.path.exists(self.file("cancel")) or self._has_packed("cancel")

    def claim(self, attempt: int, identity: IdentityFile) -> bool:
        """Claim an attempt; ``False`` if another process was first."""
        try:
            identity.link(self.file(f"{attempt}.claim"))
        except FileExistsError:
            return False
        return True

    def claim_for(self, attempt: int, claimant: Mapping[str, Any]) -> bool:
        """Claim an attempt for a process that does not see this directory; ``False`` if claimed."""
        temporary = self._temporary("claim", document(claimant, b""), durable=True)
        try:
            os.link(temporary, self.file(f"{attempt}.claim"))
        except FileExistsError:
            return False
        finally:
            os.unlink(temporary)
        return True

    def unclaim(self, attempt: int) -> None:
        """Remove our own claim of an attempt that has not begun."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.file(f"{attempt}.claim"))

    def claimed(self, attempt: int) -> bool:
        """Return whether the attempt is claimed."""
        return os.path.exists(self.file(f"{attempt}.claim"))

    def claimant(self, attempt: int) -> Identity | None:
        """Return the process that claimed the attempt."""
        try:
            header, _ = self._document(f"{attempt}.claim")
        except FileNotFoundError:
            return None
        try:
            return Identity.read(header)
        except (KeyError, TypeError) as error:
            raise BadFile(f"{self.file(f'{attempt}.claim')} does not name its process") from error

    def is_claimant_alive(self, attempt: int, claimant: Identity | None = None) -> bool | None:
        """Return whether the attempt's claimant is alive; ``None`` if unknown, or without one."""
        claimant = claimant or self.claimant(attempt)
        if claimant is None:
            return None
        # The claim is a link to the file that its maker locks.
        return claimant.is_alive(self.file(f"{attempt}.claim") if claimant.lock else None)

    def heart(self, attempt: int) -> Heart | None:
        """Read the heart of the attempt's claimant; ``None`` if it has none."""
        try:
            header, _ = read_document(self.file(f"{attempt}.claim"))
        except FileNotFoundError:
            return None
        return Heart.read(header)

    def containment(self, attempt: int) -> dict[str, Any]:
        """Return the group or guardian of a claimed attempt's processes (jobs.cgroups)."""
        try:
            header, _ = read_document(self.file(f"{attempt}.claim"))
        except FileNotFoundError:
            return {}
        return dict(header.get("containment", {}))

    def is_claim_held(self, attempt: int) -> bool | None:
        """Return whether a claim's maker is alive, even if it is damaged; ``None``: unknown."""
        # The claim is a link to the file that its maker locks, even if its content is damaged.
        return is_locked(self.file(f"{attempt}.claim"))

    def note_asked_to_stop(self, attempt: int, *, file: str, time: str, end: str) -> None:
        """Note that a file has asked an attempt's program to stop, as a time was nearly over.

        `end` is the state of the attempt, ``failed`` or ``lost``, unless its recipe still returns.
        """
        note = json.dumps({"file": file, "time": time, "end": end})
        with contextlib.suppress(OSError):  # a full disk: the job goes on
            temporary = self._temporary("stop", note.encode())
            os.replace(temporary, self.file(f"{attempt}.asked_to_stop"))

    def asked_to_stop(self, attempt: int) -> dict[str, str] | None:
        """Return that note (``file``, ``time``, ``end``); ``None`` if there is none."""
        try:
            with open(self.file(f"{attempt}.asked_to_stop"), "rb") as file:
                return dict(json.loads(file.read()))
        except (OSError, ValueError):  # ValueError: a power cut left it empty
            return None

    def note_begun_from(self, attempt: int, file: str) -> None:
        """Note the file of an earlier attempt that an attempt has its first geometry from."""
        temporary = self._temporary("begun", os.fsencode(file))
        os.replace(temporary, self.file(f"{attempt}.begun_from"))

    def begun_from(self, attempt: int) -> str | None:
        """Return the file of an earlier attempt that an attempt has its first geometry from."""
        if attempt == 1:
            return None
        try:
            with self._open(f"{attempt}.begun_from") as file:
                return as_text(os.fsdecode(file.read()))
        except OSError:
            return None

    def write_handle(self, attempt: int, handle: str) -> None:
        """Record the engine's handle of an attempt."""
        temporary = self._temporary("handle", document({}, handle.encode()))
        os.replace(temporary, self.file(f"{attempt}.handle"))

    def read_handle(self, attempt: int) -> str | None:
        """Read the recorded handle of an attempt."""
        try:
            return read_document(self.file(f"{attempt}.handle"))[1].decode()
        except FileNotFoundError:
            return None

    def keep_step(self, name: str, header: Mapping[str, Any], payload: bytes) -> None:
        """Write the result of a step that ran in a pass durably, for later passes."""
        temporary = self._temporary("step", document(header, payload), durable=True)
        os.replace(temporary, self.file(_step_file(name)))
        to_disk(self.path)

    def kept_step(self, name: str) -> tuple[dict[str, Any], bytes] | None:
        """Read the header and payload that :meth:`keep_step` wrote."""
        try:
            return self._document(_step_file(name))
        except FileNotFoundError:
            return None

    def link_steps(self, links: Mapping[str, str]) -> None:
        """Make the folder of a flow's steps hold exactly these links, by their names."""
        folder = self.file(STEPS)
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o700)  # a removed run directory is not made again
        there = {name: os.readlink(f"{folder}/{name}") for name in os.listdir(folder)}
        for name, target in there.items():
            if links.get(name) != target:
                os.unlink(f"{folder}/{name}")
        for name, target in links.items():
            if there.get(name) != target:
                os.symlink(target, f"{folder}/{name}")

    def write_parcel(
        self, attempt: int, others: Sequence[tuple[str, int]], *, batch: bool = False
    ) -> None:
        """Write the job ids and attempts that the worker of an attempt runs after it.

        With `batch`, their recipe may compute several of them in one call.
        """
        header = {"others": others, **({"batch": True} if batch else {})}
        temporary = self._temporary("parcel", document(header, b""))
        os.replace(temporary, self.file(f"{attempt}.parcel"))

    def remove_parcel(self, attempt: int) -> None:
        """Remove that list, so that the worker runs nothing after the attempt."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.file(f"{attempt}.parcel"))

    def parcel(self, attempt: int) -> list[tuple[str, int]]:
        """Return the job ids and attempts that the worker of an attempt runs after it."""
        try:
            others = read_document(self.file(f"{attempt}.parcel"))[0]["others"]
            followers = [(job_id, number) for job_id, number in others if is_job_id(job_id)]
        except FileNotFoundError:
            return []
        except (KeyError, TypeError, ValueError) as error:
            raise BadFile(f"{self.file(f'{attempt}.parcel')} lists no attempts") from error
        return followers

    def is_batch(self, attempt: int) -> bool:
        """Return whether the recipe of a parcel may compute several of its jobs in one call."""
        return bool(read_document(self.file(f"{attempt}.parcel"))[0].get("batch"))

    def prepare_outcome(self, attempt: int, header: Mapping[str, Any], payload: bytes = b"") -> str:
        """Write the outcome of a recipe durably, ready to be published."""
        content = outcome_document(header, payload)
        return self._temporary(f"{attempt}.prepared", content, durable=True)

    def publish_prepared(self, attempt: int, temporary: str) -> bool:
        """Publish a prepared outcome, durably; ``False`` if another was first.

        On `OSError` it stays prepared.
        """
        outcome = self.file(f"{attempt}.outcome")
        try:
            os.link(temporary, outcome)
        except FileExistsError:
            if not os.path.samefile(temporary, outcome):
                os.unlink(temporary)
                return False
            # The network lost the reply to our own link, and repeated the request.
        except FileNotFoundError:
            if not self.decided(attempt):
                raise
            return False  # the process that decided the attempt as lost has published it
        # The prepared file is removed only now: on a full disk it is the only copy of the result.
        os.unlink(temporary)
        to_disk(self.path)
        return True

    def publish_in(self, attempt: int, path: str) -> bool:
        """Publish an outcome of a synced journal; ``False`` if another was first."""
        try:
            os.link(path, self.file(f"{attempt}.outcome"))
        except FileExistsError:
            return os.path.samefile(path, self.file(f"{attempt}.outcome"))
        return True

    def publish_left(self, attempt: int) -> bool:
        """Publish the prepared outcome of an attempt whose processes died before they could."""
        for name in sorted(os.listdir(self.path)):
            if name.startswith(f".{attempt}.prepared."):
                with contextlib.suppress(BadFile, FileNotFoundError):
                    if "state" in (self._outcome_in(name, attempt) or {}):
                        to_disk(self.file(name))  # its writer may have been killed before that
                        return self.publish_prepared(attempt, self.file(name))
        from crystalmath.jobs import journal

        with contextlib.suppress(BadFile):
            claimant = self.claimant(attempt)
            jobs = os.path.dirname(self.path)
            for left in journal.left(jobs, claimant.lock) if claimant and claimant.lock else ():
                if self._name(attempt) in dict(left.outcomes):
                    to_disk(left.path)
                    was_first = self.publish_in(attempt, left.path)
                    to_disk(self.path)
                    return was_first
        return False

    def publish(self, attempt: int, header: Mapping[str, Any], payload: bytes = b"") -> bool:
        """Publish an outcome, durably; ``False`` if another was first."""
        return self.publish_document(attempt, outcome_document(header, payload))

    def publish_document(self, attempt: int, content: bytes) -> bool:
        """Publish the document of an outcome, durably; ``False`` if another was first."""
        temporary = self._temporary("outcome", content, durable=True)
        try:
            return self.publish_prepared(attempt, temporary)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise

    def replace_outcome(self, attempt: int, header: Mapping[str, Any]) -> None:
        """Replace a damaged outcome, durably."""
        temporary = self._temporary("outcome", outcome_document(header), durable=True)
        os.replace(temporary, self.file(f"{attempt}.outcome"))
        to_disk(self.path)

    def note_ended(self, attempt: int, error: str | None) -> None:
        """Note the engine's report that a stopped attempt has ended.

        An `error` decides how the job ends, and is written durably.
        """
        durable = error is not None
        temporary = self._temporary("ended", document({"error": error}, b""), durable=durable)
        os.replace(temporary, self.file(f"{attempt}.ended"))
        if durable:
            to_disk(self.path)

    def ended(self, attempt: int) -> dict[str, Any] | None:
        """Read that note; its ``error`` fails the job."""
        try:
            return self._document(f"{attempt}.ended")[0]
        except FileNotFoundError:
            return None

    def decided(self, attempt: int) -> bool:
        """Return whether the attempt has an outcome."""
        name = f"{attempt}.outcome"
        return os.path.exists(self.file(name)) or self._has_packed(name)

    def outcome(self, attempt: int) -> dict[str, Any] | None:
        """Read the header of an outcome, without its result; `BadFile` if a part is missing."""
        return self._outcome_in(f"{attempt}.outcome", attempt)

    def _outcome_in(self, name: str, attempt: int) -> dict[str, Any] | None:
        path = self.file(name)
        try:
            with self._opened(name, attempt) as file:
                line = file.readline()
                header = _outcome_header(line, path)
                size = header["size"]
                if file.seek(0, os.SEEK_END) < (whole := len(line) + size):
                    raise BadFile(f"{path} is cut short: it should have {whole} bytes")
                return header
        except FileNotFoundError:
            return None

    def _opened(self, name: str, attempt: int) -> BinaryIO:
        """Open the document of an outcome: a file of its own, or that part of a journal."""
        file, path = self._open(name), self.file(name)
        try:
            if not file.peek(1).startswith(RECORD_MARK):
                return file
            from crystalmath.jobs import journal

            content = journal.find(file.read(), self._name(attempt))
        except BaseException:
            file.close()
            raise
        file.close()
        if content is None:
            raise BadFile(f"{path} is a journal without the outcome of {self._name(attempt)}")
        return io.BytesIO(content)

    def _name(self, attempt: int) -> str:
        return attempt_id(os.path.basename(self.path), attempt)

    def journaled(self, attempt: int) -> bytes | None:
        """Read an outcome from a journal; ``None`` if the outcome has a file of its own."""
        with self._opened(f"{attempt}.outcome", attempt) as file:
            return file.read() if isinstance(file, io.BytesIO) else None

    def check_outcome(self, attempt: int) -> None:
        """Raise `BadFile` if an outcome has changed since it was published, by its digest."""
        path = self.file(name := f"{attempt}.outcome")
        with self._opened(name, attempt) as file:
            header = read_header(file.readline(), path)
            published, size = header.pop("sha256", None), header.get("size", 0)
            digest = _digest_of_header(header)
            while size > 0 and (chunk := file.read(min(size, _CHUNK))):
                digest.update(chunk)
                size -= len(chunk)
            if size or file.read(1) or digest.hexdigest() != published:
                raise BadFile(f"{path} has changed since it was published: its digest differs")

    def payload(self, attempt: int) -> bytes:
        """Read the encoded result of an outcome, without its index."""
        file, header = self.open_outcome(attempt)
        with file:
            body = file.read()
        return body[: len(body) - header.get("index", 0)]

    def open_outcome(self, attempt: int) -> tuple[BinaryIO, dict[str, Any]]:
        """Open an outcome at the beginning of its result; return the file and the header."""
        path = self.file(name := f"{attempt}.outcome")
        file = self._opened(name, attempt)
        try:
            return file, _outcome_header(file.readline(), path)
        except BaseException:
            file.close()
            raise

    def is_packed(self) -> bool:
        """Return whether the directory is in a pack, and not in its place."""
        if not self._has_packs() or os.path.isdir(self.path):
            return False
        from crystalmath.jobs.packs import packs_of

        jobs, job_id = self._place()
        return packs_of(jobs).find(job_id) is not None

    # Files of packed jobs. A directory in its place goes before a pack, and only while there are
    # packs beside it anything else is looked at.

    def _open(self, name: str) -> io.BufferedReader:
        """Open one of the files, in its place or in a pack."""
        path = self.file(name)
        try:
            return open(path, "rb")
        except FileNotFoundError:
            if not self._has_packs():
                raise
            file = self._open_packed(name)
        # Without a pack the job may just have been unpacked.
        return file or open(path, "rb")

    def _open_packed(self, name: str) -> io.BufferedReader | None:
        from crystalmath.jobs import packs

        return None if os.path.isdir(self.path) else packs.opened(*self._place(), name)

    def _document(self, name: str) -> tuple[dict[str, Any], bytes]:
        with self._open(name) as file:
            return read_header(file.readline(), self.file(name)), file.read()

    def _has_packed(self, name: str) -> bool:
        """Return whether a pack has a file of the job, or has just had it."""
        if not self._has_packs():
            return False
        if (file := self._open_packed(name)) is not None:
            file.close()
        return file is not None or os.path.exists(self.file(name))

    def _place(self) -> tuple[str, str]:
        jobs, _, job_id = self.path.rpartition("/")
        return jobs, job_id

    def _has_packs(self) -> bool:
        return os.path.isdir(f"{os.path.dirname(self.path)}/{PACKS}")

    def _temporary(self, kind: str, content: bytes, *, durable: bool = False) -> str:
        path = self.file(f".{kind}.{os.urandom(6).hex()}")
        try:
            write(path, content, durable=durable)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            raise
        return path


def outcome_document(header: Mapping[str, Any], payload: bytes = b"") -> bytes:
    """Return the document of an outcome: the header, with a digest, and the result."""
    whole = {"format": FORMAT, **header, "size": len(payload)}
    digest = _digest_of_header(whole)
    digest.update(payload)
    return document({**whole, "sha256": digest.hexdigest()}, payload)


def _outcome_header(line: bytes, path: str) -> dict[str, Any]:
    header = read_header(line, path)
    if not isinstance(header.get("size"), int):
        raise BadFile(f"{path} does not say how large its result is")
    return header


def _digest_of_header(header: Mapping[str, Any]) -> hashlib._Hash:
    import hashlib  # loads OpenSSL, which commands that only read do not need

    return hashlib.sha256(json.dumps(header, sort_keys=True).encode())


def _step_file(name: str) -> str:
    import hashlib

    return f"step.{hashlib.sha256(name.encode()).hexdigest()[:32]}"


def _is_there(path: str) -> bool:
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
