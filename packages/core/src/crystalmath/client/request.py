"""Writes submissions and retries for the server, in requests of a fair size."""

from __future__ import annotations

import inspect
import os
import secrets
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from attrs import evolve

from crystalmath import config, server
from crystalmath.client.transport import LONG_S, filters_document, parts
from crystalmath.errors import CrystalMathError, InvalidJob
from crystalmath.models import Submission
from crystalmath.models.checks import check_fields
from crystalmath.models.fields import declared, to_wire
from crystalmath.models.job_keys import own_key
from crystalmath.recipes.quacc_settings import changed_settings
from crystalmath.wire import messages

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from crystalmath.config import Config
    from crystalmath.remotes.remote_home import RemoteHome
    from crystalmath.wire.answers import RetriedJob

_Name = TypeVar("_Name")
#: The parameters of `jobs.submit`, or the error in their place.
Written: TypeAlias = dict[str, Any] | CrystalMathError
#: A recipe's name, or the function as imported.
RecipeLike: TypeAlias = str | Callable[..., Any]

#: Jobs of one request, and its size in bytes.
MOST_JOBS = 1000
MOST_BYTES = 8 * 2**20

#: The largest job, in bytes; the request around it needs the rest of a message.
LARGEST = messages.MAX_MESSAGE - 2**20

#: Fields that are sent unchanged. Recipe and structure have more forms here than on the wire.
_CHECKED = {one.name for one in declared(Submission)} - {"recipe", "atoms"}


class Writer:
    """Writes submissions with the home's configuration and the present environment.

    Submissions for a `remote` home have nothing of this machine's.
    """

    def __init__(self, remote: RemoteHome | None = None) -> None:
        self._remote = remote
        # A copy keeps the writer with its home if os.environ changes.
        self._environ = dict(os.environ)

    @cached_property
    def _source(self) -> config.Source:
        # It is read on demand: a client that only reads needs no configuration.
        return config.Source(self._environ)

    def configured(self) -> tuple[Config, dict[str, str] | None]:
        """Return the home's configuration, and the part of the environment that jobs get.

        Jobs of a remote home get ``None``, which stands for the environment there.
        """
        configured = self._source.current()
        if self._remote is not None:
            from crystalmath.client.over_ssh import version_of

            allow = tuple(version_of(self._remote)["recipes_allow"])
            return replace(configured, recipes_allow=allow, engine=None, clusters={}), None
        environment = config.submitters_environment(configured, os.environ)
        return configured, environment | config.submitters_environment(
            configured, changed_settings()
        )

    def document(self, submission: Submission) -> dict[str, Any]:
        """Write a submission as the parameters of ``jobs.submit``; see :func:`document`."""
        return document(submission, *self.configured())

    def batches(self, submissions: Sequence[Submission]) -> Iterator[dict[int, Written]]:
        """Write many submissions, a request at a time.

        Yields the document of each submission by its number, or the error in its place.
        """
        configured, environment = self.configured()

        def written(submission: Submission) -> Written:
            try:
                return document(submission, configured, environment)
            except CrystalMathError as error:
                return error

        return map(dict, batched((i, written(one)) for i, one in enumerate(submissions)))


def present_writer() -> Writer:
    """Return a writer for the home here, or for the one that ``CRYSTALMATH_ON`` names."""
    if (name := config.remote_name()) is None:
        return Writer()
    from crystalmath.remotes.remote_home import named

    return Writer(named(name))


def document(
    submission: Submission, configured: Config, environment: Mapping[str, str] | None
) -> dict[str, Any]:
    """Return a submission as the parameters of ``jobs.submit``; nothing else encodes it.

    `environment` is sent unless the submission has one of its own. Without one the submission is
    for a remote home, and paths in parameters are those of that machine. `InvalidJob`: a value
    cannot be sent.
    """
    from crystalmath.recipes import codec
    from crystalmath.recipes.source_folders import anchored

    check_fields(submission, _CHECKED)
    recipe = recipe_name(submission.recipe, configured.recipes_allow)
    is_away = environment is None
    given = submission.parameters if is_away else anchored(recipe, submission.parameters)
    parameters = {name: codec.encode_request(value, str(name)) for name, value in given.items()}
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
    documents: Iterable[tuple[_Name, Written]], together: int = 1
) -> Iterator[list[tuple[_Name, Written]]]:
    """Divide documents, each with its name, into requests, in their order.

    An error stands in the place of a document that is too large. A group of `together` documents is
    never divided.
    """
    batch: list[tuple[_Name, Written]] = []
    group: list[tuple[_Name, Written]] = []
    total = grown = 0
    for number, (name, document) in enumerate(documents, 1):
        written = document
        if not isinstance(document, CrystalMathError):
            try:
                grown += sent_size(document)
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
    """Return the size of a job's document in bytes; `InvalidJob`: it is too large."""
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
    """Submit jobs again, and return the answer for each."""
    # With a key the request can be repeated if its answer is lost.
    key = changes.get("key") or secrets.token_hex(16)
    params = {**retry_document(changes), "dry_run": dry_run, "key": key}
    if filters is not None:
        params["filters"] = filters_document(filters)
    requests: list[dict[str, list[str]]] = [{}]
    if job_ids is not None:
        requests = [{"job_ids": part} for part in parts(job_ids) or [[]]]
    retried: list[RetriedJob] = []
    try:
        for each in requests:
            retried += ask(server.JOBS_RETRY, timeout=LONG_S, **each, **params)["jobs"]
    except KeyboardInterrupt as stopped:
        if not (
            dry_run or changes.get("key")
        ):  # with the caller's key the same call returns these jobs
            stopped.add_note(
                "the server may still run the jobs again; crystalmath list shows the new ones"
            )
        raise
    return retried


def retry_document(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return changes as the parameters of ``jobs.retry``; `InvalidJob`: one cannot be sent."""
    from crystalmath.models.retry import Retry
    from crystalmath.recipes import codec
    from crystalmath.recipes.lookup import NAMESPACE
    from crystalmath.recipes.source_folders import anchored

    retry = Retry(**changes)
    check_fields(retry, {one.name for one in declared(Retry)})
    # The recipe of the jobs is unknown here; paths are anchored as for quacc's recipes.
    parameters = {
        name: codec.encode_request(value, str(name))
        for name, value in anchored(f"{NAMESPACE}.", retry.parameters).items()
    }
    sent = evolve(retry, parameters=parameters, by_step=_encoded(retry.by_step))
    return to_wire(sent, defaults=False)


def _encoded(by_step: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Encode the parameters of single steps."""
    from crystalmath.recipes import codec

    return {
        pattern: {**one, "params": codec.encode_request(one["params"])} if "params" in one else one
        for pattern, one in by_step.items()
    }


def _configured_engine(cluster: str, configured: Config) -> str | None:
    # The server may have been started with another CRYSTALMATH_ENGINE than this process has. A
    # cluster of the configuration file names its engine itself.
    return None if cluster in configured.clusters else configured.engine


def recipe_name(recipe: str | Callable[..., Any], allow: tuple[str, ...] = ()) -> str:
    """Return a full dotted name; `InvalidJob`: no other process can import the function."""
    if isinstance(recipe, str):
        from crystalmath.recipes.lookup import full_name

        return full_name(recipe, allow)
    # quacc's decorators wrap a recipe if a workflow engine is set.
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
    """Return the document of a structure, or those of a list for one job."""
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


def keyed(
    structures: Iterable[Any], key: str | None, request_of: Callable[[object], object]
) -> Iterator[tuple[Any, str | None]]:
    """Yield structures, each with the key of its job, as the command line makes it.

    `request_of` returns the request of an encoded structure, for the fingerprint.
    """
    if key is None:
        yield from ((structure, None) for structure in structures)
        return
    before: Counter[str] = Counter()
    for structure in structures:
        try:
            document = structure_document(structure)
        except CrystalMathError:  # raised again when the job is written, in its place
            yield structure, None
        else:
            yield document, own_key(key, request_of(document), before)
