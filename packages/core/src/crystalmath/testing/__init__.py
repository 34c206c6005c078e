"""The conformance kit for engine authors: ``pip install crystalmath[testing]``.

Subclass :class:`RunnerContract` in a test module, fill in one fixture, and run pytest::

    import pytest
    from crystalmath.testing import EngineUnderTest, RunnerContract

    class TestMine(RunnerContract):
        @pytest.fixture
        def engine(self):
            return EngineUnderTest("mine", options={"workers": 2}, workers=2)

The author of a plugin that is no engine subclasses :class:`PreflightContract` or
:class:`ReaderContract`, which ask for the plugin's name and for cases.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crystalmath.testing.contract import RunnerContract
    from crystalmath.testing.plugin_cases import PreflightCase, ReaderCase
    from crystalmath.testing.preflight_contract import PreflightContract
    from crystalmath.testing.reader_contract import ReaderContract
    from crystalmath.testing.subject import EngineUnderTest

__all__ = [
    "EngineUnderTest",
    "PreflightCase",
    "PreflightContract",
    "ReaderCase",
    "ReaderContract",
    "RunnerContract",
]

_HOMES = {
    "EngineUnderTest": "subject",
    "PreflightCase": "plugin_cases",
    "PreflightContract": "preflight_contract",
    "ReaderCase": "plugin_cases",
    "ReaderContract": "reader_contract",
    "RunnerContract": "contract",
}


def __getattr__(name: str) -> Any:
    # The recipes of the kit live in this package, and a worker need not have pytest.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = f"{__name__}.{_HOMES[name]}"
    if name.endswith("Contract"):
        import pytest

        # Without it a failed assertion in an installed module shows no values.
        pytest.register_assert_rewrite(home, f"{__name__}.plugin_contract")
    return getattr(importlib.import_module(home), name)
