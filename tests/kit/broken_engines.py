"""Engines that each break one rule, made from the real local one; and good ones beside them.

A distribution made in a temporary folder (`conftest.site`) registers them under their class
names, so that `get_runner` and new processes find them as they find any stranger's.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import attrs

from crystalmath.engines.local import LocalRunner
from crystalmath.hookspecs import hookimpl
from crystalmath.models import Capabilities, Sighting

if TYPE_CHECKING:
    from collections.abc import Callable

ENGINES = {}
#: What is broken in several ways at once, each of which its own test catches: part -> whole.
WHOLE = {}

#: What the engines here leave behind on purpose carries this, so that the tests can end it.
LEAK = "BROKEN_ENGINE_LEAK"
#: And this says of which run of the tests: another may be at work beside it.
RUN = "BROKEN_ENGINE_RUN"
#: A process that is left behind. It outlives each limit of the kit by minutes.
SLEEP = ["sleep", "300"]
SHM = Path("/dev/shm")


def leaked():
    """Return how the names of shared memory begin that this run leaves behind."""
    return f"{LEAK}-{os.environ.get(RUN, '')}-"


class Plugin:
    """The plugin object of one engine."""

    def __init__(self, runner):
        self.runner = runner

    @hookimpl
    def crystalmath_make_runner(self, settings):
        if not self.runner.takes_any_option:
            settings.check_options("workers")
        if not self.runner.takes_any_key:
            for cluster in settings.clusters.values():
                cluster.check_options()
        return self.runner(settings)


class Engine(LocalRunner):
    """The local engine under another name; each subclass is registered as an engine."""

    plugin: ClassVar[Plugin]
    #: For `EngineUnderTest`. A job that never comes is not waited for so long.
    library: ClassVar[str | None] = None
    start_s: ClassVar[float] = 60.0
    #: How many workers it is given, if it matters.
    crew: ClassVar[int | None] = None
    takes_any_option: ClassVar[bool] = False
    takes_any_key: ClassVar[bool] = False
    #: Whether it looks for the file ``away`` in its home, which `conftest.HEAD` makes.
    can_be_away: ClassVar[bool] = False
    #: The engines that this one is broken as, all at once: one run of the kit shows each of them.
    parts: ClassVar[tuple[type[Engine], ...]] = ()
    #: What each runner keeps for itself: attributes, and what makes them.
    keeps: ClassVar[dict[str, Callable[[], object]]] = {}

    def __init_subclass__(cls, **keywords):
        super().__init_subclass__(**keywords)
        cls.plugin = Plugin(cls)
        ENGINES[cls.__name__] = cls
        WHOLE.update({part.__name__: cls.__name__ for part in vars(cls).get("parts", ())})

    def __init__(self, settings):
        super().__init__(settings)
        for name, make in self.keeps.items():
            setattr(self, name, make())

    if TYPE_CHECKING:

        def __getattr__(self, name):
            """Return an attribute of `keeps`, which mypy does not see."""

        def __setattr__(self, name, value):
            """Set one."""


def engines(place, base, method, **does):
    """Make engines in which one method does something else, for the namespace of a module."""
    for name, function in does.items():
        own = {method: function, "__module__": place["__name__"]}
        place[name] = type(name, (base,), own)


def declare(**more):
    """Return the local engine's capabilities, some of them changed."""
    return attrs.evolve(LocalRunner.capabilities, **more)


class Truthful(Engine):
    """Declares what the local engine does not, and keeps it."""

    capabilities = declare(gone_means_dead=True, drops_queued=True, queue_dies_with_owner=True)

    def probe(self, attempts):
        # All processes are looked through once, however many attempts there are.
        alive = _environments()
        return {
            each: Sighting("running") if f"CRYSTALMATH_ATTEMPT={each}".encode() in alive else seen
            for each, seen in super().probe(attempts).items()
        }


def _environments():
    """Return what stands in the environments of all living processes."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            found.update(path.read_bytes().split(b"\0"))
    return found


class Modest(Engine):
    """Declares nothing, though it could."""

    capabilities = Capabilities(workers_here=False, starts_in_order=False)
