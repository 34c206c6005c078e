"""The contract that every engine keeps, with one module for each topic."""

from __future__ import annotations

from typing import Any

from crystalmath.testing.contract.base import Base
from crystalmath.testing.contract.boundary import Boundary, HandedOver
from crystalmath.testing.contract.calls import Calls
from crystalmath.testing.contract.closing import Closing
from crystalmath.testing.contract.clusters import ClusterTables, ResourcesAsked
from crystalmath.testing.contract.hygiene import Hygiene
from crystalmath.testing.contract.mishaps import Mishaps, Outages
from crystalmath.testing.contract.outcomes import FirstJob, Outcomes
from crystalmath.testing.contract.restarts import Honesty, Restarts
from crystalmath.testing.contract.submission import Cancelling, Submission
from crystalmath.testing.contract.surroundings import Inheritance, Surroundings
from crystalmath.testing.contract.turns import Turns


class RunnerContract(
    Submission,
    Outcomes,
    Cancelling,
    Boundary,
    HandedOver,
    Turns,
    Honesty,
    ResourcesAsked,
    ClusterTables,
    Restarts,
    Outages,
    Closing,
    Calls,
    Inheritance,
    Surroundings,
    Mishaps,
    Hygiene,
    FirstJob,
    Base,
):
    """The tests that an engine must pass; subclass it and fill in the fixture ``engine``.

    A test may be replaced only by one that is marked ``xfail`` with a reason and calls the
    original::

        @pytest.mark.xfail(reason="our queue forgets its jobs when the server restarts")
        def test_probe_after_restart(self, ...):
            super().test_probe_after_restart(...)
    """

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        replaced = [name for name in _TESTS if not _kept(cls, name)]
        if replaced:
            raise TypeError(
                f"{cls.__name__} removes or replaces {', '.join(replaced)}: mark a test that "
                'cannot pass with @pytest.mark.xfail(reason="...") and call the original'
            )


_TESTS = [name for name in dir(RunnerContract) if name.startswith("test")]


def _kept(cls: type, name: str) -> bool:
    test = getattr(cls, name, None)
    if test is getattr(RunnerContract, name):
        return True
    marks = getattr(test, "pytestmark", ())
    return any(mark.name == "xfail" and mark.kwargs.get("reason") for mark in marks)
