"""A cluster as the configuration file describes it, a target of an engine; and checks of one."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Annotated, Any

from attrs import field, frozen

from crystalmath.errors import ConfigError, InvalidJob, did_you_mean, shown
from crystalmath.models.checks import check_fields
from crystalmath.models.fields import Limits, declared
from crystalmath.models.resources import Resources, check_resources
from crystalmath.models.written import read_timespan

#: The schedulers that hand out nodes; ``local`` is this machine itself.
SCHEDULERS = ("slurm", "pbs", "lsf", "flux", "local")

#: The launcher of ranks in an allocation of Flux, as ``mpirun`` there may see one node alone.
FLUX_RUN = "flux run -N {nodes} -n {ranks} -c {cores_per_rank} -g {gpus_per_rank}"

_RESOURCES = tuple(one.name for one in declared(Resources))
#: The keys of a cluster beside its resources and its engine's own, with type and meaning.
CLUSTER_KEYS = {
    "engine": ("text", "the engine that the cluster implies; required"),
    "scheduler": ("text", f"{', '.join(SCHEDULERS)}, as the engine can; default: local"),
    "walltime": (
        "text",
        'length of an allocation, "04:00:00" or "2h"; default: as the engine says',
    ),
    "worker_init": ("text", "shell commands before the worker, on each node: module load vasp"),
    "environment": ("table of texts", "variables of its jobs, in place of the submitter's"),
    "scratch": (
        "text",
        "where calculations run, on the node's own disk: $TMPDIR; default: the work directory",
    ),
    "launcher": (
        "text",
        f"the command that starts a job's ranks; default: mpirun -np {{ranks}}, on Flux {FLUX_RUN}",
    ),
    "continue_lost": (
        "true or false",
        "lost relaxations go on from their last geometries; default: as in [jobs]",
    ),
}
_KNOWN = (*CLUSTER_KEYS, *_RESOURCES)
#: quacc expands the variables in its value on the node, as ``$TMPDIR``.
_SCRATCH = "QUACC_SCRATCH_DIR"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@frozen(kw_only=True)
class Cluster:
    """A table ``[clusters.NAME]``.

    Parameters
    ----------
    name : str
        The name that ``--cluster`` takes.
    engine : str
        The engine whose cluster it is.
    scheduler : {"slurm", "pbs", "lsf", "flux", "local"}
        The scheduler that hands out its nodes.
    walltime_s : float, optional
        How long an allocation lasts, in seconds.
    worker_init : str
        Shell commands that run before the worker, on each node.
    environment : mapping of str to str
        Variables that its jobs see in place of their submitters'; the key ``scratch`` is one.
    launcher : str, optional
        The command that starts a job's ranks, ``srun -N {nodes} -n {ranks}``; default:
        :data:`FLUX_RUN` on Flux, else ``mpirun -np {ranks}``.
    continue_lost : bool, optional
        Whether lost relaxations go on from their last geometries; default: as the home says.
    resources : Resources
        The resources of an allocation, unless a submission has others.
    engine_options : mapping of str to object
        The keys that are the engine's own; it checks them (`check_options`).
    """

    name: str
    engine: str
    scheduler: str = "local"
    walltime_s: float | None = None
    worker_init: str = ""
    environment: Mapping[str, str] = field(factory=dict)
    launcher: str | None = None
    continue_lost: bool | None = None
    resources: Resources = field(factory=Resources)
    engine_options: Mapping[str, Any] = field(factory=dict)

    def check_options(self, *known: str) -> None:
        """Refuse keys that the engine does not know; `ConfigError` names the nearest."""
        for key in self.engine_options:
            if key not in known:
                raise ConfigError(f"[clusters.{self.name}] {_unknown(key, (*_KNOWN, *known))}")

    def count(self, key: str, default: int, least: int = 0) -> int:
        """Return the value of one of the engine's own keys, a whole number."""
        value = self.engine_options.get(key, default)
        if isinstance(value, int) and not isinstance(value, bool) and value >= least:
            return value
        raise self.refused(key, f"must be a whole number from {least}, not {shown(value)}")

    def timespan(self, key: str, default: float) -> float:
        """Return the value of one of the engine's own keys, a span of time, in seconds."""
        value = self.engine_options.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
            return float(value)  # as the engine's own library has it
        return default if value is None else _timespan(self.name, key, value)

    def defaults(self, names: Collection[str]) -> Resources:
        """Return the cluster's defaults of some resources."""
        resources: dict[str, Any] = {**self.resources.given()}
        return Resources(**{name: value for name, value in resources.items() if name in names})

    def refused(self, key: str, why: str) -> ConfigError:
        """Return the error for one of its keys."""
        return ConfigError(f"[clusters.{self.name}] {key} {why}")

    def described(self) -> dict[str, Any]:
        """Return all fields as JSON can hold them, for lists of clusters."""
        return {
            "name": self.name,
            "engine": self.engine,
            "scheduler": self.scheduler,
            "walltime_s": self.walltime_s,
            "worker_init": self.worker_init,
            "environment": dict(self.environment),
            "launcher": self.launcher,
            "continue_lost": self.continue_lost,
            "resources": {
                name: dict(value) if isinstance(value, Mapping) else value
                for name, value in self.resources.given().items()
            },
            "engine_options": dict(self.engine_options),
        }


def read_cluster(name: str, table: Mapping[str, Any]) -> Cluster:
    """Read a table ``[clusters.NAME]``; its engine checks the unknown keys.

    Raises
    ------
    ConfigError
        A value cannot be used, or the table names no engine.
    """
    if name == "local":
        raise ConfigError("[clusters.local] every engine has a cluster of that name; take another")
    if not name.isprintable() or not name.strip():
        raise ConfigError(f"{name!r} is no name for a cluster")
    keys = ("engine", "scheduler", "worker_init", "scratch", "launcher")
    texts = {key: _text(name, table, key) for key in keys}
    if not texts["engine"]:
        import difflib

        others = [key for key in table if key not in _KNOWN]
        if near := difflib.get_close_matches("engine", others, 1):
            raise ConfigError(f"[clusters.{name}] {_unknown(near[0], _KNOWN)}")
        raise ConfigError(
            f'[clusters.{name}] names no engine; write engine = "parsl", or another that '
            "`crystalmath engines` lists"
        )
    scheduler, walltime = texts["scheduler"] or "local", table.get("walltime")
    if scheduler not in SCHEDULERS:
        raise ConfigError(f"[clusters.{name}] scheduler {_unknown(scheduler, SCHEDULERS)}")
    return Cluster(
        name=name,
        engine=texts["engine"],
        scheduler=scheduler,
        walltime_s=_timespan(name, "walltime", walltime) if walltime is not None else None,
        worker_init=texts["worker_init"] or "",
        environment={
            **({_SCRATCH: scratch} if (scratch := texts["scratch"]) else {}),
            **_environment(name, table.get("environment", {})),
        },
        launcher=texts["launcher"] or (FLUX_RUN if scheduler == "flux" else None),
        continue_lost=_switch(name, table, "continue_lost"),
        resources=_resources(name, table),
        engine_options={key: value for key, value in table.items() if key not in _KNOWN},
    )


def _text(name: str, table: Mapping[str, Any], key: str) -> str | None:
    value = table.get(key)
    if value is not None and not isinstance(value, str):
        raise ConfigError(f"[clusters.{name}] {key} must be a text, not {shown(value)}")
    return value


def _switch(name: str, table: Mapping[str, Any], key: str) -> bool | None:
    value = table.get(key)
    if value is not None and not isinstance(value, bool):
        raise ConfigError(f"[clusters.{name}] {key} must be true or false, not {shown(value)}")
    return value


def _environment(name: str, table: object) -> Mapping[str, str]:
    place = f"[clusters.{name}] environment"
    if not isinstance(table, Mapping):
        raise ConfigError(f"{place} must be a table of variables, not {shown(table)}")
    for variable, value in table.items():
        if not isinstance(value, str):
            raise ConfigError(f"{place}.{variable} must be a text, not {shown(value)}")
        if not _VARIABLE.fullmatch(variable) or "\0" in value:
            raise ConfigError(f"{place}.{variable} cannot be an environment variable")
        if variable.startswith("CRYSTALMATH_"):
            raise ConfigError(
                f"{place}.{variable} cannot be set for jobs; the file has settings of its own"
            )
    return table


def _timespan(name: str, key: str, value: object) -> float:
    seconds = read_timespan(value) if isinstance(value, str) else None
    if not seconds:
        wanted = 'a time above zero with its unit, as "00:10:00" or "2h"'
        raise ConfigError(f"[clusters.{name}] {key} must be {wanted}, not {shown(value)}")
    return seconds


def _resources(name: str, table: Mapping[str, Any]) -> Resources:
    try:
        made = Resources(**{key: value for key, value in table.items() if key in _RESOURCES})
        check_fields(made, _RESOURCES)
        check_resources(made)
    except InvalidJob as error:
        raise ConfigError(f"[clusters.{name}] {error}") from error
    return made


def _unknown(key: str, known: tuple[str, ...]) -> str:
    return f"{shown(key)} is not known; {did_you_mean(key, known)}"


# --- checks ----------------------------------------------------------------------------------


@frozen
class Check:
    """One result of ``crystalmath doctor``, or of the check of a cluster.

    Parameters
    ----------
    name : str
        The name of the check.
    state : {"ok", "warning", "error"}
        An error keeps every job from running, a warning some.
    message : str
        The observation.
    remedy : str, optional
        The advice for the user.
    """

    name: str
    state: Annotated[str, Limits(enum=["ok", "warning", "error"])]
    message: str
    remedy: str | None = None


def cluster_checks(entry: Mapping[str, Any]) -> list[Check]:
    """Return the checks of a cluster that concern all its jobs, by its entry in the list."""
    summary = f"{entry['name']}: engine {entry['engine']}, scheduler {entry['scheduler']}"
    state = "error" if entry["error"] else "ok"
    checks = [Check("cluster", state, summary, entry["error"])]
    if entry["trouble"]:
        silence = f"{entry['scheduler']} does not answer"
        checks.append(Check("scheduler", "error", silence, entry["trouble"]))
    return checks
