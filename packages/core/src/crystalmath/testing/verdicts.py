"""What a run of the kit says of each promise: kept, broken, or not tried, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@frozen
class Verdict:
    """One promise, which one test asks about, perhaps in several cases.

    Parameters
    ----------
    topic : str
        What it is about.
    test : str
        The test, to look closer: ``-k TEST``.
    promise : str
        What is asked of the engine.
    guide : str
        The section of the guide that says what an author does for it.
    state : str
        ``kept``, ``broken`` or ``not tried``.
    reason : str, optional
        Why it is not kept: what the first case said.
    """

    topic: str
    test: str
    promise: str
    guide: str
    state: Literal["kept", "broken", "not tried"]
    reason: str | None


def judge(
    chosen: Iterable[Mapping[str, Any]], finished: Iterable[Mapping[str, Any]], why: str
) -> list[Verdict]:
    """Judge the promises of chosen tests by those that have finished; `why` others have not."""
    ended = {test["name"]: test for test in finished}
    promises: dict[str, list[Mapping[str, Any]]] = {}
    for test in chosen:
        promises.setdefault(test["function"], []).append(test)
    return [
        _judge(tests[0], [ended[test["name"]] for test in tests if test["name"] in ended], why)
        for tests in promises.values()
    ]


def _judge(test: Mapping[str, Any], cases: list[Mapping[str, Any]], why: str) -> Verdict:
    outcomes = {case["outcome"]: case for case in reversed(cases)}  # the first of each
    broken = outcomes.get("failed") or outcomes.get("xfailed")
    reason: str | None = None
    state: Literal["kept", "broken", "not tried"] = "not tried"
    if broken:
        state, reason = "broken", broken["reason"]
    elif "passed" in outcomes:
        state = "kept"
    else:
        reason = cases[0]["reason"] if cases else why
    return Verdict(
        topic=test["topic"],
        test=test["function"],
        promise=test["promise"],
        guide=test["guide"],
        state=state,
        reason=reason,
    )
