"""Views of the table of jobs under names, in a file of the home.

Browsers keep nothing for a page whose port is another one at each start.
"""

from __future__ import annotations

import json
import os
import re
import threading
from typing import TYPE_CHECKING, Any

from crystalmath.errors import InvalidJob

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

#: The most views, and the longest name and address of one, in characters.
MOST, LONGEST_NAME, LONGEST_ADDRESS = 200, 80, 4000
_ADDRESS = re.compile(r"\?view=jobs(&[\x21-\x7e]*)?", re.ASCII)


class Views:
    """The named views of a home.

    Parameters
    ----------
    path : Path
        The file, which need not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writing = threading.Lock()

    def all(self) -> list[dict[str, str]]:
        """Return all views, each with ``name`` and ``address``, in the order of their names.

        `InvalidJob`: the file is damaged.
        """
        try:
            stored = json.loads(self._path.read_text(encoding="utf-8"))
            return [_checked(one["name"], one["address"]) for one in stored["views"]]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, LookupError, TypeError, InvalidJob) as error:
            raise InvalidJob(
                f"{self._path} cannot be read as views of the page ({error}); repair or remove it"
            ) from error

    def keep(self, params: Mapping[str, Any]) -> list[dict[str, str]]:
        """Keep a view by its name, or remove it if its address is ``None``; return all views.

        `InvalidJob`: the name or address is none, or there are too many views.
        """
        with self._writing:
            name, address = params.get("name"), params.get("address")
            kept = [one for one in self.all() if one["name"] != name]
            if address is not None:
                kept.append(_checked(name, address))
            if len(kept) > MOST:
                raise InvalidJob(f"there are {MOST} views already; remove one before")
            kept.sort(key=lambda one: one["name"].casefold())
            written = self._path.with_name(f".{self._path.name}.{os.getpid()}")
            written.write_text(json.dumps({"views": kept}, indent=1), encoding="utf-8")
            written.replace(self._path)
            return kept


def _checked(name: object, address: object) -> dict[str, str]:
    if not isinstance(name, str) or not 0 < len(name.strip()) <= LONGEST_NAME:
        raise InvalidJob(f"the name of a view has 1 to {LONGEST_NAME} characters")
    if (
        not isinstance(address, str)
        or len(address) > LONGEST_ADDRESS
        or not _ADDRESS.fullmatch(address)
    ):
        raise InvalidJob(
            "the address of a view begins with ?view=jobs, and has at most "
            f"{LONGEST_ADDRESS} characters"
        )
    return {"name": name, "address": address}
