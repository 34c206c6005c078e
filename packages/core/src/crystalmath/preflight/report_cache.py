"""Earlier reports, kept while they hold.

A report is about files, so it holds while these are unchanged: the files that it names, the modules
of the recipe, quacc's and ASE's settings, and the files that the recipe read while it was called. A
missing file must still be missing.

Structures share a report if it depends on their elements alone, which each program declares
(:attr:`.report.Step.by_element`). Other properties can keep a calculation from beginning, and are
part of the key (:func:`_kind`): ghost atoms (which count as an element), no cell, no period,
constraints that some programs do not know, and moments with directions. If a parameter is a list,
the number of atoms is part of it, too. Positions, lengths of the cell, sizes of moments, charges,
tags and ``atoms.info`` choose no file.

Two reports serve only the same structure: one with a trouble, and one of a flow that makes
structures (slabs) and finds bad files, because other slabs may not need them.

A user's recipe may depend on anything, such as the time or other files. Its report serves the same
structure only, for as long as one submission takes, which asks twice.
"""

from __future__ import annotations

import builtins
import hashlib
import json
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sized
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from crystalmath.models import JobSpec
from crystalmath.recipes import codec, lookup
from crystalmath.worker.imports import settled, signature

if TYPE_CHECKING:
    from collections.abc import Hashable

    from ase import Atoms

    from crystalmath.plugins.report import Report

#: The number of reports that are kept.
SIZE = 512
#: The report of a user's own recipe is kept for so many seconds.
THEIRS_S = 0.5
_SMALLEST_VOLUME = 1e-6  # Å³


class Question:
    """A question about a recipe, with the keys under which its report is kept.

    `document` is structure and parameters as the child reads them, if they are encoded already.
    With `inputs` the report has the programs' input, and with `calls` the jobs that a flow
    certainly calls; neither is shared by another structure.
    """

    def __init__(
        self,
        recipe: str,
        atoms: Atoms | None,
        parameters: Mapping[str, Any],
        environment: Mapping[str, str],
        document: str | None = None,
        *,
        inputs: bool = False,
        calls: bool = False,
    ) -> None:
        self._document = document
        self.inputs = inputs
        self.calls = calls
        #: The time of the question, in seconds since the epoch.
        self.time = time.time()
        self.recipe = recipe
        self._atoms = atoms
        self._parameters = parameters
        encoded = json.dumps(codec.encode_request(dict(parameters)))
        self.ours = lookup.is_quaccs(recipe)
        self.environment = frozenset(environment.items())
        self._place = recipe, encoded, self.environment, inputs
        shares = self.ours and atoms is not None and not (inputs or calls)
        kind = _kind(atoms, parameters) if shares and atoms is not None else None
        self.shared: Hashable | None = None if kind is None else (*self._place, kind)

    @cached_property
    def elements(self) -> frozenset[str]:
        """The chemical symbols of the structure."""
        return frozenset(() if self._atoms is None else self._atoms.get_chemical_symbols())

    @cached_property
    def spec(self) -> str:
        """Structure and parameters as the child reads them."""
        if self._document is not None:
            return self._document
        spec = JobSpec(
            job_id="", recipe=self.recipe, atoms=self._atoms, parameters=self._parameters
        )
        return codec.encode_spec(spec)

    @cached_property
    def exact(self) -> Hashable:
        """The key of this structure alone."""
        return (*self._of_structure, self.calls)

    @cached_property
    def with_calls(self) -> Hashable:
        """The key of a report that has the calls, too."""
        return (*self._of_structure, True)

    @cached_property
    def _of_structure(self) -> tuple[Hashable, ...]:
        return (*self._place, hashlib.sha256(self.spec.encode()).digest())


class _Known(NamedTuple):
    report: Report
    files: Mapping[str, tuple[int, ...]]
    until: float


class ReportCache:
    """The reports of this process; safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reports: OrderedDict[Hashable, _Known] = OrderedDict()

    def find(self, question: Question) -> Report | None:
        """Return the report of the same question, if it still holds."""
        if question.shared and (report := self._look_up(question.shared)):
            return report
        return self._look_up(question.exact) or self._look_up(question.with_calls)

    def keep(self, question: Question, report: Report, watched: Mapping[str, Any]) -> None:
        """Keep a report, unless a change of its files might go unnoticed.

        `watched` has the signatures of the files that were read for it.
        """
        known = {path: tuple(seen) for path, seen in watched.items() if seen is not None}
        seen = [*known.values(), *(facts.signature for facts in report.files.values())]
        sure = all(settled(each, question.time) for each in seen if each)
        if len(known) < len(watched) or not sure or not _holds_of_files(report):
            return
        key = question.shared if _is_common(question, report) else question.exact
        with self._lock:
            until = math.inf if question.ours else time.monotonic() + THEIRS_S
            self._reports[key] = _Known(report, known, until)
            self._reports.move_to_end(key)
            while len(self._reports) > SIZE:
                self._reports.popitem(last=False)

    def _look_up(self, key: Hashable) -> Report | None:
        with self._lock:
            known = self._reports.get(key)
            if known is None or known.until < time.monotonic():
                return None
            self._reports.move_to_end(key)
        # A relative path is looked up in the job's own directory, which is empty.
        holds = all(
            not path.startswith("/") or (signature(path) or None) == facts.signature
            for path, facts in known.report.files.items()
        ) and all(signature(path) == seen for path, seen in known.files.items())
        return known.report if holds else None


def _kind(atoms: Atoms, parameters: Mapping[str, Any]) -> Hashable | None:
    """Return the properties of a structure that may stop a calculation; ``None`` if too many."""
    from ase.constraints import FixAtoms

    if any(type(constraint) is not FixAtoms for constraint in atoms.constraints):
        return None
    return (
        # The order of the elements is that of the files.
        tuple(dict.fromkeys(atoms.numbers.tolist())),
        tuple(atoms.pbc.tolist()),
        3 if atoms.cell.volume > _SMALLEST_VOLUME else (atoms.cell.rank, "flat"),
        len(atoms) if _has_list(parameters) else None,
        atoms.arrays.get("initial_magmoms", atoms.numbers).ndim,
    )


def _has_list(value: object) -> bool:
    """Return whether parameters hold a list, which may have a value for each atom."""
    if isinstance(value, Mapping):
        return any(map(_has_list, value.values()))
    return isinstance(value, Sized) and not isinstance(value, (str, bytes))


def _is_common(question: Question, report: Report) -> bool:
    """Return whether other structures of the kind have the same report."""
    sound = not any(facts.problem for facts in report.files.values())
    seen = {need.symbol for step in report.steps for need in step.needs}
    return (
        question.shared is not None
        and seen >= question.elements
        and all(step.by_element and not step.by_index for step in report.steps)
        and (sound or len(report.steps) == 1)
    )


def _holds_of_files(report: Report) -> bool:
    """Return whether only changes of watched files can change the report."""
    if any(step.troubles for step in report.steps) or report.end == "failed":
        return False
    kind = getattr(builtins, report.trouble.type, None) if report.trouble else None
    return not (isinstance(kind, type) and issubclass(kind, OSError))
