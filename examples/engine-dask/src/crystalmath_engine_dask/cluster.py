"""The functions that run in the agent: Dask lives in its process, and not in the user's."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import dask
from distributed import Client, Future, LocalCluster, Security, default_client

from crystalmath import worker
from crystalmath.models import Sighting

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_futures: dict[str, Future] = {}  # Dask drops a task whose future nobody holds


def start(workers: int, directory: str) -> None:
    """Start the cluster, and a client that stays the default one."""
    # Dask tidies up there itself: what a cluster that was killed has left goes with the next one.
    dask.config.set({"temporary-directory": directory})
    # Dask's pages would show our jobs to whoever may log in here.
    dask.config.set({f"distributed.{each}.http.routes": [] for each in ("scheduler", "worker")})
    # Without a key they could have Dask run what they like, as us.
    security = _make_key()
    # Dask gives each task to a process at once, by estimates, and may leave another process idle.
    # Threads of one process share a queue: the first that is free takes the next task.
    cluster = LocalCluster(
        n_workers=1,
        threads_per_worker=workers,
        memory_limit=None,  # jobs run in processes that Dask does not know
        dashboard_address=None,
        security=security,
    )
    Client(cluster, security=security)


def _make_key() -> Security:
    """Make a key and its certificate, in a file in memory that ends with this process.

    Each process of Dask writes those of `Security.temporary` to ``TMPDIR`` for a moment, and leaves
    them there if it is killed meanwhile.
    """
    security = Security.temporary()
    file = os.memfd_create("key")
    os.write(file, f"{security.tls_client_cert}{security.tls_client_key}".encode("ascii"))
    path = f"/proc/{os.getpid()}/fd/{file}"
    names = ("tls_ca_file", "tls_client_cert", "tls_scheduler_cert", "tls_worker_cert")
    return Security(require_encryption=True, **dict.fromkeys(names, path))


def submit(directories: Mapping[str, str]) -> None:
    """Submit one task for each attempt, with the attempt's id for its key."""
    client, keys = default_client(), list(directories)
    release(keys)  # else Dask answers a second launch with the first one's future
    futures = client.map(worker.run, directories.values(), key=keys, pure=False, retries=0)
    _futures.update(zip(keys, futures, strict=True))
    client.nthreads()  # `map` alone waits for no answer


def look(keys: Sequence[str]) -> dict[str, Sighting]:
    """Ask the scheduler, which finds tasks by their keys."""
    # Tasks that were just submitted may still be on their way to the scheduler.
    sent = {key for key, future in _futures.items() if future.status == "pending"}

    def see(dask_scheduler: Any) -> dict[str, Sighting]:
        seen = {key: Sighting("queued" if key in sent else "gone") for key in keys}
        for task in filter(None, map(dask_scheduler.tasks.get, keys)):
            if task.state in {"memory", "erred", "forgotten"}:
                seen[task.key] = Sighting("gone", task.exception_text or None)
            else:
                runs = task.processing_on and task in task.processing_on.executing
                seen[task.key] = Sighting("running" if runs else "queued")
        return seen

    return dict(default_client().run_on_scheduler(see))


def release(keys: Sequence[str]) -> None:
    """Have the scheduler drop the tasks, queued or ended."""
    over = {key for key, future in _futures.items() if future.status == "finished"}
    for key in _futures.keys() & over.union(keys):
        _futures.pop(key).release()


def close() -> None:
    """Close the cluster, so that Dask removes its files."""
    default_client().shutdown()
