"""Writes submissions and retries as the server takes them, in requests of a fair size."""

from __future__ import annotations

import inspect
import os
import secrets
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from attrs import evolve

from crystalmath import config, server
from crystalmath.client.transport import LONG_S, filters_document, parts
from crystalmath.errors import CrystalMathError, InvalidJob
from crystalmath.models import Submission
from crystalmath.models.checks import check_fields
from crystalmath.models.fields import declared, to_wire
from crystalmath.recipes.quacc_settings import changed_settings
from crystalmath.wire import messages

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from crystalmath.config import Config
    from crystalmath.wire.answers import RetriedJob

_Name = TypeVar("_Name")
#: The parameters of `jobs.submit`, or why there are none.
Written: TypeAlias = dict[str, Any] | CrystalMathError
#: A recipe's name, or the function as imported.
RecipeLike: TypeAlias = str | Callable[..., Any]

#: Jobs of one request, and its size in bytes.
MOST_JOBS = 1000
MOST_BYTES = 8 * 2**20

#: The largest job, in bytes; around it stands the request.
LARGEST = messages.MAX_MESSAGE - 2**20

#: What is sent as it is. Recipe and structure have more forms here than on the wire.
_CHECKED = {one.name for one in declared(Submission)} - {"recipe", "atoms"}


class Writer:
    """Writes submissions with the home's configuration and the present environment."""

    def __init__(self) -> None:
        # It belongs to the home that it was made for, whatever becomes of os.environ.
        self._environ = dict(os.environ)

    @cached_property
    def _source(self) -> config.Source:
        # Not before it is needed: a client that only looks does without a configuration.
        return config.Source(self._environ)

    def configured(self) -> tuple[Config, dict[str, str]]:
        """Return the home's configuration, and the present environment as jobs see it."""
        configured = self._source.current()
        told = (os.environ, changed_settings())
        brought = [config.submitters_environment(configured, environ) for environ in told]
        return configured, brought[0] | brought[1]

    def document(self, submission: Submission) -> dict[str, Any]:
        """Write a submission as the parameters of ``jobs.submit``; see :func:`document`."""
        return document(submission, *self.configured())

    def batches(self, submissions: Sequence[Submission]) -> Iterator[dict[int, Written]]:
        """Write many submissions, a request at a time.

        Yields for the number of each submission what is to be sent, or why it cannot be sent.
        """
        configured, environment = self.configured()

        def written(submission: Submission) -> Written:
            try:
                return document(submission, configured, environment)
            except CrystalMathError as error:
                return error

        return map(dict, batched((i, written(one)) for i, one in enumerate(submissions)))


def document(
    submission: Submission, configured: Config, environment: Mapping[str, str]
) -> dict[str, Any]:
    """Write a submission as the parameters of ``jobs.submit``: the one time that it is encoded.

    Of this process's `environment` it has what reaches the job, where the submission brings none.
    `InvalidJob`: something in it cannot be sent.
    """
    from crystalmath.recipes import codec
    from crystalmath.recipes.source_folders import anchored

    check_fields(submission, _CHECKED)
    recipe = recipe_name(submission.recipe, configured.recipes_allow)
    parameters = {
        name: codec.encode_request(value, str(name))
        for name, value in anchored(recipe, submission.parameters).items()
    }
    brought = submission.environment
    sent = evolve(
        submission,
        recipe=recipe,
        atoms=structure_document(submission.atoms),
        parameters=parameters,
        by_step=_encoded(submission.by_step),
        engine=submission.engine or _configured_engine(submission.cluster, configured),
        environment=environment if brought is None else brought,
    )
    return to_wire(sent, defaults=False)


def batched(
    asked: Iterable[tuple[_Name, Written]], together: int = 1
) -> Iterator[list[tuple[_Name, Written]]]:
    """Divide what is to be sent, each by its name, in its order.

    What is too large to be sent has an error in its place. So many as stay `together` come into one
    request.
    """
    batch: list[tuple[_Name, Written]] = []
    group: list[tuple[_Name, Written]] = []
    total = grown = 0
    for number, (name, given) in enumerate(asked, 1):
        written = given
        if not isinstance(given, CrystalMathError):
            try:
                grown += sent_size(given)
            except CrystalMathError as error:
                written = error
        group.append((name, written))
        if number % together:
            continue
        if batch and (len(batch) + together > MOST_JOBS or total + grown > MOST_BYTES):
            yield batch
            batch, total = [], 0
        batch += group
        total += grown
        group, grown = [], 0
    if batch or group:
        yield [*batch, *group]


def sent_size(document: object) -> int:
    """Return how many bytes are sent for a job; `InvalidJob`: they are too many."""
    size = messages.size(document)
    if size > LARGEST:
        raise InvalidJob(
            f"structure and parameters take {size / 2**20:.0f} MiB; the limit is "
            f"{LARGEST / 2**20:.0f} MiB"
        )
    return size


def ask_again(
    ask: server.Ask,
    changes: Mapping[str, Any],
    *,
    job_ids: Sequence[str] | None = None,
    filters: Mapping[str, Any] | None = None,
    dry_run: bool = False,
) -> list[RetriedJob]:
    """Have jobs run again, and return what was answered of each."""
    # With a key the request can be made again where its answer is lost.
    key = changes.get("key") or secrets.token_hex(16)
    asked = {**retry_document(changes), "dry_run": dry_run, "key": key}
    if filters is not None:
        asked["filters"] = filters_document(filters)
    requests: list[dict[str, list[str]]] = [{}]
    if job_ids is not None:
        requests = [{"job_ids": part} for part in parts(job_ids) or [[]]]
    found: list[RetriedJob] = []
    try:
        for each in requests:
            found += ask(server.JOBS_RETRY, timeout=LONG_S, **each, **asked)["jobs"]
    except KeyboardInterrupt as stopped:
        if not (dry_run or changes.get("key")):  # a key of one's own gives the same jobs again
            stopped.add_note(
                "the jobs were asked to run again, and may all the same; crystalmath list shows "
                "the new ones"
            )
        raise
    return found


def retry_document(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Write changes as the parameters of ``jobs.retry``; `InvalidJob`: one cannot be sent."""
    from crystalmath.models.retry import Retry
    from crystalmath.recipes import codec
    from crystalmath.recipes.lookup import NAMESPACE
    from crystalmath.recipes.source_folders import anchored

    given = Retry(**changes)
    check_fields(given, {one.name for one in declared(Retry)})
    # Of what recipe the jobs are is not known here; the names are quacc's.
    parameters = {
        name: codec.encode_request(value, str(name))
        for name, value in anchored(f"{NAMESPACE}.", given.parameters).items()
    }
    sent = evolve(given, parameters=parameters, by_step=_encoded(given.by_step))
    return to_wire(sent, defaults=False)


def _encoded(by_step: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Encode the parameters that are other by step."""
    from crystalmath.recipes import codec

    return {
        pattern: {**one, "params": codec.encode_request(one["params"])} if "params" in one else one
        for pattern, one in by_step.items()
    }


def _configured_engine(cluster: str, configured: Config) -> str | None:
    # CRYSTALMATH_ENGINE is this process's; the server was started with another one. A cluster of
    # the configuration file says itself which engine it is of.
    return None if cluster in configured.clusters else configured.engine


def recipe_name(recipe: str | Callable[..., Any], allow: tuple[str, ...] = ()) -> str:
    """Return a full dotted name; `InvalidJob`: no other process can import the function."""
    if isinstance(recipe, str):
        from crystalmath.recipes.lookup import full_name

        return full_name(recipe, allow)
    # quacc's decorators wrap a recipe where a workflow engine is set.
    function = inspect.unwrap(recipe)
    module = getattr(function, "__module__", None)
    name = getattr(function, "__qualname__", None)
    if not module or not name:
        raise InvalidJob(
            f"a recipe is a dotted name or a function imported from its module, not {recipe!r:.80}"
        )
    if module == "__main__" or not name.isidentifier():
        where = "in this notebook or script" if module == "__main__" else f"inside {module}"
        raise InvalidJob(
            f"the recipe {name!r} is defined {where}, from where no worker can import it; put it "
            "at the top level of a module that is installed (mylab/recipes.py), admit that with "
            '[recipes] allow = ["mylab.recipes"] in config.toml or CRYSTALMATH_RECIPES='
            "mylab.recipes, and import it from there"
        )
    return f"{module}.{name}"


def structure_document(atoms: object) -> object:
    """Write a structure, or each of a list that one job takes together."""
    if isinstance(atoms, (list, tuple)):
        return [_structure(each) for each in atoms]
    return _structure(atoms)


def _structure(atoms: object) -> str | dict[str, Any] | None:
    from crystalmath.models.reference import JobValue
    from crystalmath.recipes.job_structure import JobStructure, read_job_text

    if atoms is None:
        return None
    if isinstance(job_id := getattr(atoms, "job_id", None), str) or isinstance(atoms, JobValue):
        named = atoms if isinstance(atoms, JobValue) else JobStructure(str(job_id))
        return named.document()
    if isinstance(atoms, str):
        if (of_job := read_job_text(atoms)) is not None:
            return of_job.document()
        if atoms and "\n" not in atoms:
            raise InvalidJob(
                f"a structure as text is a whole POSCAR, or job:ID, not {atoms!r:.80}; a file is "
                "read by ase.io.read"
            )
        return atoms
    if isinstance(atoms, Mapping):
        return dict(atoms)
    from ase import Atoms

    from crystalmath.recipes.ase_json import check_atoms
    from crystalmath.recipes.structures import to_ase_json

    if not isinstance(atoms, Atoms):
        raise InvalidJob(
            f"a structure must be an ase.Atoms, not {type(atoms).__name__}; "
            "ase.io.read reads files, pymatgen structures have to_ase_atoms()"
        )
    return to_ase_json(check_atoms(atoms))
