"""Write specifications and results as JSON, and read them back.

Objects that JSON lacks are tagged in monty's way, ``{"@module": ..., "@class": ...}``:

=============================  ==========================================================
``numpy`` ``array``            ``dtype``, ``data`` (nested lists); ``shape`` if it is empty
``numpy.random`` ``Generator`` ``state``: that of its bit generator
``pymatgen.io.ase``            ``MSONAtoms``: ``atoms_json`` (text), ``atoms_info``
``pathlib`` ``Path``           ``string``
``datetime`` ``datetime``      ``string`` (ISO 8601); ``date`` likewise
``builtins``                   ``complex`` and ``tuple``, ``set``, ``frozenset``: ``data``;
                               ``bytes``: ``data`` (base64); ``float``: ``string``
                               (``nan``, ``inf``, ``-inf``); ``dict``: ``items`` (pairs)
``numpy`` ``float64``, ...     in results a scalar of numpy's: ``data``
``quacc``                      ``Remove`` and ``QuaccDefault``
=============================  ==========================================================

Classes of ``ase.optimize`` and ``ase.md`` are ``{"@module": ..., "@callable": ...}``.

``builtins.dict`` is a dict with keys that are no strings. In specifications it is also one with the
key ``$job`` or with keys that begin with ``@``: a reader takes no plain dict for a reference or a
tag.

In results, numpy's scalars that are members of a dict are plain numbers, for all readers. The
member ``@numpy`` of that dict holds their types: ``{"energy": "float64", "frequencies":
["float64"]}``, the second for a list of scalars.

A structure of pymatgen's class ``MSONAtoms`` has the member ``msonable``. The arguments of a flow's
step are written as results are, but their structures as in specifications, with ``info``.

Specifications hold finite numbers only. In results a number that is not finite becomes the tag
``builtins.float``, as JSON has no word for it. Within an array's ``data`` it becomes one of the
strings ``"nan"``, ``"inf"`` and ``"-inf"``.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from crystalmath.errors import BadFile, InvalidJob
from crystalmath.recipes.ase_json import check_atoms
from crystalmath.recipes.decoding import RequestDecoder, ResultDecoder, SpecDecoder
from crystalmath.recipes.encoding import (
    ParameterEncoder,
    ResultEncoder,
    StrictEncoder,
    tagged_atoms,
)
from crystalmath.recipes.json_text import json_text
from crystalmath.recipes.stored_result import StoredResult, store, unpacked

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ase import Atoms

    from crystalmath.models import JobSpec

_MAX_BYTES = 64 * 2**20


def encode_spec(spec: JobSpec) -> str:
    """Write a job's structure and parameters as one line of JSON (ASCII).

    Raises `InvalidJob`: a parameter cannot be written as JSON, or the text is larger than 64 MiB.
    The message names the parameter's place (``opt_params.optimizer``).
    """
    if spec.atoms is not None:
        check_atoms(spec.atoms)
    return body_text(_body(StrictEncoder().encode(spec.atoms, ("structure",)), spec.parameters))


def body_of(structure: Mapping[str, Any] | None, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document that :func:`encode_spec` writes, from a structure that is encoded."""
    return _body(None if structure is None else tagged_atoms(structure), parameters)


def body_text(body: Mapping[str, Any]) -> str:
    """Write a document of :func:`body_of`; `InvalidJob`: it is larger than 64 MiB."""
    text = json_text(body, compact=True)
    if len(text) > _MAX_BYTES:
        raise InvalidJob(
            f"structure and parameters take {len(text) / 2**20:.0f} MiB; the limit is 64 MiB"
        )
    return text


def _body(atoms: object, parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {"atoms": atoms, "parameters": _parameters(parameters)}


def _parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    encoder = ParameterEncoder()
    for name in parameters:
        if not isinstance(name, str):
            raise InvalidJob(f"the parameter name {name!r} is no string")
    return {name: encoder.encode(value, (name,)) for name, value in parameters.items()}


def decode_spec(body: str) -> tuple[Atoms | None, dict[str, Any]]:
    """Return the structure, if any, and the parameters that :func:`encode_spec` wrote.

    quacc is imported only for its sentinels. Raises `InvalidJob`: the text is damaged.
    """
    document = _document(body)
    return SpecDecoder().decode(document["atoms"], ("structure",)), _decoded(document["parameters"])


def decode_parameters(body: str) -> dict[str, Any]:
    """Return only the parameters that :func:`encode_spec` wrote; see :func:`decode_spec`."""
    return _decoded(_document(body)["parameters"])


def _document(body: str) -> dict[str, Any]:
    try:
        document = json.loads(body)
        return {"atoms": document["atoms"], "parameters": dict(document["parameters"])}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidJob(f"the job's specification is damaged: {error!r}") from error


def _decoded(parameters: Mapping[str, Any]) -> dict[str, Any]:
    decoder = SpecDecoder()
    return {name: decoder.decode(value, (name,)) for name, value in parameters.items()}


def encode_request(value: object, place: str = "params") -> Any:
    """Return a parameter as JSON data that :func:`decode_request` reads back.

    Raises `InvalidJob`: a part of it has none of the permitted types.
    """
    return StrictEncoder().encode(value, (place,))


def decode_request(value: object, place: str = "params") -> Any:
    """Return parameters that came from outside, decoded from JSON data.

    Only the tags in this module's list become objects; quacc's sentinels become :class:`Sentinel`,
    so that nothing is imported. Objects of these types, from a front end in the same process, stay
    as they are.

    Raises `InvalidJob`: a dict names any other module, a number is not finite, or it is nested too
    deeply.
    """
    return RequestDecoder().decode(value, (place,))


def stored_result(result: object, as_text: list[str] | None = None) -> StoredResult:
    """Write a recipe's result as an outcome holds it; equal results give equal bytes."""
    encoder = ResultEncoder()
    document = encoder.encode(result, ("result",))
    if as_text is not None:
        as_text += encoder.as_text
    return store(document)


def encode_result(result: object, as_text: list[str] | None = None) -> bytes:
    """Write a recipe's result as gzipped JSON; see :func:`stored_result`."""
    stored = stored_result(result, as_text)
    return stored.data[: len(stored.data) - stored.sizes["index"]]


def decode_result(data: bytes, decoder: ResultDecoder | None = None) -> Any:
    """Return the result that :func:`encode_result` wrote; it may come from an archive.

    Raises `BadFile`: it is no gzipped JSON. `InvalidJob`: an object in it cannot be read.
    """
    return decode_result_json(unpacked(data), decoder)


def decode_result_json(text: bytes, decoder: ResultDecoder | None = None) -> Any:
    """Return a result from its JSON text; see :func:`decode_result`."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadFile(f"a stored result is damaged: {error}") from error
    return decode_result_document(document, decoder)


def decode_result_document(document: Any, decoder: ResultDecoder | None = None) -> Any:
    """Return a result from its parsed JSON text.

    Objects are made only of listed classes (:mod:`crystalmath.recipes.decoding`) and of those that
    belong to the user's own recipes; any other object stays a table.
    """
    return (decoder or ResultDecoder()).decode(document, ("result",))
