"""The contract of a plugin that checks jobs before they are submitted."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from crystalmath.engines.registry import plugins
from crystalmath.models import JobSpec
from crystalmath.preflight import inspector
from crystalmath.recipes import codec
from crystalmath.testing.plugin_contract import PluginContract, quickest, unchanged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from crystalmath.models import Finding
    from crystalmath.testing.plugin_cases import PreflightCase

__all__ = ["PreflightContract"]

#: How long a verdict may take once everything is warm, in seconds.
VERDICT_S = 1.0
_GUIDE = "docs/writing-a-preflight.md"


class PreflightContract(PluginContract):
    """Fill in the fixtures `plugin` and `cases`.

    A plugin that provides programs is asked through core, which asks the recipe; one with the hook
    ``crystalmath_preflight`` is asked itself, and nobody else.
    """

    @pytest.fixture
    def cases(self) -> Sequence[PreflightCase]:
        """Return jobs that are right, and jobs that are wrong in each way that the plugin knows."""
        raise NotImplementedError("fill in the fixture `cases` (crystalmath.testing)")

    @pytest.fixture
    def judge(self, loaded: Any) -> Iterator[Callable[[PreflightCase], list[Finding]]]:
        """Ask for the verdict on a case."""
        own = hasattr(loaded, "crystalmath_preflight")
        assert own or hasattr(loaded, "crystalmath_programs"), (
            f"the plugin provides neither crystalmath_programs nor crystalmath_preflight ({_GUIDE})"
        )

        def judge(case: PreflightCase) -> list[Finding]:
            asked: dict[str, Any] = {
                "recipe": case.recipe,
                "atoms": case.atoms,
                "parameters": case.parameters,
                "environment": case.environment,
                "document": _document(case),
            }
            # Core's own check is the one that knows what to do with programs.
            whose = loaded if own else plugins().plugin("recipes")
            answers = plugins().call_engine(whose, "crystalmath_preflight", **asked)
            return [finding for answer in answers for finding in answer]

        yield judge
        # The processes in which recipes are asked.
        inspector.close()

    def test_there_are_right_and_wrong_jobs_among_the_cases(
        self, cases: Sequence[PreflightCase]
    ) -> None:
        said = {bool(case.errors or case.warnings) for case in cases}
        assert said == {True, False}, "give a job that is right, and one that is not"

    def test_verdicts(
        self, cases: Sequence[PreflightCase], judge: Callable[[PreflightCase], list[Finding]]
    ) -> None:
        """On each case, and once more the other way round: a verdict hangs on its job alone."""
        wrong = []
        for case in (*cases, *reversed(cases)):
            found = judge(case)
            said = Counter((finding.severity, finding.code) for finding in found)
            wanted = Counter(
                [("error", code) for code in case.errors]
                + [("warning", code) for code in case.warnings]
            )
            if said != wanted:
                shown = [f"{each.severity} {each.code} ({each})" for each in found]
                expected = [" ".join(each) for each in sorted(wanted.elements())]
                wrong.append(
                    f"{case.recipe} {dict(case.parameters)}: expected "
                    f"{'; '.join(expected) or 'nothing'}, and found {'; '.join(shown) or 'nothing'}"
                )
        assert not wrong, f"wrong verdicts ({_GUIDE}, 'Rules'):\n" + "\n".join(wrong)

    def test_verdicts_are_quick_and_change_nothing(
        self,
        cases: Sequence[PreflightCase],
        judge: Callable[[PreflightCase], list[Finding]],
        tmp_path: Path,
    ) -> None:
        """Once warm. Neither files, nor the process, nor what was given."""
        for case in cases:
            who = f"the verdict on {case.recipe}"
            given = _document(case), dict(case.environment)
            # The first one may start the process that recipes are asked in.
            with unchanged(who, tmp_path, lambda case=case: judge(case)):  # type: ignore[misc]
                judge(case)
            assert (_document(case), dict(case.environment)) == given, (
                f"{who} changes the structure, parameters or environment that it was given "
                f"({_GUIDE}, 'Rules')"
            )
            took = quickest(lambda case=case: judge(case))  # type: ignore[misc]
            assert took <= VERDICT_S, (
                f"{who} took {took:.2f} s once everything was warm, and may take {VERDICT_S:g} s: "
                f"whoever submits waits for it ({_GUIDE}, 'Rules')"
            )


def _document(case: PreflightCase) -> str:
    """Return structure and parameters as the hook gets them."""
    spec = JobSpec(job_id="", recipe=case.recipe, atoms=case.atoms, parameters=case.parameters)
    return codec.encode_spec(spec)
