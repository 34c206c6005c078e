"""A failed job on the page: why it failed, and the repairs that fit."""

from ase.build import bulk
from playwright.sync_api import expect

from conftest import eventually
from page.test_page import MARK, SCRIPT, row, state, tab_to

#: A relaxation that needs more than one step.
STEPS = {"opt_params": {"max_steps": 1, "fmax": 0.05}}


def rattled():
    atoms = bulk("Cu", cubic=True) * (2, 1, 1)
    atoms.rattle(0.1, seed=1)
    return atoms


def failed(client, recipe, atoms, parameters, **more):
    job = client.submit(recipe, atoms, parameters, engine="local", **more)
    assert job.exception(300) is not None
    return job


def opened(browser, ui, job):
    page = browser(f"{ui.at(view='job', id=job.job_id)}#{ui.token}")
    state(page, "failed")
    return page


def test_a_relaxation_that_was_cut_gets_more_steps(ui, browser, client, picture, faultless):
    job = failed(client, "emt.core.relax_job", rattled(), STEPS, name="cut")
    page = opened(browser, ui, job)
    why = page.get_by_role("region", name="Why it failed")
    expect(why).to_contain_text("The relaxation did not converge: it used up its steps")
    expect(why).to_contain_text("calculation 1 (ASE), ionic step 1")
    expect(why.get_by_role("link", name="opt.log")).to_be_visible()
    expect(why.get_by_text("It would be accepted")).to_be_visible()
    expect(page.locator(".structure canvas")).to_be_visible()
    picture(page, "failure")
    lines = why.get_by_text("schemas/ase.py")  # the last line of the traceback
    expect(lines).to_be_hidden()
    why.get_by_text("Traceback, the last lines").click()
    expect(lines).to_be_visible()
    expect(why.get_by_label("opt_params.max_steps")).to_have_value("100")
    expect(why.get_by_label("Go on from the last geometry")).to_be_checked()
    field = why.get_by_label("opt_params.max_steps")
    field.fill("many")
    expect(why.get_by_role("alert")).to_contain_text("a whole number is wanted, and not many")
    expect(field).to_have_attribute("aria-invalid", "true")
    faultless(page, ".failure")
    why.get_by_text("A looser threshold").click()
    expect(why.get_by_label("opt_params.fmax")).to_have_value("0.1")
    why.get_by_text("More steps").click()
    why.get_by_role("button", name="Run the repair").click()
    link = why.get_by_role("link", name="cut job")
    expect(link).to_be_visible()
    expect(page.locator(".superseded")).to_contain_text("superseded by job")
    link.click()
    state(page, "completed")
    expect(page.get_by_text("It repairs")).to_be_visible()
    (again,) = client.list(name="cut")
    assert client.specification(again.job_id)["params"]["opt_params"]["max_steps"] == 100
    page.get_by_role("link", name=f"job {job.job_id[:8]}").click()
    state(page, "failed")
    expect(page.get_by_role("button", name="Run the repair")).to_have_count(0)
    why.get_by_role("link", name="opt.log").click()
    expect(page.locator("pre.log")).to_contain_text("fmax")


CAUSES = {
    "pw.x: convergence NOT achieved after 100 iterations: stopping (RuntimeError: x)": "(SCF)",
    "RuntimeError: SCF did not converge in 60 steps": "(SCF)",
    "pw.x: The maximum number of steps has been reached. (RuntimeError: x)": "used up its steps",
    "VASP: Error EDDDAV: Call to ZHEGV failed. Returncode = 7 (x)": "electronic solver",
    "VASP: ZBRENT: fatal error in bracketing (x)": "ZBRENT",
    "VASP: sh: vasp_std: command not found (CalledProcessError: x)": "not be started",
    "CalledProcessError: x\nthe end of std_err.txt:\n  sh: vasp_std: not found": "not be started",
    "lost: the supervisor (pid 1 on node7) died": "went down",
    "the runner was killed for want of memory by the kernel (x)": "more memory",
    "atoms overlap: they are nearer than half the sum of their radii": "ran away",
    "stopped: the walltime of its allocation is over": "allocation of the cluster",
    "stopped: the walltime of 60 s is over": "took longer than its walltime",
    "OSError: [Errno 28] No space left on device": "disk was full",
    "ModuleNotFoundError: No module named 'tblite'": "package that the recipe needs",
    "KeyError: 'energy'": "The recipe raised an error",
    "": "The recipe raised an error",
}


def test_each_kind_of_error_has_its_cause_in_words(ui, browser, client):
    page = browser(ui.address)
    told = page.evaluate(
        """async errors => {
          const { causeOf } = await import("/page/failure.js");
          return errors.map(error => causeOf(error));
        }""",
        [*CAUSES],
    )
    for (error, due), cause in zip(CAUSES.items(), told, strict=True):
        assert due in cause["says"], error
        assert cause["repairs"], error


def test_why_it_failed_and_the_repair_by_keys_alone(ui, browser, client):
    job = failed(client, "emt.core.relax_job", rattled(), STEPS, name="cut")
    page = browser(ui.address)
    expect(row(page, "cut")).to_be_visible()
    press = page.keyboard.press
    press("j")
    press("Enter")
    why = page.get_by_role("region", name="Why it failed")
    expect(why).to_contain_text("did not converge")
    tab_to(page, "textContent === 'Traceback, the last lines'")
    press("Enter")
    expect(why.get_by_text("schemas/ase.py")).to_be_visible()
    expect(why.get_by_text("It would be accepted")).to_be_visible()
    tab_to(page, "name === 'repair'")
    press("ArrowDown")
    expect(why.get_by_label("opt_params.fmax")).to_have_value("0.1")
    press("ArrowUp")
    tab_to(page, "id === 'parameter-opt_params.max_steps'")
    press("ControlOrMeta+a")
    page.keyboard.type("300")
    expect(why.get_by_text("It would be accepted")).to_be_visible()
    press("Enter")
    expect(page.locator(".superseded")).to_be_visible()
    (again,) = [one for one in client.list(all_tries=True) if one.job_id != job.job_id]
    assert client.specification(again.job_id)["params"]["opt_params"]["max_steps"] == 300


def test_a_flow_names_its_failing_step_and_repairs_it(ui, browser, client):
    parameters = {"job_params": {"relax_job": {"opt_params": {"max_steps": 3, "fmax": 0.01}}}}
    flow = failed(client, "emt.slabs.bulk_to_slabs_flow", bulk("Cu", cubic=True), parameters)
    page = opened(browser, ui, flow)
    why = page.get_by_role("region", name="Why it failed")
    expect(why).to_contain_text("The relaxation did not converge")
    expect(why.get_by_role("link", name="relax_job#")).to_be_visible()
    expect(why.get_by_label("relax_job: opt_params.max_steps")).to_have_value("100")
    expect(why.get_by_text("It would be accepted")).to_be_visible()
    why.get_by_role("button", name="Run the repair").click()
    expect(page.locator(".superseded")).to_be_visible()
    eventually(lambda: client.job(flow.job_id).superseded_by)
    again = client.job(flow.job_id).superseded_by
    list(client.wait([again], timeout=300))
    steps = list(client.list(parent=again, recipe="emt.core.relax_job"))
    params = [client.specification(step.job_id)["params"]["opt_params"] for step in steps]
    assert {"max_steps": 100, "fmax": 0.01} in [
        {name: value for name, value in each.items() if name in {"max_steps", "fmax"}}
        for each in params
    ]


def test_a_job_without_a_geometry_begins_anew_with_more_time(ui, browser, client):
    job = failed(client, "lab_recipes.long_sleep", bulk("Al"), {}, walltime_s=2)
    page = opened(browser, ui, job)
    why = page.get_by_role("region", name="Why it failed")
    expect(why).to_contain_text("took longer than its walltime")
    expect(why.get_by_label("Walltime (h)")).to_have_value("4 s")
    expect(why.get_by_text("so that one begins anew")).to_be_visible()
    expect(why.get_by_label("Go on from the last geometry")).not_to_be_checked()
    expect(why.get_by_text("It would be accepted")).to_be_visible()
    # A window above the form has fields of its own.
    page.get_by_role("button", name="Run again").click()
    dialog = page.get_by_role("dialog", name="Run again")
    dialog.get_by_text("Change something").click()
    dialog.get_by_label("Walltime (h)").fill("9 h")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(why.get_by_label("Walltime (h)")).to_have_value("4 s")
    why.get_by_label("Walltime (h)").fill("3 min")
    expect(why.get_by_text("It would be accepted")).to_be_visible()
    why.get_by_role("button", name="Run the repair").click()
    expect(page.locator(".superseded")).to_be_visible()
    (again,) = [one for one in client.list(all_tries=True) if one.job_id != job.job_id]
    assert again.walltime_s == 180


def test_what_a_failed_job_says_stays_text_and_can_be_copied(ui, browser, client):
    message = f"{SCRIPT} \u202egnp.exe"
    job = failed(client, "lab_recipes.fail", bulk("Al"), {"message": message}, name=SCRIPT)
    page = browser(
        f"{ui.at(view='job', id=job.job_id)}#{ui.token}",
        permissions=["clipboard-read", "clipboard-write"],
    )
    why = page.get_by_role("region", name="Why it failed")
    expect(why.locator("pre").first).to_contain_text(r"\u202egnp.exe")
    expect(why).to_contain_text(SCRIPT)
    why.get_by_text("Traceback, the last lines").click()
    assert not page.locator("img").count()
    assert MARK not in page.title() or SCRIPT in page.title()
    page.get_by_role("button", name="Copy the id").click()
    expect(page.get_by_role("button", name="Copied the id")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == job.job_id


def test_energies_forces_and_times_have_one_form_everywhere(ui, browser, client):
    job = client.submit("emt.core.static_job", rattled(), name="static")
    assert job.exception(300) is None
    summary = client.job(job.job_id).summary
    page = browser(f"{ui.at(view='job', id=job.job_id)}#{ui.token}")
    facts = page.locator(".facts")
    expect(facts).to_contain_text(f"{summary['energy_ev']:.4f} eV")
    expect(facts).to_contain_text(f"{summary['max_force_ev_ang']:.4f} eV/Å")
    page.get_by_role("link", name="Jobs").click()
    expect(row(page, "static")).to_contain_text(f"{summary['energy_ev']:.4f}")
