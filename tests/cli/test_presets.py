"""Which presets there are, and what each sets, without quacc being imported."""

import attrs
import pytest

from crystalmath.client import in_process
from crystalmath.errors import InvalidJob


def test_all_of_them_and_one(cli):
    answer = cli("presets")
    assert answer.code == 0
    assert "  ivdw = 12" in answer.lines
    assert any(line.startswith("  setups = of ") for line in answer.lines)
    for name in ("DefaultSetGGA  (VASP, ", "sssp_1.3.0_pbe_efficiency  (pw.x, "):
        assert any(line.startswith(name) for line in answer.lines), name
    # What others only inherit is no preset.
    assert "setups_default  (" not in answer.out
    one = cli("presets", "DefaultSetGGA", "--json").json["presets"]
    assert [each["name"] for each in one] == ["DefaultSetGGA"]
    assert (one[0]["settings"]["ivdw"], one[0]["settings"]["encut"]) == (12, 520)
    assert one[0]["settings"]["setups"]["Ba"] == "Ba_sv"  # of the parent


def test_one_that_there_is_not_is_told_with_those_there_are(cli):
    answer = cli("presets", "DefaultSet")
    assert answer.code == 1
    assert "no preset 'DefaultSet'; did you mean 'DefaultSetGGA'? there are " in answer.err
    assert "DefaultSetGGA" in answer.err


def test_a_folder_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "base.yaml").write_text("inputs:\n  setups:\n    Al: Al\n")
    (tmp_path / "mine.yaml").write_text("inputs:\n  encut: 333\nparent: base\n")
    monkeypatch.setenv("GROUP_DIR", str(tmp_path.parent))
    monkeypatch.setenv("QUACC_VASP_PRESET_DIR", f"$GROUP_DIR/{tmp_path.name}")
    with in_process() as client:
        (mine,) = client.presets("mine")
        assert mine.settings == {"encut": 333, "setups": {"Al": "Al"}}
        assert (mine.program, mine.file) == ("VASP", str(tmp_path / "mine.yaml"))
        assert "base" not in {each.name for each in client.presets()}
        (told,) = client.ask("presets.list", name="mine", settings=False)["presets"]
        assert told == {**attrs.asdict(mine), "settings": {}}
        # A file is read again where it has changed, and what inherits from it with it.
        (tmp_path / "base.yaml").write_text("inputs:\n  setups:\n    Al: Al_GW\n")
        assert client.presets("mine")[0].settings["setups"] == {"Al": "Al_GW"}
        (tmp_path / "bad.yaml").write_text("inputs: [\n")
        with pytest.raises(InvalidJob, match=r"bad\.yaml cannot be read"):
            client.presets()
        monkeypatch.setenv("QUACC_VASP_PRESET_DIR", "~nobody-of-that-name/presets")
        with pytest.raises(InvalidJob, match="no home directory is known for '~nobody"):
            client.presets()
