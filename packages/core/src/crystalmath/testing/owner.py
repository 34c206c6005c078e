"""A process of its own that owns jobs: asked in lines of JSON, and killed when a test wants it.

Started as ``python -P -m crystalmath.testing.owner ENGINE``. Each line of standard input is
``[method, arguments, keywords]``; each answer a line ``{"answer": ...}`` or ``{"error": ...}``.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any, Self, cast

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from crystalmath.models import Sighting
    from crystalmath.quacc.engine import EngineRunner

__all__ = ["Owner", "OwnerError"]

RECIPES = "crystalmath.testing.recipes"


class OwnerError(AssertionError):
    """The process raised; its message."""


class Owner:
    """The test's side of such a process.

    Parameters
    ----------
    engine : str
        The engine's name.
    environment : dict
        The whole environment of the process.
    """

    def __init__(self, engine: str, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__, engine],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    def ask(self, method: str, *arguments: Any, **keywords: Any) -> Any:
        """Have a method of :class:`_Owner` called over there."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([method, arguments, keywords]) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise OwnerError(f"the process ended with {self.process.wait()} during {method!r}")
        answer = json.loads(line)
        if "error" in answer:
            raise OwnerError(answer["error"])
        return answer["answer"]

    def kill(self) -> None:
        """Kill it (SIGKILL), and nothing else."""
        self.process.kill()
        self._reap()

    def leave(self, timeout: float = 60.0) -> int:
        """Have it end as a script ends; give its exit code."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            return self.process.wait(timeout)
        finally:
            self.kill()

    def _reap(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None and not pipe.closed:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self.process.wait()


class _Owner:
    """What the process does when it is asked."""

    def __init__(self, engine: str) -> None:
        from crystalmath.quacc import get_runner

        self._runner = cast("EngineRunner", get_runner(engine))

    def submit(self, recipe: str, count: int = 1, **parameters: Any) -> list[str]:
        """Submit a recipe of the kit, some times."""
        from ase.build import bulk

        return [
            self._runner.submit(f"{RECIPES}.{recipe}", bulk("Al"), "local", **parameters)
            for _ in range(count)
        ]

    def status(self, job_id: str) -> str:
        """Tell a state."""
        return self._runner.get_status(job_id).value

    def result(self, job_id: str) -> Any:
        """Give a result."""
        return self._runner.get_result(job_id)

    def cancel(self, job_id: str) -> bool:
        """Request a cancellation."""
        return self._runner.cancel(job_id)

    def launch(self, job_ids: Sequence[str]) -> dict[str, str]:
        """Hand attempts to the engine past core; no handle is recorded."""
        return dict(self._runner.launch(self._attempts(job_ids)))

    def probe(
        self, job_ids: Sequence[str], handles: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """Ask the engine past core; ``{job id: [state, reason]}``."""
        from crystalmath.models import Sighting

        attempts = self._attempts(job_ids, handles or {})
        seen = self._runner.probe(attempts)
        found: dict[str, Sighting] = {
            attempt.job_id: seen.get(attempt.id, Sighting("unknown")) for attempt in attempts
        }
        return {job_id: [sighting.state, sighting.reason] for job_id, sighting in found.items()}

    def release(self, job_ids: Sequence[str]) -> None:
        """Have the engine drop attempts, past core."""
        self._runner.release(self._attempts(job_ids))

    def close(self) -> None:
        """Close the runner."""
        self._runner.close()

    def threads(self) -> list[str]:
        """Name the threads that are alive, but for the one that asks."""
        return [t.name for t in threading.enumerate() if t is not threading.main_thread()]

    def _attempts(self, job_ids: Sequence[str], handles: dict[str, str] | None = None) -> Any:
        from crystalmath.testing.attempts import attempt_of

        home = self._runner.settings.home
        return [attempt_of(home, job_id, (handles or {}).get(job_id)) for job_id in job_ids]


def _main() -> None:
    owner = _Owner(sys.argv[1])
    for line in sys.stdin:
        method, arguments, keywords = json.loads(line)
        try:
            answer = {"answer": getattr(owner, method)(*arguments, **keywords)}
        except Exception as error:  # noqa: BLE001 - whatever it is, the test shall see it
            answer = {"error": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps(answer, default=str) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _main()
