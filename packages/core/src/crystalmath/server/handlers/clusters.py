"""The handlers of ``clusters.*``: which there are, and whether one works."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Required, TypedDict, cast

from crystalmath.models import JobState
from crystalmath.models.fields import array, nullable
from crystalmath.models.resources import RESOURCES
from crystalmath.server.pools import is_wanted
from crystalmath.server.rpc.declare import method
from crystalmath.server.rpc.shapes import ERROR, JOB_ID, NAME, SUBMISSION, record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crystalmath.models.answer_lists import ClusterList
    from crystalmath.models.answers import CheckEntry, ProvenCluster
    from crystalmath.server.rpc.shapes import NoParams
    from crystalmath.service import JobService

_TEXT: dict[str, Any] = {"type": "string"}
_CHECK = record(
    {
        "name": {**_TEXT, "description": "what was looked at"},
        "state": {
            "type": "string",
            "enum": ["ok", "warning", "error"],
            "description": "an error keeps every job from running there, a warning some",
        },
        "message": {**_TEXT, "description": "what was seen"},
        "remedy": {**nullable(_TEXT), "description": "what to do about it"},
    }
)


@method(
    "clusters.list",
    result=record(
        {
            "clusters": array(
                record(
                    {
                        "name": {**_TEXT, "description": "what a submission's cluster takes"},
                        "engine": {**_TEXT, "description": "the engine that it implies"},
                        "scheduler": _TEXT,
                        "walltime_s": {
                            **nullable({"type": "number"}),
                            "description": "how long an allocation lasts, in seconds",
                        },
                        "worker_init": {
                            **_TEXT,
                            "description": "shell commands that come before the worker",
                        },
                        "environment": {
                            "type": "object",
                            "additionalProperties": _TEXT,
                            "description": "variables that its jobs see in place of their "
                            "submitters'",
                        },
                        "launcher": {
                            **nullable(_TEXT),
                            "description": "what starts a job's ranks; default: mpirun, and on "
                            "Flux its own",
                        },
                        "continue_lost": {
                            **nullable({"type": "boolean"}),
                            "description": "relaxations that were lost go on from their last "
                            "geometries; default: as [jobs] continue_lost says",
                        },
                        "resources": {
                            **RESOURCES,
                            "description": "what an allocation has by default",
                        },
                        "engine_options": {
                            "type": "object",
                            "description": "keys that are the engine's own",
                        },
                        "error": {
                            **nullable(_TEXT),
                            "description": "why its engine cannot use it",
                        },
                        "trouble": {
                            **nullable(_TEXT),
                            "description": "why its batch system does not answer just now",
                        },
                    }
                )
            ),
            "error": ERROR,
        }
    ),
    refused={"clusters": []},
    # Its engine is loaded, and a stranger's may hang.
    pool="engines",
)
def handle_clusters_list(service: JobService, params: NoParams) -> ClusterList:
    """List the clusters of the configuration file, and what is in the way of their jobs.

    None is started; each batch system is asked whether it answers, which may take 15 s.
    """
    from crystalmath import config
    from crystalmath.service.cluster_entries import describe_clusters

    del service, params
    return {"clusters": describe_clusters(config.load()), "error": None}


class ClustersCheckParams(TypedDict, total=False):
    """The parameters of ``clusters.check``."""

    cluster: Required[str]
    job_id: str
    environment: Mapping[str, str]


@method(
    "clusters.check",
    params={
        "cluster": {**NAME, "description": "its name; every engine has one named local"},
        "job_id": {
            **JOB_ID,
            "description": "the job that was sent there before; default: send one now",
        },
        "environment": SUBMISSION["environment"],
    },
    required=("cluster",),
    result=record(
        {
            "job_id": {**nullable(_TEXT), "description": "the job that looks around there"},
            "status": {
                "type": "string",
                "enum": [*(state.value for state in JobState), "error"],
                "description": "that of the job",
            },
            "checks": {
                **array(_CHECK),
                "description": "what was looked at; of the node once the job has ended",
            },
            "error": ERROR,
        }
    ),
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
    told = [cast("CheckEntry", asdict(check)) for check in checks]
    return {"job_id": job_id, "status": status, "checks": told, "error": error}
