"""A stand-in for VASP: it refuses what VASP would refuse, and computes the rest with ASE's EMT.

Started in the directory of a calculation, as ``vasp_std``, ``vasp_gam`` or ``vasp_ncl`` (see
`install`). This file reads and judges INCAR, POSCAR, KPOINTS and POTCAR with the standard library
alone; what is written of a calculation is in `standin_run`.

Tests steer it by variables of its environment, or by words ``NAME=VALUE`` of the title that
INCAR's SYSTEM is, so that jobs that run beside each other may differ:

======================= =========================================================================
``STANDIN_JUDGE``       judge the input only: append ``accepted`` or ``refused: why`` to that file
``STANDIN_LOG``         append the same there, and compute
``STANDIN_CRASH``       exit with that code in the middle, or die by ``kill`` (SIGKILL)
``STANDIN_SLEEP``       wait for so many seconds in the middle
``STANDIN_STEP_SLEEP``  wait for so many seconds after each ionic step
``STANDIN_UNCONVERGED`` no electronic step converges
======================= =========================================================================

Started as several ranks, each notes itself in the file ``RANKS``, and the first computes.
"""

import os
import sys

#: Tags that VASP reads as numbers, and stops at when it cannot.
_NUMBERS = ("ENCUT", "EDIFF", "EDIFFG", "SIGMA", "POTIM", "KSPACING")
_INTEGERS = ("NSW", "IBRION", "ISIF", "NELM", "ISPIN", "ISMEAR", "NEDOS", "LORBIT")
#: Tags that give moments directions, which `vasp_ncl` alone computes.
_DIRECTED = ("LSORBIT", "LNONCOLLINEAR")
_END_OF_HEADER = "END of PSCTR-controll parameters"
_BEGIN_OF_HEADER = "parameters from PSCTR are"


class InputError(Exception):
    """VASP would stop here; the words are its own, or like them."""


class Input:
    """What a calculation is asked to do."""

    def __init__(self, folder="."):
        self.folder = folder
        self.warnings = []
        self.incar = self._read_incar()
        self._refuse_directions()
        self.blocks = self._read_poscar()
        self._read_kpoints()
        self.datasets = self._read_potcar()

    def _lines(self, name):
        with open(os.path.join(self.folder, name), encoding="latin-1", newline="\n") as file:
            return file.read().split("\n")

    def switch(self, name, default=None):
        words = [word.partition("=") for word in self.incar.get("SYSTEM", "").split()]
        title = {word.upper(): value for word, _, value in words}  # quacc writes lower case
        return title.get(f"STANDIN_{name}") or os.environ.get(f"STANDIN_{name}") or default

    def integer(self, tag, default):
        return int(self.incar.get(tag, str(default)).split()[0])

    def number(self, tag, default):
        return float(self.incar.get(tag, str(default)).split()[0])

    def moments(self):
        """Return the magnetic moments of the ions: what INCAR begins with is found to be right."""
        ions = sum(count for _, count in self.blocks)
        if self.integer("ISPIN", 1) != 2 or "MAGMOM" not in self.incar:
            return [0.0] * ions
        words = [word.rpartition("*") for word in self.incar["MAGMOM"].split()]
        return [float(moment) for count, _, moment in words for _ in range(int(count or 1))]

    def _read_incar(self):
        try:
            lines = self._lines("INCAR")
        except FileNotFoundError:
            raise InputError("No INCAR found, STOPPING") from None
        tags = {}
        for line in lines:
            for part in line.split("#")[0].split("!")[0].split(";"):
                tag, equals, value = part.partition("=")
                if equals and value.strip():
                    tags.setdefault(tag.strip().upper(), value.strip())
        for names, read in ((_NUMBERS, float), (_INTEGERS, int)):
            for name in names:
                if name in tags:
                    try:
                        read(tags[name].split()[0])
                    except ValueError:
                        raise InputError(f"Error reading item '{name}' from file INCAR.") from None
        return tags

    def _refuse_directions(self):
        on = [tag for tag in _DIRECTED if self.incar.get(tag, "F").upper().lstrip(".")[0] == "T"]
        if on and "vasp_ncl" not in sys.argv:
            raise InputError(
                "ERROR: non collinear calculations require that VASP is compiled\n"
                "       without the flag -DNGXhalf and -DNGZhalf"
            )

    def _read_poscar(self):
        """Return element and number of each block of ions."""
        try:
            lines = self._lines("POSCAR")
            scale = float(lines[1].split()[0])
            cell = [[float(x) * abs(scale) for x in line.split()[:3]] for line in lines[2:5]]
            names = lines[5].split()
            if names[0].isdigit():
                names, at = [], 5
            else:
                at = 6
            counts = [int(word) for word in lines[at].split()]
        except FileNotFoundError:
            raise InputError("ERROR: there must be a POSCAR file") from None
        except (ValueError, IndexError):
            raise InputError("ERROR: reading the POSCAR file failed: its header") from None
        if names and len(names) != len(counts):
            raise InputError("ERROR: the number of species in POSCAR and of ions differ")
        _volume(cell)
        at += 1
        if lines[at][:1] in "Ss":
            at += 1
        positions = lines[at + 1 : at + 1 + sum(counts)]
        try:
            read = [[float(word) for word in line.split()[:3]] for line in positions]
        except ValueError:
            raise InputError("ERROR: reading the positions of the ions in POSCAR failed") from None
        if not counts or len(read) != sum(counts) or any(len(each) != 3 for each in read):
            raise InputError("ERROR: reading the positions of the ions in POSCAR failed")
        return list(zip(names or [""] * len(counts), counts, strict=True))

    def _read_kpoints(self):
        try:
            lines = self._lines("KPOINTS")
        except FileNotFoundError:
            return  # KSPACING, which has a default
        try:
            count = int(lines[1].split()[0])
            mode = lines[2].strip()[:1].lower()
            if count > 0 and mode != "l":
                points = [[float(x) for x in line.split()[:4]] for line in lines[3 : 3 + count]]
                good = len(points) == count and all(len(point) == 4 for point in points)
            elif count == 0 and mode in "gm":
                mesh = [int(word) for word in lines[3].split()[:3]]
                good = len(mesh) == 3 and min(mesh) > 0
            else:
                good = bool(mode)
        except (ValueError, IndexError):
            good = False
        if not good:
            raise InputError("Error reading KPOINTS file\nthe error occurred at line: 4")

    def _read_potcar(self):
        try:
            lines = self._lines("POTCAR")
        except OSError as error:
            raise InputError(
                "Fortran runtime error: Cannot open file 'POTCAR': " + str(error.strerror)
            ) from None
        datasets = []
        while any(line.strip() for line in lines):
            dataset, lines = _dataset(lines, len(datasets) + 1)
            datasets.append(dataset)
        if len(datasets) != len(self.blocks):
            raise InputError(
                "ERROR: number of potentials on File POTCAR incompatible with number\n"
                f"of species  INCAR :{len(self.blocks):5d}  POTCAR :{len(datasets):5d}"
            )
        for (name, _), dataset in zip(self.blocks, datasets, strict=True):
            if name and name != dataset["element"]:
                self.warnings += [
                    "WARNING: type information on POSCAR and POTCAR are incompatible",
                    "POTCAR overwrites the type information in POSCAR",
                    f" type information: {name:3s}{dataset['element']:3s}",
                ]
        return datasets


def _volume(cell):
    (a, b, c), (d, e, f), (g, h, i) = cell
    volume = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
    if volume < 0:
        raise InputError(
            "ERROR: the triple product of the basis vectors is negative\n"
            "       exchange two basis vectors"
        )
    if volume < 1e-6:
        raise InputError("ERROR: the volume of the cell on file POSCAR is zero")


def _dataset(lines, number):
    """Take one dataset, and give what is left."""
    where = f"POTCAR, dataset {number}"
    title = lines[0].strip()
    head = next((at for at, line in enumerate(lines) if line.strip() == _END_OF_HEADER), None)
    end = next((at for at, line in enumerate(lines) if line.strip() == "End of Dataset"), None)
    if end is None:
        raise InputError(f"Fortran runtime error: End of file ({where}: {title})")
    if head is None or head > end:
        raise InputError(f"Error reading the header of {where}: {title}")
    header: dict = {}
    for line in lines[2:head]:
        for part in line.split(";"):
            tag, equals, value = part.partition("=")
            if equals:
                header.setdefault(tag.strip(), value.strip())
    missing = [tag for tag in ("TITEL", "LEXCH", "POMASS", "ZVAL") if not header.get(tag)]
    # Twice where another's header was cut before this one.
    begun = sum(_BEGIN_OF_HEADER in line for line in lines[1:head])
    if missing or begun != 1:
        item = f" item '{missing[0]}'" if missing else ""
        raise InputError(f"Error reading{item} in the header of {where}: {title}")
    for line in lines[head + 1 : end]:
        # The next dataset's header: the end of this one is missing.
        if _BEGIN_OF_HEADER in line or not line.rstrip("\r").replace("\t", " ").isprintable():
            raise InputError(f"Fortran runtime error: Bad real number in {where}: {title}")
    try:
        header["ZVAL"] = float(header["ZVAL"].split()[0])
        float(lines[1].split()[0])
    except (ValueError, IndexError):
        raise InputError(f"Error reading item 'ZVAL' in the header of {where}: {title}") from None
    titel = header["TITEL"].split()
    element = header.get("VRHFIN", "").partition(":")[0].strip() or titel[1 % len(titel)]
    header["element"] = element.split("_")[0]
    return header, lines[end + 1 :]


def main():
    """Be VASP, in the current directory, or one of its ranks but the first."""
    rank = _rank()
    if rank:
        return 0
    judge = os.environ.get("STANDIN_JUDGE")
    log = judge or os.environ.get("STANDIN_LOG")
    try:
        asked = Input()
    except InputError as refused:
        print(f" {refused}\n\n  ---->  I REFUSE TO CONTINUE WITH THIS SICK JOB ... BYE!!! <----")
        _note(log, "refused: " + " ".join(str(refused).split()))
        return 1
    _note(log, "accepted")
    if judge:
        return 0
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import warnings

    warnings.simplefilter("ignore")  # standard output and error are VASP's
    from standin_run import run

    return run(asked)


def _rank():
    """Tell which of the ranks this is that Open MPI or Slurm has started; each notes itself."""
    for rank, size in (
        ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
        ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
    ):
        if rank in os.environ and size in os.environ:
            _note("RANKS", f"{os.environ[rank]} of {os.environ[size]}")
            return int(os.environ[rank])
    return 0


def _note(path, verdict):
    if path:
        with open(path, "a", encoding="utf-8") as file:
            file.write(verdict + "\n")


def install(folder, names=("vasp_std", "vasp_gam")):
    """Write VASP's programs into a folder, and give the folder, to put on PATH."""
    os.makedirs(folder, exist_ok=True)
    for name in names:
        path = os.path.join(folder, name)
        with open(path, "w", encoding="utf-8") as file:
            standin = os.path.abspath(__file__)
            file.write(f"#!/bin/sh\nexec '{sys.executable}' -I '{standin}' {name}\n")
        os.chmod(path, 0o755)
    return folder


if __name__ == "__main__":
    sys.exit(main())
