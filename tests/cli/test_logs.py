"""Logs: how they are opened, how long they become, and what a terminal gets of them."""

import io
import os
import re
import sys

import pytest

from conftest import AL
from crystalmath.cli import logs as logs_module
from crystalmath.cli.logs import Plain
from crystalmath.errors import InvalidJob
from crystalmath.jobs.rundir import LEFT_OUT
from crystalmath.jobs.workfiles import find, read_chunks, read_part, read_tail
from crystalmath.jobs.worktree import at_once
from crystalmath.worker.running_job import LogFile

# --- opened safely -------------------------------------------------------------------------------


def read_in_every_way(path):
    for read in (
        lambda: at_once(read_part(path, 0, 100, whole=True)),
        lambda: at_once(read_tail(path, 3, 100, whole=True)),
        lambda: list(read_chunks(path)),
    ):
        with pytest.raises(InvalidJob, match="no regular file"):
            read()


@pytest.mark.parametrize("name", ["1.log", "1.log.gz"])
def test_neither_a_fifo_nor_a_link_nor_a_device_is_read(tmp_path, name):
    path = tmp_path / name
    os.mkfifo(path)
    read_in_every_way(path)  # a FIFO without a writer would be waited for
    path.unlink()
    path.symlink_to("/etc/passwd")
    read_in_every_way(path)
    path.unlink()
    path.mkdir()
    read_in_every_way(path)


def test_a_link_inside_the_work_directory_leads_to_its_file(tmp_path):
    (tmp_path / "real").write_text("text")
    (tmp_path / "OUTCAR").symlink_to("real")
    path = at_once(find(tmp_path, "OUTCAR")).path
    assert path == tmp_path.resolve() / "real"
    assert at_once(read_part(path, 0, 100, whole=True)).text == "text"


def test_what_lies_at_the_top_goes_before_what_lies_deeper_and_no_folder_is_entered_by_a_link(
    tmp_path,
):
    """What files have otherwise, and which are refused: tests/server/test_handlers.py."""
    work, elsewhere = tmp_path / "work", tmp_path / "elsewhere"
    for folder in (work / "step", elsewhere):
        folder.mkdir(parents=True)
        (folder / "INCAR").write_text("deeper")
    (elsewhere / "secret").touch()
    (work / "INCAR").write_text("top")
    (work / "folder").symlink_to(elsewhere)
    assert at_once(find(work, "INCAR")).path == work / "INCAR"
    for name in ("folder/secret", "secret", "", "."):
        with pytest.raises(InvalidJob, match="no file"):
            at_once(find(work, name))
    with pytest.raises(InvalidJob, match="no file 'INCAR'"):
        at_once(find(tmp_path / "nowhere", "INCAR"))


def test_a_broken_archive_is_named(tmp_path):
    (tmp_path / "broken.gz").write_bytes(b"no gzip")
    with pytest.raises(InvalidJob, match=r"broken\.gz"):
        list(read_chunks(at_once(find(tmp_path, "broken")).path))


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink(f"{path}-there", path)])
def test_a_log_is_written_neither_into_a_fifo_nor_through_a_link(tmp_path, make):
    path = str(tmp_path / "1.log")
    make(path)
    log = LogFile(path, 1e6)
    log.write(b"text")  # and the job goes on
    log.close()
    assert not os.path.exists(f"{path}-there")


# --- bounded -------------------------------------------------------------------------------------


def test_a_log_keeps_its_beginning_and_its_end_and_says_what_is_missing(tmp_path):
    path, most = tmp_path / "1.log", 10_000
    log = LogFile(str(path), most)
    lines = [b"line %06d\n" % number for number in range(20_000)]
    for line in lines:
        log.write(line)
        assert path.stat().st_size <= most + len(line)
    log.close()
    text = path.read_bytes()
    head, _, rest = text.partition(LEFT_OUT)
    told, _, tail = rest.partition(b"\n")
    whole = b"".join(lines)
    assert len(head) == most // 2
    assert whole.startswith(head)
    assert whole.endswith(tail)
    assert len(tail) >= most // 4 - len(lines[0])
    assert tail.startswith(b"line ")
    missing, bound = map(int, re.findall(rb"\d+", told))
    assert (missing, bound) == (len(whole) - len(head) - len(tail), most)


def test_one_write_may_be_longer_than_the_bound(tmp_path):
    log = LogFile(str(tmp_path / "1.log"), 1000)
    log.write(b"a" * 70_000)
    log.write(b"b" * 70_000)
    log.close()
    text = (tmp_path / "1.log").read_bytes()
    assert len(text) <= 1000
    assert text.startswith(b"a" * 500 + LEFT_OUT)
    assert text.endswith(b"b" * 250)
    missing = int(re.search(rb"out: +(\d+)", text)[1])
    assert missing == 140_000 - text.count(b"a" * 500) * 500 - 250


def test_a_log_within_its_bound_and_one_without_are_whole(tmp_path):
    for most in (1000, float("inf")):
        log = LogFile(str(tmp_path / f"{most}.log"), most)
        for _ in range(100):
            log.write(b"0123456789")
        log.close()
        assert (tmp_path / f"{most}.log").read_bytes() == b"0123456789" * 100


def test_whoever_follows_a_log_goes_on_where_its_middle_was_left_out(tmp_path):
    path = tmp_path / "1.log"
    log = LogFile(str(path), 10_000)
    log.write(b"x\n" * 4_900)
    offset = at_once(read_part(path, 0, 20_000, whole=False)).end
    log.write(b"y\n" * 200)
    part = at_once(read_part(path, offset, 20_000, whole=False))
    assert part.text.encode().startswith(LEFT_OUT)
    assert part.text.endswith("y\n" * 200)
    assert part.end == part.size == path.stat().st_size
    assert at_once(read_part(path, part.end, 100, whole=False)).text == ""
    log.close()


def test_the_bound_is_a_setting_of_the_home(home, cli, lab):
    (home / "config.toml").write_text("[logs]\nmax_mb = 0.01\n")
    answer = cli("run", "lab_recipes.chatter", AL, "--param", "count=20000", "--json")
    assert answer.code == 0, answer.err
    text = cli("logs", answer.json["job_id"]).out
    assert len(text) < 11_000
    assert LEFT_OUT.decode() in text
    assert text.endswith("line 19999\n")


# --- on a terminal -------------------------------------------------------------------------------

STEERING = {
    "\x1b[31mred\x1b[0m\n": "red\n",
    "\x1b]0;title\x07text": "text",
    "\x1b]52;c;Y3VybA==\x1b\\text": "text",
    "\x1bP1$r0m\x1b\\text": "text",
    "\x1b[2J\x1b[Htext": "text",
    "\x1bctext": "text",
    "\x9b31mtext": "text",
    "one\rtwo\r\nthree": "one\ntwo\nthree",
    "a\tb\x07\x08c": "a\tb\\x07\\x08c",
    "right \u202eleft": r"right \u202eleft",
    "one\u2066two\u2069": r"one\u2066two\u2069",
    "é Å ✓": "é Å ✓",
}


@pytest.mark.parametrize("written", STEERING)
def test_what_steers_a_terminal_is_left_out(written):
    assert Plain()(written + ".") == STEERING[written] + "."


@pytest.mark.parametrize("written", STEERING)
def test_also_where_it_comes_in_parts(written):
    plain = Plain()
    assert "".join(map(plain, written + ".")) == STEERING[written] + "."


def test_what_is_begun_and_never_ends_does_not_swallow_the_rest():
    plain = Plain()
    text = plain("\x1b]0;" + "x" * 10_000) + plain("y" * 10)
    assert text.endswith("x" * 10 + "y" * 10)
    assert "\x1b" not in text


class Terminal(io.TextIOWrapper):
    def isatty(self):
        return True


@pytest.mark.parametrize(("options", "raw"), [({"raw": False}, False), ({"raw": True}, True)])
def test_a_terminal_gets_the_text_and_a_pipe_the_bytes(monkeypatch, options, raw):
    written = "\x1b[31mred\x1b[0m\n"
    for kind, expected in (
        (Terminal, written if raw else "red\n"),
        (io.TextIOWrapper, written),
    ):
        buffer = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", kind(buffer, write_through=True))
        logs_module._writer(**options)(written)
        assert buffer.getvalue() == expected.encode()
