"""Say what only VASP knows of: datasets that do not go together, or are not its own."""

from __future__ import annotations

import contextlib
import os
import re
from typing import TYPE_CHECKING

from crystalmath.errors import InvalidJob
from crystalmath.models import Finding
from crystalmath.preflight.checked_job import brief, safe
from crystalmath.preflight.launching import Command, is_found
from crystalmath.preflight.programs.vasp_folders import PotcarFolders
from crystalmath.recipes.lookup import look_up
from crystalmath.recipes.one_line import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from crystalmath.preflight.checked_job import CheckedJob, Wanted
    from crystalmath.preflight.report import Step

#: The program's name.
NAME = "vasp"
_MANY = 5
#: What ASE's optimizers have, and what VASP calls what others have under another name.
_OF_OPTIMIZERS = ("fmax", "max_steps", "optimizer")
_ELSEWHERE = {
    **dict.fromkeys(("max_steps", "steps", "nstep"), "NSW is the number of ionic steps: nsw=100"),
    **dict.fromkeys(
        ("cutoff", "ecut", "ecutwfc", "encutoff", "energy_cutoff", "pw"),
        "ENCUT is the cutoff, in eV (1 Ry is 13.6 eV): encut=520",
    ),
    **dict.fromkeys(("conv_thr", "scf_tol", "etol"), "EDIFF is that, in eV: ediff=1e-6"),
    **dict.fromkeys(
        ("kpoints", "k_points", "kpoint", "k_grid", "kmesh"), "they are kpts=[3, 3, 3]"
    ),
    **dict.fromkeys(
        ("smearing", "occupations"), "ISMEAR is its kind, SIGMA its width in eV: ismear=0"
    ),
    **dict.fromkeys(("degauss", "width"), "SIGMA is the width of the smearing, in eV: sigma=0.05"),
    **dict.fromkeys(
        ("potcar", "potcars", "pseudo", "pseudopotentials"),
        'datasets are chosen by suffixes, setups={"Cu": "_pv"}, their release by pp_version',
    ),
    **dict.fromkeys(("nspin", "spin", "spin_polarized", "lsda"), "spin-polarized is ispin=2"),
}
#: LEXCH -> the class of the functional, as pymatgen's PotcarSingle tells it.
_CLASSES = {
    **dict.fromkeys(("91", "AM", "LM", "PB", "PE", "PS", "PW", "RP"), "GGA"),
    **dict.fromkeys(("CA", "HL", "WI"), "LDA"),
}
#: VASP's programs without directed moments, as its own makefile names them.
_COLLINEAR = frozenset(("vasp_std", "vasp_gam"))
#: The folders that ASE knows by the names of functionals; it calls VASP's old LDA files potpaw.
_LIBRARY = re.compile(r"potpaw(_PBE|_LDA)?(?(1)(\..+)?)")


def findings(job: CheckedJob) -> Iterator[Finding]:
    """Find what is odd about the POTCARs and the parameters."""
    files = [wanted for wanted in job.files if wanted.step.calculator == NAME]
    yield from _loose_ends(job, {wanted.path: wanted for wanted in files})
    yield from _mixed(job, files)
    good = [wanted for wanted in files if wanted.facts.problem is None]
    yield from _functionals(job, good)
    changed = [wanted for wanted in good if wanted.facts.hash_holds is False]
    message = "the content does not have the SHA256 that the header states"
    remedy = "it was changed, or copied badly: copy it again from where it came"
    yield from _of_files(job, "potcar_hash", message, changed, remedy)
    yield from _parameters(job)
    yield from _noncollinear(job)
    unknown = [wanted for wanted in good if wanted.facts.official is False]
    unknown = [wanted for wanted in unknown if wanted not in changed]
    message = "not official, as far as pymatgen's table of VASP's own POTCARs goes"
    yield from _of_files(job, "potcar_unofficial", message, unknown, "compare with VASP's own")


def functionals_of(job: CheckedJob, step: Step) -> dict[str, list[str]]:
    """Return the datasets of a step by the functional that they were made with."""
    found: dict[str, list[str]] = {}
    for need in step.needs:
        facts = job.report.files.get(need.path)
        if facts and facts.lexch:
            found.setdefault(facts.lexch, []).append(need.setup)
    return found


def _loose_ends(job: CheckedJob, files: dict[str, Wanted]) -> Iterator[Finding]:
    """Find the files behind which VASP would not find the next one's title."""
    followed: dict[str, list[int]] = {}
    for number, step in enumerate(job.report.steps):
        for need in step.needs[:-1]:
            if need.path in files and files[need.path].facts.loose_end:
                followed.setdefault(need.path, []).append(number)
    for path, steps in followed.items():
        yield Finding(
            severity=job.severity(steps),
            code="potcar_loose_end",
            message=f"{shown(path)} does not end with the line 'End of Dataset': blank lines "
            "follow, or the line's own end is missing, so that VASP does not find the dataset that "
            f"comes next{job.where(steps)}",
            path=safe(path),
            source=PotcarFolders(files[path], job).source,
            remedy="end the file with that line, and nothing behind it",
        )


def _mixed(job: CheckedJob, files: Sequence[Wanted]) -> Iterator[Finding]:
    """Find datasets that were made with different functionals."""
    mixed: dict[str, tuple[Step, list[int], bool]] = {}
    for number, step in enumerate(job.report.steps):
        functionals = functionals_of(job, step) if step.calculator == NAME else {}
        if len(functionals) > 1:
            words = "; ".join(f"{shown(name)}: {brief(of)}" for name, of in functionals.items())
            refused = any(trouble.where == "parse" for trouble in step.troubles)
            first = mixed.setdefault(words, (step, [], refused))
            first[1].append(number)
    for words, (step, steps, refused) in mixed.items():
        of = next(wanted for wanted in files if wanted.path == step.needs[0].path)
        around = PotcarFolders(of, job)
        yield Finding(
            severity=job.severity(steps) if refused else "warning",
            code="potcar_mixed",
            message=f"the POTCARs are of different functionals (LEXCH {words})"
            f"{', which custodian refuses' if refused else ''}{job.where(steps)}",
            path=safe(around.library),
            source=around.source,
            remedy="take all datasets from one family, with the parameters setups and pp",
        )


def _functionals(job: CheckedJob, files: Sequence[Wanted]) -> Iterator[Finding]:
    """Find files in the folder of another class of functionals."""
    odd: dict[str, list[Wanted]] = {}
    for wanted in files:
        folder = os.path.basename(PotcarFolders(wanted, job).library)
        found = _CLASSES.get((wanted.facts.lexch or "").upper())
        library = _LIBRARY.fullmatch(folder)
        if found is None or library is None:
            continue
        wants, of = ("PBE", "GGA") if library[1] == "_PBE" else ("LDA", "LDA")
        if found != of:
            message = (
                f"made for another functional than its folder: LEXCH = {wanted.facts.lexch} "
                f"({found}), and {shown(folder)} is for {wants}"
            )
            odd.setdefault(message, []).append(wanted)
    for message, group in odd.items():
        remedy = "put VASP's own files there, or choose their folder with pp and pp_version"
        yield from _of_files(job, "potcar_functional", message, group, remedy)


def _of_files(
    job: CheckedJob, code: str, message: str, files: Sequence[Wanted], remedy: str
) -> Iterator[Finding]:
    """Yield the same of files, once for each library."""
    libraries: dict[str, list[Wanted]] = {}
    for wanted in files:
        libraries.setdefault(PotcarFolders(wanted, job).library, []).append(wanted)
    for library, group in libraries.items():
        one = len(group) == 1
        listed = brief([wanted.setup for wanted in group], _MANY)
        steps = sorted({number for wanted in group for number in wanted.steps})
        yield Finding(
            severity="warning",
            code=code,
            message=f"{message}: {shown(group[0].path) if one else f'{listed} in {shown(library)}'}"
            f"{job.where(steps)}",
            path=safe(group[0].path if one else library),
            source=PotcarFolders(group[0], job).source,
            remedy=remedy,
        )


def _noncollinear(job: CheckedJob) -> Iterator[Finding]:
    """Find calculations with directed moments that a program starts which has none."""
    found: dict[tuple[str, str], list[int]] = {}
    for number, step in enumerate(job.report.steps):
        if step.calculator == NAME and step.notes:
            command = _started(step, job.environment.get("PATH"))
            if command is not None and _COLLINEAR.intersection(_names(command)):
                found.setdefault((step.notes[0], command), []).append(number)
    for (tag, command), steps in found.items():
        yield Finding(
            severity="warning",
            code="command_collinear",
            message=f"{tag} is on, and {shown(command)!s:.200} is started, which by its name "
            f"computes no directed moments: VASP would stop at once{job.where(steps)}",
            source=f"{tag} in INCAR",
            remedy="set QUACC_VASP_CMD=vasp_ncl, and for a single k-point QUACC_VASP_GAMMA_CMD too",
        )


def _started(step: Step, path: str | None) -> str | None:
    """Return which command starts a step; ``None`` where that is not known."""
    if len(step.starts) != 1:
        return None
    *before, last = step.starts[0]
    there = (
        each for each in before if path and (words := _words(each)) and is_found(words[0], path)
    )
    return next(there, last)


def _words(command: str) -> list[str]:
    return Command(command, "").words


def _names(command: str) -> set[str]:
    return {os.path.basename(word) for word in _words(command)}


def _parameters(job: CheckedJob) -> Iterator[Finding]:
    unknown: dict[tuple[str, str | None], list[int]] = {}
    for number, step in enumerate(job.report.steps):
        for told in step.unknown.items():
            unknown.setdefault(told, []).append(number)
    for (name, near), steps in unknown.items():
        yield Finding(
            severity="warning",
            code="parameter_unknown",
            message=f"no parameter of VASP is known as {shown(name)!r}; it is written into INCAR "
            f"as it stands{job.where(steps)}",
            source=f"the parameter {name}",
            remedy=_meant(job, name) or (f"did you mean {near!r}?" if near else None),
        )


def _meant(job: CheckedJob, name: str) -> str | None:
    """Return what VASP calls what another program, or ASE, has under a name."""
    with contextlib.suppress(InvalidJob):  # a user's own need not be there
        signature = look_up(job.recipe).signature
        if name in _OF_OPTIMIZERS and signature and "opt_params" in signature.parameters:
            return f"it belongs into opt_params: opt_params.{name}"
    if name == "fmax":
        value = job.parameters.get(name)
        force = value if isinstance(value, (int, float)) and value > 0 else 0.01
        return f"VASP has EDIFFG, and a negative one is the largest force, in eV/Å: ediffg=-{force}"
    return _ELSEWHERE.get(name)
