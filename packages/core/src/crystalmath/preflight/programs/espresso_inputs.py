"""What a program of Quantum ESPRESSO gets: its input, and who has set each variable.

The path of a run directory is not known beforehand. In its place stands ``.``, which is the same to
the program, and ``../step-1`` in that of an earlier step.
"""

from __future__ import annotations

import copy
import itertools
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystalmath.models.inputs import Setting, StepInputs
from crystalmath.preflight.input_files import assignments, marked, preset_name, same, shown_value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ase import Atoms

    from crystalmath.models.inputs import Origin
    from crystalmath.preflight.program import Asked, Program

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
_CUTOFFS = {"ecutwfc", "ecutrho"}

_Told = tuple["Origin", str | None]


def settings(files: Mapping[str, str]) -> Iterator[Setting]:
    """Read the variables of all namelists, and the cards."""
    for name, text in files.items():
        lines = text.splitlines()
        starts = [number for number, line in enumerate(lines) if _CARD.match(line)]
        yield from assignments(name, "\n".join(lines[: starts[0]] if starts else lines))
        for start, end in itertools.pairwise([*starts, len(lines)]):
            card = _CARD.match(lines[start])
            assert card is not None  # noqa: S101 - it began there
            rows = [card[2].strip(), *(line.strip() for line in lines[start + 1 : end])]
            yield Setting(file=name, name=card[1], value="\n".join(row for row in rows if row))


def inputs(program: Program, calculator: Any, atoms: Atoms, asked: Asked) -> StepInputs:
    """Return what a program would get of a calculator; see :meth:`.program.Program.inputs`."""
    template = calculator.template
    files = {template.inputname: _written(calculator, atoms, asked.directory)}
    whose = _Whose(calculator, asked)
    binary = getattr(template, "binary", "pw")
    told = tuple(settings(files))
    return StepInputs(
        program=program.files.title if binary == "pw" else f"{binary}.x",
        formula=atoms.get_chemical_formula(),
        preset=whose.name,
        files=files,
        settings=marked(told, {each.name.lower(): whose(each) for each in told}),
    )


def _written(calculator: Any, atoms: Atoms, directory: Path) -> str:
    template = copy.copy(calculator.template)
    template.test_run = False
    with tempfile.TemporaryDirectory(dir=directory) as name:
        folder = Path(name).resolve()
        # What it would unpack, or make, there is not touched.
        elsewhere, outdir = folder / "elsewhere", getattr(template, "outdir", None)
        template.outdir = str(elsewhere) if outdir else None
        template.write_input(
            profile=calculator.profile,
            directory=folder,
            atoms=atoms,
            parameters=copy.deepcopy(dict(calculator.parameters)),
            properties=["energy", "forces"],
        )
        text: str = (folder / template.inputname).read_text(encoding="utf-8")
    if outdir:
        text = text.replace(str(elsewhere), str(Path(outdir).expanduser().resolve()))
    # Steps are kept beside each other where they are written down.
    return text.replace(str(folder), ".").replace(str(directory.resolve()), "..")


class _Whose:
    """Tells who has set a variable: what the recipe has given to the calculator, and its preset."""

    def __init__(self, calculator: Any, asked: Asked) -> None:
        given = getattr(calculator, "kwargs", calculator.parameters)
        self.given = _flat(given)
        self.asked = asked.given
        preset = getattr(calculator, "preset", None)
        self.name = None if preset is None else preset_name(preset)
        self.preset = _flat(_preset(preset)) if preset else {}

    def __call__(self, setting: Setting) -> _Told:
        """Return who has set it, and what it stands in the place of."""
        name = setting.name.lower()
        base = name.partition("(")[0]
        for one in _MADE_FROM.get(base, (base,)):
            if one in self.given and self.given[one] is not None:
                before = self.preset.get(one)
                differs = before is not None and not same(before, self.given[one])
                instead = f"preset: {shown_value(before)}" if differs else None
                return ("asked" if one in self.asked else "recipe"), instead
            if one in self.preset:
                return "preset", None
        if base in _CUTOFFS and "pseudopotentials" in self.preset:
            return "preset", None
        if base in _OF_STRUCTURE:
            return "structure", None
        return ("default" if base in _MADE_FROM else "quacc"), None


def _flat(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters and variables of all namelists by their names."""
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
    found: Mapping[str, Any] = load_yaml_calc(path)
    return found
