"""Flows of one's own: functions with quacc's ``@flow``, whose calls of jobs become steps.

A flow's body runs again whenever steps that it needs have ended, so it must make the same calls
for the same results. :func:`step` keeps values that would differ each time::

    from crystalmath.flow import step

    @flow
    def search(atoms, tries=8):
        seeds = step(numpy.random.default_rng().integers, 2**32, size=tries)
        return [relax_job(rattled(atoms, seed)) for seed in seeds]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ParamSpec, Protocol, TypeVar

from crystalmath.errors import CrystalMathError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["StepFailed", "step"]

P = ParamSpec("P")
R = TypeVar("R")


class StepFailed(CrystalMathError):  # noqa: N818 - a fixed name
    """A step of a flow has failed or was cancelled; the message names the step, its job and why.

    In the body of a flow the call of a failed step raises the step's own error if its class is
    imported there and takes its arguments, else this one.
    """

    code = "step_failed"


class _Recorder(Protocol):
    def __call__(
        self, function: Callable[..., Any], args: tuple[Any, ...], keywords: dict[str, Any]
    ) -> Any: ...


#: Keeps the results of :func:`step` while a pass of a flow runs in this process.
recorder: _Recorder | None = None


def step(function: Callable[P, R], /, *args: P.args, **keywords: P.kwargs) -> R:
    """Call a function once in a flow's life, and return what it returned then.

    It is for random values, the time, and long computations in the body of a flow. The result is
    kept with the flow's files. Outside a flow whose steps are jobs it only calls the function.

    Parameters
    ----------
    function : callable
        Any function; it need not be importable.
    *args, **keywords
        Its arguments. They must be the same in each pass of the flow.

    Returns
    -------
    object
        The function's result, as it is read back: numbers, texts, containers, numpy arrays, dates,
        paths, Atoms, and results of quacc's recipes.

    Raises
    ------
    Exception
        The error of the function, which is called again in the next pass.
    """
    if recorder is None:
        return function(*args, **keywords)
    kept: R = recorder(function, args, keywords)
    return kept
