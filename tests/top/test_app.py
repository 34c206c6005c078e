"""What the screen in the terminal shows and does, driven by its keys."""

import asyncio
import time
from itertools import pairwise

import pytest
from ase.build import bulk

pytest.importorskip("crystalmath_top.app", reason="crystalmath-top is not installed")

from textual.widgets import DataTable, Static

from crystalmath.models import Progress
from crystalmath.models.progress import IonicStep, step_numbers
from crystalmath_top.app import BESIDE, COLUMNS, Confirm, JobView, Top, fitting_columns

pytestmark = pytest.mark.server

AL = bulk("Al")
#: Markup of Textual's, and what steers a terminal.
HOSTILE = "[red]a[/red] [@click=app.quit]b[/]"
STEERS = "\x1b]0;x\x07 [/] \x1b[2J"


async def until(pilot, wanted, seconds=120):
    """Let the screen go on until something is so; return that."""
    end = time.monotonic() + seconds
    while not (found := wanted()):
        assert time.monotonic() < end, "it has not come to it"
        await pilot.pause(0.05)
    return found


def row(app, job_id):
    """Return the cells of a job by their columns; nothing where it is not in the table."""
    table = app.screen_stack[0].query_one(DataTable)
    if job_id not in {key.value for key in table.rows}:
        return {}
    names = [key.value for key in table.columns]
    return dict(zip(names, (cell.plain for cell in table.get_row(job_id)), strict=True))


def text(app, name):
    """Return what a part of a job's view shows."""
    found = app.screen.query(f"#{name}")
    shown = found.first(Static).content if found else ""
    parts = getattr(shown, "renderables", [shown])
    return "\n".join(getattr(part, "plain", "") for part in parts)


@pytest.fixture
def top(light_client):
    return Top(light_client)


async def test_jobs_come_and_change_by_themselves(top, light_client, go):
    old = light_client.submit("lab_recipes.value", AL, name=HOSTILE)
    assert old.result(300) == 1
    async with top.run_test(size=(150, 40)) as pilot:
        await until(pilot, lambda: row(top, old.job_id))
        assert row(top, old.job_id)["name"] == HOSTILE
        waiting = light_client.submit("lab_recipes.wait_for", AL, {"path": str(go)})
        await until(pilot, lambda: row(top, waiting.job_id).get("state") == "running")
        go.touch()
        await until(pilot, lambda: row(top, waiting.job_id).get("state") == "completed")
        # The newest job is the first row.
        table = top.query_one(DataTable)
        assert [key.value for key in table.rows][:2] == [waiting.job_id, old.job_id]
        counts = top.query_one("#counts", Static)
        await until(pilot, lambda: "completed" in counts.content.plain)

        await pilot.press("slash", *"[red]", "enter")
        await until(pilot, lambda: not row(top, waiting.job_id))
        assert row(top, old.job_id)
        assert isinstance(top.focused, DataTable)


async def test_a_narrow_terminal_shows_state_and_energy(top, light_client):
    job = light_client.submit("lab_recipes.fail", AL, {"message": "no"}, name="a long name " * 9)
    assert job.exception(300) is not None
    async with top.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: row(top, job.job_id).get("state") == "failed")
        table = top.query_one(DataTable)
        shown = ("state", "job", "energy (eV)")
        assert list(row(top, job.job_id)) == ["state", "job", "energy (eV)", "name", ""]

        def width():
            return sum(table.columns[name].get_render_width(table) for name in shown)

        await until(pilot, lambda: 0 < width() < 80)
        # A wider terminal has all columns, and the cursor stays with its job.
        await pilot.resize_terminal(150, 24)
        await until(pilot, lambda: list(row(top, job.job_id)) == list(COLUMNS))
        assert top.chosen == job.job_id
        assert row(top, job.job_id)["state"] == "failed"


def test_a_terminal_leaves_out_what_it_has_no_room_for():
    shown = [fitting_columns(width) for width in range(200, 0, -1)]
    assert shown[0] == list(COLUMNS)
    assert all(set(after) <= set(before) for before, after in pairwise(shown))
    assert shown[-1] == ["state", "energy (eV)", "name"]
    needed = sum(COLUMNS[name] + BESIDE for name in fitting_columns(80))
    assert needed <= 80


def test_steps_have_the_numbers_of_their_program():
    history = [
        IonicStep(calculation=calculation, ionic_step=step)
        for calculation, step in ((1, 7), (1, 8), (2, 0), (2, 1), (3, 1))
    ]
    assert step_numbers(history) == [7, 8, 9, 10, 11]
    curve = {"energy_ev": 1.0, "max_force_ev_ang": 0.01234}
    steps = [IonicStep(calculation=1, ionic_step=step, **curve) for step in (0, 1, 2)]
    read = Progress(
        program="ASE",
        calculation=1,
        file="opt.log",
        updated_at=0.0,
        **{"ionic_step": 2, **curve, "history": steps},
    )
    assert "ionic step 2" in str(read)
    assert "0.0123 eV/Å" in str(read)
    assert step_numbers(read.history)[-1] == read.ionic_step


async def test_a_job_with_its_curves_and_its_log(top, light_client, go, tmp_path):
    from ase.calculators.emt import EMT
    from ase.optimize import BFGS

    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=1)
    atoms.calc = EMT()
    BFGS(atoms, trajectory=str(tmp_path / "opt.traj"), logfile=str(tmp_path / "opt.log")).run(0.05)
    files = {"opt.log": (tmp_path / "opt.log").read_text()}
    job = light_client.submit(
        "lab_recipes.write_and_wait", AL, {"files": files, "path": str(go)}, labels={"of": "x"}
    )
    async with top.run_test(size=(150, 60)) as pilot:
        await until(pilot, lambda: row(top, job.job_id).get("state") == "running")
        await until(pilot, lambda: "ionic step" in row(top, job.job_id)[""])
        top.query_one(DataTable).move_cursor(row=0)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(top.screen, JobView))
        await until(pilot, lambda: "running" in text(top, "story") and "of=x" in text(top, "story"))
        await until(pilot, lambda: "energy / eV" in text(top, "curves"))
        go.touch()
        await until(pilot, lambda: "completed" in text(top, "story"))
        await pilot.press("escape")
        assert not isinstance(top.screen, JobView)


async def test_what_a_job_says_is_text(top, light_client):
    failed = light_client.submit("lab_recipes.fail", AL, {"message": HOSTILE + STEERS})
    said = light_client.submit("lab_recipes.say", AL, {"text": HOSTILE + STEERS})
    assert failed.exception(300) is not None
    assert said.exception(300) is None
    async with top.run_test(size=(150, 40)) as pilot:
        await until(pilot, lambda: HOSTILE in row(top, failed.job_id).get("", ""))
        assert "\x1b" not in row(top, failed.job_id)[""]
        for job, part in ((failed, "story"), (said, "log")):
            top.push_screen(JobView(light_client, job.job_id))
            await until(pilot, lambda part=part: HOSTILE in text(top, part))
            assert "\x1b" not in text(top, part)
            top.pop_screen()


async def test_keys_cancel_and_retry_after_a_question(top, light_client, go):
    job = light_client.submit("lab_recipes.wait_for", AL, {"path": str(go)}, name="long one")
    async with top.run_test(size=(150, 40)) as pilot:
        await until(pilot, lambda: row(top, job.job_id))
        top.query_one(DataTable).move_cursor(row=0)
        for key, answer in (("c", "n"), ("r", "escape")):
            await pilot.press(key)
            await until(pilot, lambda: isinstance(top.screen, Confirm))
            assert "long one" in str(top.screen.query_one(Static).content)
            await pilot.press(answer)
            assert not isinstance(top.screen, Confirm)
        assert not light_client.job(job.job_id).state.is_terminal()
        await pilot.press("c", "y")
        await until(pilot, lambda: row(top, job.job_id).get("state") == "cancelled")
        assert row(top, job.job_id)[""] == ""  # that is no error
        await pilot.press("r", "y")
        named = {"name": "long one", "state": ["pending", "running"]}
        (again,) = await until(pilot, lambda: light_client.jobs(**named))
        await until(pilot, lambda: row(top, again.job_id))
    go.touch()
    assert await asyncio.to_thread(again.exception, 300) is None


async def test_a_screen_that_only_reads(light_client, go):
    job = light_client.submit("lab_recipes.wait_for", AL, {"path": str(go)})
    top = Top(light_client, read_only=True)
    async with top.run_test(size=(150, 40)) as pilot:
        await until(pilot, lambda: row(top, job.job_id))
        await pilot.press("c", "y", "r", "y")
        assert not isinstance(top.screen, Confirm)
        # What a key does not do here, the line at the bottom does not name.
        assert {key for key in top.active_bindings if key in set("crq")} == {"q"}
    go.touch()
    assert job.exception(300) is None


def test_without_a_terminal_it_says_so(home, cli):
    told = cli("top")
    assert told.code == 2
    assert "wants a terminal; crystalmath list" in " ".join(told.err.split())
