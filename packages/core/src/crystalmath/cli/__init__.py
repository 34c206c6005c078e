"""The command line.

The commands import what they need inside their bodies: ``crystalmath --help`` and ``crystalmath
status`` must not wait for what they don't use.
"""

from __future__ import annotations

import inspect
import os
import sys
import warnings
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crystalmath import __version__
from crystalmath.cli import (
    cancel,
    check,
    clusters,
    conform,
    counts,
    doctor,
    du,
    engine_template,
    engines,
    export,
    files,
    import_,
    init,
    inputs,
    list_,
    logs,
    path,
    plot,
    presets,
    progress,
    prune,
    recipes,
    reread,
    result,
    retry,
    run,
    serve,
    show,
    status,
    stop,
    submit,
    wait,
)
from crystalmath.cli.shared import output
from crystalmath.cli.shared.inputs_output import with_value
from crystalmath.errors import CrystalMathError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

app = typer.Typer(
    name="crystalmath",
    help="Run quacc recipes on any workflow engine, and know what became of every job.",
    epilog="Example: crystalmath run emt.core.relax_job Al.poscar --engine local",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# typer.BadParameter is public; the class that all wrong usage has in common has moved about.
_ClickException: type[Any] = typer.BadParameter.__mro__[2]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code.

    Parameters
    ----------
    arguments : sequence of str, optional
        The process's own by default.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started this; the command still counts
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        code = _run(given)
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    try:
        code = app(with_value(arguments), prog_name="crystalmath", standalone_mode=False) or 0
        sys.stdout.flush()
    except _ClickException as error:
        error.show(sys.stderr)
        if "--json" in arguments:
            output.write_json(output.error_document(error, "usage"))
        return int(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except BrokenPipeError:
        # The reader has gone, as in `crystalmath list | head`; nothing may be flushed at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return int(code)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    # Where in our code it was raised tells a user nothing.
    output.note(output.printable(f"warning: {message}"))


def _version(*, show: bool) -> None:
    if show:
        output.write(f"crystalmath {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def _reporting(function: Callable[..., int]) -> Callable[..., int]:
    """Give a command the option --verbose, and have it report its errors as a user needs them."""
    signature = inspect.signature(function, eval_str=True)
    option = Annotated[bool, typer.Option("--verbose", help="Show tracebacks.")]
    verbose = inspect.Parameter("verbose", inspect.Parameter.KEYWORD_ONLY, default=False)
    parameters = [*signature.parameters.values(), verbose.replace(annotation=option)]

    @wraps(function)
    def command(*, verbose: bool, **options: object) -> int:
        try:
            return function(**options)
        except BrokenPipeError:
            raise
        except (CrystalMathError, ImportError, OSError) as error:
            code = getattr(error, "code", "import" if isinstance(error, ImportError) else "system")
            _report(error, code, options, _SHAPES.get(function.__name__, {}), verbose=verbose)
            return 1

    command.__annotations__ = {one.name: one.annotation for one in parameters}
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return command


# What the answer of a command always has, also where it is an error.
_SHAPES: dict[str, dict[str, Any]] = {
    "run": {"result": None},
    "status": {"result": None},
    "show": {"job": None},
    "result": {"result": None},
    "cancel": {"cancelled": False},
    "list_jobs": {"jobs": [], "totals": {}},
    "wait": {"jobs": []},
    "prune": {"jobs": [], "left": []},
    "retry": {"jobs": []},
    "files": {"files": []},
    "inputs": {"inputs": None},
    "import_jobs": {"job_ids": [], "known": []},
    "progress": {"jobs": []},
    "conform": {"tests": []},
}


def _report(
    error: Exception, code: str, options: dict[str, object], shape: dict[str, Any], *, verbose: bool
) -> None:
    if verbose:
        import traceback

        output.note("".join(traceback.format_exception(error)).rstrip())
    output.note(f"error: {output.printable(str(error) or type(error).__name__)}")
    if options["as_json"]:
        output.write_json(output.error_document(error, code, _asked(options), **shape))


def _asked(options: Mapping[str, Any]) -> object:
    several: list[str] = options.get("job_ids") or []
    return several[0] if len(several) == 1 else options.get("job_id")


def _add(name: str, function: Callable[..., int], example: str) -> None:
    app.command(name, epilog=f"Example: crystalmath {name}{example}")(_reporting(function))


_add("run", run.run, " emt.core.relax_job Al.poscar --param relax_cell=true --walltime 1h")
_add("submit", submit.submit, " vasp.core.static_job 'runs/*/POSCAR' --sweep encut=[400,500]")
_add("check", check.check, " vasp.core.static_job POSCAR --param kpts=[3,3,3] --inputs")
_add("list", list_.list_jobs, " --elements Cu,O --sort energy_ev --columns name,energy_ev --csv")
_add("status", status.status, " 3f2a91c4")
_add("show", show.show, " 3f2a91c4")
_add("wait", wait.wait, " 3f2a91c4 && crystalmath result 3f2a91c4 --json")
_add("result", result.result, " 3f2a91c4 --json")
_add("export", export.export, " alloys.csv --label project=alloys --state completed")
_add("import", import_.import_jobs, " alloys.zip")
_add("logs", logs.logs, " 3f2a91c4 OUTCAR --follow")
_add("files", files.files, " 3f2a91c4")
_add("inputs", inputs.inputs, " 3f2a91c4 --diff 0b77c1d2")
_add("progress", progress.progress, " 3f2a91c4")
_add("plot", plot.plot, " --label project=al --x encut --y energy_per_atom --by kpts")
_add("path", path.path, " 3f2a91c4")
_add("cancel", cancel.cancel, " 3f2a91c4")
_add("counts", counts.counts, " --bucket 1d --last 30d --label project=alloys")
_add("du", du.du, " --label project=alloys")
_add("prune", prune.prune, " --older 30d --label project=alloys --keep-results --dry-run")
_add("retry", retry.retry, " --label project=alloys --error 'not converge' --walltime 4h")
_add("reread", reread.reread, " 3f2a91c4 --setting CHECK_CONVERGENCE=False")
_add("engines", engines.engines, "")
_add("clusters", clusters.clusters, " check slurm")
_add("presets", presets.presets, " DefaultSetGGA")
_add("recipes", recipes.recipes, " emt.core.relax_job")
_add("serve", serve.serve, "")
_add("stop", stop.stop, "")
_add("init", init.init, " --potcars /opt/vasp/potcars --workers 4 --yes")
_add("doctor", doctor.doctor, " --run --engine local")
_add("engine-template", engine_template.engine_template, " mine")
_add("conform", conform.conform, " local --workers 2 -k cancel -x")
