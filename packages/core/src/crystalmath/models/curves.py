"""What is drawn of several jobs: a sweep, an equation of state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import field, frozen

from crystalmath.models.fields import about, documented, optional

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_TEXT = {"type": "string"}
_NUMBER = {"type": "number"}
_LIST = {"type": "array"}
_LEFT_OUT = about("jobs that give no point, by their ids, and why", {"type": "object"})


@documented
@frozen(kw_only=True)
class Series:
    """Points that belong together, sorted by x."""

    name: str | None = optional("what they share, kpts=[3,3,3]", _TEXT)
    x: Sequence[float | str] = field(
        metadata=about("numbers; texts where not all of them are numbers", _LIST)
    )
    y: Sequence[float] = field(metadata=about("the values", _LIST))
    job_ids: Sequence[str] = field(metadata=about("the job of each point", _LIST))


@documented
@frozen(kw_only=True)
class Sweep:
    """A value of jobs against one of their labels or parameters."""

    x: str = field(metadata=about("the label or parameter", _TEXT))
    y: str = field(metadata=about("the value: energy (eV), energy_per_atom (eV), ...", _TEXT))
    by: str | None = optional("what tells the series apart", _TEXT)
    series: Sequence[Series] = field(metadata=about("the points, sorted", _LIST))
    categories: Sequence[str] = field(
        metadata=about("the texts that are x, in their order; none where x are numbers", _LIST)
    )
    left_out: Mapping[str, str] = field(metadata=_LEFT_OUT)


@documented
@frozen(kw_only=True)
class EquationOfState:
    """Energies of a cell against its volume, and what Birch and Murnaghan make of them."""

    name: str | None = optional("what they share, metal=Cu", _TEXT)
    formula: str = field(metadata=about("the atoms of the cell", _TEXT))
    volumes_ang3: Sequence[float] = field(
        metadata=about("the volumes of the cell in Å³, the smallest first", _LIST)
    )
    energies_ev: Sequence[float] = field(metadata=about("the energy at each, in eV", _LIST))
    job_ids: Sequence[str] = field(metadata=about("the job of each", _LIST))
    v0_ang3: float = field(metadata=about("the volume of the smallest energy, in Å³", _NUMBER))
    e0_ev: float = field(metadata=about("the smallest energy, in eV", _NUMBER))
    b_gpa: float = field(metadata=about("the bulk modulus there, in GPa", _NUMBER))
    b_prime: float = field(metadata=about("its derivative by the pressure", _NUMBER))
    differing: Sequence[str] = field(
        metadata=about("in what of recipe and parameters the jobs differ; all should be one", _LIST)
    )
    left_out: Mapping[str, str] = field(metadata=_LEFT_OUT)

    @property
    def is_bracketed(self) -> bool:
        """Whether there are smaller and larger volumes than that of the smallest energy."""
        return self.volumes_ang3[0] < self.v0_ang3 < self.volumes_ang3[-1]


@documented
@frozen(kw_only=True)
class EquationsOfState:
    """An equation of state for each value of a label or parameter."""

    by: str = field(metadata=about("what tells them apart", _TEXT))
    states: Sequence[EquationOfState] = field(metadata=about("one for each value", _LIST))
    left_out: Mapping[str, str] = field(metadata=_LEFT_OUT)
