"""What a failed job's error says: the cause, where its files are, and their last lines."""

import gzip
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crystalmath.worker.postmortem import describe


class JobFailure(Exception):  # noqa: N818 - quacc's name
    """As quacc's."""

    def __init__(self, directory, message="Calculation failed!", parent_error=None):
        self.directory = directory
        self.parent_error = parent_error
        super().__init__(message)


@pytest.fixture
def work(tmp_path):
    work = tmp_path / "1.work"
    work.mkdir()
    return work


def calculation(folder, /, **files):
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content)
    return folder


def test_an_error_without_files_is_its_cause_alone(work):
    (work / "notes.txt").write_text("no output of a code")
    assert describe(RuntimeError("no convergence"), str(work)) == "RuntimeError: no convergence"
    assert describe(SystemExit(3), str(work)) == "the recipe called sys.exit(3)"
    assert describe(KeyError("x"), str(work / "no such folder")) == "KeyError: 'x'"


def test_a_job_failure_names_its_parent_and_the_directory_that_exists(work, tmp_path):
    place = calculation(
        tmp_path / "scratch-failed-quacc-1", vasp__out="one\ntwo\n", OUTCAR="three\n", INCAR="NSW=1"
    )
    calculation(work, OUTCAR="another calculation's\n")
    failure = JobFailure(place, parent_error=ValueError("custodian's own words"))
    assert describe(failure, str(work)).splitlines() == [
        "ValueError: custodian's own words",
        f"the calculation's files are in {place}",
        *("the end of vasp.out:", "  one", "  two", "the end of OUTCAR:", "  three"),
    ]


def test_the_cause_names_no_directory_that_was_renamed(work):
    place = calculation(work / "failed-quacc-1", pw__out="x")
    parent = RuntimeError(f"vasp in {work}/tmp-quacc-1 returned an error: 1")
    said = describe(JobFailure(place, parent_error=parent), str(work))
    assert said.startswith(f"RuntimeError: vasp in {place} returned an error: 1\n")


def test_a_directory_that_is_gone_is_not_named(work):
    failure = JobFailure(work / "gone", "Files stored at /gone", KeyError("TITEL"))
    assert describe(failure, str(work)) == ("KeyError: 'TITEL' (JobFailure: Files stored at /gone)")


def test_of_several_calculations_the_newest_is_shown_compressed_or_not(work):
    old = calculation(work / "quacc-1", OUTCAR="old\n")
    new = calculation(work / "quacc-2")
    (new / "OUTCAR.gz").write_bytes(gzip.compress(b"line\n" * 10_000 + b"the last line\n"))
    os.utime(old / "OUTCAR", (1, 1))
    _, where, title, *lines = describe(RuntimeError("x"), str(work)).splitlines()
    assert (where, title) == (f"the calculation's files are in {new}", "the end of OUTCAR.gz:")
    assert lines == ["  line"] * 7 + ["  the last line"]


def test_quantum_espresso_speaks_in_files_of_its_own(work):
    calculation(work, pw__out="too few bands\n", pw__err="", CRASH="bands\n", pw__in="&system\n")
    _, _, *said = describe(RuntimeError("x"), str(work)).splitlines()
    assert said == ["the end of pw.out:", "  too few bands", "the end of CRASH:", "  bands"]


def test_what_is_shown_is_short_and_printable(work):
    calculation(work, vasp__out="\x1b[31mred\x07\n" + "x" * 5000 + "\n\n" * 9, OUTCAR="o\n" * 99)
    for number in range(30):
        (work / f"{number}.out").write_text(f"{number}\n" * 99)
    said = describe(RuntimeError("y" * 10**6), str(work))
    assert len(said) < 15_000
    assert said.splitlines()[1:4] == [
        f"the calculation's files are in {work}",
        "the end of vasp.out:",
        "  " + "x" * 160,
    ]
    (work / "vasp.out").write_text("\x1b[31mred\x07\n")
    assert "\n  [31mred\n" in describe(RuntimeError("y"), str(work))


def test_strange_files_hinder_nothing(work):
    os.mkfifo(work / "vasp.out")
    (work / "OUTCAR").mkdir()
    (work / "pw.out").symlink_to(work / "pw.out")
    (work / "a.out").symlink_to("/dev/zero")
    (work / "b.out.gz").write_bytes(b"no gzip")
    (work / "c.out.gz").write_bytes(gzip.compress(b"cut short" * 99)[:-20])
    (work / "d.out").write_bytes(bytes(range(256)))
    said = describe(RuntimeError("x"), str(work))
    assert said.startswith(f"RuntimeError: x\nthe calculation's files are in {work}\n")
    with open(work / "e.out", "wb") as file:
        file.truncate(1 << 40)
        file.seek(0, 2)
        file.write(b"\nthe end of a terabyte")
    assert "the end of a terabyte" in describe(RuntimeError("x"), str(work))


def test_a_bomb_is_not_unpacked_to_its_end(work):
    with gzip.open(work / "OUTCAR.gz", "wb", compresslevel=1) as file:
        for _ in range(65):
            file.write(bytes(1 << 20))
    assert "(too long to be unpacked)" in describe(RuntimeError("x"), str(work))


BOX = """\
 -----------------------------------------------------------------------------
|                                                                             |
|     EEEEEEE  RRRRRR   RRRRRR   OOOOOOO  RRRRRR      ###     ###     ###     |
|     E        R     R  R     R  O     O  R     R     ###     ###     ###     |
|     EEEEEEE  R     R  R     R  OOOOOOO  R     R     ###     ###     ###     |
|                                                                             |
|     ERROR: the triple product of the basis vectors is negative              |
|     exchange two basis vectors                                              |
|                                                                             |
|       ---->  I REFUSE TO CONTINUE WITH THIS SICK JOB ... BYE!!! <----       |
 -----------------------------------------------------------------------------
"""
EDDDAV = "Error EDDDAV: Call to ZHEGV failed. Returncode =   7 1   8\n"


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"vasp__out": f" running\n {EDDDAV}" * 99}, "Error EDDDAV: Call to ZHEGV failed. Ret"),
        ({"vasp__out": f"WARNING: x\n{BOX}"}, "ERROR: the triple product of the basis vectors is "),
        (
            {"vasp__out": " VERY BAD NEWS! internal error in subroutine SGRCON:\n Found some\nx\n"},
            "VERY BAD NEWS! internal error in subroutine SGRCON: Found some (",
        ),
        (
            {"vasp__out": " Error reading item 'NSW' from file INCAR.\n"},
            "Error reading item 'NSW' from file INCAR. (",
        ),
        (
            {
                "vasp__out": " entering main loop\n",
                "std_err__txt": "forrtl: severe (174): SIGSEGV\n",
            },
            "forrtl: severe (174): SIGSEGV (",
        ),
        (
            {"std_err__txt": "vasp_std: error while loading shared libraries: libmkl.so: no\n"},
            "vasp_std: error while loading shared libraries: libmkl.so: no (",
        ),
        (
            {"std_err__txt": "/bin/sh: 1: vasp_std: not found\n"},
            "/bin/sh: 1: vasp_std: not found (",
        ),
        (
            {"OUTCAR": "VERY BAD NEWS! internal error in X\n"},
            "VERY BAD NEWS! internal error in X (",
        ),
        # Where nothing is clearly an error, nothing is claimed.
        ({"vasp__out": "WARNING in EDDRMM: call to ZHEGV failed\n"}, None),
        ({"OUTCAR": "   Error from kinetic energy argument (eV)\n"}, None),
        ({"std_err__txt": "PMIX ERROR: OUT-OF-RESOURCE\n"}, None),
        ({"vasp__out": EDDDAV, "OUTCAR": "General timing and accounting informations\n"}, None),
        ({"other__out": EDDDAV}, None),
    ],
)
def test_what_vasp_says_itself_goes_first(work, files, said):
    calculation(work, **files)
    first = describe(TypeError("'<' not supported\nat all"), str(work)).splitlines()[0]
    if said is None:
        assert first == "TypeError: '<' not supported"
    else:
        assert first.startswith(f"VASP: {said}")
        assert first.endswith(" (TypeError: '<' not supported)")


PERCENT = " " + "%" * 78 + "\n"
LOST = f"     file Al.UPF not found\n{PERCENT}"
PW = f"{PERCENT}     Error in routine readpp (1):\n{LOST}\n     stopping ...\n"
CRASH = f"{PERCENT}     task #    0\n     from readpp : error #    1\n{LOST}"
ABORT = """\
--------------------------------------------------------------------------
MPI_ABORT was invoked on rank 0 in communicator MPI_COMM_WORLD
  Proc: [[51223,0],0]
  Errorcode: 1

NOTE: invoking MPI_ABORT causes Open MPI to kill all MPI processes.
You may or may not see output from other processes, depending on
exactly when Open MPI kills them.
--------------------------------------------------------------------------
"""


def test_what_pw_says_itself_goes_first_and_once(work):
    calculation(work, pw__out=PW, CRASH=CRASH, pw__err=ABORT)
    first, _, *tails = describe(RuntimeError("exit status 1"), str(work)).splitlines()
    assert first == (
        "pw.x: Error in routine readpp (1): file Al.UPF not found (RuntimeError: exit status 1)"
    )
    assert [line for line in tails if line.startswith("the end")] == ["the end of pw.out:"]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"CRASH": CRASH}, "Quantum ESPRESSO: from readpp : error # 1 file Al.UPF not found ("),
        (
            {"CRASH": CRASH, "ph__out": "x\n"},
            "ph.x: from readpp : error # 1 file Al.UPF not found (",
        ),
        (
            {"pw__out": "   convergence NOT achieved after   1 iterations: stopping\nDONE.\n"},
            "pw.x: convergence NOT achieved after 1 iterations: stopping (",
        ),
        (
            {"pw__out": "     The maximum number of steps has been reached.\n JOB DONE.\n"},
            "pw.x: The maximum number of steps has been reached. (",
        ),
        ({"pw__out": " JOB DONE.\n", "pw__err": "STOP 2\n"}, "RuntimeError"),
    ],
)
def test_other_words_of_quantum_espresso(work, files, said):
    calculation(work, **files)
    assert describe(RuntimeError("x"), str(work)).startswith(said)


class HostileError(Exception):
    """Nothing of it can be asked."""

    def __str__(self):
        raise RuntimeError("no")

    @property
    def parent_error(self):
        raise RuntimeError("no")

    directory = parent_error


def test_an_error_that_cannot_speak(work):
    assert describe(HostileError(), str(work)) == "HostileError: (its message cannot be shown)"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=300), directory=st.one_of(st.none(), st.text(), st.integers()))
def test_it_never_raises(work, content, directory):
    (work / "OUTCAR.gz").write_bytes(content)
    (work / "vasp.out").write_bytes(content)
    said = describe(JobFailure(directory, parent_error=directory), str(work))
    assert said.startswith("JobFailure: Calculation failed!")
    assert all(map(str.isprintable, said.split("\n")))
