"""What the server's process had in use for a moment is freed, whenever its memory is looked at."""

import gc
import sys
import weakref

import pytest
from ase.build import bulk

from conftest import eventually
from crystalmath.errors import KeyConflict, UnknownJob
from crystalmath.models import Submission
from crystalmath.models.retry import Retry
from crystalmath.server.daemon import CycleCollector
from crystalmath.server.handlers import METHODS


class Cycle:
    """What only the collector of cycles can free."""

    def __init__(self):
        self.self = self


@pytest.fixture(autouse=True)
def nothing_is_passed_over():
    enabled = gc.isenabled()
    gc.disable()  # a collection by itself would free all the same
    yield
    gc.unfreeze()
    if enabled:
        gc.enable()


@pytest.mark.parametrize("first", [False, True], ids=["amid work", "at rest"])
@pytest.mark.parametrize("then", [1, 3], ids=["once more", "several times more"])
def test_what_was_in_use_is_freed_at_the_next_rest(first, then, monkeypatch):
    used = Cycle()
    freed = weakref.ref(used)
    free_cycles = CycleCollector().free
    free_cycles(at_rest=first)
    monkeypatch.setitem(sys.modules, "just_imported", sys)
    free_cycles(at_rest=first)
    del used
    for _ in range(then):
        free_cycles(at_rest=True)
    assert freed() is None


def test_what_is_used_amid_work_is_freed_amid_work():
    free_cycles = CycleCollector().free
    free_cycles(at_rest=True)
    used = Cycle()
    freed = weakref.ref(used)
    free_cycles(at_rest=False)
    assert freed() is used
    del used
    free_cycles(at_rest=False)
    assert freed() is None


class Given(dict):
    """Parameters that tell when they are freed."""


async def test_what_was_refused_is_freed_without_the_collector(service):
    given = Given(unknown="x")
    freed = weakref.ref(given)
    asked = {"recipe": "lab_recipes.value", "engine": "local", "structure": {"symbols": "Al"}}
    answer = await METHODS["jobs.submit"].handler(service, {**asked, "params": given})
    assert "no parameter 'unknown'" in answer["error"]
    del given
    # The thread that looked at it may not have let go of it yet.
    eventually(lambda: freed() is None)


def test_a_refused_retry_is_freed_without_the_collector(service):
    answers = service.retry(["no such job"], Retry())
    assert isinstance(answers[0], UnknownJob)
    freed = weakref.ref(answers[0])
    del answers
    assert freed() is None


def test_a_key_that_another_job_has_is_refused_without_work_for_the_collector(service):
    jobs = [
        Submission(recipe="lab_recipes.value", atoms=bulk("Al"), parameters={"number": n}, key="k")
        for n in (1, 2)
    ]
    answers = service.submit_many(jobs)
    assert isinstance(answers[1], KeyConflict)
    freed = weakref.ref(answers[1])
    del answers
    assert freed() is None
