"""What VASP gets: its files as ASE writes them, and who has set each tag."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystalmath.models.inputs import Setting, StepInputs
from crystalmath.plugins.program import (
    assignments,
    marked,
    preset_name,
    same,
    shown_value,
    whole,
)
from crystalmath.preflight.files import facts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ase import Atoms

    from crystalmath.models.inputs import Origin
    from crystalmath.plugins.program import Asked, Program
    from crystalmath.plugins.report import FileFacts

FILES = ("INCAR", "KPOINTS", "POSCAR")
#: In the place of POTCAR, whose content nobody may hand on: the line TITEL of each dataset.
TITLES = "POTCAR.titel"
#: The parameters that choose k-points and POTCARs, of which the first that is there tells whose.
_MADE_FROM = {
    "kpoints": ("kpts", "pmg_kpts", "gamma", "reciprocal"),
    TITLES.lower(): ("setups", "pp", "pp_version"),
}
#: Tags of INCAR -> the parameter of ASE's from which they are made.
_TAGS = {"nelect": "charge"} | dict.fromkeys(("ldauu", "ldauj", "ldaul"), "ldau_luj")
#: Parameters that are no tags of INCAR themselves.
_NO_TAGS = {
    *("charge", "custom", "elemental_magmoms", "gamma", "kpts", "ldau_luj", "pmg_kpts", "pp"),
    *("pp_version", "reciprocal", "setups", "txt", "xc", "auto_dipole", "ignore_constraints"),
}

_Told = tuple["Origin", str | None]


def settings(files: Mapping[str, str]) -> Iterator[Setting]:
    """Read tags from INCAR; each other file is one setting, without the comment at its head."""
    for name, text in files.items():
        if name == "INCAR":
            yield from assignments(name, text)
        else:
            yield whole(name, text, comments=int(name != TITLES))


def inputs(program: Program, calculator: Any, atoms: Atoms, asked: Asked) -> StepInputs:
    """Return what VASP would get of a calculator; see :meth:`.program.Program.inputs`."""
    from ase.calculators.vasp.create_input import GenerateVaspInput

    # `ask` has initialized it as a calculation does.
    with tempfile.TemporaryDirectory(dir=asked.directory) as folder:
        with without_potcar(calculator):
            GenerateVaspInput.write_input(calculator, atoms, directory=folder)
        paths = {name: Path(folder, name) for name in FILES}
        files = {name: path.read_text() for name, path in paths.items() if path.exists()}
    read = [facts(path, program) for path in calculator.ppp_list]
    files[TITLES] = "".join(f"{each.titel or _untitled(each)}\n" for each in read)
    whose = _Whose(calculator, asked)
    written = tuple(settings(files))
    return StepInputs(
        program=program.files.title,
        formula=atoms.get_chemical_formula(),
        preset=whose.name,
        files=files,
        settings=(
            *marked(written, {each.name.lower(): whose(each) for each in written}),
            *whose.left(written),
        ),
    )


@contextlib.contextmanager
def without_potcar(calculator: Any, *, readable: bool = True) -> Iterator[None]:
    """Keep a calculator from writing POTCAR, and from reading it where it is not readable."""
    calculator.write_potcar = lambda **_: None
    if not readable:
        calculator.default_nelect_from_ppp = lambda: 0.0
    try:
        yield
    finally:
        vars(calculator).pop("write_potcar")
        vars(calculator).pop("default_nelect_from_ppp", None)


def _untitled(read: FileFacts) -> str:
    absent = read.problem in {"missing", "broken_link"}
    return "(no POTCAR is there)" if absent else "(the POTCAR that is there cannot be used)"


class _Whose:
    """Finds who has set a tag: what the recipe has given to the calculator, and its preset."""

    def __init__(self, calculator: Any, asked: Asked) -> None:
        from ase.calculators.vasp.create_input import GenerateVaspInput

        own = getattr(calculator, "user_calc_params", None)
        self.final: Mapping[str, Any] = dict(calculator.parameters) if own is None else own
        #: What the recipe has given, the user's among it.
        self.given: dict[str, Any] = dict(getattr(calculator, "kwargs", self.final))
        for name in ("pmg_kpts", "elemental_magmoms", "auto_dipole"):
            if name in asked.given:
                self.given[name] = getattr(calculator, name, None)
        self.asked = asked.given
        preset = getattr(calculator, "preset", None)
        self.name = None if preset is None else preset_name(preset)
        self.preset: Mapping[str, Any] = _preset(calculator) if preset else {}
        self._of_xc = GenerateVaspInput.xc_defaults.get(str(self.final.get("xc", "")).lower(), {})
        self._elemental = getattr(calculator, "elemental_magmoms", None)
        self._magmoms = calculator.atoms.get_initial_magnetic_moments()
        self._symbols = calculator.atoms.get_chemical_symbols()

    def __call__(self, setting: Setting) -> _Told:
        """Return who has set it, and what it stands in the place of."""
        name = setting.name.lower()
        if setting.name == "POSCAR":
            return "structure", None
        if name in _MADE_FROM:
            names = _MADE_FROM[name]
            known = [one for one in names if one in self.given or one in self.preset]
            origins = [
                self._of(one) for one in known if name == TITLES.lower() or self._is_used(one)
            ]
            return origins[0] if origins else ("default", None)
        # quacc spells out what xc means.
        if name in self._of_xc and name not in self.given and name not in self.preset:
            return self._of("xc")
        if self.final.get(name) is None:
            if name in _TAGS:
                return self._of(_TAGS[name])
            if name in {"magmom", "ispin"}:
                return self._of_moments()
        return self._of(name)

    def _of(self, name: str) -> _Told:
        value = self.final.get(name, getattr(self, f"_{name}", None))
        before = self.preset.get(name)
        if name in self.given:
            origin: Origin = "asked" if name in self.asked else "recipe"
            instead = f"preset: {shown_value(before)}" if before is not None else None
            if name not in self.final or same(self.given[name], value):
                return origin, None if same(before, self.given[name]) else instead
            return "quacc", f"{origin}: {shown_value(self.given[name])}"
        if before is not None:
            if name not in self.final or same(before, value):
                return "preset", None
            return "quacc", f"preset: {shown_value(before)}"
        return ("quacc" if name in self.final else "default"), None

    def _of_moments(self) -> _Told:
        """Return whose the moments are: those of the elements, or the structure's own."""
        table: Mapping[str, float] = self._elemental or {}
        by_element = bool(table) and all(
            moment in {table.get(symbol), table.get(symbol, moment)}
            for symbol, moment in zip(self._symbols, self._magmoms, strict=True)
        )
        if not by_element:
            return "structure", None
        # Of elements that the table lacks it is quacc's setting VASP_PRESET_MAG_DEFAULT.
        named = any(symbol in table for symbol in self._symbols)
        return self._of("elemental_magmoms") if named else ("quacc", None)

    def _is_used(self, name: str) -> bool:
        """Return whether a parameter has a say, and another one has not replaced it."""
        mine = name in self.given and self.given[name] is not None
        return mine or not any(one in self.given for one in ("kpts", "kspacing", "pmg_kpts"))

    def left(self, told: tuple[Setting, ...]) -> Iterator[Setting]:
        """Name what the preset has and INCAR has not."""
        written = {each.name.lower() for each in told}
        for name, value in self.preset.items():
            if name in written or name in _NO_TAGS or value is None:
                continue
            asked = name in self.given and self.given[name] is None
            replaced = name == "kspacing" and bool({"kpts", "pmg_kpts"}.intersection(self.asked))
            origin: Origin = "quacc"
            if asked or replaced:
                origin = "asked" if replaced or name in self.asked else "recipe"
            instead = f"preset: {shown_value(value)}"
            yield Setting(
                file="INCAR", name=name.upper(), value=None, origin=origin, instead_of=instead
            )


def _preset(calculator: Any) -> Mapping[str, Any]:
    from quacc import get_settings
    from quacc.calculators.vasp.io import load_vasp_yaml_calc

    preset = calculator.preset
    is_file = Path(preset).suffix in (".yaml", ".yml")
    path = preset if is_file else get_settings().VASP_PRESET_DIR / f"{preset}.yaml"
    found: Mapping[str, Any] = load_vasp_yaml_calc(path)["inputs"]
    return found
