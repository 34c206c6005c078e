"""``crystalmath init``: ask for settings, check each answer, and write ``config.toml``."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from attrs import asdict, frozen

from crystalmath._permissions import make_own
from crystalmath.cli.shared import common_arguments, output
from crystalmath.cli.shared.health import condition, show
from crystalmath.errors import ConfigError, did_you_mean
from crystalmath.models.cluster import Check

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


#: The command of a batch system that is looked for on PATH, by the name of the example.
_SCHEDULERS = {"slurm": "sbatch", "pbs": "pbsnodes", "lsf": "bsub", "flux": "flux"}


@frozen(kw_only=True)
class _Question:
    """A question for a variable that jobs read from their environment."""

    variable: str
    asks: str
    #: Returns the answer that an environment suggests, if any.
    suggest: Callable[[Mapping[str, str]], str | None]
    #: The names of the checks of ``crystalmath doctor`` that judge the answer.
    looked_at: tuple[str, ...]
    #: Whether the answer is a folder, which jobs of the program require.
    is_folder: bool = False


def _setting(name: str) -> Callable[[Mapping[str, str]], str | None]:
    """Return a function that reads a setting of quacc from the environment or quacc's file."""

    def suggest(environment: Mapping[str, str]) -> str | None:
        from crystalmath.recipes.quacc_settings import quacc_setting

        setting = quacc_setting(name, environment)
        return setting[0] if setting is not None and isinstance(setting[0], str) else None

    return suggest


def _potcars(environment: Mapping[str, str]) -> str | None:
    from crystalmath.recipes.quacc_settings import potcars_of

    where = potcars_of(environment).path
    return None if where is None else str(where)


_QUESTIONS = {
    "potcars": _Question(
        variable="VASP_PP_PATH",
        asks="VASP's POTCARs: the folder that holds potpaw_PBE",
        suggest=_potcars,
        looked_at=("POTCARs",),
        is_folder=True,
    ),
    "vasp": _Question(
        variable="QUACC_VASP_CMD",
        asks="The command of VASP, unless it is vasp_std on PATH",
        suggest=_setting("VASP_CMD"),
        looked_at=("VASP",),
    ),
    "vasp_launcher": _Question(
        variable="QUACC_VASP_PARALLEL_CMD",
        asks="The command that starts VASP's ranks (mpirun -np 16), unless a cluster or --ranks "
        "sets it",
        suggest=_setting("VASP_PARALLEL_CMD"),
        looked_at=("VASP",),
    ),
    "pseudopotentials": _Question(
        variable="QUACC_ESPRESSO_PSEUDO",
        asks="Quantum ESPRESSO's pseudopotentials: the folder of the UPF files",
        suggest=_setting("ESPRESSO_PSEUDO"),
        looked_at=("UPF files", "pw.x"),
        is_folder=True,
    ),
}


def init(
    *,
    potcars: Annotated[
        str | None, typer.Option(metavar="DIR", help="The folder that holds potpaw_PBE.")
    ] = None,
    vasp: Annotated[
        str | None, typer.Option(metavar="CMD", help="The command of VASP (QUACC_VASP_CMD).")
    ] = None,
    vasp_launcher: Annotated[
        str | None,
        typer.Option(metavar="CMD", help="The command that starts VASP's ranks: 'mpirun -np 16'."),
    ] = None,
    pseudopotentials: Annotated[
        str | None, typer.Option(metavar="DIR", help="The folder of Quantum ESPRESSO's UPF files.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="The number of jobs at a time on this machine."),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="Add an example of a cluster: slurm, pbs, ...; or none."),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask: use the detected settings.")
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace config.toml; the old file becomes config.toml~."),
    ] = False,
    as_json: common_arguments.Json = False,
) -> int:
    """Ask for the settings that jobs need; write config.toml.

    Each answer is checked as in crystalmath doctor. Options answer their questions. Without a
    terminal, or with --yes, the command asks nothing and uses the detected settings.
    """
    from crystalmath import config

    home = config.home()
    path = home / "config.toml"
    asks = not (yes or as_json) and sys.stdin.isatty() and sys.stderr.isatty()
    _require_free(path, overwrite=overwrite, asks=asks)
    options = {
        "potcars": potcars,
        "vasp": vasp,
        "vasp_launcher": vasp_launcher,
        "pseudopotentials": pseudopotentials,
    }
    checks: list[Check] = []
    variables: dict[str, str] = {}
    for name, question in _QUESTIONS.items():
        answer = _answer(name, question, options[name], variables, asks=asks)
        if answer is None:
            if question.is_folder and not asks and not as_json:
                option = f"--{name.replace('_', '-')}"
                output.note(f"not found: {question.asks} ({question.variable}, or {option})")
            continue
        variables[question.variable], looked = answer
        checks += looked
        for check in () if as_json else looked:
            show(check)
    if workers is None and asks:
        from crystalmath.processes import available_cores

        workers = _ask_number("Jobs at a time on this machine", available_cores())
    kind = _cluster(cluster, asks=asks)
    _write(path, _document(variables, workers, kind))
    if as_json:
        written = {"path": str(path), "variables": variables, "workers": workers, "cluster": kind}
        output.write_json({**written, "checks": [asdict(check) for check in checks]})
    else:
        output.write(f"wrote {path}; `crystalmath doctor --run` tries it")
    return 0


def _require_free(path: Path, *, overwrite: bool, asks: bool) -> None:
    """Refuse to replace an existing file without --overwrite or the user's consent."""
    if overwrite or not path.exists():
        return
    if asks and typer.confirm(f"{path} is there. Replace it? It stays as {path.name}~.", err=True):
        return
    raise ConfigError(
        f"{path} is there already, and stays as it is; edit it, or let --overwrite replace it"
    )


# --- answers ---------------------------------------------------------------------------------


def _answer(
    name: str, question: _Question, option: str | None, known: Mapping[str, str], *, asks: bool
) -> tuple[str, list[Check]] | None:
    """Return the answer to a question and its checks; ``None`` if there is no answer."""
    if option is not None:
        return _required(name, question, option, known)
    suggested = question.suggest(_environment({}))
    if not asks:
        looked = _look(question, suggested, known) if suggested else []
        # Do not write a folder that jobs could not use.
        usable = suggested and not (question.is_folder and _is_wrong(looked))
        return (str(suggested), looked) if usable else None
    while answer := str(
        typer.prompt(f"{question.asks} (- for none)", default=suggested or "-", err=True)
    ).strip():
        if answer == "-":
            return None
        answer = _whole(question, answer)
        looked = _look(question, answer, known)
        if not _is_wrong(looked):
            return answer, looked
        for check in looked:
            output.note(f"{check.message}; {check.remedy}")
        if typer.confirm("Use it anyway?", err=True):
            return answer, looked
    return None


def _required(
    name: str, question: _Question, value: str, known: Mapping[str, str]
) -> tuple[str, list[Check]]:
    answer = _whole(question, value)
    looked = _look(question, answer, known)
    if question.is_folder and (wrong := [check for check in looked if check.state != "ok"][:1]):
        option = f"--{name.replace('_', '-')}"
        raise ConfigError(f"{option} {value!r}: {wrong[0].message}; nothing was written")
    return answer, looked


def _whole(question: _Question, answer: str) -> str:
    """Return an answer with its folder as an absolute path, since jobs run elsewhere."""
    if not question.is_folder:
        return answer
    return str(Path(os.path.expandvars(answer)).expanduser().absolute())


def _look(question: _Question, answer: str, known: Mapping[str, str]) -> list[Check]:
    """Check an answer as ``crystalmath doctor`` will once it is written."""
    from crystalmath.preflight.programs_here import conditions

    environment = _environment({**known, question.variable: answer})
    seen = [each for each in conditions(environment) if each.name in question.looked_at]
    looked = [condition(each) for each in seen]
    own = os.environ.get(question.variable)
    if own is not None and own != answer:
        looked.append(
            Check(
                "shell",
                "warning",
                f"{question.variable} is {own!r} in this shell, which goes before "
                f"{answer!r} for jobs that are submitted from it",
                f"unset {question.variable}, and where your shell sets it",
            )
        )
    return looked


def _is_wrong(looked: list[Check]) -> bool:
    return any(check.state != "ok" and check.name != "shell" for check in looked)


def _environment(answers: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a job with these answers."""
    from crystalmath.config import DEFAULT_FORWARD, forwarded

    environment = forwarded(DEFAULT_FORWARD)
    if "VASP_PP_PATH" in answers:
        environment.pop("QUACC_VASP_PP_PATH", None)
    return {**environment, **answers}


def _ask_number(question: str, default: int) -> int:
    while True:
        answer = typer.prompt(question, default=str(default), err=True).strip()
        if answer.isdecimal() and int(answer) > 0:
            return int(answer)
        output.note(f"{answer!r} is not a whole number of at least 1")


def _cluster(choice: str | None, *, asks: bool) -> str | None:
    """Return the name of the example to add: the chosen one, or a detected one after asking."""
    from crystalmath.models.cluster_examples import EXAMPLES

    if choice is not None:
        if choice not in {*EXAMPLES, "none"}:
            hint = did_you_mean(choice, [*EXAMPLES, "none"])
            output.refuse(f"there is no example {choice!r}; {hint}", "--cluster")
        return None if choice == "none" else choice
    if not asks:
        return None
    for kind, command in _SCHEDULERS.items():
        if shutil.which(command) and typer.confirm(
            f"{command} is here. Add an example of a {kind} cluster?", default=True, err=True
        ):
            return kind
    return None


# --- the file --------------------------------------------------------------------------------


def _document(variables: Mapping[str, str], workers: int | None, cluster: str | None) -> str:
    from crystalmath.models.cluster_examples import EXAMPLES

    lines = ["# Written by crystalmath init; docs/configuration.md describes the settings."]
    if variables:
        said = "# Variables of jobs, unless the shell that submits them sets others."
        lines += ["", "[environment.set]", said]
        lines += [f"{name} = {_quoted(value)}" for name, value in variables.items()]
    if workers is not None:
        lines += ["", "[engines.local]", f"workers = {workers}"]
    return "\n".join(lines) + "\n" + (EXAMPLES[cluster] if cluster else "")


def _quoted(text: str) -> str:
    # TOML reads JSON's strings, except for an unescaped DEL.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _write(path: Path, document: str) -> None:
    make_own(path.parent)
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.touch(mode=0o600)
    fresh.write_text(document, encoding="utf-8")
    if path.exists():
        path.replace(path.with_name(f"{path.name}~"))
    fresh.replace(path)
