"""Whose modules a plugin has brought into a process when it was loaded."""

from __future__ import annotations

import json
import re
import sys
from importlib.metadata import PackageNotFoundError, distribution, entry_points
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from importlib.metadata import Distribution

#: So many modules of one package cost a tenth of a second or so.
MANY = 50
_CORE = "crystalmath"


def strangers(came: Mapping[str, int], group: str, name: str) -> list[str]:
    """Name the packages that a plugin must not bring when it is loaded.

    Those are all that are neither Python's, nor core's, nor the plugin's own; also one that core
    requires, if it is large.

    Parameters
    ----------
    came : mapping of str to int
        How many modules came of each top-level package.
    group, name : str
        The plugin's entry point.
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
