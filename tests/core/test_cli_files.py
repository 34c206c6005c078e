"""logs ID FILE finds files below the work directory, and nothing else."""

import gzip
import os

import pytest

from crystalmath.errors import InvalidJob
from crystalmath.jobs.workfiles import find, read_chunks
from crystalmath.jobs.worktree import at_once


@pytest.fixture
def work(tmp_path):
    work = tmp_path / "work"
    for step in ("relax", "static"):
        (work / "quacc-1" / step).mkdir(parents=True)
        (work / "quacc-1" / step / "INCAR").write_text(step)
    (work / "quacc-1" / "OUTCAR.gz").write_bytes(gzip.compress(b"energy"))
    (work / "INCAR").write_text("top")
    (tmp_path / "secret").write_text("secret")
    return work


def read(work, name):
    return b"".join(read_chunks(at_once(find(work, name)).path)).decode()


def test_files_are_found_by_name_by_path_and_compressed(work):
    assert read(work, "OUTCAR") == "energy"
    assert read(work, "OUTCAR.gz") == "energy"
    assert read(work, "quacc-1/OUTCAR") == "energy"
    assert read(work, "relax/INCAR") == "relax"
    assert read(work, "INCAR") == "top"


def test_of_several_files_of_one_name_the_newest_is_found_and_the_others_are_named(work):
    (work / "INCAR").unlink()
    for step, written_at in (("static", 1e9), ("relax", 2e9)):
        os.utime(work / "quacc-1" / step / "INCAR", (written_at, written_at))
    found = at_once(find(work, "INCAR"))
    assert found.path == work / "quacc-1" / "relax" / "INCAR"
    assert found.others == ("quacc-1/static/INCAR",)
    assert at_once(find(work, "static/INCAR")).others == ()


def test_what_is_missing_is_refused_with_what_is_there(work):
    with pytest.raises(InvalidJob, match=r"no file 'CONTCAR'.*quacc-1/OUTCAR\.gz"):
        at_once(find(work, "CONTCAR"))
    with pytest.raises(InvalidJob, match="no file 'CONTCAR'"):
        at_once(find(work / "nowhere", "CONTCAR"))


@pytest.mark.parametrize("name", ["../secret", "quacc-1/../../secret", "/etc/passwd", "", "."])
def test_nothing_outside_is_read(work, name):
    with pytest.raises(InvalidJob, match="no file below"):
        at_once(find(work, name))


def test_links_do_not_lead_out(work):
    (work / "link").symlink_to(work.parent / "secret")
    (work / "folder").symlink_to(work.parent)
    (work / "inside").symlink_to("INCAR")
    with pytest.raises(InvalidJob, match="leaves the work directory"):
        at_once(find(work, "link"))
    with pytest.raises(InvalidJob, match="no file"):
        at_once(find(work, "folder/secret"))
    assert read(work, "inside") == "top"


def test_a_broken_archive_is_an_error_with_a_name(work):
    (work / "broken.gz").write_bytes(b"no gzip")
    with pytest.raises(InvalidJob, match=r"broken\.gz"):
        read(work, "broken")
