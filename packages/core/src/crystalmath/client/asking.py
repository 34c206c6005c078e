"""All that a client asks."""

from __future__ import annotations

from crystalmath.client.cluster_checks import ClusterChecks
from crystalmath.client.installed import Installed
from crystalmath.client.job_control import JobControl
from crystalmath.client.job_storage import JobStorage
from crystalmath.client.one_job import OneJob


class Asking(ClusterChecks, OneJob, JobControl, JobStorage, Installed):
    """What a client can ask without a future, a subject a file.

    Parameters
    ----------
    transport : Transport
        Whom it asks.
    """
