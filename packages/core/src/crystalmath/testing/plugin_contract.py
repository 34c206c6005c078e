"""The contracts of preflight checks and of readers of progress."""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from attrs import field, frozen

from crystalmath.engines.registry import PLUGINS, plugins
from crystalmath.models import JobSpec
from crystalmath.plugins.progress_reader import LastLines, ProgressReader, Reading
from crystalmath.preflight import inspector
from crystalmath.progress.search import END
from crystalmath.recipes import codec
from crystalmath.testing import snapshot
from crystalmath.testing.early_calls import PROVIDED, TRIES, call_early
from crystalmath.testing.watching import watched

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from ase import Atoms

    from crystalmath.models import Finding


@frozen
class PreflightCase:
    """A job, and the findings that the plugin must have about it.

    Parameters
    ----------
    recipe : str
        Full dotted name of the recipe.
    atoms : ase.Atoms or None
        The structure; ``None`` for a recipe without one.
    parameters : mapping of str to object
        The recipe's parameters.
    environment : mapping of str to str
        The environment variables of the job.
    errors, warnings : collection of str
        The codes of all findings of that severity; none if the job is right.
    """

    recipe: str
    atoms: Atoms | None = None
    parameters: Mapping[str, Any] = field(factory=dict, kw_only=True)
    environment: Mapping[str, str] = field(factory=dict, kw_only=True)
    errors: Collection[str] = field(default=(), kw_only=True)
    warnings: Collection[str] = field(default=(), kw_only=True)


@frozen
class ReaderCase:
    """The output of a program, and the reading that the reader must return for it.

    Parameters
    ----------
    files : mapping of str to str
        The files of one calculation: their names and contents.
    reading : Reading
        The value of :meth:`ProgressReader.read` for them.
    steps : sequence of Reading, optional
        The ionic steps of the reader's collector; ``None`` if it has no collector.
    """

    files: Mapping[str, str]
    reading: Reading
    steps: Sequence[Reading] | None = None


_GUIDE = "docs/writing-a-preflight.md"
#: How long each step of loading the plugin may take, in seconds.
LOAD_S = 1.0
#: Topics of the process that no plugin may change; a library may set others at its import.
ITS = ("working directory", "umask", "signal handlers", "environment", "root logger", "interpreter")


class PluginContract:
    """The tests of every plugin; fill in the fixture `plugin`."""

    @pytest.fixture
    def plugin(self) -> str:
        """Return the name of the entry point in the group ``crystalmath.plugins``."""
        raise NotImplementedError("fill in the fixture `plugin` (crystalmath.testing)")

    @pytest.fixture
    def loaded(self, plugin: str) -> Any:
        """Return the plugin's module or object."""
        return plugins().plugin(plugin)

    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("home", "here"):
            (tmp_path / name).mkdir()
        monkeypatch.setenv("CRYSTALMATH_HOME", str(tmp_path / "home"))
        monkeypatch.chdir(tmp_path / "here")

    def test_loading_is_quick_and_starts_nothing(self, plugin: str, tmp_path: Path) -> None:
        """Loading the plugin, as `crystalmath status` does, imports and starts nothing heavy."""
        limits = dict.fromkeys(("import", *PROVIDED), LOAD_S)
        seen = call_early(PLUGINS, plugin, tmp_path, lambda _: None, limits)
        for step, one in seen["steps"].items():
            assert not one["started"], (
                f"{step} of the plugin {plugin!r} must start nothing and write nothing; it did: "
                f"{'; '.join(one['started'])} ({_GUIDE}, 'Rules')"
            )
        assert not seen["modules"], (
            f"loading the plugin {plugin!r} imports {', '.join(seen['modules'])}: import it within "
            f"functions ({_GUIDE}, 'Rules')"
        )
        took = {step: one["seconds"] for step, one in seen["steps"].items()}
        assert max(took.values()) <= LOAD_S, (
            f"loading the plugin {plugin!r} took {took}, in seconds; each may take {LOAD_S:g} s "
            f"({_GUIDE}, 'Rules')"
        )


@contextlib.contextmanager
def unchanged(who: str, folder: Path, warm: Callable[[], object]) -> Iterator[None]:
    """Check that the code within changes neither the process nor `folder`, and starts nothing.

    `warm` is called before; it may import and start things that are needed once. `who` names the
    code in messages.
    """
    before = snapshot.take()
    warm()
    with watched([folder], may_ask=True) as seen:
        yield
    changed = snapshot.differences(before, snapshot.take())
    rules = f"({_GUIDE}, 'Rules')"
    differences = "; ".join(
        f"{topic}: {', '.join(changed[topic])}" for topic in ITS if changed[topic]
    )
    assert not differences, f"{who} changes the process that calls it {rules}: {differences}"
    assert not seen.started, f"{who} must start and write nothing {rules}: {seen.started}"


def quickest(call: Callable[[], object]) -> float:
    """Return the shortest time of some tries of a call, in seconds."""
    times = []
    for _ in range(TRIES):
        with watched() as seen:
            call()
        times.append(seen.seconds)
    return min(times)


#: How long a verdict may take once everything is warm, in seconds.
VERDICT_S = 1.0


class PreflightContract(PluginContract):
    """The tests of a preflight check; fill in the fixtures `plugin` and `cases`.

    A plugin with programs is tested through core, which runs the recipe up to its calculations. A
    plugin with the hook ``crystalmath_preflight`` is called directly.
    """

    @pytest.fixture
    def cases(self) -> Sequence[PreflightCase]:
        """Return right jobs, and jobs with each error that the plugin finds."""
        raise NotImplementedError("fill in the fixture `cases` (crystalmath.testing)")

    @pytest.fixture
    def judge(self, loaded: Any) -> Iterator[Callable[[PreflightCase], list[Finding]]]:
        """Yield a function that returns the findings for a case."""
        own = hasattr(loaded, "crystalmath_preflight")
        assert own or hasattr(loaded, "crystalmath_programs"), (
            f"the plugin provides neither crystalmath_programs nor crystalmath_preflight ({_GUIDE})"
        )

        def judge(case: PreflightCase) -> list[Finding]:
            arguments: dict[str, Any] = {
                "recipe": case.recipe,
                "atoms": case.atoms,
                "parameters": case.parameters,
                "environment": case.environment,
                "document": _document(case),
            }
            # Core's own check uses the programs of plugins.
            whose = loaded if own else plugins().plugin("recipes")
            answers = plugins().call_engine(whose, "crystalmath_preflight", **arguments)
            return [finding for answer in answers for finding in answer]

        yield judge
        # This ends the processes in which recipes were run.
        inspector.close()

    def test_there_are_right_and_wrong_jobs_among_the_cases(
        self, cases: Sequence[PreflightCase]
    ) -> None:
        """`cases` has a job without findings, and one with some."""
        kinds = {bool(case.errors or case.warnings) for case in cases}
        assert kinds == {True, False}, "add a job that is right, and one that is not"

    def test_verdicts(
        self, cases: Sequence[PreflightCase], judge: Callable[[PreflightCase], list[Finding]]
    ) -> None:
        """Each case has the expected findings, in any order of the cases."""
        wrong = []
        for case in (*cases, *reversed(cases)):
            findings = judge(case)
            counts = Counter((finding.severity, finding.code) for finding in findings)
            wanted = Counter(
                [("error", code) for code in case.errors]
                + [("warning", code) for code in case.warnings]
            )
            if counts != wanted:
                shown = [f"{each.severity} {each.code} ({each})" for each in findings]
                expected = [" ".join(each) for each in sorted(wanted.elements())]
                wrong.append(
                    f"{case.recipe} {dict(case.parameters)}: expected "
                    f"{'; '.join(expected) or 'nothing'}, and found {'; '.join(shown) or 'nothing'}"
                )
        assert not wrong, f"wrong verdicts ({_GUIDE}, 'Rules'):\n" + "\n".join(wrong)

    def test_verdicts_are_quick_and_change_nothing(
        self,
        cases: Sequence[PreflightCase],
        judge: Callable[[PreflightCase], list[Finding]],
        tmp_path: Path,
    ) -> None:
        """Once warm, a verdict is quick, and changes no file, process or argument."""
        for case in cases:
            who = f"the verdict on {case.recipe}"
            before = _document(case), dict(case.environment)
            # The first call may start the process that runs recipes.
            with unchanged(who, tmp_path, partial(judge, case)):
                judge(case)
            assert (_document(case), dict(case.environment)) == before, (
                f"{who} changes the structure, parameters or environment that it was passed "
                f"({_GUIDE}, 'Rules')"
            )
            took = quickest(partial(judge, case))
            assert took <= VERDICT_S, (
                f"{who} took {took:.2f} s once everything was warm, and may take {VERDICT_S:g} s: "
                f"a submission waits for it ({_GUIDE}, 'Rules')"
            )


def _document(case: PreflightCase) -> str:
    """Return structure and parameters in the form that the hook gets."""
    spec = JobSpec(job_id="", recipe=case.recipe, atoms=case.atoms, parameters=case.parameters)
    return codec.encode_spec(spec)


#: How long reading the last MiB of a file may take, in seconds.
READ_S = 1.0
#: At how many places the files of a case are cut.
CUTS = 100
#: The relative difference that energies and forces may have from those of the case.
RELATIVE = 1e-6
_PROGRESS = f"{_GUIDE}, 'Its progress'"
_NUMBERS = ("ionic_step", "electronic_step", "energy_ev", "max_force_ev_ang")


class ReaderContract(PluginContract):
    """The tests of readers of progress; fill in the fixtures `plugin` and `cases`."""

    @pytest.fixture
    def cases(self) -> Sequence[ReaderCase]:
        """Return the output of each program, early, in the middle and at the end of a run."""
        raise NotImplementedError("fill in the fixture `cases` (crystalmath.testing)")

    @pytest.fixture
    def readers(self, loaded: Any) -> dict[str, ProgressReader]:
        """Return the plugin's readers by the names of their files."""
        assert hasattr(loaded, "crystalmath_progress_readers"), (
            f"the plugin does not provide crystalmath_progress_readers ({_PROGRESS})"
        )
        return {each.file: each for each in loaded.crystalmath_progress_readers()}

    def test_readers_say_which_files_they_read(
        self, readers: dict[str, ProgressReader], cases: Sequence[ReaderCase]
    ) -> None:
        """Each reader has a program and plain names of files, and a case of its own."""
        for reader in readers.values():
            assert isinstance(reader, ProgressReader), f"{reader!r} is no ProgressReader"
            assert isinstance(reader.program, str), f"the program of {reader!r} is no name"
            assert reader.program, f"the program of {reader!r} has no name"
            for name in (reader.file, *reader.others):
                assert name == name.rpartition("/")[2].removesuffix(".gz"), (
                    f"{name!r} must be the plain name of a file, without a folder and without "
                    f".gz: compressed files are found, too ({_PROGRESS})"
                )
        untested = [name for name in readers if not any(name in case.files for case in cases)]
        assert not untested, f"no case has the file of the readers for {', '.join(untested)}"

    def test_readings(
        self, readers: dict[str, ProgressReader], cases: Sequence[ReaderCase]
    ) -> None:
        """`read` returns the reading of each case."""
        for case in cases:
            _check("read", _read(_reader(readers, case), case.files), case.reading)

    def test_steps(self, readers: dict[str, ProgressReader], cases: Sequence[ReaderCase]) -> None:
        """The collector returns the steps of each case, for any number of lines at a time."""
        for case in cases:
            reader = _reader(readers, case)
            if case.steps is None:
                assert reader.collector() is None, (
                    f"add the steps in {list(case.files)} to the case"
                )
                continue
            for count in (1, 7, 10_000):
                steps = _steps(reader, case.files, count)
                assert len(steps) == len(case.steps), (
                    f"{type(reader).__name__} collects {steps}, and not {case.steps} ({_PROGRESS})"
                )
                for step, wanted in zip(steps, case.steps, strict=True):
                    _check("collector", step, wanted)

    def test_files_that_are_cut_anywhere(
        self, readers: dict[str, ProgressReader], cases: Sequence[ReaderCase]
    ) -> None:
        """A reader takes unfinished files, and the last part of long ones."""
        for case in cases:
            reader = _reader(readers, case)
            for name, text in case.files.items():
                for place in range(0, len(text) + 1, max(1, len(text) // CUTS)):
                    for part in (text[:place], text[place:]):
                        _is_survived(reader, {**case.files, name: part})
                _is_survived(reader, {key: each for key, each in case.files.items() if key != name})

    def test_nonsense(self, readers: dict[str, ProgressReader]) -> None:
        """A reader finds nothing in empty files and in noise, and raises nothing."""
        noise = hashlib.shake_128(b"noise").digest(20_000).decode("utf-8", "replace")
        for reader in readers.values():
            for text in ("", "\n" * 1000, "\0" * 1000, noise):
                files = dict.fromkeys((reader.file, *reader.others), text)
                reading = _is_survived(reader, files)
                assert reading == Reading(), (
                    f"{type(reader).__name__} reads {reading} in files without any ({_PROGRESS})"
                )

    def test_reading_is_quick_and_changes_nothing(
        self, readers: dict[str, ProgressReader], cases: Sequence[ReaderCase], tmp_path: Path
    ) -> None:
        """Files of 1 MiB are read quickly, and reading changes no file and no process."""
        for case in cases:
            reader = _reader(readers, case)
            who = type(reader).__name__
            read = partial(_is_survived, reader, case.files)
            with unchanged(who, tmp_path, read):
                read()
            long = {
                name: (text * (END // len(text) + 1))[-END:]
                for name, text in case.files.items()
                if text
            }
            took = quickest(partial(_read, reader, long))
            assert took <= READ_S, (
                f"{who} took {took:.2f} s for files of 1 MiB, and may take {READ_S:g} s: other "
                f"requests wait while a server reads ({_PROGRESS})"
            )


def _reader(readers: Mapping[str, ProgressReader], case: ReaderCase) -> ProgressReader:
    matches = [reader for name, reader in readers.items() if name in case.files]
    assert len(matches) == 1, (
        f"the files {list(case.files)} of a case must have the file of one reader among them; "
        f"the plugin has readers for {list(readers)}"
    )
    return matches[0]


def _read(reader: ProgressReader, files: Mapping[str, str]) -> Reading:
    lines = {name: LastLines(text.encode()) for name, text in files.items()}
    return reader.read(lambda name: lines.get(name, LastLines()))


def _steps(reader: ProgressReader, files: Mapping[str, str], count: int) -> Sequence[Reading]:
    """Pass lines to a collector, as core does: whole ones, `count` at a time, file by file."""
    if (collector := reader.collector()) is None:
        return ()
    for name in (reader.file, *reader.others):
        lines = files.get(name, "").rpartition("\n")[0].split("\n")
        for place in range(0, len(lines), count):
            collector.take(name, lines[place : place + count])
    return collector.steps()


def _is_survived(reader: ProgressReader, files: Mapping[str, str]) -> Reading:
    who = type(reader).__name__
    ends = {name: text[-60:] for name, text in files.items()}
    try:
        reading, steps = _read(reader, files), _steps(reader, files, 100)
    except Exception as error:
        raise AssertionError(
            f"{who} raises {error!r} for files that end in {ends}; values that are missing are "
            f"None ({_PROGRESS})"
        ) from error
    for each in (reading, *steps):
        assert isinstance(each, Reading), f"{who} returns {each!r}, no Reading ({_PROGRESS})"
        for name in _NUMBERS:
            value = getattr(each, name)
            kinds = (int,) if name.endswith("step") else (int, float)
            assert value is None or type(value) in kinds, f"{who} returns {name} {value!r}"
    return reading


def _check(method: str, reading: Reading, wanted: Reading) -> None:
    for name in _NUMBERS:
        value, right = getattr(reading, name), getattr(wanted, name)
        if right is not None and value is not None:
            right = pytest.approx(right, rel=RELATIVE)
        assert value == right, f"{method} returns {name} {value}, not {right} ({_PROGRESS})"
