"""``crystalmath clusters``: which clusters are configured, and an example of one."""

from __future__ import annotations

from typing import Annotated

import typer

from crystalmath.cli.shared import output
from crystalmath.cli.shared.job_filters import any_client
from crystalmath.cli.shared.submission_options import Json  # noqa: TC001 - Typer reads annotations
from crystalmath.errors import ConfigError

__all__ = ["clusters"]

_EXAMPLES = {
    "slurm": """
[clusters.slurm]                 # --cluster slurm
engine = "parsl"                 # pilot jobs that run many of yours, one after another
scheduler = "slurm"
walltime = "04:00:00"            # of a pilot job
# queue = "main"                 # the partition; default: Slurm's own
# account = "my-project"
# nodes = 1                      # of a pilot job
# workers_per_node = 8           # jobs at a time on a node; default: its cores
# max_blocks = 2                 # pilot jobs at a time
# cores_per_node = 64            # asked for on each node; default: whole nodes (exclusive)
# memory_mb = 128000             # on each node
# options = { constraint = "skylake" }         # more options of sbatch, without dashes
# worker_init = "module load vasp"             # on each node, before anything else
"""
}


def clusters(
    *,
    action: Annotated[
        str | None,
        typer.Argument(
            metavar="[init]", help="init writes a commented example.", show_default=False
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Argument(metavar="[slurm]", help="What the example is for."),
    ] = None,
    as_json: Json = False,
) -> int:
    """List the clusters of the configuration file, or write an example of one."""
    if action is None:
        return _list(as_json=as_json)
    if action != "init":
        raise typer.BadParameter(f"{action!r} is not known; it is: init")
    if name not in _EXAMPLES:
        known = ", ".join(_EXAMPLES)
        raise typer.BadParameter(f"there is no example for {name!r}, but for: {known}")
    return _init(name, as_json=as_json)


def _list(*, as_json: bool) -> int:
    with any_client() as client:
        found = client.clusters()
    if as_json:
        output.write_json({"clusters": found})
        return 0
    if not found:
        output.note("none is configured; `crystalmath clusters init slurm` writes an example")
        return 0
    rows = [
        (
            each["name"],
            each["engine"],
            each["scheduler"],
            str(each["resources"].get("queue", "")),
            "cannot be used" if each["error"] else "ready",
        )
        for each in found
    ]
    output.table(("CLUSTER", "ENGINE", "SCHEDULER", "QUEUE", ""), rows)
    for each in found:
        if each["error"]:
            output.note(output.printable(f"{each['name']}: {each['error']}"))
    return 0


def _init(name: str, *, as_json: bool) -> int:
    from crystalmath import config

    configured = config.load()  # a file that cannot be read is not written to
    if name in configured.clusters:
        raise ConfigError(f"[clusters.{name}] stands in {configured.home / 'config.toml'} already")
    configured.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = configured.home / "config.toml"
    with path.open("a", encoding="utf-8") as file:
        file.write(_EXAMPLES[name])
    if as_json:
        output.write_json({"path": str(path), "cluster": name})
    else:
        output.write(output.printable(f"wrote [clusters.{name}] to {path}; look it through"))
    return 0
