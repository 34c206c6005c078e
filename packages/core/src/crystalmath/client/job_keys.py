"""The keys of many jobs that are submitted with one key."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


def own_key(key: str, asked: object, before: Counter[str]) -> str:
    """Return the key of one of many jobs: the common one, and a fingerprint of what is asked.

    It depends on nothing else that is given, nor on where files lie. Jobs that ask the same get
    keys of their own: `before` counts them.
    """
    text = json.dumps(asked, sort_keys=True)
    fingerprint = hashlib.sha256(text.encode()).hexdigest()[:16]
    before[fingerprint] += 1
    number = f"-{before[fingerprint]}" if before[fingerprint] > 1 else ""
    return f"{key}/{fingerprint}{number}"


def keyed(
    structures: Iterable[Any], key: str | None, asked: Callable[[object], object]
) -> Iterator[tuple[Any, str | None]]:
    """Yield structures, each with the key of its job, as the command line makes it.

    `asked` makes of an encoded structure what the key is a fingerprint of.
    """
    if key is None:
        yield from ((structure, None) for structure in structures)
        return
    from crystalmath.client.request import structure_document
    from crystalmath.errors import CrystalMathError

    before: Counter[str] = Counter()
    for structure in structures:
        try:
            document = structure_document(structure)
        except CrystalMathError:  # raised again, in its place, when the job is written
            yield structure, None
        else:
            yield document, own_key(key, asked(document), before)
