"""A home for what strangers send: some recipes, some parameters, no environment."""

import re
from pathlib import Path

import pytest
from ase.build import bulk
from attrs import evolve

from conftest import AL
from crystalmath.errors import InvalidJob
from crystalmath.jobs.worktree import at_once
from crystalmath.models import Submission
from crystalmath.running.pruning import Choice
from crystalmath.service import JobService

RELAX = "quacc.recipes.emt.core.relax_job"
TABLE = """
[restricted]
"emt.core.relax_job" = ["relax_cell", "opt_params.fmax", "method", "many"]
"lab_recipes.where" = []
"""


@pytest.fixture
def narrowed(home, lab):
    (home / "config.toml").write_text(TABLE)
    with JobService() as service:
        yield service


def submission(recipe=RELAX, environment=None, **parameters):
    return Submission(
        recipe=recipe, atoms=bulk("Cu"), parameters=parameters, environment=environment
    )


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (submission("quacc.recipes.emt.core.static_job"), "does not run quacc.recipes.emt.core.st"),
        (submission("lab_recipes.value"), "does not run lab_recipes.value"),
        (submission(environment={"PATH": "/theirs"}), "takes no environment"),
        (submission(command="sh"), "the parameter 'command'"),
        (evolve(submission(), by_step={"x": {"params": {"a": 1}}}), "takes no other terms for"),
        (submission("lab_recipes.where", anything=1), "but: none"),
        (submission(opt_params={"fmax": 0.1, "trajectory": "x"}), "'opt_params.trajectory'"),
        (submission(opt_params=[1]), "the parameter 'opt_params'"),
        (submission(restart={}), "the parameter 'restart'"),
        (submission(opt_params={"trajectory": {}}), "'opt_params.trajectory'"),
        (submission(method={}), "must be a number"),
        (submission(**{"opt_params.fmax": 0.1}), "the parameter"),
        (submission(opt_params={"fmax": {"deeper": 1}}), "'opt_params.fmax.deeper'"),
        (submission(method="/etc/passwd"), "must be a number, true or false, a word"),
        (submission(method=".."), "must be a number"),
        (submission(method="sh -c x"), "must be a number"),
        (submission(method=Path("x")), "must be a number"),
        (submission(many=[1, "/etc"]), "must be a number"),
        (submission(many=bulk("Cu")), "must be a number"),
    ],
)
def test_what_is_not_named_is_refused(narrowed, asked, said):
    with pytest.raises(InvalidJob, match=re.escape(said)) as error:
        narrowed.submit(asked)
    assert "[restricted]" in str(error.value)
    assert said in "\n".join(str(finding) for finding in narrowed.check(asked).errors)
    assert not narrowed.jobs()


@pytest.mark.parametrize("environment", [None, {}])
def test_what_is_named_runs_in_the_servers_environment(home, lab, environment):
    (home / "config.toml").write_text(TABLE)
    with JobService(environ={"PATH": "/server"}) as service:
        checked = service.check(
            submission(environment=environment, relax_cell=True, opt_params={"fmax": 0.1})
        )
        assert checked.errors == ()
        assert checked.environment == ("CRYSTALMATH_RECIPES", "PATH")


def test_the_command_line_brings_no_environment_there(home, cli, lab):
    (home / "config.toml").write_text(TABLE)
    done = cli("run", "lab_recipes.where", AL, "--json")
    assert (done.code, done.json["status"]) == (0, "completed"), done.err
    refused = cli("run", "lab_recipes.value", AL, "--json")
    assert (refused.code, refused.json["code"]) == (1, "invalid_job")


def test_results_are_not_removed_there(narrowed):
    assert at_once(narrowed.prune(Choice(older_s=0), dry_run=True)).jobs == []
    with pytest.raises(InvalidJob, match=re.escape("[restricted]")):
        at_once(narrowed.prune(Choice(older_s=0)))


def test_an_empty_table_takes_nothing(home, lab):
    (home / "config.toml").write_text("[restricted]\n")
    with JobService() as service, pytest.raises(InvalidJob, match="but: none"):
        service.submit(submission())
