"""What a home takes that is narrowed to some recipes and parameters, for what strangers send.

Nothing is guessed here: a parameter counts only if the configuration names it, and only with values
that name neither programs nor files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from crystalmath.errors import InvalidJob, shown
from crystalmath.recipes.lookup import full_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from crystalmath.config import Config
    from crystalmath.models import Submission

_WHERE = "[restricted] in the home's config.toml"


def check_restrictions(submission: Submission, configured: Config) -> None:
    """Refuse what a restricted home does not take; `InvalidJob` names it."""
    if configured.restricted is None:
        return
    if submission.environment:
        raise InvalidJob(
            f"this home takes no environment from a submission ({_WHERE}); leave it out"
        )
    if submission.resources:
        raise InvalidJob(
            f"this home takes no resources from a submission ({_WHERE}); leave them out"
        )
    allow = configured.recipes_allow
    recipes = {full_name(name, allow): names for name, names in configured.restricted.items()}
    if submission.recipe not in recipes:
        known = ", ".join(recipes) or "none"
        raise InvalidJob(f"this home does not run {submission.recipe}, but: {known} ({_WHERE})")
    admitted = recipes[submission.recipe]
    for name, value in _leaves(submission.parameters, ""):
        if name not in admitted:
            raise InvalidJob(
                f"this home does not take the parameter {name!r:.80} of {submission.recipe}, but: "
                f"{', '.join(admitted) or 'none'} ({_WHERE})"
            )
        if not _is_plain(value):
            raise InvalidJob(
                f"the parameter {name} must be a number, true or false, a word, or a list of such, "
                f"not {shown(value)} ({_WHERE})"
            )


def _leaves(parameters: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Yield the parameters by dotted names, as the command line has them."""
    for key, value in parameters.items():
        # A dot inside a key must not be taken for one between two.
        name = f"{prefix}{key}" if isinstance(key, str) and key.isidentifier() else repr(key)
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{name}.")
        else:
            yield name, value


def _is_plain(value: object) -> bool:
    if isinstance(value, str):
        # `PBE`, `GFN2-xTB`; but no path, no command with arguments, no name in a folder above.
        return all(c.isalnum() or c in "-+_" for c in value)
    if isinstance(value, Sequence):
        return type(value) in {list, tuple} and all(map(_is_plain, value))
    return value is None or type(value) in {bool, int, float}
