"""Files of a job are whole here, or an error says why not; nothing is written elsewhere."""

import base64
import hashlib

import pytest

from crystalmath.errors import BadFile, CrystalMathError
from crystalmath.models.inputs import Inputs, input_files
from crystalmath.remotes import downloads
from crystalmath.remotes.downloads import UNFINISHED, download, fetch_transfer


class Job:
    """The files of a job, as a server answers about them; `odd` changes the answers."""

    def __init__(self, files, odd=lambda answer: answer):
        self.files = files
        self.odd = odd
        self.asked = []

    def __call__(self, method, *, job_id, file=None, offset=0, max_bytes=0, sha256=None, **_):
        if method == "jobs.files":
            listed = [
                {"file": name, "size": len(data), "modified_at": 0.0, "is_link": name == "link"}
                for name, data in self.files.items()
            ]
            return self.odd({"files": listed, "more": 0})
        self.asked.append((file, offset))
        data = self.files[file][offset:][:max_bytes]
        end = offset + len(data)
        answer = {"file": file, "offset": end, "size": len(self.files[file])}
        answer["data"] = base64.b64encode(data).decode()
        if sha256:
            answer["sha256"] = hashlib.sha256(self.files[file][:end]).hexdigest()
        return self.odd(answer)


FILES = {"OUTCAR": b"out" * 1000, "relax/OUTCAR.gz": b"\x1f\x8b", "empty": b"", "link": b"secret"}


@pytest.fixture
def small(monkeypatch):
    """Take parts of 100 bytes."""
    monkeypatch.setattr(downloads, "PART", 100)


def test_all_files_are_there_with_their_folders(small, tmp_path):
    job = Job(FILES)
    there = download(job, "x", tmp_path / "a/b")
    assert {one.file: one.size for one in there} == {
        name: len(data) for name, data in FILES.items() if name != "link"
    }
    for one in there:
        data = (tmp_path / "a/b" / one.file).read_bytes()
        assert (data, one.sha256) == (FILES[one.file], hashlib.sha256(data).hexdigest())
    assert len(list((tmp_path / "a/b").rglob("*"))) == 4
    assert len(job.asked) == 32


def test_the_next_call_goes_on_and_fetches_nothing_twice(small, tmp_path):
    job = Job(FILES)
    (tmp_path / f"OUTCAR{UNFINISHED}").write_bytes(FILES["OUTCAR"][:2950])
    download(job, "x", tmp_path)
    assert [at for name, at in job.asked if name == "OUTCAR"] == [2950]
    job.asked.clear()
    assert len(download(job, "x", tmp_path)) == 3
    assert sorted(job.asked) == [("OUTCAR", 3000), ("empty", 0), ("relax/OUTCAR.gz", 2)]


@pytest.mark.parametrize("begun", [b"another file", b"x" * 4000])
def test_what_was_begun_from_another_file_does_not_survive(small, tmp_path, begun):
    (tmp_path / f"OUTCAR{UNFINISHED}").write_bytes(begun)
    job = Job({"OUTCAR": FILES["OUTCAR"]})
    if len(begun) < 3000:
        with pytest.raises(BadFile, match="has changed while it was fetched: fetch it again"):
            download(job, "x", tmp_path)
        assert not (tmp_path / "OUTCAR").exists()
    download(job, "x", tmp_path)
    assert (tmp_path / "OUTCAR").read_bytes() == FILES["OUTCAR"]


def test_a_file_that_differs_stays(tmp_path):
    (tmp_path / "OUTCAR").write_text("mine")
    with pytest.raises(BadFile, match="OUTCAR is there already, and differs"):
        download(Job(FILES), "x", tmp_path)
    assert (tmp_path / "OUTCAR").read_text() == "mine"


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "..", "", ".", "a\0b"])
def test_a_name_that_leads_elsewhere_is_refused_before_anything_is_written(tmp_path, name):
    folder = tmp_path / "here"
    with pytest.raises(BadFile, match="is not below"):
        download(Job({"good": b"x", name: b"evil"}), "x", folder)
    assert list(tmp_path.rglob("*")) == []


def test_a_link_here_is_not_followed(tmp_path):
    folder, other = tmp_path / "here", tmp_path / "other"
    for each in (folder, other):
        each.mkdir()
    (folder / "out").symlink_to(other)
    (folder / "file").symlink_to(other / "file")
    for name in ("out/x", "file"):
        with pytest.raises(BadFile, match="is not below"):
            download(Job({name: b"evil"}), "x", folder)
    (folder / f"new{UNFINISHED}").symlink_to(other / "new")
    with pytest.raises(OSError, match="symbolic links"):
        download(Job({"new": b"evil"}), "x", folder)
    assert list(other.iterdir()) == []


def more(answer):
    """Send more than was asked for."""
    data = base64.b64encode(b"x" * 5000).decode()
    return {**answer, "data": data, "offset": 5000} if "data" in answer else answer


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (more, "more of OUTCAR came than was asked for"),
        (lambda answer: {**answer, "offset": 7}, "more of OUTCAR came"),
        (lambda answer: {**answer, "data": "@@"}, "cannot be read"),
        (lambda answer: {**answer, "data": ""}, "more of OUTCAR came"),
        (lambda answer: {**answer, "data": "", "offset": 0}, "was 3000 bytes long, and now is 0"),
        (lambda answer: {**answer, "sha256": "0" * 64}, "has changed while it was fetched"),
    ],
)
def test_a_server_that_answers_something_else_is_refused(tmp_path, change, said):
    job = Job({"OUTCAR": FILES["OUTCAR"]})
    job.odd = lambda answer: change(answer) if "data" in answer else answer
    with pytest.raises(BadFile, match=said):
        download(job, "x", tmp_path)
    assert not (tmp_path / "OUTCAR").exists()
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 3000


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil"])
def test_inputs_stay_below_their_folder(tmp_path, name):
    inputs = Inputs.read(
        {"steps": [{"program": "EMT", "formula": "Al", "files": {name: "x"}, "settings": []}]}
    )
    with pytest.raises(CrystalMathError, match="is outside of"):
        input_files(inputs, str(tmp_path))


def test_files_without_room_are_refused(tmp_path):
    def large(answer):
        return {**answer, "files": [{**answer["files"][0], "size": 10**18}]}

    with pytest.raises(CrystalMathError, match="has room for"):
        download(Job(FILES, large), "x", tmp_path)
    part = {"data": "eA==", "offset": 1, "size": 10**18}
    with pytest.raises(CrystalMathError, match="has room for"):
        fetch_transfer(lambda *_, **__: part, "x", tmp_path / "jobs.zip")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("names", "files"),
    [
        (["OUTCAR"], {"OUTCAR"}),
        (["*.gz"], {"relax/OUTCAR.gz"}),
        (["OUTCAR*", "empty"], {"OUTCAR", "relax/OUTCAR.gz", "empty"}),
        (["relax/*"], {"relax/OUTCAR.gz"}),
        (["OUTCAR.gz"], {"relax/OUTCAR.gz"}),
        (["link"], set()),
        (["a[1].txt"], {"a[1].txt"}),
    ],
)
def test_files_are_chosen_by_name_or_pattern(tmp_path, names, files):
    job = Job({**FILES, "a[1].txt": b"x"})
    assert {one.file for one in download(job, "x", tmp_path, names)} == files
    assert {name for name, _ in job.asked} == files


@pytest.mark.parametrize("name", ["OUTCR", "", ".", "x/*", "/OUTCAR", "../OUTCAR"])
def test_a_name_that_fits_no_file_is_refused(tmp_path, name):
    job = Job(FILES)
    with pytest.raises(CrystalMathError, match="no file of the job fits") as refused:
        download(job, "x", tmp_path / "new", ["empty", name])
    assert ("did you mean 'OUTCAR'?" if "OUTC" in name else "lists them") in str(refused.value)
    assert (job.asked, list(tmp_path.iterdir())) == ([], [])


def test_whole_names_are_found_among_too_many_files(tmp_path):
    job = Job(FILES, lambda answer: {**answer, "more": 3} if "files" in answer else answer)
    assert [one.file for one in download(job, "x", tmp_path, ["OUTCAR"])] == ["OUTCAR"]
    with pytest.raises(CrystalMathError, match="3 more files than are listed"):
        download(job, "x", tmp_path, ["OUT*"])


def test_more_files_than_are_listed_are_refused(tmp_path):
    with pytest.raises(CrystalMathError, match="3 more files than are listed"):
        download(Job(FILES, lambda answer: {**answer, "more": 3}), "x", tmp_path)
