"""The progress of a job's calculation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

from attrs import field, frozen

from crystalmath.models.fields import about, array, documented, from_wire, optional, properties
from crystalmath.models.written import force_text

_TEXT = {"type": "string"}
_COUNT = {"type": "integer", "minimum": 0}
_NUMBER = {"type": "number"}


@documented
@frozen(kw_only=True)
class IonicStep:
    """A step of a relaxation or of dynamics that was computed to its end."""

    calculation: int = field(
        metadata=about("the number of its calculation in the job, from 1", _COUNT)
    )
    ionic_step: int = field(metadata=about("its number, as the program counts", _COUNT))
    energy_ev: float | None = optional("its energy, in eV", _NUMBER)
    max_force_ev_ang: float | None = optional("the largest force on an atom, in eV/Å", _NUMBER)


def step_numbers(steps: Iterable[IonicStep]) -> list[int]:
    """Return the numbers of ionic steps as their program counts, through all calculations.

    A later calculation goes on from the one before. Curves, lists and messages thus name a step
    alike: an optimizer of ASE begins with 0, VASP with 1.
    The page has the same rule (``stepNumbers`` in ``formats.js``).
    """
    numbers: list[int] = []
    before, shift = None, 0
    for step in steps:
        if before is not None and step.calculation != before:
            shift = numbers[-1] + 1 - step.ionic_step
        before = step.calculation
        numbers.append(step.ionic_step + shift)
    return numbers


_STEP = properties(IonicStep, answer=True)


def _steps(
    steps: Iterable[IonicStep | Mapping[str, Any]] | None,
) -> tuple[IonicStep, ...] | None:
    """Read steps as they are on the wire."""
    if steps is None:
        return None
    return tuple(
        IonicStep(**from_wire(IonicStep, step)) if isinstance(step, Mapping) else step
        for step in steps
    )


@documented
@frozen(kw_only=True)
class Progress:
    """The progress of a job's newest calculation, by its output so far."""

    program: str = field(metadata=about("the program, or ASE, whose output was read", _TEXT))
    calculation: int = field(
        metadata=about("its number among the job's calculations, from 1", _COUNT)
    )
    file: str = field(
        metadata=about(
            "the output, below the job's work directory, or its whole path elsewhere", _TEXT
        )
    )
    updated_at: float = field(
        metadata=about("the time of the last output, in seconds since the epoch", _NUMBER)
    )
    ionic_step: int | None = optional("the step of the relaxation or dynamics", _COUNT)
    electronic_step: int | None = optional("the step of the self-consistent cycle in it", _COUNT)
    energy_ev: float | None = optional(
        "the energy of the last ionic step (in the first one: of its last electronic step), in eV",
        _NUMBER,
    )
    max_force_ev_ang: float | None = optional(
        "the largest force on an atom after the last ionic step, in eV/Å", _NUMBER
    )
    history: Sequence[IonicStep] | None = field(
        default=None,
        converter=_steps,
        metadata=about(
            "the ionic steps of all of the job's calculations, the oldest first, where they were "
            "asked for",
            array({"type": "object", "properties": _STEP, "required": list(_STEP)}),
        ),
    )

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        """Read an answer of ``jobs.progress``."""
        return cls(**from_wire(cls, document))

    def _repr_html_(self) -> str:
        from crystalmath.models.notebook import progress_html

        return progress_html(self)

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        from crystalmath.models.notebook import bundle

        return bundle(self)

    def __str__(self) -> str:
        steps = [
            f"{name} step {step}"
            for name, step in (("ionic", self.ionic_step), ("electronic", self.electronic_step))
            if step is not None
        ]
        values = [f"{self.energy_ev:.6f} eV"] if self.energy_ev is not None else []
        if self.max_force_ev_ang is not None:
            values.append(f"{force_text(self.max_force_ev_ang)} eV/Å")
        number = f"calculation {self.calculation}"
        return ", ".join([self.program, number, *steps, *values])
