"""Tests of an engine's plugin before it is used, and of the interface of its runner."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from attrs import evolve

from crystalmath.models import Finding
from crystalmath.models.capabilities import OF_CORE
from crystalmath.quacc.engine import EngineRunner
from crystalmath.quacc.runner import JobRunner
from crystalmath.testing.contract.base import Base
from crystalmath.testing.contract.clusters import findings_of, objections

if TYPE_CHECKING:
    from crystalmath.testing.contract.base import Kit

#: Hides a library as if it were not installed: ``python -c HIDE LIBRARY CODE``.
HIDE = """
import sys
library, code = sys.argv[1:3]

class Hidden:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] != library:
            return self.finder.find_spec(name, path, target)

sys.meta_path[:] = [Hidden(finder) for finder in sys.meta_path]
sys.argv[1:] = sys.argv[3:]
exec(code)
"""

LIST = "from crystalmath.cli import main; main()"

MAKE = """
import sys
from crystalmath.quacc import get_runner
try:
    get_runner(sys.argv[1])
except ImportError as error:
    print(error)
else:
    sys.exit("a runner was made without the library")
"""

#: A key of the engine's table in the configuration file that no engine has.
UNKNOWN_OPTION = "an_option_that_nobody_knows"


class Hygiene(Base):
    """A plugin imports and starts nothing early, and its runner has the right interface."""

    guide: ClassVar[str] = "The plugin"

    def test_runner_is_an_engine_runner(self, kit: Kit) -> None:
        """The plugin makes an `EngineRunner` with the settings that it was passed."""
        assert isinstance(kit.runner, EngineRunner)
        assert kit.runner.settings.name == kit.engine.name
        assert kit.runner.settings.home == kit.home
        own = {name: v for name, v in kit.engine.options.items() if name not in OF_CORE}
        assert dict(kit.runner.settings.options) == own

    @pytest.mark.parametrize("method", ["submit", "get_status", "get_result", "cancel"])
    def test_signatures(self, kit: Kit, method: str) -> None:
        """The four methods take the parameters of `JobRunner`."""
        signature, promised = (
            [(each.name, each.kind) for each in inspect.signature(one).parameters.values()]
            for one in (getattr(type(kit.runner), method), getattr(JobRunner, method))
        )
        assert signature == promised

    def test_clusters(self, kit: Kit) -> None:
        """`clusters()` returns different names, of which the first is `local`."""
        clusters = list(kit.runner.clusters())
        assert clusters[0] == "local", "the default must be `local`"
        assert all(type(name) is str for name in clusters), clusters
        assert all(clusters), clusters
        assert len(set(clusters)) == len(clusters)

    @pytest.mark.parametrize("method", ["capabilities_of", "honoured", "runs_here", "cores"])
    def test_questions_about_a_cluster_that_was_taken_out(self, kit: Kit, method: str) -> None:
        """These methods answer for a removed cluster as well, because jobs may wait for it."""
        try:
            getattr(kit.runner, method)("taken-out")
        except Exception as error:
            raise AssertionError(
                f"{method}('taken-out') raised {error!r}: answer for every name, because a cluster "
                "may be removed from the configuration while its jobs wait "
                "(docs/engine-contract.md, 'Clusters and resources')"
            ) from error

    def test_findings(self, kit: Kit) -> None:
        """An engine that runs the kit's jobs reports no error in its findings."""
        findings = findings_of(kit.engine, kit.home)
        assert all(isinstance(finding, Finding) for finding in findings), findings
        errors = [str(finding) for finding in findings if finding.severity != "warning"]
        assert not errors, f"the engine runs the kit's jobs, and reports errors: {errors}"

    def test_an_unknown_option_is_refused(
        self, kit: Kit, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Otherwise a misspelt option would be ignored silently."""
        home = tmp_path_factory.mktemp("options")
        evolve(kit.engine, options={**kit.engine.options, UNKNOWN_OPTION: 1}).configure(home)
        monkeypatch.setenv("CRYSTALMATH_HOME", str(home))
        messages = objections(kit.engine, home)
        assert any(UNKNOWN_OPTION in each for each in messages), (
            f"with `{UNKNOWN_OPTION} = 1` in its table of config.toml the engine has no error in "
            "its findings that names this key, and makes a runner: settings.check_options refuses "
            "options that you do not know (docs/engine-contract.md, 'The plugin')"
        )

    @pytest.fixture
    def library(self, kit: Kit) -> str:
        """Return the library to hide."""
        if kit.engine.library is None:
            pytest.skip("EngineUnderTest.library names no library, which a test could hide")
        return kit.engine.library

    def test_listed_without_its_library(self, kit: Kit, library: str) -> None:
        """`crystalmath engines` lists the engine, with a finding about the missing library."""
        document = json.loads(_python("-c", HIDE, library, LIST, "engines", "--json"))
        engines = {entry["name"]: entry for entry in document["engines"]}
        assert kit.engine.name in engines
        entry = engines[kit.engine.name]
        assert entry["loads"], entry["error"]
        assert entry["findings"], "it has no finding about its missing library"

    def test_missing_library_is_named(self, kit: Kit, library: str) -> None:
        """Making a runner then raises an `ImportError` that names the library."""
        message = _python("-c", HIDE, library, MAKE, kit.engine.name)
        assert library in message.lower(), f"the message does not name {library!r}: {message}"

    def test_nothing_is_written_to_standard_output(self, kit: Kit) -> None:
        """Front ends read a document from standard output, so an engine must not write there."""
        process = kit.owner()
        (job_id,) = process.ask("submit", "echo")
        what = "it did not finish"
        kit.eventually(lambda: process.ask("status", job_id) == "completed", what)
        process.ask("close")
        process.leave()
        written = process.output.strip()
        assert not written, f"your engine wrote `{written}` to standard output"


def _python(*arguments: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-P", *arguments],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=600,  # long, because many engines may be installed on a busy machine
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
