"""The conformance kit for engine authors: ``pip install crystalmath[testing]``.

Subclass :class:`RunnerContract` in a test module, fill in one fixture, and run pytest::

    import pytest
    from crystalmath.testing import EngineUnderTest, RunnerContract

    class TestMine(RunnerContract):
        @pytest.fixture
        def engine(self):
            return EngineUnderTest("mine", options={"workers": 2}, workers=2)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crystalmath.testing.contract import RunnerContract
    from crystalmath.testing.subject import EngineUnderTest

__all__ = ["EngineUnderTest", "RunnerContract"]


def __getattr__(name: str) -> Any:
    # The recipes of the kit live in this package, and a worker need not have pytest.
    if name == "RunnerContract":
        import pytest

        # Without it a failed assertion in an installed module shows no values.
        pytest.register_assert_rewrite("crystalmath.testing.contract")
        from crystalmath.testing.contract import RunnerContract

        return RunnerContract
    if name == "EngineUnderTest":
        from crystalmath.testing.subject import EngineUnderTest

        return EngineUnderTest
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
