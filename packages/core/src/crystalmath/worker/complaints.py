"""The line in which VASP or Quantum ESPRESSO itself reports why it stopped."""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import stat
import zlib
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: The part of each file that is searched, in bytes from its end: many ranks may complain.
_SEARCHED = 1 << 18
#: The programs of Quantum ESPRESSO, after which their files are named.
_ESPRESSO = frozenset(
    ("pw", "ph", "phcg", "neb", "q2r", "dos", "matdyn", "dynmat", "bands", "projwfc", "pp", "fs")
)
_UNCONVERGED = re.compile("convergence NOT achieved|maximum number of steps has been reached")
_LONGEST = 300
_WIDTH = 400
#: The longest message of Quantum ESPRESSO, in lines.
_MESSAGE = 4

#: Clear messages of a runtime, a loader, a shell or a launcher.
_RUNTIME = re.compile(
    r"forrtl: severe|error while loading shared libraries|: (command )?not found$"
    r"|execvp error on file|unable to find the specified executable"
    r"|not enough slots available in the system|Program received signal SIG"
)
# OUTCAR has harmless lines with "Error from", on the projectors of a POTCAR.
_VASP = re.compile(
    r"VERY BAD NEWS|internal (error|ERROR)\b|(^|: )(ERROR|Error)\b(?! from)|: fatal error"
    r"|: very serious problems|^LAPACK: Routine \w+ failed|" + _RUNTIME.pattern
)
_VASP_IN_OUTCAR = re.compile(r"VERY BAD NEWS|internal (error|ERROR)\b|^ERROR\b")
#: VASP's last lines after success.
_VASP_ENDED = "General timing and accounting"
#: Letters eight lines tall, in a box; the message is below them.
_BANNER = re.compile(r"E{7} +R{6} +R{6}")
_FRAME = " |*"
#: A compressed file is read from its beginning up to this size, in bytes.
_UNPACKED = 64 << 20


def complaint(place: str) -> str | None:
    """Return a program's reason for stopping, from its files, on one line after its name.

    Return ``None`` if the calculation's directory shows no clear error.
    """
    names = {name.removesuffix(".gz"): name for name in sorted(os.listdir(place))}

    def lines(name: str) -> list[str]:
        path = os.path.join(place, names.get(name, name))
        return lines_of(path, _SEARCHED, _WIDTH) if name in names else []

    program, message = _espresso(list(names), lines) or ("VASP", _vasp(lines))
    return f"{program}: {' '.join(message.split())[:_LONGEST]}" if message else None


# --- VASP ------------------------------------------------------------------------------------


def _vasp(lines: Callable[[str], list[str]]) -> str | None:
    outcar = lines("OUTCAR")
    if any(_VASP_ENDED in line for line in outcar):
        return None
    output = [line.strip(_FRAME) for line in lines("vasp.out")]
    return (
        _in_a_box(output)
        or _first(output, _VASP)
        or _first(lines("std_err.txt"), _RUNTIME)
        or _first([line.strip(_FRAME) for line in outcar], _VASP_IN_OUTCAR)
    )


def _in_a_box(lines: list[str]) -> str | None:
    beginning = next((number for number, line in enumerate(lines) if _BANNER.match(line)), None)
    if beginning is None:
        return None
    return " ".join(_below(lines[beginning:])) or None


def _below(lines: list[str]) -> Iterator[str]:
    for line in lines:
        if line.startswith(("---", "I REFUSE")):
            return
        if line.strip("ERO# "):  # a row of the tall letters has no others
            yield line


def _first(lines: list[str], pattern: re.Pattern[str]) -> str | None:
    for number, line in enumerate(lines):
        text = line.strip()
        if pattern.search(text):
            # "internal error in subroutine SGRCON:" has its reason on the next line.
            more = lines[number + 1 : number + 2] if text.endswith(":") else []
            return " ".join([text, *more])
    return None


# --- Quantum ESPRESSO ------------------------------------------------------------------------


def _espresso(names: list[str], lines: Callable[[str], list[str]]) -> tuple[str, str | None] | None:
    """Return the program and its message; ``None`` if no file is from Quantum ESPRESSO."""
    programs = [name[:-4] for name in names if name.endswith(".out") and name[:-4] in _ESPRESSO]
    for program in programs:
        message = (
            _in_routine(lines(f"{program}.out"))
            or _first(lines(f"{program}.out"), _UNCONVERGED)
            or _first(lines(f"{program}.err"), _RUNTIME)
        )
        if message:
            return f"{program}.x", message
    if message := _in_routine(lines("CRASH")):
        return (f"{programs[0]}.x" if len(programs) == 1 else "Quantum ESPRESSO"), message
    return (f"{programs[0]}.x", None) if programs else None


def _in_routine(lines: list[str]) -> str | None:
    """Read the message between two lines of percent signs."""
    for number, line in enumerate(lines):
        if re.search(r"Error in routine|^ *from .* : error #", line):
            message = [line]
            for text in lines[number + 1 : number + 1 + _MESSAGE]:
                if "%%%" in text:
                    break
                message.append(text)
            return " ".join(message)
    return None


def lines_of(path: str, size: int, width: int) -> list[str]:
    """Return the last lines of a file that may be a pipe, a decompression bomb, or huge.

    At most `size` bytes are read, ``.gz`` is unpacked, and lines are cut to `width`. They are
    printable, and none of them is empty. An unreadable file has no lines.
    """
    data = b""
    with contextlib.suppress(OSError, EOFError, zlib.error):  # broken, or no gzip at all
        data = tail(path, size)
    text = data.decode("utf-8", errors="replace").replace("\t", " ")
    lines = ["".join(filter(str.isprintable, line)).rstrip() for line in text.splitlines()]
    return [line[:width] for line in lines if line]


def tail(path: str, size: int) -> bytes:
    """Return at most `size` bytes of the end of a file; ``.gz`` is unpacked."""
    # Opening a FIFO must not block.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return b""
        if path.endswith(".gz"):
            with gzip.GzipFile(fileobj=file) as unpacked:
                return _end_of(unpacked, size)
        file.seek(max(0, status.st_size - size))
        return file.read(size)


def _end_of(unpacked: gzip.GzipFile, size: int) -> bytes:
    chunks: deque[bytes] = deque(maxlen=2)
    for _ in range(_UNPACKED // size):
        # GzipFile reads full chunks; a short one is the last.
        if not (chunk := unpacked.read(size)):
            break
        chunks.append(chunk)
    else:
        return b"(too long to be unpacked)"
    return b"".join(chunks)[-size:]
