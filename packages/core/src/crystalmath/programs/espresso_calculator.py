"""The files that Quantum ESPRESSO reads, and its input with the origin of each setting.

quacc's own template writes the input, and it is read back: so it is exactly the input of pw.x.
"""

from __future__ import annotations

import copy
import functools
import io
import itertools
import os
import re
import shlex
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystalmath.jobs import outdirs
from crystalmath.models import Finding
from crystalmath.models.inputs import Setting, StepInputs
from crystalmath.plugins.program import assignments, marked, preset_name, same, shown_value
from crystalmath.plugins.report import FileFacts, Need, Step, Trouble, is_passing, trouble
from crystalmath.preflight.files import FileMemo, exists

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ase import Atoms

    from crystalmath.models.inputs import Origin
    from crystalmath.plugins.checked_job import CheckedJob
    from crystalmath.plugins.program import Context, Program

_NONE = "(none)"
#: Calculations that go on from another one: pw.x looks first into the folder that it saved.
_CONTINUE = ("nscf", "bands")
#: The last folder in which Debian's pw.x looks; its name is compiled into the program.
_DEBIAN = "/usr/share/espresso/pseudo/"
_falls_back: FileMemo[bool] = FileMemo()


def is_espresso(calculator: object) -> bool:
    """Return whether a calculator runs one of Quantum ESPRESSO's programs."""
    from ase.calculators.espresso import EspressoTemplate

    return isinstance(getattr(calculator, "template", None), EspressoTemplate)


def ask(name: str, calculator: Any, atoms: Atoms, context: Context) -> Step:
    """Return the step of a calculation: its pseudopotentials, and why it cannot begin."""
    if getattr(calculator.template, "binary", "pw") != "pw":
        return Step(calculator=name, by_element=True)
    parameters = dict(calculator.parameters)
    known = dict(parameters.get("pseudopotentials") or {})
    unnamed = [symbol for symbol in dict.fromkeys(atoms.symbols) if symbol not in known]
    parameters["pseudopotentials"] = known | dict.fromkeys(unnamed, _NONE)
    troubles = []
    if unnamed:
        message = f"neither preset nor parameter names a pseudopotential for {', '.join(unnamed)}"
        troubles.append(Trouble(where="input", type="KeyError", message=message))
    try:
        namelists, species = _write(calculator, atoms, parameters, context.directory)
    except Exception as error:
        # The calculation would raise the same exception.
        if is_passing(error):
            raise
        return Step(calculator=name, troubles=(*troubles, trouble("input", error)))
    control, system = namelists.get("control", {}), namelists.get("system", {})
    root = str(control.get("pseudo_dir", ""))
    reason = _reason(calculator)
    saved = _saved(calculator, control, context.copy_files)
    needs = []
    for symbol, file in species.items():
        path = _place(root, file, saved, context.copy_files) if file != _NONE else None
        if path and not exists(path) and _is_debians(calculator):
            path = _DEBIAN + file if exists(_DEBIAN + file) else path
        if path:
            needs.append(Need(symbol=symbol, setup=file, path=path, reason=reason))
    return Step(
        calculator=name,
        by_element=True,
        needs=tuple(needs),
        root=None if root in ("", "None") else root,
        troubles=tuple(troubles),
        tags={name: str(system[name]) for name in CUTOFFS if name in system},
    )


def _write(
    calculator: Any, atoms: Atoms, parameters: dict[str, Any], directory: Path
) -> tuple[Mapping[str, Mapping[str, Any]], dict[str, str]]:
    """Write the input, and return its namelists and the file of each species."""
    from ase.io.espresso import read_fortran_namelist

    with tempfile.TemporaryDirectory(dir=directory) as folder:
        # In another folder quacc would unpack files, or leave one.
        text = _input(calculator, atoms, parameters, Path(folder), outdir=None)
    namelists, cards = read_fortran_namelist(io.StringIO(text))
    return namelists, dict(_species(cards))


def _input(
    calculator: Any, atoms: Atoms, parameters: Mapping[str, Any], folder: Path, outdir: str | None
) -> str:
    """Return the input as quacc's template writes it into a folder."""
    template = copy.copy(calculator.template)
    template.outdir, template.test_run = outdir, False
    template.write_input(
        profile=calculator.profile,
        directory=folder,
        atoms=atoms,
        # Writing changes them.
        parameters=copy.deepcopy(dict(parameters)),
        properties=["energy", "forces"],
    )
    text: str = (folder / template.inputname).read_text(encoding="utf-8")
    return text


def _species(cards: list[str]) -> Iterator[tuple[str, str]]:
    begin = cards.index("ATOMIC_SPECIES") + 1
    # ASE writes the k-points next.
    for line in itertools.takewhile(lambda line: not line.startswith("K_POINTS"), cards[begin:]):
        label, _, file = line.split(maxsplit=2)
        # A symbol with several magnetic moments is several species with the same file.
        yield label.rstrip("0123456789"), file


def _reason(calculator: Any) -> str:
    explicit = getattr(calculator, "kwargs", calculator.parameters)
    preset = getattr(calculator, "preset", None)
    if preset and not explicit.get("pseudopotentials"):
        return f"preset {preset}"
    if preset:
        return f"preset {preset}, parameter pseudopotentials"
    return "parameter pseudopotentials"


def _saved(calculator: Any, control: Mapping[str, Any], copy_files: Iterable[Any]) -> list[Path]:
    """Return the folders of an earlier calculation that this one goes on from."""
    if control.get("calculation") not in _CONTINUE:
        return []
    name = f"{control.get('prefix', 'pwscf')}.save"
    folders = [Path(source).expanduser() for source in _sources(copy_files) if source]
    if outdir := getattr(calculator.template, "outdir", None):
        folders.insert(0, outdirs.place_of(outdir))
    return [folder / name for folder in folders]


def _sources(copy_files: Iterable[Any]) -> list[Any]:
    return [spec["source"] for spec in copy_files if isinstance(spec, dict) and "source" in spec]


def _place(root: str, file: str, saved: list[Path], copy_files: Iterable[Any]) -> str | None:
    """Return the path at which pw.x finds a file; ``None`` if the job unpacks it first."""
    path = f"{root.rstrip('/')}/{file}" if root else file
    places = [str(folder / file) for folder in saved]
    if not os.path.isabs(path):
        places += [str(Path(source).expanduser() / path) for source in _sources(copy_files)]
    for place in places:
        if exists(place):
            return place
        if exists(f"{place}.gz"):
            return None
    return path


def _is_debians(calculator: Any) -> bool:
    words = shlex.split(str(calculator.profile.command))
    programs = [path for word in words if (path := shutil.which(word))]
    return any(_falls_back.get(path, [path], functools.partial(_names, path)) for path in programs)


def _names(program: str) -> bool:
    try:
        return _DEBIAN.encode() in Path(program).read_bytes()
    except OSError:  # it may be executable and not readable
        return False


_CARD = re.compile(
    r"^(ATOMIC_SPECIES|ATOMIC_POSITIONS|CELL_PARAMETERS|K_POINTS|ADDITIONAL_K_POINTS|CONSTRAINTS|"
    r"OCCUPATIONS|ATOMIC_VELOCITIES|ATOMIC_FORCES|SOLVENTS|HUBBARD)\b(.*)$",
    re.IGNORECASE,
)
#: Cards -> the parameters that they are made from.
_MADE_FROM = {"k_points": ("kpts", "kspacing", "koffset"), "atomic_species": ("pseudopotentials",)}
_OF_STRUCTURE = {
    *("atomic_positions", "cell_parameters", "ibrav", "nat", "ntyp"),
    *("starting_magnetization", "nspin"),
}
#: Made from the pseudopotentials of a preset.
CUTOFFS = ("ecutwfc", "ecutrho")

#: pw.x warns below ("dual < 4, is this really what you want?"); its documentation advises against
#: less even for norm-conserving pseudopotentials (INPUT_PW, ecutrho).
_LEAST_DUAL = 4

#: The origin of a setting, and the value that it replaced.
_Provenance = tuple["Origin", str | None]


def findings(job: CheckedJob) -> Iterator[Finding]:
    """Yield findings about cutoffs: pw.x stops at once unless the density's cutoff is larger."""
    cutoffs: dict[tuple[float, float], list[int]] = {}
    for number, step in enumerate(job.report.steps):
        wfc, rho = (_number(step.tags.get(name, "")) for name in CUTOFFS)
        if wfc and rho and wfc > 0:
            cutoffs.setdefault((wfc, rho), []).append(number)
    for (wfc, rho), steps in cutoffs.items():
        if rho < _LEAST_DUAL * wfc:
            ends = rho <= wfc
            why = "pw.x stops unless it is larger" if ends else "the density would be cut off"
            yield Finding(
                severity=job.severity(steps) if ends else "warning",
                code="parameter_cutoffs",
                message=f"ecutrho = {rho:g} Ry is only {rho / wfc:.2g} times ecutwfc = {wfc:g} Ry; "
                f"at least {_LEAST_DUAL} times are needed: {why}{job.where(steps)}",
                source="ecutrho in pw.in",
                remedy=f"set ecutrho={_LEAST_DUAL * wfc:g} or more; ultrasoft pseudopotentials "
                "need 8 to 12 times ecutwfc",
            )


def settings(files: Mapping[str, str]) -> Iterator[Setting]:
    """Yield the variables of all namelists, and the cards."""
    for name, text in files.items():
        lines = text.splitlines()
        cards = [(at, card) for at, line in enumerate(lines) if (card := _CARD.match(line))]
        ends = [*(at for at, _ in cards), len(lines)]
        yield from assignments(name, "\n".join(lines[: ends[0]]))
        for (start, card), end in zip(cards, ends[1:], strict=True):
            rows = [card[2].strip(), *(line.strip() for line in lines[start + 1 : end])]
            yield Setting(file=name, name=card[1], value="\n".join(row for row in rows if row))


def inputs(program: Program, calculator: Any, atoms: Atoms, context: Context) -> StepInputs:
    """Return the input that a calculator writes; see :meth:`.program.Program.inputs`."""
    template = calculator.template
    files = {template.inputname: _written(calculator, atoms, context.directory)}
    whose = _Whose(calculator, context)
    binary = getattr(template, "binary", "pw")
    written = tuple(settings(files))
    return StepInputs(
        program=program.files.title if binary == "pw" else f"{binary}.x",
        formula=atoms.get_chemical_formula(),
        preset=whose.name,
        files=files,
        settings=marked(written, {each.name.lower(): whose(each) for each in written}),
    )


def _written(calculator: Any, atoms: Atoms, directory: Path) -> str:
    """Return the input with ``.`` for the job's folder, and ``../step-1`` for an earlier step."""
    outdir = getattr(calculator.template, "outdir", None)
    with tempfile.TemporaryDirectory(dir=directory) as name:
        folder = Path(name).resolve()
        # quacc would unpack files into its own output folder, or create it.
        elsewhere = str(folder / "elsewhere")
        text = _input(
            calculator, atoms, calculator.parameters, folder, elsewhere if outdir else None
        )
    if outdir:
        place = Path(outdir).expanduser().resolve()
        # The job runs in its own copy of a folder outside its directory.
        is_own = place.is_relative_to(directory.resolve())
        text = text.replace(elsewhere, str(place) if is_own else ".")
    return text.replace(str(folder), ".").replace(str(directory.resolve()), "..")


class _Whose:
    """Finds the origin of a variable among the recipe's arguments and its preset."""

    def __init__(self, calculator: Any, context: Context) -> None:
        self.explicit = _flat(getattr(calculator, "kwargs", calculator.parameters))
        self.user_parameters = context.user_parameters
        preset = getattr(calculator, "preset", None)
        self.name = None if preset is None else preset_name(preset)
        self.preset = _flat(_preset(preset)) if preset else {}

    def __call__(self, setting: Setting) -> _Provenance:
        """Return who has set it, and the value that it replaced."""
        name = setting.name.lower()
        base = name.partition("(")[0]
        # A parameter may name one of several, such as `Hubbard_U(1)`, or all.
        for one in _MADE_FROM.get(base, (name, base)):
            if one in self.explicit and self.explicit[one] is not None:
                before = self.preset.get(one)
                differs = before is not None and not same(before, self.explicit[one])
                instead = f"preset: {shown_value(before)}" if differs else None
                return ("asked" if one in self.user_parameters else "recipe"), instead
            if one in self.preset:
                return "preset", None
        if base in CUTOFFS and "pseudopotentials" in self.preset:
            return "preset", None
        if base in _OF_STRUCTURE:
            return "structure", None
        return ("default" if base in _MADE_FROM else "quacc"), None


def _flat(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters, and the variables of all namelists, in one mapping by name."""
    flat = {str(name).lower(): value for name, value in parameters.items() if name != "input_data"}
    for name, value in dict(parameters.get("input_data") or {}).items():
        if isinstance(value, Mapping):
            flat |= {str(one).lower(): each for one, each in value.items()}
        else:
            flat[str(name).lower()] = value
    return flat


def _preset(preset: Any) -> Mapping[str, Any]:
    from quacc import get_settings
    from quacc.utils.files import load_yaml_calc

    is_file = Path(preset).suffix in (".yaml", ".yml")
    path = preset if is_file else get_settings().ESPRESSO_PRESET_DIR / f"{preset}.yaml"
    document: Mapping[str, Any] = load_yaml_calc(path)
    return document


_UPF = re.compile(rb"<UPF\b|<qe_pp:|<PP_HEADER>")
_INFO = re.compile(rb"<PP_INFO>.*?</PP_INFO>", re.DOTALL)
_OPENED = re.compile(rb"<(PP_[\w.]+)(?:\s+[\w:.]+\s*=\s*(?:\"[^\"]*\"|'[^']*'))*\s*>")
_CLOSED = re.compile(rb"</(PP_[\w.]+)\s*>")
_ELEMENT = re.compile(
    rb"\belement\s*=\s*[\"']\s*([A-Za-z]{1,2})\b|^\s*([A-Za-z]{1,2})\s+Element", re.MULTILINE
)
_VALENCE = re.compile(
    rb"\bz_valence\s*=\s*[\"']\s*([\d.eEdD+-]+)|^\s*([\d.eEdD+-]+)\s+Z valence", re.MULTILINE
)


def read(path: str, data: bytes) -> FileFacts:
    """Judge the content of a pseudopotential file."""
    if not data.strip():
        return FileFacts(problem="empty", detail="it holds only blank lines" if data else None)
    version = _UPF.search(data)
    if version is None:
        if path.lower().endswith(".upf"):
            return FileFacts(problem="no_header", detail="its name ends in .upf, but it is none")
        return FileFacts()
    element, valence = _ELEMENT.search(data), _VALENCE.search(data)
    trouble = _cut(data, first=version[0] == b"<PP_HEADER>")
    return FileFacts(
        problem="truncated" if trouble else None,
        detail=trouble,
        element=(element[1] or element[2]).decode().capitalize() if element else None,
        zval=_number((valence[1] or valence[2]).decode()) if valence else None,
    )


def _cut(data: bytes, *, first: bool) -> str | None:
    # PP_INFO is free text.
    sections = _INFO.sub(b"", data)
    opened = Counter(_OPENED.findall(sections))
    left = opened - Counter(_CLOSED.findall(sections))
    if first:
        # Readers of version 1 do not look for the end of this section.
        del left[b"PP_ADDINFO"]
    if left:
        return f"its section {next(iter(left)).decode()} has no end"
    if not first and b"</UPF>" in data:
        return None
    needed = (b"PP_MESH", b"PP_LOCAL", b"PP_RHOATOM") if first else (b"PP_MESH", b"PP_LOCAL")
    lacking = [name.decode() for name in needed if name not in opened]
    return f"it has no section {lacking[0]}" if lacking else None


def _number(text: str) -> float | None:
    try:
        return float(re.sub("[dD]", "e", text))
    except ValueError:
        return None
