"""Load a plugin, and call what core calls before the plugin has anything to do.

Of an engine: ask what keeps it from serving, make its runner, and ask that what core asks at each
submission. Of another plugin: have it provide its programs and readers.

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
from importlib.metadata import (
    PackageNotFoundError,
    distribution,
    entry_points,
    packages_distributions,
)
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
    from collections.abc import Callable, Iterable, Mapping
    from importlib.metadata import Distribution


#: A machine that is busy with something else is no plugin's fault: the quickest of these counts.
TRIES = 3
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
    owners = packages_distributions() if suspects else {}
    own = entry.dist.name if entry.dist else ""
    root = _source(entry.dist) if entry.dist else None
    required = _required(_CORE) if suspects else set()
    return sorted(
        top
        for top, count in suspects.items()
        if own not in owners.get(top, ())
        and not (root and _file(top).startswith(root))
        and (count > MANY or required.isdisjoint(map(_canonical, owners.get(top, ()))))
    )


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


def _required(name: str, seen: set[str] | None = None) -> set[str]:
    """Name what a distribution requires without extras, and what that requires, and itself."""
    seen = set() if seen is None else seen
    # One may be for another platform, or another Python.
    with contextlib.suppress(PackageNotFoundError):
        requirements = distribution(name).requires or ()
        seen.add(_canonical(name))
        for each in requirements:
            words, _, marker = each.partition(";")
            other = re.split(r"[^\w.-]", words)[0]
            if "extra" not in marker and _canonical(other) not in seen:
                _required(other, seen)
    return seen


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


# What a plugin may take for granted; what comes in after this, it has brought.


#: What a plugin that is no engine provides.
PROVIDED = ("crystalmath_programs", "crystalmath_progress_readers")
#: What is called of an engine, in this order; ``remade`` is the constructor again, with everything
#: imported.
STEPS = (
    *("import", "findings", "constructor", "remade"),
    *("clusters", "workers", "honoured", "runs_here", "cores"),
)


def call_early(
    group: str,
    name: str,
    folder: Path,
    configure: Callable[[Path], None],
    limits_s: Mapping[str, float],
) -> Any:
    """Run this module in fresh processes, in `folder`; return what the last of them says.

    They are so many until one was quick in all steps. The least time of a step counts.
    """
    best: dict[str, float] = {}
    for number in range(TRIES):
        report = _call(group, name, folder / f"early.{number}", configure)
        for step, seen in report["steps"].items():
            best[step] = seen["seconds"] = min(seen["seconds"], best.get(step, seen["seconds"]))
        if all(took <= limits_s[step] for step, took in best.items()):
            break
    return report


def _call(group: str, name: str, folder: Path, configure: Callable[[Path], None]) -> Any:
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
    steps: dict[str, Watched] = {}

    def call(step: str, what: Callable[[], Any]) -> Any:
        # A library is imported when the runner is made, and may do then what it likes to do.
        with watched(folders, skip_imports=step != "import") as steps[step]:
            return what()

    before = set(sys.modules)
    kind = "engine" if group == ENGINES else "plugin"
    plugin = call("import", lambda: getattr(plugins(), kind)(name))
    came = Counter(name.partition(".")[0] for name in set(sys.modules) - before)
    if group == ENGINES:
        _call_engine(call, plugin, name)
    else:
        for hook in PROVIDED:
            if provide := getattr(plugin, hook, None):
                call(hook, provide)
    summary = {step: {"seconds": it.seconds, "started": it.started} for step, it in steps.items()}
    return {"steps": summary, "modules": strangers(came, group, name)}


def _call_engine(call: Callable[[str, Callable[[], Any]], Any], plugin: Any, name: str) -> None:
    settings = settings_of(name, config.load())

    def make() -> Any:
        return plugins().call_engine(plugin, "crystalmath_make_runner", settings=settings)

    def find() -> Any:
        return plugins().call_engine(plugin, "crystalmath_engine_findings", settings=settings)

    call("findings", find)
    runner = call("constructor", make)
    runner = call("remade", make)
    cluster = next(iter(call("clusters", runner.clusters)), "local")
    call("workers", runner.workers)
    call("honoured", lambda: runner.honoured(cluster))
    call("runs_here", lambda: runner.runs_here(cluster))
    call("cores", lambda: runner.cores(cluster))


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
