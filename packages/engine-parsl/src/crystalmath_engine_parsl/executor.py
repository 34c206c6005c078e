"""Set up Parsl on the cluster ``local``, which is this machine."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

from parsl.executors import HighThroughputExecutor
from parsl.executors.base import ParslExecutor
from parsl.executors.high_throughput.executor import DEFAULT_LAUNCH_CMD
from parsl.providers import LocalProvider

from crystalmath_engine_parsl.tether import tethered

#: The executor's label.
EXECUTOR = "local"


class _WithoutWorkingDirectory(ParslExecutor):  # type: ignore[misc]  # Parsl is untyped
    """A base of Parsl's executors that does not read the working directory, which may be gone.

    Parsl would use it as the executor's folder until another is set.
    """

    def __init__(self, **others: Any) -> None:
        super().__init__(run_dir="/", **others)


def without_working_directory(executor: type[Any]) -> type[Any]:
    """Return a class of executors that does not read the working directory of the process."""
    return type(executor.__name__, (executor, _WithoutWorkingDirectory), {})


#: Parsl's executor for this machine.
LocalExecutor = without_working_directory(HighThroughputExecutor)


def escaped(command: str) -> str:
    """Escape a command against Parsl's own formatting."""
    # Parsl formats its launch command twice.
    return command.replace("{", "{{{{").replace("}", "}}}}")


def tethered_interchange(temporary: str, mark: str = "") -> list[str]:
    """Return the command of an interchange that ends with its owner."""
    export = f"export {mark}; " if mark else ""
    return [
        # Ctrl-C must not end it before its owner closes it, not even while it starts. With
        # SPT_NOENV the title of its process does not overwrite its environment.
        *("/bin/sh", "-c", f'trap "" INT; {export}export SPT_NOENV=1; exec "$@"', "sh"),
        *tethered(temporary),
        str(Path(sys.executable).parent / "interchange.py"),
    ]


def local_executor(count: int, temporary: str, mark: str = "") -> HighThroughputExecutor:
    """Make a HighThroughputExecutor with `count` workers on this machine.

    `temporary` is a folder for sockets; its path must be short. `mark` is a shell assignment that
    all of its processes carry in their environment.
    """
    scripts = Path(sys.executable).parent
    export = f"export {mark}; " if mark else ""
    # Parsl starts its scripts by name, which fails if the environment is not activated.
    pool = shlex.join([*tethered(temporary), str(scripts / "process_worker_pool.py")])
    return LocalExecutor(
        label=EXECUTOR,
        address="127.0.0.1",
        max_workers_per_node=count,
        cores_per_worker=1e-6,  # the number of workers alone decides
        # How soon a dead worker and a dead manager are noticed, in seconds. A false alarm does no
        # harm: an attempt that goes on has been claimed, and is not started again.
        heartbeat_period=2,
        heartbeat_threshold=8,
        # How often idle loops turn, in milliseconds; messages are taken at once. Ten, the default,
        # costs an idle server 0.7 % of a core.
        poll_period=100,
        interchange_launch_cmd=tethered_interchange(temporary, mark),
        launch_cmd=DEFAULT_LAUNCH_CMD.replace("process_worker_pool.py", escaped(pool), 1),
        provider=LocalProvider(init_blocks=1, min_blocks=1, max_blocks=1, worker_init=export),
    )
