"""What a cluster's commands (``worker_init``) may set on its nodes, which is known there alone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crystalmath.models import Finding


def unless_set_there(findings: Sequence[Finding], cluster: str) -> list[Finding]:
    """Let a job pass for which a cluster's commands may set what its submitter has not set.

    Parameters
    ----------
    findings : sequence of Finding
        What was found with the variables that are known.
    cluster : str
        The name of a cluster that has such commands.

    Returns
    -------
    list of Finding
        Errors about variables that are not set, programs that are not on ``PATH``, or the file of
        quacc's settings, before which variables go, as warnings.
    """
    return [_softened(finding, cluster) for finding in findings]


def _softened(finding: Finding, cluster: str) -> Finding:
    # A program that is named by its path is not found on another PATH, either.
    on_path = finding.code == "command_missing" and finding.path is None
    in_file = finding.code == "quacc_settings" and not (finding.source or "").isidentifier()
    if finding.severity != "error" or not (on_path or in_file or finding.code.endswith("_unset")):
        return finding
    table = f"[clusters.{cluster}]"
    remedy = (
        f"{finding.remedy}; worker_init of {table} may do so, which is known on its nodes alone: "
        f"what stands in environment of {table} can be checked"
    )
    return replace(finding, severity="warning", remedy=remedy)
