"""The remotes of a configuration: written, read, and refused."""

import pytest

from crystalmath import config
from crystalmath.errors import ConfigError
from crystalmath.remotes import remote_home
from crystalmath.remotes.remote_home import RemoteHome

HAWK = ("me@hawk",)


@pytest.mark.parametrize(
    ("name", "ssh", "more"),
    [
        ("hawk", HAWK, {}),
        ("hawk.de", ("-p", "2222", "-J", "gate", "me@hawk"), {"home": "/scratch/ä b"}),
        ("h-1", HAWK, {"command": 'module load "x" && crystalmath', "home": "~/jobs"}),
    ],
)
def test_what_is_added_is_read_again(home, name, ssh, more):
    (home / "config.toml").write_text("strict = true")
    path = remote_home.add(name, ssh, more.get("command"), more.get("home"))
    assert path == home / "config.toml"
    assert config.load().strict
    assert remote_home.all_remotes() == [remote_home.named(name)] == [RemoteHome(name, ssh, **more)]
    before = path.read_text()
    with pytest.raises(ConfigError, match="stands in .* already"):
        remote_home.add(name, ssh, None, None)
    assert path.read_text() == before


@pytest.mark.parametrize(
    ("name", "ssh", "more", "said"),
    [
        ("a,b", HAWK, {}, "a name has letters"),
        ("-a", HAWK, {}, "a name has letters"),
        ("a:b", HAWK, {}, "a name has letters"),
        ("a", (), {}, r'must be "me@host", or a list'),
        ("a", ("-oProxyCommand=touch /tmp/x",), {}, r'must be "me@host", or a list'),
        ("a", ("me@hawk", "-v"), {}, r'must be "me@host", or a list'),
        ("a", HAWK, {"command": " "}, "command must be one line"),
        ("a", HAWK, {"home": "/x\ny"}, "home must be one line"),
    ],
)
def test_what_cannot_be_used_is_refused_and_not_written(home, name, ssh, more, said):
    with pytest.raises(ConfigError, match=said):
        remote_home.add(name, ssh, more.get("command"), more.get("home"))
    assert not (home / "config.toml").exists()


def test_a_remote_that_is_not_there_is_told_with_the_nearest(home):
    with pytest.raises(ConfigError, match="no remote 'hawk' in .*; `crystalmath remotes add NAME"):
        remote_home.named("hawk")
    remote_home.add("hawk", HAWK, None, None)
    with pytest.raises(ConfigError, match="did you mean 'hawk'"):
        remote_home.named("hwk")
    with pytest.raises(ConfigError, match="several remotes, which list, status and counts take"):
        remote_home.named("hawk,hawk")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[remotes]\nhawk = 1\n", "remotes.hawk must be a table"),
        ('[remotes.hawk]\nshs = "x"\n', "remotes.hawk.shs is not a known setting; did you mean"),
        ("[remotes.hawk]\nssh = 1\n", "remotes.hawk.ssh must be a str or a list, not 1"),
        ("[remotes.hawk]\nssh = [1]\n", "remotes.hawk.ssh must be a list of strings"),
    ],
)
def test_a_wrong_table_is_refused_with_its_place(home, text, said):
    (home / "config.toml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        config.load()


def test_the_line_for_the_other_shell_quotes_the_home():
    remote = RemoteHome("hawk", HAWK, "module load x && crystalmath", "/scratch/my jobs")
    line = "module load x && crystalmath --home '/scratch/my jobs' serve --stdio"
    assert remote.words("serve", "--stdio") == line
    assert RemoteHome("hawk", HAWK).words("stop", "--json") == "crystalmath stop --json"
    assert remote.path("/scratch/x") == "hawk:/scratch/x"
