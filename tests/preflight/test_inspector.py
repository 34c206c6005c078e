"""Recipes are asked by warm supervised children, and nothing that they do there harms anybody."""

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from ase.build import bulk, fcc111
from ase.constraints import FixedLine

from conftest import eventually
from crystalmath import processes
from crystalmath.preflight import inspector as inspector_module
from crystalmath.preflight import report_cache, required
from crystalmath.preflight.inspector import CannotAsk, Inspector, ask
from crystalmath.preflight.preflight_plugin import crystalmath_preflight
from crystalmath.preflight.report_cache import THEIRS_S
from crystalmath.preflight.verdict import judge
from vasp.potcars import library, potcar

# Nearly each of them has quacc imported again.
pytestmark = [pytest.mark.vasp, pytest.mark.by_turns]

AL = bulk("Al")
STATIC = "quacc.recipes.vasp.core.static_job"


_cutoffs = itertools.count(300)


def new_cutoff():
    """Return a parameter that makes a question new, for all tests share what was answered."""
    return next(_cutoffs)


def settle():
    """Let what was written just now grow old enough for answers about it to be kept."""
    time.sleep(0.1)


@pytest.fixture
def inspector(environment):
    made = []

    def make(**options):
        made.append(Inspector(**options))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def who(tmp_path, environment):
    """Tell which process is asked: its pid, its supervisor's and their directory."""
    path = tmp_path / "who"

    def who(ask=ask, atoms=AL, environment=environment, **parameters):
        ask("asked_recipes.who", atoms, {"path": str(path), **parameters}, environment)
        pid, supervisor, directory = path.read_text().splitlines()[-1].split()
        return int(pid), int(supervisor), directory

    return who


def children():
    """Return the processes that are asked."""
    found = set()
    for pid in processes.descendants(os.getpid()):
        with contextlib.suppress(OSError):
            if b"preflight.recipe_child" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.add(pid)
    return found


def gone(*pids):
    return all(processes.start_time(pid) is None for pid in pids)


def problems(report):
    return {facts.problem for facts in report.files.values()}


def test_who_asks_may_have_very_many_files_open(inspector, environment, many_files):
    report = inspector().ask(STATIC, AL, {"encut": new_cutoff()}, environment)
    assert report.end == "done"


# ---- the question ----------------------------------------------------------------------------


def test_a_report_names_the_files_and_their_reasons(environment, tree):
    report = ask(STATIC, AL, {}, environment)
    (step,) = report.steps
    (need,) = step.needs
    assert need.path == str(tree / "potpaw_PBE.64/Al/POTCAR")
    assert (need.symbol, need.setup, step.root) == ("Al", "Al", str(tree))
    assert report.files[need.path].titel == "PAW_PBE Al 01Jan2001"
    assert report.end == "done"


def test_the_public_function_takes_short_names_and_this_environment(monkeypatch, environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert required("vasp.core.static_job", AL).steps[0].needs[0].setup == "Al"


def test_the_child_stays_warm(who):
    assert who()[:2] == who(atoms=bulk("Cu"))[:2]


def test_each_environment_has_a_child_and_the_one_longest_unused_ends(
    inspector, who, tmp_path, environment
):
    asking = inspector(warm=2)
    roots = [library(tmp_path / str(number), "Al", "Cu") for number in range(3)]
    first, second, third = ({**environment, "VASP_PP_PATH": str(root)} for root in roots)
    settle()
    used, unused = who(asking.ask, environment=first)[:2], who(asking.ask, environment=second)[:2]
    asking.ask(STATIC, AL, {}, second)
    asking.ask(STATIC, AL, {}, first)
    assert set(used).isdisjoint(unused)
    assert who(asking.ask, environment=first, atoms=bulk("Cu"))[:2] == used
    for root, each in zip(roots, (first, second, third), strict=True):
        # What the second was asked is remembered.
        assert asking.ask(STATIC, AL, {}, each).steps[0].root == str(root)
    eventually(lambda: gone(*unused))
    assert not gone(used[0])


def test_many_environments_at_once_have_few_children_at_once(inspector, environment, tree):
    asking, most, reports = inspector(warm=1), 0, []
    own = [{**environment, "VASP_PP_PATH": str(tree) + "/" * number} for number in range(1, 5)]
    threads = [
        threading.Thread(target=lambda each=each: reports.append(asking.ask(STATIC, AL, {}, each)))
        for each in own
    ]
    others = children()
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        most = max(most, len(children() - others))
        time.sleep(0.05)
    assert [problems(report) for report in reports] == [{None}] * len(own)
    assert 1 <= most <= 3


def test_settings_that_quacc_does_not_start_with_fail_once(
    inspector, environment, tmp_path, questions, monkeypatch
):
    """Not once for each job of a batch; and what was mended is tried at once."""
    monkeypatch.setattr(inspector_module, "FAILED_S", 600.0)
    settings = tmp_path / "quacc.yaml"
    settings.write_text("NO_SUCH_SETTING: 1\n")
    own = {**environment, "QUACC_CONFIG_FILE": str(settings)}
    asking = inspector()
    for number in range(3):
        with pytest.raises(CannotAsk, match="NO_SUCH_SETTING"):
            asking.ask(STATIC, AL, {"encut": 300 + number}, own)
    assert questions == [STATIC]
    # Whatever their program, and however often that was told: no job would start.
    monkeypatch.setattr(inspector_module, "FAILED_S", 0.0)
    monkeypatch.setattr(inspector_module, "FAILURES", 1)
    monkeypatch.setattr(inspector_module, "ask", asking.ask)
    (finding,) = crystalmath_preflight("quacc.recipes.espresso.core.static_job", AL, {}, own, "")
    assert (finding.severity, finding.code) == ("error", "quacc_settings")
    assert f"NO_SUCH_SETTING in {settings} is 1: quacc has no such setting" in finding.message
    settings.write_text("CHECK_CONVERGENCE: false\n")
    assert problems(asking.ask(STATIC, AL, {}, own)) == {None}


def test_who_comes_while_it_warms_up_waits(inspector, environment, tmp_path, monkeypatch):
    """And what several want to know at once is asked once."""
    # The other question may be answered in between.
    monkeypatch.setattr(report_cache, "THEIRS_S", 600.0)
    settle()
    asking, reports = inspector(), []

    def submit(cutoff):
        parameters = {"path": str(tmp_path / "who"), "encut": cutoff}
        reports.append(asking.ask("asked_recipes.who", AL, parameters, environment))

    threads = [threading.Thread(target=submit, args=(cutoff,)) for cutoff in (300, 300, 300, 400)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [problems(report) for report in reports] == [{None}] * 4
    lines = (tmp_path / "who").read_text().splitlines()
    assert len(lines) == 2
    assert len({line.split()[0] for line in lines}) == 1


# ---- recipes that misbehave ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        ("kill_itself", "SIGKILL"),
        ("end_in_real_time", "signal 40 .a real-time signal."),
        ("kill_supervisor", "its supervisor died"),
        ("say_and_leave", "exited with code 3 while it was asked.* output: 'no licence"),
        ("close_everything", "exited with code 1"),
    ],
)
def test_who_ends_the_child_harms_no_other(recipe, reason, environment):
    with pytest.raises(CannotAsk, match=reason) as caught:
        ask(f"asked_recipes.{recipe}", AL, {}, environment)
    assert caught.value.code == "recipe_unchecked"
    assert f"asked_recipes.{recipe}" in str(caught.value)
    assert str(caught.value).isprintable()
    assert problems(ask(STATIC, AL, {"encut": new_cutoff()}, environment)) == {None}


def test_who_hangs_is_stopped_and_that_is_not_waited_for_twice(
    inspector, environment, who, questions, monkeypatch
):
    monkeypatch.setattr(inspector_module, "FAILED_S", 600.0)
    asking = inspector()
    pid, supervisor, _ = who(asking.ask)
    with monkeypatch.context() as patch:
        # Those that answer may take longer.
        patch.setattr(asking, "_limit_s", 1.0)
        for _ in range(2):
            with pytest.raises(CannotAsk, match="longer than 1 s"):
                asking.ask("asked_recipes.hang", AL, {}, environment)
    assert questions == ["asked_recipes.who", "asked_recipes.hang"]
    assert gone(pid)
    assert not gone(supervisor)
    assert problems(asking.ask(STATIC, AL, {}, environment)) == {None}


@pytest.mark.skipif(
    not Path("/proc/self/schedstat").exists(), reason="this kernel does not count waiting times"
)
def test_what_waits_for_a_core_does_not_count(inspector, environment):
    asking = inspector()
    recipe = "asked_recipes.compute"
    assert problems(asking.ask(recipe, AL, {"seconds": 0.0}, environment)) == {None}
    asking._limit_s = 2.0
    core = min(os.sched_getaffinity(0))
    busy = [sys.executable, "-c", f"import os; os.sched_setaffinity(0, [{core}])\nwhile True: pass"]
    # Each has a session of its own: some kernels share the cores out among these.
    others = [subprocess.Popen(busy, start_new_session=True) for _ in range(4)]
    try:
        begun = time.monotonic()
        assert problems(asking.ask(recipe, AL, {"seconds": 1.0}, environment)) == {None}
        assert time.monotonic() - begun > 2.0
    finally:
        for other in others:
            other.kill()
            other.wait()


def test_what_this_machine_lacks_is_no_fault_of_the_job(environment):
    report = ask("asked_recipes.fill_disk", AL, {}, environment)
    assert (report.end, report.steps) == ("stopped", ())
    assert "No space left" in report.trouble.message
    assert len(ask("asked_recipes.shout", AL, {}, environment).trouble.message) < 10_000


def test_a_preset_that_is_not_there_is_a_failure(environment):
    for preset in ("Nope", "/nowhere/mine.yaml"):
        report = ask(STATIC, AL, {"preset": preset}, environment)
        assert (report.end, report.trouble.type) == ("failed", "FileNotFoundError")
    flow, later = "quacc.recipes.vasp.slabs.bulk_to_slabs_flow", {"static_job": {"preset": "Nope"}}
    report = ask(flow, AL, {"job_params": later}, environment)
    assert (report.end, len(report.steps)) == ("failed", 1)


@pytest.mark.parametrize(
    ("setups", "survives"),
    [(["_sv", ""], True), (["_sv"], False), (["_sv", "_pv"], False), (["", "_sv"], False)],
)
def test_a_recipe_with_a_second_choice_survives(environment, setups, survives):
    report = ask("asked_recipes.try_others", AL, {"setups": setups}, environment)
    assert report.survives is survives
    findings = judge(report, "asked_recipes.try_others", AL, environment)
    refused = any(finding.severity == "error" for finding in findings)
    assert refused is not (survives or not setups[0])


def test_sys_exit_is_a_failure_of_the_recipe(environment):
    report = ask("asked_recipes.system_exit", AL, {}, environment)
    assert (report.end, report.trouble.type) == ("failed", "SystemExit")


def test_megabytes_of_talk_are_let_go(environment, who):
    before = who()
    assert problems(ask("asked_recipes.talk", AL, {}, environment)) == {None}
    assert who(atoms=bulk("Cu"))[:2] == before[:2]


def test_what_it_started_ends(environment, tmp_path):
    pids = tmp_path / "pids"
    assert problems(ask("asked_recipes.fork", AL, {"pids": str(pids)}, environment)) == {None}
    left = [int(pid) for pid in pids.read_text().split()]
    assert len(left) == 2
    assert gone(*left)
    assert problems(ask("asked_recipes.come_back_twice", AL, {}, environment)) == {None}
    assert problems(ask(STATIC, AL, {"encut": new_cutoff()}, environment)) == {None}


@pytest.mark.parametrize("leak", ["leave_thread", "leave_memory"])
def test_what_cannot_be_put_back_costs_the_child(leak, environment, who):
    before = who()
    assert problems(ask(f"asked_recipes.{leak}", AL, {}, environment)) == {None}
    after = who(atoms=bulk("Cu"))
    assert gone(before[0])
    assert before[0] != after[0]
    assert before[1] == after[1]


def test_settings_that_it_changed_are_not_seen_by_the_next(environment, tmp_path, tree):
    asked = ask("asked_recipes.leave_settings", AL, {"path": str(tmp_path)}, environment)
    assert asked.steps[0].root == str(tmp_path)
    assert ask(STATIC, AL, {"encut": new_cutoff()}, environment).steps[0].root == str(tree)


def test_its_files_go(environment, tmp_path, who):
    places = tmp_path / "places"
    assert problems(ask("asked_recipes.leave_files", AL, {"path": str(places)}, environment)) == {
        None
    }
    cwd, temporary, results = places.read_text().splitlines()
    assert not os.path.exists(cwd)
    assert os.path.commonpath([cwd, results]) == cwd
    _, supervisor, _ = who()
    os.kill(supervisor, signal.SIGTERM)
    eventually(lambda: not os.path.exists(temporary))
    eventually(lambda: not os.path.exists(os.path.dirname(cwd)))


# ---- what is remembered ----------------------------------------------------------------------


@pytest.fixture
def remembered(questions, environment):
    """Tell whether a question is answered without asking."""

    def remembered(recipe, atoms, **parameters):
        before = len(questions)
        ask(recipe, atoms, parameters, environment)
        return len(questions) == before

    return remembered


def test_structures_of_the_same_elements_share_a_report(remembered, environment):
    cutoff = new_cutoff()
    ask(STATIC, AL, {"encut": cutoff}, environment)
    other = fcc111("Al", (2, 2, 3), vacuum=8.0, periodic=True)
    other.set_initial_magnetic_moments([0.6] * len(other))
    other.info["source"] = "elsewhere"
    assert remembered(STATIC, other, encut=cutoff)
    assert not remembered(STATIC, other, encut=cutoff, setups={"Al": "_sv"})


@pytest.mark.parametrize("nested", [False, True])
def test_what_is_for_each_atom_is_asked_for_each_number_of_atoms(remembered, environment, nested):
    four, two = AL.repeat((4, 1, 1)), AL.repeat((2, 1, 1))
    recipe, parameters = STATIC, {"magmom": [2.0] * 4, "encut": new_cutoff()}
    if nested:
        recipe = "quacc.recipes.vasp.core.double_relax_flow"
        parameters = {"relax1_kwargs": parameters}
    assert not ask(recipe, four, parameters, environment).steps[0].troubles
    stretched = four.copy()
    stretched.set_cell(four.cell * 1.1, scale_atoms=True)
    assert remembered(recipe, stretched, **parameters)
    assert ask(recipe, two, parameters, environment).steps[0].troubles


@pytest.mark.parametrize("change", ["element", "cell", "pbc", "recipe", "moment", "constraint"])
def test_others_do_not(remembered, environment, change):
    cutoff = new_cutoff()
    ask(STATIC, AL, {"encut": cutoff}, environment)
    recipe, atoms = STATIC, AL.copy()
    if change == "element":
        atoms.symbols = "Cu"
    elif change == "cell":
        atoms.cell = None
    elif change == "pbc":
        atoms.pbc = False
    elif change == "recipe":
        recipe = "quacc.recipes.vasp.core.relax_job"
    elif change == "moment":
        atoms.set_initial_magnetic_moments([[0.0, 0.0, 1.0]])
    else:
        atoms.set_constraint(FixedLine(0, (1, 1, 0)))
    assert not remembered(recipe, atoms, encut=cutoff)


def test_a_setup_by_index_belongs_to_the_structure(remembered, environment):
    pair, parameters = AL.repeat((2, 1, 1)), {"setups": {0: "Al_sv"}, "encut": new_cutoff()}
    report = ask(STATIC, pair, parameters, environment)
    assert report.steps[0].by_index
    assert problems(report) == {None, "missing"}
    assert remembered(STATIC, pair, **parameters)
    assert not remembered(STATIC, AL.repeat((1, 1, 3)), **parameters)


def test_a_report_holds_as_long_as_its_files_stay(tmp_path, environment):
    root = library(tmp_path / "tree", "Al")
    link = tmp_path / "link"
    link.symlink_to(root)
    own = {**environment, "VASP_PP_PATH": str(link)}
    path = root / "potpaw_PBE.64/Al/POTCAR"

    def asked():
        settle()
        assert ask(STATIC, AL, {}, own) == ask(STATIC, AL, {}, own)
        return ask(STATIC, AL, {}, own).files[f"{link}/potpaw_PBE.64/Al/POTCAR"]

    assert asked().element == "Al"
    path.write_text(potcar("Al", element="Cu"))
    assert asked().element == "Cu"
    path.unlink()
    assert asked().problem == "missing"
    path.write_text(potcar("Al"))
    assert asked().problem is None
    path.parent.rename(root / "potpaw_PBE.64/away")
    assert asked().problem == "missing"
    (root / "potpaw_PBE.64/away").rename(path.parent)
    link.unlink()
    link.symlink_to(library(tmp_path / "other", "Al", zval=11.0))
    assert asked().zval == 11.0


def test_a_file_that_came_to_be_in_another_place_is_found(tmp_path, environment):
    """pw.x takes a relative pseudo_dir from where it runs, and quacc copies files there."""
    parameters = {
        "pseudopotentials": {"Al": "Al.UPF"},
        "input_data": {"control": {"pseudo_dir": "pseudo"}},
        "copy_files": [{"source": str(tmp_path), "filenames": ["pseudo/*"]}],
    }
    question = ("quacc.recipes.espresso.core.static_job", AL, parameters, environment)
    assert problems(ask(*question)) == {"missing"}
    assert ask(*question) == ask(*question)
    (tmp_path / "pseudo").mkdir()
    (tmp_path / "pseudo/Al.UPF").write_text("<PP_HEADER>\n")
    assert problems(ask(*question)) != {"missing"}


def test_a_preset_of_the_users_own_is_read_again(tmp_path, environment, tree):
    preset, base = tmp_path / "mine.yaml", tmp_path / "base.yaml"

    def setup(content):
        base.write_text(content)
        settle()
        question = (STATIC, bulk("Al"), {"preset": str(preset)}, environment)
        assert ask(*question) == ask(*question)
        return ask(*question).steps[0].needs[0].setup

    preset.write_text(f"parent: {base}\ninputs:\n  xc: pbe\n  pp_version: '64'\n")
    assert setup("inputs:\n  setups:\n    Al: Al\n") == "Al"
    assert setup("inputs:\n  setups:\n    Al: Al_sv\n") == "Al_sv"


def test_a_recipe_that_was_mended_is_asked_anew(tmp_path, monkeypatch, environment, inspector):
    """Whatever module of its author's has changed."""
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ['PYTHONPATH']}")
    (tmp_path / "edited_recipes.py").write_text(
        "from asked_recipes import calculate\nimport edited_helper\n"
        "def recipe(atoms): return calculate(atoms, setups=edited_helper.SETUPS)\n"
    )
    asking = inspector()
    for setup in ("_sv", "_pv"):
        (tmp_path / "edited_helper.py").write_text(f"SETUPS = {{'Al': '{setup}'}}\n")
        settle()
        report = asking.ask("edited_recipes.recipe", AL, {}, environment)
        assert report.steps[0].needs[0].setup == f"Al{setup}"


def test_a_recipe_that_looks_at_more_than_it_reads_is_asked_anew(environment, tmp_path):
    asked = ("asked_recipes.look", AL, {"path": str(tmp_path / "flag")}, environment)
    assert ask(*asked).steps[0].needs[0].setup == "Al"
    (tmp_path / "flag").touch()
    time.sleep(THEIRS_S)
    assert ask(*asked).steps[0].needs[0].setup == "Al_sv"


def test_settings_files_are_heeded_at_once(tmp_path, environment, inspector):
    """Those that were not there before, too."""
    first, second = (library(tmp_path / name, "Al") for name in ("first", "second"))
    quacc, ase = tmp_path / "quacc.yaml", tmp_path / "ase.ini"
    own = {**environment, "QUACC_CONFIG_FILE": str(quacc), "ASE_CONFIG_PATH": str(ase)}
    del own["VASP_PP_PATH"]
    asking = inspector()

    def root():
        settle()
        return asking.ask(STATIC, AL, {}, own).steps[0].root

    assert root() is None
    quacc.write_text(f"VASP_PP_PATH: {first}\n")
    assert root() == str(first)
    ase.write_text(f"[environment]\nVASP_PP_PATH = {second}\n")
    assert root() == str(second)


# ---- its end ---------------------------------------------------------------------------------


def test_close_leaves_nothing(inspector, who, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    asking = inspector()
    pid, supervisor, directory = who(asking.ask)
    assert Path(directory).is_relative_to(tmp_path)
    assert os.stat(os.path.dirname(directory)).st_mode & 0o777 == 0o700
    asking.close()
    assert gone(pid, supervisor)
    assert os.listdir(tmp_path) == ["who"]
    who(asking.ask, atoms=bulk("Cu"))


def test_close_does_not_wait_for_a_recipe_that_hangs(inspector, environment, tmp_path):
    asking, raised = inspector(limit_s=600.0), []
    path = tmp_path / "who"

    def submit():
        with pytest.raises(CannotAsk, match="supervisor was ended"):
            asking.ask("asked_recipes.hang", AL, {"path": str(path)}, environment)
        raised.append(True)

    thread = threading.Thread(target=submit)
    thread.start()
    eventually(lambda: path.exists() and path.read_text().endswith("\n"))
    began = time.monotonic()
    asking.close()
    thread.join()
    assert time.monotonic() - began < 60
    assert raised
    pid, supervisor, directory = path.read_text().split()
    assert gone(int(pid), int(supervisor))
    assert not os.path.exists(os.path.dirname(directory))


def test_close_does_not_wait_for_a_recipe_that_is_about_to_be_asked(
    inspector, environment, monkeypatch, tmp_path
):
    asking, start = inspector(limit_s=600.0), inspector_module.start_tied
    closing = threading.Thread(target=asking.close)

    def start_late(*arguments, **more):
        (child,) = asking._children.values()
        closing.start()
        eventually(lambda: child.ended)
        return start(*arguments, **more)

    monkeypatch.setattr(inspector_module, "start_tied", start_late)
    with pytest.raises(CannotAsk, match="supervisor was ended"):
        asking.ask("asked_recipes.hang", AL, {"path": str(tmp_path / "who")}, environment)
    closing.join()


def test_nothing_is_asked_once_the_process_is_to_end(inspector, who, tmp_path):
    asking = inspector()
    asking.close(for_good=True)
    with pytest.raises(CannotAsk, match="this program is about to end"):
        who(asking.ask)
    assert not (tmp_path / "who").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_supervisor_that_was_ended_is_replaced(who, number):
    pid, supervisor, directory = who()
    os.kill(supervisor, number)
    eventually(lambda: gone(pid, supervisor))
    assert not gone(*who(atoms=bulk("Cu"))[:2])
    assert not os.path.exists(os.path.dirname(directory))


OWNER = """
import os, sys, time
from ase.build import bulk
from crystalmath.preflight.inspector import ask
environment = {name: os.environ[name] for name in ("PATH", "VASP_PP_PATH")}
environment["CRYSTALMATH_RECIPES"] = "asked_recipes"
def who(atoms, path, recipe="who"):
    ask(f"asked_recipes.{recipe}", atoms, {"path": path}, environment)
"""


@pytest.fixture
def run_owner(tree, monkeypatch):
    monkeypatch.setenv("VASP_PP_PATH", str(tree))

    owners = []

    def run_owner(code, *arguments):
        command = [sys.executable, "-c", OWNER + code, *map(str, arguments)]
        owners.append(subprocess.Popen(command, start_new_session=True))
        return owners[-1]

    yield run_owner
    for owner in owners:
        with contextlib.suppress(ProcessLookupError):  # nothing is left, as it should be
            os.killpg(owner.pid, signal.SIGKILL)
        owner.wait()


@pytest.mark.parametrize("recipe", ["who", "hang"])
def test_a_killed_owner_leaves_nothing(tmp_path, recipe, run_owner):
    path = tmp_path / "who"
    owner = run_owner("who(bulk('Al'), sys.argv[1], sys.argv[2]); time.sleep(600)", path, recipe)
    eventually(lambda: path.exists() and path.read_text().endswith("\n"))
    pid, supervisor, directory = path.read_text().split()
    owner.kill()
    owner.wait()
    eventually(lambda: gone(int(pid), int(supervisor)))
    eventually(lambda: not os.path.exists(os.path.dirname(directory)))


def test_a_fork_of_the_owner_has_children_of_its_own(tmp_path, run_owner):
    """And does not keep the owner's alive when that is killed."""
    code = """
who(bulk("Al"), sys.argv[1])
if os.fork() == 0:
    who(bulk("Al"), sys.argv[2])
    time.sleep(600)
who(bulk("Cu"), sys.argv[1])
os.wait()
"""
    mine, forked = tmp_path / "mine", tmp_path / "forked"
    owner = run_owner(code, mine, forked)
    eventually(lambda: forked.exists() and mine.read_text().count("\n") == 2)
    first, second = (line.split() for line in mine.read_text().splitlines())
    other = eventually(lambda: forked.read_text().split())
    assert first[:2] == second[:2]
    assert other[:2] != first[:2]
    child = processes.children(owner.pid)
    owner.kill()
    owner.wait()
    eventually(lambda: gone(int(first[0]), int(first[1])))
    assert not gone(int(other[0]), int(other[1]))
    (fork,) = [pid for pid in child if str(pid) != first[1]]
    os.kill(fork, signal.SIGKILL)
    eventually(lambda: gone(int(other[0]), int(other[1])))
    eventually(lambda: not os.path.exists(os.path.dirname(other[2])))
