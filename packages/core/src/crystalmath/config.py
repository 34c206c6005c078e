"""The configuration of a home, and its place."""

from __future__ import annotations

import fnmatch
import functools
import os
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystalmath._permissions import make_own, require_own_database, require_own_home
from crystalmath._storage import file_system, is_network, place_runs, url_of_home
from crystalmath.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable

    from crystalmath.models.cluster import Cluster

__all__ = [
    "DEFAULT_FORWARD",
    "LEASE_S",
    "QUIET_S",
    "SETTINGS",
    "Config",
    "Source",
    "add_table",
    "admitted",
    "cancel_grace",
    "forwarded",
    "home",
    "is_fresh",
    "job_environment",
    "lease",
    "load",
    "log_bytes",
    "remote_name",
    "submitters_environment",
    "walltime_notice",
]

#: Environment variables that reach the job (patterns as in the shell).
DEFAULT_FORWARD = (
    "PATH",
    "LD_LIBRARY_PATH",
    "OMP_*",
    "QUACC_*",
    "VASP_*",
    "ASE_*",
    "ESPRESSO_*",
)
#: A server without jobs and clients ends after this time, in seconds.
QUIET_S = 900.0
#: The largest size of a job's log, in MB.
LOG_MB = 64.0
#: The variable with that size for the worker; like that of the recipes it is never the submitter's.
LOG_VARIABLE = "CRYSTALMATH_LOG_MB"
#: The variable with the time of a program's notice before the end of its walltime, for supervisors.
NOTICE_VARIABLE = "CRYSTALMATH_WALLTIME_NOTICE_S"
#: The time that a job's processes have to end after SIGTERM, in seconds.
GRACE_S = 1.0
#: The variable with that time for a job's supervisor.
GRACE_VARIABLE = "CRYSTALMATH_CANCEL_GRACE_S"
#: An owner or worker on another host without a heartbeat for this time is dead, in seconds.
LEASE_S = 1200.0
#: The shortest lease whose half is still noticed in time, in seconds.
SHORTEST_LEASE_S = 2.0
#: The variable with the lease for the worker.
LEASE_VARIABLE = "CRYSTALMATH_LEASE_S"
#: The variable with `recipes_fresh` for the worker.
FRESH_VARIABLE = "CRYSTALMATH_FRESH"
#: The variable that names the remote of all commands and clients, as ``crystalmath --on`` does.
REMOTE_VARIABLE = "CRYSTALMATH_ON"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: The hint for the most frequent error in TOML.
UNQUOTED = 'in TOML, text stands in quotes: name = "text"'

_ANY = "*"
_WORDS: dict[Any, str] = {
    str: "a str",
    list: "a list",
    bool: "true or false",
    (str, list): "a str or a list",
}
#: The keys of the file: each has a type and its meaning, or the keys of its table. ``None``: tables
#: of the engines and clusters, which declare their keys. docs/reference_pages.py makes a page of
#: it.
SETTINGS: dict[str, Any] = {
    "engine": (
        str,
        "engine of submissions that name none; default: quacc's own setting, else local",
    ),
    "database_url": (str, "SQLAlchemy URL of the job database; default: jobs.sqlite in the home"),
    "strict": (bool, "turn warnings into refusals, as --strict does; default: false"),
    "storage": {
        "database": (str, "in place of database_url, a file for SQLite: /data/me/jobs.sqlite"),
        "runs": (str, "run directories go to a folder below this absolute path; default: the home"),
        "network": (bool, "other hosts write to the home's file system; default: by its kind"),
        "pack_after": (str, 'the server packs jobs that ended so long ago, "7d"; default: none'),
    },
    "recipes": {
        "allow": (list, "packages or modules of recipes, in addition to CRYSTALMATH_RECIPES"),
        "fresh": (list, 'recipes, or modules of them, whose jobs each get a process; "*": all'),
    },
    "environment": {
        "forward": (
            list,
            f"patterns of a submitter's variables for jobs; default: {', '.join(DEFAULT_FORWARD)}",
        ),
        "set": {_ANY: (str, "value of this variable in jobs whose submitter has not set it")},
    },
    "server": {
        "quiet_s": (
            float,
            f"it ends so long after its last job and client (s); inf: never; default: {QUIET_S:g}",
        ),
        "warm": (bool, "keep a worker that has imported quacc, engine local; default: false"),
    },
    "logs": {
        "max_mb": (
            float,
            f"size of a job's output (MB); a longer one loses its middle; default: {LOG_MB:g}",
        )
    },
    "defaults": {
        "walltime": (
            str,
            'walltime of jobs without one, "12:00:00" or "2h"; not with --parcel; default: none',
        )
    },
    "walltime": {
        "notice_s": (
            float,
            "VASP and pw.x are asked to stop so long before their time ends (s); default: 0, never",
        )
    },
    "cancel": {
        "grace_s": (
            float,
            f"a cancelled job that goes on is killed after this time (s); default: {GRACE_S:g}",
        )
    },
    "jobs": {
        "lease_s": (
            float,
            f"a job elsewhere is lost so long after its last heartbeat (s); default: {LEASE_S:g}",
        ),
        "continue_lost": (bool, "lost relaxations go on from their last geometry; default: false"),
    },
    "flows": {
        "on_cluster": (list, 'flows whose bodies run on their cluster: *.phonon_flow; "*": all'),
    },
    "restricted": {
        _ANY: (list, "the only parameters of this recipe; the home takes no recipes but these"),
    },
    "engines": None,
    "clusters": None,
    "remotes": {
        _ANY: {
            "ssh": ((str, list), "the host, or ssh's arguments that end with it"),
            "command": (str, "crystalmath as a shell there calls it; default: crystalmath"),
            "home": (str, "the home there; default: the default there"),
        }
    },
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """The configuration of one home.

    Parameters
    ----------
    home : pathlib.Path
        Absolute; everything the program writes lives below it.
    engine : str, optional
        The engine of submissions that name none, if the user configured one.
    database_url : str
        SQLAlchemy URL of the job database.
    network : bool, optional
        Whether several hosts write to the file system of the home at once; default: by its kind.
    recipes_allow : tuple of str
        Namespaces of recipes admitted beside ``quacc.recipes``.
    recipes_fresh : tuple of str
        Namespaces of recipes whose jobs have a process each; ``*`` is all.
    forward : tuple of str
        Patterns of the environment variables that reach a job.
    variables : mapping of str to str
        The values of variables that the submitter of a job has not set.
    strict : bool
        Every warning refuses a job.
    quiet_s : float
        The time after which a server without jobs and clients ends, in seconds.
    warm : bool
        Whether a server has a worker import quacc at its start, and keeps it.
    log_mb : float
        The largest size of a job's log, in MB; the middle of a longer one is left out.
    walltime_s : float, optional
        The walltime of jobs without one, in seconds (``[defaults] walltime``).
    walltime_notice_s : float
        The notice that a program gets before its walltime ends, in seconds; 0: none.
    cancel_grace_s : float
        The time that the processes of a stopped job have to end before they are killed, in
        seconds.
    lease_s : float
        The time without a heartbeat after which an owner or worker on another host counts as dead,
        in seconds; ``inf``: never.
    continue_lost : bool
        Whether a lost relaxation goes on from its last geometry, unless its cluster or its
        submission says otherwise.
    flows_on_cluster : tuple of str
        Names and patterns of flows whose bodies run on their cluster, not beside their owner.
    restricted : mapping of str to tuple of str, optional
        The only recipes that the home takes, with their only parameters; ``None`` if not limited.
    engines : mapping of str to mapping
        The tables ``[engines.<name>]``.
    clusters : mapping of str to Cluster
        The tables ``[clusters.<name>]``.
    remotes : mapping of str to mapping
        The tables ``[remotes.<name>]``: homes on other machines.
    """

    home: Path
    engine: str | None = None
    database_url: str = field(repr=False)
    network: bool | None = None
    pack_after_s: float | None = None
    recipes_allow: tuple[str, ...] = ()
    recipes_fresh: tuple[str, ...] = ()
    forward: tuple[str, ...] = DEFAULT_FORWARD
    variables: Mapping[str, str] = field(default_factory=dict)
    strict: bool = False
    quiet_s: float = QUIET_S
    warm: bool = False
    log_mb: float = LOG_MB
    walltime_s: float | None = None
    walltime_notice_s: float = 0.0
    cancel_grace_s: float = GRACE_S
    lease_s: float = LEASE_S
    continue_lost: bool = False
    flows_on_cluster: tuple[str, ...] = ()
    restricted: Mapping[str, tuple[str, ...]] | None = None
    engines: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    clusters: Mapping[str, Cluster] = field(default_factory=dict)
    remotes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def clusters_of(self, engine: str) -> Mapping[str, Cluster]:
        """Return the clusters of one engine."""
        return {name: one for name, one in self.clusters.items() if one.engine == engine}

    @property
    def is_on_network(self) -> bool:
        """Whether other hosts may write to the home's file system."""
        return is_network(file_system(self.home)) if self.network is None else self.network

    @functools.cached_property
    def jobs_directory(self) -> Path:
        """The folder of the run directories, one for each job."""
        return self.home / "jobs"


def home(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of everything that the program writes.

    Returns
    -------
    pathlib.Path
        ``CRYSTALMATH_HOME``, else the platform's user data directory; absolute.

    Raises
    ------
    PlaceError
        The folder belongs to another user, or others can write to it.
    """
    named = environ.get("CRYSTALMATH_HOME")
    if named:
        path = Path(named).expanduser().absolute()
    else:
        import platformdirs

        path = platformdirs.user_data_path("crystalmath").absolute()
    require_own_home(path)
    return path


def remote_name() -> str | None:
    """Return the remote that ``CRYSTALMATH_ON`` names; ``None``: commands are for the home here."""
    return os.environ.get(REMOTE_VARIABLE) or None


def load(environ: Mapping[str, str] = os.environ) -> Config:
    """Read the configuration: environment variables go before ``config.toml`` in the home.

    Raises
    ------
    ConfigError
        The file is no TOML, or has an unknown key or value.
    PlaceError
        The home (see :func:`home`), or the place of its data, must not be trusted.
    """
    root = home(environ)
    table = _read(root / "config.toml")
    storage = table.get("storage", {})
    place_runs(root, storage.get("runs"))
    url = _absolute(_database(table, root, environ))
    require_own_database(url, root)
    allow = [*admitted(environ), *table.get("recipes", {}).get("allow", [])]
    return Config(
        home=root,
        engine=environ.get("CRYSTALMATH_ENGINE") or table.get("engine"),
        database_url=url_of_home(url, root),
        network=storage.get("network"),
        pack_after_s=_pack_after(storage, root / "config.toml"),
        recipes_allow=tuple(dict.fromkeys(allow)),
        recipes_fresh=tuple(table.get("recipes", {}).get("fresh", [])),
        forward=tuple(table.get("environment", {}).get("forward", DEFAULT_FORWARD)),
        variables=_variables(table.get("environment", {}).get("set", {}), root / "config.toml"),
        strict=table.get("strict", False),
        quiet_s=float(table.get("server", {}).get("quiet_s", QUIET_S)),
        warm=table.get("server", {}).get("warm", False),
        log_mb=float(table.get("logs", {}).get("max_mb", LOG_MB)),
        walltime_s=_walltime(table.get("defaults", {}), root / "config.toml"),
        walltime_notice_s=float(table.get("walltime", {}).get("notice_s", 0.0)),
        cancel_grace_s=float(table.get("cancel", {}).get("grace_s", GRACE_S)),
        lease_s=_lease(table.get("jobs", {}), root / "config.toml"),
        continue_lost=table.get("jobs", {}).get("continue_lost", False),
        flows_on_cluster=tuple(table.get("flows", {}).get("on_cluster", ())),
        restricted=(
            {name: tuple(names) for name, names in table["restricted"].items()}
            if "restricted" in table
            else None
        ),
        engines=table.get("engines", {}),
        clusters=_clusters(table.get("clusters", {}), root / "config.toml"),
        remotes=table.get("remotes", {}),
    )


def _database(table: Mapping[str, Any], root: Path, environ: Mapping[str, str]) -> str:
    named, url = table.get("storage", {}).get("database"), table.get("database_url")
    if named is not None and url is not None:
        raise ConfigError(
            f"{root / 'config.toml'} has both database_url and storage.database; keep one"
        )
    sqlite = f"sqlite:///{named or root / 'jobs.sqlite'}"
    return environ.get("CRYSTALMATH_DATABASE_URL") or url or sqlite


def _clusters(tables: Mapping[str, Any], path: Path) -> dict[str, Cluster]:
    if not tables:
        return {}  # most homes have none, and the record is not imported
    from crystalmath.models.cluster import read_cluster

    try:
        return {name: read_cluster(name, table) for name, table in tables.items()}
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _walltime(table: Mapping[str, str], path: Path) -> float | None:
    wanted = 'a time above zero with its unit, as "12:00:00" or "2h"'
    return _timespan(table.get("walltime"), f"{path}: defaults.walltime must be {wanted}")


def _pack_after(table: Mapping[str, Any], path: Path) -> float | None:
    wanted = 'a time above zero with its unit, as "7d"'
    return _timespan(table.get("pack_after"), f"{path}: storage.pack_after must be {wanted}")


def _timespan(text: str | None, otherwise: str) -> float | None:
    if text is None:
        return None
    from crystalmath.models.written import read_timespan

    if not (seconds := read_timespan(text)):
        raise ConfigError(f"{otherwise}, not {text!r}")
    return seconds


def _lease(table: Mapping[str, float], path: Path) -> float:
    lease_s = float(table.get("lease_s", LEASE_S))
    if lease_s < SHORTEST_LEASE_S:
        raise ConfigError(
            f"{path}: jobs.lease_s must be at least {SHORTEST_LEASE_S:g} s, not {lease_s:g}; "
            f"{LEASE_S:g} allows for a file system that hangs for minutes"
        )
    return lease_s


def _variables(table: Mapping[str, str], path: Path) -> Mapping[str, str]:
    for name, value in table.items():
        place = f"{path}: environment.set.{name}"
        if not _NAME.fullmatch(name) or "\0" in value:
            raise ConfigError(f"{place} cannot be an environment variable")
        if name.startswith("CRYSTALMATH_"):
            raise ConfigError(f"{place} cannot be set for jobs; the file has settings of its own")
    return table


def is_fresh(recipe: str, environment: Mapping[str, str]) -> bool:
    """Return whether each job of a recipe has a process of its own, by the job's environment."""
    names = environment.get(FRESH_VARIABLE, "").split(",")
    return any(name == "*" or f"{recipe}.".startswith(f"{name}.") for name in names if name)


def log_bytes(environment: Mapping[str, str]) -> float:
    """Return the largest size of the log of a job with this environment, in bytes."""
    # Leave room for the line about the omitted part.
    return max(float(environment.get(LOG_VARIABLE, LOG_MB)) * 1e6, 1000.0)


def walltime_notice(environment: Mapping[str, str]) -> float:
    """Return the notice of a program before the end of its walltime, in seconds."""
    return float(environment.get(NOTICE_VARIABLE, 0))


def cancel_grace(environment: Mapping[str, str]) -> float:
    """Return the time that the processes of a stopped job have to end, in seconds."""
    return float(environment.get(GRACE_VARIABLE, GRACE_S))


def lease(environment: Mapping[str, str]) -> float:
    """Return the lease of the worker of a job with this environment, in seconds."""
    return float(environment.get(LEASE_VARIABLE, LEASE_S))


def admitted(environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Return the namespaces of recipes that the environment admits beside ``quacc.recipes``."""
    recipes = environ.get("CRYSTALMATH_RECIPES", "")
    return tuple(name.strip() for name in recipes.split(",") if name.strip())


class Source:
    """The configuration of this process's home, read again when its file has changed.

    `environ` counts as it is now.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._environ = dict(environ)
        self._file = home(self._environ) / "config.toml"
        self._lock = threading.Lock()
        self._seen = _signature(self._file)
        #: The last readable configuration.
        self.last = load(self._environ)

    def current(self) -> Config:
        """Return the present configuration.

        `ConfigError`: the file cannot be used now; `last` stays.
        """
        if _signature(self._file) != self._seen:
            with self._lock:
                # Taken before the file is read: a later change is read the next time.
                signature = _signature(self._file)
                if signature != self._seen:
                    self.last = load(self._environ)
                    self._seen = signature
        return self.last


def add_table(text: str, kind: str, name: str) -> Path:
    """Add a table, such as ``[clusters.slurm]``, to ``config.toml``, and return its path.

    `ConfigError`: it is there already, or the file cannot be read; nothing was written.
    """
    configured = load()
    path = configured.home / "config.toml"
    if name in getattr(configured, kind):
        raise ConfigError(f"[{kind}.{name}] stands in {path} already; edit it there")
    make_own(configured.home)
    path.touch(mode=0o600)  # a file that others can write to would be refused
    before = path.read_text(encoding="utf-8")
    begin = "\n" if before and not before.endswith("\n") else ""
    with path.open("a", encoding="utf-8") as file:
        file.write(begin + text)
    return path


def _absolute(url: str) -> str:
    """Make the file of a URL absolute, as a server leaves the folder in which it was started."""
    scheme, mark, path = url.partition(":///")
    if not scheme.startswith("sqlite") or not path or path.startswith(("/", ":memory:", "file:")):
        return url
    try:
        file = Path(path).expanduser().absolute()
    except RuntimeError as error:
        raise ConfigError(f"the database's path {path!r} cannot be used: {error}") from error
    return f"{scheme}{mark}{file}"


def _signature(file: Path) -> tuple[int, ...] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


def submitters_environment(
    configured: Config, environ: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """Return the part of a submitter's environment that a submission takes along."""
    return forwarded(configured.forward, environ) if configured.restricted is None else {}


def forwarded(patterns: tuple[str, ...], environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment variables that reach a job."""
    matches = _matcher(patterns)
    # `os.environ` decodes a value at each access.
    return {name: environ[name] for name in environ if matches(name)}


def job_environment(configured: Config, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables of a job; forwarded ones go before those that the file sets."""
    return {**configured.variables, **forwarded(configured.forward, environ)}


@functools.cache
def _matcher(patterns: tuple[str, ...]) -> Callable[[str], object]:
    # One expression for all patterns: each submission applies it to the whole environment.
    return re.compile("|".join(map(fnmatch.translate, patterns)) or "(?!)").match


# --- the file -------------------------------------------------------------------------------------


def _read(path: Path) -> dict[str, Any]:
    """Read the file; return an empty table if it does not exist."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f"cannot read the configuration file {path}: {error}") from error
    import tomllib  # most homes have no such file

    try:
        table = tomllib.loads(text.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        hint = f"; {UNQUOTED}" if isinstance(error, tomllib.TOMLDecodeError) else ""
        raise ConfigError(f"cannot read the configuration file {path}: {error}{hint}") from error
    _check(table, SETTINGS, path, "")
    return table


def _check(table: Mapping[str, Any], shape: Mapping[str, Any], path: Path, prefix: str) -> None:
    for key, value in table.items():
        place = f"{path}: {prefix}{key}"
        if key not in shape and _ANY not in shape:
            hint = did_you_mean(key, sorted(shape))
            raise ConfigError(f"{place} is not a known setting; {hint}")
        wanted = shape.get(key, shape.get(_ANY))
        if wanted is None or isinstance(wanted, Mapping):
            _check_table(value, wanted, path, f"{prefix}{key}")
        else:
            _check_value(value, wanted[0], place)


def _check_table(value: object, shape: Mapping[str, Any] | None, path: Path, name: str) -> None:
    place = f"{path}: {name}"
    if not isinstance(value, Mapping):
        raise ConfigError(f"{place} must be a table, not {value!r}")
    if shape is not None:
        _check(value, shape, path, f"{name}.")
    elif not all(isinstance(item, Mapping) for item in value.values()):
        raise ConfigError(f"{place} must hold one table for each {name.removesuffix('s')}")


def _check_value(value: object, wanted: Any, place: str) -> None:
    if wanted is float:
        # ``inf`` is allowed: for ever.
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not value >= 0:
            raise ConfigError(f"{place} must be a number from 0, not {value!r}")
        try:
            float(value)
        except OverflowError:
            raise ConfigError(f"{place} is too large; inf means for ever") from None
    elif not isinstance(value, wanted):
        raise ConfigError(f"{place} must be {_WORDS[wanted]}, not {value!r}")
    elif isinstance(value, list) and not all(isinstance(item, str) for item in value):
        raise ConfigError(f"{place} must be a list of strings, not {value!r}")
