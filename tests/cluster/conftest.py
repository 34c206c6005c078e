"""A Slurm cluster for all tests of this folder, and a home that all its hosts see."""

import pytest

from cluster.slurm_cluster import SlurmCluster, missing


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    """Yield a cluster with nodes that take jobs."""
    if lacking := missing():
        pytest.skip(f"a Slurm cluster needs {lacking}")
    with SlurmCluster(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def _whole(request):
    """Leave a whole cluster to the next test: nodes that take jobs, and nothing queued."""
    yield
    if "slurm" in request.fixturenames:
        cluster = request.getfixturevalue("slurm")
        cluster.restore()
