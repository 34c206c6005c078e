"""What every plugin that is no engine must keep to: it loads quickly and changes nothing."""

from __future__ import annotations

import contextlib
import locale
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest

from crystalmath.engines.registry import PLUGINS, plugins
from crystalmath.testing.early_calls import call_early
from crystalmath.testing.watching import watched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["LOAD_S", "PluginContract", "quickest", "unchanged"]

#: How long loading the plugin and having it provide what it has may take, in seconds.
LOAD_S = 1.0
#: A machine that is busy is no plugin's fault: the quickest of so many tries counts.
TRIES = 3


class PluginContract:
    """Fill in the fixture `plugin`."""

    @pytest.fixture
    def plugin(self) -> str:
        """Return the name of the entry point in the group ``crystalmath.plugins``."""
        raise NotImplementedError("fill in the fixture `plugin` (crystalmath.testing)")

    @pytest.fixture
    def loaded(self, plugin: str) -> Any:
        """Return the plugin's module or object."""
        return plugins().plugin(plugin)

    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("home", "here"):
            (tmp_path / name).mkdir()
        monkeypatch.setenv("CRYSTALMATH_HOME", str(tmp_path / "home"))
        monkeypatch.chdir(tmp_path / "here")

    def test_loading_is_quick_and_starts_nothing(self, plugin: str, tmp_path: Path) -> None:
        """`crystalmath status` loads it: nothing heavy is imported, and nothing is started."""
        took: dict[str, float] = {}
        for number in range(TRIES):
            seen = call_early(PLUGINS, plugin, tmp_path / f"early.{number}", lambda _: None)
            for step, one in seen["steps"].items():
                assert not one["started"], (
                    f"{step} of the plugin {plugin!r} must start nothing and write nothing; it "
                    f"did: {'; '.join(one['started'])} (docs/writing-a-preflight.md, 'Rules')"
                )
                took[step] = min(took.get(step, one["seconds"]), one["seconds"])
            assert not seen["modules"], (
                f"loading the plugin {plugin!r} imports {', '.join(seen['modules'])}: import it "
                "within functions (docs/writing-a-preflight.md, 'Rules')"
            )
            if max(took.values()) <= LOAD_S:
                return
        raise AssertionError(
            f"loading the plugin {plugin!r} took {took}, in seconds; each may take {LOAD_S:g} s "
            "(docs/writing-a-preflight.md, 'Rules')"
        )


@contextlib.contextmanager
def unchanged(who: str, folder: Path, warm: Callable[[], object]) -> Iterator[None]:
    """Check that what happens within changes neither the process nor files, and starts nothing.

    Parameters
    ----------
    who : str
        Whose fault it would be.
    folder : pathlib.Path
        The files that are watched.
    warm : callable
        Called before: it may import and start what is needed once, and change nothing else.
    """
    before = process_state()
    warm()
    with watched([folder], may_ask=True) as seen:
        yield
    after = process_state()
    changed = {name: (before[name], after[name]) for name in before if before[name] != after[name]}
    rules = "(docs/writing-a-preflight.md, 'Rules')"
    told = "; ".join(f"{name}: {_difference(*values)}" for name, values in changed.items())
    assert not changed, f"{who} changes the process of whoever asks it {rules}: {told}"
    assert not seen.started, f"{who} must start and write nothing {rules}: {seen.started}"


def _difference(before: Any, after: Any) -> str:
    """Return what is another, of a dictionary the entries alone."""
    if not isinstance(before, dict):
        return f"{after!r}, and was {before!r}"
    names = [name for name in before | after if before.get(name) != after.get(name)]
    return ", ".join(
        f"{name} is {after.get(name)!r}, and was {before.get(name)!r}" for name in names
    )


def quickest(call: Callable[[], object]) -> float:
    """Return the time that a call takes, in seconds: the least of some tries."""
    times = []
    for _ in range(TRIES):
        with watched() as seen:
            call()
        times.append(seen.seconds)
    return min(times)


def process_state() -> dict[str, Any]:
    """Return what is set in this process now, to be compared with what is set later."""
    umask = os.umask(0o077)
    os.umask(umask)
    root = logging.getLogger()
    return {
        "environment": dict(os.environ),
        "working directory": os.getcwd(),  # noqa: PTH109 - text is shown
        "umask": oct(umask),
        "sys.path": list(sys.path),
        "locale": locale.setlocale(locale.LC_ALL),
        "root logger": [root.level, *map(repr, root.handlers)],
        "signal handlers": {
            number.name: repr(signal.getsignal(number)) for number in signal.Signals
        },
    }
