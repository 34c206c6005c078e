"""Read what a submission asks for: its terms, its structure, its environment, its engine."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from attrs import evolve, frozen

from crystalmath.models import JobSpec
from crystalmath.quacc.runner import generate_job_id

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ase import Atoms

    from crystalmath.config import Config
    from crystalmath.models import Submission
    from crystalmath.models.job_notes import Parent
    from crystalmath.recipes.job_structure import JobStructure


@frozen
class AskedJob:
    """A submission that was read: what is to be run, and the text that the worker reads of it.

    The structure is decoded here for good, and the text is what everybody gets who is no part of
    this process: the recipe's child, the database, the run directory.
    """

    spec: JobSpec
    document: str
    spec_hash: str
    strict: bool = False

    def of_hooks(self) -> dict[str, Any]:
        """Return what a preflight hook is told."""
        return {
            "recipe": self.spec.recipe,
            "atoms": self.spec.atoms,
            "parameters": self.spec.parameters,
            "environment": self.spec.environment,
            "document": self.document,
        }


class SubmissionReader:
    """Read submissions, of a batch one after the other.

    Parameters
    ----------
    configured : Config
        The home's configuration.
    environ : mapping of str to str
        The environment of submissions that bring none.
    take_geometry : callable
        Gives the structure that stands as a job's, and whose it was.
    """

    def __init__(
        self,
        configured: Config,
        environ: Mapping[str, str],
        take_geometry: Callable[[JobStructure], tuple[Atoms | dict[str, Any], Parent]],
    ) -> None:
        self._config = configured
        self._environ = environ
        self._take_geometry = take_geometry
        # Of a batch all have mostly the same.
        self._forwarded: list[tuple[Mapping[str, str], dict[str, str]]] = []

    def read(self, submission: Submission, parents: Sequence[Parent] = ()) -> AskedJob:
        """Read its structure and parameters; its fields have been checked.

        Parameters
        ----------
        submission : Submission
            What is asked for.
        parents : sequence of Parent
            What it comes of, beside what its structure says.
        """
        from crystalmath.recipes import codec
        from crystalmath.recipes.ase_classes import with_classes
        from crystalmath.recipes.job_structure import JobStructure
        from crystalmath.recipes.structures import parse_and_keep

        given: object = submission.atoms
        if (of_job := JobStructure.read(given)) is not None:
            given, parent = self._take_geometry(of_job)
            parents = [*parents, parent]
        atoms, structure = (None, None) if given is None else parse_and_keep(given)
        spec = JobSpec(
            job_id=generate_job_id(),
            recipe=str(submission.recipe),
            atoms=atoms,
            parameters=with_classes(str(submission.recipe), submission.parameters),
            engine=self._engine_of(submission),
            environment=self._environment(submission),
            parents=parents,
            **submission.terms(),
        )
        body = codec.body_of(structure, spec.parameters)
        spec = self._placed(spec)
        hashed = spec_hash(spec.identity(), body)
        strict = submission.strict or self._config.strict
        return AskedJob(spec, codec.body_text(body), hashed, strict)

    def _environment(self, submission: Submission) -> dict[str, str]:
        """Return what the job sees of its submitter's environment; the preflight sees the same."""
        from crystalmath.quacc.engine import submission_environment

        environ = self._environ_of(submission)
        for known, forwarded in self._forwarded:
            if known is environ or known == environ:
                return forwarded
        forwarded = submission_environment(self._config, environ)
        self._forwarded[:] = [(environ, forwarded)]
        return forwarded

    def _placed(self, spec: JobSpec) -> JobSpec:
        """Give a job the variables of its cluster, in place of its submitter's."""
        cluster = self._config.clusters.get(spec.cluster)
        if cluster is None or not cluster.environment:
            return spec
        there = {**spec.environment, **cluster.environment}
        return evolve(spec, environment=there, replaced=replaced(spec.environment, there))

    def _environ_of(self, submission: Submission) -> Mapping[str, str]:
        given = submission.environment
        # Where none is taken, an empty one is none.
        takes = given is not None and self._config.restricted is None
        return given if takes and given is not None else self._environ

    def _engine_of(self, submission: Submission) -> str:
        from crystalmath.quacc.engines import get_workflow_engine

        cluster = self._config.clusters.get(submission.cluster)
        named = submission.engine or (cluster and cluster.engine) or self._config.engine
        if named:
            return str(named)
        return get_workflow_engine(self._environ_of(submission)) or "local"


def replaced(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str | None]:
    """Return what brings an environment back to what it was before."""
    names = before.keys() | after.keys()
    return {name: before.get(name) for name in names if before.get(name) != after.get(name)}


def defaulted(before: JobSpec, after: JobSpec) -> list[str]:
    """Name the terms that a job has been given, and was not asked for with."""
    was, now = before.terms(), after.terms()
    return [name for name, value in was.items() if value is None and now.get(name) is not None]


def spec_hash(what: Mapping[str, Any], body: Mapping[str, Any]) -> str:
    """Tell two specifications apart."""
    from crystalmath.recipes.json_text import json_pieces

    # The environment is left out: another shell must not make the same job another one.
    # So is the order of the names: JSON objects have none.
    hashed = hashlib.sha256()
    for piece in json_pieces([what, body], sort_keys=True):
        hashed.update(piece.encode())
    return hashed.hexdigest()
