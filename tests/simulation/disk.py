"""Run directories in memory, with the faults that real ones have."""

from __future__ import annotations

import contextlib
import errno
import os

from crystalmath.errors import BadFile
from crystalmath.jobs.documents import document, read_header
from crystalmath.jobs.rundir import RunDirectory, is_job_id
from crystalmath.processes import Identity


class Crash(BaseException):
    """The process that writes ends here."""


class Journal:
    """What a supervisor has written, and how much of it has reached the disk."""

    def __init__(self, writer):
        self.writer = writer
        self.records: list[tuple[str, int, bytes]] = []
        self.synced = 0

    def find(self, path, attempt):
        return next((each for *of, each in self.records if of == [path, attempt]), None)


class Disk:
    """Folders and files, some of which cannot be reached for a while.

    Before and after each write (`change`) the writing process may crash.
    """

    def __init__(self, now):
        self.now = now
        self.folders: dict[str, dict[str, bytes]] = {}
        # The path of a folder or a file, or "" for all: until when, errno.
        self.unreadable: dict[str, tuple[float, int]] = {}
        self.crash_in: int | None = None
        #: By the pid of its writer.
        self.journals: dict[int, Journal] = {}
        #: Names that a power cut may take: folder and file.
        self.unsynced: set[tuple[str, str]] = set()
        self.writes = 0
        #: What was published as an attempt's outcome, and was not damaged since.
        self.published: dict[tuple[str, int], bytes] = {}
        self.twice: list[str] = []
        #: The attempts in which a recipe came to its end.
        self.ended: set[tuple[str, int]] = set()
        self.held: set[tuple[str, int]] = set()  # claims whose maker is alive

    def reach(self, path):
        for key in ("", path):
            until, number = self.unreadable.get(key, (0.0, 0))
            if self.now() < until:
                raise OSError(number, os.strerror(number), path)

    def remove(self, path):
        self.folders.pop(path, None)
        self.held = {each for each in self.held if each[0] != path}
        self.published = {key: end for key, end in self.published.items() if key[0] != path}

    def cut_power(self, random):
        """Lose what has not reached the disk, or some of it."""
        for path, name in sorted(self.unsynced):
            if random.random() < 0.5:
                self.folders.get(path, {}).pop(name, None)
        self.unsynced.clear()
        self.held.clear()
        for journal in self.journals.values():
            self.tear(journal, random.randint(journal.synced, len(journal.records)))

    def tear(self, journal, kept):
        """Lose the end of a journal, from one of its records on."""
        for path, attempt, content in journal.records[kept:]:
            self.ended.discard((path, attempt))
            files = self.folders.get(path, {})
            if files.get(f"{attempt}.outcome") == content:
                files[f"{attempt}.outcome"] = b"torn"  # it is a link to the journal
        del journal.records[kept:]
        journal.synced = len(journal.records)

    def sync(self, path):
        self.unsynced = {each for each in self.unsynced if each[0] != path}

    def is_away(self, path):
        try:
            self.reach(path)
        except OSError:
            return True
        return False

    @contextlib.contextmanager
    def change(self, path=None):
        if path is not None:
            self.reach(path)
        self._step()
        yield
        self.writes += 1
        self._step()

    def _step(self):
        if self.crash_in is not None:
            self.crash_in -= 1
            if self.crash_in < 0:
                self.crash_in = None
                raise Crash


class MemoryDirectory(RunDirectory):
    """A run directory on a `Disk`: the files are bytes in the form of real ones."""

    def __init__(self, disk, host, path):
        super().__init__(path)
        self._disk = disk
        self._host = host  # which looks

    # --- reading ---

    def _files(self):
        self._disk.reach(self.path)
        try:
            return self._disk.folders[self.path]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, "none", self.path) from None

    def _content(self, name):
        self._disk.reach(self.file(name))
        try:
            return self._files()[name]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, "none", self.file(name)) from None

    def _read(self, name):
        head, _, body = self._content(name).partition(b"\n")
        return read_header(head, self.file(name)), body

    def has(self, name):
        self._disk.reach(self.file(name))
        try:
            return name in self._files()
        except FileNotFoundError:
            return False

    def cancel_requested(self):
        with contextlib.suppress(OSError):
            return self.has("cancel")
        return False

    def is_gone(self):
        self._disk.reach(self.path)
        return self.path not in self._disk.folders

    def read_spec(self):
        header, body = self._read("spec")
        return self._checked(header), body.decode()

    def read_header(self):
        return self._checked(self._read("spec")[0])

    def _checked(self, header):
        if not isinstance(header.get("attempt"), int) or not is_job_id(header.get("job_id")):
            raise BadFile(f"{self.path} does not say of which job and attempt it is")
        return header

    def claimant(self, attempt):
        try:
            return Identity.read(self._read(f"{attempt}.claim")[0])
        except FileNotFoundError:
            return None
        except KeyError as error:
            raise BadFile("nobody's claim") from error

    def is_claimant_alive(self, attempt, claimant=None):
        claimant = claimant or self.claimant(attempt)
        return None if claimant is None else self._host.knows(claimant)

    def heart(self, attempt):
        claimant = self.claimant(attempt)
        return None if claimant is None else self._host.world.heart_of(claimant)

    def is_claim_held(self, attempt):
        return (self.path, attempt) in self._disk.held

    def read_handle(self, attempt):
        return None

    def outcome(self, attempt):
        try:
            return self._whole(f"{attempt}.outcome")
        except FileNotFoundError:
            return None

    def _whole(self, name):
        header, body = self._read(name)
        if len(body) < header.get("size", 0):
            raise BadFile("cut short")
        return header

    def ended(self, attempt):
        try:
            return self._read(f"{attempt}.ended")[0]
        except FileNotFoundError:
            return None

    # --- writing ---

    @contextlib.contextmanager
    def owner_lock(self):
        self._disk.reach(self.path)
        yield

    def make(self):
        if self.path in self._disk.folders:
            self._disk.reach(self.path)
            return False
        with self._disk.change(self.path):
            self._disk.folders[self.path] = {}
        return True

    def write_spec(self, header, body):
        self.make()
        with self._disk.change(self.path):
            self._disk.folders[self.path]["spec"] = document(header, body.encode())

    def request_cancel(self):
        self.make()
        with self._disk.change(self.path):
            self._disk.folders[self.path]["cancel"] = b""

    def claim(self, attempt, identity):
        files = self._files()
        if f"{attempt}.claim" in files:
            return False
        with self._disk.change(self.path):
            files[f"{attempt}.claim"] = document(identity.as_dict(), b"")
            self._disk.unsynced.add((self.path, f"{attempt}.claim"))
        return True

    def unclaim(self, attempt):
        with self._disk.change(self.path):
            self._files().pop(f"{attempt}.claim", None)

    def write_parcel(self, attempt, others, *, batch=False):
        files = self._files()
        with self._disk.change(self.path):
            files[f"{attempt}.parcel"] = document({"others": others}, b"")

    def remove_parcel(self, attempt):
        if self.has(f"{attempt}.parcel"):
            with self._disk.change(self.path):
                self._files().pop(f"{attempt}.parcel", None)

    def parcel(self, attempt):
        if not self.has(f"{attempt}.parcel"):
            return []
        try:
            return [tuple(each) for each in self._read(f"{attempt}.parcel")[0]["others"]]
        except (KeyError, TypeError, ValueError) as error:
            raise BadFile("no parcel") from error

    def write_handle(self, attempt, handle):
        raise AssertionError("the engine finds its work by the attempt's id")

    def prepare_outcome(self, attempt, header, payload=b""):
        with self._disk.change(self.path):
            self._files()[f".{attempt}.prepared"] = _outcome(header, payload)
            self._disk.ended.add((self.path, attempt))
        return f".{attempt}.prepared"

    def publish_prepared(self, attempt, temporary):
        is_first = self._publish(attempt, self._content(temporary))
        with self._disk.change(self.path):
            del self._files()[temporary]
        return is_first

    def journal(self, attempt, writer, header, payload=b""):
        """Write an outcome into the journal of the claimant."""
        with self._disk.change(self.path):
            journal = self._disk.journals.setdefault(writer.pid, Journal(writer))
            journal.records.append((self.path, attempt, _outcome(header, payload)))
            self._disk.ended.add((self.path, attempt))

    def publish_in(self, attempt, journal):
        files, content = self._files(), journal.find(self.path, attempt)
        if f"{attempt}.outcome" in files:
            return files[f"{attempt}.outcome"] == content
        with self._disk.change(self.path):
            if content is None:
                files[f"{attempt}.outcome"] = b"torn"
            else:
                self._put(files, attempt, content)
            self._disk.unsynced.add((self.path, f"{attempt}.outcome"))
        return True

    def publish_left(self, attempt):
        with contextlib.suppress(BadFile):
            claimant = self.claimant(attempt)
            journal = self._disk.journals.get(claimant.pid) if claimant else None
            if journal is not None and journal.find(self.path, attempt):
                journal.synced = len(journal.records)
                is_first = self.publish_in(attempt, journal)
                self._disk.sync(self.path)
                return is_first
        prepared = f".{attempt}.prepared"
        with contextlib.suppress(BadFile, FileNotFoundError):
            if "state" in self._whole(prepared):
                return self.publish_prepared(attempt, prepared)
        return False

    def publish(self, attempt, header, payload=b""):
        return self._publish(attempt, _outcome(header, payload))

    def _publish(self, attempt, content):
        files = self._files()
        if f"{attempt}.outcome" in files:
            return False
        with self._disk.change(self.path):
            self._put(files, attempt, content)
            self._disk.sync(self.path)
        return True

    def note_ended(self, attempt, error):
        with self._disk.change(self.path):
            self._files()[f"{attempt}.ended"] = document({"error": error}, b"")

    def replace_outcome(self, attempt, header):
        with self._disk.change(self.path):
            self._put(self._files(), attempt, _outcome(header))

    def _put(self, files, attempt, content):
        if self._disk.published.setdefault((self.path, attempt), content) != content:
            self._disk.twice.append(f"{self.path}: attempt {attempt} has two outcomes")
        files[f"{attempt}.outcome"] = content


def _outcome(header, payload=b""):
    return document({**header, "size": len(payload)}, payload)
