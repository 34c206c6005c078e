"""The handlers of ``clusters.*``: which there are, and whether one works."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Required, TypedDict

from crystalmath.models import JobState
from crystalmath.models.answers import ClusterList, JobId, Name, ProvenCluster
from crystalmath.models.fields import Limits
from crystalmath.models.schemas import SUBMISSION
from crystalmath.server.pools import is_wanted
from crystalmath.server.rpc.declare import NoParams, method

if TYPE_CHECKING:
    from crystalmath.service import JobService


@method(
    "clusters.list",
    refused={"clusters": []},
    # Its engine is loaded, and a stranger's may hang.
    pool="engines",
)
def handle_clusters_list(service: JobService, params: NoParams) -> ClusterList:
    """List the clusters of the configuration file, and what is in the way of their jobs.

    None is started; each batch system is asked whether it answers, which may take 15 s.
    """
    from crystalmath import config
    from crystalmath.service.cluster_probe import describe_clusters

    del service, params
    return {"clusters": describe_clusters(config.load()), "error": None}


class ClustersCheckParams(TypedDict, total=False):
    """The parameters of ``clusters.check``."""

    cluster: Required[Annotated[Name, "its name; every engine has one named local"]]
    job_id: Annotated[JobId, "the job that was sent there before; default: send one now"]
    environment: Annotated[Mapping[str, str], Limits(**SUBMISSION["environment"])]


@method(
    "clusters.check",
    refused={"checks": []},
    # Its engine is loaded, and a stranger's may hang.
    pool="checking clusters",
    by_server=True,
    repeatable=lambda params: params.get("job_id") is not None,  # else it sends a job
)
def handle_clusters_check(service: JobService, params: ClustersCheckParams) -> ProvenCluster:
    """Prove a cluster by a small job there, which tells what jobs find.

    It is sent as any submission, with the caller's ``environment``, and may wait for hours: ask
    again with its ``job_id``, once it has ended. Then ``checks`` has what it found: host, versions,
    programs, POTCARs, clock, and how long it waited.
    """
    from attrs import asdict

    from crystalmath.service.cluster_probe import described, judged, probe

    name = params["cluster"]
    checks = described(name, service.config)
    job_id, status, error = params.get("job_id"), "error", None
    if job_id is not None:
        job = service.job(job_id)
        done = job.state is JobState.COMPLETED
        checks += judged(name, job, service.result(job_id) if done else None)
        status, error = job.state.value, job.error
    elif any(check.state == "error" for check in checks):
        error = next(check.remedy for check in checks if check.state == "error")
    else:
        job = service.submit(probe(name, params.get("environment")), wanted=is_wanted)
        job_id, status = job.job_id, job.state.value
    told = [asdict(check) for check in checks]
    return {"job_id": job_id, "status": status, "checks": told, "error": error}
