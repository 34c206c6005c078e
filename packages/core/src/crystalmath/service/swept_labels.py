"""Labels and names that tell what a job is asked for, as a sweep writes them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attrs import frozen

from crystalmath.models.fields import declared
from crystalmath.models.resources import RESOURCE_NAMES
from crystalmath.models.submission import Terms
from crystalmath.models.written import label_of, label_value, memory_text, read_megabytes

if TYPE_CHECKING:
    from crystalmath.models.resources import Resources

_SCHEMAS = {one.name: one.about.schema for one in declared(Terms)}
_LONGEST_LABEL: int = _SCHEMAS["labels"]["additionalProperties"]["maxLength"]
_LONGEST_NAME: int = _SCHEMAS["name"]["maxLength"]


@frozen
class Asked:
    """What a label may tell of a job."""

    parameters: Mapping[str, Any]
    resources: Resources

    def text(self, key: str) -> str | None:
        """Write a parameter, else a resource, as its label has it; ``None`` if there is none."""
        value: Any = self.parameters
        for part in key.split("."):
            if not isinstance(value, Mapping) or part not in value:
                break
            value = value[part]
        else:
            return label_of(value)
        name = RESOURCE_NAMES.get(key)
        value = name and getattr(self.resources, name)
        if value is None:
            return None
        return memory_text(value) if name == "memory_mb" else label_of(value)


def told_anew(
    name: str | None, labels: Mapping[str, str], before: Asked, now: Asked
) -> tuple[str | None, dict[str, str]]:
    """Return name and labels of a job that runs again, with what it is asked for this time.

    A label that is called as a parameter or a resource, and told its value, tells the new one, and
    so does ``KEY=VALUE`` in the name. What can be no label is left out.
    """
    told = {}
    for key, label in labels.items():
        was, text = before.text(key), now.text(key)
        if was is None or was == text or not _tells(key, label, was):
            told[key] = label
            continue
        new = ""
        if text is not None and text.isprintable() and len(text) <= _LONGEST_LABEL:
            told[key] = text
            new = f"{key}={text}"
        if name is not None:
            name = _renamed(name, f"{key}={label}", new)
    return name, told


def _tells(key: str, label: str, value: str) -> bool:
    """Return whether a label says a value, in whatever way it is written: ``0.20``, ``4096MB``."""
    if label == value or label_of(label_value(label)) == value:
        return True
    megabytes = read_megabytes(label) if RESOURCE_NAMES.get(key) == "memory_mb" else None
    return megabytes is not None and memory_text(megabytes) == value


def _renamed(name: str, old: str, new: str) -> str | None:
    pattern = rf"(?<![\w.]){re.escape(old)}(?![\w.+-])" + ("" if new else r"\s*")
    return re.sub(pattern, lambda _: new, name).strip()[-_LONGEST_NAME:] or None
