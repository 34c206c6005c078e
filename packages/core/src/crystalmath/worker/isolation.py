"""The state of a warm process that recipes may change, and its restoration."""

from __future__ import annotations

import _thread
import contextlib
import copy
import decimal
import gc
import os
import random
import resource
import signal
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crystalmath.worker.pristine import Pristine

#: A runner that grows by more is replaced, in bytes; data that recipes load comes on top.
GROWTH = 512 * 1024**2
#: How many file descriptors a job may leave open before the runner is replaced.
DESCRIPTORS = 16

_LIMITS = sorted({number for name, number in vars(resource).items() if name.startswith("RLIMIT_")})
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Baseline:
    """The state of the process, and of its imported libraries, before its first job."""

    def __init__(self, pristine: Pristine | None = None) -> None:
        self._pristine = pristine
        self._numpy = _numpy_settings()
        self._environment = dict(os.environ)
        self._encoded = dict(_encoded_environment())
        self._path = list(sys.path)
        self._argv = list(sys.argv)
        self._umask = _umask()
        self._signals = {
            number: signal.getsignal(number)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM, signal.SIGHUP)
        }
        self._threads = count_threads()
        self._memory = _resident()
        # The data that the first jobs of recipes have loaded, in bytes; a potential is loaded once.
        self._loaded = 0
        self._recipes: set[str] = set()
        self._before: int | None = None
        self._limits = _limits()
        self._lowered = False
        self._descriptors = len(os.listdir("/proc/self/fd"))
        self._settings = copy.deepcopy(_settings())
        self._recursion = sys.getrecursionlimit()
        self._decimal = decimal.getcontext().copy()

    def begin(self, recipe: str) -> None:
        """Prepare for a job; growth in the first job of a recipe counts as data that it loads."""
        self._before = None if recipe in self._recipes else _resident()
        self._recipes.add(recipe)

    def restore(self) -> str | None:
        """Restore the process; return what cannot be restored, so that the process is replaced."""
        try:
            self._put_back()
            return self._leak()
        except Exception as error:  # noqa: BLE001 - its job has ended, and must not fail for that
            return f"something odd ({type(error).__name__}: {error})"

    def _put_back(self) -> None:
        os.chdir("/")
        # Limits come first, as the rest may need memory and open files.
        self._lowered = _limits() != self._limits
        if self._lowered:
            for number, limits in zip(_LIMITS, self._limits, strict=True):
                _set_limit(number, limits)
            self._lowered = _limits() != self._limits
        if _encoded_environment() != self._encoded:
            os.environ.clear()
            os.environ.update(self._environment)
        sys.path[:] = self._path
        sys.argv[:] = self._argv
        sys.setrecursionlimit(self._recursion)
        decimal.setcontext(self._decimal.copy())
        os.umask(self._umask)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._signals.items():
            signal.signal(number, handler)
        # A seed that one job set must not decide what another draws.
        seed()
        if "torch" in sys.modules:
            _reset_torch(sys.modules["torch"])

    def _leak(self) -> str | None:
        if self._lowered:
            return "a lowered limit"
        if count_threads() > self._threads:
            return "threads"
        if changed := self._changed():
            return f"a change in {changed}"
        if len(os.listdir("/proc/self/fd")) > self._descriptors + DESCRIPTORS:
            return "open files"
        return "memory" if self._has_grown() else None

    def _has_grown(self) -> bool:
        """Return whether memory grows from job to job."""
        if self._before is not None:
            self._loaded += max(0, _resident() - self._before)
            return False
        # A recipe may load another potential, about as large.
        most = self._memory + self._loaded + max(GROWTH, self._loaded)
        # The peak takes one system call, the present size eight.
        if _most_resident() <= most or _resident() <= most:
            return False
        gc.collect()
        return _resident() > most

    def _changed(self) -> str | None:
        """Return a part of a library that differs from its first state."""
        if self._settings is None:  # this job imported quacc, and may have changed its settings
            self._settings = _settings(anew=True)
        if _settings() != self._settings:
            return "quacc's settings"
        if self._numpy is not None and _numpy_settings() != self._numpy:
            return "numpy's settings"
        return self._pristine.changed() if self._pristine else None


def seed() -> None:
    """Seed random and numpy anew."""
    # Four words are enough: by default they read 624 from the system, in up to 0.07 ms.
    random.seed(os.urandom(16))
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed([random.getrandbits(32) for _ in range(4)])


def count_threads() -> int:
    """Return the number of threads, including those that `threading` does not know."""
    return _thread._count()  # noqa: SLF001 - no public function counts them all


def _limits() -> list[tuple[int, int]]:
    return [resource.getrlimit(number) for number in _LIMITS]


def _set_limit(number: int, limits: tuple[int, int]) -> None:
    if resource.getrlimit(number) != limits:
        with contextlib.suppress(ValueError, OSError):  # without root, a hard limit stays lowered
            resource.setrlimit(number, limits)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _encoded_environment() -> Mapping[Any, Any]:
    """Return the environment in its raw form, which is faster to compare than decoded."""
    return getattr(os.environ, "_data", os.environ)


def _resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * _PAGE


def _most_resident() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _numpy_settings() -> Any:
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return None
    return numpy.geterr(), numpy.geterrcall(), numpy.get_printoptions()


def _reset_torch(torch: Any) -> None:
    # Potentials set their own type for each job; a new process for each would take long.
    with contextlib.suppress(AttributeError):  # the import of torch may have failed half-way
        torch.set_default_dtype(torch.float32)
        torch.set_grad_enabled(True)
        torch.seed()


def _settings(*, anew: bool = False) -> Any:
    """Return quacc's settings, read anew on request; each job has another ``RESULTS_DIR``."""
    quacc = sys.modules.get("quacc")
    if quacc is None:
        return None
    settings = type(quacc.get_settings())() if anew else quacc.get_settings()
    # Raw values: a dump by pydantic takes ten times as long.
    return {**vars(settings), "RESULTS_DIR": None}
