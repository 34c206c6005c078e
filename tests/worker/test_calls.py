"""The calls of a batched function: each job is computed once, and bad ones end up alone."""

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from crystalmath.worker.calls import Calls, Limits

SIZES = st.lists(st.integers(1, 50), min_size=1, max_size=300)
LIMITS = st.builds(Limits, st.integers(1, 64), st.none() | st.integers(1, 500))


def drain(calls, compute, bad=frozenset()):
    """Make all calls; return what was computed, call by call. One job alone always ends."""
    made = []
    while call := calls.next():
        made.append(call)
        if len(call) > 1:
            compute(call)
        else:
            calls.ended_alone(*call, failed=call[0] in bad)
    return made


@given(SIZES, LIMITS)
def test_each_job_is_computed_once_in_calls_within_the_limits(sizes, limits):
    made = drain(Calls([range(len(sizes))], sizes, limits), lambda call: None)
    assert [job for call in made for job in call] == list(range(len(sizes)))
    for call in made:
        assert len(call) <= limits.most
        atoms = sum(sizes[job] for job in call)
        assert len(call) == 1 or limits.atoms is None or atoms <= limits.atoms


@given(SIZES, LIMITS, st.data())
def test_a_bad_job_ends_up_alone_and_a_good_one_is_done_once(sizes, limits, data):
    jobs = range(len(sizes))
    bad = data.draw(st.sets(st.sampled_from(jobs), max_size=5))
    yields = data.draw(st.booleans())
    calls, done = Calls([jobs], sizes, limits), []

    def compute(call):
        first = next((at for at, job in enumerate(call) if job in bad), None)
        if first is None:
            done.extend(call)
        else:
            count = first if yields else 0
            done.extend(call[:count])
            calls.failed(call[count:], done=count)

    made = drain(calls, compute)
    alone = [call[0] for call in made if len(call) == 1]
    assert sorted(done + alone) == list(jobs)
    assert bad <= {*alone}
    if yields:
        # A generator that fails at its first structure has done nothing, and is halved.
        wasted = sum(map(len, made)) - len(jobs)
        assert wasted <= 2 * limits.most * len(bad)


@given(st.integers(2, 300), st.integers(1, 64), st.integers(1, 40))
def test_the_limits_shrink_until_the_memory_is_enough(count, most, room):
    limits = Limits(most)
    calls, made = Calls([range(count)], [1] * count, limits), []

    def compute(call):
        if len(call) > room:
            calls.too_large(call, call)
        else:
            made.extend(call)
            calls.fitted(call)

    alone = [call[0] for call in drain(calls, compute) if len(call) == 1]
    assert sorted(made + alone) == list(range(count))
    assert limits.most <= max(most, 1)


@given(SIZES, LIMITS, st.data())
def test_jobs_that_no_memory_holds_end_alone_and_leave_the_limits(sizes, limits, data):
    jobs, before = range(len(sizes)), evolve(limits)
    bad = data.draw(st.sets(st.sampled_from(jobs), max_size=5))
    calls, done = Calls([jobs], sizes, limits), []

    def compute(call):
        if bad & {*call}:
            calls.too_large(call, call)
        else:
            done.extend(call)
            calls.fitted(call)

    made = drain(calls, compute, bad)
    alone = [call[0] for call in made if len(call) == 1]
    assert sorted(done + alone) == list(jobs)
    assert bad <= {*alone}
    assert limits == before


def test_groups_do_not_share_a_call():
    calls = Calls([[0, 2], [1, 3, 4]], [1] * 5, Limits(10))
    assert [calls.next(), calls.next(), calls.next()] == [[0, 2], [1, 3, 4], []]
