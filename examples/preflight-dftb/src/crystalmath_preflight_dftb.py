"""DFTB+: check its Slater-Koster files, one for each pair of elements.

While ASE writes the input, it reads the files of each element with itself, unless a parameter sets
the largest angular momentum. DFTB+ reads the files of all pairs, or none with xTB.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import itertools
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import frozen

from crystalmath.hookspecs import hookimpl
from crystalmath.plugins.checked_job import FileKind
from crystalmath.plugins.folders import Folders, FolderTrouble
from crystalmath.plugins.launching import Command, Launch
from crystalmath.plugins.program import Context, Program
from crystalmath.plugins.report import Need, Step
from crystalmath.recipes.quacc_settings import settings_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ase import Atoms

    from crystalmath.plugins.checked_job import CheckedJob, Wanted

_VARIABLE = "DFTB_PREFIX"
_FILES = "Hamiltonian_SlaterKosterFiles_"


@frozen(slots=False)
class SkfFolders(Folders):
    """The folder of the Slater-Koster files."""

    def unset(self) -> FolderTrouble:
        """Return the trouble that no setting names the folder."""
        message = f"neither the variable {_VARIABLE} of jobs nor the parameter slako_dir is set"
        remedy = (
            f"set slako_dir, or set {_VARIABLE} to {self.holder} and forward it to jobs "
            f'([environment] forward = ["{_VARIABLE}"] beside the others in config.toml)'
        )
        return FolderTrouble(code="unset", path="", message=message, remedy=remedy)


class DftbPlus(Program):
    """DFTB+, through ASE's calculator."""

    name = "dftb+"
    recipes = ("quacc.recipes.dftb",)
    imports = ("ase.calculators.dftb",)
    files = FileKind(title="DFTB+", noun="Slater-Koster file", code="skf")

    def install(self) -> None:
        """Import the modules that the first question would wait for."""
        importlib.import_module("quacc.recipes.dftb.core")

    def runs(self, calculator: object) -> bool:
        """Return whether a calculator is ASE's for DFTB+."""
        from ase.calculators.dftb import Dftb

        return isinstance(calculator, Dftb)

    def ask(self, calculator: Any, atoms: Atoms, context: Context) -> Step:
        """Return the step with the files that ASE reads for the input, and those of DFTB+."""
        from crystalmath.plugins.report import troubles_of

        with _noted() as read, tempfile.TemporaryDirectory(dir=context.directory) as folder:
            written = copy.copy(calculator)
            written.atoms, written.directory = atoms, folder
            troubles = [*troubles_of("input", lambda: written.write_input(atoms, ["energy"]))]
        parameters = calculator.parameters
        symbols = sorted(set(atoms.symbols))
        paths = {path: Path(path).name.partition("-")[0] for path in read}
        if not calculator.with_tags:
            paths |= dict(_of_pairs(parameters, symbols))
        prefix = _plain(parameters.get(f"{_FILES}Prefix", ""))
        return Step(
            calculator=self.name,
            needs=tuple(
                Need(
                    symbol=symbol,
                    setup=Path(path).name,
                    path=path,
                    reason=_reason(context),
                )
                for path, symbol in sorted(paths.items())  # ASE reads them in the order of a set
            ),
            root=(prefix.rpartition("/")[0] or "/") if Path(prefix).is_absolute() else None,
            troubles=tuple(troubles),
            by_element=True,
            by_index=calculator.with_tags,
        )

    def folders(self, wanted: Wanted, job: CheckedJob) -> SkfFolders:
        """Return the folders of a missing file."""
        return SkfFolders(wanted, job)

    def launch(self, recipe: str, environment: Mapping[str, str]) -> Launch | None:
        """Return the command of DFTB+."""
        del recipe  # all start it alike
        if any(Path(file).exists() for file in settings_files(environment)[:-1]):
            return None  # ASE's own configuration may name another
        variable = environment.get("DFTB_COMMAND")
        program = Command(variable or "dftb+", "DFTB_COMMAND" if variable else "ASE's default")
        remedy = "put the folder of dftb+ on PATH, or name it with DFTB_COMMAND"
        none = Command("", "")
        return Launch(title="DFTB+", launcher=none, programs=(program,), remedy=remedy)


@contextlib.contextmanager
def _noted() -> Iterator[list[str]]:
    """Record the files that ASE reads; a missing or empty one is left to its own finding."""
    from ase.calculators import dftb

    really, read = dftb.read_max_angular_momentum, []

    def noted(path: str) -> int:
        read.append(path)
        there = Path(path).is_file() and Path(path).stat().st_size
        return int(really(path)) if there else 0

    dftb.read_max_angular_momentum = noted
    try:
        yield read
    finally:
        dftb.read_max_angular_momentum = really


def _of_pairs(parameters: Mapping[str, Any], symbols: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the files that DFTB+ itself reads, if elements and an absolute path name them.

    DFTB+ looks for a relative path in folders of its own, too.
    """
    names = {key.removeprefix(_FILES) for key in parameters if key.startswith(_FILES)}
    known = {"", "Prefix", "Separator", "Suffix"}
    if parameters.get(_FILES) != "Type2FileNames" or not names <= known:
        return
    prefix, separator, suffix = (
        _plain(parameters[_FILES + each]) for each in ("Prefix", "Separator", "Suffix")
    )
    if Path(prefix).is_absolute():
        for one, other in itertools.product(symbols, repeat=2):
            yield f"{prefix}{one}{separator}{other}{suffix}", one


def _plain(text: object) -> str:
    return str(text).strip().strip("\"'")


def _reason(context: Context) -> str:
    for name in ("slako_dir", f"{_FILES}Prefix"):
        if name.lower() in context.user_parameters:
            return f"parameter {name}"
    return _VARIABLE


@hookimpl
def crystalmath_programs() -> list[Program]:
    """Provide DFTB+."""
    return [DftbPlus()]
