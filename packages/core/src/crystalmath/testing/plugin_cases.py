"""What the author of a plugin that is no engine tells the kit: cases, and the right answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import field, frozen

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from ase import Atoms

    from crystalmath.progress.reader import Reading


@frozen
class PreflightCase:
    """One job, and what the plugin must say of it.

    Parameters
    ----------
    recipe : str
        Full dotted name of the recipe.
    atoms : ase.Atoms or None
        The structure; ``None`` for a recipe that gets none.
    parameters : mapping of str to object
        The recipe's parameters.
    environment : mapping of str to str
        The environment variables that the job would see.
    errors, warnings : collection of str
        The codes of all findings of that severity; none where the job is right.
    """

    recipe: str
    atoms: Atoms | None = None
    parameters: Mapping[str, Any] = field(factory=dict, kw_only=True)
    environment: Mapping[str, str] = field(factory=dict, kw_only=True)
    errors: Collection[str] = field(default=(), kw_only=True)
    warnings: Collection[str] = field(default=(), kw_only=True)


@frozen
class ReaderCase:
    """What a program has written, and what the reader must read in it.

    Parameters
    ----------
    files : mapping of str to str
        The names of the files of one calculation, and what stands in them.
    reading : Reading
        What :meth:`ProgressReader.read` gives for them.
    steps : sequence of Reading, optional
        The ionic steps that the reader's collector gives; ``None`` where it has no collector.
    """

    files: Mapping[str, str]
    reading: Reading
    steps: Sequence[Reading] | None = None
