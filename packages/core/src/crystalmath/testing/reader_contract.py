"""The contract of a plugin that reads how far programs have come."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from crystalmath.progress.reader import LastLines, ProgressReader, Reading
from crystalmath.progress.search import END
from crystalmath.testing.plugin_contract import PluginContract, quickest, unchanged

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from crystalmath.testing.plugin_cases import ReaderCase

__all__ = ["ReaderContract"]

#: How long it may take to read the last MiB of a file, in seconds.
READ_S = 1.0
#: At so many places the files of a case are cut.
CUTS = 100
#: How energies and forces may differ from those of the case, of their size.
RELATIVE = 1e-6
_GUIDE = "docs/writing-a-preflight.md, 'Its progress'"
_NUMBERS = ("ionic_step", "electronic_step", "energy_ev", "max_force_ev_ang")


class ReaderContract(PluginContract):
    """Fill in the fixtures `plugin` and `cases`."""

    @pytest.fixture
    def cases(self) -> Sequence[ReaderCase]:
        """Return what each program writes: at the beginning, in the middle, at the end."""
        raise NotImplementedError("fill in the fixture `cases` (crystalmath.testing)")

    @pytest.fixture
    def readers(self, loaded: Any) -> dict[str, ProgressReader]:
        """Return the plugin's readers by the names of their files."""
        assert hasattr(loaded, "crystalmath_progress_readers"), (
            f"the plugin does not provide crystalmath_progress_readers ({_GUIDE})"
        )
        return {each.file: each for each in loaded.crystalmath_progress_readers()}

    def test_readers_say_which_files_they_read(
        self, readers: dict[str, ProgressReader], cases: Sequence[ReaderCase]
    ) -> None:
        for reader in readers.values():
            assert isinstance(reader, ProgressReader), f"{reader!r} is no ProgressReader"
            assert isinstance(reader.program, str), f"the program of {reader!r} is no name"
            assert reader.program, f"the program of {reader!r} has no name"
            for name in (reader.file, *reader.others):
                assert name == name.rpartition("/")[2].removesuffix(".gz"), (
                    f"{name!r} must be the plain name of a file, without a folder and without .gz, "
                    f"which is found by itself ({_GUIDE})"
                )
        told = [name for name in readers if not any(name in case.files for case in cases)]
        assert not told, f"no case has the file of the readers for {', '.join(told)}"

    def test_readings(
        self, readers: dict[str, ProgressReader], cases: Sequence[ReaderCase]
    ) -> None:
        for case in cases:
            _check("read", _read(_reader(readers, case), case.files), case.reading)

    def test_steps(self, readers: dict[str, ProgressReader], cases: Sequence[ReaderCase]) -> None:
        """Whichever number of lines the collector is given at a time."""
        for case in cases:
            reader = _reader(readers, case)
            if case.steps is None:
                assert reader.collector() is None, f"say which steps are in {list(case.files)}"
                continue
            for count in (1, 7, 10_000):
                steps = _steps(reader, case.files, count)
                assert len(steps) == len(case.steps), (
                    f"{type(reader).__name__} collects {steps}, and not {case.steps} ({_GUIDE})"
                )
                for found, wanted in zip(steps, case.steps, strict=True):
                    _check("collector", found, wanted)

    def test_files_that_are_cut_anywhere(
        self, readers: dict[str, ProgressReader], cases: Sequence[ReaderCase]
    ) -> None:
        """They are read while they are written, and of long ones the end alone."""
        for case in cases:
            reader = _reader(readers, case)
            for name, text in case.files.items():
                for place in range(0, len(text) + 1, max(1, len(text) // CUTS)):
                    for part in (text[:place], text[place:]):
                        _is_survived(reader, {**case.files, name: part})
                _is_survived(reader, {key: each for key, each in case.files.items() if key != name})

    def test_nonsense(self, readers: dict[str, ProgressReader]) -> None:
        noise = random.Random(1).randbytes(20_000).decode("utf-8", "replace")  # noqa: S311
        for reader in readers.values():
            for text in ("", "\n" * 1000, "\0" * 1000, noise):
                files = dict.fromkeys((reader.file, *reader.others), text)
                found = _is_survived(reader, files)
                assert found == Reading(), (
                    f"{type(reader).__name__} reads {found} where there is nothing ({_GUIDE})"
                )

    def test_reading_is_quick_and_changes_nothing(
        self, readers: dict[str, ProgressReader], cases: Sequence[ReaderCase], tmp_path: Path
    ) -> None:
        for case in cases:
            reader = _reader(readers, case)
            who = type(reader).__name__

            def read(reader: ProgressReader = reader, case: ReaderCase = case) -> None:
                _read(reader, case.files)
                _steps(reader, case.files, 100)

            with unchanged(who, tmp_path, read):
                read()
            long = {
                name: (text * (END // len(text) + 1))[-END:]
                for name, text in case.files.items()
                if text
            }
            took = quickest(lambda reader=reader, long=long: _read(reader, long))  # type: ignore[misc]
            assert took <= READ_S, (
                f"{who} took {took:.2f} s for files of 1 MiB, and may take {READ_S:g} s: a server "
                f"reads while others wait ({_GUIDE})"
            )


def _reader(readers: Mapping[str, ProgressReader], case: ReaderCase) -> ProgressReader:
    found = [reader for name, reader in readers.items() if name in case.files]
    assert len(found) == 1, (
        f"the files {list(case.files)} of a case must have the file of one reader among them; "
        f"the plugin has readers for {list(readers)}"
    )
    return found[0]


def _read(reader: ProgressReader, files: Mapping[str, str]) -> Reading:
    lines = {name: LastLines(text.encode()) for name, text in files.items()}
    return reader.read(lambda name: lines.get(name, LastLines()))


def _steps(reader: ProgressReader, files: Mapping[str, str], count: int) -> Sequence[Reading]:
    """Hand lines to a collector, as core does: whole ones, so many at a time, file by file."""
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
        found, steps = _read(reader, files), _steps(reader, files, 100)
    except Exception as error:
        raise AssertionError(
            f"{who} raises {error!r} where the files end so: {ends}; what is not there yet is None "
            f"({_GUIDE})"
        ) from error
    for each in (found, *steps):
        assert isinstance(each, Reading), f"{who} gives {each!r}, which is no Reading ({_GUIDE})"
        for name in _NUMBERS:
            value = getattr(each, name)
            kinds = (int,) if name.endswith("step") else (int, float)
            assert value is None or type(value) in kinds, f"{who} gives {name} {value!r}"
    return found


def _check(method: str, found: Reading, wanted: Reading) -> None:
    for name in _NUMBERS:
        value, right = getattr(found, name), getattr(wanted, name)
        if right is not None and value is not None:
            right = pytest.approx(right, rel=RELATIVE)
        assert value == right, f"{method} gives {name} {value}, and not {right} ({_GUIDE})"
