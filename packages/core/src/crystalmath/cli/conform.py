"""``crystalmath conform`` and ``engine-template``: test an engine, or write a new one."""

from __future__ import annotations

import contextlib
import importlib.util
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crystalmath.cli.shared import common_arguments, completion, output
from crystalmath.cli.shared.parameter_options import of_option, parse_parameters, parse_walltime
from crystalmath.errors import PluginError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from crystalmath.quacc.engines import EngineInfo
    from crystalmath.testing import EngineUnderTest
    from crystalmath.testing.run import KitRun, Verdict


_WORKERS = 2
#: Times are written in minutes from here, in seconds.
_MINUTES_FROM_S = 100.0
#: The default of --linger with --cluster: a scheduler ends allocations slowly; in seconds.
_CLUSTER_LINGER_S = 30.0
_OUTCOMES = ("passed", "failed", "skipped", "xfailed")


def conform(
    engine: Annotated[
        str,
        typer.Argument(
            metavar="ENGINE",
            help="An installed engine; see crystalmath engines.",
            autocompletion=completion.engines,
        ),
    ],
    *,
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Jobs that run at a time; default: as configured, or 2. Sets the engine's "
            "option of this name, except with --cluster.",
        ),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="CLUSTER",
            help="Run the jobs on this cluster of the engine, [clusters.NAME] in config.toml.",
            autocompletion=completion.clusters,
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            metavar="K=V",
            help="Override a setting of [engines.ENGINE]: workers=4; may be repeated.",
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="The longest time until the first job starts: 90s, 5m. Default: measured.",
        ),
    ] = None,
    turn: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="The longest time for an empty job on the warm engine, with its wait: 10s. "
            "Default: measured.",
        ),
    ] = None,
    linger: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="The longest time that a process of the engine may live after the engine has "
            "ended: 2m for workers of a shared server. Default: 10s, or 30s with --cluster.",
        ),
    ] = None,
    library: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE", help="The module of the engine's library; some tests hide it."
        ),
    ] = None,
    keyword: Annotated[
        str | None,
        typer.Option(
            "-k",
            metavar="EXPRESSION",
            help="Run only matching tests, as pytest -k: 'cancel and not many'.",
        ),
    ] = None,
    stops: Annotated[bool, typer.Option("-x", help="Stop at the first failure.")] = False,
    lists: Annotated[
        bool, typer.Option("--list", help="List the tests and their promises; run none.")
    ] = False,
    as_json: common_arguments.Json = False,
) -> int:
    """Test whether an engine does what every engine must do.

    The tests run in a temporary home; with --cluster it lies in your home, where nodes see it.
    Exits 1 if a test fails.
    """
    import attrs

    info = _find(engine)
    _require_testing()
    start_s, turn_s = _seconds(start, "--start"), _seconds(turn, "--turn")
    subject = _subject(engine, workers, option or (), cluster)
    linger_s = _seconds(linger, "--linger") or subject.linger_s
    subject = attrs.evolve(
        subject, library=library, start_s=start_s, turn_s=turn_s, linger_s=linger_s
    )
    if lists:
        return _list(subject, keyword, as_json=as_json)
    run = _run(subject, keyword, stops=stops)
    counts = {outcome: sum(t.outcome == outcome for t in run.cases) for outcome in _OUTCOMES}
    if as_json:
        _write_document(info, run, counts)
    else:
        values: dict[str, object] = {
            "workers": workers,
            "cluster": cluster,
            "start": start,
            "turn": turn,
            "linger": linger,
            "library": library,
        }
        _report(run.verdicts, _again(engine, option or (), values))
        summary = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
        output.write(f"\n{engine} {info.version}: {summary} in {_duration(run.seconds)}")
    return 1 if counts["failed"] else 0


def _find(engine: str) -> EngineInfo:
    from crystalmath.quacc.engines import describe_engines

    infos = {info.name: info for info in describe_engines()}
    if engine not in infos:
        message = f"there is no engine {engine!r}; installed are: {', '.join(infos)}"
        output.refuse(message, "ENGINE")
    info = infos[engine]
    if info.error:
        raise PluginError(f"the engine {engine!r} cannot be loaded: {info.error}")
    for finding in info.findings:
        output.note(f"{engine}: {finding}")
    return info


def _require_testing() -> None:
    needed = {"pytest": "pytest", "psutil": "psutil", "xdist": "pytest-xdist"}
    missing = [name for module, name in needed.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise ImportError(
            f"the tests need {' and '.join(missing)}: pip install 'crystalmath[testing]'"
        )


def _seconds(text: str | None, option: str) -> float | None:
    with of_option(option):
        return None if text is None else parse_walltime(text)


def _subject(
    engine: str, workers: int | None, option: Iterable[str], cluster: str | None
) -> EngineUnderTest:
    from crystalmath import config
    from crystalmath.testing import EngineUnderTest

    options = {**config.load().engines.get(engine, {}), **parse_parameters(option)}
    if cluster is not None:
        tables = {cluster: _cluster(engine, cluster)}
        _require_plain(options, f"[engines.{engine}]")
        return EngineUnderTest(
            engine,
            options=options,
            clusters=tables,
            workers=workers or _WORKERS,
            linger_s=_CLUSTER_LINGER_S,
        )
    options["workers"] = workers or options.get("workers", _WORKERS)
    _require_plain(options, f"[engines.{engine}]")
    count = options["workers"]
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        message = f"workers must be a whole number from 1, not {count!r}"
        output.refuse(message, f"[engines.{engine}]")
    return EngineUnderTest(engine, options=options, workers=count)


def _cluster(engine: str, name: str) -> dict[str, Any]:
    """Return the table of a cluster from the configuration file, unchanged."""
    import tomllib

    from crystalmath import config

    settings = config.load()
    known = settings.clusters_of(engine)
    if name not in known:
        message = f"the engine {engine!r} has no cluster {name!r} in config.toml; "
        message += f"it has: {', '.join(known)}" if known else "it has none"
        output.refuse(message, "--cluster")
    text = (settings.home / "config.toml").read_text(encoding="utf-8")
    table: dict[str, Any] = tomllib.loads(text)["clusters"][name]
    table.pop("engine")
    _require_plain(table, f"[clusters.{name}]")
    return table


def _require_plain(table: Mapping[str, object], place: str) -> None:
    for name, value in table.items():
        if not _is_plain(value):
            message = f"{name} is {value!r}; the tests take text, numbers, booleans, and lists"
            output.refuse(message, place)


def _is_plain(value: object) -> bool:
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return isinstance(value, str | int | float)


def _run(subject: EngineUnderTest, keyword: str | None, *, stops: bool) -> KitRun:
    from crystalmath import config
    from crystalmath.testing.run import run_kit

    place = config.load().home if subject.clusters else None
    with _folder(place) as folder:
        return run_kit(subject, folder, keyword, stops=stops, tell=output.note)


def _list(subject: EngineUnderTest, keyword: str | None, *, as_json: bool) -> int:
    from crystalmath.testing.run import described, list_kit

    with _folder() as folder:
        tests = {name: described(name) for name in list_kit(subject, folder, keyword)}
    if as_json:
        shown = [
            {"name": name, "topic": each.topic, "promise": each.promise, "guide": each.guide}
            for name, each in tests.items()
        ]
        return output.write_json({"engine": subject.name, "tests": shown})
    rows = dict.fromkeys((each.topic, each.test, each.promise) for each in tests.values())
    output.table(("TOPIC", "TEST", "PROMISE"), rows, whole=("TOPIC", "TEST"))
    return 0


@contextlib.contextmanager
def _folder(place: Path | None = None) -> Iterator[Path]:
    """Make a folder for a run of pytest; a -k that selects no tests is a usage error."""
    import tempfile

    from crystalmath.testing.run import SessionError

    try:
        # Keep the name short: the path of a socket below it has at most 107 bytes.
        with tempfile.TemporaryDirectory(prefix="cm-", dir=place) as folder:
            yield Path(folder)
    except SessionError as error:
        if error.usage:
            output.refuse(str(error), "-k")
        raise


def _write_document(info: EngineInfo, run: KitRun, counts: Mapping[str, int]) -> None:
    import attrs

    topics = {verdict.test: verdict.topic for verdict in run.verdicts}
    shown = [
        {
            "name": test.name,
            "topic": topics[test.function],
            "outcome": test.outcome,
            "reason": test.reason,
            "seconds": test.seconds,
        }
        for test in run.cases
    ]
    named = {"engine": info.name, "version": info.version}
    pace = None if run.pace is None else {"cold_s": run.pace.cold_s, "warm_s": run.pace.warm_s}
    timing = {"pace": pace, "seconds": round(run.seconds, 1)}
    promises = [attrs.asdict(verdict) for verdict in run.verdicts]
    output.write_json({**named, **counts, **timing, "promises": promises, "tests": shown})


def _report(verdicts: Sequence[Verdict], again: str) -> None:
    from crystalmath.testing.run import GUIDE

    why = {
        each.test: f"\n  {output.first_line(each.reason or '')}"
        for each in verdicts
        if each.state == "not tried"
    }
    rows = [(each.topic, each.state, each.promise + why.get(each.test, "")) for each in verdicts]
    output.table(("TOPIC", "", "PROMISE"), rows, whole=("TOPIC", ""))
    for each in verdicts:
        if each.state == "broken":
            output.write(f"\nbroken: {each.promise}")
            for line in (each.reason or "").splitlines():
                output.write(f"  {line}")
            output.write(f"  See {each.guide!r} in {GUIDE}.")
            output.write(f"  Look closer: {again} -k {each.test}")


def _again(engine: str, option: Iterable[str], values: Mapping[str, object]) -> str:
    """Return the command line that was called, without the selection of tests."""
    options = [f"--option={each}" for each in option]
    options += [f"--{name}={value}" for name, value in values.items() if value is not None]
    return shlex.join(["crystalmath", "conform", engine, *options])


def _duration(seconds: float) -> str:
    if seconds < _MINUTES_FROM_S:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes"


def engine_template(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="The name of the engine: lower-case letters, digits, - and _."
        ),
    ],
    *,
    directory: Annotated[
        str | None,
        typer.Option(
            "--dir",
            metavar="DIR",
            help="A new folder; default: crystalmath-engine-NAME in this folder.",
        ),
    ] = None,
    as_json: common_arguments.Json = False,
) -> int:
    """Write the package of a new engine, for you to change.

    The engine runs jobs on a pool of processes. Once installed, it passes `crystalmath conform`.
    """
    from crystalmath.testing.written_template import write_engine

    _require_free(name)
    folder = Path(directory or f"crystalmath-engine-{name.replace('_', '-')}").absolute()
    try:
        files = write_engine(name, folder)
    except FileExistsError:
        message = f"{folder} is there already, and stays as it is; name another with --dir"
        raise FileExistsError(message) from None
    if as_json:
        written = [str(file) for file in files]
        return output.write_json({"engine": name, "path": str(folder), "files": written})
    install = f"pip install -e {shlex.quote(f'{folder}[test]')}"
    output.write(f"wrote {folder}; next:")
    output.write(f"  {install} && crystalmath conform {name}")
    return 0


def _require_free(name: str) -> None:
    """Refuse a name that is invalid, or belongs to an installed engine."""
    from crystalmath.quacc.engines import get_installed_engines
    from crystalmath.testing.written_template import ENGINE_NAME

    if not ENGINE_NAME.fullmatch(name):
        message = f"{name!r} has more than small letters and digits, with single - or _ between"
        output.refuse(message, "NAME")
    if name in get_installed_engines():
        message = f"the engine {name!r} is installed already; two of one name are an error"
        output.refuse(message, "NAME")
