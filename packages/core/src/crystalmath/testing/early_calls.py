"""Load a plugin, and call what core calls before the plugin has anything to do.

Of an engine: ask what keeps it from serving, make its runner, and ask that what core asks at each
submission. Of another plugin: have
it provide its programs and readers.

Run as ``python -P -m crystalmath.testing.early_calls GROUP NAME``, by the plugin's entry point, in
a fresh process with a home and a ``TMPDIR`` of its own. It writes one JSON document: for each step
how long it took and what it started, and which modules came in.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from importlib.metadata import PackageNotFoundError, distribution, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import psutil

import crystalmath.quacc.engine  # noqa: F401
from crystalmath import config
from crystalmath.engines.registry import ENGINES, plugins
from crystalmath.quacc.engines import settings_of
from crystalmath.testing.oracle import TRANSIENT
from crystalmath.testing.watching import Watched, watched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from importlib.metadata import Distribution


#: So many modules of one package cost a tenth of a second or so.
MANY = 50
_CORE = "crystalmath"


def strangers(came: Mapping[str, int], group: str, name: str) -> list[str]:
    """Name the packages that a plugin must not bring when it is loaded.

    Those are all that are neither Python's, nor core's, nor the plugin's own; also one that core
    requires, if it is large. `came` counts the modules of each top-level package.
    """
    ours = sys.stdlib_module_names | {_CORE}
    suspects = {
        top: count
        for top, count in came.items()
        if top not in ours and not top.startswith("__")  # finders of editable installs
    }
    (entry, *_) = entry_points(group=group, name=name)
    suspects.pop(entry.module.partition(".")[0], None)
    own = _packages(entry.dist) if entry.dist else set()
    root = _source(entry.dist) if entry.dist else None
    required = {each for dist in _required(_CORE) for each in _packages(dist)} if suspects else ()
    return sorted(
        top
        for top, count in suspects.items()
        if top not in own
        and not (root and _file(top).startswith(root))
        and (top not in required or count > MANY)
    )


def _packages(dist: Distribution) -> set[str]:
    """Name the top-level packages of a distribution, of its wheel."""
    listed = (dist.read_text("top_level.txt") or "").split()
    files = (path.parts for path in dist.files or () if path.suffix in {".py", ".so"})
    return {*listed, *(parts[0].partition(".")[0] for parts in files)}


def _source(dist: Distribution) -> str | None:
    """Return the folder that a distribution was installed from in editable form."""
    direct = json.loads(dist.read_text("direct_url.json") or "{}")
    if not direct.get("dir_info", {}).get("editable"):
        return None
    return unquote(urlsplit(direct["url"]).path).rstrip("/") + "/"


def _file(top: str) -> str:
    module = sys.modules.get(top)
    places: Iterable[str] = getattr(module, "__path__", ())
    return getattr(module, "__file__", None) or next(iter(places), "")


def _required(name: str, seen: set[str] | None = None) -> list[Distribution]:
    """Return what a distribution requires without extras, and what that requires."""
    seen = set() if seen is None else seen
    found = []
    try:
        dist = distribution(name)
    except PackageNotFoundError:  # for another platform, or another Python
        return []
    for requirement in dist.requires or ():
        words, _, marker = requirement.partition(";")
        match = re.match(r"[\w.-]+", words)
        if match is None or "extra" in marker or match[0].lower() in seen:
            continue
        seen.add(match[0].lower())
        found += _required(match[0], seen)
    return [dist, *found]


# What a plugin may take for granted; what comes in after this, it has brought.


#: What is called, in this order; ``remade`` is the constructor again, with everything imported.
STEPS = (
    *("import", "findings", "constructor", "remade"),
    *("clusters", "workers", "honoured", "runs_here", "cores"),
)


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


def call_early(group: str, name: str, folder: Path, configure: Callable[[Path], None]) -> Any:
    """Run this module in a fresh process, with a home in an empty folder; return what it says."""
    home, temporary = folder / "home", folder / "tmp"
    home.mkdir(parents=True)
    temporary.mkdir()
    configure(home)
    done = subprocess.run(
        [sys.executable, "-P", "-m", __name__, group, name],
        env={**os.environ, "CRYSTALMATH_HOME": str(home), "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"the plugin {name!r} could not be used:\n{done.stderr}"
    # What the plugin itself has written to standard output stands before it.
    return json.loads(done.stdout.splitlines()[-1])


def _look(group: str, name: str) -> dict[str, Any]:
    folders = [config.load().home, Path(os.environ["TMPDIR"])]
    recorder = _Recorder(folders)
    before = set(sys.modules)
    plugin = recorder.call("import", lambda: _load(group, name))
    came = Counter(name.partition(".")[0] for name in set(sys.modules) - before)
    if group == ENGINES:
        _call_engine(recorder, plugin, name)
    else:
        for hook in ("crystalmath_programs", "crystalmath_progress_readers"):
            if provide := getattr(plugin, hook, None):
                recorder.call(hook, provide)
    return {
        "steps": {
            name: {"seconds": each.seconds, "started": each.started}
            for name, each in recorder.steps.items()
        },
        "modules": strangers(came, group, name),
    }


def _load(group: str, name: str) -> Any:
    return plugins().engine(name) if group == ENGINES else plugins().plugin(name)


def _call_engine(recorder: _Recorder, plugin: Any, name: str) -> None:
    settings = settings_of(name, config.load())

    def make() -> Any:
        return plugins().call_engine(plugin, "crystalmath_make_runner", settings=settings)

    def find() -> Any:
        return plugins().call_engine(plugin, "crystalmath_engine_findings", settings=settings)

    recorder.call("findings", find)
    runner = recorder.call("constructor", make)
    runner = recorder.call("remade", make)
    cluster = next(iter(recorder.call("clusters", runner.clusters)), "local")
    recorder.call("workers", runner.workers)
    recorder.call("honoured", lambda: runner.honoured(cluster))
    recorder.call("runs_here", lambda: runner.runs_here(cluster))
    recorder.call("cores", lambda: runner.cores(cluster))


def _main() -> None:
    sys.stdout.write(json.dumps(_look(*sys.argv[1:])))
    sys.stdout.flush()
    # What should not have been started must not outlive the answer, nor keep this process.
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(*TRANSIENT):
            child.kill()
    os._exit(0)


if __name__ == "__main__":
    _main()
