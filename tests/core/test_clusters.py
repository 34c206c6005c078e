"""Clusters in the configuration file: what is read, refused and listed, and the engine implied."""

from __future__ import annotations

import pytest

from crystalmath import config
from crystalmath.errors import ConfigError
from crystalmath.quacc.engines import runner_for
from crystalmath.service import JobService

SLURM = """
[clusters.big]
engine = "parsl"
scheduler = "slurm"
queue = "main"
account = "physics"
walltime = "00:10:00"
worker_init = "module load vasp"
nodes = 2
options = { constraint = "skylake", exclusive = "" }
max_blocks = 3
"""


def test_a_cluster_is_read(home):
    (home / "config.toml").write_text(SLURM)
    cluster = config.load().clusters["big"]
    assert (cluster.engine, cluster.scheduler, cluster.walltime_s) == ("parsl", "slurm", 600)
    assert cluster.worker_init == "module load vasp"
    assert cluster.resources.given() == {
        "queue": "main",
        "account": "physics",
        "nodes": 2,
        "options": {"constraint": "skylake", "exclusive": ""},
    }
    assert cluster.engine_options == {"max_blocks": 3}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[clusters]\nbig = 3", "one table for each cluster"),
        ("[clusters.big]\nqueue = 'main'", r"\[clusters.big\] names no engine"),
        ("[clusters.local]\nengine = 'parsl'", "take another"),
        ("[clusters.big]\nengine = 3", "engine must be a text, not 3"),
        ("[clusters.big]\nengine = 'x'\nscheduler = 'slrum'", "did you mean 'slurm'"),
        ("[clusters.big]\nengine = 'x'\nwalltime = 'soon'", "walltime must be a time"),
        ("[clusters.big]\nengine = 'x'\nwalltime = true", "walltime must be a time"),
        ("[clusters.big]\nengine = 'x'\nnodes = 0", "'nodes' must be"),
        ("[clusters.big]\nengine = 'x'\nnodes = 2\nranks = 3", "spread evenly"),
        ("[clusters.big]\nengine = 'x'\nqueue = 3", "'queue' must be"),
    ],
)
def test_what_cannot_be_used_is_named(home, text, said):
    (home / "config.toml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        config.load()


def test_an_engine_without_clusters_refuses_one(home):
    (home / "config.toml").write_text("[clusters.big]\nengine = 'local'\n")
    with pytest.raises(ConfigError, match=r"\[clusters.big\] the engine 'local' takes no clusters"):
        runner_for("local")


def test_a_clusters_name_implies_its_engine(home, install, lab):
    install("crystalmath-engine-odd", "odd", "raise ImportError('odd is not there')")
    (home / "config.toml").write_text("[clusters.big]\nengine = 'odd'\n")
    from ase.build import bulk

    from crystalmath.models import Submission

    asked = Submission(recipe="lab_recipes.value", atoms=bulk("Al"), cluster="big")
    with JobService() as service, pytest.raises(ImportError, match="odd is not there"):
        service.submit(asked)


def test_clusters_are_listed(home, cli):
    (home / "config.toml").write_text("[clusters.big]\nengine = 'nonesuch'\nqueue = 'main'\n")
    (told,) = cli("clusters", "--json").json["clusters"]
    assert (told["name"], told["engine"], told["scheduler"]) == ("big", "nonesuch", "local")
    assert told["resources"] == {"queue": "main"}
    assert "'nonesuch' is not installed" in told["error"]


def test_an_example_is_written_once(home, cli):
    assert cli("clusters", "init", "slurm").code == 0
    assert config.load().clusters["slurm"].engine == "parsl"
    again = cli("clusters", "init", "slurm")
    assert again.code == 1
    assert "already" in again.err
    assert cli("clusters", "init", "nonesuch").code == 2
