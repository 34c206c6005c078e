"""The command line: a table of commands; only the called one is imported and built.

Other distributions add commands by entry points of the group ``crystalmath.commands``. An entry
point has the name of the command and leads to its function. The function has the annotations that
Typer reads, and returns the exit code. The group is read to list all commands, and for a name
that is not in the table.

Commands import heavy modules inside their bodies, which keeps the start of ``crystalmath status``
short.
"""

from __future__ import annotations

import gc
import inspect
import io
import os
import sys
import warnings
from functools import cache, wraps
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, cast

import typer
from typer.core import TyperCommand, TyperGroup

from crystalmath import build_version, entry_points_of
from crystalmath.cli.shared import output

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


#: The entry points of other distributions' commands.
_GROUP = "crystalmath.commands"
#: Commands that `--on` runs on the other machine, and those that are for this one alone.
_THERE, _HERE = {"doctor", "stop"}, {"conform", "engine-template", "init", "serve"}
#: Commands of our other packages, with the folder of each in `packages`.
_APART = {"ui": "web", "top": "top", "mcp": "mcp"}


class _Listed(NamedTuple):
    """A command of the table."""

    #: The first line of its help.
    line: str
    #: Its module in this package; ``module:function`` if the function has another name.
    place: str
    #: Its arguments in the example below its help.
    example: str = ""
    #: The keys that its JSON document always has, with their defaults.
    answer: Mapping[str, Any] = {}


COMMANDS = {
    "run": _Listed(
        "Run a recipe, wait for it, and print its result.",
        "run",
        " emt.core.relax_job Al.poscar --param relax_cell=true --walltime 1h",
        {"result": None},
    ),
    "submit": _Listed(
        "Submit jobs, print their ids, and return at once.",
        "submit",
        " vasp.core.static_job 'runs/*/POSCAR' --sweep encut=[400,500]",
    ),
    "chain": _Listed(
        "Submit steps that follow each other, for each structure.",
        "chain",
        " Cu.extxyz --step relax=emt.core.relax_job --step md=emt.md.md_job:steps=100",
        {"jobs": []},
    ),
    "check": _Listed(
        "Check jobs without submitting them, and list problems.",
        "check",
        " vasp.core.static_job POSCAR --param kpts=[3,3,3] --inputs",
        {"ok": False, "findings": [], "potcars": [], "environment": [], "copies": []},
    ),
    "list": _Listed(
        "List jobs, the newest first, and count the others.",
        "list_:list_jobs",
        " --elements Cu,O --sort energy_ev --columns name,energy_ev --csv",
        {"jobs": [], "totals": {}},
    ),
    "status": _Listed(
        "Show a job's state, and its energy or its error.", "status", " 3f2a91c4", {"result": None}
    ),
    "show": _Listed(
        "Show a job's history: attempts, events, related jobs.",
        "status:show",
        " 3f2a91c4",
        {"job": None},
    ),
    "wait": _Listed(
        "Wait until jobs have ended, and show their progress.",
        "cancel:wait",
        " 3f2a91c4 && crystalmath result 3f2a91c4 --json",
        {"jobs": []},
    ),
    "result": _Listed(
        "Print a job's result; with --json all of it.",
        "status:result",
        " 3f2a91c4 --json",
        {"result": None},
    ),
    "export": _Listed(
        "Write jobs as a table, a script, inputs or an archive.",
        "export",
        " alloys.csv --label project=alloys --state completed",
    ),
    "import": _Listed(
        "Import the jobs of an archive, with all their files.",
        "export:import_jobs",
        " alloys.zip",
        {"job_ids": [], "known": []},
    ),
    "logs": _Listed(
        "Print what a job wrote: its log, or one of its files.",
        "logs",
        " 3f2a91c4 OUTCAR --follow",
        {"path": None, "text": ""},
    ),
    "files": _Listed(
        "List the files of a job's work directory.",
        "files",
        " 3f2a91c4 '*.gz' --get Al",
        {"files": []},
    ),
    "inputs": _Listed(
        "Show the input files of a job, before or after it ran.",
        "check:inputs",
        " 3f2a91c4 --diff 0b77c1d2",
        {"inputs": None},
    ),
    "progress": _Listed(
        "Show the progress of calculations: steps, energy, force.",
        "list_:progress",
        " 3f2a91c4",
        {"jobs": []},
    ),
    "plot": _Listed(
        "Draw ionic steps, a sweep, or an equation of state.",
        "plot",
        " --label project=al --x encut --y energy_per_atom --by kpts",
    ),
    "path": _Listed("Print a job's work directory.", "files:path", " 3f2a91c4", {"path": None}),
    "cancel": _Listed(
        "Stop jobs: by their ids, or all that match the filters.",
        "cancel",
        " 3f2a91c4 --with-successors",
        {"cancelled": False},
    ),
    "counts": _Listed(
        "Count the jobs that ended, by state and time.",
        "list_:counts",
        " --bucket 1d --last 30d --label project=alloys",
        {"bucket_s": 0, "buckets": [], "states": {}},
    ),
    "du": _Listed(
        "Measure the files of jobs: by recipe, by label, in total.",
        "files:du",
        " --label project=alloys",
        {"states": [], "recipes": [], "labels": []},
    ),
    "prune": _Listed(
        "Remove the run directories of jobs that have ended.",
        "files:prune",
        " --older 30d --label project=alloys --keep-results --dry-run",
        {"jobs": [], "left": []},
    ),
    "pack": _Listed(
        "Put the run directories of ended jobs into packs.",
        "files:pack",
        " --older 30d --label project=alloys --dry-run",
        {"job_ids": [], "left": []},
    ),
    "unpack": _Listed(
        "Bring the run directories of packed jobs back.",
        "files:unpack",
        " 3f2a91c4",
        {"job_ids": [], "left": []},
    ),
    "retry": _Listed(
        "Run jobs again: by their ids, or all that match filters.",
        "retry",
        " --label project=alloys --error 'not converge' --walltime 4h",
        {"jobs": []},
    ),
    "reread": _Listed(
        "Read a failed job's calculations again, as a new job.",
        "retry:reread",
        " 3f2a91c4 --setting CHECK_CONVERGENCE=False",
    ),
    "engines": _Listed(
        "List the installed engines, and why one cannot be used.",
        "installed:engines",
        "",
        {"engines": []},
    ),
    "clusters": _Listed(
        "List the configured clusters, check one, or add one.",
        "clusters",
        " check slurm",
        {"clusters": []},
    ),
    "presets": _Listed(
        "List quacc's presets with their settings, or show one.",
        "installed:presets",
        " DefaultSetGGA",
        {"presets": []},
    ),
    "recipes": _Listed(
        "List the available recipes, or show one.",
        "installed:recipes",
        " emt.core.relax_job",
        {"recipes": []},
    ),
    "remotes": _Listed(
        "List homes on other machines, check one, or add one.",
        "remotes",
        " check hawk",
        {"remotes": []},
    ),
    "serve": _Listed("Run the home's server in the foreground.", "serve", ""),
    "stop": _Listed("Stop the home's server.", "serve:stop", "", {"stopped": False}),
    "init": _Listed(
        "Ask for the settings that jobs need; write config.toml.",
        "init",
        " --potcars /opt/vasp/potcars --workers 4 --yes",
        {"checks": []},
    ),
    "doctor": _Listed(
        "Check the installation, and show what is missing.",
        "doctor",
        " --run --engine local",
        {"checks": []},
    ),
    "engine-template": _Listed(
        "Write the package of a new engine, for you to change.",
        "conform:engine_template",
        " mine",
        {"files": []},
    ),
    "conform": _Listed(
        "Test whether an engine does what every engine must do.",
        "conform",
        " local --workers 2 -k cancel -x",
        {"tests": []},
    ),
}


class _Group(TyperGroup):
    """The commands of the table, each built when it is called or completed."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for name, listed in COMMANDS.items():
            self.add_command(TyperCommand(name, help=listed.line))

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all commands; those of other distributions come last."""
        return [*super().list_commands(ctx), *sorted(_added())]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command with its help line only; ``None`` if there is none."""
        known = super().get_command(ctx, cmd_name)
        if known is None and cmd_name in _added():
            # The summary of the distribution is shown, so that the list imports no command.
            known = TyperCommand(cmd_name, help=_added()[cmd_name])
        return known

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that the arguments call, and build it; or run it on a remote."""
        if args and args[0] in _THERE | _HERE and (remote := os.environ.get("CRYSTALMATH_ON")):
            if args[0] in _HERE:
                ctx.fail(f"crystalmath {args[0]} is for this machine alone, and --on does not fit")
            from crystalmath.cli.remotes import run_on

            run = _reporting(lambda as_json: run_on(remote, args), COMMANDS[args[0]].answer)  # noqa: ARG005
            ctx.exit(run(as_json="--json" in args, verbose="--verbose" in args))
        if args and (package := _APART.get(args[0])) and args[0] not in _added():
            ctx.fail(
                f"the command {args[0]!r} is in the package crystalmath-{package}, which is not "
                f"installed here; in a clone: pip install ./packages/{package}"
            )
        name, command, rest = super().resolve_command(ctx, args)
        return name, command and build(str(command.name)), rest


@cache
def _added() -> Mapping[str, str | None]:
    """Return the commands of other distributions, each with the summary of its distribution.

    This reads the files itself: importing `importlib.metadata` takes longer than the whole help.
    """
    summaries: dict[str, str | None] = {}
    files: dict[str, Path] = {}
    for folder in dict.fromkeys(sys.path):
        for file in Path(folder).glob("*-info/entry_points.txt"):
            # Python takes the first copy of a distribution that is installed twice.
            files.setdefault(file.parent.stem.partition("-")[0].lower(), file)
    for file in files.values():
        _, _, section = _text(file).partition(f"[{_GROUP}]\n")
        for line in map(str.strip, section.partition("\n[")[0].splitlines()):
            name, is_point, _ = line.partition("=")
            if line[:1] in {"", "#"}:
                continue
            if not is_point:
                entry_points_of(_GROUP)  # warns of the file that is broken
            elif (name := name.strip()) not in COMMANDS:
                summaries.setdefault(name, _summary(file.with_name("METADATA")))
    return summaries


def _summary(metadata: Path) -> str | None:
    head = "Summary: "
    lines = (one for one in _text(metadata).splitlines() if one.startswith(head))
    return next(lines, head).removeprefix(head) or None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def build(name: str) -> TyperCommand:
    """Import and build one command."""
    listed = COMMANDS.get(name, _Listed("", ""))
    if name in COMMANDS:
        module, _, of_it = listed.place.partition(":")
        function = getattr(import_module(f"{__name__}.{module}"), of_it or module)
    else:
        function = _load(name)
    command = typer.Typer(add_completion=False, rich_markup_mode=None)
    command.command(name, epilog=f"Example: crystalmath {name}{listed.example}")(
        _reporting(function, listed.answer)
    )
    # Typer makes a group only of several commands.
    return cast("TyperCommand", typer.main.get_command(command))


def _load(name: str) -> Callable[..., int]:
    points = [point for point in entry_points_of(_GROUP) if point.name == name]
    owners = " and ".join(repr(point.dist.name if point.dist else point.value) for point in points)
    if len(points) > 1:
        raise _ClickException(f"the command {name!r} is provided by {owners}; uninstall one")
    try:
        function: Callable[..., int] = points[0].load()
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        raise _ClickException(
            f"the command {name!r} of {owners} cannot be loaded: {why}; mend or uninstall it"
        ) from error
    return function


app = typer.Typer(
    name="crystalmath",
    cls=_Group,
    help="Run quacc recipes on any workflow engine, and know what became of every job.",
    epilog="Example: crystalmath run emt.core.relax_job Al.poscar --engine local",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# The base class of usage errors has moved between versions of Typer; BadParameter is public.
_ClickException: type[Any] = typer.BadParameter.__mro__[2]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # the parent process closed it
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.encoding.lower() != "utf-8":
        # Other encodings lack "…", "Å" and labels in other scripts.
        sys.stdout.reconfigure(errors="replace")
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        code = _run(words)
    gc.freeze()  # saves the collection at exit, 15 ms
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    try:
        if "--inputs" in arguments:
            from crystalmath.cli.check import with_value

            arguments = with_value(arguments)
        code = app(arguments, prog_name="crystalmath", standalone_mode=False) or 0
        sys.stdout.flush()
    except _ClickException as error:
        option = getattr(error, "option_name", None)
        if option in {"--on", "--home"}:
            error.message += "; write it before the command"
            error.possibilities = None
        elif option or "extra argument" in str(error):
            from crystalmath.cli.shared.parameter_options import as_parameter, nearest

            near = nearest(option, getattr(error, "possibilities", None) or ())
            if near:
                error.possibilities = near
            if meant := as_parameter(option, arguments, is_slip=bool(near)):
                error.message += f"; write a parameter of the recipe as {meant}"
                error.possibilities = None
        error.show(sys.stderr)
        if "--json" in arguments:
            called = next((each for each in arguments if each in COMMANDS), None)
            shape = {} if called is None else COMMANDS[called].answer
            output.write_json(output.error_document(error, "usage", **shape))
        return int(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except BrokenPipeError:
        # The reader has gone, as in `crystalmath list | head`: keep the exit from flushing to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return int(code)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    # Leave out the line of our code that Python would show.
    output.note(f"warning: {message}")


def _version(*, show: bool) -> None:
    if show:
        output.write(f"crystalmath {build_version()}")
        raise typer.Exit


@app.callback()
def _common(
    *,
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    _on: Annotated[
        str | None,
        typer.Option(
            "--on",
            metavar="NAME",
            callback=lambda name: _set("CRYSTALMATH_ON", name),
            help="Ask a home on another machine over SSH, [remotes.NAME] of config.toml.",
        ),
    ] = None,
    _home: Annotated[
        str | None,
        typer.Option(
            "--home",
            metavar="DIR",
            callback=lambda folder: _set("CRYSTALMATH_HOME", folder),
            help="The home, in place of CRYSTALMATH_HOME.",
        ),
    ] = None,
) -> None:
    pass


def _set(variable: str, value: str | None) -> None:
    if value is not None:
        os.environ[variable] = value


def _reporting(function: Callable[..., int], answer: Mapping[str, Any]) -> Callable[..., int]:
    """Add --verbose to a command, and report its errors to standard error and as JSON."""
    signature = inspect.signature(function, eval_str=True)
    option = Annotated[bool, typer.Option("--verbose", help="Show tracebacks.")]
    verbose = inspect.Parameter("verbose", inspect.Parameter.KEYWORD_ONLY, default=False)
    parameters = [*signature.parameters.values(), verbose.replace(annotation=option)]

    @wraps(function)
    def command(*, verbose: bool, **options: object) -> int:
        from crystalmath.errors import CrystalMathError

        try:
            return function(**options)
        except BrokenPipeError:
            raise
        except KeyboardInterrupt as stopped:
            for note in getattr(stopped, "__notes__", ()):
                output.note(note)
            raise
        except (CrystalMathError, ImportError, OSError) as error:
            code = getattr(error, "code", "import" if isinstance(error, ImportError) else "system")
            return _report(error, code, options, answer, verbose=verbose)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            if (remote := os.environ.get("CRYSTALMATH_ON")) is None:
                raise
            from crystalmath.remotes.answer_checks import unusable

            wrong = unusable(remote, f"{type(error).__name__}: {error}")
            return _report(wrong, wrong.code, options, answer, verbose=verbose)

    command.__annotations__ = {one.name: one.annotation for one in parameters}
    vars(command)["__signature__"] = signature.replace(parameters=parameters)
    return command


def _report(
    error: Exception,
    code: str,
    options: dict[str, object],
    shape: Mapping[str, Any],
    *,
    verbose: bool,
) -> int:
    if verbose:
        import traceback

        output.note("".join(traceback.format_exception(error)).rstrip())
    document = output.error_document(error, code)
    output.note(f"error: {output.error_text(document)}")
    if options.get("as_json"):
        several: Any = options.get("job_ids") or ()
        job_id = several[0] if len(several) == 1 else options.get("job_id")
        output.write_json(output.error_document(error, code, job_id, **shape))
    return 1
