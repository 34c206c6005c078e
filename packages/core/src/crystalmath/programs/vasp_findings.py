"""Findings about VASP: its libraries of datasets, and settings that contradict each other."""

from __future__ import annotations

import contextlib
import os
import re
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from crystalmath.errors import MISSPELT, InvalidJob, is_slip, one_line
from crystalmath.models import Finding
from crystalmath.plugins.checked_job import brief, safe
from crystalmath.plugins.folders import Folders, FolderTrouble, names_below
from crystalmath.plugins.launching import Command, is_found
from crystalmath.recipes.lookup import look_up
from crystalmath.recipes.quacc_settings import VARIABLE, PotcarPath, potcars_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from crystalmath.plugins.checked_job import CheckedJob, Wanted
    from crystalmath.plugins.report import Step


@frozen(slots=False)
class PotcarFolders(Folders):
    """The folder of a dataset, its library, and the root of all libraries."""

    @cached_property
    def named(self) -> PotcarPath:
        """The root of the POTCARs in the job's environment."""
        return potcars_of(self.job.environment)

    @property
    def library(self) -> str:
        """The folder of the datasets."""
        return os.path.dirname(os.path.dirname(self.wanted.path))

    def named_by(self) -> str:
        """Return the source of the root, which may be the recipe itself."""
        if self.root is None or self.named.path in {None, Path(self.root)}:
            return self.named.source or VARIABLE
        return "the recipe"

    @property
    def is_unset(self) -> bool:
        """Whether the path is empty."""
        return self.root == "." and not self.named.path

    def unset(self) -> FolderTrouble:
        """Return the trouble that no setting names the root, or that its file is unreadable."""
        if trouble := self.named.trouble:
            remedy = f"correct that file: its {VARIABLE} must name {self.holder}"
            return FolderTrouble(code="settings", path="", message=trouble, remedy=remedy)
        return FolderTrouble(
            code="unset",
            path="",
            message=f"{VARIABLE} is not set, and no other setting names the folder of VASP's "
            "POTCARs",
            remedy=f"set {VARIABLE} to {self.holder}",
        )

    @property
    def holder(self) -> str:
        """The description of a right root."""
        return (
            f"the folder that holds {one_line(os.path.basename(self.library) or 'potpaw_PBE.64')}"
        )

    def no_library(self, root: str, words: str) -> FolderTrouble:
        """Return the trouble that a library is missing, or that the root is itself a library."""
        root, name = os.path.normpath(root), os.path.basename(self.library)
        message = f"{self.wants_of(name)} {words}"
        present = [each for each in names_below(root) if _like(each, name, root)]
        remedy = f"put VASP's {one_line(name)} there"
        if os.path.basename(root).startswith("potpaw") or _has(root, self.wanted.setup):
            message += f"; {one_line(root)} is itself a folder of POTCARs"
            remedy = f"name the parent folder: {self.source} = {one_line(os.path.dirname(root))}"
            if os.path.basename(root) != name:
                remedy += f", and put {one_line(name)} there"
        elif present:
            message += f"; folders present: {brief(present)}"
            remedy += ", or choose one of these folders with the parameters pp and pp_version"
        else:
            remedy += f", or correct {self.source}: it must name {self.holder}"
        return FolderTrouble(code="no_library", path=self.library, message=message, remedy=remedy)

    @cached_property
    def variants(self) -> list[str]:
        """Other datasets of the same elements."""
        return [name for name in super().variants if _has(self.library, name)]

    def instead(self) -> str:
        """Return the end of a sentence about similar datasets, in this library and in others."""
        folder, setup = os.path.dirname(self.wanted.path), self.wanted.setup
        others = [name for name in names_below(folder) if name != "POTCAR"]
        if inside := [name for name in others if "POTCAR" in name.upper()]:
            return f"; that folder holds {brief(inside)}"
        words, root = super().instead(), self.root or ""
        libraries = {each: os.path.join(root, each) for each in names_below(root)}
        elsewhere = [
            each for each, path in libraries.items() if path != self.library and _has(path, setup)
        ]
        return f"{words}; {one_line(setup)} is in {brief(elsewhere)}" if elsewhere else words

    def put_there(self) -> str:
        """Return the remedy for a missing dataset."""
        library, setup = os.path.basename(self.library), self.wanted.setup
        for symbol in self.wanted.symbols:
            if setup.startswith(symbol * 2):
                suffix = setup.removeprefix(symbol * 2)
                return f'setups are suffixes: write setups={{"{symbol}": "{suffix}"}}'
        words = f"add the folder {one_line(setup)} of VASP's {one_line(library)}"
        choice = ", or choose one of the present datasets with the parameter setups"
        return words + choice if self.variants else words


def _has(library: str, setup: str) -> bool:
    return os.path.exists(os.path.join(library, setup, "POTCAR"))


def _like(name: str, library: str, root: str) -> bool:
    similar = name.startswith("potpaw") or name.lower() == library.lower()
    return similar and os.path.isdir(os.path.join(root, name))


#: The program's name.
NAME = "vasp"
_MANY = 5
#: Parameters of ASE's optimizers.
_OF_OPTIMIZERS = ("fmax", "max_steps", "optimizer")
#: Other programs' names of parameters -> a remedy with VASP's own.
_ELSEWHERE = {
    **dict.fromkeys(
        ("max_steps", "steps", "nstep"), "VASP's NSW is the number of ionic steps: nsw=100"
    ),
    **dict.fromkeys(
        ("cutoff", "ecut", "ecutwfc", "encutoff", "energy_cutoff", "pw"),
        "VASP's ENCUT is the cutoff, in eV (1 Ry is 13.6 eV): encut=520",
    ),
    **dict.fromkeys(
        ("conv_thr", "scf_tol", "etol"), "VASP's EDIFF is the energy criterion, in eV: ediff=1e-6"
    ),
    **dict.fromkeys(
        ("kpoints", "k_points", "kpoint", "k_grid", "kmesh"), "write the mesh as kpts=[3, 3, 3]"
    ),
    **dict.fromkeys(
        ("smearing", "occupations"),
        "VASP's ISMEAR is the kind of smearing, SIGMA its width in eV: ismear=0, sigma=0.05",
    ),
    **dict.fromkeys(
        ("degauss", "width"), "VASP's SIGMA is the width of the smearing, in eV: sigma=0.05"
    ),
    **dict.fromkeys(
        ("potcar", "potcars", "pseudo", "pseudopotentials"),
        'choose datasets by suffixes, setups={"Cu": "_pv"}, and their release by pp_version',
    ),
    **dict.fromkeys(
        ("nspin", "spin", "spin_polarized", "lsda"),
        "write ispin=2 for a spin-polarized calculation",
    ),
}
#: LEXCH -> the class of the functional, as in pymatgen's PotcarSingle.
_CLASSES = {
    **dict.fromkeys(("91", "AM", "LM", "PB", "PE", "PS", "PW", "RP"), "GGA"),
    **dict.fromkeys(("CA", "HL", "WI"), "LDA"),
}
#: Tags that give moments a direction; only vasp_ncl computes that.
_NONCOLLINEAR = ("LSORBIT", "LNONCOLLINEAR")
#: The damping parameters of DFT-D3, by the IVDW that reads them.
_DAMPING = {
    "11": ("VDW_S8", "VDW_SR"),
    "12": ("VDW_S8", "VDW_A1", "VDW_A2"),
}
#: Functionals with damping parameters in VASP, by their names in GGA and METAGGA
#: (https://www.vasp.at/wiki/index.php/DFT-D3). Hybrids are not checked.
_DAMPED = ("PE", "RP", "RE", "PS", "TPSS", "M06L", "SCAN")
#: A criterion of this size, in eV, is most likely meant as a force. VASP's default for the energy
#: is 0.001, ten times the default of EDIFF (https://www.vasp.at/wiki/index.php/EDIFFG).
_LOOSE_EV = 1e-3
#: The tags of INCAR that findings use.
JUDGED = frozenset(
    (
        *("ALGO", "EDIFFG", "GGA", "IVDW", "METAGGA", "NSW"),
        *_NONCOLLINEAR,
        *(tag for tags in _DAMPING.values() for tag in tags),
    )
)
#: VASP's programs without directed moments, by the names in its makefile.
_COLLINEAR = frozenset(("vasp_std", "vasp_gam"))
#: ASE's folders of datasets by functional; `potpaw` holds VASP's old LDA files.
_LIBRARY = re.compile(r"potpaw(_PBE|_LDA)?(?(1)(\..+)?)")


def findings(job: CheckedJob) -> Iterator[Finding]:
    """Yield the findings about POTCARs and parameters."""
    files = [wanted for wanted in job.files if wanted.step.calculator == NAME]
    yield from _loose_ends(job, {wanted.path: wanted for wanted in files})
    yield from _mixed(job, files)
    good = [wanted for wanted in files if wanted.facts.problem is None]
    yield from _functionals(job, good)
    changed = [wanted for wanted in good if wanted.facts.hash_holds is False]
    message = "the content does not match the SHA256 in the header"
    remedy = "the file was changed or damaged: copy it again from VASP's distribution"
    yield from _of_files(job, "potcar_hash", message, changed, remedy)
    yield from _parameters(job)
    yield from _noncollinear(job)
    yield from _tags(job)
    unknown = [wanted for wanted in good if wanted.facts.official is False]
    unknown = [wanted for wanted in unknown if wanted not in changed]
    message = "not official: pymatgen's table of VASP's own POTCARs does not have it"
    remedy = "compare it with the file of VASP's distribution"
    yield from _of_files(job, "potcar_unofficial", message, unknown, remedy)


def functionals_of(job: CheckedJob, step: Step) -> dict[str, list[str]]:
    """Return the datasets of a step by the functional that they were made with."""
    setups: dict[str, list[str]] = {}
    for need in step.needs:
        facts = job.report.files.get(need.path)
        if facts and facts.lexch:
            setups.setdefault(facts.lexch, []).append(need.setup)
    return setups


def _loose_ends(job: CheckedJob, files: dict[str, Wanted]) -> Iterator[Finding]:
    """Yield findings about files whose end hides the title of the next dataset from VASP."""
    followed: dict[str, list[int]] = {}
    for number, step in enumerate(job.report.steps):
        for need in step.needs[:-1]:
            if need.path in files and files[need.path].facts.loose_end:
                followed.setdefault(need.path, []).append(number)
    for path, steps in followed.items():
        yield Finding(
            severity=job.severity(steps),
            code="potcar_loose_end",
            message=f"{one_line(path)} does not end exactly with the line 'End of Dataset': blank "
            "lines follow, or its newline is missing, so VASP cannot find the next dataset in the "
            f"joined POTCAR{job.where(steps)}",
            path=safe(path),
            source=PotcarFolders(files[path], job).source,
            remedy="end the file with the line 'End of Dataset' and one newline",
        )


def _mixed(job: CheckedJob, files: Sequence[Wanted]) -> Iterator[Finding]:
    """Yield findings about steps whose datasets were made with different functionals."""
    mixed: dict[str, tuple[Step, list[int], bool]] = {}
    for number, step in enumerate(job.report.steps):
        functionals = functionals_of(job, step) if step.calculator == NAME else {}
        if len(functionals) > 1:
            words = "; ".join(f"{one_line(name)}: {brief(of)}" for name, of in functionals.items())
            refused = any(trouble.where == "parse" for trouble in step.troubles)
            first = mixed.setdefault(words, (step, [], refused))
            first[1].append(number)
    for words, (step, steps, refused) in mixed.items():
        of = next(wanted for wanted in files if wanted.path == step.needs[0].path)
        around = PotcarFolders(of, job)
        yield Finding(
            severity=job.severity(steps) if refused else "warning",
            code="potcar_mixed",
            message=f"the POTCARs were made with different functionals (LEXCH {words})"
            f"{', which custodian refuses' if refused else ''}{job.where(steps)}",
            path=safe(around.library),
            source=around.source,
            remedy="choose all datasets from one family with the parameters setups and pp",
        )


def _functionals(job: CheckedJob, files: Sequence[Wanted]) -> Iterator[Finding]:
    """Yield findings about datasets in the folder of another class of functionals."""
    odd: dict[str, list[Wanted]] = {}
    for wanted in files:
        folder = os.path.basename(PotcarFolders(wanted, job).library)
        kind = _CLASSES.get((wanted.facts.lexch or "").upper())
        library = _LIBRARY.fullmatch(folder)
        if kind is None or library is None:
            continue
        wants, of = ("PBE", "GGA") if library[1] == "_PBE" else ("LDA", "LDA")
        if kind != of:
            message = (
                f"made for another functional than its folder: LEXCH = {wanted.facts.lexch} "
                f"({kind}), but {one_line(folder)} is for {wants}"
            )
            odd.setdefault(message, []).append(wanted)
    for message, group in odd.items():
        remedy = (
            "put VASP's own files there, or choose another folder with the parameters pp and "
            "pp_version"
        )
        yield from _of_files(job, "potcar_functional", message, group, remedy)


def _of_files(
    job: CheckedJob, code: str, message: str, files: Sequence[Wanted], remedy: str
) -> Iterator[Finding]:
    """Yield a warning about files, once for each library."""
    libraries: dict[str, list[Wanted]] = {}
    for wanted in files:
        libraries.setdefault(PotcarFolders(wanted, job).library, []).append(wanted)
    for library, group in libraries.items():
        one = len(group) == 1
        listed = brief([wanted.setup for wanted in group], _MANY)
        place = one_line(group[0].path) if one else f"{listed} in {one_line(library)}"
        steps = sorted({number for wanted in group for number in wanted.steps})
        yield Finding(
            severity="warning",
            code=code,
            message=f"{message}: {place}{job.where(steps)}",
            path=safe(group[0].path if one else library),
            source=PotcarFolders(group[0], job).source,
            remedy=remedy,
        )


def noncollinear(tags: Mapping[str, str]) -> list[str]:
    """Return the tags that give moments a direction, if they are on."""
    return [tag for tag in _NONCOLLINEAR if _is_on(tags.get(tag))]


def _is_on(value: str | None) -> bool:
    return (value or "").upper().lstrip(".").startswith("T")


def _number(tags: Mapping[str, str], name: str) -> float:
    """Return a tag as a number; 0 if it is no number."""
    try:
        return float(tags.get(name, 0))
    except ValueError:
        return 0.0


def _tags(job: CheckedJob) -> Iterator[Finding]:
    """Yield findings about tags that do not fit each other: each once, with its steps."""
    warnings: dict[tuple[str, str, str, str], list[int]] = {}
    for number, step in enumerate(job.report.steps):
        for one in _of_incar(step.tags) if step.calculator == NAME else ():
            warnings.setdefault(one, []).append(number)
    for (code, tag, message, remedy), steps in warnings.items():
        yield Finding(
            severity="warning",
            code=code,
            message=f"{message}{job.where(steps)}",
            source=f"{tag} in INCAR",
            remedy=remedy,
        )


def _of_incar(tags: Mapping[str, str]) -> Iterator[tuple[str, str, str, str]]:
    """Judge the tags of one step; yield code, tag, message and remedy."""
    yield from _energy_criterion(tags)
    metagga = _name(tags, "METAGGA")
    if metagga in {"NONE", "--"}:
        metagga = ""
    preset = ", or preset=DefaultSetMetaGGA" if metagga == "R2SCAN" else ""
    algo = _name(tags, "ALGO")
    if metagga and algo[:1] in {"F", "V"}:
        message = (
            f"ALGO = {algo} with METAGGA = {metagga}: its RMM-DIIS steps may not converge with a "
            "meta-GGA; quacc and VASP recommend All, which minimizes directly"
        )
        yield "parameter_algo", "ALGO", message, f"set algo=All{preset}"
    ivdw = _name(tags, "IVDW")
    missing = [tag for tag in _DAMPING.get(ivdw, ()) if tag not in tags]
    gga = _name(tags, "GGA") or "PE"
    if missing and (metagga or gga) not in _DAMPED:
        functional = f"METAGGA = {metagga}" if metagga else f"GGA = {gga}"
        message = (
            f"IVDW = {ivdw} (DFT-D3) with {functional}: VASP has no damping parameters for this "
            f"functional, and {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set"
        )
        names = ", ".join(map(str.lower, missing))
        remedy = f"set {names} for the functional, or ivdw=0 for no correction{preset}"
        yield "parameter_dispersion", "IVDW", message, remedy


def _energy_criterion(tags: Mapping[str, str]) -> Iterator[tuple[str, str, str, str]]:
    """Yield a warning about a relaxation whose energy criterion looks like one of forces."""
    ediffg = _number(tags, "EDIFFG")
    if ediffg >= _LOOSE_EV and _number(tags, "NSW") > 0:
        message = (
            f"EDIFFG = {ediffg:g} is positive, and so an energy: the relaxation ends once a step "
            f"changes the energy by less than {ediffg:g} eV, however large the forces are"
        )
        remedy = f"set ediffg=-{ediffg:g} to end at a largest force of {ediffg:g} eV/Å"
        yield "parameter_sign", "EDIFFG", message, remedy


def _name(tags: Mapping[str, str], tag: str) -> str:
    """Return the value of a tag in capitals; empty if the tag is missing."""
    return one_line(tags.get(tag, "").strip().strip("'\"").upper())


def _noncollinear(job: CheckedJob) -> Iterator[Finding]:
    """Yield findings about calculations with directed moments and a program without them."""
    collinear: dict[tuple[str, str], list[int]] = {}
    for number, step in enumerate(job.report.steps):
        tags = noncollinear(step.tags) if step.calculator == NAME else []
        if tags:
            command = _started(step, job.environment.get("PATH"))
            if command is not None and _COLLINEAR.intersection(_names(command)):
                collinear.setdefault((tags[0], command), []).append(number)
    for (tag, command), steps in collinear.items():
        yield Finding(
            severity="warning",
            code="command_collinear",
            message=f"{tag} is on, but {one_line(command)!s:.200} is started: by its name this "
            f"program has no noncollinear moments, and would stop at once{job.where(steps)}",
            source=f"{tag} in INCAR",
            remedy="set QUACC_VASP_CMD=vasp_ncl, and QUACC_VASP_GAMMA_CMD too for a single k-point",
        )


def _started(step: Step, path: str | None) -> str | None:
    """Return the command that starts a step; ``None`` if it is unknown."""
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
        for parameter in step.unknown.items():
            unknown.setdefault(parameter, []).append(number)
    for (name, near), steps in unknown.items():
        meant = _meant(job, name)
        # A name that is farther from all known tags may belong to a newer VASP.
        misspelt = not meant and near is not None and is_slip(name.lower(), near.lower())
        yield Finding(
            severity="warning",
            code=MISSPELT if misspelt else "parameter_unknown",
            message=f"{one_line(name)!r} is no known parameter of VASP; it is written into INCAR "
            f"unchanged{job.where(steps)}",
            source=f"the parameter {name}",
            remedy=meant or (f"did you mean {near!r}?" if near else None),
        )


def _meant(job: CheckedJob, name: str) -> str | None:
    """Return the remedy for a parameter of another program or of ASE's optimizers."""
    with contextlib.suppress(InvalidJob):  # a user's own recipe may be gone
        signature = look_up(job.recipe).signature
        if name in _OF_OPTIMIZERS and signature and "opt_params" in signature.parameters:
            return f"put it into opt_params: opt_params.{name}"
    if name == "fmax":
        value = job.parameters.get(name)
        force = value if isinstance(value, (int, float)) and value > 0 else 0.01
        return f"VASP's EDIFFG, if negative, is the largest force in eV/Å: ediffg=-{force}"
    return _ELSEWHERE.get(name)


#: Groups of ranks within those that share a k-point.
_BAND_TAGS = ("ncore", "npar")


def rank_findings(parameters: Mapping[str, Any], ranks: int) -> Iterator[Finding]:
    """Yield findings about the user's tags that do not divide the ranks.

    KPAR is to divide the number of ranks (https://vasp.at/wiki/KPAR), and NPAR times NCORE is the
    number of ranks divided by KPAR (https://www.vasp.at/wiki/index.php/NPAR).
    """
    by_tag = {name.lower(): (name, value) for name, value in parameters.items()}
    tags = {name: by_tag[name] for name in ("kpar", *_BAND_TAGS) if _is_count(by_tag.get(name))}
    kpar = tags["kpar"][1] if "kpar" in tags else 1
    if ranks % kpar:
        name = tags["kpar"][0]
        yield _finding(name, f"{name} = {kpar} does not divide the {ranks} ranks", "the ranks")
        return
    for tag in _BAND_TAGS:
        if tag in tags and (ranks // kpar) % tags[tag][1]:
            name, value = tags[tag]
            each = f"{ranks // kpar} ranks of each k-point" if kpar > 1 else f"{ranks} ranks"
            yield _finding(
                name, f"{name} = {value} does not divide the {each}", "the ranks by KPAR"
            )


def _is_count(parameter: tuple[str, Any] | None) -> bool:
    return parameter is not None and type(parameter[1]) is int and parameter[1] > 0


def _finding(name: str, message: str, what: str) -> Finding:
    return Finding(
        severity="warning",
        code="ranks_undivided",
        message=f"{message}: VASP may stop, or leave ranks idle",
        source=f"parameter {name}",
        remedy=f"choose a {name.upper()} that divides {what}, or another number of ranks",
    )
