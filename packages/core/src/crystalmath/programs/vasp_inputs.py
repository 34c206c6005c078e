"""VASP's input files as ASE writes them, and the origin of each tag."""

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
    from crystalmath.plugins.program import Context, Program
    from crystalmath.plugins.report import FileFacts

FILES = ("INCAR", "KPOINTS", "POSCAR")
#: Stands for POTCAR, whose licence forbids copies: the line TITEL of each dataset.
TITLES = "POTCAR.titel"
#: The parameters that choose k-points and POTCARs; the first one that is set names the origin.
_MADE_FROM = {
    "kpoints": ("kpts", "pmg_kpts", "gamma", "reciprocal"),
    TITLES.lower(): ("setups", "pp", "pp_version"),
}
#: Tags of INCAR -> the parameter of ASE's from which they are made.
_TAGS = {"nelect": "charge"} | dict.fromkeys(("ldauu", "ldauj", "ldaul"), "ldau_luj")
#: Parameters that are no tags of INCAR.
_NO_TAGS = {
    *("charge", "custom", "elemental_magmoms", "gamma", "kpts", "ldau_luj", "pmg_kpts", "pp"),
    *("pp_version", "reciprocal", "setups", "txt", "xc", "auto_dipole", "ignore_constraints"),
}

#: The origin of a tag, and the value that it replaced.
_Provenance = tuple["Origin", str | None]


def settings(files: Mapping[str, str]) -> Iterator[Setting]:
    """Yield the tags of INCAR; each other file is one setting, without its comment line."""
    for name, text in files.items():
        if name == "INCAR":
            yield from assignments(name, text)
        else:
            yield whole(name, text, comments=int(name != TITLES))


def inputs(program: Program, calculator: Any, atoms: Atoms, context: Context) -> StepInputs:
    """Return the input that a calculator writes; see :meth:`.program.Program.inputs`."""
    from ase.calculators.vasp.create_input import GenerateVaspInput

    # `ask` has initialized the calculator.
    with tempfile.TemporaryDirectory(dir=context.directory) as folder:
        with without_potcar(calculator):
            GenerateVaspInput.write_input(calculator, atoms, directory=folder)
        paths = {name: Path(folder, name) for name in FILES}
        files = {name: path.read_text() for name, path in paths.items() if path.exists()}
    read = [facts(path, program) for path in calculator.ppp_list]
    files[TITLES] = "".join(f"{each.titel or _untitled(each)}\n" for each in read)
    whose = _Whose(calculator, context)
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
    """Keep a calculator from writing POTCAR, and from reading it if it is not `readable`."""
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
    """Finds the origin of a tag among the recipe's arguments and its preset."""

    def __init__(self, calculator: Any, context: Context) -> None:
        from ase.calculators.vasp.create_input import GenerateVaspInput

        own = getattr(calculator, "user_calc_params", None)
        self.final: Mapping[str, Any] = dict(calculator.parameters) if own is None else own
        #: The calculator's arguments, from the recipe or the user.
        self.explicit: dict[str, Any] = dict(getattr(calculator, "kwargs", self.final))
        self.user_parameters = context.user_parameters
        for name in ("pmg_kpts", "elemental_magmoms", "auto_dipole"):
            if name in self.user_parameters:
                self.explicit[name] = getattr(calculator, name, None)
        preset = getattr(calculator, "preset", None)
        self.name = None if preset is None else preset_name(preset)
        self.preset: Mapping[str, Any] = _preset(calculator) if preset else {}
        self._of_xc = GenerateVaspInput.xc_defaults.get(str(self.final.get("xc", "")).lower(), {})
        self._elemental = getattr(calculator, "elemental_magmoms", None)
        self._magmoms = calculator.atoms.get_initial_magnetic_moments()
        self._symbols = calculator.atoms.get_chemical_symbols()

    def __call__(self, setting: Setting) -> _Provenance:
        """Return who has set it, and the value that it replaced."""
        name = setting.name.lower()
        if setting.name == "POSCAR":
            return "structure", None
        if name in _MADE_FROM:
            names = _MADE_FROM[name]
            known = [one for one in names if one in self.explicit or one in self.preset]
            origins = [
                self._of(one) for one in known if name == TITLES.lower() or self._is_used(one)
            ]
            return origins[0] if origins else ("default", None)
        # quacc writes the tags that xc stands for.
        if name in self._of_xc and name not in self.explicit and name not in self.preset:
            return self._of("xc")
        if self.final.get(name) is None:
            if name in _TAGS:
                return self._of(_TAGS[name])
            if name in {"magmom", "ispin"}:
                return self._of_moments()
        return self._of(name)

    def _of(self, name: str) -> _Provenance:
        value = self.final.get(name, getattr(self, f"_{name}", None))
        before = self.preset.get(name)
        if name in self.explicit:
            origin: Origin = "asked" if name in self.user_parameters else "recipe"
            instead = f"preset: {shown_value(before)}" if before is not None else None
            if name not in self.final or same(self.explicit[name], value):
                return origin, None if same(before, self.explicit[name]) else instead
            return "quacc", f"{origin}: {shown_value(self.explicit[name])}"
        if before is not None:
            if name not in self.final or same(before, value):
                return "preset", None
            return "quacc", f"preset: {shown_value(before)}"
        return ("quacc" if name in self.final else "default"), None

    def _of_moments(self) -> _Provenance:
        """Return the origin of the moments: a table by element, or the structure."""
        table: Mapping[str, float] = self._elemental or {}
        by_element = bool(table) and all(
            moment in {table.get(symbol), table.get(symbol, moment)}
            for symbol, moment in zip(self._symbols, self._magmoms, strict=True)
        )
        if not by_element:
            return "structure", None
        # quacc's setting VASP_PRESET_MAG_DEFAULT serves the elements that the table lacks.
        named = any(symbol in table for symbol in self._symbols)
        return self._of("elemental_magmoms") if named else ("quacc", None)

    def _is_used(self, name: str) -> bool:
        """Return whether a parameter is used: it is set, or no other one replaces it."""
        is_set = name in self.explicit and self.explicit[name] is not None
        return is_set or not any(one in self.explicit for one in ("kpts", "kspacing", "pmg_kpts"))

    def left(self, settings: tuple[Setting, ...]) -> Iterator[Setting]:
        """Yield the tags of the preset that INCAR does not have."""
        written = {each.name.lower() for each in settings}
        for name, value in self.preset.items():
            if name in written or name in _NO_TAGS or value is None:
                continue
            removed = name in self.explicit and self.explicit[name] is None
            meshes = {"kpts", "pmg_kpts"}
            replaced = name == "kspacing" and bool(meshes.intersection(self.user_parameters))
            origin: Origin = "quacc"
            if removed or replaced:
                origin = "asked" if replaced or name in self.user_parameters else "recipe"
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
    parameters: Mapping[str, Any] = load_vasp_yaml_calc(path)["inputs"]
    return parameters
