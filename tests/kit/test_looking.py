"""What the kit sees of folders and processes while these come and go."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

from crystalmath.testing.passing import below, links, listed
from crystalmath.testing.ports import sockets


def test_a_folder_that_goes_while_it_is_walked(tmp_path):
    (tmp_path / "a/b/c").mkdir(parents=True)
    found = below(tmp_path)
    assert next(found) == tmp_path / "a"
    shutil.rmtree(tmp_path / "a")
    assert list(found) == []
    assert listed(tmp_path / "a") == links(tmp_path / "a") == []


def test_the_sockets_of_a_process_under_each_name_that_psutil_gave_them():
    for name in ("connections", "net_connections"):
        process = SimpleNamespace(**{name: lambda kind: [kind]})
        assert sockets(process, "tcp") == ["tcp"]
