"""What a job asks of the machine: it gets that, or it is refused; nothing is ignored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from crystalmath import config
from crystalmath.errors import InvalidJob
from crystalmath.models import JobSpec, Resources
from crystalmath.models.fields import declared
from crystalmath.quacc.engine import submission_environment
from crystalmath.quacc.runner import JobState, generate_job_id
from crystalmath.testing.contract.base import AL, Base
from crystalmath.testing.owner import RECIPES

if TYPE_CHECKING:
    from crystalmath.quacc.engine import EngineRunner
    from crystalmath.testing.contract.base import Call
    from crystalmath.testing.oracle import Oracle
    from crystalmath.testing.subject import EngineUnderTest

#: Of each resource more than every engine gives.
ASKED: dict[str, Any] = {
    "nodes": 2,
    "ranks": 2,
    "ranks_per_node": 2,
    "cores_per_rank": 2,
    "gpus_per_rank": 1,
    "memory_mb": 100,
    "queue": "no-such-queue",
    "account": "no-such-account",
    "reservation": "no-such-reservation",
    "options": {"no-such-option": "1"},
}
#: What tells of a resource in the job's environment.
SEEN = {"ranks": ("QUACC_VASP_PARALLEL_CMD", "2"), "cores_per_rank": ("OMP_NUM_THREADS", "2")}


def _spec(**resources: Any) -> JobSpec:
    environment = submission_environment(config.load())
    for variable, _ in SEEN.values():
        environment.pop(variable, None)
    return JobSpec(
        job_id=generate_job_id(),
        recipe=f"{RECIPES}.surroundings",
        atoms=AL,
        resources=Resources(**resources),
        environment=environment,
    )


class ResourcesAsked(Base):
    """On the cluster ``local``. What only a scheduler sees is for an engine's own tests."""

    guide: ClassVar[str] = "Resources"

    def test_names_of_resources(self, runner: EngineRunner) -> None:
        known = {one.name for one in declared(Resources)}
        assert known == ASKED.keys()
        for named in (runner.capabilities.resources, runner.honoured("local")):
            assert isinstance(named, frozenset)
            assert named <= known, f"these are no resources: {named - known}"

    @pytest.mark.parametrize("name", list(ASKED))
    def test_resources_not_honoured_are_refused(
        self, runner: EngineRunner, engine: EngineUnderTest, oracle: Oracle, name: str
    ) -> None:
        spec = _spec(**{name: ASKED[name]})
        if spec.resources.needed() <= runner.honoured("local"):
            pytest.skip(f"the engine declares that it honours {name}")
        with pytest.raises(InvalidJob) as refused:
            runner.start(spec)
        told = str(refused.value)
        assert engine.name in told
        assert any(repr(needed) in told for needed in spec.resources.needed()), told
        assert not oracle.directory(spec.job_id).exists()

    @pytest.mark.parametrize("name", list(SEEN))
    def test_resources_reach_the_job(self, runner: EngineRunner, finish: Call, name: str) -> None:
        if name not in runner.honoured("local"):
            pytest.skip(f"the engine declares that it does not honour {name}")
        cores = runner.cores("local")
        if cores is not None and cores < ASKED[name]:
            pytest.skip(f"a node has no {ASKED[name]} cores")
        spec = _spec(**{name: ASKED[name]})
        runner.start(spec)
        state, result = finish(spec.job_id)
        assert state is JobState.COMPLETED, result
        variable, number = SEEN[name]
        assert number in result["environment"].get(variable, "").split()
