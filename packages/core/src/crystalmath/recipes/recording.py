"""Scripts written for quacc alone: each call of a job or flow becomes a submission."""

from __future__ import annotations

import contextlib
import inspect
import sys
from typing import TYPE_CHECKING, Any, Protocol

from crystalmath.errors import CrystalMathError, InvalidJob

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


class Submit(Protocol):
    """Submits the call of a recipe."""

    def __call__(
        self,
        recipe: Callable[..., Any],
        atoms: Any,
        parameters: Mapping[str, Any],
        *,
        is_flow: bool,
    ) -> object:
        """Return the future of the job."""


@contextlib.contextmanager
def recording(submit: Submit, allow: tuple[str, ...]) -> Iterator[None]:
    """Have calls of quacc submit jobs, in all threads; see :meth:`.Client.recording`."""
    from quacc import get_settings
    from quacc.wflow_tools import context

    engine = get_settings().WORKFLOW_ENGINE
    if engine is not None:
        raise CrystalMathError(
            f"quacc is set to run its jobs by {engine} (WORKFLOW_ENGINE), so that their calls do "
            "not come here; set QUACC_WORKFLOW_ENGINE=None before quacc is imported"
        )
    # It is private, but all calls go through it, also those of functions imported earlier.
    seam = vars(context)
    before = seam["_tracked_call"]
    if before.__module__ == __name__:
        raise CrystalMathError(
            "the calls of quacc's jobs are recorded already, in this whole process; leave that "
            "recording before another one begins"
        )

    def call(
        function: Callable[..., Any],
        kind: Any,
        args: tuple[Any, ...],
        keywords: dict[str, Any],
    ) -> Any:
        if _is_importable(function):
            is_flow = kind is context.NodeType.FLOW
            structure, parameters = _arguments(function, args, keywords, allow)
            return submit(function, structure, parameters, is_flow=is_flow)
        if kind is context.NodeType.FLOW:
            # Its body runs here, and the calls in it are submitted.
            return function(*args, **keywords)
        raise InvalidJob(
            f"no worker can import {function.__qualname__} as it is called here: it is defined in "
            "this script or notebook, or inside a function, or wrapped (settings_swap). Put it at "
            "the top level of a module of its own, and have quacc.change_settings around the call"
        )

    seam["_tracked_call"] = call
    try:
        yield
    finally:
        seam["_tracked_call"] = before


def _is_importable(function: Callable[..., Any]) -> bool:
    """Return whether any process that imports a function by its name gets this function."""
    module = function.__module__
    imported = getattr(sys.modules.get(module), function.__qualname__, None)
    return module != "__main__" and function in (imported, getattr(imported, "__wrapped__", None))


def _arguments(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    keywords: dict[str, Any],
    allow: tuple[str, ...],
) -> tuple[Any, dict[str, Any]]:
    """Separate the structure of a call from its parameters, which are passed by name."""
    from crystalmath.recipes.arguments import structure_argument
    from crystalmath.recipes.lookup import look_up

    signature = inspect.signature(function)
    arguments = dict(signature.bind(*args, **keywords).arguments)
    first = structure_argument(look_up(f"{function.__module__}.{function.__qualname__}", allow))
    structure = None if first is None else arguments.pop(first.name, None)
    for name, parameter in signature.parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            arguments |= arguments.pop(name, {})
        elif parameter.kind is inspect.Parameter.VAR_POSITIONAL and arguments.pop(name, ()):
            raise InvalidJob(
                f"{function.__qualname__}: what *{name} takes has no name to pass it by"
            )
    return structure, arguments
