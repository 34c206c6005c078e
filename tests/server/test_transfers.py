"""Files on their way to and from clients on other machines."""

import asyncio
import base64
import hashlib
import os
import time

import pytest

from crystalmath import config
from crystalmath.server.handlers import METHODS
from crystalmath.service import JobService

NAME = "0123456789abcdef" * 2


@pytest.fixture
def service(home):
    with JobService(config.Source()) as service:
        yield service


def call(service, method, **params):
    return asyncio.run(METHODS[method](service, params))


def write(service, data, offset=0, name=NAME):
    text = base64.b64encode(data).decode()
    return call(service, "transfers.write", transfer=name, offset=offset, data=text)


def test_what_is_written_in_parts_is_read_in_parts(service, home):
    assert write(service, b"abc")["size"] == 3
    assert write(service, b"defg", 3)["size"] == 7
    assert write(service, b"defg", 3)["size"] == 7  # sent again, as its answer was lost
    assert write(service, b"abc")["size"] == 7
    read = call(service, "transfers.read", transfer=NAME, max_bytes=4)
    assert (base64.b64decode(read["data"]), read["offset"], read["size"]) == (b"abcd", 4, 7)
    read = call(service, "transfers.read", transfer=NAME, offset=4, sha256=True)
    assert (base64.b64decode(read["data"]), read["offset"]) == (b"efg", 7)
    assert read["sha256"] == hashlib.sha256(b"abcdefg").hexdigest()
    folder = home / "server/transfers"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / NAME).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"transfer": "../" * 10 + "ab"}, "is no transfer"),
        ({"transfer": "0" * 31}, "'transfer'"),
        ({"transfer": "0" * 31 + "g"}, "is no transfer"),
        ({"offset": 4}, "beyond its end"),
        ({"data": "@"}, "is no base64"),
    ],
)
def test_what_cannot_be_written_changes_nothing(service, home, params, said):
    answer = call(
        service, "transfers.write", **{"transfer": NAME, "offset": 0, "data": "", **params}
    )
    assert answer["code"] == "invalid_job"
    assert said in answer["error"]
    assert sum(file.stat().st_size for file in home.rglob("*") if file.is_file()) == 0


def test_a_transfer_that_is_not_there(service):
    answer = call(service, "transfers.read", transfer=NAME)
    assert f"there is no transfer {NAME}" in answer["error"]


def test_old_ones_are_removed(service, home):
    write(service, b"old")
    old = home / "server/transfers" / NAME
    os.utime(old, (time.time() - 90_000,) * 2)
    write(service, b"new", name="f" * 32)
    assert not old.exists()


def test_an_archive_is_named_in_one_way(service):
    for params in ({}, {"file": "/a", "transfer": NAME}):
        answer = call(service, "jobs.import", **params)
        assert "by either 'file' or 'transfer'" in answer["error"]


def test_a_restricted_home_takes_none(home):
    (home / "config.toml").write_text("[restricted]\n")
    with JobService(config.Source()) as service:
        assert "restricted" in write(service, b"x")["error"]
