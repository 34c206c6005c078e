"""The structures of a command: files, frames, patterns; what they are called."""

import re
from pathlib import Path

import ase.io
import numpy as np
import pytest
import typer
from ase.build import bulk, fcc111
from ase.constraints import FixAtoms, FixScaled

from crystalmath.cli.shared.structure_files import (
    names_one,
    put_together,
    read_document,
    read_documents,
)
from crystalmath.errors import InvalidJob
from crystalmath.recipes.structures import parse_structure, read_structures, to_ase_json


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name, *metals, **more):
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    ase.io.write(name, [bulk(metal) for metal in metals], **more)


def read(*texts):
    return {
        name: str(parse_structure(document).symbols) for name, document in read_documents(texts)
    }


def test_all_frames_of_all_files_in_order(here):
    write("Cu.xyz", "Cu")
    write("path.extxyz", "Al", "Ag", "Au")
    found = read("path.extxyz", "Cu.xyz")
    assert found == {"path-0": "Al", "path-1": "Ag", "path-2": "Au", "Cu": "Cu"}
    assert list(found) == ["path-0", "path-1", "path-2", "Cu"]
    assert read("path.extxyz@1", "path.extxyz@-1") == {"path-1": "Ag", "path-2": "Au"}


def test_a_pattern_names_what_it_leaves_open(here):
    for metal in ("Cu", "Al"):
        write(f"runs/{metal}/POSCAR", metal, format="vasp")
        write(f"runs/deep/{metal}.cif", metal)
    assert read("runs/*/POSCAR") == {"Al/POSCAR": "Al", "Cu/POSCAR": "Cu"}
    assert read(str(here / "runs" / "**" / "*.cif")) == {"deep/Al": "Al", "deep/Cu": "Cu"}
    assert list(read("runs/deep/*")) == ["Al", "Cu"]


def test_the_name_of_one_file_does_not_depend_on_how_many_fit(here):
    write("runs/Al/POSCAR", "Al", format="vasp")
    assert list(read("runs/*/POSCAR")) == ["Al/POSCAR"]


def test_files_that_would_share_a_name_are_named_by_their_paths(here):
    for metal in ("Cu", "Al"):
        write(f"{metal}/POSCAR", metal, format="vasp")
    assert read("Cu/POSCAR", "Al/POSCAR") == {"Cu/POSCAR": "Cu", "Al/POSCAR": "Al"}
    write("Al/POSCAR.cif", "Al")
    assert set(read("Al/POSCAR", "Al/POSCAR.cif")) == {"Al/POSCAR", "Al/POSCAR.cif"}


def test_a_file_whose_name_is_a_pattern_is_that_file(here):
    write("odd[1].xyz", "Cu")
    assert read("odd[1].xyz") == {"odd[1]": "Cu"}
    assert names_one(["odd[1].xyz"])
    assert not names_one(["odd*.xyz"])


def test_one_that_cannot_be_read_hinders_no_other(here):
    write("Cu.xyz", "Cu")
    (here / "bad.xyz").write_text("junk")
    pairs = list(read_documents(["bad.xyz", "Cu.xyz", "Cu.xyz@7"]))
    assert [isinstance(document, InvalidJob) for _, document in pairs] == [True, False, True]
    assert "none numbered 7" in str(pairs[2][1])


def test_one_bad_frame_of_a_file_hinders_no_other(here):
    frames = [bulk("Cu") for _ in range(3)]
    frames[1].positions[0, 0] = float("nan")
    ase.io.write("path.extxyz", frames)
    pairs = dict(read_documents(["path.extxyz"]))
    assert list(pairs) == ["path-0", "path-1", "path-2"]
    refused = [isinstance(document, InvalidJob) for document in pairs.values()]
    assert refused == [False, True, False]
    words = r"path\.extxyz: frame 1, counted from 0: the structure's positions hold .* not finite"
    assert re.fullmatch(words, str(pairs["path-1"]))
    assert list(read("path.extxyz@2")) == ["path-2"]
    with pytest.raises(InvalidJob, match="frame 1, counted from 0"):
        read_document("path.extxyz@1")
    with pytest.raises(InvalidJob, match="frame 1, counted from 0"):
        put_together([*pairs.items()])


@pytest.mark.parametrize("text", ["nowhere.xyz", "*.nothing", "runs"])
def test_what_is_not_there_is_wrong_usage_before_anything_is_read(here, text):
    (here / "runs").mkdir()
    with pytest.raises(typer.BadParameter, match="no file|is a folder"):
        read_documents([text])


def test_what_may_have_been_meant_is_said(here):
    write("path.xyz", "Cu", "Al")
    with pytest.raises(typer.BadParameter, match=r"no file 'path\.xyz@0:3'; path\.xyz@N is one"):
        read_documents(["path.xyz@0:3"])
    (here / "runs").mkdir()
    with pytest.raises(typer.BadParameter, match=r"'runs' is a folder.*by 'runs/\*'"):
        read_document("runs")


def test_a_reader_that_says_nothing_is_put_into_words(here):
    (here / "broken.cif").write_text("junk\n")
    with pytest.raises(InvalidJob, match=r"broken\.cif: it is damaged, or not in the format"):
        read_document("broken.cif")
    ase.io.write("plain", bulk("Cu"), format="vasp")
    _, *lines = (here / "plain").read_text().splitlines(keepends=True)
    (here / "POSCAR").write_text("".join(["cell\n", *lines[:4], *lines[5:]]))
    with pytest.raises(InvalidJob, match="the POSCAR names no elements; add the line of symbols"):
        read_document("POSCAR")


@pytest.mark.parametrize(
    ("line", "text", "words"),
    [
        (2, "abc", "line 2 must be its scale, and is 'abc'; give a POSCAR, CIF, XYZ"),
        (4, "0.0", "line 4 of the POSCAR must hold three numbers, and is '0.0'"),
        (5, "1 2 x", "line 5 of the POSCAR must hold three numbers, and is '1 2 x'"),
        (6, "abc", r"there is no element 'abc' \(line 6\)"),
        (7, "one", "it has no line of atom counts where one belongs"),
        (7, "9999", "the POSCAR announces 9999 atoms and has 9 lines in all"),
        (9, "0 0", "line 9 of the POSCAR must hold three numbers, and is '0 0'"),
    ],
)
def test_the_line_of_a_damaged_poscar_is_said(here, line, text, words):
    ase.io.write("POSCAR", bulk("Cu"), format="vasp")
    lines = (here / "POSCAR").read_text().splitlines()
    lines[line - 1] = text
    (here / "POSCAR").write_text("\n".join(lines))
    with pytest.raises(InvalidJob, match=rf"POSCAR: .*{words}"):
        read_structures("POSCAR")


def test_a_text_that_holds_no_structure_is_answered_with_what_does(here):
    (here / "README.md").write_text("# A heading\n\n- a line\n")
    with pytest.raises(InvalidJob, match=r"README\.md holds no structure; give a POSCAR, CIF, XYZ"):
        read_document("README.md")


@pytest.mark.parametrize(
    ("at", "line", "words"),
    [
        (8, "Cu 0 bad 0\n", r"ASE .* path\.xyz: frame 1, counted from 0: line 9: .*'bad'"),
        (7, 'Lattice="1 0 0"\n', r"ASE .* path\.xyz: frame 1, counted from 0: it is damaged"),
        (8, "Qq 0 0 0\n", r"path\.xyz: frame 1, .* no element 'Qq' \(line 9\)"),
        (8, "", r"path\.xyz: line 13 must be .* atoms of frame 2, .* and is Lattice=.* before it"),
        (
            17,
            "",
            r"announces 4 atoms in line 13; 3 lines follow in frame 2, counted from 0",
        ),
    ],
)
def test_where_a_trajectory_is_damaged_is_said(here, at, line, words):
    ase.io.write("path.xyz", [bulk("Cu", cubic=True)] * 3, format="extxyz")
    lines = (here / "path.xyz").read_text().splitlines(keepends=True)
    (here / "path.xyz").write_text("".join([*lines[:at], line, *lines[at + 1 :]]))
    with pytest.raises(InvalidJob, match=words):
        read_document("path.xyz")


def test_a_large_file_that_is_no_structure_is_not_read(here):
    def characters_read():
        return int(Path("/proc/self/io").read_text().split()[1])

    for name in ("WAVECAR", "path.traj"):
        with Path(name).open("wb") as file:
            file.truncate(2**28)
        with pytest.raises(InvalidJob, match=f"ASE cannot read a structure from {name}: "):
            read_document(name)
        before = characters_read()
        with pytest.raises(InvalidJob):
            read_document(name)
        assert characters_read() - before < 2**20, name


def test_which_block_of_a_cif_is_damaged_is_said(here):
    ase.io.write("two.cif", [bulk("Cu"), bulk("Al")])
    text = (here / "two.cif").read_text()
    for end, place in (
        ("  Al  Al1", "block data_image1: it is damaged"),
        ("1.0", "after the block data_image0: "),
    ):
        (here / "two.cif").write_text(text[: text.rindex(end)])
        with pytest.raises(InvalidJob, match=rf"two\.cif: {place}"):
            read_document("two.cif@0")


def slab():
    atoms = fcc111("Al", (1, 2, 3), vacuum=5.0)
    atoms.set_constraint([FixAtoms([0, 1]), FixScaled(2, [True, False, True])])
    return atoms


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("atoms", [bulk("Cu"), bulk("NaCl", "rocksalt", a=5.64), slab()])
def test_the_text_of_a_poscar_is_what_ase_reads_of_it(here, atoms, direct):
    rattled = atoms.copy()
    rattled.positions += np.linspace(0, 0.1, atoms.positions.size).reshape(-1, 3)
    ase.io.write("POSCAR", rattled, format="vasp", direct=direct)
    name, document = read_document("POSCAR")
    assert name == "POSCAR"
    assert isinstance(document, str)
    assert to_ase_json(parse_structure(document)) == to_ase_json(ase.io.read("POSCAR"))


@pytest.mark.parametrize(
    "name", ["POSCAR", "Al.poscar", "CONTCAR_2", "CONTCAR.cif", "x.vasp", "POSCAR.gz"]
)
def test_what_is_no_plain_poscar_is_read_by_ase(here, name):
    # The elements are missing, as in files of VASP 4: ASE looks into the comment for them.
    ase.io.write("plain", bulk("Cu"), format="vasp")
    lines = (here / "plain").read_text().splitlines(keepends=True)
    if name.endswith(".cif"):
        write(name, "Cu")
    elif name.endswith((".gz", ".vasp")):
        ase.io.write(name, bulk("Cu"), format="vasp")
    else:
        (here / name).write_text("".join(["Cu\n", *lines[1:5], *lines[6:]]))
    document = read_document(name)[1]
    assert isinstance(document, dict)
    assert str(parse_structure(document).symbols) == "Cu"
