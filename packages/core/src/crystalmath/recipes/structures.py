"""Read structures from requests and files, and write them without loss."""

from __future__ import annotations

import codecs
import contextlib
import io
import math
import re
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystalmath.errors import InvalidJob, shown
from crystalmath.recipes.ase_json import (
    check_atoms,
    check_count,
    decode_atoms,
    encode_atoms,
    is_as_written,
    prepare,
)
from crystalmath.recipes.json_text import array_of

if TYPE_CHECKING:
    import os

    from ase import Atoms

# The arguments of ase.Atoms, without the calculator.
_ATOMS_KEYS = frozenset(
    (
        *("symbols", "numbers", "positions", "scaled_positions", "cell", "pbc", "celldisp"),
        *("tags", "momenta", "velocities", "masses", "magmoms", "charges", "constraint", "info"),
    )
)
_VECTOR_KEYS = frozenset(("positions", "scaled_positions", "momenta", "velocities"))
_SCALAR_KEYS = frozenset(("tags", "masses", "magmoms", "charges"))
_NUMERIC_KEYS = _ATOMS_KEYS - {"symbols", "constraint", "info", "pbc"}
_COORDINATES = 3
#: An element in a file: a symbol, a label (Cu1, Fe_up) or an atomic number.
_SPECIES = re.compile(r"[A-Z][a-z]{0,2}(?:[\d_+*-]\w{0,8})?|\d{1,3}")
#: The most atoms without positions: a formula of 8 letters would become 34 MB.
_MOST_AT_ORIGIN = 100
_OTHERWISE = (
    "text must be a POSCAR; send XYZ, CIF and others as an object of symbols, positions, cell and "
    'pbc, or {"format": "ase-json", "data": ase.io.jsonio.encode(ase.io.read(file))}'
)
#: A property of thousands of columns, in the second line of extended XYZ.
_WIDE = re.compile(r":[RISL]:\s*[\d_+]{4,}")
#: Further formats of `read_text`: the ends of file names, and the beginning of a line that others
#: lack. ASE's readers of these read one text line by line; they evaluate nothing, and open no file.
_TEXTS: dict[str, tuple[tuple[str, ...], str]] = {
    "espresso-in": ((".pwi", "pw.in", ".scf.in", ".relax.in"), r"\s*&(?:control|system)\b"),
    "xsf": ((".xsf", ".axsf"), r"(?:ANIMSTEPS|CRYSTAL|SLAB|POLYMER|ATOMS)\b"),
    "proteindatabank": ((".pdb",), r"(?:CRYST1|ATOM  |HETATM)"),
    "gen": ((".gen",), r"\s*\d+\s+[CSF]\s*$"),
    "sdf": ((".sdf", ".mol"), r".*\bV2000\s*$"),
}
_KNOWN_TEXTS = "POSCAR, CIF, (extended) XYZ, input of pw.x, XSF, PDB, MOL, SDF, GEN of DFTB+"
#: The end of a message about a file.
_OTHER_FORMATS = "give a POSCAR, CIF, XYZ or any other file of structures that ASE reads"
#: The name of a file that ASE takes for a POSCAR.
_POSCAR_NAME = re.compile(r"poscar|contcar|\.vasp$", re.IGNORECASE)
_POSCAR_LINES = 8  # comment, scale, three vectors, counts, kind of coordinates, one atom


def parse_structure(structure: object) -> Atoms:
    """Make a structure from a request.

    Parameters
    ----------
    structure : str, mapping or ase.Atoms
        The text of a POSCAR; the arguments of ``ase.Atoms(**dict)`` (positions in Å);
        ``{"format": "ase-json", "data": ...}`` with the text or the dict that
        ``ase.io.jsonio.encode`` returned; or a structure, which is copied without its calculator.

    Raises
    ------
    InvalidJob
        A ``ValueError``: it is none of these forms, has no atoms or more than a million, or holds
        numbers that are not finite.
    """
    from ase import Atoms

    if isinstance(structure, Atoms):
        return check_atoms(prepare(structure).copy())
    if isinstance(structure, str):
        return check_atoms(_from_poscar(structure))
    if isinstance(structure, Mapping):
        if "format" in structure:
            return check_atoms(_from_format(structure))
        return check_atoms(_from_dict(structure))
    raise InvalidJob(
        "the structure must be the text of a POSCAR, a dict for ase.Atoms, or "
        f'{{"format": "ase-json", "data": ...}}, not {type(structure).__name__}'
    )


def parse_and_keep(structure: object) -> tuple[Atoms, Mapping[str, Any]]:
    """Return the structure of a request, and the same as ase-json (`InvalidJob`)."""
    atoms = parse_structure(structure)
    data = structure.get("data") if isinstance(structure, Mapping) else None
    if isinstance(data, Mapping) and is_as_written(data, atoms):
        return atoms, data
    encoded: Mapping[str, Any] = _encoded(atoms)
    return atoms, encoded


def _encoded(atoms: Atoms) -> dict[str, Any]:
    try:
        return encode_atoms(atoms, info=True)
    except TypeError as error:
        raise InvalidJob(f"the structure cannot be written down: {error}") from error


def to_ase_json(atoms: Atoms) -> dict[str, Any]:
    """Return a structure as ``jobs.submit`` takes it, with all that a recipe reads.

    It holds constraints, initial magnetic moments and charges, tags, masses, momenta, further
    arrays, and the members of ``info`` that JSON can hold. The calculator is left out (see
    :func:`crystalmath.recipes.ase_json.prepare`).

    Raises `InvalidJob`: a constraint or an array has no JSON form.
    """
    return {"format": "ase-json", "data": _encoded(prepare(atoms))}


def read_structures(path: str | os.PathLike[str]) -> list[tuple[str, Atoms | InvalidJob]]:
    """Return the structures of a file in any format of ASE's, each with a name.

    For a frame that no calculation can take, such as one with a position that is not finite, the
    reason is returned. Raises `InvalidJob`: ASE cannot read the file, or it holds no structure.
    """
    file = Path(path)
    if not file.is_file():
        what = "is a directory" if file.is_dir() else "does not exist"
        raise InvalidJob(f"the structure file {file} {what}")
    if not file.stat().st_size:
        raise InvalidJob(f"the structure file {file} is empty")
    with file.open("rb") as opened:
        if opened.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
            return _named(_read_frames(file, str(file)), str(file))
        # Editors on Windows begin a text with this mark, and ASE takes it for a part of the text.
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder, file.name)
            copy.write_bytes(opened.read())
            return _named(_read_frames(copy, str(file)), str(file))


def read_text(text: str, file: str) -> list[tuple[str, Atoms]]:
    """Return the structures of a text, which came from somewhere else.

    The name of its `file` decides on the format, or else the text. It may be a POSCAR, CIF,
    (extended) XYZ, input of pw.x, XSF, PDB, MOL, SDF or GEN: readers of other formats open further
    files, evaluate what they read, or do not notice a missing end. Raises `InvalidJob`: it has
    another format, holds no structure, or holds one that no calculation can take.
    """
    usable = []
    for name, structure in _read_text(text, file):
        if isinstance(structure, InvalidJob):
            raise structure
        usable.append((name, structure))
    return usable


def _read_text(text: str, file: str) -> list[tuple[str, Atoms | InvalidJob]]:
    text = text.removeprefix("\ufeff")
    name, begin = file.lower(), text.lstrip()[:20].lower()
    if name.endswith(".cif") or begin.startswith("data_"):
        return _named(_read_frames(io.BytesIO(text.encode(errors="replace")), file, "cif"), file)
    if name.endswith("xyz") or begin.partition("\n")[0].strip().isdecimal():
        _check_xyz_counts(text.split("\n"), file)
        return _named(_read_frames(io.StringIO(text), file, "extxyz"), file)
    if kind := _kind_of(text, name):
        _check_whole(kind, text, file)
        return _named(_read_frames(io.StringIO(text, newline=None), file, kind), file)
    lines = text.splitlines()
    if not (text.strip() and "\0" not in text and _is_number(lines[1] if lines[1:] else "")):
        second = f", and is {shown(lines[1].strip())}" if lines[1:] else ""
        raise InvalidJob(
            f"{file} is no text in a known format ({_KNOWN_TEXTS}); line 2 of a POSCAR must be "
            f"its scale{second}"
        )
    return _named([_from_poscar(text, f"other formats are {_KNOWN_TEXTS[8:]}")], file)


def _check_whole(kind: str, text: str, file: str) -> None:
    # ASE takes the atoms that there are.
    last = {"proteindatabank": "END", "sdf": "M  END"}.get(kind)
    if last and not re.search(rf"^{last}", text, re.MULTILINE):
        raise InvalidJob(f"{file} has no line {last}: the file was cut, or is still being written")
    if kind == "gen":
        lines = text.splitlines() or [""]
        count = (lines[0].split() or [""])[0]
        if not count.isdecimal() or len(lines) < int(count[:9]) + 2:
            raise InvalidJob(
                f"{file} announces {count:.20} atoms in line 1 and has {len(lines)} lines in all"
            )


def _kind_of(text: str, name: str) -> str | None:
    """Return ASE's name of the format of a text, by the name of its file or by its lines."""
    for kind, (ends, _) in _TEXTS.items():
        if f"/{name}".endswith(ends):
            return kind
    head = text[:20_000]
    for kind, (_, line) in _TEXTS.items():
        if re.search(rf"^{line}", head, re.MULTILINE | re.IGNORECASE * (kind == "espresso-in")):
            return kind
    return None


def _is_number(text: str) -> bool:
    with contextlib.suppress(ValueError):
        return all(map(math.isfinite, map(float, text.split()[:1]))) and bool(text.split())
    return False


def _check_xyz_counts(lines: list[str], file: str) -> None:
    # ASE reads on behind the end of the text for the lines that a frame announces, and makes all
    # columns that it announces.
    at = frame = 0
    while at < len(lines) and lines[at].strip():
        if lines[at].startswith("VEC"):
            at += 1
            continue
        try:
            count = int(lines[at])
        except ValueError:
            before = "; the frame before it has a line too few or too many" * (frame > 0)
            raise InvalidJob(
                f"ASE cannot read a structure from {file}: line {at + 1} must be the number of "
                f"atoms of frame {frame}, counted from 0, and is {lines[at].strip():.40}{before}"
            ) from None
        left = max(0, len(lines) - at - 2)
        if not 0 <= count <= left:
            raise InvalidJob(
                f"{file} announces {count} atoms in line {at + 1}; {left} lines follow in frame "
                f"{frame}, counted from 0: the file was cut, or is still being written"
            )
        if wide := _WIDE.search("".join(lines[at + 1 : at + 2])):
            raise InvalidJob(f"{file} announces too many columns in line {at + 2}: {wide[0]:.40}")
        at += 2 + count
        frame += 1


def _named(frames: Sequence[Atoms], file: str) -> list[tuple[str, Atoms | InvalidJob]]:
    """Check each structure on its own, and name it by its file."""
    name = Path(file).name
    stem = name.split(".")[0] or name
    if len(frames) == 1:
        return [(stem, _checked_frame(frames[0], file))]
    return [
        (f"{stem}-{index}", _checked_frame(atoms, f"{file}: frame {index}, counted from 0"))
        for index, atoms in enumerate(frames)
    ]


def _checked_frame(atoms: Atoms, place: str) -> Atoms | InvalidJob:
    try:
        return check_atoms(atoms)
    except InvalidJob as error:
        return InvalidJob(f"{place}: {error}")


def _read_frames(
    source: Path | io.BytesIO | io.StringIO, file: str, kind: str | None = None
) -> list[Atoms]:
    import ase.io

    try:
        with warnings.catch_warnings():
            # Readers warn of properties that they skip (spacegroup conventions, occupancies); the
            # preflight reports those that matter.
            warnings.simplefilter("ignore")
            # Else ASE would read Al in place of Al@300K.xyz.
            frames = ase.io.read(source, index=":", format=kind, do_not_split_by_at_sign=True)
    except Exception as error:  # every reader fails in its own way
        named = file if kind is None else f"{file}.{kind}"
        text = _text(source) if _has_a_place(error, named) else ""
        if text and named.lower().endswith("xyz"):
            _check_xyz_counts(text.rstrip("\n").split("\n"), file)
        if _is_poscar(named) and (damage := _damage_of_poscar(error, text)):
            raise InvalidJob(f"{file}: {damage}") from error
        place = _place(error, text, named) if text else ""
        reason = f"{place}{_reading_failed(error, text)}"
        raise InvalidJob(f"ASE cannot read a structure from {file}: {reason}") from error
    if not frames or not all(isinstance(frame, ase.Atoms) for frame in frames):
        raise InvalidJob(f"{file} holds no structure; {_OTHER_FORMATS}")
    return list(frames)


_NO_SYMBOLS = "the POSCAR names no elements; add the line of symbols before the line of counts"


def _has_a_place(error: Exception, file: str) -> bool:
    """Return whether to look for the place of an error in a text; other files may be large."""
    if isinstance(error, UnicodeDecodeError):
        return False
    has_lines = file.lower().endswith(("xyz", ".cif")) or _is_poscar(file)
    return has_lines or isinstance(error, (KeyError, ValueError))


def _is_poscar(file: str) -> bool:
    return _POSCAR_NAME.search(Path(file).name) is not None


def _text(source: Path | io.BytesIO | io.StringIO) -> str:
    if isinstance(source, io.StringIO):
        return source.getvalue()
    read = source.read_bytes() if isinstance(source, Path) else source.getvalue()
    return read.decode(errors="replace")


#: The value in Python's message about a text that is no number.
_VALUE = re.compile(r": '(\S+)'$")


def _place(error: Exception, text: str, file: str) -> str:
    """Return the place where ASE's reader failed in a text of XYZ or CIF, with a colon."""
    import ase.io
    from ase.io.cif import parse_cif

    name = file.lower()
    value = _VALUE.search(str(error))
    lines = enumerate(text.split("\n"), 1) if value else ()
    line = next((f"line {n}: " for n, each in lines if value and value[1] in each.split()), "")
    place = ""
    with contextlib.suppress(Exception):  # the reader fails again
        if name.endswith("xyz"):
            place = "frame 0, counted from 0: "
            for read, _ in enumerate(ase.io.iread(io.StringIO(text), ":", "extxyz"), 1):
                place = f"frame {read}, counted from 0: "
        elif name.endswith(".cif"):
            for each in parse_cif(io.BytesIO(text.encode())):
                place = f"block data_{each.name}: "
                each.get_atoms()
                place = f"after the block data_{each.name}: "
        place = ""
    return f"{place}{line}"


def _reading_failed(error: Exception, text: str = "") -> str:
    """Return the reason of an exception of ASE's readers, whose own words often lack it."""
    from ase.io.formats import UnknownFileTypeError

    if isinstance(error, UnknownFileTypeError):
        return "neither its name nor its content shows a format (POSCAR, slab.cif, slab.xyz)"
    if isinstance(error, UnicodeDecodeError):
        return "it is no text, although the format of its name is one of text"
    if isinstance(error, KeyError) and _SPECIES.fullmatch(str(error.args[0])):
        return _no_element(str(error.args[0]), text)
    if isinstance(error, (IndexError, EOFError, StopIteration)) or "StopIteration" in str(error):
        return "it ends too early, or is not in the format that its name promises"
    if "determine chemical symbols" in str(error):  # ASE looks for them in files beside a POSCAR
        return _NO_SYMBOLS
    words = str(error)
    if not words or isinstance(error, (AssertionError, RuntimeError, TypeError, ValueError)):
        # These have Python's words.
        words = words or type(error).__name__
        words = f"it is damaged, or not in the format that its name promises ({words})"
    return words


def _no_element(species: str, text: str) -> str:
    """Return words about a label or a number in place of an element: its line and meaning."""
    from ase.data import atomic_numbers, chemical_symbols

    lines = [line.split() for line in text.split("\n")]
    at = next((f" (line {n})" for n, line in enumerate(lines, 1) if line[:1] == [species]), "")
    if species.isdecimal():
        means = chemical_symbols[int(species)] if 0 < int(species) < len(chemical_symbols) else ""
    else:
        letters = species[: 2 if species[1:2].islower() else 1]
        means = letters if letters in atomic_numbers and letters != species else ""
    return f"there is no element {species!r}{at}" + (f"; write its symbol, {means}" * bool(means))


def _from_format(structure: Mapping[str, Any]) -> Atoms:
    if structure["format"] != "ase-json":
        raise InvalidJob(
            f"the structure's format {shown(structure['format'])} is neither 'ase-json' nor 'job'"
        )
    strange = sorted(map(str, structure.keys() - {"format", "data"}))
    if strange:
        raise InvalidJob(f"the structure has an unknown key {strange[0]!r} beside format and data")
    if not structure.get("data"):
        raise InvalidJob("the structure has no 'data'")
    return decode_atoms(structure["data"])


def _from_poscar(text: str, otherwise: str = _OTHERWISE) -> Atoms:
    from ase.io.vasp import read_vasp

    lines = text.splitlines()
    if not text.strip():
        raise InvalidJob("the structure is empty")
    if "\0" in text or len(lines) < _POSCAR_LINES:
        raise InvalidJob(
            f"the structure is no POSCAR: it has {len(lines)} lines of text, starting with "
            f"{text[:40]!r}; {otherwise}"
        )
    _check_poscar_lines(lines, otherwise)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return read_vasp(io.StringIO(text, newline=None))
    except AttributeError as error:  # ASE looks for a POTCAR beside it, and it has no name
        raise InvalidJob(_NO_SYMBOLS) from error
    except Exception as error:  # ASE's reader fails in its own ways
        if damage := _damage_of_poscar(error, text):
            raise InvalidJob(damage) from error
        place = _place(error, text, "POSCAR")
        raise InvalidJob(f"ASE cannot read the POSCAR: {place}{_reading_failed(error)}") from error


def _damage_of_poscar(error: Exception, text: str) -> str:
    """Return what is wrong with the text of a POSCAR that ASE cannot read, if it is known."""
    lines = text.splitlines()
    if len(lines) < _POSCAR_LINES:
        return ""
    try:
        rows = _check_poscar_lines(lines, _OTHER_FORMATS)
    except InvalidJob as reason:
        return str(reason)
    for index in rows:
        if not all(map(_is_number, lines[index].split()[:_COORDINATES])):
            return _no_row(lines, index)
    return _no_element(str(error.args[0]), text) if isinstance(error, KeyError) else ""


def _check_poscar_lines(lines: list[str], otherwise: str) -> Sequence[int]:
    """Check what ASE's reader does not, and return the indices of the lines of three numbers."""
    if not _is_number(lines[1]):
        raise InvalidJob(
            "the structure is no POSCAR: line 2 must be its scale, and is "
            f"{shown(lines[1].strip())}; {otherwise}"
        )
    # ASE builds the list of symbols from the counts before it reads the atoms.
    for index, line in enumerate(lines[5:7], 5):
        counts = line.split("!")[0].split()
        if counts and all(re.fullmatch(r"[+-]?[0-9_]{1,30}", count) for count in counts):
            total = sum(int(count.replace("_", "") or 0) for count in counts)
            check_count(total)
            if not 0 < total <= len(lines):
                raise InvalidJob(
                    f"the POSCAR announces {total} atoms and has {len(lines)} lines in all"
                )
            return _poscar_rows(lines, index, total)
    raise InvalidJob(
        "the structure is no POSCAR: it has no line of atom counts where one belongs (line 6 or "
        f"7); {otherwise}"
    )


def _poscar_rows(lines: list[str], counts: int, total: int) -> Sequence[int]:
    first = counts + (3 if lines[counts + 1].strip()[:1] in {"S", "s"} else 2)
    rows = (*range(2, 5), *range(first, first + total))
    for index in rows:
        # numpy would repeat a single number of a cut line for all three coordinates.
        if index >= len(lines) or len(lines[index].split()) < _COORDINATES:
            raise InvalidJob(_no_row(lines, index))
    return rows


def _no_row(lines: list[str], index: int) -> str:
    line = lines[index].strip() if index < len(lines) else ""
    found = f", and is {shown(line)}" * bool(line)
    return f"line {index + 1} of the POSCAR must hold three numbers{found}"


def _from_dict(structure: Mapping[str, Any]) -> Atoms:
    from ase import Atoms

    if "calculator" in structure:
        raise InvalidJob("a structure cannot bring a calculator; the recipe chooses it")
    strange = sorted(map(str, structure.keys() - _ATOMS_KEYS))
    if strange:
        raise InvalidJob(
            f"the structure has an unknown key {strange[0]!r}; ase.Atoms takes "
            f"{', '.join(sorted(_ATOMS_KEYS))}"
        )
    checked = {key: _checked(key, value) for key, value in structure.items() if value is not None}
    _check_places(checked)
    if not checked.keys() & {"symbols", "numbers"}:
        raise InvalidJob("the structure has neither 'symbols' nor 'numbers'")
    try:
        return Atoms(**checked)
    except Exception as error:  # ASE reports lengths that do not agree in several ways
        reason = _misfit(checked) or str(error) or type(error).__name__
        raise InvalidJob(f"ase.Atoms cannot be made of the structure: {reason}") from error


def _check_places(checked: Mapping[str, Any]) -> None:
    """Check numbers, and formulas with many atoms, before ``Atoms`` makes a list of them."""
    if "numbers" in checked and not checked["numbers"].ndim:
        raise InvalidJob("the structure's numbers must be a list: an atomic number for each atom")
    if not isinstance(checked.get("symbols"), str):
        return
    count = _count(checked["symbols"])
    rows = checked.get("positions", checked.get("scaled_positions"))
    places = 0 if rows is None or not rows.ndim else len(rows)
    if count > _MOST_AT_ORIGIN and places != count:
        raise InvalidJob(
            f"the structure's symbols name {count} atoms, and there are {places} positions"
        )


def _misfit(checked: Mapping[str, Any]) -> str | None:
    """Return words about an array that does not have one row for each atom."""
    from ase.symbols import symbols2numbers

    if {"symbols", "numbers"} <= checked.keys():
        return "it has symbols and numbers; only one of them can be used"
    try:
        symbols = checked.get("symbols")
        count = len(checked["numbers"] if symbols is None else symbols2numbers(symbols))
    except KeyError as error:
        return f"there is no element {error.args[0]!r}"
    for key in _VECTOR_KEYS & checked.keys():
        if checked[key].shape != (count, _COORDINATES):
            shape = " x ".join(map(str, checked[key].shape))
            return f"{key} must have three numbers for each of its {count} atoms, not {shape}"
    for key in _SCALAR_KEYS & checked.keys():
        if checked[key].ndim and len(checked[key]) != count:
            return f"{key} must have {count} values, one for each atom, not {len(checked[key])}"
    if "cell" in checked and checked["cell"].shape not in {(3,), (6,), (3, 3)}:
        return "cell must be three lengths, three lengths and three angles, or three vectors"
    return None


def _checked(key: str, value: Any) -> Any:
    if key in _NUMERIC_KEYS:
        return _numbers(key, value)
    return {"symbols": _symbols, "pbc": _pbc, "info": _info, "constraint": _constraints}[key](value)


def _numbers(key: str, value: Any) -> Any:
    import numpy as np

    try:
        array = array_of(value)
    except Exception as error:  # ragged, nested too deeply, integers without end
        raise InvalidJob(f"the structure's {key} are no table of numbers: {error}") from error
    if array.dtype.kind not in ("iu" if key in {"numbers", "tags"} else "iuf") and array.size:
        raise InvalidJob(f"the structure's {key} must be numbers, not {array.dtype.name}")
    if array.size and not np.isfinite(array).all():
        raise InvalidJob(f"the structure's {key} hold numbers that are not finite")
    check_count(len(array) if array.ndim else 0)
    return array


def _count(formula: str) -> int:
    """Count the atoms of a formula."""
    from ase.formula import Formula

    try:
        return sum(Formula(formula).count().values())
    except Exception as error:  # nested too deeply is a RecursionError
        raise InvalidJob(f"the structure's symbols {formula[:40]!r} are no formula") from error


def _symbols(value: Any) -> Any:
    if isinstance(value, str):
        # Before Atoms makes a list of it: "H999999999" is short.
        check_count(_count(value))
        return value
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
        raise InvalidJob("the structure's symbols must be a formula or a list of element symbols")
    check_count(len(value))
    return list(value)


def _pbc(value: Any) -> Any:
    items = value.tolist() if hasattr(value, "tolist") else value
    items = list(items) if isinstance(items, (list, tuple)) else [items, items, items]
    if [type(item) in {bool, int} and item in {0, 1} for item in items] != [True, True, True]:
        raise InvalidJob(f"the structure's pbc must be true or false, or three of them: {value!r}")
    return [bool(item) for item in items]


def _info(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise InvalidJob("the structure's info must be a dict with names as keys")
    return dict(value)


def _constraints(value: Any) -> Any:
    from ase.constraints import FixConstraint

    items = value if isinstance(value, (list, tuple)) else [value]
    if not all(isinstance(item, FixConstraint) for item in items):
        raise InvalidJob(
            "a plain dict cannot carry constraints; send the structure as "
            '{"format": "ase-json", "data": ase.io.jsonio.encode(atoms)}'
        )
    return list(items)
