"""What the page shows of jobs that run, and of what ran where."""

import re

import pytest
from ase.build import bulk
from playwright.sync_api import expect

#: How far a job has come, as its page tells it.
FAR = re.compile(r"runs for .* s, step \d+, -?\d+\.\d{4} eV, \d+\.\d{4} eV/Å")
HOSTILE = "<img src=x onerror=\"document.title='stolen'\">"


def row(page, name):
    return page.get_by_role("row").filter(has=page.get_by_role("link", name=name, exact=True))


def rattled(times=6):
    atoms = bulk("Cu", cubic=True) * (times, times, times)
    atoms.rattle(0.2, seed=1)
    return atoms


@pytest.fixture
def long(client):
    """Submit a relaxation that takes as long as the test does, after brief ones like it."""
    steps = {"opt_params": {"fmax": 1e-6, "max_steps": 1}}
    names = ("brief", HOSTILE, "third")
    brief = [client.submit("emt.core.static_job", rattled(), name=name) for name in names]
    stopped = client.submit("emt.core.relax_job", rattled(1), steps, name="stopped")
    for job in [*brief, stopped]:
        job.exception(300)
    steps = {"opt_params": {"fmax": 1e-9, "max_steps": 100_000}}
    job = client.submit("emt.core.relax_job", rattled(), steps, name="copper")
    yield job
    job.cancel()


def test_rows_and_pages_tell_how_far_a_job_has_come(ui, browser, long, faults, picture):
    page = browser(ui.address, viewport={"width": 1600, "height": 900}, timezone_id="UTC")
    shown = row(page, "copper")
    expect(shown).to_contain_text(re.compile(r"step \d+"))
    expect(shown).to_contain_text(re.compile(r"-?\d+\.\d{4}.*\d\.\d{4}", re.DOTALL))
    shown.get_by_role("link").click()
    pace = page.locator(".pace")
    expect(pace).to_contain_text(FAR)
    page.keyboard.press("g")
    page.keyboard.press("a")
    expect(page).to_have_title("Activity · CrystalMath jobs")
    card = page.locator(".card").filter(has_text="local")
    expect(card).to_contain_text(re.compile(r"1 of \d+ workers? compute"))
    expect(card.get_by_role("listitem")).to_contain_text(re.compile(r"step \d+"))
    lane = page.get_by_role("list", name="Jobs on local")
    bars = lane.get_by_role("link")
    expect(bars).to_have_count(5)
    for span in ("day", "week", "hour"):
        page.get_by_role("button", name=f"last {span}").click()
        expect(page).to_have_url(re.compile(f"span={span}"))
        expect(bars).to_have_count(5)
    expect(page.locator(".ticks span")).to_have_count(6)
    page.set_viewport_size({"width": 1080, "height": 400})
    picture(page, "activity")
    assert faults(page) == {}
    for width in (390, 1080, 2560):
        page.set_viewport_size({"width": width, "height": 700})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert not page.locator("img").count()
    # By keys: the bars are one stop of the Tab key, and arrows lead through them.
    bars.first.focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("copper")
    long.cancel()
    expect(pace).to_have_count(0)


def test_a_chain_is_a_graph_that_grows(ui, browser, client, faults):
    first = client.submit("emt.core.relax_job", bulk("Al", cubic=True), name="first")
    second = client.submit("emt.core.static_job", first, name=HOSTILE)
    client.submit("emt.core.static_job", first, name="third")
    assert second.exception(300) is None
    page = browser(f"{ui.at(view='job', id=second.job_id)}#{ui.token}")
    chain = page.get_by_role("region", name="Chain of jobs")
    expect(chain.get_by_role("link")).to_have_count(2)
    client.submit("emt.core.static_job", second, name="fourth").result(300)
    expect(chain.get_by_role("link", name="fourth, completed")).to_be_visible()
    expect(chain.locator("path.edge")).to_have_count(2)
    assert faults(page) == {}
    chain.get_by_role("link", name="first, completed").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("first")
    expect(chain.get_by_role("link")).to_have_count(4)
    assert not page.locator("img").count()


def test_a_flow_is_a_graph_of_its_steps(ui, browser, client):
    steps = {"job_params": {"relax_job": {"opt_params": {"fmax": 0.1}}}}
    flow = client.submit(
        "emt.slabs.bulk_to_slabs_flow", bulk("Cu", cubic=True), steps, name="slabs"
    )
    assert flow.exception(300) is None
    page = browser(f"{ui.at(view='job', id=flow.job_id)}#{ui.token}")
    page.get_by_role("button", name="graph").click()
    graph = page.get_by_role("region", name="Graph of the steps")
    expect(graph.locator("path.edge")).to_have_count(3)
    # A step stands right of the one whose structure it takes.
    relaxed, static = (
        graph.get_by_role("link", name=f"{one}_job#0") for one in ("relax", "static")
    )
    assert relaxed.bounding_box()["x"] < static.bounding_box()["x"]
    static.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("static_job")


def test_columns_of_a_graph_go_from_left_to_right(ui, browser):
    page = browser(ui.address)
    told = page.evaluate(
        """async () => {
          const { columnsOf } = await import("/page/graph.js");
          const edge = (pair) => ({ from: pair[0], to: pair[1] });
          const apart = ["ac", "bd", "ad"].map(edge);
          return [
            columnsOf([..."abcde"], ["ab", "bc", "ac", "cd"].map(edge)),
            columnsOf([..."dcba"], apart),
            columnsOf(["a"], []),
          ];
        }"""
    )
    deep, crossed, alone = told
    assert [sorted(column) for column in deep] == [["a", "e"], ["b"], ["c"], ["d"]]
    assert [sorted(column) for column in crossed] == [["a", "b"], ["c", "d"]]
    # c stands in the row of a, and d in that of b: lines do not cross.
    assert crossed[0].index("a") == crossed[1].index("c")
    assert alone == [["a"]]
