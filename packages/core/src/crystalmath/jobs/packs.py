"""Run directories of ended jobs in packs: SQLite files of up to 1,000 jobs that never change.

``jobs/.packs/NAME.pack`` has three tables. ``jobs`` numbers the jobs, ``files`` names their files,
and ``pieces`` has the contents. A piece is stored as it is if its data have its size, else as a
zlib stream, with the content of the piece ``base`` as preset dictionary where that is not null.

``NAME.index`` has a line of 38 bytes for each job that is in the pack, sorted: its id, a space, or
``-`` once the job was unpacked or removed. A pack without an index has all of its jobs.

A run directory in its place goes before a pack. So a job is packed in this order: the pack is
written aside and synced, renamed, its index written, and then the directory removed.
"""

from __future__ import annotations

import bisect
import contextlib
import errno
import fcntl
import functools
import hashlib
import io
import itertools
import os
import re
import secrets
import shutil
import sqlite3
import stat
import threading
import time
import zlib
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias
from urllib.parse import quote

from crystalmath._permissions import make_own
from crystalmath.errors import BadFile, CrystalMathError
from crystalmath.jobs.documents import PACKS, to_disk, write
from crystalmath.processes import is_locked

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

#: The most jobs of a pack, and the size of their files in bytes from which it takes no further job.
MOST_JOBS = 1000
MOST_BYTES = 64 * 2**20
#: The number of the format, in SQLite's ``user_version``.
FORMAT = 1
_TABLES = """
CREATE TABLE jobs (number INTEGER PRIMARY KEY, job_id TEXT NOT NULL UNIQUE);
CREATE TABLE files (
    job INTEGER NOT NULL, name NOT NULL, part INTEGER NOT NULL, mode INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL, piece INTEGER NOT NULL, PRIMARY KEY (job, name, part)
) WITHOUT ROWID;
CREATE TABLE pieces (
    number INTEGER PRIMARY KEY, size INTEGER NOT NULL, base INTEGER, data BLOB NOT NULL
);
"""
#: Larger files are stored in pieces of this size, in bytes.
_PIECE = 2**20
#: The largest preset dictionary that zlib uses, in bytes.
_MOST_BASE = 2**15
#: How much of a larger piece shows whether it can be compressed, in bytes.
_SAMPLE = 2**15
#: The length of a line of an index, and of a job id in it.
_LINE, _ID = 38, 36
_LIVE, _GONE = b" \n", b"-\n"
_PACK, _INDEX, _PART = ".pack", ".index", ".part"
#: A folder for a run directory outside its place, and a file in it that is locked meanwhile.
_ASIDE, _HELD = ".aside.", ".held"
#: The locks: held by the process that packs, and for a moment by those that change places of files.
_PACKING, _LOCK = ".packing", ".lock"
#: The file of a run directory that is locked while others are read.
_SPEC = "spec"
#: How long a process waits for the lock of another, in seconds.
_LOCK_S = 30.0
_OUTCOME = re.compile(r"(\d+)\.outcome", re.ASCII)
_NUMBER = re.compile(r"\d+")

#: Inode, size in bytes and time of change in ns of an index; ``None`` without one.
_Signature: TypeAlias = "tuple[int, int, int] | None"


class Entry(NamedTuple):
    """A file, folder (``NAME/``) or link of a run directory; the name ``/`` is the directory."""

    name: str
    mode: int
    size: int
    mtime_ns: int


# --- finding and reading --------------------------------------------------------------------------


class Packs:
    """The packs of a folder of run directories, and which jobs are in them."""

    def __init__(self, jobs_directory: str) -> None:
        self.folder = f"{jobs_directory}/{PACKS}"
        self._lock = threading.Lock()
        # The lines of each index; the pack that was hit last comes first.
        self._known: OrderedDict[str, tuple[_Signature, bytes]] = OrderedDict()

    def find(self, job_id: str) -> str | None:
        """Return the path of the pack that has a job; ``None`` if no pack has it."""
        line = job_id.encode()
        with self._lock:
            if (name := self._hit(line)) is None:
                self._look()
                name = self._hit(line)
        return None if name is None else f"{self.folder}/{name}{_PACK}"

    def ids(self) -> set[str]:
        """Return the ids of all packed jobs."""
        with self._lock:
            self._look()
            return {job_id for _, lines in self._known.values() for job_id in _live(lines)}

    def packs(self) -> dict[str, list[str]]:
        """Return the jobs of each pack, by its name, the oldest pack first."""
        with self._lock:
            self._look()
            return {name: [*_live(self._known[name][1])] for name in sorted(self._known)}

    def members(self, name: str) -> list[str]:
        """Return the jobs of a pack, from its index as it is now."""
        with self._lock:
            return [*_live(self._load(name)[1])]

    def sizes(self) -> list[tuple[int, int]]:
        """Return the number of jobs in each pack, and its size in bytes."""
        return [
            (len(jobs), os.stat(self.path(name)).st_size) for name, jobs in self.packs().items()
        ]

    def is_mostly_empty(self, name: str) -> bool:
        """Return whether more than half of the jobs of a pack are gone from it."""
        with self._lock:
            lines = self._known[name][1]
        return 2 * sum(1 for _ in _live(lines)) < len(lines) // _LINE

    def path(self, name: str) -> str:
        """Return the path of a pack."""
        return f"{self.folder}/{name}{_PACK}"

    def _hit(self, line: bytes) -> str | None:
        for name, (_, lines) in list(self._known.items()):
            if (at := _place(lines, line)) >= 0:
                # The index may have changed since: only ids that are gone from it, or other places.
                now = self._line(name, at)
                if now is not None and now[:_ID] != line:
                    now_there = self._load(name)[1]
                    at = _place(now_there, line)
                    now = now_there[at : at + _LINE] if at >= 0 else None
                if now == line + _LIVE:
                    self._known.move_to_end(name, last=False)
                    return name
        return None

    def _line(self, name: str, at: int) -> bytes | None:
        """Read a line of an index as it is now; ``None`` if the pack is gone."""
        try:
            with open(f"{self.folder}/{name}{_INDEX}", "rb", buffering=0) as index:
                return os.pread(index.fileno(), _LINE, at)
        except FileNotFoundError:
            if not os.path.exists(self.path(name)):
                self._known.pop(name, None)
                return None
            return self._load(name)[1][at : at + _LINE]

    def _look(self) -> None:
        """Read the indices that are new or were replaced, and forget those that are gone."""
        try:
            entries = os.listdir(self.folder)
        except FileNotFoundError:
            entries = []
        names = {
            entry.removesuffix(_PACK)
            for entry in entries
            if entry.endswith(_PACK) and not entry.startswith(".")
        }
        for name in self._known.keys() - names:
            del self._known[name]
        for name in sorted(names):
            known = self._known.get(name)
            if known is None or known[0] is None or known[0] != self._signature(name):
                self._load(name)

    def _load(self, name: str) -> tuple[_Signature, bytes]:
        signature = self._signature(name)  # taken first: a later change is seen the next time
        try:
            with open(f"{self.folder}/{name}{_INDEX}", "rb") as index:
                lines = index.read()
        except FileNotFoundError:
            with _reading(self.path(name)) as pack:
                lines = _lines(job_id for (job_id,) in pack.execute("SELECT job_id FROM jobs"))
        self._known[name] = signature, lines
        self._known.move_to_end(name, last=False)  # the newest pack is read first
        return signature, lines

    def _signature(self, name: str) -> _Signature:
        try:
            now = os.stat(f"{self.folder}/{name}{_INDEX}")
        except FileNotFoundError:
            return None
        return now.st_ino, now.st_size, now.st_mtime_ns

    # --- changes ---------------------------------------------------------------------------------

    def discard(self, job_ids: Collection[str]) -> None:
        """Mark jobs as gone from all packs, durably; the caller holds :func:`changing`."""
        with self._lock:
            self._look()
            known = {name: lines for name, (_, lines) in self._known.items()}
        for name, lines in known.items():
            places = [_place(lines, job_id.encode()) for job_id in job_ids]
            ends = [at + _ID for at in places if lines[at + _ID : at + _LINE] == _LIVE and at >= 0]
            if not ends:
                continue
            index = f"{self.folder}/{name}{_INDEX}"
            if not os.path.exists(index):
                self.write_index(name, _live(lines))
            with open(index, "r+b", buffering=0) as file:
                for end in ends:
                    os.pwrite(file.fileno(), _GONE[:1], end)
                os.fdatasync(file.fileno())
            with self._lock:
                self._load(name)  # the time of the file may be the same

    def write_index(self, name: str, job_ids: Iterable[str], gone: Collection[str] = ()) -> None:
        """Write or replace the index of a pack, durably."""
        part = f"{self.folder}/.{name}{_INDEX}.{secrets.token_hex(4)}{_PART}"
        try:
            write(part, _lines(job_ids, gone), durable=True)
            os.replace(part, f"{self.folder}/{name}{_INDEX}")
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(part)
        to_disk(self.folder)

    def remove(self, name: str) -> None:
        """Remove a pack without jobs."""
        for end in (_PACK, _INDEX):  # a killed process leaves an index that nobody reads
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self.folder}/{name}{end}")


def _lines(job_ids: Iterable[str], gone: Collection[str] = ()) -> bytes:
    return b"".join(one.encode() + (_GONE if one in gone else _LIVE) for one in sorted(job_ids))


def _place(lines: bytes, job_id: bytes) -> int:
    """Return where the line of a job begins; -1 if there is none."""
    numbers = range(len(lines) // _LINE)
    found_at = bisect.bisect_left(
        numbers, job_id, key=lambda number: lines[number * _LINE : number * _LINE + _ID]
    )
    at = found_at * _LINE
    return at if lines[at : at + _ID] == job_id else -1


def _live(lines: bytes) -> Iterator[str]:
    for at in range(0, len(lines) - _LINE + 1, _LINE):
        if lines[at + _ID : at + _LINE] == _LIVE:
            yield lines[at : at + _ID].decode()


@functools.cache
def packs_of(jobs_directory: str) -> Packs:
    """Return the packs of a folder of run directories."""
    return Packs(jobs_directory)


# The lock of a thread that the fork has not copied would stay locked.
os.register_at_fork(after_in_child=packs_of.cache_clear)


@contextlib.contextmanager
def _reading(path: str) -> Iterator[sqlite3.Connection]:
    """Open a pack; `BadFile` if it is damaged, `FileNotFoundError` if it is gone."""
    with _translated(path), contextlib.closing(_connected(path)) as pack:
        yield pack


def _connected(path: str) -> sqlite3.Connection:
    try:
        # Nobody writes into a pack, so SQLite needs no locks, which network file systems may lack.
        address = f"file:{quote(path)}?mode=ro&immutable=1"
        pack = sqlite3.connect(address, uri=True, check_same_thread=False)
    except sqlite3.OperationalError as error:
        if not os.path.exists(path):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from error
        raise BadFile(f"{path} cannot be opened: {error}") from error
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.closing(pack))
        (written,) = pack.execute("PRAGMA user_version").fetchone()
        if written > FORMAT:
            raise BadFile(
                f"{path} was written by a newer release (format {written}, this one reads up "
                f"to {FORMAT}); upgrade crystalmath"
            )
        stack.pop_all()
    return pack


@contextlib.contextmanager
def _translated(path: str) -> Iterator[None]:
    try:
        yield
    except (sqlite3.DatabaseError, zlib.error) as error:
        raise BadFile(f"{path} is damaged: {error}") from error


def _data(pack: sqlite3.Connection, number: int) -> bytes:
    """Return the content of a piece."""
    row = pack.execute("SELECT size, base, data FROM pieces WHERE number = ?", (number,)).fetchone()
    if row is None:
        raise sqlite3.DatabaseError(f"it has no piece {number}")
    size, base, data = row
    if len(data) == size:
        return bytes(data)
    unpacker = zlib.decompressobj() if base is None else zlib.decompressobj(zdict=_data(pack, base))
    content = unpacker.decompress(data) + unpacker.flush()
    if len(content) != size or not unpacker.eof:
        raise sqlite3.DatabaseError(f"its piece {number} is cut short")
    return content


_FILES = (
    "FROM jobs JOIN files ON files.job = jobs.number JOIN pieces ON pieces.number = files.piece "
    "WHERE job_id = ?"
)


def opened(jobs_directory: str, job_id: str, name: str) -> io.BufferedReader | None:
    """Open a file of a packed job, which is read piece by piece; ``None`` if there is none.

    `BadFile` is raised, also while it is read, if the pack is damaged.
    """
    path = packs_of(jobs_directory).find(job_id)
    if path is None:
        return None
    try:
        with _translated(path), contextlib.ExitStack() as stack:
            pack = stack.enter_context(contextlib.closing(_connected(path)))
            query = f"SELECT piece, size {_FILES} AND files.name = ? ORDER BY part"
            if not (pieces := pack.execute(query, (job_id, name)).fetchall()):
                return None
            stack.pop_all()  # the file closes it
            return io.BufferedReader(_Pieces(path, pack, pieces))
    except FileNotFoundError:
        return None


class _Pieces(io.RawIOBase):
    """A file in a pack, of which one piece at a time is in memory."""

    def __init__(self, path: str, pack: sqlite3.Connection, pieces: list[tuple[int, int]]) -> None:
        self._path, self._pack = path, pack
        self._numbers = [number for number, _ in pieces]
        #: The end of each piece, in bytes.
        self._ends = list(itertools.accumulate(size for _, size in pieces))
        self._position = 0
        self._present: tuple[int, bytes] = (-1, b"")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        begin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._ends[-1]}[whence]
        self._position = max(0, begin + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        at = bisect.bisect_right(self._ends, self._position)
        if at == len(self._ends):
            return 0
        if at != self._present[0]:
            with _translated(self._path):
                self._present = at, _data(self._pack, self._numbers[at])
        data = self._present[1]
        begin = len(data) - (self._ends[at] - self._position)
        view = memoryview(buffer)
        size = min(len(view), len(data) - begin)
        view[:size] = data[begin : begin + size]
        self._position += size
        return size

    def close(self) -> None:
        self._pack.close()
        super().close()


class PackedFile(NamedTuple):
    """A file of a packed job, with the bytes that it takes in the pack."""

    name: str
    packed_size: int


def files(jobs_directory: str, job_id: str) -> list[PackedFile] | None:
    """Return the files of a packed job; ``None`` if no pack has it."""
    path = packs_of(jobs_directory).find(job_id)
    if path is None:
        return None
    with contextlib.suppress(FileNotFoundError), _reading(path) as pack:
        rows = pack.execute(
            f"SELECT name, sum(length(data)) {_FILES} GROUP BY name ORDER BY name", (job_id,)
        )
        return [PackedFile(_name(name), size) for name, size in rows]
    return None


def _name(stored: str | bytes) -> str:
    return stored if isinstance(stored, str) else os.fsdecode(stored)


# --- locks ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def packing(jobs_directory: str) -> Iterator[None]:
    """Keep other processes from packing; `CrystalMathError` if one packs now."""
    with _locked(f"{_made(jobs_directory)}/{_PACKING}", _CHANGING, 0.0, "packs jobs"):
        yield


@contextlib.contextmanager
def changing(jobs_directory: str) -> Iterator[None]:
    """Keep others for a moment from moving jobs into packs and out of them."""
    path = f"{_made(jobs_directory)}/{_LOCK}"
    with _locked(path, _CHANGING, _LOCK_S, f"has held {path} for {_LOCK_S:.0f} s"):
        yield


@contextlib.contextmanager
def in_place(jobs_directory: str, job_id: str) -> Iterator[None]:
    """Keep the run directory of a job in its place, unpacked first if it is packed.

    `CrystalMathError` is raised if it cannot be unpacked.
    """
    with contextlib.ExitStack() as stack:
        while not stack.enter_context(_kept(f"{jobs_directory}/{job_id}")):
            if not unpack(jobs_directory, job_id):
                break  # it is nowhere
        yield


@contextlib.contextmanager
def _kept(place: str) -> Iterator[bool]:
    """Keep a run directory from being packed, where files can be locked; ``False`` without one."""
    spec = f"{place}/{_SPEC}"
    while os.path.isdir(place):
        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context(_locked(spec, os.O_RDONLY, _LOCK_S, "packs the job"))
            except FileNotFoundError:
                if os.path.exists(spec) or not os.path.isdir(place):
                    continue  # it was packed before its file was opened
            except CrystalMathError:
                pass  # a file system without locks, or one that is held for long
            else:
                if not _is_at(spec, file):
                    continue  # it was packed, and may be unpacked already
            yield True
            return
    yield False


@contextlib.contextmanager
def unread(place: str) -> Iterator[None]:
    """Keep others from reading files of a run directory; `CrystalMathError` if one reads now."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(FileNotFoundError):  # nobody reads without one
            stack.enter_context(_locked(f"{place}/{_SPEC}", os.O_RDWR, 0.0, "reads its files"))
        yield


def _is_at(path: str, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _made(jobs_directory: str) -> str:
    folder = f"{jobs_directory}/{PACKS}"
    try:
        make_own(folder)
    except OSError as error:
        raise CrystalMathError(f"cannot make {folder} for packs: {error}") from error
    return folder


_CHANGING = os.O_RDWR | os.O_CREAT


@contextlib.contextmanager
def _locked(path: str, flags: int, timeout: float, why: str) -> Iterator[int]:
    """Lock a file, shared if it is opened to read; a `CrystalMathError` says `why` it is locked."""
    try:
        descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise CrystalMathError(f"cannot open {path} to lock it: {error}") from error
    kind = fcntl.LOCK_SH if flags == os.O_RDONLY else fcntl.LOCK_EX
    try:
        end = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise CrystalMathError(
                        f"another process {why}; repeat this once it has ended"
                    ) from None
                time.sleep(0.005)
            except OSError as error:
                raise CrystalMathError(f"cannot lock {path}: {error}") from error
        yield descriptor
    finally:
        os.close(descriptor)


# --- packing --------------------------------------------------------------------------------------


def entries_of(directory: str) -> list[Entry]:
    """Return all that a run directory has; equal lists mean that nothing was written meanwhile.

    `CrystalMathError` is raised if it has anything but files, folders and links.
    """
    root = os.lstat(directory)
    entries = [Entry("/", root.st_mode, 0, root.st_mtime_ns)]
    folders = [""]
    while folders:
        folder = folders.pop()
        with os.scandir(f"{directory}/{folder}") as found_here:
            for one in found_here:
                status = one.stat(follow_symlinks=False)
                name, mode = f"{folder}{one.name}", status.st_mode
                if stat.S_ISDIR(mode):
                    folders.append(f"{name}/")
                    entries.append(Entry(f"{name}/", mode, 0, 0))
                elif stat.S_ISREG(mode) or stat.S_ISLNK(mode):
                    entries.append(Entry(name, mode, status.st_size, status.st_mtime_ns))
                else:
                    raise CrystalMathError(f"{directory}/{name} is no file, folder or link")
    return sorted(entries)


class Writer:
    """A pack that is being written aside; any thread may go on with it."""

    def __init__(self, packs: Packs, name: str) -> None:
        self.name, self.job_ids = name, list[str]()
        #: The size of the files so far, in bytes.
        self.size = 0
        self._packs = packs
        self._part = f"{packs.folder}/.{name}.{secrets.token_hex(4)}{_PART}"
        self._pieces: dict[bytes, int] = {}
        self._bases: dict[str, tuple[int, bytes]] = {}
        os.close(os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        # Nobody else sees the file before it is whole, so it needs no journal.
        self._file = sqlite3.connect(self._part, isolation_level=None, check_same_thread=False)
        try:
            for statement in (
                "PRAGMA journal_mode = OFF",
                "PRAGMA synchronous = OFF",
                f"PRAGMA user_version = {FORMAT}",
                *_TABLES.split(";"),
                "BEGIN",
            ):
                self._file.execute(statement)
        except BaseException:
            self.close()
            raise

    def add(self, job_id: str, contents: Iterable[tuple[Entry, Iterable[bytes]]]) -> Iterator[None]:
        """Write the files of a job; yield after each piece."""
        number = len(self.job_ids)
        self._file.execute("INSERT INTO jobs VALUES (?, ?)", (number, job_id))
        for entry, chunks in contents:
            name: str | bytes = entry.name
            try:
                entry.name.encode()
            except UnicodeEncodeError:
                name = os.fsencode(entry.name)
            part = -1
            for part, chunk in enumerate(chunks):
                self._put(number, name, part, entry, chunk)
                yield
            if part < 0:
                self._put(number, name, 0, entry, b"")
        self.job_ids.append(job_id)

    def _put(self, job: int, name: str | bytes, part: int, entry: Entry, chunk: bytes) -> None:
        piece = self._piece(entry.name, chunk)
        row = (job, name, part, entry.mode, entry.mtime_ns, piece)
        self._file.execute("INSERT INTO files VALUES (?, ?, ?, ?, ?, ?)", row)

    def _piece(self, name: str, chunk: bytes) -> int:
        """Write a piece, unless the pack has an equal one; return its number."""
        self.size += len(chunk)
        digest = hashlib.blake2b(chunk, digest_size=16).digest()
        if (known := self._pieces.get(digest)) is not None:
            return known
        number = self._pieces[digest] = len(self._pieces)
        # Files of one name are alike: the first one is the dictionary of the others.
        kind = _NUMBER.sub("", name.rstrip("/").rpartition("/")[2])
        base, content = self._bases.get(kind, (None, b""))
        data = chunk
        if not _is_dense(chunk):
            packer = zlib.compressobj() if base is None else zlib.compressobj(zdict=content)
            data = packer.compress(chunk) + packer.flush()
        if len(data) >= len(chunk):
            base, data = None, chunk
        if kind not in self._bases and 0 < len(chunk) <= _MOST_BASE:
            self._bases[kind] = number, chunk
        values = (number, len(chunk), base, data)
        self._file.execute("INSERT INTO pieces VALUES (?, ?, ?, ?)", values)
        return number

    def forget(self, job_id: str) -> None:
        """Leave out a job of which something could not be written."""
        number = len(self.job_ids)
        self._file.execute("DELETE FROM files WHERE job = ?", (number,))
        self._file.execute("DELETE FROM jobs WHERE job_id = ?", (job_id,))

    def finish(self) -> None:
        """Complete the file and sync it; it is not in its place yet."""
        self._file.execute("COMMIT")
        self._file.close()
        to_disk(self._part)

    def publish(self, kept: Collection[str]) -> None:
        """Put the pack in its place, durably; the caller holds :func:`changing`.

        `kept` are the jobs that a replaced pack has now; those that are gone since stay gone.
        """
        gone = set(kept).difference(self._packs.members(self.name) if kept else ())
        os.replace(self._part, self._packs.path(self.name))
        to_disk(self._packs.folder)
        self._packs.write_index(self.name, self.job_ids, gone)

    def close(self) -> None:
        """Remove what was not published."""
        with contextlib.suppress(sqlite3.Error):
            self._file.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._part)


def _is_dense(chunk: bytes) -> bool:
    """Return whether large content, such as that of a .gz file, is hardly compressible."""
    sample = chunk[:_SAMPLE]
    return len(chunk) > _SAMPLE and len(zlib.compress(sample, 1)) > 0.95 * _SAMPLE


def contents_of(
    directory: str, entries: Sequence[Entry], journaled: Callable[[int], bytes | None]
) -> Iterator[tuple[Entry, Iterable[bytes]]]:
    """Yield what a run directory has, with contents in pieces; `OSError` if one is unreadable.

    `journaled` returns the outcome of an attempt that is in a journal (`RunDirectory.journaled`).
    """
    for entry in entries:
        path = f"{directory}/{entry.name}"
        if stat.S_ISDIR(entry.mode):
            yield entry, ()
        elif stat.S_ISLNK(entry.mode):
            yield entry, [os.fsencode(os.readlink(path))]
        elif (outcome := _OUTCOME.fullmatch(entry.name)) and (
            record := journaled(int(outcome[1]))
        ) is not None:
            # A journal has the outcomes of other jobs, too.
            yield entry, _cut(record)
        else:
            yield entry, _chunks(path)


def _cut(content: bytes) -> Iterator[bytes]:
    return (content[start : start + _PIECE] for start in range(0, len(content), _PIECE))


def _chunks(path: str) -> Iterator[bytes]:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        while chunk := file.read(_PIECE):
            yield chunk


def contents_in(path: str, job_id: str) -> Iterator[tuple[Entry, Iterable[bytes]]]:
    """Yield what a pack has of a job, with contents in pieces; `BadFile` if it is damaged."""
    with _reading(path) as pack:
        rows = pack.execute(
            f"SELECT name, mode, mtime_ns, piece {_FILES} ORDER BY name, part", (job_id,)
        ).fetchall()
        if not rows:
            raise BadFile(f"{path} has no files of job {job_id}")
        pieces: dict[Entry, list[int]] = {}
        for name, mode, mtime_ns, piece in rows:
            pieces.setdefault(Entry(_name(name), mode, 0, mtime_ns), []).append(piece)
        for entry, numbers in pieces.items():
            yield entry, (_data(pack, number) for number in numbers)


# --- unpacking ------------------------------------------------------------------------------------


def unpack(jobs_directory: str, job_id: str) -> bool:
    """Bring the run directory of a job back, durably; ``False`` if no pack has the job.

    Several may do this at a time. `CrystalMathError` is raised if it cannot be written; the pack
    still has it then.
    """
    packs, place = packs_of(jobs_directory), f"{jobs_directory}/{job_id}"
    while os.path.isdir(packs.folder) and (path := packs.find(job_id)) is not None:
        if os.path.isdir(place):
            if _settled(packs, jobs_directory, job_id, None):
                break
            continue
        with _aside(jobs_directory) as folder:
            try:
                # Without the lock, as a job may be large.
                _extract(path, job_id, f"{folder}/{job_id}", durable=True)
            except (BadFile, FileNotFoundError):
                if packs.find(job_id) != path:
                    continue  # the pack was written again, or removed
                raise
            except OSError as error:
                raise CrystalMathError(f"cannot unpack job {job_id}: {error}") from error
            if _settled(packs, jobs_directory, job_id, f"{folder}/{job_id}"):
                break
    return os.path.isdir(place)


def _settled(packs: Packs, jobs_directory: str, job_id: str, aside: str | None) -> bool:
    """Put a run directory in its place, and mark the job; ``False`` if others were faster."""
    place = f"{jobs_directory}/{job_id}"
    with changing(jobs_directory):
        if packs.find(job_id) is None or os.path.isdir(place) != (aside is None):
            return False
        try:
            if aside is not None:
                os.rename(aside, place)
                to_disk(jobs_directory)
        except OSError as error:
            raise CrystalMathError(f"cannot unpack job {job_id}: {error}") from error
        try:
            packs.discard([job_id])
        except OSError as error:
            # The directory goes before the pack, so nothing is wrong; the next pack settles it.
            if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EIO}:
                raise CrystalMathError(f"cannot note that job {job_id} is unpacked") from error
    return True


@contextlib.contextmanager
def _aside(jobs_directory: str) -> Iterator[str]:
    """Yield a folder for a run directory that is removed afterwards, or by the next that packs."""
    folder = f"{jobs_directory}/{PACKS}/{_ASIDE}{secrets.token_hex(4)}"
    with contextlib.ExitStack() as stack:
        try:
            with changing(jobs_directory):  # it is held before another looks
                stack.callback(shutil.rmtree, folder, ignore_errors=True)
                os.mkdir(folder, 0o700)
                stack.enter_context(_locked(f"{folder}/{_HELD}", _CHANGING, 0.0, "holds it"))
        except OSError as error:
            raise CrystalMathError(f"cannot make {folder} to unpack a job: {error}") from error
        yield folder


def remove_from_packs(jobs_directory: str, job_ids: Collection[str]) -> None:
    """Remove jobs from packs for ever; `CrystalMathError` if that cannot be noted."""
    if not os.path.isdir(f"{jobs_directory}/{PACKS}"):
        return
    try:
        with changing(jobs_directory):
            packs_of(jobs_directory).discard(job_ids)
    except OSError as error:
        raise CrystalMathError(f"cannot remove jobs from their packs: {error}") from error


@contextlib.contextmanager
def copied(jobs_directory: str, job_id: str) -> Iterator[str]:
    """Yield the run directory of a job, or a copy if the job is packed, which is removed again.

    `CrystalMathError` is raised if the copy cannot be written.
    """
    place = f"{jobs_directory}/{job_id}"
    with contextlib.ExitStack() as stack:
        while not stack.enter_context(_kept(place)):
            path = packs_of(jobs_directory).find(job_id)
            if path is None:
                if os.path.isdir(place):
                    continue  # it has just been unpacked
                break
            folder = stack.enter_context(_aside(jobs_directory))
            try:
                _extract(path, job_id, f"{folder}/{job_id}", durable=False)
            except (BadFile, OSError) as error:
                if packs_of(jobs_directory).find(job_id) != path:
                    continue
                if isinstance(error, BadFile):
                    raise
                raise CrystalMathError(f"cannot unpack job {job_id}: {error}") from error
            place = f"{folder}/{job_id}"
            break
        yield place


def _extract(path: str, job_id: str, directory: str, *, durable: bool) -> None:
    os.mkdir(directory, 0o700)
    folders = [(directory, 0o700)]
    for entry, chunks in contents_in(path, job_id):
        place = f"{directory}/{entry.name}"
        if entry.name == "/":
            continue
        if stat.S_ISDIR(entry.mode):
            os.makedirs(place, 0o700, exist_ok=True)
            folders.append((place, stat.S_IMODE(entry.mode)))
            continue
        os.makedirs(os.path.dirname(place), 0o700, exist_ok=True)
        if stat.S_ISLNK(entry.mode):
            os.symlink(os.fsdecode(b"".join(chunks)), place)
            continue
        with open(place, "xb") as file:
            os.fchmod(file.fileno(), stat.S_IMODE(entry.mode))
            file.writelines(chunks)
            file.flush()
            os.utime(file.fileno(), ns=(entry.mtime_ns, entry.mtime_ns))
            if durable:
                os.fsync(file.fileno())
    for folder, mode in reversed(folders):
        if durable:
            to_disk(folder)
        os.chmod(folder, mode if durable else mode | 0o700)  # a copy is removed again


# --- after a kill ---------------------------------------------------------------------------------


def remove_left(jobs_directory: str) -> None:
    """Remove what killed processes have left; the caller holds :func:`packing`."""
    folder = f"{jobs_directory}/{PACKS}"
    with changing(jobs_directory), os.scandir(folder) as entries:
        for entry in entries:
            path, name = entry.path, entry.name
            with contextlib.suppress(OSError):
                if name.startswith(_ASIDE) and is_locked(f"{path}/{_HELD}") is False:
                    shutil.rmtree(path, ignore_errors=True)
                elif name.endswith(_PART) or (
                    name.endswith(_INDEX)
                    and not os.path.exists(f"{path.removesuffix(_INDEX)}{_PACK}")
                ):
                    os.unlink(path)
