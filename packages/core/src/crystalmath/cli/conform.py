"""``crystalmath conform``: run the conformance kit on an installed engine."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crystalmath.cli.shared import completion, output
from crystalmath.cli.shared.parameter_options import parse_parameters
from crystalmath.cli.shared.submission_options import Json  # noqa: TC001 - Typer reads annotations
from crystalmath.errors import PluginError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from crystalmath.quacc.engines import EngineInfo
    from crystalmath.testing import EngineUnderTest

__all__ = ["conform"]

_WORKERS = 2
_SHOWN = ("name", "topic", "outcome", "reason", "seconds")
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
            help="How many jobs it runs at a time; else as configured, or 2. Becomes the "
            "engine's option of that name.",
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            metavar="K=V",
            help="A setting of [engines.ENGINE], instead of the configured one; may be repeated.",
        ),
    ] = None,
    keyword: Annotated[
        str | None,
        typer.Option("-k", metavar="EXPRESSION", help="Only tests whose names match, as pytest."),
    ] = None,
    as_json: Json = False,
) -> int:
    """Test whether an installed engine does what every engine must do.

    It runs in a home of its own. Exits 1 where a test fails.
    """
    info = _find(engine)
    _require_testing()
    subject = _subject(engine, workers, option or ())
    tests = _run(subject, keyword)
    counts = {outcome: sum(t["outcome"] == outcome for t in tests) for outcome in _OUTCOMES}
    if as_json:
        shown = [{key: test[key] for key in _SHOWN} for test in tests]
        named = {"engine": engine, "version": info.version}
        output.write_json({**named, **counts, "tests": shown})
    else:
        _report(tests)
        told = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
        output.write(f"\n{engine} {info.version}: {told}")
    return 1 if counts["failed"] else 0


def _find(engine: str) -> EngineInfo:
    from crystalmath.quacc.engines import describe_engines

    infos = {info.name: info for info in describe_engines()}
    if engine not in infos:
        message = f"there is no engine {engine!r}; installed are: {', '.join(infos)}"
        raise typer.BadParameter(message, param_hint="ENGINE")
    info = infos[engine]
    if info.error:
        raise PluginError(f"the engine {engine!r} cannot be loaded: {info.error}")
    for finding in info.findings:
        output.note(output.printable(f"{engine}: {finding}"))
    return info


def _require_testing() -> None:
    missing = [name for name in ("pytest", "psutil") if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"the tests need {' and '.join(missing)}: pip install 'crystalmath[testing]'"
        )


def _subject(engine: str, workers: int | None, option: Iterable[str]) -> EngineUnderTest:
    from crystalmath import config
    from crystalmath.testing import EngineUnderTest

    options = {**config.load().engines.get(engine, {}), **parse_parameters(option)}
    options["workers"] = workers or options.get("workers", _WORKERS)
    for name, value in options.items():
        if not _is_plain(value):
            message = f"{name} is {value!r}; the tests take text, numbers, booleans, and lists"
            raise typer.BadParameter(message, param_hint=f"[engines.{engine}]")
    count = options["workers"]
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        message = f"workers must be a whole number from 1, not {count!r}"
        raise typer.BadParameter(message, param_hint=f"[engines.{engine}]")
    return EngineUnderTest(engine, options=options, workers=count)


def _is_plain(value: object) -> bool:
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return isinstance(value, str | int | float)


def _run(subject: EngineUnderTest, keyword: str | None) -> list[dict[str, Any]]:
    import tempfile
    from pathlib import Path

    from crystalmath.testing.pytest_session import SessionError, run_kit

    tests = []
    try:
        # The name is short: the paths of sockets below it have 107 bytes.
        with tempfile.TemporaryDirectory(prefix="cm-") as folder, _Progress() as progress:
            for event in run_kit(subject, Path(folder), keyword):
                progress.show(event)
                if event["event"] == "finished":
                    tests.append(event)
    except SessionError as error:
        if error.usage:
            raise typer.BadParameter(str(error), param_hint="-k") from None
        raise
    return tests


def _report(tests: Iterable[Mapping[str, Any]]) -> None:
    rows = [(test["topic"], test["outcome"], _told(test)) for test in tests]
    output.table(("TOPIC", "", "TEST"), rows, whole=("TOPIC", ""))


def _told(test: Mapping[str, Any]) -> str:
    # Names of tests are long: beside them a reason would have no room on most terminals.
    name: str = test["name"].removeprefix("test_")
    reason = " ".join((test["reason"] or "").split())
    return f"{name}\n  {reason}" if reason else name


class _Progress(output.LiveLine):
    """Tell of each test as it ends, and on a terminal of the one that runs."""

    def __init__(self) -> None:
        super().__init__("collecting")
        self._count = 0
        self._done = 0

    def show(self, event: Mapping[str, Any]) -> None:
        """Show what happened."""
        if event["event"] == "collected":
            self._count = event["count"]
        elif event["event"] == "started":
            self._started(event["name"])
        else:
            self._done += 1
            self._say(f"{event['outcome']:8}{event['seconds']:6.1f} s  {event['name']}")
            if event["outcome"] == "failed":
                self._say(event["details"] or event["reason"])

    def _started(self, name: str) -> None:
        self.update(f"{self._done + 1} of {self._count}  {output.printable(name)}")

    def _say(self, text: str) -> None:
        self.say(output.printable(text))
