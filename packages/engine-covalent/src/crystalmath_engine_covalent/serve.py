"""Run the Covalent server of one home, until no process uses it.

Started as ``python -m crystalmath_engine_covalent.serve DIRECTORY WORKERS`` by
:class:`~crystalmath_engine_covalent.private.PrivateServer`. It returns once the server's process
is there and recorded; that process is nobody's child.
"""

from __future__ import annotations

import json
import os
import runpy
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from crystalmath import processes
from crystalmath_engine_covalent.private import MARK, Record, alone

#: How long the server stays unused, in seconds: a killed process may come back.
IDLE_S = 20.0
#: How often it looks, in seconds.
LOOK_S = 2.0


def main() -> None:
    """Start the process of the server, and return."""
    directory, workers = Path(sys.argv[1]), int(sys.argv[2])
    port = _free_port()
    ready, written = os.pipe()
    pid = os.fork()
    if pid:
        started = processes.start_time(pid) or 0
        Record(pid=pid, start_time=started, port=port, mark=os.environ[MARK]).write(directory)
        os.write(written, b"1")
        os._exit(0)
    os.setsid()
    os.read(ready, 1)
    os.close(ready)
    os.close(written)
    _configure(directory, port, workers)
    threading.Thread(target=_follow, args=[directory], daemon=True).start()
    _serve(port)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port: int = probe.getsockname()[1]
        return port


def _configure(directory: Path, port: int, workers: int) -> None:
    """Write Covalent's configuration, so that it uses no files of the user."""
    for name in [name for name in os.environ if name.startswith("COVALENT_")]:
        del os.environ[name]
    os.environ["COVALENT_CONFIG_DIR"] = str(directory)
    cache, data = str(directory / "cache"), str(directory / "data")
    task_files: dict[str, str | int] = {"cache_dir": cache, "workdir": str(directory / "workdir")}
    tables: dict[str, dict[str, str | int]] = {
        "sdk": {
            "log_dir": cache,
            "executor_dir": str(directory / "executor_plugins"),
            "dispatch_cache_dir": cache,
            "results_dir": data,
            "no_cluster": "false",
        },
        "dispatcher": {
            "address": "localhost",
            "port": port,
            "cache_dir": cache,
            "results_dir": data,
            "log_dir": cache,
            "db_path": str(directory / "dispatches.sqlite"),
            "heartbeat_file": str(directory / "heartbeat"),
        },
        "dask": {
            "cache_dir": cache,
            "log_dir": cache,
            "num_workers": workers,
            "threads_per_worker": 1,
        },
        "workflow_data": {"base_dir": data},
        "user_interface": {"address": "localhost", "port": port, "log_dir": cache},
        "executors.dask": task_files,
        "executors.local": task_files,
    }
    lines = []
    for name, table in tables.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
    (directory / "covalent.conf").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for path in (cache, data):
        Path(path).mkdir(exist_ok=True)
    # Not by TMPDIR, which would reach the jobs.
    temporary = directory / "tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    tempfile.tempdir = str(temporary)


def _serve(port: int) -> None:
    # As `covalent start` does it; but that goes through a shell, which a blank in a path breaks.
    from covalent_dispatcher._db.datastore import DataStore

    DataStore.factory().run_migrations(logging_enabled=False)
    _keep_dask()
    spec = find_spec("covalent_ui")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("covalent_ui")
    home = spec.submodule_search_locations[0]
    os.chdir(home)
    sys.path.insert(0, home)  # it hands uvicorn the name of its own module
    # Absolute, because Dask's workers run it as their main module, too, from elsewhere.
    program = f"{home}/app.py"
    sys.argv = [program, "--port", str(port), "--no-triggers"]
    runpy.run_path(program, run_name="__main__")


def _keep_dask() -> None:
    """Keep Covalent's Dask process from returning from its work.

    Up to Python 3.12 it waits for its children then; from 3.13 on it shuts down its thread pools
    at once, and every task fails: "cannot schedule new futures after interpreter shutdown".
    """
    from covalent_dispatcher._service import app_dask

    run = app_dask.DaskCluster.run

    def run_and_stay(cluster: Any) -> None:
        run(cluster)
        threading.Event().wait()

    app_dask.DaskCluster.run = run_and_stay


def _follow(directory: Path) -> None:
    used = time.monotonic()
    while True:
        time.sleep(LOOK_S)
        with alone(directory) as unused:
            if not unused:
                used = time.monotonic()
            elif time.monotonic() - used > IDLE_S:
                # Jobs live on: their supervisors are in sessions of their own.
                os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
