"""Parsl alone: its HighThroughputExecutor with two workers."""

import os

import parsl
import work
from contestant import run, wait
from parsl import Config, HighThroughputExecutor, python_app
from parsl.dataflow.dependency_resolvers import DEEP_DEPENDENCY_RESOLVER


def loaded(folder: str) -> parsl.DataFlowKernel:
    """Load the configuration of its user guide for one machine."""
    executor = HighThroughputExecutor(max_workers_per_node=2, cores_per_worker=1)
    # A flow of quacc's returns lists of futures.
    config = Config(
        [executor], run_dir=f"{folder}/runinfo", dependency_resolver=DEEP_DEPENDENCY_RESOLVER
    )
    return parsl.load(config)


def compute(task: str, count: int, folder: str) -> None:
    """Submit all apps, and wait for them."""
    if task == "slabs":  # its jobs are apps; `work.static` wants functions
        os.environ["QUACC_WORKFLOW_ENGINE"] = "parsl"
    with loaded(folder):
        if task == "slabs":
            from quacc.recipes.emt.slabs import bulk_to_slabs_flow

            flows = [bulk_to_slabs_flow(work.crystal(number)) for number in range(count)]
            wait(flows)
            return
        app = python_app(getattr(work, task))
        wait([app(work.structure(number), folder) for number in range(count)])


def cancel(folder: str, running: work.Running) -> None:
    """Cancel the future, which Parsl does not do."""
    with loaded(folder):
        future = python_app(work.hold)(work.structure(0), folder)
        with running:
            future.cancel()


if __name__ == "__main__":
    run(compute, cancel)
