"""Dask alone: a LocalCluster of two workers."""

import os

import work
from contestant import run
from distributed import Client, LocalCluster


def compute(task: str, count: int, folder: str) -> None:
    """Submit all functions, and wait for them."""
    if task == "slabs":  # its jobs are delayed; `work.static` wants functions
        os.environ["QUACC_WORKFLOW_ENGINE"] = "dask"
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, local_directory=folder) as cluster,
        Client(cluster) as client,
    ):
        if task == "slabs":
            from quacc.recipes.emt.slabs import bulk_to_slabs_flow

            flows = [bulk_to_slabs_flow(work.crystal(number)) for number in range(count)]
            client.gather(client.compute(flows))
            return
        atoms = [work.structure(number) for number in range(count)]
        client.gather(client.map(getattr(work, task), atoms, folder=folder, pure=False))


def cancel(folder: str, running: work.Running) -> None:
    """Cancel the future."""
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, local_directory=folder) as cluster,
        Client(cluster) as client,
    ):
        future = client.submit(work.hold, work.structure(0), folder, pure=False)
        with running:
            future.cancel(force=True)


if __name__ == "__main__":
    run(compute, cancel)
