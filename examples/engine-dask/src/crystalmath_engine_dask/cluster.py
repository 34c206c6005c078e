"""A process that holds a Dask cluster, and ends with the process that started it.

Dask itself would start its workers from the user's process. They import that process's main module:
a script without ``if __name__ == "__main__"`` would submit its jobs again, in each worker.
"""

from __future__ import annotations

import os
import pickle
import select
import socket
import sys

import dask
from distributed import LocalCluster, Security

if __name__ == "__main__":
    owner, workers, directory = os.getppid(), int(sys.argv[1]), sys.argv[2]
    line = socket.socket(fileno=sys.stdin.fileno())
    # Dask tidies up there itself: what a cluster that was killed has left goes with the next one.
    # Unless told that jobs are long, Dask queues one behind another while a worker is idle.
    long_jobs = {"distributed.scheduler.unknown-task-duration": "1h"}
    dask.config.set({"temporary-directory": directory, **long_jobs})
    # Else whoever may log in here could have Dask run what they like, as us.
    security = Security.temporary()
    with LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        memory_limit=None,  # jobs run in processes that Dask does not know
        dashboard_address=None,
        security=security,
    ) as cluster:
        line.sendall(pickle.dumps((cluster.scheduler_address, security)))
        # A child that the owner forked may keep the line open: look at the parent, too.
        while os.getppid() == owner and not select.select([line], [], [], 0.5)[0]:
            pass
