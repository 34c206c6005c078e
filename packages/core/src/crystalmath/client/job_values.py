"""Values of jobs by their names: labels, parameters, energies, fields of a result."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from crystalmath import server
from crystalmath.client.results import MOST
from crystalmath.client.transport import PAGE
from crystalmath.errors import InvalidJob, shown
from crystalmath.models import JobState
from crystalmath.models.written import label_value
from crystalmath.wire import messages

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ase import Atoms

    from crystalmath.client.transport import Caller
    from crystalmath.models import Job

#: The values in a job's summary; the summary's own names are accepted, too.
_SUMMARY = {"energy": "energy_ev", "max_force": "max_force_ev_ang"}
_PER_ATOM = ("energy_per_atom", "energy_per_atom_ev")
#: The most names that an error lists for an unknown one.
_SHOWN = 12


class Documents:
    """Parameters and results of several jobs, fetched together when the first is needed."""

    def __init__(self, caller: Caller, jobs: Sequence[Job]) -> None:
        self._caller = caller
        self._ids = [job.job_id for job in jobs]
        self._completed = [job.job_id for job in jobs if job.state is JobState.COMPLETED]
        self._results: dict[str, bytes] = {}

    @cached_property
    def parameters(self) -> Mapping[str, Mapping[str, Any]]:
        """The recipe's parameters of each job, by its id."""
        return parameters_of(self._caller, self._ids)

    def result(self, job_id: str) -> bytes:
        """Return the JSON text of a job's result, once; it may be large."""
        if job_id not in self._results and job_id in self._completed:
            at = self._completed.index(job_id)
            answer = self._caller.ask(server.JOBS_RESULTS, job_ids=self._completed[at : at + MOST])
            if not answer["results"]:
                self._completed = []  # they are large: fetch each alone
            for each in answer["results"]:
                if "code" not in each:
                    self._results[each["job_id"]] = messages.dumps(each["result"])
        if job_id in self._results:
            return self._results.pop(job_id)
        # The result is too large to come with others, or the answer has the reason why not.
        return self._caller.result_text(job_id) or b"null"


def parameters_of(caller: Caller, job_ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """Return the recipe's parameters of jobs by their ids, fetched in requests of a fair size."""
    parameters: dict[str, Mapping[str, Any]] = {}
    left = list(job_ids)
    while left:
        answer = caller.ask(server.JOBS_PARAMETERS, job_ids=left[:PAGE])
        parameters |= {each["job_id"]: each["params"] or {} for each in answer["parameters"]}
        left = left[len(answer["parameters"]) :]
    return parameters


class JobValues:
    """The values of one job, by their names."""

    def __init__(self, job: Job, documents: Documents) -> None:
        self.job = job
        self._documents = documents

    @classmethod
    def of(cls, caller: Caller, jobs: Sequence[Job]) -> list[Self]:
        """Return the values of several jobs (`InvalidJob` if there are none)."""
        if not jobs:
            raise InvalidJob("there is nothing to draw: no jobs were given")
        documents = Documents(caller, jobs)
        return [cls(job, documents) for job in jobs]

    @property
    def _parameters(self) -> Mapping[str, Any]:
        return self._documents.parameters[self.job.job_id]

    @cached_property
    def _result(self) -> bytes:
        return self._documents.result(self.job.job_id)

    @cached_property
    def atoms(self) -> Atoms:
        """The structure to which the summary's energy belongs (`InvalidJob` if there is none)."""
        from crystalmath.recipes.summary import find_structures, read_structure

        return read_structure(find_structures(self._result).final)

    # --- of its submission -------------------------------------------------------------------

    def submitted(self, name: str) -> Any:
        """Return a label, else a parameter: ``opt_params.fmax`` (`InvalidJob` if it has neither).

        A label may be named as its column is, ``labels_encut``.
        """
        from crystalmath.models.columns import label_values

        labels = {**label_values(self.job.labels), **self.job.labels}
        if name in labels:
            return label_value(labels[name])
        value: Any = self._parameters
        for key in name.split("."):
            if not isinstance(value, Mapping) or key not in value:
                raise InvalidJob(f"has neither a label nor a parameter {name!r}")
            value = value[key]
        return value

    def submitted_names(self) -> set[str]:
        """Return the names of its labels and parameters."""
        return {*self.job.labels, *dict(_dotted(self._parameters))}

    def calculation(self) -> dict[str, Any]:
        """Return the recipe and the parameters, by dotted names."""
        return {"recipe": self.job.recipe, **dict(_dotted(self._parameters))}

    # --- of its result -----------------------------------------------------------------------

    def computed(self, name: str) -> float:
        """Return an energy in eV, a force in eV/Å, or a field; `InvalidJob`: there is none."""
        if self.job.state is not JobState.COMPLETED:
            state = self.job.state
            raise InvalidJob("has failed" if state is JobState.FAILED else f"is {state.value}")
        summary = self.job.summary or {}
        if name in _PER_ATOM:
            return self.computed("energy") / (summary.get("natoms") or len(self.atoms))
        kept = _SUMMARY.get(name, name)
        if kept in _SUMMARY.values():
            value = summary.get(kept)
            if value is None:
                raise InvalidJob(f"its result has no {name}")
            return float(value)
        return self._field(name)

    def _field(self, path: str) -> float:
        value = _untagged(json.loads(self._result))
        reached: list[str] = []
        for key in path.split("."):
            if isinstance(value, list) and key.lstrip("-").isdigit():
                try:
                    value = value[int(key)]
                except IndexError:
                    raise InvalidJob(
                        f"{'.'.join(reached)} of its result has {len(value)} items, and none "
                        f"numbered {key}"
                    ) from None
            elif isinstance(value, Mapping) and key in value:
                value = value[key]
            else:
                raise InvalidJob(_no_field(path, key, reached, value))
            value = _untagged(value)
            reached.append(key)
        return _number(path, value)


def differing(every: Sequence[JobValues]) -> list[str]:
    """Return the names of parameters in which jobs differ, or ``recipe``."""
    calculations = [each.calculation() for each in every]
    names = dict.fromkeys(name for one in calculations for name in one)
    return [name for name in names if len({json.dumps(one.get(name)) for one in calculations}) > 1]


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return the end of an error about an unknown name: the nearest one, and the known ones."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    if not names:
        return hint
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{hint or ';'} there are {', '.join(names[:_SHOWN])}{more}"


def _dotted(values: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and not any(str(name).startswith("@") for name in value):
            yield from ((f"{key}.{name}", inner) for name, inner in _dotted(value))
        else:
            yield key, value


def _no_field(path: str, key: str, reached: list[str], value: Any) -> str:
    place = f"{'.'.join(reached)} of its result" if reached else "its result"
    if not isinstance(value, Mapping):
        return f"{place} has no fields, so that there is no {path!r}"
    known = [name for name in map(str, value) if name[:1] != "@"]  # monty marks types so
    if not reached:
        known += [*_SUMMARY, _PER_ATOM[0]]
    return f"{place} has no field {key!r}{suggestion(key, known)}"


def _untagged(value: Any) -> Any:
    """Return the list in monty's form of an array, and any other value unchanged."""
    if isinstance(value, Mapping) and value.get("@class") == "array":
        return value.get("data")
    return value


def _number(path: str, value: Any) -> float:
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidJob(f"{path} of its result is no number, but {shown(value)}")
    return float(value)
