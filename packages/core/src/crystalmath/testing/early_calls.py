"""Load an engine's plugin, make its runner, and ask it what core asks at each submission.

Run as ``python -P -m crystalmath.testing.early_calls ENGINE``, in a fresh process with a home and a
``TMPDIR`` of its own. It writes one JSON document: for each step how long it took and what it
started, and which modules came in.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

# What a plugin may take for granted; what comes in after this, it has brought.
import crystalmath.quacc.engine
import crystalmath.quacc.engines  # noqa: F401
from crystalmath import config
from crystalmath.engines.registry import ENGINES, plugins
from crystalmath.models import EngineSettings
from crystalmath.testing.own_modules import strangers
from crystalmath.testing.watching import Watched, watched

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["STEPS"]

#: What is called, in this order; ``remade`` is the constructor again, with everything imported.
STEPS = ("import", "constructor", "remade", "clusters", "workers", "honoured", "cores")


class _Recorder:
    """Makes calls, and keeps what they did."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.steps: dict[str, Watched] = {}
        self._folders = folders

    def call(self, step: str, what: Callable[[], Any]) -> Any:
        """Make one call."""
        # A library is imported when the runner is made, and may do then what it likes to do.
        with watched(self._folders, skip_imports=step != "import") as seen:
            answer = what()
        self.steps[step] = seen
        return answer


def _look(engine: str) -> dict[str, Any]:
    configured = config.load()
    settings = EngineSettings(
        name=engine,
        home=configured.home,
        options=configured.engines.get(engine, {}),
        clusters=configured.clusters_of(engine),
    )
    recorder = _Recorder([configured.home, Path(os.environ["TMPDIR"])])
    before = set(sys.modules)
    plugin = recorder.call("import", lambda: plugins().engine(engine))
    came = Counter(name.partition(".")[0] for name in set(sys.modules) - before)

    def make() -> Any:
        return plugins().call_engine(plugin, "crystalmath_make_runner", settings=settings)

    runner = recorder.call("constructor", make)
    runner = recorder.call("remade", make)
    cluster = next(iter(recorder.call("clusters", runner.clusters)), "local")
    recorder.call("workers", runner.workers)
    recorder.call("honoured", lambda: runner.honoured(cluster))
    recorder.call("cores", lambda: runner.cores(cluster))
    return {
        "steps": {
            name: {"seconds": each.seconds, "started": each.started}
            for name, each in recorder.steps.items()
        },
        "modules": strangers(came, ENGINES, engine),
    }


def _main() -> None:
    sys.stdout.write(json.dumps(_look(sys.argv[1])))
    sys.stdout.flush()
    # What should not have been started must not outlive the answer, nor keep this process.
    for child in psutil.Process().children(recursive=True):
        child.kill()
    os._exit(0)


if __name__ == "__main__":
    _main()
