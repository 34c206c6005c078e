"""How far a job's calculation has come."""

from __future__ import annotations

from attrs import field, frozen

from crystalmath.models.fields import about, documented

__all__ = ["Progress"]

_TEXT = {"type": "string"}
_COUNT = {"type": "integer", "minimum": 0}
_NUMBER = {"type": "number"}


@documented
@frozen(kw_only=True)
class Progress:
    """What a job's newest calculation has written of itself so far."""

    program: str = field(metadata=about("the program, or ASE, whose output was read", _TEXT))
    calculation: int = field(
        metadata=about("which of the job's calculations that is, from 1", _COUNT)
    )
    file: str = field(metadata=about("the output, below the job's work directory", _TEXT))
    updated_at: float = field(
        metadata=about("when that was last written to, in seconds since the epoch", _NUMBER)
    )
    ionic_step: int | None = field(
        default=None, metadata=about("the step of the relaxation or dynamics", _COUNT)
    )
    electronic_step: int | None = field(
        default=None, metadata=about("the step of the self-consistent cycle in it", _COUNT)
    )
    energy_ev: float | None = field(
        default=None,
        metadata=about(
            "the energy of the last ionic step, of the first one that of its last electronic "
            "step, in eV",
            _NUMBER,
        ),
    )
    max_force_ev_ang: float | None = field(
        default=None,
        metadata=about("the largest force on an atom after the last ionic step, in eV/Å", _NUMBER),
    )

    def __str__(self) -> str:
        steps = [
            f"{name} step {step}"
            for name, step in (("ionic", self.ionic_step), ("electronic", self.electronic_step))
            if step is not None
        ]
        values = [
            f"{value:.{digits}f} {unit}"
            for value, digits, unit in (
                (self.energy_ev, 6, "eV"),
                (self.max_force_ev_ang, 4, "eV/Å"),
            )
            if value is not None
        ]
        number = f"calculation {self.calculation}"
        return ", ".join([self.program, number, *steps, *values])
