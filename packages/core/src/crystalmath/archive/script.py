"""Writes what a job on record computes: as a script, and as the inputs of its programs."""

from __future__ import annotations

import datetime as dt
import json
import shlex
from contextlib import ExitStack
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

from crystalmath.errors import InvalidJob
from crystalmath.jobs import outdirs
from crystalmath.models.inputs import OUTDIR
from crystalmath.models.job_notes import awaited
from crystalmath.models.submission import merged
from crystalmath.recipes import codec
from crystalmath.recipes.encoding import Sentinel
from crystalmath.recipes.job_structure import JobStructure, references_in
from crystalmath.recipes.json_text import structure_of
from crystalmath.recipes.lookup import is_quaccs, look_up
from crystalmath.recipes.source_folders import RUN_IN
from crystalmath.recipes.structures import parse_structure

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from ase import Atoms

    from crystalmath.models.inputs import Inputs, StepInputs
    from crystalmath.quacc.store import JobMetadata
    from crystalmath.recipes.lookup import Recipe
    from crystalmath.service.job_service import JobService
    from crystalmath.wire.answers import Potcar

#: The variables of a job's environment that its calculation may depend on.
_SETTINGS = ("QUACC_", "VASP_", "ESPRESSO_", "ASE_")
#: The types whose `repr` is valid Python.
_PLAIN = (NoneType, bool, int, float, str, bytes, complex)
_WORKFLOW = "QUACC_WORKFLOW_ENGINE"


def python_script(job: JobMetadata, specification: str, allow: Sequence[str] = ()) -> str:
    """Return a Python script that computes the same as a job.

    It calls only an installed recipe and writes values by ``repr``, so that a record cannot inject
    code. `InvalidJob`: the recipe is not installed here, or a parameter cannot be written as
    Python, such as a random generator.
    """
    head, _, document = specification.partition("\n")
    header, encoded = json.loads(head), json.loads(document)
    source = _Source()
    body = []
    arguments = "**parameters"
    _require_values(job, encoded)
    if (structure := structure_of(encoded)) is not None:
        atoms = parse_structure(structure)
        body += [f"atoms = {source.atoms(atoms)}", ""]
        arguments = f"atoms, {arguments}"
    recipe = look_up(job.recipe, allow)
    full_name = recipe.name
    module, _, name = full_name.rpartition(".")
    parameters, left = _parameters(recipe, header, encoded["parameters"])
    if left:
        raise InvalidJob(
            f"no script of flow {job.job_id} can have the changed terms of some steps "
            f"({', '.join(left)}); write scripts of its steps: "
            f"crystalmath list --parent {job.job_id}"
        )
    body += [f"parameters = {source.value(parameters)}", ""]
    for key in RUN_IN & parameters.keys():
        if isinstance(parameters[key], str | Path) and is_quaccs(full_name):
            source.imports.add("import shutil")
            place = str(outdirs.place_of(parameters[key]))
            copy = f"shutil.copytree({place!r}, os.path.abspath({key!r}), dirs_exist_ok=True)"
            body += [
                "# The program writes there, and gets a copy.",
                f"parameters[{key!r}] = {copy}",
                "",
            ]
    environment = header.get("environment", {})
    settings = {
        name: value
        for name, value in sorted(environment.items())
        if name.startswith(_SETTINGS) and name != _WORKFLOW
    }
    imports = sorted({*source.imports, f"from {module} import {name}"} - {"import os"})
    submitted = dt.datetime.fromtimestamp(job.created_at, dt.UTC)
    lines = [
        f'"""What job {job.job_id} computes, with quacc alone: {full_name}.',
        "",
        f"Submitted on {submitted:%Y-%m-%d %H:%M} UTC. Results are written into the folder in",
        "which this is started.",
        '"""',
        "",
        "import os",
        "",
        "# The settings that the job had; what the environment says goes before.",
        f"SETTINGS = {source.value(settings)}",
        "for name, value in SETTINGS.items():",
        "    os.environ.setdefault(name, value)",
        "# Recipes are plain functions then.",
        f'os.environ["{_WORKFLOW}"] = "None"',
        "",
        *(f"{line}  # noqa: E402" for line in imports),
        "",
        *body,
        'if __name__ == "__main__":',
        f"    result = {name}({arguments})",
        '    if isinstance(result, dict) and "energy" in result.get("results", {}):',
        """        print(f"{result['results']['energy']} eV")""",
        "    else:",
        "        print(result)",
    ]
    return "\n".join(lines) + "\n"


def _require_values(job: JobMetadata, body: Mapping[str, Any]) -> None:
    """Refuse a job that still refers to values of other jobs."""
    if JobStructure.read(body["atoms"]) or references_in(body["parameters"]):
        names = ", ".join(dict.fromkeys(parent["job_id"] for parent in awaited(job.parents)))
        raise InvalidJob(
            f"job {job.job_id} has no complete inputs: it never got the values of {names}"
        )


def _parameters(
    recipe: Recipe, header: Mapping[str, Any], encoded: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Return a job's parameters, and the steps whose changes they cannot have.

    Changes for steps that a function of quacc makes go into the `job_params` of the flow.
    """
    takes = recipe.signature is not None and "job_params" in recipe.signature.parameters
    left = []
    for pattern, settings in header.get("by_step", {}).items():
        if changed := settings.get("params"):
            if takes and pattern.isidentifier():
                encoded = merged(encoded, {"job_params": {pattern: changed}})
            else:
                left.append(pattern)
    return codec.decode_request(encoded), left


class _Source:
    """Writes values as Python, and keeps what has to be imported for them."""

    def __init__(self) -> None:
        self.imports: set[str] = set()

    def atoms(self, atoms: Atoms) -> str:
        self.imports.add("from ase import Atoms")
        document = atoms.todict()
        if atoms.constraints:
            document["constraints"] = [each.todict() for each in atoms.constraints]
        return f"Atoms.fromdict({self.value(document)})"

    def value(self, value: Any, indent: int = 0) -> str:
        """Write a value; tables and lists of lists go over several lines."""
        if type(value) in _PLAIN:
            return repr(value)
        writers: Sequence[tuple[Any, Callable[[Any, int], str]]] = (
            (dict, self._dict),
            (list, self._list),
            (tuple, self._tuple),
            ((set, frozenset), self._set),
            (Path, self._path),
            (dt.date, self._time),
            (type, self._class),
            (Sentinel, self._sentinel),
        )
        for kinds, write in writers:
            if isinstance(value, kinds):
                return write(value, indent)
        return self._of_library(value, indent)

    def _dict(self, value: dict[Any, Any], indent: int) -> str:
        pairs = [f"{self.value(k)}: {self.value(v, indent + 4)}" for k, v in value.items()]
        return self._several("{", pairs, "}", indent)

    def _list(self, value: list[Any], indent: int) -> str:
        items = [self.value(each, indent + 4) for each in value]
        plain = not any(isinstance(each, list | dict) for each in value)
        return f"[{', '.join(items)}]" if plain else self._several("[", items, "]", indent)

    def _tuple(self, value: tuple[Any, ...], indent: int) -> str:
        items = [self.value(each, indent) for each in value]
        return f"({', '.join(items)}{',' if len(items) == 1 else ''})"

    def _set(self, value: set[Any] | frozenset[Any], indent: int) -> str:
        items = sorted(self.value(each, indent) for each in value)
        return f"{type(value).__name__}([{', '.join(items)}])"

    def _path(self, value: Path, _: int) -> str:
        self.imports.add("from pathlib import Path")
        return f"Path({str(value)!r})"

    def _time(self, value: dt.date, _: int) -> str:
        self.imports.add("import datetime")
        return repr(value)

    def _class(self, value: type, _: int) -> str:
        self.imports.add(f"from {value.__module__} import {value.__qualname__}")
        return value.__qualname__

    def _sentinel(self, value: Sentinel, _: int) -> str:
        self.imports.add(f"from quacc import {value.name}")
        return value.name

    def _of_library(self, value: Any, indent: int) -> str:
        import numpy as np
        from ase import Atoms

        if isinstance(value, np.ndarray | np.generic):
            self.imports.add("import numpy as np")
            return f"np.array({self.value(value.tolist(), indent)}, dtype={str(value.dtype)!r})"
        if isinstance(value, Atoms):
            return self.atoms(value)
        raise InvalidJob(
            f"a {type(value).__name__} among the parameters cannot be written as Python; submit "
            "the job again with a plain value in its place"
        )

    def _several(self, opened: str, items: Sequence[str], closed: str, indent: int) -> str:
        if not items:
            return opened + closed
        inner = " " * (indent + 4)
        return "\n".join([opened, *(f"{inner}{each}," for each in items), " " * indent + closed])


def shell_script(
    job: JobMetadata,
    steps: Sequence[StepInputs],
    commands: Sequence[str | None],
    potcars: Sequence[Potcar],
) -> str | None:
    """Write how the programs are started in folders of their inputs.

    One step lies in the folder itself, several in ``step-1`` and so on. ``None`` where a step is no
    program's that is started by a command.
    """
    if not steps or None in commands:
        return None
    lines = [
        "#!/bin/sh -e",
        f"# The programs of job {job.job_id} ({job.recipe!a}), without quacc.",
        'cd "$(dirname "$0")"',
    ]
    paths = {each["titel"]: each["path"] for each in potcars if each["titel"]}
    for number, (step, command) in enumerate(zip(steps, commands, strict=True), 1):
        if not step.certain:
            of = "the result of an earlier one" if number > 1 else "the machine that it runs on"
            lines.append(f"# What this one gets depends on {of}.")
        inner = [f"cd step-{number}"] if len(steps) > 1 else []
        if (titles := step.files.get("POTCAR.titel")) is not None:
            inner.append(_potcar(titles.splitlines(), paths))
        # The program writes there, and what the job has left must stay as it is.
        copies = (OUTDIR.search(text) for text in step.files.values())
        inner += [f"cp -R {shlex.quote(each[0])}/. ." for each in copies if each]
        lines.append(f"({' && '.join([*inner, str(command)])})")
    return "\n".join(lines) + "\n"


def _potcar(titles: Sequence[str], paths: Mapping[str, str]) -> str:
    """Put POTCAR together, which is a licensed file: it stays where it is kept."""
    if any(title not in paths for title in titles):
        return "{ [ -e POTCAR ] || { echo 'put a POTCAR there; see POTCAR.titel' >&2; exit 1; }; }"
    files = " ".join(shlex.quote(paths[title]) for title in titles)
    # One that is cut would be taken for whole the next time.
    return f"{{ [ -e POTCAR ] || {{ cat {files} > POTCAR.new && mv POTCAR.new POTCAR; }}; }}"


# --- inputs ----------------------------------------------------------------------------------


def written_by_job(service: JobService, job: JobMetadata) -> Generator[None, None, Inputs]:
    """Read the inputs that a job's present attempt has written, and after it a flow's steps."""
    from crystalmath.preflight.programs_here import programs
    from crystalmath.preflight.step_inputs import written_inputs

    steps = [] if job.stage is None else service.some_jobs(service.step_ids(job.job_id))
    with ExitStack() as stack:
        works = [
            stack.enter_context(service.files(each.job_id, copied=True)).work(each.attempt)
            for each in (job, *steps)
        ]
        return (yield from written_inputs(works, programs()))


def asked_of_job(service: JobService, job: JobMetadata) -> Inputs:
    """Return the inputs that the recipe of a job writes now, with present presets and settings."""
    from crystalmath.preflight.step_inputs import asked_inputs

    head, _, body = service.specification(job.job_id).partition("\n")
    header, encoded = json.loads(head), json.loads(body)
    document: str | None = body
    _require_values(job, encoded)
    structure = structure_of(encoded)
    if header.get("by_step"):
        recipe = look_up(job.recipe, service.config.recipes_allow)
        parameters, document = _parameters(recipe, header, encoded["parameters"])[0], None
    else:
        parameters = codec.decode_request(encoded["parameters"])
    return asked_inputs(
        job.recipe,
        None if structure is None else parse_structure(structure),
        parameters,
        header.get("environment", {}),
        document,
        here=service.runs_here(job),
    )
