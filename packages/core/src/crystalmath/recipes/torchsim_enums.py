"""Parameters of quacc's recipes of TorchSim that are members of its enumerations.

TorchSim refuses their names (``"fire"``), and JSON has nothing else for them.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_FAMILY = "quacc.recipes.torchsim."
_ENUMS = {"optimizer": "Optimizer", "integrator": "Integrator"}


def with_members(recipe: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of an imported recipe, with members of TorchSim's for their names.

    Raises `ValueError`: the enumeration has no such member.
    """
    if not recipe.startswith(_FAMILY):
        return dict(parameters)
    return {name: _member(name, value) for name, value in parameters.items()}


def _member(name: str, value: Any) -> Any:
    if name not in _ENUMS or not isinstance(value, str):
        return value
    enum: Any = getattr(sys.modules["torch_sim"], _ENUMS[name])
    try:
        return enum(value)
    except ValueError:
        known = ", ".join(member.value for member in enum)
        raise ValueError(f"{name} is {value!r}; TorchSim has {known}") from None
