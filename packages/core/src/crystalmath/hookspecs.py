"""The hooks of plugins. Their names begin with ``crystalmath_``; plugins implement some of them.

An engine plugin is registered under the entry-point group ``crystalmath.engines``, by the engine's
name; any other plugin under ``crystalmath.plugins``. Both mark their functions with
:data:`hookimpl`::

    from crystalmath.hookspecs import hookimpl

    @hookimpl
    def crystalmath_make_runner(settings):
        from .runner import MyRunner
        return MyRunner(settings)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ase import Atoms

    from crystalmath.models import EngineSettings, Finding, Pseudopotential
    from crystalmath.plugins.program import Program
    from crystalmath.plugins.progress_reader import ProgressReader
    from crystalmath.quacc.engine import EngineRunner

__all__ = ["PROJECT", "hookimpl"]

PROJECT = "crystalmath"

hookimpl = pluggy.HookimplMarker(PROJECT)
_hookspec = pluggy.HookspecMarker(PROJECT)


@_hookspec(firstresult=True)
def crystalmath_make_runner(settings: EngineSettings) -> EngineRunner | None:
    """Make the runner of this engine (engine plugins only).

    Called once for each engine, home and process, when the engine is first used. Nothing may be
    started here: an engine starts at its first ``launch``.

    Parameters
    ----------
    settings : EngineSettings
        The engine's name, the home, and the engine's own table of the configuration file.

    Returns
    -------
    EngineRunner
        The runner.

    Raises
    ------
    ImportError
        The engine's library is missing. The message names its distribution.
    ValueError
        An option has a value that cannot be used.
    """


@_hookspec
def crystalmath_engine_findings(settings: EngineSettings) -> Sequence[Finding]:
    """Return the obstacles for this engine, without starting it (engine plugins only).

    Parameters
    ----------
    settings : EngineSettings
        As for :func:`crystalmath_make_runner`.

    Returns
    -------
    sequence of Finding
        Empty if nothing is wrong.
    """
    raise NotImplementedError


@_hookspec
def crystalmath_preflight(
    recipe: str,
    atoms: Atoms | None,
    parameters: Mapping[str, Any],
    environment: Mapping[str, str],
    document: str,
) -> Sequence[Finding]:
    """Check a job before it is submitted.

    Checks under ``crystalmath.plugins`` apply to all jobs, those of an engine plugin to the jobs of
    the engine. Any error but ``InvalidJob`` becomes a warning that names the plugin.

    A check must be quick (milliseconds, warm) and must change nothing: no file, no setting, not the
    atoms.

    Parameters
    ----------
    recipe : str
        Full dotted name of the recipe.
    atoms : ase.Atoms or None
        The structure; ``None`` for a recipe without one.
    parameters : mapping of str to object
        The recipe's parameters.
    environment : mapping of str to str
        The environment variables that the job will see.
    document : str
        Structure and parameters in the form that the job's worker reads
        (:func:`crystalmath.recipes.codec.decode_spec`), for a check in another process.

    Returns
    -------
    sequence of Finding
        Errors refuse the job; warnings are stored with it.

    Raises
    ------
    InvalidJob
        The arguments cannot be part of a job at all.
    """
    raise NotImplementedError


@_hookspec
def crystalmath_pseudopotentials(
    recipe: str,
    atoms: Atoms | None,
    parameters: Mapping[str, Any],
    environment: Mapping[str, str],
    document: str,
) -> Sequence[Pseudopotential]:
    """Name the pseudopotential files that a job will read; they are recorded with it.

    It is called after :func:`crystalmath_preflight`, with the same arguments and rules.

    Parameters
    ----------
    recipe, atoms, parameters, environment, document
        As for :func:`crystalmath_preflight`.

    Returns
    -------
    sequence of Pseudopotential
        Each file once; empty if the job reads none, or none is known.
    """
    raise NotImplementedError


@_hookspec
def crystalmath_programs() -> Sequence[Program]:
    """Provide programs of recipes, whose jobs are checked before submission.

    Called once in each process that checks jobs; importing the plugin's module must cost little.

    Returns
    -------
    sequence of Program
        Each with a name that no other has.
    """
    raise NotImplementedError


@_hookspec
def crystalmath_progress_readers() -> Sequence[ProgressReader]:
    """Provide readers of the output of running programs.

    Called once in each process that reports progress; importing the plugin's module must cost
    little.

    Returns
    -------
    sequence of ProgressReader
        Each with a file that no other has. If two plugins name a file, the first by name reads it.
    """
    raise NotImplementedError
