"""Stand-ins for the results of calculations, and the inputs that do not depend on results.

A stand-in returns the values that are known beforehand; for all others it raises the exception that
`stop` returns. The recipe is called again with other results: an input that stays the same is
certain.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain, repeat, starmap
from typing import TYPE_CHECKING, Any, TypeAlias

from attrs import evolve

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ase import Atoms

    from crystalmath.models.inputs import StepInputs
    from crystalmath.plugins.report import Report, Step

#: Records why a recipe cannot go on, and returns the exception to raise.
Stop: TypeAlias = Callable[[str], BaseException]


class Unseen(dict[str, Any]):
    """Stands for the results of a calculation that did not run."""

    #: Magnetic moments on the atoms, in µB, if the gate assumes any.
    moments: Any = None

    def __init__(self, stop: Stop) -> None:
        super().__init__()
        self._end = stop

    def _stop(self, *_: object, **__: object) -> Any:
        raise self._end("the results of a calculation are needed")

    __getitem__ = __contains__ = __iter__ = __len__ = _stop
    items = keys = values = copy = pop = clear = update = _stop

    def get(self, key: str, default: object = None) -> Any:
        """Return assumed moments, or the default of results that choose no file."""
        # quacc and pymatgen pass these on to the next calculation of the same atoms.
        if key == "magmoms" and self.moments is not None:
            return self.moments
        return default if key in {"magmoms", "charges"} else self[key]

    def __bool__(self) -> bool:
        return True

    def __deepcopy__(self, memo: object) -> Unseen:
        return self


class Outcome:
    """Stands for an optimizer, a dynamics or a vibration analysis that did not run."""

    def __init__(self, atoms: Atoms, stop: Stop) -> None:
        self.atoms = atoms
        self._end = stop

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise self._end(f"the {name!r} of a calculation is needed")


class Summary(dict[str, Any]):
    """Stands for the summary of a calculation that did not run; parts of it are known."""

    def __init__(self, known: Mapping[str, Any], stop: Stop) -> None:
        super().__init__(known)
        self._end = stop

    def __missing__(self, key: str) -> Any:
        raise self._end(f"the {key!r} of a result is needed")

    def __contains__(self, key: object) -> bool:
        return super().__contains__(key) or self.__missing__(str(key))

    def get(self, key: str, _: object = None, /) -> Any:
        """Return a known part; the default would look like a result, so it is never used."""
        return self[key]


#: More cores than any machine has.
CORES = 1_000_000

#: The moments on each atom with which calculations are assumed to end, in µB.
MOMENTS = (0.0, 1.25)
#: The assumed change of the structure, as strain and in Å. It is large enough to change meshes of
#: k-points that are made from the cell.
_STRAIN = 0.3
_STEP = 0.1


def move(atoms: Atoms) -> None:
    """Move atoms in place, as if they had been relaxed."""
    import numpy as np

    constraints, atoms.constraints = atoms.constraints, []
    atoms.set_cell(atoms.cell.array * (1 + _STRAIN), scale_atoms=True)
    numbers = np.arange(3 * len(atoms)).reshape(-1, 3)
    atoms.positions += _STEP * np.sin(1.0 + numbers)
    atoms.constraints = constraints


def with_cores(report: Report, other: Report) -> Report:
    """Note the settings that differ from another report, made for a machine with `CORES`."""
    return evolve(report, steps=tuple(starmap(_of_cores, _pairs(report, other))))


def with_certainty(report: Report, other: Report) -> Report:
    """Mark the settings that differ from another report, whose calculations ended otherwise."""
    return evolve(report, steps=tuple(starmap(_compared, _pairs(report, other))))


def _pairs(report: Report, other: Report) -> Iterator[tuple[Step, Step | None]]:
    others = chain(other.steps, repeat(None))
    return zip(report.steps, others, strict=False)


def _of_cores(step: Step, other: Step | None) -> Step:
    if step.inputs is None or other is None or other.inputs is None:
        return step
    ours, theirs = (
        {(each.file, each.name): each.value for each in inputs.settings}
        for inputs in (step.inputs, other.inputs)
    )
    places = [place for place in {**ours, **theirs} if ours.get(place) != theirs.get(place)]
    return evolve(step, of_cores=tuple(places))


def _compared(step: Step, other: Step | None) -> Step:
    like = None if other is None or other.calculator != step.calculator else other
    starts = tuple(dict.fromkeys((*step.starts, *(like.starts if like else ()))))
    step = evolve(step, starts=starts)
    if step.inputs is None:
        return step
    return evolve(step, inputs=_marked(step.inputs, None if like is None else like.inputs))


def _marked(inputs: StepInputs, then: StepInputs | None) -> StepInputs:
    known = (
        set() if then is None else {(each.file, each.name, each.value) for each in then.settings}
    )
    settings = tuple(
        evolve(each, certain=each.certain and (each.file, each.name, each.value) in known)
        for each in inputs.settings
    )
    certain = inputs.certain and then is not None and inputs.files == then.files
    return evolve(inputs, settings=settings, certain=certain)
