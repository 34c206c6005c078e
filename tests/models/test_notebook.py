"""What a notebook shows of jobs: all of it text, and nothing that is asked for to show it."""

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from ase.build import bulk

from crystalmath import errors
from crystalmath.client import Jobs, in_process
from crystalmath.client.transport import Caller
from crystalmath.models import Finding, FlowCheck, Inputs, Job, JobCheck, JobState, Progress
from crystalmath.models.inputs import StepCheck, StepInputs
from crystalmath.models.notebook import MOST_ROWS, Findings
from crystalmath.models.written import force_text

pytestmark = pytest.mark.server

AL = bulk("Al")
SCRIPT = "</td><script>alert(1)</script><img src=x onerror=alert(1)>\"'>"
#: MathJax typesets outputs, and takes links of any kind.
MATH = r"$\href{javascript:alert(1)}{x}$ \(\href{javascript:alert(1)}{x}\)"
#: Elements and attributes that only show something.
SHOWN = {
    **{tag: set() for tag in ("table", "caption", "thead", "tbody", "tr", "th", "p", "title")},
    "td": {"style"},
    "span": {"style"},
    "svg": {"width", "height", "role", "aria-label"},
    "rect": {"x", "width", "height", "fill"},
    "polyline": {"points", "fill", "stroke"},
}


class _Elements(HTMLParser):
    def __init__(self):
        super().__init__()
        self.texts = []

    def handle_starttag(self, tag, attrs):
        assert {name for name, _ in attrs} <= SHOWN[tag]

    def handle_data(self, data):
        self.texts.append(data)


def read(shown):
    """Return what IPython shows: the text in its HTML, of which no element does anything."""
    formatters = pytest.importorskip("IPython.core.formatters")
    told, _ = formatters.DisplayFormatter().format(shown)
    assert told["text/html"] == shown._repr_html_()
    elements = _Elements()
    elements.feed(told["text/html"])
    # A pair of them in one text is what MathJax looks for.
    assert all(text in {"$", "\\"} or not re.search(r"[$\\]", text) for text in elements.texts)
    return "".join(elements.texts)


def hostile(**more):
    given = {
        "job_id": "2105b513-9c2f-4afd-9315-8c78b004c85e",
        "recipe": f"lab{SCRIPT}",
        "engine": f"local{SCRIPT}",
        "cluster": SCRIPT,
        "name": f"name{SCRIPT}{MATH}",
        "labels": {f"label{SCRIPT}": f"{MATH}{SCRIPT}"},
        "formula": f"Al{SCRIPT}",
        "reason": SCRIPT,
        "error": f"wrong{SCRIPT}{MATH}",
        "state": JobState.FAILED,
        "created_at": 0.0,
        "steps": {SCRIPT: 2, "completed": 3},
        "summary": {"energy_ev": SCRIPT, "max_force_ev_ang": None},
    }
    return Job(**{**given, **more})


def test_what_came_from_jobs_is_text():
    job = hostile()
    assert SCRIPT in read(job)
    assert MATH in read(job)
    assert f"wrong{SCRIPT}" in read(Jobs([job, errors.InvalidJob(f"no{SCRIPT}")]))
    finding = Finding(severity="error", code="x", message=f"message{SCRIPT}", place=f"{MATH}")
    assert f"message{SCRIPT}" in read(Findings([finding]))
    step = StepCheck(name=SCRIPT, recipe=None, formula=MATH, known=True, findings=[vars(finding)])
    given = StepInputs(program=SCRIPT, formula="Al", files={MATH: SCRIPT}, settings=())
    inputs = Inputs(steps=(given,), rest=SCRIPT)
    check = JobCheck(findings=[finding], inputs=inputs, flow=FlowCheck(steps=(step,), rest=MATH))
    assert read(check).count(SCRIPT) == 5
    assert repr(check) == "<JobCheck: 1 errors, 0 warnings, 1 jobs of the flow, 1 inputs>"
    parents = [{"job_id": "1" * 36, "role": "flow", "step": "x#0/relax_job#2"}]
    assert "relax_job#2" in read(Jobs([hostile(parents=parents)]))
    assert SCRIPT in read(Progress(program=SCRIPT, calculation=1, file="x", updated_at=0.0))


def test_a_long_list_and_long_texts_are_cut():
    told = read(Jobs([hostile(error="x" * 100_000, name="y" * 100_000)] * 1000))
    assert "1000 jobs: 1000 failed" in told
    assert f"and {1000 - MOST_ROWS} more" in told
    assert len(told) < 100_000
    assert read(Jobs()).startswith("0 jobs")
    assert read(Findings()) == "Nothing is wrong."


def test_a_curve_of_what_a_calculation_has_written():
    steps = [
        {"calculation": 1, "ionic_step": n, "energy_ev": value}
        for n, value in enumerate([1.0, float("nan"), None, *range(1000)])
    ]
    told = {"program": "ASE", "calculation": 1, "file": "x", "updated_at": 0.0, "history": steps}
    html = Progress.read(told)._repr_html_()
    assert "1001 energies, from 1.0000 to 999.0000 eV" in read(Progress.read(told))
    (points,) = re.findall(r'points="([^"]*)"', html)
    places = [tuple(map(float, point.split(","))) for point in points.split()]
    assert len(places) <= 120
    assert places[-1] == (119.0, 2.0)  # the largest, at the right


def test_energies_and_forces_have_the_digits_of_tables():
    job = hostile(summary={"energy_ev": -57549.012345, "max_force_ev_ang": 0.012345})
    told = read(job)
    assert "-57549.0123 eV" in told
    assert f"{force_text(0.012345)} eV/Å" in told
    assert "-57549.0123" in read(Jobs([job]))


def test_a_future_shows_what_its_client_knows(light_client, monkeypatch):
    done = light_client.submit("lab_recipes.value", AL, {"number": 1}, name=SCRIPT[:50])
    failed = light_client.submit("lab_recipes.fail", AL, {"message": SCRIPT})
    assert done.result(300) == 1
    assert failed.exception(300) is not None
    # A user's own recipe may call anything the steps of a trajectory.
    given = [1.5, "energy", None, [2.0], {"energy": None}, {"energy": 10**400}, {"energy": -1.0}]
    odd = light_client.submit("lab_recipes.tell", AL, {"trajectory_results": given * 2})
    assert odd.result(300) == {"trajectory_results": given * 2}
    known = light_client.jobs()
    findings = light_client.check("lab_recipes.value", AL)

    def ask(*_, **__):
        raise AssertionError("a display asks")

    monkeypatch.setattr(Caller, "call", ask)
    monkeypatch.setattr(Caller, "ask", ask)
    assert "3 jobs: 2 completed, 1 failed" in read(known)
    assert SCRIPT[:20] in read(known[1])
    assert "2 energies, from -1.0000 to -1.0000 eV" in read(odd)
    assert "completed" in read(done)
    assert read(findings) == "Nothing is wrong."


def test_map_draws_a_bar_in_a_kernel(light_client, capsys, tmp_path):
    pytest.importorskip("IPython")
    from IPython.core.displaypub import CapturingDisplayPublisher
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    # Without a history, which a thread would write to a file.
    config = Config(HistoryManager={"enabled": False})
    shell: Any = InteractiveShell.instance(
        config=config,
        display_pub_class=CapturingDisplayPublisher,
        ipython_dir=str(tmp_path),
    )
    try:
        shell.kernel = object()  # as in ipykernel
        assert light_client.map("lab_recipes.value", [AL] * 3, {"number": 1}) == [1, 1, 1]
        shown = shell.display_pub.outputs
        assert len({one["transient"]["display_id"] for one in shown}) == 1  # one bar
        assert shown[0]["data"]["text/plain"] == "0/3 jobs"
        assert "3/3 jobs" in shown[-1]["data"]["text/html"]
    finally:
        InteractiveShell.clear_instance()
    assert capsys.readouterr() == ("", "")


def test_a_view_wants_the_package_that_draws(home, monkeypatch):
    monkeypatch.setattr("crystalmath.entry_points_of", lambda _: [])
    with in_process() as client, pytest.raises(errors.CrystalMathError, match="crystalmath-web"):
        client.view("x")
