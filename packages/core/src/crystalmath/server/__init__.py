"""The server of a home: its methods, each with the type of its answer.

Handlers are declared with these methods and clients call them, so a type checker holds both to one
type. Only type checkers import the types, so commands that read jobs stay fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crystalmath.wire import answers

_Answer = TypeVar("_Answer")


class Method(str, Generic[_Answer]):
    """The name of a method of the server, with the type of its answer."""

    __slots__ = ()


class Ask(Protocol):
    """A function that calls a method, leaves out parameters that are ``None``, raises refusals."""

    def __call__(self, method: Method[_Answer], **params: Any) -> _Answer:
        """Return the answer."""


CLUSTERS_CHECK: Method[answers.ProvenCluster] = Method("clusters.check")
CLUSTERS_LIST: Method[answers.ClusterList] = Method("clusters.list")
ENGINES_LIST: Method[answers.EngineList] = Method("engines.list")
JOBS_ARCHIVE: Method[answers.ArchivedJobs] = Method("jobs.archive")
JOBS_CANCEL: Method[answers.CancelledJob] = Method("jobs.cancel")
JOBS_CANCEL_MANY: Method[answers.CancelledJobs] = Method("jobs.cancel_many")
JOBS_CHECK: Method[answers.CheckedJob] = Method("jobs.check")
JOBS_COUNTS: Method[answers.CountedOverTime] = Method("jobs.counts")
JOBS_EVENTS: Method[answers.EventList] = Method("jobs.events")
JOBS_FACETS: Method[answers.Facets] = Method("jobs.facets")
JOBS_FILE: Method[answers.FilePart] = Method("jobs.file")
JOBS_FILES: Method[answers.JobFiles] = Method("jobs.files")
JOBS_IMPORT: Method[answers.ImportedJobs] = Method("jobs.import")
JOBS_INPUTS: Method[answers.JobInputs] = Method("jobs.inputs")
JOBS_LIST: Method[answers.JobList] = Method("jobs.list")
JOBS_LOGS: Method[answers.LogPart] = Method("jobs.logs")
JOBS_PACK: Method[answers.PackedJobs] = Method("jobs.pack")
JOBS_PARAMETERS: Method[answers.ParametersList] = Method("jobs.parameters")
JOBS_PROGRESS: Method[answers.ProgressList] = Method("jobs.progress")
JOBS_PRUNE: Method[answers.Pruned] = Method("jobs.prune")
JOBS_REREAD: Method[answers.SubmittedJob] = Method("jobs.reread")
JOBS_RESULT: Method[answers.JobResult] = Method("jobs.result")
JOBS_RESULTS: Method[answers.ResultList] = Method("jobs.results")
JOBS_RETRY: Method[answers.RetriedJobs] = Method("jobs.retry")
JOBS_SCRIPT: Method[answers.JobScript] = Method("jobs.script")
JOBS_SHOW: Method[answers.Story] = Method("jobs.show")
JOBS_SPECIFICATION: Method[answers.Specification] = Method("jobs.specification")
JOBS_STATUS: Method[answers.JobDocument] = Method("jobs.status")
JOBS_STATUS_MANY: Method[answers.JobStates] = Method("jobs.status_many")
JOBS_SUBMIT: Method[answers.SubmittedJob] = Method("jobs.submit")
JOBS_SUBMIT_MANY: Method[answers.SubmittedJobs] = Method("jobs.submit_many")
JOBS_SUBSCRIBE: Method[answers.Subscribed] = Method("jobs.subscribe")
JOBS_SUMMARY: Method[answers.Counted] = Method("jobs.summary")
JOBS_TABLE: Method[answers.JobTable] = Method("jobs.table")
JOBS_TRAJECTORY: Method[answers.Trajectory] = Method("jobs.trajectory")
JOBS_UNPACK: Method[answers.PackedJobs] = Method("jobs.unpack")
JOBS_UNSUBSCRIBE: Method[answers.Answer] = Method("jobs.unsubscribe")
JOBS_USAGE: Method[answers.Usage] = Method("jobs.usage")
JOBS_WAIT: Method[answers.WaitedJobs] = Method("jobs.wait")
PRESETS_LIST: Method[answers.PresetList] = Method("presets.list")
RECIPES_DESCRIBE: Method[answers.RecipeDescription] = Method("recipes.describe")
RECIPES_LIST: Method[answers.RecipeList] = Method("recipes.list")
RPC_DISCOVER: Method[Mapping[str, Any]] = Method("rpc.discover")
STRUCTURES_READ: Method[answers.Structures] = Method("structures.read")
SYSTEM_DOCTOR: Method[answers.Doctor] = Method("system.doctor")
SYSTEM_PING: Method[answers.Pong] = Method("system.ping")
SYSTEM_STATUS: Method[answers.ServerStatus] = Method("system.status")
SYSTEM_STOP: Method[answers.Stopping] = Method("system.stop")
SYSTEM_VERSION: Method[answers.ServerVersion] = Method("system.version")
TRANSFERS_READ: Method[answers.TransferPart] = Method("transfers.read")
TRANSFERS_WRITE: Method[answers.TransferPart] = Method("transfers.write")
