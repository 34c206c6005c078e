"""The commands that tell what there is, and what would run: engines, recipes, check."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from crystalmath.cli import output
from crystalmath.cli.submission import (
    Cluster,
    Engine,
    Json,
    Labels,
    Name,
    Params,
    ParamsFile,
    Recipe,
    Structure,
    Walltime,
    make_submission,
)

if TYPE_CHECKING:
    from crystalmath.quacc.engines import EngineInfo

__all__ = ["check", "engines", "recipes"]


def check(
    recipe: Recipe,
    structure: Structure,
    engine: Engine = None,
    cluster: Cluster = "local",
    param: Params = None,
    params: ParamsFile = None,
    walltime: Walltime = None,
    name: Name = None,
    label: Labels = None,
    *,
    as_json: Json = False,
) -> int:
    """Tell whether a job would be accepted, and everything that is wrong with it at once.

    Nothing is recorded or started. Exits 1 where the job would be refused.
    """
    submission = make_submission(
        recipe,
        structure,
        engine=engine,
        cluster=cluster,
        param=param,
        params=params,
        walltime=walltime,
        name=name,
        label=label,
    )
    from crystalmath.service import JobService

    with JobService() as service:
        found = service.check(submission)
    errors = [str(finding) for finding in found if finding.severity == "error"]
    if as_json:
        document = {"status": "error" if errors else "ok", "error": "\n".join(errors) or None}
        output.write_json(document | {"findings": output.findings(found)})
        return 1 if errors else 0
    for finding in found:
        output.write(output.printable(f"{finding.severity}: {finding}"))
    if not errors:
        output.write("this job would be accepted")
    return 1 if errors else 0


def engines(*, as_json: Json = False) -> int:
    """List the installed workflow engines, and why one cannot serve."""
    import attrs

    from crystalmath.quacc.engines import describe_engines

    infos = describe_engines()
    if as_json:
        output.write_json({"engines": [attrs.asdict(info) for info in infos]})
        return 0
    rows = [(info.name, info.distribution, info.version, _word(info)) for info in infos]
    output.table(("ENGINE", "PACKAGE", "VERSION", ""), rows)
    for info in infos:
        reasons = [info.error] if info.error else []
        for reason in [*reasons, *map(str, info.findings)]:
            output.note(output.printable(f"{info.name}: {reason}"))
    return 0


def _word(info: EngineInfo) -> str:
    if not info.loads:
        return "cannot load"
    if any(finding.severity == "error" for finding in info.findings):
        return "cannot serve"
    return "default" if info.configured else "ready"
