"""Makes the keys of many jobs that are submitted with one key."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


def own_key(key: str, request: object, before: Counter[str]) -> str:
    """Return the key of one of many jobs: the common key, and a fingerprint of its request.

    It depends neither on the other jobs nor on the places of files. Equal requests get numbered
    keys: `before` counts them.
    """
    text = json.dumps(request, sort_keys=True)
    fingerprint = hashlib.sha256(text.encode()).hexdigest()[:16]
    before[fingerprint] += 1
    number = f"-{before[fingerprint]}" if before[fingerprint] > 1 else ""
    return f"{key}/{fingerprint}{number}"


def keyed(
    structures: Iterable[Any], key: str | None, request_of: Callable[[object], object]
) -> Iterator[tuple[Any, str | None]]:
    """Yield structures, each with the key of its job, as the command line makes it.

    `request_of` returns the request of an encoded structure, for the fingerprint.
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
        except CrystalMathError:  # raised again when the job is written, in its place
            yield structure, None
        else:
            yield document, own_key(key, request_of(document), before)
