"""What a person sees and does on the page, and what a stranger cannot do there."""

import asyncio
import contextlib
import csv
import io
import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from ase import Atoms
from ase.build import add_adsorbate, bulk, fcc111
from PIL import Image
from playwright.sync_api import expect

from conftest import eventually
from crystalmath.cli.shared.output import printable
from crystalmath.client import Client, JobFuture, connect
from crystalmath.models.fields import to_wire
from crystalmath.models.progress import IonicStep, step_numbers
from crystalmath.models.written import force_text
from crystalmath.server.endpoint import Place
from elements_page import PAGE
from elements_page import page as written_page
from page.conftest import Served, serving

MARK = "document.title='stolen'"
SCRIPT = f"<script>{MARK}</script><img src=x onerror={MARK}>"
#: Whoever uses a program of shaders waits until it is linked; a fence tells when that is, at once.
WAITED = """
const gl = WebGL2RenderingContext.prototype, { linkProgram, useProgram, getSyncParameter } = gl;
const linking = new Set();
window.programs = { linked: 0, waited: 0 };
gl.linkProgram = function (one) {
  linking.add(one), (programs.linked += 1);
  linkProgram.call(this, one);
};
gl.useProgram = function (one) {
  if (linking.delete(one)) programs.waited += 1;
  useProgram.call(this, one);
};
gl.getSyncParameter = function (...asked) {
  const told = getSyncParameter.call(this, ...asked);
  if (told === this.SIGNALED) linking.clear();
  return told;
};
"""
SCALES = (0.96, 0.98, 1.0, 1.02, 1.04)
FILE = f"<img src=x onerror={MARK}>.txt"


class Metals(NamedTuple):
    """A home with jobs that have ended, which tests read and leave as they are."""

    home: Path
    client: Client
    jobs: dict[str, JobFuture]
    ui: Served


@pytest.fixture(scope="module")
def metals(tmp_path_factory):
    """Make a home with jobs that completed, and some that failed, and serve its page."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("metals")
        patch.setenv("CRYSTALMATH_HOME", str(home))
        with connect() as client:
            jobs = {job.name: job for job in computed(client)}
            list(client.wait([job.job_id for job in jobs.values()], timeout=600))
            with serving() as served:
                yield Metals(home, client, jobs, served)
            client.call("system.stop", {"cancel": True})


def computed(client):
    """Submit jobs of metals."""
    labels = {"project": "metals"}
    jobs = []
    for symbol in ("Al", "Cu", "Ag", "Au", "Ni", "Pd", "Pt"):
        for factor in SCALES if symbol in {"Al", "Cu"} else SCALES[1:-1]:
            atoms = bulk(symbol, cubic=True)
            atoms.set_cell(atoms.cell * factor, scale_atoms=True)
            told = {**labels, "scale": str(factor)}
            jobs.append(("emt.core.static_job", atoms, {}, f"{symbol} {factor}", told))
    atoms = bulk("Cu", cubic=True) * (2, 2, 2)
    atoms.rattle(0.2, seed=1)
    jobs.append(("emt.core.relax_job", atoms, {"opt_params": {"fmax": 0.02}}, "Cu rattled", labels))
    stops = {"opt_params": {"max_steps": 1, "fmax": 0.001}}
    jobs.append(("emt.core.relax_job", atoms, stops, "Cu stopped", labels))
    return [
        client.submit(recipe, atoms, parameters, name=name, labels=labels, engine="local")
        for recipe, atoms, parameters, name, labels in jobs
    ]


def row(page, name):
    return page.get_by_role("row").filter(has=page.get_by_role("link", name=name, exact=True))


def state(page, word):
    """Expect the state of the job that is shown."""
    expect(page.locator(".title .state")).to_have_text(word)


def test_from_a_file_to_a_relaxed_structure(ui, browser, client, picture, tmp_path):
    cif = tmp_path / "copper.cif"
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=3)
    atoms.write(cif)
    page = browser(ui.address)
    expect(page.get_by_text("No job yet.")).to_be_visible()
    assert "#" not in page.url  # nobody who sees or copies the address is let in by it
    page.get_by_role("link", name="Submit", exact=True).click()
    page.set_input_files("input[type=file]", cif)
    expect(page.get_by_text("4 atoms")).to_be_visible()
    page.get_by_label("Search recipes").fill("emt relax")
    page.get_by_role("link", name="emt.core.relax_job").click()
    expect(page.get_by_text("Carry out a geometry optimization")).to_be_visible()
    expect(page.get_by_role("heading", name="It would be accepted")).to_be_visible()
    page.get_by_label("opt_params as JSON").fill('{"fmaxx": 0.01}')
    expect(page.get_by_role("heading", name="It would be refused")).to_be_visible()
    expect(page.locator(".verdict")).to_contain_text("fmaxx")
    expect(page.get_by_label("opt_params as JSON")).to_have_attribute("aria-invalid", "true")
    page.get_by_label("opt_params as JSON").fill('{"fmax": 0.01}')
    page.get_by_label("Name").fill("copper")
    page.get_by_label("Labels").fill("project=first")
    expect(page.get_by_role("heading", name="It would be accepted")).to_be_visible()
    expect(page.locator(".structure canvas")).to_be_visible()
    page.locator("main").evaluate("shown => shown.scrollTo(0, 0)")
    picture(page, "submit")
    page.get_by_role("button", name="Submit it").click()
    state(page, "completed")
    expect(page.locator(".structure canvas")).to_be_visible()
    expect(page.get_by_role("img", name="Energy and largest force of")).to_be_visible()
    expect(page.get_by_label("Frame")).to_be_visible()
    assert page.title() == "copper completed"
    page.goto(ui.at(view="submit", recipe="quacc.recipes.emt.core.static_job"))
    page.set_input_files("input[type=file]", cif)
    page.get_by_label("Sweep").fill("asap_cutoff")
    expect(page.locator(".verdict")).to_contain_text("a sweep is written NAME=VALUE,VALUE")
    expect(page.get_by_label("Sweep")).to_have_attribute("aria-invalid", "true")
    page.get_by_label("Sweep").fill("asap_cutoff=true,false")
    page.get_by_role("button", name="Submit 2 jobs").click()
    expect(row(page, "asap_cutoff=true")).to_be_visible()
    expect(row(page, "asap_cutoff=false")).to_be_visible()
    swept = [job for job in client.list() if "asap_cutoff" in job.labels]
    params = [client.specification(job.job_id)["params"] for job in swept]
    assert sorted(each["asap_cutoff"] for each in params) == [False, True]


def test_a_verdict_about_another_input_does_not_stay(browser, metals):
    page = browser(metals.ui.address)
    expect(page.get_by_role("row").nth(1)).to_be_visible()
    recipe = "quacc.recipes.emt.core.relax_job"
    page.goto(metals.ui.at(view="submit", recipe=recipe))
    with io.StringIO() as text:
        bulk("Cu").write(text, format="extxyz")
        copper = {"name": "Cu.xyz", "mimeType": "text/plain", "buffer": text.getvalue().encode()}
    page.set_input_files("input[type=file]", copper)
    verdict, field = page.locator(".verdict"), page.get_by_label("opt_params as JSON")
    field.fill('{"fmaxx": 0.01}')
    expect(verdict).to_contain_text("It would be refused")
    held = []
    page.route("**/call", lambda route: held.append(route))  # noqa: PLW0108 - it sets a mark on it
    field.fill('{"fmax": 0.01}')
    # The last verdict is gone before the server is asked.
    expect(verdict.get_by_role("heading")).to_have_text("Checking …", timeout=5000)
    expect(verdict.get_by_role("listitem")).to_have_count(0)
    expect(field).to_have_attribute("aria-invalid", "false")
    eventually(lambda: held or page.wait_for_timeout(100))
    page.unroute("**/call")  # which lets those go on that were held
    expect(verdict).to_contain_text("It would be accepted")


def hide(page, value):
    told = f"Object.defineProperty(document, 'hidden', {{value: {value}, configurable: true}});"
    page.evaluate(f"() => {{{told} document.dispatchEvent(new Event('visibilitychange'))}}")


def test_what_happens_is_seen_without_a_reload(ui, browser, client, go):
    page = browser(ui.address)
    expect(page.get_by_text("No job yet.")).to_be_visible()
    job = client.submit("lab_recipes.wait_for", bulk("Al"), {"path": str(go)}, name="waits")
    expect(row(page, "waits")).to_contain_text("running")
    go.touch()
    expect(row(page, "waits")).to_contain_text("completed")
    # A tab that is not seen holds none of the six connections that a browser has for all.
    hide(page, "true")
    expect(page.locator("span.link")).to_have_text("not connected")
    client.submit("lab_recipes.value", bulk("Al"), {"number": 1}, name="unseen")
    hide(page, "false")
    expect(row(page, "unseen")).to_contain_text("completed")
    other = client.submit("lab_recipes.long_sleep", bulk("Al"), name="sleeps")
    row(page, "sleeps").get_by_role("link").click()
    state(page, "running")
    client.cancel(other.job_id)
    state(page, "cancelled")
    expect(page.locator("pre.trouble")).to_have_count(0)  # that is no error
    assert job.done()


def test_pictures_of_all_views(browser, metals, picture):
    page = browser(metals.ui.address)
    expect(page.get_by_role("row")).to_have_count(len(metals.jobs) + 1)
    # The columns that are shown at first fit beside the filters.
    expect(page.get_by_role("button", name="Pt")).to_be_visible()
    table = page.get_by_role("grid", name="Jobs")
    assert table.evaluate("one => one.scrollWidth <= one.clientWidth")
    picture(page, "jobs")
    page.get_by_role("button", name="failed").click()
    expect(page.get_by_role("row")).to_have_count(2)
    assert "state=failed" in page.url
    page.add_init_script(WAITED)
    page.goto(metals.ui.at(view="job", id=metals.jobs["Cu rattled"].job_id))
    expect(page.locator(".structure canvas")).to_be_visible()
    page.get_by_label("Frame").fill("2")
    page.get_by_label("forces").check()
    expect(page.locator(".drawing")).to_have_attribute("data-arrows", "forces")
    picture(page, "job")
    # Those that draw atoms were compiled while the page answered; two are there before.
    eventually(lambda: page.evaluate("programs.linked") > 4 or page.wait_for_timeout(100))
    assert page.evaluate("programs.waited") <= 2
    # What draws is made once: another one is a second's wait, and is never freed.
    page.locator(".structure canvas").evaluate("drawn => (drawn.dataset.made = 'first')")
    page.get_by_role("link", name="Jobs").click()
    row(page, "Pt 1.0").get_by_role("link").click()
    expect(page.get_by_role("img", name="Structure of Pt4")).to_be_visible()
    expect(page.locator(".structure canvas")).to_be_visible()
    expect(page.locator("canvas[data-made]")).to_have_count(1)
    page.get_by_role("link", name="Home").click()
    expect(page.get_by_text("did not converge")).to_be_visible()


def random_alloy():
    """Return a crystal of five metals, whose atoms are not where they belong."""
    atoms = bulk("Cu", a=3.8, cubic=True) * (3, 3, 3)
    random = np.random.default_rng(1)
    atoms.symbols[:] = random.choice(["Cu", "Ni", "Pd", "Pt", "Au"], len(atoms))
    atoms.rattle(0.05, seed=1)
    return atoms


def work_of_a_day(client):
    """Submit the jobs of a group of chemists, wait for all but the last, and return that."""
    static, relax = "emt.core.static_job", "emt.core.relax_job"
    slab = fcc111("Pt", (3, 3, 4), vacuum=8.0)
    add_adsorbate(slab, "O", 1.4, "fcc")
    stops = {"opt_params": {"max_steps": 3, "fmax": 0.01}}
    cell = {"relax_cell": True, "opt_params": {"fmax": 0.05}}
    jobs = [
        client.submit(static, bulk(symbol, cubic=True), name=f"{symbol} bulk")
        for symbol in ("Cu", "Ni", "Pd", "Pt", "Au")
    ]
    jobs.append(client.submit(relax, slab, {"opt_params": {"fmax": 0.02}}, name="O on Pt(111)"))
    jobs.append(client.submit(relax, random_alloy(), stops, name="CuNiPdPtAu, 3 steps"))
    jobs.append(client.submit(relax, random_alloy(), cell, name="CuNiPdPtAu"))
    jobs.append(client.submit(static, jobs[-1], name="CuNiPdPtAu static"))
    list(client.wait([job.job_id for job in jobs], timeout=600))
    steps = {"opt_params": {"fmax": 1e-9, "max_steps": 100_000}}
    return client.submit(relax, random_alloy() * (2, 2, 2), steps, name="CuNiPdPtAu 864")


async def screen_of_top(job_id):
    """Return the screen of `crystalmath top` as SVG, once it tells how far a job has come."""
    with connect() as client:
        top = pytest.importorskip("crystalmath_top.app").Top(client)
        async with top.run_test(size=(124, 15)) as pilot:
            table = top.query_one("DataTable")
            while not (
                job_id in {key.value for key in table.rows}
                and any(
                    re.search(r"ionic step [3-9]", cell.plain) for cell in table.get_row(job_id)
                )
            ):
                await pilot.pause(0.2)
            table.styles.scrollbar_size_horizontal = 0
            await pilot.pause(0.2)
            return top.export_screenshot(title="crystalmath top")


def test_pictures_for_the_first_page(ui, browser, client, picture):
    runs = work_of_a_day(client)
    with ThreadPoolExecutor() as threads:  # this one has the loop of the browser
        screen = threads.submit(asyncio.run, screen_of_top(runs.job_id)).result(timeout=300)
    page = browser(ui.address, viewport={"width": 1400, "height": 680})
    row(page, "CuNiPdPtAu").get_by_role("link").click()
    expect(page.locator(".structure canvas")).to_be_visible()
    expect(page.get_by_role("img", name="Energy and largest force of")).to_be_visible()
    expect(page.get_by_role("region", name="Chain of jobs").get_by_role("link")).to_have_count(2)
    picture(page, "page")
    runs.cancel()
    # Its fonts are at another host; those of the machine do as well.
    page = browser("about:blank", viewport={"width": 1600, "height": 600})
    page.set_content(re.sub(r"@font-face \{[^}]*\}", "", screen))
    picture(page.locator("svg"), "terminal")


def drawn(page):
    """Return the pixels of a structure, and which are of atoms: all else is grey."""
    expect(page.locator(".structure canvas")).to_be_visible()
    shot = io.BytesIO(page.locator(".structure").screenshot())
    pixels = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    return pixels, pixels.max(axis=2) - pixels.min(axis=2) > 40


def test_structures_fill_the_view_in_the_colours_of_their_elements(ui, browser, client):
    alloy = bulk("Cu", cubic=True)
    alloy.symbols[[0, 3]] = "Ni"
    slab = fcc111("Au", (2, 2, 4), vacuum=12.0)
    jobs = {
        name: client.submit("lab_recipes.value", atoms, {"number": 1}, name=name)
        for name, atoms in {
            "alloy": alloy,
            "slab": slab,
            "large": bulk("Cu", cubic=True) * (5, 5, 5),
        }.items()
    }
    for job in jobs.values():
        assert job.result(300) == 1
    page = browser(ui.address)
    expect(row(page, "alloy")).to_be_visible()
    for name, job in jobs.items():
        page.goto(ui.at(view="job", id=job.job_id))
        pixels, of_atoms = drawn(page)
        height, width = of_atoms.shape
        rows, columns = np.nonzero(of_atoms.any(axis=1))[0], np.nonzero(of_atoms.any(axis=0))[0]
        # Whole, and as large as the box lets it be.
        assert rows[0] > 2, name
        assert rows[-1] < height - 3, name
        assert columns[0] > 2, name
        assert columns[-1] < width - 3, name
        assert len(rows) > 0.7 * height, name
        if name == "alloy":
            red, green, _ = pixels[of_atoms].T
            copper, nickel = (red > green + 30).sum(), (green > red + 30).sum()
            assert min(copper, nickel) > 0.1 * of_atoms.sum()
            legend = page.get_by_role("list", name="Elements").get_by_role("listitem")
            expect(legend).to_have_text([" Cu", " Ni"], use_inner_text=False)


def test_the_cell_of_a_crystal_is_seen_whole(ui, browser, client):
    inside = bulk("Cu", cubic=True)
    inside.positions += 0.4  # so no atom is at a corner, from where the camera would see it
    job = client.submit("lab_recipes.value", inside, {"number": 1})
    assert job.result(300) == 1
    page = browser(f"{ui.at(view='job', id=job.job_id)}#{ui.token}")
    pixels, _ = drawn(page)
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    assert (edge == edge[0]).all()  # no line goes out of the view


def test_atoms_on_a_face_keep_their_images_in_a_relaxation(ui, browser, client):
    atoms = bulk("Cu", cubic=True) * (2, 2, 1)
    atoms.positions[5] += (0.25, 0.1, 0.2)
    job = client.submit("emt.core.relax_job", atoms, {"opt_params": {"fmax": 0.01}})
    assert job.exception(300) is None
    page = browser(ui.at(view="job", id=job.job_id) + f"#{ui.token}")
    seen = []
    for frame in ("1", "0"):
        page.get_by_label("Frame").fill(frame)
        page.get_by_label("forces").check()
        expect(page.locator(".drawing")).to_have_attribute("data-arrows", "forces")
        seen.append(page.locator(".drawing").get_attribute("data-spheres"))
        page.get_by_label("forces").uncheck()
        expect(page.locator(".drawing")).to_have_attribute("data-arrows", "")
    assert seen[0] == seen[1]
    assert int(seen[0]) > len(atoms)


@pytest.mark.parametrize("symbols", ["Ni3Al", "CH3OH", "O2H4", "TiO2Ba", "C60", "HCl"])
def test_the_page_writes_a_formula_as_the_server_does(browser, metals, symbols):
    page = browser(metals.ui.address)
    atoms = Atoms(symbols)
    written = page.evaluate(
        "async numbers => (await import('/page/structure.js')).formulaOf(numbers)",
        atoms.numbers.tolist(),
    )
    assert written == atoms.get_chemical_formula()


def test_the_elements_are_those_of_ase():
    assert PAGE.read_text(encoding="utf-8") == written_page().rstrip("\n") + "\n"


def test_a_flow_is_seen_step_by_step(ui, browser, client, picture, tmp_path):
    steps = {"opt_params": {"fmax": 0.01, "max_steps": 5}}
    parameters = {"job_params": {"relax_job": steps}}
    atoms = bulk("Cu", cubic=True)
    slabs = client.submit("emt.slabs.bulk_to_slabs_flow", atoms, parameters, name="Cu slabs")
    parameters = {"folder": str(tmp_path), "fails": [1], "waits": [1, 2]}
    counts = client.submit("flow_recipes.counts", None, parameters, name="counts")
    page = browser(ui.address)
    # Where a step has failed before the next pass, that ends at its call, and calls no more.
    expect(row(page, "counts")).to_contain_text("/4")
    (tmp_path / "go 1").touch()
    expect(row(page, "counts")).to_contain_text("2/4, 1 failed")
    row(page, "counts").get_by_role("link").click()
    state(page, "running")
    tree = page.get_by_role("tree", name="Steps")
    expect(tree.get_by_role("treeitem").filter(has_text="counted#1")).to_contain_text("no luck")
    expect(tree.get_by_role("treeitem").filter(has_text="counted#2")).to_contain_text("running")
    (tmp_path / "go 2").touch()
    expect(page.locator(".flow")).to_contain_text("3/4, 1 failed")
    state(page, "failed")
    tree.get_by_role("link", name="flow_recipes.counted#2").click()
    state(page, "completed")
    # A retry has what it takes over by its own name, too.
    (again,) = client.retry(counts)
    assert again.exception(timeout=300) is not None
    page.goto(ui.at(view="job", id=again.job_id))
    expect(tree.get_by_role("link", name="flow_recipes.counted#2")).to_be_visible()
    assert slabs.exception(timeout=300) is not None
    page.goto(ui.at(view="job", id=slabs.job_id))
    tree = page.get_by_role("tree", name="Steps")
    expect(tree).to_contain_text("did not converge")
    scope = tree.get_by_role("treeitem", expanded=True)
    scope.get_by_role("button").click()
    expect(tree.get_by_text("relax_job#1")).to_have_count(0)
    tree.get_by_role("button").click()
    expect(page.locator(".structure canvas")).to_be_visible()
    expect(page.get_by_text("It would be accepted")).to_be_visible()
    page.locator(".flow").evaluate("shown => shown.scrollIntoView()")
    picture(page, "flow")


def test_the_window_and_the_navigation_tell_the_view(browser, metals):
    page = browser(metals.ui.address)
    expect(page).to_have_title("Jobs · CrystalMath jobs")
    lit = page.get_by_role("navigation", name="Views").locator("[aria-current]")
    row(page, "Pt 1.0").click()
    page.keyboard.press("Enter")
    expect(page).to_have_title("Pt 1.0 completed")
    expect(lit).to_have_text(["Jobs"])
    page.keyboard.press("g")
    page.keyboard.press("t")
    expect(page).to_have_title("Study · CrystalMath jobs")
    expect(lit).to_have_text(["Jobs"])
    for view in ("Submit", "Home", "Jobs"):
        page.get_by_role("link", name=view, exact=True).click()
        expect(page).to_have_title(f"{view} · CrystalMath jobs")
        expect(lit).to_have_text([view])


def test_filters_stand_in_the_address(browser, metals):
    page = browser(metals.ui.address)
    page.get_by_role("button", name="Au").click()
    expect(page.get_by_role("row")).to_have_count(4)
    assert "elements" in page.url
    search = page.get_by_role("searchbox")
    search.fill("elements:Au -label:scale=1.0")
    expect(page.get_by_role("row")).to_have_count(3)
    page.get_by_role("button", name="Energy (eV)").click()
    expect(page).to_have_url(re.compile("sort=energy_ev"))
    page.reload()
    expect(page.get_by_role("row")).to_have_count(3)
    expect(search).to_have_value("elements:Au -label:scale=1.0")
    search.fill(metals.jobs["Pt 1.0"].job_id[:8])
    expect(row(page, "Pt 1.0")).to_be_visible()
    expect(page.get_by_role("row")).to_have_count(2)
    search.fill("colour:red")
    expect(page.get_by_text("colour:red: there is no such filter")).to_be_visible()


def test_buttons_and_facets_tell_what_a_click_would_show(browser, metals):
    page = browser(metals.ui.address)
    completed = page.get_by_role("button", name="completed")
    number = str(len(metals.jobs) - 1)
    expect(completed).to_contain_text(number)
    page.get_by_role("button", name="failed").click()
    expect(page.get_by_role("row")).to_have_count(2)
    expect(completed).to_contain_text(number)
    expect(page.get_by_role("grid")).to_have_attribute("aria-rowcount", "2")
    page.get_by_role("button", name="failed").click()
    page.get_by_role("searchbox").fill("recipe:emt.core.static_job label:scale=1.0")
    expect(page.get_by_role("row")).to_have_count(8)
    facets = page.get_by_role("complementary", name="Filters")
    # A click on another value would replace the chosen one.
    expect(facets.get_by_role("button", name="1.02")).to_contain_text("7")
    expect(facets.get_by_role("button", name="1.04")).to_contain_text("2")


def test_a_menu_closes_and_a_choice_stays(browser, metals):
    page = browser(metals.ui.address)
    box = row(page, "Pt 1.0").get_by_role("checkbox")
    box.check()
    expect(page.get_by_text("1 job chosen")).to_be_visible()
    menu = page.get_by_text("Columns", exact=True)
    for close in (lambda: page.keyboard.press("Escape"), page.get_by_role("searchbox").click):
        menu.click()
        expect(page.locator("details.menu[open]")).to_have_count(1)
        close()
        expect(page.locator("details.menu[open]")).to_have_count(0)
    expect(page.get_by_text("1 job chosen")).to_be_visible()
    row(page, "Pt 1.0").get_by_role("link").click()
    state(page, "completed")
    page.go_back()
    expect(box).to_be_checked()
    page.get_by_role("button", name="Submitted").click()
    for name in ("Submitted", "Energy (eV)", "Force (eV/Å)", "Time"):
        head = page.get_by_role("columnheader", name=name)
        head.get_by_role("button").click()
        expect(head).to_have_attribute("aria-sort", re.compile("ascending|descending"))
        assert head.evaluate("one => one.scrollWidth <= one.clientWidth"), name


def test_rows_wait_for_no_count(browser, metals):
    page = browser(metals.ui.address)
    expect(page.get_by_role("button", name="Pd")).to_be_visible()
    rows, counts, shown = [], [], []

    def pass_on(route):
        asked = route.request.post_data_json
        if asked["method"] == "jobs.facets" or asked["params"].get("totals"):
            counts.append(route)
            if not shown:
                return
        else:
            rows.append(asked)
        route.continue_()

    page.route("**/call", pass_on)
    page.get_by_role("searchbox").fill("Au")
    expect(page.get_by_role("row")).to_have_count(4)
    # However many jobs there are: one request, of those that are seen and some more.
    assert [(asked["method"], asked["params"]["limit"]) for asked in rows] == [("jobs.list", 100)]
    eventually(lambda: counts or page.wait_for_timeout(100))
    assert [route.request.post_data_json["method"] for route in counts] == ["jobs.list"]
    shown.append(True)
    counts[0].continue_()
    expect(page.get_by_role("button", name="completed")).to_contain_text("3")
    expect(page.get_by_role("button", name="Pd")).to_have_count(0)


def test_a_study_of_chosen_jobs(browser, metals, picture):
    static = "emt.core.static_job"
    page = browser(f"{metals.ui.at(view='jobs', q=f'recipe:{static}')}#{metals.ui.token}")
    page.get_by_role("link", name="Study").click()
    table = page.get_by_role("region", name="Table of the study")
    expect(table.get_by_role("row")).to_have_count(26)
    table.get_by_role("button", name="energy per atom").click()
    lowest = min(
        metals.client.list(recipe="emt.core.static_job"), key=lambda job: job.summary["energy_ev"]
    )
    expect(table.get_by_role("row").nth(1)).to_contain_text(lowest.name)
    with page.expect_download() as brought:
        page.get_by_role("button", name="Export the study as CSV").click()
    with Path(brought.value.path()).open(newline="") as file:
        rows = {row["job_id"]: row for row in csv.DictReader(file)}
    assert len(rows) == 25
    assert float(rows[lowest.job_id]["energy_ev"]) == lowest.summary["energy_ev"]
    assert rows[metals.jobs["Cu 1.04"].job_id]["labels_scale"] == "1.04"
    page.get_by_role("button", name="curve").click()
    curves = "against scale: 7 curves of 25 jobs"
    expect(page.get_by_role("img", name=f"energy per atom (eV) {curves}")).to_be_visible()
    assert "x=labels_scale" in page.url
    page.get_by_label("from the last point").check()
    expect(page.get_by_role("img", name=f"from the last point (meV) {curves}")).to_be_visible()
    page.get_by_role("button", name="equation of state").click()
    fitted = metals.client.equation_of_state([metals.jobs[f"Cu {each}"].job_id for each in SCALES])
    copper = page.locator("table.fits").get_by_role("row").filter(has_text="Cu")
    expect(copper).to_contain_text(f"{fitted.b_gpa:.1f}")
    expect(page.get_by_text("15 not drawn: an equation of state takes jobs at 5")).to_be_visible()
    picture(page, "study")


def legend(page):
    """Return what the legend of a chart tells of the place under the pointer, by its curves."""
    labels, values = (page.locator(f".u-legend {each}") for each in (".u-label", ".u-value"))
    return dict(zip(labels.all_inner_texts(), values.all_inner_texts(), strict=True))


def test_a_study_draws_what_varies_and_tells_all_of_a_place(browser, metals):
    # Each metal has one scale, all of them have two.
    names = ("Al 0.98", "Cu 1.0", "Ag 0.98", "Au 1.0")
    chosen = ",".join(metals.jobs[name].job_id for name in names)
    page = browser(f"{metals.ui.at(view='study', show='curve', ids=chosen)}#{metals.ui.token}")
    label = "energy per atom (eV) against"
    expect(page.get_by_role("img", name=f"{label} formula: 1 curves of 4 jobs")).to_be_visible()
    page.get_by_label("against x").select_option("labels_scale")
    # Single points are no curves of eight colours.
    expect(page.get_by_role("img", name=f"{label} scale: 1 curves of 4 jobs")).to_be_visible()
    page.goto(metals.ui.at(view="study", show="curve", q="recipe:emt.core.static_job"))
    chart = page.locator(".u-over")
    expect(page.get_by_role("img", name=f"{label} scale: 7 curves")).to_be_visible()
    box = chart.bounding_box()
    chart.hover(position={"x": box["width"] / 2, "y": 20})
    told = legend(page)
    assert told.pop("scale") == "1"
    energies = {
        each: metals.client.job(metals.jobs[f"{each} 1.0"].job_id).summary["energy_ev"] / 4
        for each in ("Al", "Cu", "Ag", "Au", "Ni", "Pd", "Pt")
    }
    assert told == {each: f"{value:.4f}" for each, value in energies.items()}
    page.goto(metals.ui.at(view="study", show="curve", x="labels_scale", by="name"))
    markers = page.locator(".u-legend .u-series .u-marker")
    expect(markers).to_have_count(13)  # the first one is that of x, and is not shown
    looks = markers.evaluate_all("all => all.slice(1).map(one => getComputedStyle(one).border)")
    assert len(set(looks)) == 12


def test_a_result_that_cannot_be_read_leaves_the_study_alone(browser, metals):
    job_id = metals.jobs["Cu 0.98"].job_id
    outcome = metals.home / "jobs" / job_id / "1.outcome"
    outcome.rename(aside := outcome.with_name("aside"))
    outcome.mkdir()
    page = browser(
        f"{metals.ui.at(view='study', q='recipe:emt.core.static_job')}#{metals.ui.token}"
    )
    table = page.get_by_role("region", name="Table of the study")
    expect(table.get_by_role("row")).to_have_count(26)
    expect(page.get_by_text("A result cannot be read")).to_contain_text(job_id)
    page.get_by_role("button", name="equation of state").click()
    expect(page.locator("table.fits").get_by_role("row", name=re.compile("^Al"))).to_be_visible()
    outcome.rmdir()
    aside.rename(outcome)


def tab_to(page, wanted):
    for _ in range(200):
        if page.evaluate(f"document.activeElement.{wanted}"):
            return
        page.keyboard.press("Tab")
    pytest.fail(f"no element of which {wanted} is reached by Tab")


def study_and_submit_by_keys(page):
    press = page.keyboard.press
    press("g")
    press("t")
    expect(page.get_by_role("heading", name="Study")).to_be_visible()
    expect(page.get_by_text("1 job", exact=True)).to_be_visible()
    press("2")
    expect(page).to_have_url(re.compile("show=curve"))
    press("g")
    press("s")
    expect(page.get_by_role("searchbox")).to_be_visible()
    press("/")
    page.keyboard.type("without_structure")
    expect(page.get_by_role("link", name="lab_recipes")).to_have_count(1)
    press("Tab")
    press("Enter")
    expect(page.get_by_label("files")).to_be_visible()
    tab_to(page, "id === 'parameter-files'")
    page.keyboard.type('["a"]')
    expect(page.get_by_role("heading", name="It would be accepted")).to_be_visible()
    press("ControlOrMeta+Enter")
    expect(page.locator(".title")).to_contain_text("lab_recipes.without_structure")


def test_all_is_done_by_keys_alone(ui, browser, client):
    for name in ("first", "second", "third"):
        client.submit("lab_recipes.long_sleep", bulk("Al"), name=name, engine="local")
    page = browser(ui.address)
    expect(row(page, "first")).to_be_visible()
    press = page.keyboard.press
    press("j")  # the newest is above
    press("x")
    press("Shift+ArrowDown")
    expect(page.get_by_text("2 jobs chosen")).to_be_visible()
    press("Tab")
    tab_to(page, "textContent === 'Cancel'")
    press("Enter")
    expect(page.get_by_role("button", name="Cancel 2 jobs")).to_be_visible()
    press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.get_by_role("grid").focus()
    press("Escape")
    press("Home")
    press("Enter")
    expect(page.get_by_role("heading", name="third")).to_be_visible()
    press("g")
    press("h")
    expect(page.get_by_role("heading", name="Engines")).to_be_visible()
    press("?")
    expect(page.get_by_role("heading", name="Keys")).to_be_visible()
    press("Escape")
    press("g")
    press("j")
    expect(row(page, "first")).to_be_visible()
    press("/")
    page.keyboard.type("second")
    expect(row(page, "first")).to_be_hidden()
    expect(row(page, "second")).to_be_visible()
    press("Tab")
    study_and_submit_by_keys(page)


def test_an_action_says_what_it_does_and_does_it(ui, browser, client):
    jobs = [
        client.submit("lab_recipes.long_sleep", bulk("Al"), name="sleeps", engine="local"),
        client.submit("lab_recipes.fail", bulk("Al"), {"message": "no luck"}, name="fails"),
    ]
    list(client.wait([jobs[1].job_id], timeout=300))
    page = browser(ui.address)
    for name in ("sleeps", "fails"):
        row(page, name).get_by_role("checkbox").check()
    page.get_by_role("button", name="Cancel", exact=True).click()
    dialog = page.get_by_role("dialog", name="Cancel")
    expect(dialog).to_contain_text("1 job ended already, and will stay as it is.")
    dialog.get_by_role("button", name="Cancel 1 job").click()
    expect(row(page, "sleeps")).to_contain_text("cancelled")
    row(page, "fails").get_by_role("checkbox").check()
    page.get_by_role("button", name="Run again").click()
    dialog = page.get_by_role("dialog", name="Run again")
    expect(dialog).to_contain_text("1 job will run again as a new job, with all as it was")
    dialog.get_by_text("Change something").click()
    expect(dialog.get_by_label("message")).to_have_attribute("placeholder", '"no luck"')
    dialog.get_by_label("message").fill("no luck either")
    dialog.get_by_label("Walltime").fill("two")
    expect(dialog.get_by_role("alert")).to_contain_text("the walltime is a number of hours")
    assert not dialog.get_by_role("button", name="Run 1 job again").count()
    dialog.get_by_label("Walltime").fill("2")
    expect(dialog).to_contain_text("with what is changed here")
    dialog.get_by_role("button", name="Run 1 job again").click()
    eventually(lambda: client.job(jobs[1].job_id).superseded_by)
    (again,) = client.list(name="fails")
    assert again.walltime_s == 7200
    assert client.specification(again.job_id)["params"] == {"message": "no luck either"}
    # The earlier try is there for who asks for it, and leads to the one that counts.
    expect(page.get_by_role("row").filter(has_text="fails")).to_have_count(1)
    page.get_by_role("searchbox").fill("fails tries:all")
    expect(page.get_by_role("row").filter(has_text="fails")).to_have_count(2)
    page.goto(ui.at(view="job", id=jobs[1].job_id))
    page.get_by_role("link", name=f"job {again.job_id[:8]}").first.click()
    expect(page.get_by_text("no luck either").first).to_be_visible()


@pytest.mark.parametrize("view", ["jobs", "job", "study", "submit", "home"])
def test_dark_and_narrow(browser, metals, view):
    settings = {"viewport": {"width": 390, "height": 760}, "color_scheme": "dark"}
    page = browser(metals.ui.address, **settings)
    expect(page.get_by_role("row").nth(1)).to_be_visible()
    recipe = "quacc.recipes.emt.core.relax_job"
    page.goto(metals.ui.at(view=view, id=metals.jobs["Cu rattled"].job_id, recipe=recipe))
    shown = {"jobs": "grid", "job": "heading", "submit": "group"}
    expect(page.get_by_role(shown.get(view, "heading")).first).to_be_visible()
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert sum(map(int, re.findall(r"\d+", ground)[:3])) < 150
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_what_comes_from_jobs_is_not_run(ui, browser, client):
    told = {"name": SCRIPT, "labels": {"project": SCRIPT, "set": SCRIPT}}
    jobs = [
        client.submit("lab_recipes.fail", bulk("Al"), {"message": SCRIPT}, **told),
        client.submit("lab_recipes.say", bulk("Al"), {"text": SCRIPT}, **told),
        client.submit("lab_recipes.echo", bulk("Al"), {SCRIPT: [SCRIPT], "a": SCRIPT}, **told),
        client.submit("lab_recipes.leave_files", bulk("Al"), {"texts": {FILE: SCRIPT}}, **told),
        client.submit("lab_recipes.echo", bulk("Al"), {"a": SCRIPT * 5000}, **told),  # large
    ]
    list(client.wait([job.job_id for job in jobs], timeout=300))
    page = browser(ui.address)
    expect(page.get_by_role("row")).to_have_count(6)
    expect(page.get_by_role("row").nth(1)).to_contain_text(SCRIPT)
    for job in jobs:
        for part in ("story", "inputs", "files", "log", "result", "lines"):
            page.goto(ui.at(view="job", id=job.job_id, part=part))
            expect(page.get_by_role("heading", level=1)).to_have_text(SCRIPT)
            expect(page.get_by_text("Looking")).to_have_count(0)
            expect(page).to_have_title(re.compile(re.escape(SCRIPT)))
    page.goto(ui.at(view="job", id=jobs[-1].job_id, part="result"))
    expect(page.get_by_text("The result is large: this is a part of it.")).to_be_visible()
    page.goto(ui.at(view="job", id=jobs[-2].job_id, part="files", file=FILE))
    expect(page.locator("pre.log")).to_have_text(SCRIPT)
    page.goto(ui.at(view="home"))
    expect(page.get_by_text("Failures by their error")).to_be_visible()
    page.goto(ui.at(q=SCRIPT, columns=f"name,{SCRIPT}", sort=SCRIPT, view=SCRIPT))
    expect(page.get_by_role("searchbox")).to_have_value(SCRIPT)
    assert page.title() == "Jobs · CrystalMath jobs"
    assert not page.locator("img").count()


def test_a_group_of_failures_links_to_its_jobs_and_no_others(ui, browser, client):
    said = 'no "luck" in /scratch'
    messages = [f"{said}/1", f"{said}/2", f"{said}/3, nor elsewhere", said[4:8]]
    jobs = [client.submit("lab_recipes.fail", bulk("Al"), {"message": one}) for one in messages]
    assert all(job.exception(300) is not None for job in jobs)
    page = browser(f"{ui.at(view='home')}#{ui.token}")
    expect(page.locator(".failures li")).to_have_count(3)
    page.locator(".failures a b", has_text="2").click()
    expect(page.get_by_role("searchbox")).to_have_value(
        'failure:"RuntimeError: no ""luck"" in ..."'
    )
    expect(page.get_by_role("row")).to_have_count(3)  # one of them is the header


def test_what_turns_the_direction_of_text_is_a_code(ui, browser, client):
    turned = "ok \u202egnp.exe\u202c \u2066x\u2069 \x1b[31mred\x1b[0m \x07"
    job = client.submit("lab_recipes.say", bulk("Al"), {"text": turned})
    assert job.exception(300) is None
    page = browser(f"{ui.at(view='job', id=job.job_id, part='log')}#{ui.token}")
    expect(page.locator("pre.log")).to_contain_text(
        r"ok \u202egnp.exe\u202c \u2066x\u2069 red \x07", use_inner_text=True
    )
    letters = "".join(map(chr, [*range(0x20, 0x300), *range(0x2000, 0x2070), 0xFEFF, 0xE0041]))
    written = page.evaluate("async text => (await import('/page/lib.js')).visible(text)", letters)
    assert written == printable(letters)


def test_the_page_numbers_steps_and_writes_forces_as_core_does(browser, metals):
    page = browser(metals.ui.address)
    steps = [(1, 7), (1, 8), (2, 0), (2, 1), (3, 1)]
    history = [IonicStep(calculation=number, ionic_step=step) for number, step in steps]
    numbers, force = page.evaluate(
        """async steps => {
          const { stepNumbers, fixed, FORCE_DIGITS } = await import("/page/lib.js");
          return [stepNumbers(steps), fixed(0.012345, FORCE_DIGITS)];
        }""",
        [to_wire(step) for step in history],
    )
    assert (numbers, force) == (step_numbers(history), force_text(0.012345))


def test_a_curve_of_a_job_tells_energies_and_forces_as_tables_do(browser, metals):
    job_id = metals.jobs["Cu rattled"].job_id
    page = browser(f"{metals.ui.at(view='job', id=job_id)}#{metals.ui.token}")
    curve = page.locator(".plot .u-over")
    box = curve.bounding_box()
    curve.hover(position={"x": box["width"] - 1, "y": box["height"] / 2})
    told = legend(page)
    last = metals.client.progress([job_id], history=True)[job_id].history[-1]
    assert told.pop("ionic step")
    assert told == {
        "energy (eV)": f"{last.energy_ev:.4f}",
        "largest force (eV/Å)": force_text(last.max_force_ev_ang),
    }


def test_a_notebook_shows_the_structure(browser, client, metals, tmp_path):
    # What it was given is all that there is of it.
    bare = client.submit("lab_recipes.value", bulk("Al"), {"number": 1})
    assert bare.result(600) == 1
    ids = [metals.jobs[name].job_id for name in ("Cu rattled", "Al 1.0")]
    shown = [*map(metals.client.view, ids), client.view(bare.job_id)]
    notebook = tmp_path / "notebook.html"
    # A document of its own that nothing of the network helps.
    notebook.write_text("<!doctype html>" + "".join(one._repr_html_() for one in shown))
    page = browser(notebook.as_uri())
    for number, formula in enumerate(("Cu32", "Al4", "Al")):
        frame = page.frame_locator("iframe").nth(number)
        expect(frame.locator("canvas").first).to_be_visible()
        expect(frame.locator(".frames")).to_contain_text(formula)
    told = page.frame_locator("iframe").first.locator(".frames")
    expect(told.get_by_role("slider")).to_be_visible()
    expect(told.get_by_text("forces")).to_be_visible()
    # The frame has no origin: it cannot reach the notebook.
    frame = page.frames[1]
    assert (
        frame.evaluate("() => { try { return parent.document.title } catch { return null } }")
        is None
    )


#: All views, by what stands in their addresses; `id` and `structure` are names of jobs. A screening
#: has its own test.
VIEWS = [
    {},
    {"view": "home"},
    {"view": "activity"},
    {"view": "activity", "span": "week"},
    {"view": "submit"},
    {"view": "submit", "recipe": "quacc.recipes.emt.core.relax_job", "structure": "Cu rattled"},
    {"view": "submit", "recipe": "quacc.recipes.vasp.core.relax_job"},
    *({"view": "study", "show": show} for show in ("table", "curve", "equation of state")),
    *(
        {"view": "job", "id": "Cu rattled", "part": part}
        for part in ("story", "inputs", "files", "log", "result", "lines")
    ),
    {"view": "job", "id": "Cu stopped"},
]


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: "-".join(view.values()) or "jobs")
def test_nothing_keeps_people_from_using_it(browser, metals, faultless, view):
    jobs = {name: metals.jobs[view[name]].job_id for name in ("id", "structure") if name in view}
    page = browser(f"{metals.ui.at(**view | jobs)}#{metals.ui.token}")
    expect(page.get_by_text("live", exact=True)).to_be_visible()
    expect(page.get_by_role("heading").first).to_be_attached()
    expect(page.get_by_text(re.compile("Looking|Checking"))).to_have_count(0)
    faultless(page, "main")


def test_who_has_no_token_sees_nothing(browser, metals):
    page = browser(metals.ui.at(view="jobs"))
    expect(page.get_by_text("Open the address")).to_be_visible()
    assert not page.get_by_role("row").count()
    other = browser(f"{metals.ui.at()}#{'x' * 43}", expected="401")
    expect(other.get_by_text("the token is not that of this start")).to_be_visible()


def test_a_page_for_reading_offers_nothing_else(browser, metals, monkeypatch):
    monkeypatch.setenv("CRYSTALMATH_HOME", str(metals.home))
    with serving("--read-only") as served:
        page = browser(served.address)
        row(page, "Pt 1.0").get_by_role("checkbox").check()
        expect(page.get_by_text("read-only")).to_be_visible()
        assert not page.get_by_role("link", name="Submit", exact=True).count()
        assert not page.get_by_role("button", name="Cancel", exact=True).count()
        row(page, "Pt 1.0").get_by_role("link").click()
        state(page, "completed")
        assert not page.get_by_role("button", name="Run again").count()
        page.close()


def test_the_token_is_in_no_log_and_on_no_command_line(ui, browser, home, monkeypatch):
    page = browser(ui.address)
    # What has sent a browser here is gone with the page, however that ends.
    folder = Place.of(home).directory
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setenv("BROWSER", "true")
    with serving(browser="--browser", end=signal.SIGTERM):
        eventually(lambda: any(folder.glob("page-*.html")))
    assert not any(folder.glob("page-*.html"))
    expect(page.get_by_text("No job yet.")).to_be_visible()
    assert len(ui.token) >= 43
    lines = [Path("/proc", name, "cmdline") for name in os.listdir("/proc") if name.isdigit()]
    for path in [*lines, Path("/proc", str(ui.pid), "environ")]:
        with contextlib.suppress(OSError):
            assert ui.token.encode() not in path.read_bytes()
    written = [path for path in home.rglob("*") if path.is_file()]
    assert any(path.name == "log" for path in written)
    assert not [path for path in written if ui.token.encode() in path.read_bytes()]
