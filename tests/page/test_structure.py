"""Structures on the page: what is drawn and measured, and what is said of a crystal."""

import re
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np
import pytest
from ase.build import add_adsorbate, bulk, fcc111
from ase.constraints import FixAtoms
from ase.geometry import find_mic
from ase.io import read
from ase.spacegroup import crystal
from playwright.sync_api import expect

from conftest import LAB, eventually
from crystalmath.client import Client, JobFuture, connect
from page.conftest import Served, serving

SCRIPT = "<img src=x onerror=document.title='stolen'>"
FRAMES = 5
LARGE = 2000
#: Turn the structure, or show one frame after another, for so many milliseconds.
TURNED = """async most => {
  const { rotate } = await import("/page/drawing.js");
  const begun = performance.now();
  let count = 0;
  for (; performance.now() - begun < most; count += 1) {
    rotate(5, "y");
    await new Promise(requestAnimationFrame);
  }
  return (1000 * count) / (performance.now() - begun);
}"""
PLAYED = """async most => {
  const { dataset } = document.querySelector(".drawing");
  const slider = document.querySelector("input[aria-label=Frame]");
  const begun = performance.now();
  let count = 0;
  for (; performance.now() - begun < most; count += 1) {
    const before = dataset.drawn;
    slider.value = count % 2;
    slider.dispatchEvent(new Event("input", { bubbles: true }));
    while (dataset.drawn === before) await new Promise(resolve => setTimeout(resolve, 2));
  }
  return (1000 * count) / (performance.now() - begun);
}"""


class Crystals(NamedTuple):
    """A home with structures, which tests read and leave as they are."""

    client: Client
    jobs: dict[str, JobFuture]
    ui: Served

    def at(self, name):
        """Return the address of a job, with the token."""
        return f"{self.ui.at(view='job', id=self.jobs[name].job_id)}#{self.ui.token}"


def structures():
    """Return recipes with their structures and parameters, by the names of their jobs."""
    slab = fcc111("Pt", (2, 2, 3), vacuum=8.0)
    add_adsorbate(slab, "O", 1.5, "fcc")
    slab.set_constraint(FixAtoms([atom.index for atom in slab if atom.tag > 1]))
    places = [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0)]
    oxide = crystal(("Ba", "Ti", "O"), places, spacegroup=221, cellpar=[4, 4, 4, 90, 90, 90])
    iron = bulk("Fe", cubic=True) * (2, 1, 1)
    large = bulk("Cu", cubic=True) * (5, 10, 10)
    return {
        "slab": ("emt.core.relax_job", slab, {"opt_params": {"fmax": 0.05}}),
        "oxide": ("lab_recipes.value", oxide, {"number": 1}),
        "iron": ("lab_recipes.wander", iron, {"frames": FRAMES}),
        "large": ("lab_recipes.wander", large, {"frames": 2}),
    }


@pytest.fixture(scope="module")
def crystals(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRYSTALMATH_HOME", str(tmp_path_factory.mktemp("crystals")))
        patch.setenv("CRYSTALMATH_RECIPES", "lab_recipes")
        patch.syspath_prepend(LAB)
        with connect() as client:
            jobs = {
                name: client.submit(*job, name=SCRIPT if name == "oxide" else name, engine="local")
                for name, job in structures().items()
            }
            assert [job.exception(600) for job in jobs.values()] == [None] * len(jobs)
            with serving() as served:
                yield Crystals(client, jobs, served)
            client.call("system.stop", {"cancel": True})


@pytest.fixture
def shown(crystals, browser):
    """Return what opens the page of a job whose structure is drawn; no other host is asked."""
    hosts = set()

    def show(name, **settings):
        page = browser("about:blank", **settings)
        page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
        page.goto(crystals.at(name))
        expect(page.locator(".structure canvas")).to_be_visible()
        return page

    yield show
    hosts.discard("")
    assert hosts == {urlsplit(crystals.ui.address).netloc}


def drawn(page, name, value):
    """Expect a number of what is drawn."""
    expect(page.locator(".drawing")).to_have_attribute(f"data-{name}", str(value))


def facts(page):
    return page.get_by_label("Crystal", exact=True)


def test_a_crystal_is_described(shown, faults):
    page = shown("oxide")
    expect(facts(page)).to_contain_text("4.000  4.000  4.000")
    expect(facts(page)).to_contain_text("90.00  90.00  90.00")
    expect(facts(page)).to_contain_text("64.00")
    expect(facts(page)).to_contain_text("Pm-3m (221)")
    expect(page.get_by_role("heading", level=1)).to_have_text(SCRIPT)
    expect(page.locator(".frames sub")).to_have_text("3")  # BaO3Ti
    # Upwards is c.
    a, b, c = (
        page.locator(".axes text", has_text=re.compile(f"^{axis}$")).bounding_box()
        for axis in "abc"
    )
    assert c["y"] < min(a["y"], b["y"])
    assert a["x"] < b["x"]
    page.get_by_label("polyhedra").check()
    page.get_by_label("Measure atoms").fill("1 2")
    assert faults(page) == {}


def test_a_supercell_and_polyhedra(shown):
    page = shown("oxide")
    drawn(page, "polyhedra", 0)
    drawn(page, "spheres", 8 + 1 + 6)
    page.get_by_label("polyhedra").check()
    drawn(page, "polyhedra", 1)
    page.get_by_label("Cells along a").select_option("2")
    drawn(page, "spheres", 12 + 2 + 11)
    drawn(page, "polyhedra", 2)
    page.get_by_label("polyhedra").uncheck()
    for axis in "abc":
        page.get_by_label(f"Cells along {axis}").select_option("3")
    drawn(page, "spheres", 4**3 + 3**3 + 3 * 4 * 3**2)
    drawn(page, "polyhedra", 0)


def test_distances_and_angles_are_measured(shown):
    page = shown("oxide")
    field, told = page.get_by_label("Measure atoms"), page.locator(".measure output")
    oxygen = [2, 3]  # two neighbours of titanium
    places = structures()["oxide"][1]
    field.fill(f"1 {oxygen[0]}")
    expect(told).to_contain_text(f"{places.get_distance(1, oxygen[0]):.3f} Å")
    field.fill(f"{oxygen[0]} 1 {oxygen[1]}")
    expect(told).to_contain_text(f"{places.get_angle(oxygen[0], 1, oxygen[1]):.1f}°")
    field.fill("")
    expect(told).to_be_empty()
    # Two corners of the cell are seen in front; a click chooses each.
    corners = [[4, 0, 0], [4, 4, 0]]
    at = page.evaluate(
        "async places => (await import('/page/drawing.js')).projected(places)", corners
    )
    canvas = page.locator(".structure")
    for corner in at:
        canvas.click(position={"x": corner["x"], "y": corner["y"]})
    expect(told).to_have_text("Ba 0 – Ba 0: 4.000 Å")
    canvas.click(position={"x": at[1]["x"], "y": at[1]["y"]})
    expect(told).to_have_text("Ba 0")
    # Turning it is no click.
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + at[1]["x"], box["y"] + at[1]["y"])
    page.mouse.down()
    page.mouse.move(box["x"] + at[1]["x"] + 30, box["y"] + at[1]["y"], steps=3)
    page.mouse.up()
    expect(told).to_have_text("Ba 0")


def test_held_atoms_are_marked(shown):
    page = shown("slab")
    drawn(page, "held", 8)
    expect(facts(page)).to_contain_text("13, 8 held")
    page.get_by_label("held atoms").uncheck()
    drawn(page, "held", 0)
    assert not page.get_by_label("Cells along c").count()  # there is nothing periodic


def test_the_chart_and_the_slider_are_one(shown):
    page = shown("slab")
    slider = page.get_by_label("Frame")
    last = int(slider.get_attribute("max"))
    expect(slider).to_have_value(str(last))
    legend = page.locator(".u-legend .u-value").first
    expect(legend).to_have_text(str(last))
    chart = page.locator(".plot .u-over")
    box = chart.bounding_box()
    chart.hover(position={"x": 2, "y": box["height"] / 2})
    expect(slider).to_have_value("0")
    energy = page.locator(".u-legend .u-value").nth(1).inner_text()
    expect(page.locator(".frames")).to_contain_text(f"{energy} eV")
    chart.click(position={"x": box["width"] - 2, "y": box["height"] / 2})
    expect(slider).to_have_value(str(last))
    page.get_by_role("heading", level=1).hover()
    slider.focus()
    page.keyboard.press("ArrowLeft")
    expect(legend).to_have_text(str(last - 1))


def test_what_differs_from_the_first_frame(crystals, shown):
    page = shown("iron")
    grown = 100 * (1.001 ** (3 * (FRAMES - 1)) - 1)
    (file,) = crystals.client.job(crystals.jobs["iron"].job_id).work_dir.rglob("opt.traj")
    first, last = read(file, 0), read(file, -1)
    shares = last.get_scaled_positions(wrap=False) - first.get_scaled_positions(wrap=False)
    moved = find_mic(shares @ last.cell, last.cell)[1]
    expect(facts(page)).to_contain_text(f"volume +{grown:.2f} %")
    largest = f"{moved.max():.3f} Å (Fe {moved.argmax()})"
    expect(facts(page)).to_contain_text(f"largest displacement {largest}")
    for kind in ("displacements", "moments", "forces"):
        page.get_by_label(kind).check()
        drawn(page, "arrows", kind)
    page.get_by_label("Frame").fill("0")
    expect(facts(page)).not_to_contain_text("displacement")


@pytest.mark.parametrize("width", [390, 1080, 2560])
def test_it_fits_every_screen(shown, width):
    page = shown("slab", viewport={"width": width, "height": 900}, color_scheme="dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    box = page.locator(".structure").bounding_box()
    assert box["height"] >= 250
    assert np.isclose(page.locator(".drawing canvas").bounding_box()["height"], box["height"], 0.02)


def test_a_large_structure_turns(shown, capsys):
    page = shown("large")
    drawn(page, "spheres", LARGE)
    eventually(lambda: page.locator(".frames").is_visible())
    rates = {"turned": page.evaluate(TURNED, 4000), "played": page.evaluate(PLAYED, 4000)}
    with capsys.disabled():
        told = ", ".join(f"{name} {rate:.1f}" for name, rate in rates.items())
        print(f"\n{LARGE} atoms, frames a second: {told}")
    # Software draws here, and other tests may run beside it.
    assert min(rates.values()) > 0.3
