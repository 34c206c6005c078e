"""The ten tasks of somebody who computes many structures, by mouse alone and by keys alone."""

import csv
import re
import time
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from crystalmath import config
from crystalmath.client import Client, connect
from crystalmath.jobs.changes import Change
from crystalmath.quacc.runner import JobState, generate_job_id
from crystalmath.quacc.store import JobStore, NewJob
from page.conftest import Served, serving
from page.test_manners import SPECIFICATION
from page.test_page import row, state
from page.test_screening import alloys, plot
from page.test_submit import CLIPBOARD, rattled, text_of

DAY_S = 86_400
#: What a task takes at most. A text that is typed is one key; a choice in a list is two clicks.
CLICKS = {
    "submit": 6,
    "watch": 1,
    "why": 2,
    "repair": 2,
    "screening": 4,
    "hull": 3,
    "download": 3,
    "cancel": 3,
    "last week": 2,
    "colleague": 1,
}
KEYS = {
    "submit": 7,
    "watch": 3,
    "why": 3,
    "repair": 3,
    "screening": 7,
    "hull": 2,
    "download": 3,
    "cancel": 5,
    "last week": 5,
    "colleague": 3,
}


class Home(NamedTuple):
    """A home with jobs of every kind."""

    client: Client
    path: Path
    ui: Served


def write_old(path):
    """Write jobs that were submitted days ago."""
    with JobStore(config.load({"CRYSTALMATH_HOME": str(path)}).database_url) as store:
        for days in (3, 20):
            at = time.time() - days * DAY_S
            job = NewJob(
                job_id=generate_job_id(),
                recipe="quacc.recipes.emt.core.static_job",
                engine="local",
                spec_hash="0" * 64,
                specification=SPECIFICATION,
                created_at=at,
                name=f"of {days} days ago",
            )
            store.insert([job])
            store.apply([Change(job_id=job.job_id, state=JobState.CANCELLED, at=at + 9)])


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Serve the page of a home with a screening, failed jobs, old ones and one that runs."""
    with pytest.MonkeyPatch.context() as patch:
        path = tmp_path_factory.mktemp("work")
        patch.setenv("CRYSTALMATH_HOME", str(path))
        write_old(path)
        with connect() as client:
            jobs = [
                client.submit("emt.core.static_job", atoms, name=name, labels={"project": "alloys"})
                for name, atoms in alloys().items()
            ]
            stops = {"opt_params": {"max_steps": 1, "fmax": 0.05}}
            jobs += [
                client.submit("emt.core.relax_job", rattled(), stops, name=name)
                for name in ("cut by mouse", "cut by keys")
            ]
            list(client.wait([job.job_id for job in jobs], timeout=600))
            with serving() as served:
                yield Home(client, path, served)
            client.call("system.stop", {"cancel": True})


@pytest.fixture
def endless(work):
    """Return what begins a relaxation that takes as long as the test does."""
    atoms = rattled() * (6, 6, 6)
    steps = {"opt_params": {"fmax": 1e-9, "max_steps": 100_000}}
    begun = []

    def begin(name):
        begun.append(work.client.submit("emt.core.relax_job", atoms, steps, name=name))

    yield begin
    for job in begun:
        job.cancel()


class Mouse:
    """A hand at the mouse, which counts clicks."""

    def __init__(self, page):
        self.page = page
        self.count = 0

    def click(self, place):
        place.click()
        self.count += 1

    def paste(self, place, text):
        """Paste by the menu of a field, which opens and is clicked; the browser has its own."""
        self.click(place)
        self.page.evaluate("text => navigator.clipboard.writeText(text)", text)
        self.page.keyboard.press("ControlOrMeta+v")
        self.count += 2


class Keys:
    """Hands at the keyboard, which count keys; a text is one."""

    def __init__(self, page):
        self.page = page
        self.count = 0

    def press(self, *keys):
        for key in keys:
            self.page.keyboard.press(key)
        self.count += len(keys)

    def type(self, text):
        self.page.keyboard.type(text)
        self.count += 1

    def tab_to(self, wanted):
        for _ in range(60):
            if self.page.evaluate(f"document.activeElement.{wanted}"):
                return
            self.press("Tab")
        pytest.fail(f"no element of which {wanted} is reached by Tab")

    def command(self, words, kind, title):
        """Choose a command of the palette, once that is found."""
        self.press("Control+k")
        self.type(words)
        palette = self.page.get_by_role("dialog", name="Commands")
        option = palette.get_by_role("option", selected=True)
        expect(option.locator("small").first).to_have_text(kind)
        expect(option).to_contain_text(title)
        self.press("Enter")


@pytest.fixture
def spent(capsys):
    """Return what judges a task by what it took."""

    def judge(task, hand):
        most = (CLICKS if isinstance(hand, Mouse) else KEYS)[task]
        with capsys.disabled():
            print(f"\n{task} by {type(hand).__name__.lower()}: {hand.count}, at most {most}")
        assert hand.count <= most

    return judge


@pytest.fixture
def page(work, browser):
    page = browser(work.ui.address, viewport={"width": 1280, "height": 800}, permissions=CLIPBOARD)
    expect(row(page, "Cu")).to_be_visible()
    return page


def why(page):
    return page.get_by_role("region", name="Why it failed")


def newest(work, name):
    return next(job for job in work.client.list() if job.name == name)


def test_submit_by_mouse(page, work, spent):
    mouse = Mouse(page)
    mouse.click(page.get_by_role("link", name="Submit", exact=True))
    mouse.paste(page.get_by_label("Paste a structure"), text_of(rattled(), "vasp"))
    expect(page.get_by_role("list", name="Structures")).to_contain_text("Cu4")
    mouse.click(page.get_by_role("link", name="emt.core.static_job"))
    mouse.click(page.get_by_role("button", name="Submit it"))
    state(page, "completed")
    spent("submit", mouse)


def test_submit_by_keys(page, spent):
    keys = Keys(page)
    keys.command("emt static", "recipe", "emt.core.static_job")
    expect(page.get_by_role("group", name="Job")).to_be_visible()
    keys.tab_to("ariaLabel === 'Paste a structure'")
    page.evaluate("text => navigator.clipboard.writeText(text)", text_of(rattled(), "vasp"))
    keys.press("ControlOrMeta+v")
    expect(page.get_by_role("heading", name="It would be accepted")).to_be_visible()
    keys.press("ControlOrMeta+Enter")
    state(page, "completed")
    spent("submit", keys)


def test_watch_and_cancel_by_mouse(page, endless, spent):
    endless("watched")
    expect(row(page, "watched")).to_contain_text(re.compile(r"step \d+"))
    mouse = Mouse(page)
    mouse.click(row(page, "watched").get_by_role("link"))
    expect(page.locator(".pace")).to_contain_text(re.compile(r"runs for .* step \d+"))
    spent("watch", mouse)
    page.go_back()
    mouse = Mouse(page)
    mouse.click(row(page, "watched").get_by_role("checkbox"))
    mouse.click(page.get_by_role("button", name="Cancel", exact=True))
    mouse.click(page.get_by_role("button", name="Cancel 1 job"))
    expect(row(page, "watched")).to_contain_text("cancelled")
    spent("cancel", mouse)


def test_watch_and_cancel_by_keys(page, endless, spent):
    endless("watched by keys")
    expect(row(page, "watched by keys")).to_contain_text(re.compile(r"step \d+"))
    keys = Keys(page)
    keys.command("watched by keys", "job", "watched by keys")
    expect(page.locator(".pace")).to_contain_text(re.compile(r"runs for .* step \d+"))
    spent("watch", keys)
    keys = Keys(page)
    keys.command("cancel", "here", "Cancel")
    expect(page.get_by_role("button", name="Cancel 1 job")).to_be_visible()
    keys.tab_to("textContent === 'Cancel 1 job'")
    keys.press("Enter")
    state(page, "cancelled")
    spent("cancel", keys)


def test_why_it_failed_and_the_repair_by_mouse(page, work, spent):
    mouse = Mouse(page)
    mouse.click(page.get_by_role("button", name="failed"))
    mouse.click(row(page, "cut by mouse").get_by_role("link"))
    expect(why(page)).to_contain_text("did not converge: it used up its steps")
    spent("why", mouse)
    mouse = Mouse(page)
    mouse.click(why(page).get_by_role("button", name="Run the repair"))
    mouse.click(why(page).get_by_role("link", name="cut by mouse job"))
    state(page, "completed")
    spent("repair", mouse)


def test_why_it_failed_and_the_repair_by_keys(page, work, spent):
    keys = Keys(page)
    keys.command("cut by keys", "job", "cut by keys")
    expect(why(page)).to_contain_text("did not converge: it used up its steps")
    spent("why", keys)
    keys = Keys(page)
    expect(why(page).get_by_role("button", name="Run the repair")).to_be_enabled()
    keys.command("run the repair", "here", "Run the repair")
    expect(page.locator(".superseded")).to_be_visible()
    assert newest(work, "cut by keys").superseded_by is None
    spent("repair", keys)


def test_compare_a_screening_and_see_its_hull_by_mouse(page, spent, picture):
    filters = page.get_by_role("complementary", name="Filters")
    mouse = Mouse(page)
    mouse.click(filters.get_by_role("button", name="alloys"))
    mouse.click(page.get_by_role("link", name="Study"))
    mouse.click(page.get_by_role("button", name="scatter"))
    expect(plot(page, "energy per atom (eV) against share of Au: 13 jobs")).to_be_visible()
    mouse.click(page.get_by_role("region", name="Ranking").get_by_role("button", name="Cu-Au 2"))
    picked = page.get_by_role("region", name="Picked job")
    expect(picked.get_by_role("img", name="Structure of")).to_be_visible()
    expect(picked.locator("canvas")).to_be_visible()
    picture(page, "screening")
    spent("screening", mouse)
    page.go_back()
    mouse.count = 2  # those that lead to the study
    mouse.click(page.get_by_role("button", name="hull"))
    expect(plot(page, "Convex hull of Au-Cu: 5 jobs")).to_be_visible()
    spent("hull", mouse)


def test_compare_a_screening_and_see_its_hull_by_keys(page, spent):
    keys = Keys(page)
    keys.press("/")
    keys.type("label:project=alloys")
    expect(page.get_by_role("row")).to_have_count(len(alloys()) + 1)
    keys.press("Tab", "g", "t")
    expect(page.get_by_role("heading", name="Study")).to_be_visible()
    keys.press("4")
    expect(page.locator(".points:focus canvas")).to_be_visible()
    keys.press("ArrowRight")
    picked = page.get_by_role("region", name="Picked job")
    expect(picked.get_by_role("img", name="Structure of")).to_be_visible()
    spent("screening", keys)
    keys = Keys(page)
    keys.press("Escape", "6")
    expect(plot(page, "Convex hull of Au-Cu: 5 jobs")).to_be_visible()
    spent("hull", keys)


def downloaded(download):
    with open(download.path(), encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_download_by_mouse(page, spent):
    mouse = Mouse(page)
    filters = page.get_by_role("complementary", name="Filters")
    mouse.click(filters.get_by_role("button", name="alloys"))
    expect(page.get_by_role("row")).to_have_count(len(alloys()) + 1)
    mouse.click(page.get_by_text("Export", exact=True))
    with page.expect_download() as download:
        mouse.click(page.get_by_role("button", name="Export all that fit as CSV"))
    assert len(downloaded(download.value)) == len(alloys())
    spent("download", mouse)


def test_download_by_keys(page, spent):
    keys = Keys(page)
    with page.expect_download() as download:
        keys.command("export csv", "here", "Export all that fit as CSV")
    assert {"Cu", "cut by keys"} <= {line["name"] for line in downloaded(download.value)}
    spent("download", keys)


def test_find_what_was_submitted_last_week_by_mouse(page, spent):
    mouse = Mouse(page)
    filters = page.get_by_role("complementary", name="Filters")
    mouse.click(filters.get_by_role("button", name="last week"))
    expect(row(page, "of 20 days ago")).to_have_count(0)
    mouse.click(row(page, "of 3 days ago").get_by_role("link"))
    state(page, "cancelled")
    spent("last week", mouse)


def test_find_what_was_submitted_last_week_by_keys(page, spent):
    keys = Keys(page)
    keys.command("last week", "go to", "Jobs of the last week")
    expect(row(page, "of 3 days ago")).to_be_visible()
    expect(row(page, "of 20 days ago")).to_have_count(0)
    expect(page.get_by_role("searchbox")).to_have_value("since:7d")
    keys.press("End", "Enter")
    state(page, "cancelled")
    expect(page.get_by_role("heading", level=1)).to_have_text("of 3 days ago")
    spent("last week", keys)


def test_a_time_is_a_span_or_a_day(page):
    search = page.get_by_role("searchbox")
    day = time.strftime("%Y-%m-%d", time.localtime(time.time() - 10 * DAY_S))
    search.fill(f"days until:{day}")
    expect(row(page, "of 20 days ago")).to_be_visible()
    expect(row(page, "of 3 days ago")).to_have_count(0)
    search.fill(f'days since:30d until:"{day} 12:00"')
    expect(page.get_by_role("row")).to_have_count(2)
    search.fill("since:soon")
    expect(page.get_by_text("since:soon: that is no time; write since:2h")).to_be_visible()


def test_a_colleague_sees_it_and_changes_nothing(page, work, browser, spent, monkeypatch):
    filters = page.get_by_role("complementary", name="Filters")
    filters.get_by_role("button", name="alloys").click()
    expect(page).to_have_url(re.compile("alloys"))
    shown = urlsplit(page.url).query
    monkeypatch.setenv("CRYSTALMATH_HOME", str(work.path))
    with serving("--read-only") as served:
        # The part of the address that says what is shown is the same for all pages of the home.
        address = f"{served.at()}{shown}#{served.token}"
        other = browser(address, viewport={"width": 1280, "height": 800})
        mouse = Mouse(other)
        expect(other.get_by_role("row")).to_have_count(len(alloys()) + 1)
        mouse.click(row(other, "Cu").get_by_role("link"))
        state(other, "completed")
        assert not other.get_by_role("button", name="Run again").count()
        spent("colleague", mouse)
        other.goto(served.at())
        keys = Keys(other)
        expect(row(other, "Cu")).to_be_visible()
        keys.command("Cu-Au 2", "job", "Cu-Au 2")
        expect(other.get_by_role("heading", level=1)).to_have_text("Cu-Au 2")
        spent("colleague", keys)
        other.close()
