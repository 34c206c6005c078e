"""The libraries of the page are named by a lock of npm, and are no part of the repository."""

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import pytest

from crystalmath.errors import CrystalMathError

app = pytest.importorskip("crystalmath_web.app", reason="crystalmath-web is not installed")

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "packages/web"
VENDOR = app.PAGE / "vendor"
LOCK = json.loads((PACKAGE / "package-lock.json").read_text(encoding="utf-8"))
LOCKED = {folder: package for folder, package in LOCK["packages"].items() if folder}
PROJECT = tomllib.loads((PACKAGE / "pyproject.toml").read_text(encoding="utf-8"))
TABLES = PROJECT["tool"]["hatch"]["build"]["hooks"]["custom"]
#: An import of a module, as a statement or at run time.
IMPORT = re.compile(r"""(?:\bfrom|\bimport)\s*\(?\s*(["'])([^"'\s]+)\1""")
#: No line that a person has written is longer.
LONGEST = 250


def _package_of(path):
    """Return the package of npm that a path belongs to: `@preact/signals` of its `dist/...`."""
    parts = PurePosixPath(path).parts
    return "/".join(parts[: 2 if path[0] == "@" else 1])


def test_the_lock_has_exactly_the_packages_that_the_page_uses():
    declared = json.loads((PACKAGE / "package.json").read_text(encoding="utf-8"))
    assert declared["private"]
    assert LOCK["packages"][""]["dependencies"] == declared["dependencies"]
    used = {_package_of(source) for source in TABLES["files"].values()}
    assert used == declared["dependencies"].keys()
    for name, version in declared["dependencies"].items():
        # A range would be a version of the day, here and in the lock.
        assert re.fullmatch(r"\d+\.\d+\.\d+", version), name
        assert LOCKED[f"node_modules/{name}"]["version"] == version


def test_each_package_comes_from_the_public_registry_and_has_a_hash():
    for folder, package in LOCKED.items():
        # npm puts the mirror of a machine in place of this host, but of no other one.
        where = urlsplit(package["resolved"])
        assert (where.scheme, where.netloc.split(".")) == ("https", ["registry", "npmjs", "org"])
        assert where.path.startswith(f"/{folder.rpartition('node_modules/')[2]}/-/"), folder
        assert re.fullmatch(r"sha512-[\w+/]{86}==", package["integrity"]), folder
        assert "hasInstallScript" not in package, folder


def test_the_files_are_those_of_the_lock():
    licences = {
        f"licences/{folder.rpartition('node_modules/')[2].lstrip('@').replace('/', '-')}"
        f"-{package['version']}.txt"
        for folder, package in LOCKED.items()
    }
    files = {
        path.relative_to(VENDOR).as_posix() for path in VENDOR.rglob("[!.]*") if path.is_file()
    }
    # After another lock, install packages/web again: `uv pip install --no-deps -e packages/web`.
    assert files == {"stamp.txt", "npm.cdx.json", *TABLES["files"], *licences}
    for name in licences:
        text = (VENDOR / name).read_text(encoding="utf-8")
        assert re.search(r"Copyright|Apache License", text), name
        assert len(text) > 1000, name


def test_the_metadata_name_all_licences():
    licences = {"Apache-2.0"}
    for package in LOCKED.values():
        licences |= set(package["license"].strip("()").split(" AND "))
    assert PROJECT["project"]["license"] == " AND ".join(sorted(licences))


def test_every_import_of_the_page_leads_to_a_file():
    checked = 0
    for path in app.PAGE.rglob("*.js"):
        for _, target in IMPORT.findall(path.read_text(encoding="utf-8")):
            assert target.startswith("./"), f"{path} imports {target!r}"
            assert (path.parent / target).is_file(), f"{path} imports {target!r}"
            checked += 1
    index = (app.PAGE / "index.html").read_text(encoding="utf-8")
    for target in re.findall(r'(?:href|src)="/page/([^"]+)"', index):
        assert (app.PAGE / target).is_file(), target
        checked += 1
    assert checked > 50


def test_no_code_of_others_is_in_the_repository():
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("this is no clone, or git is not installed")
    command = ["git", "-C", ROOT, "ls-files", "-z", "*.js", "*.mjs", "*.css", "**/vendor/**"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    tracked = [ROOT / name for name in done.stdout.split("\0") if name]
    assert PACKAGE / "src/crystalmath_web/page/main.js" in tracked
    for path in tracked:
        assert path.parent.name != "vendor", path
        assert path.parent.parent.name != "vendor", path
        if path.exists():
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"@license|Copyright|sourceMappingURL", text), path
            assert max(map(len, text.splitlines())) <= LONGEST, path


def test_a_page_without_its_libraries_is_refused_with_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setattr(app, "PAGE", tmp_path)
    with pytest.raises(CrystalMathError, match=r"lacks the libraries .*`pip install ./packages/"):
        app.create_app(None, app.Secrets())
