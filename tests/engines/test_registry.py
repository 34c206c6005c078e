"""Finding, loading and refusing plugins, with distributions that are really on the path."""

import sys
from pathlib import Path

import pytest

from crystalmath import config
from crystalmath.engines.registry import Plugins, how_to_install
from crystalmath.errors import InvalidJob, PluginError, UnknownEngine
from crystalmath.quacc import engines, get_runner
from crystalmath.quacc.engines import describe_engines, get_installed_engines, get_workflow_engine
from crystalmath.running.engine_pool import Runners

ROOT = Path(__file__).parents[2]
ENGINE = """
from crystalmath.hookspecs import hookimpl
from crystalmath.quacc.engine import EngineRunner

class Runner(EngineRunner):
    def launch(self, attempts):
        return {attempt.id: attempt.id for attempt in attempts}

@hookimpl
def crystalmath_make_runner(settings):
    return Runner(settings)
"""


def test_an_engine_that_core_never_heard_of(install):
    install("strangers-engine", "strange", ENGINE)
    assert "strange" in get_installed_engines()
    assert type(get_runner("strange")).__name__ == "Runner"


def test_what_was_installed_at_the_last_look_is_known_without_another(install):
    plugins = Plugins()
    before = plugins.engine_names()
    install("later-engine", "later", ENGINE)
    assert plugins.known_engine_names() == before
    assert plugins.engine_names() == plugins.known_engine_names() == sorted([*before, "later"])


def test_an_engine_that_is_installed_while_we_run(install, tmp_path):
    with pytest.raises(UnknownEngine):
        get_runner("later")
    install("later-engine", "later", ENGINE)
    assert "later" in get_installed_engines()
    assert type(get_runner("later")).__name__ == "Runner"
    # As an editable one, whose folder is on the path of new processes alone.
    module = install("editable-engine", "editable", ENGINE)
    (tmp_path / f"{module}.py").unlink()
    with pytest.raises(ImportError, match=f"{module}.*installed while.*`crystalmath stop` ends"):
        get_runner("editable")


def test_an_unknown_engine_names_those_that_are_installed():
    with pytest.raises(UnknownEngine, match=r"'nonesuch'.*local.*crystalmath engines") as refused:
        get_runner("nonesuch")
    # Anybody could register the name of a package that we do not publish.
    assert "pip install" not in str(refused.value)


def test_the_package_of_an_engine_that_is_not_installed_is_named():
    ours = [path.name for path in (ROOT / "packages").glob("engine-*")]
    assert ours
    for package in ours:
        name = package.removeprefix("engine-")
        assert f"crystalmath-{package}" in how_to_install(name)
    assert "crystalmath-engine-my-pool" in how_to_install("my_pool")
    assert "crystalmath-engine" not in how_to_install("no; engine")
    assert "crystalmath-engine" not in (slurm := how_to_install("slurm"))
    assert "--cluster NAME" in slurm
    assert "`crystalmath clusters init slurm`" in slurm


def test_engines_that_are_not_there_leave_nothing_behind():
    runners = Runners(config.load, lambda changes: None)
    for number in range(3):
        with pytest.raises(UnknownEngine):
            runners.get(f"nonesuch{number}")
        with pytest.raises(UnknownEngine):
            get_runner(f"nonesuch{number}")
    assert runners._loadings == {}
    assert not [key for key in engines._locks if key[2].startswith("nonesuch")]


def test_a_plugin_that_cannot_load_hinders_nothing_else(install):
    install("broken-engine", "broken", "import no_such_library\n")
    info = {info.name: info for info in describe_engines()}
    assert info["broken"].loads is False
    assert "no_such_library" in info["broken"].error
    assert info["local"].loads is True
    with pytest.raises(ImportError, match="no_such_library") as caught:
        get_runner("broken")
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_duplicates_are_refused_by_naming_both(install):
    install("first-engine", "twice", ENGINE)
    install("second-engine", "twice", ENGINE)
    with pytest.raises(PluginError, match="first-engine.*second-engine"):
        get_runner("twice")
    assert {info.name: info for info in describe_engines()}["local"].loads is True


def test_a_misspelt_hook_is_refused(install):
    install("typo-engine", "typo", ENGINE.replace("make_runner", "make_runer"))
    with pytest.raises(PluginError, match="typo-engine"):
        get_runner("typo")
    assert get_runner("local") is get_runner("local")


def test_anything_but_an_engine_runner_is_refused(install):
    install("wrong-engine", "wrong", ENGINE.replace("return Runner(settings)", "return 'me'"))
    with pytest.raises(PluginError, match="'me'"):
        get_runner("wrong")


PREFLIGHT = """
from crystalmath.hookspecs import hookimpl
from crystalmath.models import Finding, Pseudopotential

@hookimpl
def crystalmath_preflight(recipe, atoms):
    return [Finding(severity="warning", code="mine", message=recipe)]

@hookimpl
def crystalmath_pseudopotentials(environment):
    return [Pseudopotential(symbol="X", setup="X", path=environment["FILE"], sha256="0")]
"""


def test_a_strangers_preflight_check(install):
    install("strangers-check", "mine", PREFLIGHT, group="crystalmath.plugins")
    install("broken-check", "broken", "raise RuntimeError('no')\n", group="crystalmath.plugins")
    plugins = Plugins()
    job = {"recipe": "quacc.recipes.emt.core.static_job", "atoms": None, "parameters": {}}
    job["document"] = "{}"
    found = plugins.preflight(**job, environment={})
    assert [finding.code for finding in found] == ["plugin_unusable", "mine"]
    assert "'broken' of 'broken-check' cannot be used" in found[0].message
    assert "RuntimeError: no" in found[0].message
    (file,) = plugins.pseudopotentials(**job, environment={"FILE": "/x"})
    assert file.path == "/x"
    assert str(plugins.broken["broken"]).endswith("cannot be imported: RuntimeError: no")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise KeyError('a')", "KeyError: 'a'"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("return 7", "TypeError: 'int' object is not iterable"),
        ("return ['text']", "returned 'text', and not a Finding"),
    ],
)
def test_a_check_that_fails_is_named_and_the_others_are_asked(install, monkeypatch, body, said):
    monkeypatch.delitem(sys.modules, "failing_check_plugin", raising=False)
    hook = "from crystalmath.hookspecs import hookimpl\n@hookimpl\ndef crystalmath_preflight():\n"
    install("failing-check", "failing", f"{hook}    {body}\n", group="crystalmath.plugins")
    install("strangers-check", "mine", PREFLIGHT, group="crystalmath.plugins")
    job = {"recipe": "quacc.recipes.emt.core.static_job", "atoms": None, "parameters": {}}
    failed, mine = Plugins().preflight(**job, environment={}, document="")
    assert (failed.severity, failed.code, mine.code) == ("warning", "plugin_failed", "mine")
    assert "the plugin 'failing' of 'failing-check' failed in crystalmath_preflight" in (
        failed.message
    )
    assert said in failed.message


def test_a_check_may_refuse_by_an_exception_of_ours(install):
    refuse = PREFLIGHT.replace("return [Finding", "raise InvalidJob('no')\n    return [Finding")
    refuse = "from crystalmath.errors import InvalidJob\n" + refuse
    install("strict-check", "strict", refuse, group="crystalmath.plugins")
    with pytest.raises(InvalidJob, match="no"):
        Plugins().preflight(
            recipe="quacc.recipes.x", atoms=None, parameters={}, environment={}, document=""
        )


def test_the_configured_engine(monkeypatch, home):
    # As in a process that has not imported quacc, which reads its settings once.
    monkeypatch.delitem(sys.modules, "quacc", raising=False)
    assert get_workflow_engine() is None
    monkeypatch.setenv("QUACC_WORKFLOW_ENGINE", "local")
    assert get_workflow_engine() == "local"
    monkeypatch.setenv("QUACC_WORKFLOW_ENGINE", "prefect")
    assert get_workflow_engine() is None
    (home / "config.toml").write_text('engine = "parsl"\n')
    assert get_workflow_engine() == "parsl"
    monkeypatch.setenv("CRYSTALMATH_ENGINE", "other")
    assert get_workflow_engine() == "other"
