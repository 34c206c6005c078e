"""Submitting on the page: structures from anywhere, fields for parameters, verdicts."""

import io

import pytest
from ase.build import bulk
from ase.io import write
from playwright.sync_api import expect

from page.test_page import SCRIPT, row, state, tab_to

RELAX = "quacc.recipes.emt.core.relax_job"
CLIPBOARD = ["clipboard-read", "clipboard-write"]


def text_of(atoms, kind):
    with io.BytesIO() if kind == "cif" else io.StringIO() as file:
        write(file, atoms, format=kind)
        text = file.getvalue()
    return text.decode() if isinstance(text, bytes) else text


def dropped(name, text):
    return {"name": name, "mimeType": "text/plain", "buffer": text.encode()}


def rattled():
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=3)
    return atoms


def test_a_pasted_structure_is_submitted_by_keys_alone(ui, browser, client):
    page = browser(ui.address, permissions=CLIPBOARD)
    expect(page.get_by_text("No job yet.")).to_be_visible()
    press = page.keyboard.press
    press("g")
    press("s")
    expect(page.get_by_label("Search recipes")).to_be_visible()
    poscar = text_of(rattled(), "vasp")
    lines = poscar.splitlines()
    damaged = [*lines[:3], lines[3].replace("0.0", "0.x", 1), *lines[4:]]
    tab_to(page, "ariaLabel === 'Paste a structure'")
    page.evaluate("text => navigator.clipboard.writeText(text)", "\n".join(damaged))
    press("ControlOrMeta+v")
    expect(page.get_by_role("alert")).to_contain_text("line 4")
    chosen = "const { value, selectionStart: a, selectionEnd: b } = document.activeElement;"
    assert page.evaluate(f"() => {{ {chosen} return value.slice(a, b) }}") == damaged[3]
    page.keyboard.type(lines[3])  # in place of the line that is selected
    press("Tab")
    press("Enter")
    expect(page.get_by_role("list", name="Structures")).to_contain_text("Cu4")
    expect(page.get_by_role("alert")).to_have_count(0)
    tab_to(page, "ariaLabel === 'Search recipes'")
    page.keyboard.type("emt relax")
    tab_to(page, "textContent === 'emt.core.relax_job'")
    press("Enter")
    expect(page.get_by_label("fmax")).to_be_visible()
    tab_to(page, "id === 'parameter-opt_params.fmax'")
    page.keyboard.type("0.05")
    expect(page.get_by_role("heading", name="It would be accepted")).to_be_visible()
    press("ControlOrMeta+Enter")
    state(page, "completed")
    (job,) = client.list()
    assert client.specification(job.job_id)["params"] == {"opt_params": {"fmax": 0.05}}


def test_a_field_has_its_kind_unit_and_default_and_the_verdict_about_it(
    ui, browser, client, faultless
):
    page = browser(f"{ui.at(view='submit', recipe=RELAX)}#{ui.token}")
    page.set_input_files("input[type=file]", dropped("large.xyz", "x" * (2**22 + 1)))
    expect(page.get_by_role("alert")).to_contain_text("the page reads 4.2 MB at most")
    page.set_input_files("input[type=file]", dropped("Cu.cif", text_of(rattled(), "cif")))
    field = page.get_by_label("fmax")
    told = page.locator(".field", has=field)
    expect(told).to_contain_text("number, default 0.01")
    expect(told).to_contain_text("eV/Å")
    expect(told).to_contain_text("Tolerance for the force convergence")
    expect(page.get_by_role("heading", name="It would be accepted")).to_be_visible()
    field.fill("small")
    expect(told).to_contain_text("a number in eV/Å is wanted, and not small")
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_role("button", name="Submit it")).to_be_disabled()
    page.get_by_label("max_steps").focus()
    page.locator(".verdict").get_by_role("button", name="opt_params.fmax").click()
    expect(field).to_be_focused()
    field.fill("7")  # the server's finding, and a warning
    expect(told).to_contain_text("looks like a value in another unit")
    expect(field).to_have_attribute("aria-invalid", "false")
    page.get_by_label("opt_params as JSON").fill('{"fmaxx": 1}')
    expect(page.locator(".field", has_text="opt_params as JSON")).to_contain_text("did you mean")
    page.get_by_label("Walltime").fill("soon")
    expect(page.locator(".field", has_text="Walltime")).to_contain_text("a number of hours")
    faultless(page, ".submission")
    assert not list(client.list())


def test_a_preset_says_what_it_changes_and_a_keyword_becomes_a_field(ui, browser):
    recipe = "quacc.recipes.vasp.core.static_job"
    page = browser(f"{ui.at(view='submit', recipe=recipe)}#{ui.token}")
    page.get_by_role("button", name="SlabSetPBE").click()
    table = page.get_by_role("table", name="SlabSetPBE differs from DefaultSetGGA")
    expect(table.get_by_role("row", name="auto_dipole")).to_contain_text("true")
    expect(page.get_by_label("preset", exact=True)).to_have_value("SlabSetPBE")
    page.get_by_label("Add a keyword").fill("ENCUT")
    page.keyboard.press("Enter")
    expect(page.get_by_label("encut", exact=True)).to_be_focused()
    told = page.locator(".field", has=page.get_by_label("encut", exact=True))
    expect(told).to_contain_text("Planewave cutoff")
    expect(told).to_contain_text("eV")
    expect(told).to_contain_text("preset 520")
    page.keyboard.type("30")
    page.set_input_files("input[type=file]", dropped("POSCAR", text_of(rattled(), "vasp")))
    expect(told).to_contain_text("ENCUT is in eV")  # while VASP itself is missing here
    page.get_by_role("button", name="Leave out encut").click()
    expect(page.get_by_label("encut", exact=True)).to_have_count(0)


def test_many_structures_are_one_submission_with_a_verdict_for_each(ui, browser, client, picture):
    frames = [bulk(symbol, cubic=True) for symbol in ("Cu", "Al", "Fe")]
    page = browser(f"{ui.at(view='submit', recipe=RELAX)}#{ui.token}")
    files = [
        dropped("metals.xyz", text_of(frames, "extxyz")),
        dropped("silver.pdb", text_of(bulk("Ag", cubic=True), "proteindatabank")),
        dropped("broken.cif", "data_x\n_cell_length_a nonsense\n"),
    ]
    page.set_input_files("input[type=file]", files)
    expect(page.get_by_role("alert")).to_contain_text("broken.cif")
    taken = page.get_by_role("list", name="Structures").get_by_role("listitem")
    expect(taken).to_have_count(4)
    verdicts = page.get_by_role("region", name="Verdicts")
    expect(verdicts.get_by_text("accepted")).to_have_count(3)
    expect(verdicts.get_by_role("row").filter(has_text="-2")).to_contain_text("refused")
    expect(page.get_by_role("heading", name="1 of 4 would be refused")).to_be_visible()
    expect(page.get_by_role("button", name="Submit 4 jobs")).to_be_disabled()
    verdicts.get_by_role("button", name="silver").click()
    expect(page.get_by_role("img", name="Structure of Ag4")).to_be_visible()
    taken.filter(has_text="-2").get_by_role("button", name="Leave out").click()
    expect(page.get_by_role("heading", name="3 of 3 would be accepted")).to_be_visible()
    page.get_by_label("Labels").fill("set=a")
    expect(page.get_by_role("heading", name="3 of 3 would be accepted")).to_be_visible()
    page.locator("main").evaluate("shown => shown.scrollTo(0, 0)")
    picture(page, "many")
    hostile = [dropped(f"{SCRIPT[:-1]}.xyz", "1\n\nCu 0 0 0\n"), dropped(SCRIPT, SCRIPT)]
    page.set_input_files("input[type=file]", hostile)
    expect(page.get_by_role("alert")).to_contain_text(SCRIPT)
    expect(page.get_by_role("heading", name="4 of 4 would be accepted")).to_be_visible()
    assert not page.locator("img").count()
    taken.filter(has_text="onerror").get_by_role("button", name="Leave out").click()
    expect(page.get_by_role("heading", name="3 of 3 would be accepted")).to_be_visible()
    page.get_by_role("button", name="Submit 3 jobs").click()
    expect(row(page, "silver")).to_be_visible()
    jobs = list(client.list())
    assert {job.formula for job in jobs} == {"Cu4", "Al4", "Ag4"}
    assert all(job.labels == {"set": "a"} for job in jobs)


@pytest.mark.parametrize("ends", ["completed", "failed"])
def test_the_structure_of_a_job_is_taken(ui, browser, client, ends):
    steps = {} if ends == "completed" else {"max_steps": 1, "fmax": 1e-3}
    first = client.submit("emt.core.relax_job", rattled(), {"opt_params": steps}, name="first")
    first.exception(300)
    page = browser(f"{ui.at(view='job', id=first.job_id)}#{ui.token}")
    state(page, ends)
    page.get_by_role("link", name="Use this structure").click()
    name = "final structure of first" if ends == "completed" else "first as submitted"
    expect(page.get_by_role("list", name="Structures")).to_contain_text(name)
    page.get_by_label("Search recipes").fill("emt static")
    page.get_by_role("link", name="emt.core.static_job").click()
    expect(page.get_by_role("heading", name="It would be accepted")).to_be_visible()
    page.get_by_role("button", name="Submit it").click()
    state(page, "completed")
    (job,) = [job for job in client.list() if job.job_id != first.job_id]
    roles = [(parent["job_id"], parent["role"]) for parent in job.parents]
    assert roles == ([(first.job_id, "structure")] if ends == "completed" else [])
