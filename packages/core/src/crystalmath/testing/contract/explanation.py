"""What stands below a failure: what the engine said and wrote, and what was asked of it."""

from __future__ import annotations

import collections
import logging
from typing import TYPE_CHECKING, Any

import pytest

from crystalmath.testing.owner import Owner
from crystalmath.testing.promises import GUIDE, SAID, original, promise, section

if TYPE_CHECKING:
    from collections.abc import Generator

_WRITTEN = "What the processes of the test wrote"
_ASKED = "What is asked of the engine"
_LINES = 20


class Explanation(logging.Handler):
    """A pytest plugin, which also receives what core logs of the engine in this process."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._records: collections.deque[str] = collections.deque(maxlen=_LINES)
        self._test: pytest.Item | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a message, with its traceback."""
        self._records.append(self.format(record))

    def begin(self, test: pytest.Item) -> None:
        """Forget what was before a test."""
        self._test = test
        self._records.clear()
        for owner in tuple(Owner.made):
            owner.new_output()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Add sections to the report of a test that failed."""
        report = yield
        shown: Any = report.longrepr
        if report.failed and item is self._test and hasattr(shown, "addsection"):
            for title, text in self._sections(item):
                if text:
                    shown.addsection(title, text, "-")
        return report

    def _sections(self, item: Any) -> list[tuple[str, str]]:
        test = original(item.cls, item.originalname)
        told = [text for owner in tuple(Owner.made) for text in owner.told()]
        place = f"See {section(test)!r} in {GUIDE}."
        return [
            (SAID, "\n".join(self._records)),
            (_WRITTEN, "\n\n".join(told)),
            (_ASKED, f"{promise(test)}\n{place}"),
        ]


def explain(request: pytest.FixtureRequest) -> None:
    """Have a test explained if it fails."""
    name = "crystalmath-explanation"
    manager = request.config.pluginmanager
    plugin: Explanation | None = manager.get_plugin(name)
    if plugin is None:
        plugin = Explanation()
        manager.register(plugin, name)
        logging.getLogger("crystalmath").addHandler(plugin)
        request.config.add_cleanup(lambda: logging.getLogger("crystalmath").removeHandler(plugin))
    plugin.begin(request.node)
