"""Say what only VASP knows of: its libraries of datasets, and what does not go together."""

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
        """Where the job's environment says that POTCARs are."""
        return potcars_of(self.job.environment)

    @property
    def library(self) -> str:
        """The folder of the datasets."""
        return os.path.dirname(os.path.dirname(self.wanted.path))

    def named_by(self) -> str:
        """Return what named the root; a recipe may have one of its own."""
        if self.root is None or self.named.path in {None, Path(self.root)}:
            return self.named.source or VARIABLE
        return "the recipe"

    @property
    def is_unset(self) -> bool:
        """Whether the path is empty."""
        return self.root == "." and not self.named.path

    def unset(self) -> FolderTrouble:
        """Say that nothing names the root, or what should cannot be read."""
        if trouble := self.named.trouble:
            remedy = f"mend it: {VARIABLE} there must name {self.holder}"
            return FolderTrouble(code="settings", path="", message=trouble, remedy=remedy)
        return FolderTrouble(
            code="unset",
            path="",
            message=f"{VARIABLE} is not set, and nothing else says where VASP's POTCAR files are",
            remedy=f"set {VARIABLE} to {self.holder}",
        )

    @property
    def holder(self) -> str:
        """What the root must be."""
        return (
            f"the folder that holds {one_line(os.path.basename(self.library) or 'potpaw_PBE.64')}"
        )

    def no_library(self, root: str, words: str) -> FolderTrouble:
        """Return which libraries there are, or that the path names one of them."""
        root, name = os.path.normpath(root), os.path.basename(self.library)
        message = f"{self.wants_of(name)} {words}"
        present = [each for each in names_below(root) if _like(each, name, root)]
        remedy = f"put VASP's {one_line(name)} there"
        if os.path.basename(root).startswith("potpaw") or _has(root, self.wanted.setup):
            message += f"; {one_line(root)} is such a folder itself"
            remedy = (
                f"point at the parent folder: {self.source} = {one_line(os.path.dirname(root))}"
            )
            if os.path.basename(root) != name:
                remedy += f", and see that {one_line(name)} is there"
        elif present:
            message += f"; folders present: {brief(present)}"
            remedy += ", or choose a folder that is there with the parameters pp and pp_version"
        else:
            remedy += f", or correct {self.source}: it must name {self.holder}"
        return FolderTrouble(code="no_library", path=self.library, message=message, remedy=remedy)

    @cached_property
    def variants(self) -> list[str]:
        """Name other datasets of these elements."""
        return [name for name in super().variants if _has(self.library, name)]

    def instead(self) -> str:
        """Return what is there instead of the file, in this library and in others."""
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
        """Return where the dataset comes from."""
        library, setup = os.path.basename(self.library), self.wanted.setup
        for symbol in self.wanted.symbols:
            if setup.startswith(symbol * 2):
                given = setup.removeprefix(symbol * 2)
                return f'setups are suffixes: setups={{"{symbol}": "{given}"}}'
        words = f"add the folder {one_line(setup)} of VASP's {one_line(library)}"
        choice = ", or choose a dataset that is there with the parameter setups"
        return words + choice if self.variants else words


def _has(library: str, setup: str) -> bool:
    return os.path.exists(os.path.join(library, setup, "POTCAR"))


def _like(name: str, library: str, root: str) -> bool:
    similar = name.startswith("potpaw") or name.lower() == library.lower()
    return similar and os.path.isdir(os.path.join(root, name))


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
#: Tags with which moments have a direction: of VASP's programs one alone computes that.
_NONCOLLINEAR = ("LSORBIT", "LNONCOLLINEAR")
#: The damping parameters of DFT-D3, by the IVDW that reads them.
_DAMPING = {
    "11": ("VDW_S8", "VDW_SR"),
    "12": ("VDW_S8", "VDW_A1", "VDW_A2"),
}
#: Functionals for which VASP itself has damping parameters, as GGA and METAGGA name them
#: (https://www.vasp.at/wiki/index.php/DFT-D3). Hybrids are not looked at.
_DAMPED = ("PE", "RP", "RE", "PS", "TPSS", "M06L", "SCAN")
#: An energy criterion so loose, in eV, is most likely meant as a force: VASP's own is 0.001, ten
#: times the default of EDIFF (https://www.vasp.at/wiki/index.php/EDIFFG).
_LOOSE_EV = 1e-3
#: The tags of INCAR that findings go by.
JUDGED = frozenset(
    (
        *("ALGO", "EDIFFG", "GGA", "IVDW", "METAGGA", "NSW"),
        *_NONCOLLINEAR,
        *(tag for tags in _DAMPING.values() for tag in tags),
    )
)
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
    yield from _tags(job)
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
            message=f"{one_line(path)} does not end with the line 'End of Dataset': blank lines "
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
                f"({found}), and {one_line(folder)} is for {wants}"
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
    """Name the tags that give moments a direction, if they are on."""
    return [tag for tag in _NONCOLLINEAR if _is_on(tags.get(tag))]


def _is_on(value: str | None) -> bool:
    return (value or "").upper().lstrip(".").startswith("T")


def _number(tags: Mapping[str, str], name: str) -> float:
    """Return a tag as a number; 0, which all of them may be, if it is none."""
    try:
        return float(tags.get(name, 0))
    except ValueError:
        return 0.0


def _tags(job: CheckedJob) -> Iterator[Finding]:
    """Find tags that VASP takes, and that do not go together: each once, with its steps."""
    found: dict[tuple[str, str, str, str], list[int]] = {}
    for number, step in enumerate(job.report.steps):
        for one in _of_incar(step.tags) if step.calculator == NAME else ():
            found.setdefault(one, []).append(number)
    for (code, tag, message, remedy), steps in found.items():
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
            f"ALGO = {algo} with METAGGA = {metagga}: quacc recommends All for meta-GGAs, and VASP "
            "minimizes directly with that, as its RMM-DIIS may not converge"
        )
        yield "parameter_algo", "ALGO", message, f"give algo=All{preset}"
    ivdw = _name(tags, "IVDW")
    missing = [tag for tag in _DAMPING.get(ivdw, ()) if tag not in tags]
    gga = _name(tags, "GGA") or "PE"
    if missing and (metagga or gga) not in _DAMPED:
        functional = f"METAGGA = {metagga}" if metagga else f"GGA = {gga}"
        message = (
            f"IVDW = {ivdw} (DFT-D3) with {functional}: VASP knows no damping parameters for that "
            f"functional, and {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not given"
        )
        remedy = f"give {', '.join(map(str.lower, missing))} of the functional, or ivdw=0{preset}"
        yield "parameter_dispersion", "IVDW", message, remedy


def _energy_criterion(tags: Mapping[str, str]) -> Iterator[tuple[str, str, str, str]]:
    """Find a relaxation that ends by its energy, with a number that is one of forces."""
    ediffg = _number(tags, "EDIFFG")
    if ediffg >= _LOOSE_EV and _number(tags, "NSW") > 0:
        message = (
            f"EDIFFG = {ediffg:g} is above zero, and so an energy: the relaxation ends once a step "
            f"changes the energy by less than {ediffg:g} eV, whatever the forces are"
        )
        remedy = f"write ediffg=-{ediffg:g} for a largest force of {ediffg:g} eV/Å"
        yield "parameter_sign", "EDIFFG", message, remedy


def _name(tags: Mapping[str, str], tag: str) -> str:
    """Return a tag whose value is a name, in capitals; empty if it is not there."""
    return one_line(tags.get(tag, "").strip().strip("'\"").upper())


def _noncollinear(job: CheckedJob) -> Iterator[Finding]:
    """Find calculations with directed moments that a program starts which has none."""
    found: dict[tuple[str, str], list[int]] = {}
    for number, step in enumerate(job.report.steps):
        tags = noncollinear(step.tags) if step.calculator == NAME else []
        if tags:
            command = _started(step, job.environment.get("PATH"))
            if command is not None and _COLLINEAR.intersection(_names(command)):
                found.setdefault((tags[0], command), []).append(number)
    for (tag, command), steps in found.items():
        yield Finding(
            severity="warning",
            code="command_collinear",
            message=f"{tag} is on, and {one_line(command)!s:.200} is started, which by its name "
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
        for parameter in step.unknown.items():
            unknown.setdefault(parameter, []).append(number)
    for (name, near), steps in unknown.items():
        meant = _meant(job, name)
        # What is farther from a known tag may be one of a newer VASP.
        misspelt = not meant and near is not None and is_slip(name.lower(), near.lower())
        yield Finding(
            severity="warning",
            code=MISSPELT if misspelt else "parameter_unknown",
            message=f"no parameter of VASP is known as {one_line(name)!r}; it is written into "
            f"INCAR as it stands{job.where(steps)}",
            source=f"the parameter {name}",
            remedy=meant or (f"did you mean {near!r}?" if near else None),
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


#: Groups of ranks within those that share a k-point.
_BAND_TAGS = ("ncore", "npar")


def rank_findings(parameters: Mapping[str, Any], ranks: int) -> Iterator[Finding]:
    """Find tags that do not divide the ranks; none is guessed where none was given.

    KPAR is to divide the number of ranks (https://vasp.at/wiki/KPAR), and NPAR times NCORE is the
    number of ranks divided by KPAR (https://www.vasp.at/wiki/index.php/NPAR).
    """
    given = {name.lower(): (name, value) for name, value in parameters.items()}
    tags = {name: given[name] for name in ("kpar", *_BAND_TAGS) if _is_count(given.get(name))}
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


def _is_count(given: tuple[str, Any] | None) -> bool:
    return given is not None and type(given[1]) is int and given[1] > 0


def _finding(name: str, message: str, what: str) -> Finding:
    return Finding(
        severity="warning",
        code="ranks_undivided",
        message=f"{message}: VASP may stop, or leave ranks idle",
        source=f"parameter {name}",
        remedy=f"choose a {name.upper()} that divides {what}, or another number of ranks",
    )
