"""What is known of a pseudopotential file: crystalmath.preflight.files."""

import hashlib
import json
import os
import re
import socket
import sys
import tempfile
import time
import warnings
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from commands import ran, restricted
from crystalmath.preflight.files import LIMIT, facts, signature
from crystalmath.programs.espresso import Espresso
from crystalmath.programs.vasp import Vasp
from vasp.potcars import concatenated, potcar

VASP, ESPRESSO = Vasp(), Espresso()
HEADER_END = "END of PSCTR-controll parameters\n"
GOOD = potcar("Ba_sv", zval=10)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "POTCAR"


def potcar_facts(file, content):
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return facts(str(file), VASP)


# ---- POTCARs that VASP reads ----


def test_a_good_file(file):
    found = potcar_facts(file, GOOD)
    assert found.problem is found.detail is None
    assert (found.element, found.lexch, found.zval) == ("Ba", "PE", 10.0)
    assert found.titel == "PAW_PBE Ba_sv 01Jan2001"
    assert found.sha256 == hashlib.sha256(GOOD.encode()).hexdigest()
    assert found.signature == signature(str(file))
    assert found.hash_holds is None
    assert not found.loose_end


def drop(pattern, text=GOOD):
    return re.sub(pattern, "", text, count=1)


HARMLESS = {
    "crlf": GOOD.replace("\n", "\r\n"),
    "cr": GOOD.replace("\n", "\r"),
    "no VRHFIN": drop(r" *VRHFIN.*\n"),
    "spaces at the ends of lines": GOOD.replace("\n", "   \n").replace(
        HEADER_END.replace("\n", "   \n"), HEADER_END
    ),
    "spaces before nothing": re.sub("(?m)^ *(?!END)", "", GOOD),
    "blank line before the valence": GOOD.replace("\n", "\n\n", 1),
    "valence as Fortran writes it": GOOD.replace("   10.000000000000\n", "  0.1000D+02\n"),
    "an umlaut in the title": GOOD.replace("01Jan2001", "Universität", 1),
    "byte order mark": b"\xef\xbb\xbf" + GOOD.encode(),
    "no blanks around =": GOOD.replace(" = ", "=").replace("   =", "="),
    "unknown keys": GOOD.replace("   LEXCH ", "   FRESH  = 1\n   LEXCH "),
}


@pytest.mark.parametrize("content", HARMLESS.values(), ids=HARMLESS)
def test_harmless_variations(file, content):
    found = potcar_facts(file, content)
    assert found.problem is None, found.detail
    assert (found.element, found.lexch, found.zval) == ("Ba", "PE", 10.0)
    assert not found.loose_end


@pytest.mark.parametrize("end", ["\n\n", "\n \t\n  \n", "", " "])
def test_a_loose_end_is_no_problem_of_the_file_alone(file, end):
    found = potcar_facts(file, GOOD.rstrip("\n") + end)
    assert found.problem is None
    assert found.loose_end is (end != " \n")


# Titles and VRHFINs of VASP's own files, from pymatgen's table.
@pytest.mark.parametrize(
    ("titel", "vrhfin", "element"),
    [
        ("PAW_PBE Zr_sv 04Jan2005", "r: 4s4p5s4d", "Zr"),
        ("PAW Xe 07Sep2000", "X: s2p6", "Xe"),
        ("PAW_PBE H1.25 07Sep2000", "H: ultrasoft test", "H"),
        ("PAW_PBE H.5 07Sep2000", "H: 0.5 electrons", "H"),
        ("US H", "H", "H"),
        ("H", "H: 1s1", "H"),
        ("AE H_AE", "H: 1s1", "H"),
        ("^PAW_PBE Si_sv_GW 25Jan2008", "Si: s2p2", "Si"),
        ("PAW_PBE Ga_d_GW", "Ga: s2p1", "Ga"),
        ("PAW_PBE Al 04Jan2001", "", "Al"),
        ("PAW_PBE Al 04Jan2001", "  Cu : d10 p1", "Cu"),
    ],
)
def test_odd_titles(file, titel, vrhfin, element):
    text = GOOD.replace("PAW_PBE Ba_sv 01Jan2001", titel).replace("Ba: s2p2", vrhfin)
    found = potcar_facts(file, text)
    assert (found.problem, found.titel, found.element) == (None, titel, element)


def summaries():
    """pymatgen's table of all POTCARs that were ever published with VASP."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inputs = pytest.importorskip("pymatgen.io.vasp.inputs")
    return inputs._load_potcar_summary_stats()


def test_the_rules_hold_for_every_official_potcar():
    entries = [each for table in summaries().values() for of in table.values() for each in of]
    assert len(entries) > 4000
    for entry in entries:
        assert {"titel", "lexch", "pomass", "zval"} <= set(entry["keywords"]["header"])
        body = entry["keywords"]["data"]
        assert body[0] == "localpart"
        assert body.count("endofdataset") == 1
        assert body[-1] == "endofdataset"


def test_the_element_of_every_official_potcar(file):
    odd = {"X": "Xe", "r": "Zr"}
    named = {
        each["VRHFIN"].partition(":")[0]
        for table in summaries().values()
        for of in table.values()
        for each in of
    }
    assert len(named) > 80
    for name in named:
        text = GOOD.replace("VRHFIN =Ba:", f"VRHFIN ={name}:")
        assert potcar_facts(file, text).element == odd.get(name, name)


# ---- POTCARs that VASP refuses ----

BAD = {
    "empty": (b"", "empty", None),
    "blank": (b" \n\n\t\n", "empty", "blank lines"),
    "NUL at the end": (GOOD + "\0\0\0", "not_text", "NUL"),
    "NUL in the body": (GOOD.replace("E+02", "E\0", 1), "not_text", "NUL"),
    "UTF-16": (GOOD.encode("utf-16"), "not_text", ""),
    "Latin-1": (GOOD.replace("01Jan", "1J\xe4n").encode("latin-1"), "not_text", "0xe4"),
    "gzip": (b"\x1f\x8b\x08\x08rest of it", "not_text", "0x8b"),
    "control character in the body": (GOOD.replace("E+02", "\x01", 1), "not_text", r"\x01"),
    "a letter of another script in it": (GOOD.replace("E+02", "Е+02", 1), "not_text", "Е"),
    "one line": (b"404 not found\n", "no_header", "END of PSCTR"),
    "blank first line": ("\n" + GOOD, "no_header", "PAW_PBE"),
    "comment first": ("# mine\n" + GOOD, "no_header", "'PAW_PBE Ba_sv 01Jan2001' as"),
    "no title": (GOOD.split("\n", 1)[1], "no_header", "parameters from PSCTR"),
    "no valence": (drop(r"\n.*"), "no_header", "'parameters from PSCTR are:' as"),
    "header cut": (GOOD[:300], "no_header", "END of PSCTR"),
    "header's end indented": (
        GOOD.replace(HEADER_END, f"   {HEADER_END}"),
        "no_header",
        "'END of PSCTR-controll parameters', is indented",
    ),
    "header cut, body there": (GOOD.replace(HEADER_END, ""), "no_header", "END of PSCTR"),
    "no begin": (drop(r" parameters from PSCTR are:"), "no_header", "parameters from PSCTR"),
    "no TITEL": (drop(r" *TITEL.*"), "no_header", "lacks TITEL"),
    "no LEXCH, no POMASS": (drop(" *LEXCH.*", drop("POMASS.*;")), "no_header", "LEXCH, POMASS"),
    "empty ZVAL": (drop(r"(?<=ZVAL   = ).*"), "no_header", "lacks ZVAL"),
    "no number": (
        GOOD.replace("ZVAL   = ", "ZVAL   = x"),
        "no_header",
        "ZVAL in its header is no number",
    ),
    "header cut, another behind it": (GOOD[:300] + "\n" + GOOD, "no_header", "another dataset"),
    "only a header": (GOOD.split("local part")[0], "truncated", "End of Dataset"),
    "body cut": (GOOD[: len(GOOD) * 3 // 4], "truncated", "no line 'End of Dataset'"),
    "end cut": (GOOD[:-5], "truncated", "no line 'End of Dataset'"),
    "no body": (
        re.sub("local part.*End", "\n End", GOOD, flags=re.DOTALL),
        "truncated",
        "no numbers",
    ),
    "cut, another behind it": (GOOD[:1800] + "\n" + GOOD, "truncated", "another dataset begins"),
    "twice": (GOOD * 2, "several", "PAW_PBE Ba_sv 01Jan2001, PAW_PBE Ba_sv 01Jan2001"),
    "elements": (concatenated(["Ba_sv", "O", "Ti_pv"]), "several", "PAW_PBE Ti_pv"),
    "a second one cut": (GOOD + GOOD[:1000], "several", "Ba_sv"),
    "text behind": (GOOD + "# checked by me\n", "stray_text", "'# checked by me' follows the line"),
}


@pytest.mark.parametrize(("content", "problem", "detail"), BAD.values(), ids=BAD)
def test_bad_files(file, content, problem, detail):
    found = potcar_facts(file, content)
    assert found.problem == problem, found.detail
    assert detail is None or detail in found.detail
    assert found.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert found.official is found.hash_holds is None


# ---- whose file it is ----


def hashed(text=GOOD):
    body = hashlib.sha256(text.encode()).hexdigest()
    lines = f"   SHA256 =  {body} Ba_sv/POTCAR\n   COPYR  =  (c) Copyright 01Jan2001 nobody\n"
    return text.replace("   VRHFIN", f"{lines}   VRHFIN", 1)


def test_the_hash_in_the_header(file):
    good = hashed()
    assert potcar_facts(file, good).hash_holds is True
    assert potcar_facts(file, good.replace("\n", "\r\n")).hash_holds is True
    assert potcar_facts(file, good + "\n\n").hash_holds is True
    assert potcar_facts(file, good.replace("nobody", "somebody")).hash_holds is True
    assert potcar_facts(file, good.replace("6.14", "6.15")).hash_holds is not False
    assert potcar_facts(file, good.replace("0.61440880", "0.61440881")).hash_holds is False
    assert potcar_facts(file, good.replace("SHA256 =  ", "SHA256 =  0")).hash_holds is None


def test_official_files(file, monkeypatch):
    table = summaries()
    assert potcar_facts(file, GOOD).official is False
    from pymatgen.io.vasp.inputs import PotcarSingle

    # The old ultrasoft Bi says that it is Pb. No file of VASP's may be here, so it becomes one.
    text = potcar("Bi").replace("VRHFIN =Bi:", "VRHFIN =Pb:")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        single = PotcarSingle(text)
    entry = {"VRHFIN": single.VRHFIN.replace(" ", ""), **single._summary_stats}
    monkeypatch.setitem(table["PBE_64"], single.TITEL.replace(" ", ""), [entry])
    found = potcar_facts(file, text)
    assert (found.official, found.element) == (True, "Bi")
    found = potcar_facts(file, text.replace("0.61440880", "0.71440880"))
    assert (found.official, found.element) == (False, "Pb")


# ---- what is in its place ----


def test_nothing_there(file, tmp_path):
    assert facts(str(file), VASP).problem == "missing"
    assert facts(str(file / "below"), VASP).problem == "missing"
    assert facts(f"{file}\0", VASP).problem == "missing"
    assert facts("", VASP).problem == "missing"
    assert facts("x" * 5000, VASP).detail == "File name too long"
    (tmp_path / "plain").touch()
    assert facts(f"{tmp_path}/plain/POTCAR", ESPRESSO).detail == "Not a directory"
    assert facts(str(file), ESPRESSO).signature is None


def test_only_a_compressed_file(file):
    Path(f"{file}.gz").write_bytes(b"\x1f\x8b")
    assert facts(str(file), VASP).problem == "missing"
    Path(f"{file}.Z").write_bytes(b"\x1f\x9d")
    assert facts(str(file), VASP).problem == "compressed"
    assert facts(f"{file}.Z", VASP).problem == "compressed"
    assert facts(str(file), ESPRESSO).problem == "missing"


def test_links(file, tmp_path):
    file.symlink_to("gone")
    found = facts(str(file), VASP)
    assert (found.problem, found.detail) == ("broken_link", "it points to gone")
    (tmp_path / "gone").symlink_to("POTCAR")
    assert facts(str(file), VASP).problem == "link_loop"
    (tmp_path / "gone").unlink()
    (tmp_path / "gone").write_text(GOOD)
    assert facts(str(file), VASP).problem is None


def test_things_that_are_no_files(file, tmp_path):
    file.mkdir()
    assert facts(str(file), VASP).detail == "it is a folder"
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero", "/dev/null", "/dev/tty"):
        assert facts(str(path), VASP).problem == "not_a_file"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        assert facts(str(tmp_path / "socket"), ESPRESSO).problem == "not_a_file"


def characters_read():
    return int(Path("/proc/self/io").read_text().split()[1])


def test_a_huge_file_is_not_read(file):
    with file.open("wb") as handle:
        handle.truncate(2 << 30)
    before = characters_read()
    found = facts(str(file), VASP)
    assert characters_read() - before < 100_000
    assert (found.problem, found.sha256) == ("not_text", None)
    assert "2147 MB" in found.detail
    os.truncate(file, LIMIT)
    assert facts(str(file), ESPRESSO).problem in {"empty", None}


RESTRICTED = """
import json, os
from pathlib import Path
from crystalmath.preflight.files import facts
from crystalmath.programs.vasp import Vasp
answers = {}
place = os.environ["PLACE"]
for name, path in {"file": place + "/a/POTCAR", "folder": place + "/a", "parent": place}.items():
    before = Path(path).stat().st_mode
    Path(path).chmod(0)
    try:
        found = facts(place + "/a/POTCAR", Vasp())
        answers[name] = [found.problem, found.detail]
    finally:
        Path(path).chmod(before)
print(json.dumps(answers))
"""


def test_unreadable_files(tmp_path):
    command = (*restricted(), sys.executable, "-c", RESTRICTED)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "POTCAR").write_text(GOOD)
    done = ran(*command, check=True, timeout=60, env=os.environ | {"PLACE": str(tmp_path)})
    refused = ["unreadable", "Permission denied"]
    assert json.loads(done.stdout) == dict.fromkeys(("file", "folder", "parent"), refused)


# ---- a file that changes ----


def age(path, seconds=10):
    """Let a file be an old one: what was read of it is remembered then."""
    before = time.time() - seconds
    os.utime(path, (before, before))
    time.sleep(0.06)  # the time of its change cannot be set


def test_a_changed_file_is_read_again(file, tmp_path, monkeypatch):
    potcar_facts(file, GOOD)
    age(file)
    first = facts(str(file), VASP)
    assert facts(str(file), VASP) is first
    assert facts(str(file), ESPRESSO) != first
    times = file.stat()
    file.write_text(potcar("Ca_sv", zval=10))  # as long, and as old
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert facts(str(file), VASP).element == "Ca"
    other = tmp_path / "other"
    other.write_text(GOOD)
    age(other)
    other.rename(file)
    assert facts(str(file), VASP).element == "Ba"
    file.unlink()
    assert facts(str(file), VASP).problem == "missing"
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        Path("POTCAR").write_text(potcar("Al" if name == "a" else "Cu"))
        age("POTCAR")
        assert facts("POTCAR", VASP).element == ("Al" if name == "a" else "Cu")


# ---- Quantum ESPRESSO ----

UPF = """<UPF version="2.0.1">
<PP_INFO>
Element: Fe; as said in <PP_NOTHING> here
</PP_INFO>
<PP_HEADER comment="a > b" element=" si" z_valence="  4.00E+00"
 core="F"/>
<PP_MESH dx="1.25e-2"><PP_R type="real">0.1 0.2</PP_R></PP_MESH>
<PP_LOCAL>1.0 2.0</PP_LOCAL>
<PP_RHOATOM size='2'>
1.0 2.0
</PP_RHOATOM>
</UPF>
"""


def upf_facts(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return facts(str(path), ESPRESSO)


def test_a_upf_file(tmp_path):
    found = upf_facts(tmp_path / "a.UPF", UPF)
    assert (found.problem, found.element, found.zval) == (None, "Si", 4.0)
    assert found.sha256 == hashlib.sha256(UPF.encode()).hexdigest()


# As pw.x 6.7 was seen to do with files of its own.
@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (UPF.replace("</UPF>\n", ""), None),
        (UPF + "anything", None),
        ("\n\n" + UPF, None),
        ('<?xml version="1.0"?>\n' + UPF, None),
        (UPF.replace("\n", "\r\n"), None),
        (UPF.replace("said", "\0\xff").encode("latin-1"), None),
        ("", "empty"),
        (" \n\n", "empty"),
        ("garbage\n", "no_header"),
        (UPF.split("</PP_RHO", maxsplit=1)[0], "truncated"),
        (UPF.split("2.0\n</PP_RHO", maxsplit=1)[0], "truncated"),
        (UPF.split("</PP_RHO", maxsplit=1)[0] + "</UPF>\n", "truncated"),
        (UPF.split("<PP_LOCAL", maxsplit=1)[0], "truncated"),
        (UPF.split("</PP_INFO", maxsplit=1)[0], "truncated"),
    ],
)
def test_what_pw_x_reads(tmp_path, content, problem):
    assert upf_facts(tmp_path / "Si.upf", content).problem == problem


def test_other_formats_are_left_alone(tmp_path):
    for name in ("Si.van", "Si.RRKJ3", "Si.bhs", "Si.pz-mt", "Si"):
        found = upf_facts(tmp_path / name, "'PZ'\n'Si',4.0,2,2,3,.f.,2,.t.\n")
        assert (found.problem, found.element) == (None, None)
        assert upf_facts(tmp_path / name, "").problem == "empty"


# ---- any file ----

MUTATIONS = st.lists(
    st.tuples(
        st.sampled_from(["drop", "insert", "double", "cut", "swap"]),
        st.integers(0, 110),
        st.sampled_from(["", "\0", " ", "x", "=", ";", "END", " End of Dataset", "é", "\r"]),
    ),
    min_size=1,
    max_size=3,
)


def mutated(text, mutations):
    lines = text.split("\n")
    for how, number, what in mutations:
        at = number % max(len(lines), 1)
        if how == "drop":
            del lines[at : at + 1]
        elif how == "insert":
            lines.insert(at, what)
        elif how == "double":
            lines[at:at] = lines[at : at + 1]
        elif how == "cut":
            del lines[at + 1 :]
        elif lines:
            lines[at] = lines[at][: len(lines[at]) // 2] + what
    return "\n".join(lines)


def pymatgen_reads(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inputs = pytest.importorskip("pymatgen.io.vasp.inputs")
        try:
            inputs.Potcar.from_file(str(path))
        except Exception:  # noqa: BLE001 - whatever custodian would die of
            return False
    return True


@given(MUTATIONS, st.sampled_from(["Al", "Ba_sv", "H.5"]))
@example([("insert", 1, ""), ("swap", 94, "=")], "Al")
def test_what_is_called_good_can_be_read(mutations, setup):
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "POTCAR")
        path.write_text(mutated(potcar(setup), mutations), encoding="utf-8", newline="")
        found = facts(str(path), VASP)
        if found.problem is None:
            text = path.read_text(encoding="utf-8")  # as ASE reads it
            # VASP reads more than pymatgen: whether custodian dies, the recipe's asking tells.
            split = text.count("End of Dataset") > 1
            assert pymatgen_reads(path) or found.official is None or split
            assert None not in (found.titel, found.lexch, found.zval, found.sha256)
        else:
            assert re.fullmatch(r"\w+", found.problem)


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_any_content_is_answered(content):
    with tempfile.TemporaryDirectory() as name:
        for kind, suffix in ((VASP, ""), (ESPRESSO, ".UPF")):
            path = Path(name, f"any{suffix}")
            path.write_bytes(content)
            assert facts(str(path), kind).problem in {"empty", "not_text", "no_header", "truncated"}
