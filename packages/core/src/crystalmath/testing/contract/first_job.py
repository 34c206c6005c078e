"""The job that is run before all others."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import pytest

from crystalmath.quacc import JobState
from crystalmath.testing.contract.base import Base

if TYPE_CHECKING:
    from crystalmath.testing.contract.base import Call
    from crystalmath.testing.measuring import PaceError


class FirstJob(Base):
    """An engine that does not pass here passes nowhere."""

    guide: ClassVar[str] = "Launch"

    def test_one_job_ends(self, unmeasured: PaceError | None, submit: Call, finish: Call) -> None:
        """It is launched, run by a worker, and its result is there."""
        if unmeasured is not None:
            pytest.fail(str(unmeasured))
        state, result = finish(submit("echo", x=1))
        assert state is JobState.COMPLETED, result
        assert result == {"symbols": ["Al"], "x": 1}
