"""Checks of engines, batch systems and plugins: those that are installed or configured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crystalmath.errors import CrystalMathError, did_you_mean
from crystalmath.models.cluster import Check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from crystalmath.config import Config


def installed(chosen: str | None) -> Iterator[Check]:
    """Check that the installed engines can be used, above all the `chosen` one."""
    from crystalmath.quacc.engines import describe_engines, get_workflow_engine

    try:
        infos, configured = describe_engines(), get_workflow_engine()
    except (CrystalMathError, ImportError) as error:
        yield Check("engines", "error", str(error))
        return
    needed = chosen or configured or "local"
    if needed not in [info.name for info in infos]:
        yield _missing_engine(needed, [info.name for info in infos])
    for info in infos:
        wrong = [info.error] if info.error else []
        wrong += [str(finding) for finding in info.findings if finding.severity == "error"]
        mild = [str(finding) for finding in info.findings if finding.severity == "warning"]
        # A broken engine that is not used hinders no job.
        state = "error" if wrong and info.name == needed else "warning" if wrong or mild else "ok"
        message = f"{info.name}, {info.distribution} {info.version}"
        message += " (used where none is named)" if info.name == (configured or "local") else ""
        remedy = "; ".join([*wrong, *mild]) or None
        yield Check("engine", state, message, remedy)


def _missing_engine(name: str, installed: list[str]) -> Check:
    from crystalmath.engines.registry import how_to_install

    return Check(
        "engine",
        "error",
        f"{name!r} is wanted and not installed; there are {', '.join(installed) or 'none'}",
        f"{how_to_install(name)}; or choose another with CRYSTALMATH_ENGINE",
    )


def schedulers(config: Config) -> Iterator[Check]:
    """Check that the batch systems of the configured clusters answer."""
    from crystalmath.engines.schedulers import trouble

    clusters: dict[str, list[str]] = {}
    for cluster in config.clusters.values():
        clusters.setdefault(cluster.scheduler, []).append(cluster.name)
    clusters.pop("local", None)
    for scheduler, names in clusters.items():
        wrong = trouble(scheduler)
        message = f"{scheduler} {'does not answer' if wrong else 'answers'} ({', '.join(names)})"
        yield Check("scheduler", "warning" if wrong else "ok", message, wrong)


def unknown_names(config: Config) -> Iterator[Check]:
    """Check that flows and engines in the configuration exist."""
    from crystalmath.engines.registry import plugins
    from crystalmath.models.submission import step_matches
    from crystalmath.recipes.lookup import catalogue

    file = config.home / "config.toml"
    if patterns := config.flows_on_cluster:
        every = catalogue(config.recipes_allow)
        flows = [one.name for one in every if one.kind != "job"]
        last = sorted({name.rpartition(".")[2] for name in flows})
        for pattern in patterns if flows else ():
            if not any(step_matches(pattern, name, name) for name in flows):
                message = f"[flows] on_cluster in {file}: {pattern!r} means no flow that there is"
                remedy = did_you_mean(pattern, last, "`crystalmath recipes` lists those there are")
                yield Check("config", "warning", message, remedy)
    installed = plugins().engine_names()
    for name in config.engines:
        if name not in installed:
            message = f"[engines.{name}] in {file} is of no installed engine"
            remedy = f"there are {', '.join(installed)}"
            yield Check("config", "warning", message, remedy)


def unusable_plugins() -> Iterator[Check]:
    """Report each plugin that cannot be used."""
    from crystalmath.engines.registry import plugins

    for finding in plugins().unusable():
        yield Check("plugin", "warning", finding.message, finding.remedy)
