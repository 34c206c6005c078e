"""What somebody asks for: a recipe on a structure, and on what terms."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from crystalmath.errors import InvalidJob, shown

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ["Submission", "check_environment", "check_values"]

#: So many labels a job may have, and so many characters the value of one.
_LABELS = 64
_LABEL = 1000


@frozen(kw_only=True)
class Submission:
    """What somebody asks for.

    Parameters
    ----------
    recipe : str
        Full dotted name of the recipe.
    atoms : ase.Atoms
        The structure.
    parameters : mapping of str to object
        The recipe's parameters.
    engine : str, optional
        Default: the configured one, else ``local``.
    cluster : str
        One of the engine's clusters.
    key : str, optional
        Idempotency key: the same key gives the same job.
    name : str, optional
        For people; never passed to the recipe.
    labels : mapping of str to str
        For people and filters; never passed to the recipe. At most 64, of printable characters: 255
        in a key, 1000 in a value.
    walltime_s : float, optional
        Time after which the job is stopped, in seconds.
    environment : mapping of str to str, optional
        The submitter's environment, of which the job sees what the home forwards. Default: the
        environment of the service.
    """

    recipe: str
    atoms: Atoms
    parameters: Mapping[str, Any] = field(factory=dict)
    engine: str | None = None
    cluster: str = "local"
    key: str | None = None
    name: str | None = None
    labels: Mapping[str, str] = field(factory=dict)
    walltime_s: float | None = None
    environment: Mapping[str, str] | None = field(default=None, repr=False)


def check_values(submission: Submission) -> None:
    """Refuse terms that cannot be used; `InvalidJob` names the value."""
    _check_walltime(submission.walltime_s)
    _check_text("key", submission.key)
    _check_text("name", submission.name)
    _check_labels(submission.labels)


def check_environment(submission: Submission) -> None:
    """Refuse an environment that cannot be one; `InvalidJob` names the variable."""
    environment: object = submission.environment
    if environment is None:
        return
    if not isinstance(environment, Mapping):
        raise InvalidJob("environment must be a flat mapping of strings")
    for name, value in environment.items():
        # The message leaves the value out: it may be a password.
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise InvalidJob(f"{name!r:.80} cannot be the name of an environment variable")
        if not isinstance(value, str) or "\0" in value:
            raise InvalidJob(f"the environment variable {name!r:.80} must be a string")


def _check_walltime(walltime_s: object) -> None:
    if walltime_s is None:
        return
    if (
        not isinstance(walltime_s, (int, float))
        or isinstance(walltime_s, bool)
        or not 0 < walltime_s <= sys.float_info.max
    ):
        raise InvalidJob(f"walltime must be a positive number of seconds, not {walltime_s!r}")


def _check_labels(labels: object) -> None:
    if not isinstance(labels, Mapping) or not all(
        isinstance(part, str) for pair in labels.items() for part in pair
    ):
        raise InvalidJob(f"labels must be a flat mapping of strings, not {shown(labels)}")
    if len(labels) > _LABELS:
        raise InvalidJob(f"a job has at most {_LABELS} labels, not {len(labels)}")
    for key, value in labels.items():
        _check_text("the key of a label", key)
        if value:
            _check_text(f"the label {key!r}", value, _LABEL)


def _check_text(what: str, value: object, longest: int = 255) -> None:
    if value is None:
        return
    if not isinstance(value, str) or not 0 < len(value) <= longest or not value.isprintable():
        raise InvalidJob(f"{what} must be 1 to {longest} printable characters, not {value!r:.80}")
