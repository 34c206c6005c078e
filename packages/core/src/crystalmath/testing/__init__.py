"""The conformance kit for engine authors: ``pip install crystalmath[testing]``.

Subclass :class:`RunnerContract` in a test module, fill in one fixture, and run pytest::

    import pytest
    from crystalmath.testing import EngineUnderTest, RunnerContract

    class TestMine(RunnerContract):
        @pytest.fixture
        def engine(self):
            return EngineUnderTest("mine", options={"workers": 2}, workers=2)

Authors of other plugins subclass :class:`PreflightContract` or :class:`ReaderContract`, with
fixtures for the plugin's name and for cases.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crystalmath.testing.contract import RunnerContract
    from crystalmath.testing.plugin_contract import (
        PreflightCase,
        PreflightContract,
        ReaderCase,
        ReaderContract,
    )
    from crystalmath.testing.subject import EngineUnderTest

__all__ = [
    "EngineUnderTest",
    "PreflightCase",
    "PreflightContract",
    "ReaderCase",
    "ReaderContract",
    "RunnerContract",
]

_HOMES = dict.fromkeys(__all__, "plugin_contract")
_HOMES |= {"EngineUnderTest": "subject", "RunnerContract": "contract"}


def __getattr__(name: str) -> Any:
    # The recipes of the kit live in this package, and a worker need not have pytest.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = f"{__name__}.{_HOMES[name]}"
    if name != "EngineUnderTest":
        import pytest

        # Without it a failed assertion in an installed module shows no values.
        pytest.register_assert_rewrite(home)
    return getattr(importlib.import_module(home), name)
