"""A service that the tests of a module share; what is asked of recipes ends with the module."""

import pytest

from crystalmath.preflight import inspector
from ends import opened


@pytest.fixture(scope="module", autouse=True)
def _children_end():
    yield
    inspector.close()


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with opened(tmp_path_factory.mktemp("home"), "local") as service:
        yield service


@pytest.fixture(scope="module")
def open_mpi_as_root():
    """Open MPI refuses to run as root, as tests may, unless it is told so twice."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMPI_ALLOW_RUN_AS_ROOT", "1")
        patch.setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
        yield
