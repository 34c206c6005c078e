"""The configuration: what is read, and what is refused."""

import math

import pytest

from crystalmath import config
from crystalmath.errors import ConfigError
from crystalmath.quacc.engine import submission_environment


def test_defaults(home):
    read = config.load()
    assert read.home == home
    assert read.database_url == f"sqlite:///{home}/jobs.sqlite"
    assert (read.engine, read.recipes_allow) == (None, ())


def test_the_environment_goes_before_the_file(home, monkeypatch):
    (home / "config.toml").write_text(
        'engine = "local"\ndatabase_url = "sqlite:////x"\n[recipes]\nallow = ["mylab.recipes"]\n'
        'fresh = ["mylab.recipes.odd"]\n'
    )
    monkeypatch.setenv("CRYSTALMATH_RECIPES", "other, mylab.recipes,")
    monkeypatch.setenv("CRYSTALMATH_ENGINE", "parsl")
    read = config.load()
    assert (read.engine, read.database_url) == ("parsl", "sqlite:////x")
    assert read.recipes_allow == ("other", "mylab.recipes")
    environment = submission_environment(read, {"CRYSTALMATH_FRESH": "*"})
    assert config.is_fresh("mylab.recipes.odd.f", environment)
    assert not config.is_fresh("mylab.recipes.oddity", environment)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("engin = 'local'", "did you mean 'engine'"),
        ("engine = 3", "must be a str"),
        ("[recipes]\nallow = 'mylab'", "must be a list"),
        ("[recipes]\nallow = [1]", "list of strings"),
        ("[engines]\nlocal = 3", "one table for each engine"),
        ("engines = 3", "must be a table"),
        ("[server]\nquiet_s = -1", "server.quiet_s must be a number from 0"),
        ("[server]\nquiet_s = true", "must be a number"),
        ("[cancel]\ngrace_s = -1", "cancel.grace_s must be a number from 0"),
        ("[server]\nquiet_s = nan", "must be a number"),
        ("[server]\nquiet_s = '5 min'", "must be a number"),
        (f"[server]\nquiet_s = 1{'0' * 400}", "quiet_s is too large; inf means for ever"),
        ("database_url = 'sqlite:///~nobody-here/x'", "the database's path '~nobody-here/x'"),
        ("[server]\nquiet = 5", "did you mean 'quiet_s'"),
        ("[jobs]\nlease_s = 0", r"jobs\.lease_s must be at least 2 s, not 0"),
        ("[environment.set]\nCRYSTALMATH_HOME = '/x'", "environment.set.CRYSTALMATH_HOME"),
        ("[environment.set]\n'A B' = 'x'", "cannot be an environment variable"),
        ("[environment.set]\nVASP_X = 3", "must be a str"),
        ("[storage]\nruns = 'scratch'", "runs must be an absolute path, not 'scratch'"),
        ("[storage]\nruns = '/proc/nothing'", "cannot be made"),
        ("[storage]\nnetwork = 'yes'", "storage.network must be true or false"),
        ("[storage]\nrun = '/x'", "did you mean 'runs'"),
        ("restricted = 3", "restricted"),
        ("[restricted]\n'a.b' = 'c'", "restricted"),
        ("[restricted]\nx = [1]", "restricted"),
        ("[clusters]\nbig = 3", "one table for each cluster"),
        ("[clusters.big]\nqueue = 'main'", r"\[clusters.big\] names no engine"),
        ("[clusters.big]\nengin = 'x'", r"\[clusters.big\] 'engin' .* did you mean 'engine'"),
        ("[clusters.local]\nengine = 'parsl'", "take another"),
        ("[clusters.big]\nengine = 3", "engine must be a text, not 3"),
        ("[clusters.big]\nengine = 'x'\nscheduler = 'slrum'", "did you mean 'slurm'"),
        ("[clusters.big]\nengine = 'x'\nwalltime = 'soon'", "walltime must be a time"),
        ("[clusters.big]\nengine = 'x'\nwalltime = true", "walltime must be a time"),
        ("[clusters.big]\nengine = 'x'\nwalltime = 60", "with its unit"),
        ("[clusters.big]\nengine = 'x'\nnodes = 0", "'nodes' must be"),
        ("[clusters.big]\nengine = 'x'\nnodes = 2\nranks = 3", "spread evenly"),
        ("[clusters.big]\nengine = 'x'\nqueue = 3", "'queue' must be"),
        (
            "[defaults]\nwalltime = '60'",
            "defaults.walltime must be a time above zero with its unit",
        ),
        ("[defaults]\nwalltme = '2h'", "did you mean 'walltime'"),
        ("= nonsense", "config.toml"),
        ("engine = parsl", "in TOML, text stands in quotes"),
        ("\udcff", "config.toml"),
    ],
)
def test_what_cannot_be_used_is_named(home, text, said):
    (home / "config.toml").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError, match=said):
        config.load()
    assert not (home / "jobs").is_symlink()


@pytest.mark.parametrize(("text", "quiet_s"), [("0", 0), ("1.5", 1.5), ("inf", math.inf)])
def test_quiet_time(home, text, quiet_s):
    (home / "config.toml").write_text(f"[server]\nquiet_s = {text}\n")
    assert config.load().quiet_s == quiet_s


def test_a_relative_database_is_fixed_where_it_is_read(home, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CRYSTALMATH_DATABASE_URL", "sqlite:///mine.sqlite")
    assert config.load().database_url == f"sqlite:///{tmp_path}/mine.sqlite"


def test_a_source_reads_a_changed_file_again(home):
    file = home / "config.toml"
    source = config.Source()
    assert source.current() is source.current()
    file.write_text("engine = 'parsl'\n")
    assert source.current().engine == "parsl"
    file.write_text("engine = 3\n")
    for _ in range(2):
        with pytest.raises(ConfigError, match="must be a str"):
            source.current()
    assert source.last.engine == "parsl"
    file.unlink()
    assert source.current().engine is None


def test_forwarding():
    environment = {"PATH": "/bin", "VASP_PP_PATH": "/pp", "SECRET": "x", "QUACC_": "", "XVASP_": ""}
    picked = config.forwarded(config.DEFAULT_FORWARD, environment)
    assert sorted(picked) == ["PATH", "QUACC_", "VASP_PP_PATH"]


@pytest.mark.parametrize("workers", ["0", "-1", "true", "'two'", "1.5"])
def test_workers_of_the_local_engine_must_be_a_number(home, workers):
    from crystalmath.quacc import get_runner
    from crystalmath.quacc.engines import describe_engines

    (home / "config.toml").write_text(f"[engines.local]\nworkers = {workers}\n")
    with pytest.raises(ConfigError, match="workers"):
        get_runner("local")
    (local,) = [info for info in describe_engines() if info.name == "local"]
    assert [finding.code for finding in local.findings] == ["config"]


def test_workers_default_to_the_cores_that_may_be_used(monkeypatch):
    import os

    from crystalmath.processes import available_cores

    assert 1 <= available_cores() <= len(os.sched_getaffinity(0))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    assert available_cores() == 1
