"""Load a plugin, and make the calls that core makes before the plugin has any work.

For an engine these are its findings, its constructor, and the methods that core calls at each
submission. For another plugin they are the hooks for its programs and readers.

Run as ``python -P -m crystalmath.testing.early_calls GROUP NAME``, with the plugin's entry point,
in a fresh process with a home and a ``TMPDIR`` of its own. It writes one JSON document: the
duration of each step, the things that it started, and the modules that were imported.
"""

from __future__ import annotations

import contextlib
import importlib
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

from crystalmath import config
from crystalmath.engines.registry import ENGINES, plugins
from crystalmath.quacc.engines import settings_of
from crystalmath.testing.oracle import TRANSIENT
from crystalmath.testing.watching import Watched, watched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from importlib.metadata import Distribution


#: How many times a call is timed: the quickest one counts, because the machine may be busy.
TRIES = 3
#: More modules of one package than these take about a tenth of a second to import.
MANY = 50
_CORE = "crystalmath"


def strangers(came: Mapping[str, int], group: str, name: str) -> list[str]:
    """Return the packages that a plugin must not import when it is loaded.

    Python's, core's and the plugin's own are allowed, and small packages that core requires. `came`
    counts the imported modules of each top-level package.
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
    """Return a distribution and all that it requires without extras, by canonical names."""
    seen = set() if seen is None else seen
    # A requirement may be for another platform, or another Python.
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


#: The hooks of a plugin that is no engine.
PROVIDED = ("crystalmath_programs", "crystalmath_progress_readers")
#: The calls of an engine, in this order; ``remade`` is the constructor again, with everything
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
    """Run this module in fresh processes, in `folder`; return the report of the last one.

    The first one that is quick in all steps is the last. The shortest time of each step counts.
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
    """Run this module in a fresh process, with a home in an empty folder; return its report."""
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
    # The plugin itself may have written lines before it.
    return json.loads(done.stdout.splitlines()[-1])


def _look(group: str, name: str) -> dict[str, Any]:
    folders = [config.load().home, Path(os.environ["TMPDIR"])]
    steps: dict[str, Watched] = {}

    def call(step: str, what: Callable[[], Any]) -> Any:
        # The runner's constructor may import a library, whose import may start anything.
        with watched(folders, skip_imports=step != "import") as steps[step]:
            return what()

    # A runner needs this module in any case, so that it does not count.
    importlib.import_module("crystalmath.quacc.engine")
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
    call("constructor", make)
    runner = call("remade", make)
    cluster = next(iter(call("clusters", runner.clusters)), "local")
    call("workers", runner.workers)
    call("honoured", lambda: runner.honoured(cluster))
    call("runs_here", lambda: runner.runs_here(cluster))
    call("cores", lambda: runner.cores(cluster))


def _main() -> None:
    sys.stdout.write(json.dumps(_look(*sys.argv[1:])))
    sys.stdout.flush()
    # Processes and threads of the plugin must not outlive the answer, nor keep this process.
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(*TRANSIENT):
            child.kill()
    os._exit(0)


if __name__ == "__main__":
    _main()
