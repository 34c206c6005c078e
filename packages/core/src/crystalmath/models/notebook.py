"""HTML for notebooks, without scripts: jobs and findings as far as they are known.

To show an object sends no request. Texts from jobs are escaped, and no pair of dollars or
backslashes is left for MathJax, whose `href` would lead anywhere.
"""

from __future__ import annotations

from collections import Counter
from html import escape
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from crystalmath.errors import Finding
from crystalmath.models.job_notes import step_of
from crystalmath.models.written import force_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence


_Item = TypeVar("_Item")
#: The most rows of a list, points of a curve and letters of a text.
MOST_ROWS, _MOST_POINTS, _MOST_LETTERS = 60, 120, 300
#: No energy is as large (eV); an integer of a recipe's own may be, and then is no float.
_MOST_ENERGY = 1e100
_COLORS = {
    "pending": "#868e96",
    "running": "#228be6",
    "completed": "#2f9e44",
    "failed": "#e03131",
    "cancelled": "#e8590c",
}
_CELL = '<td style="text-align:left">'


class Listed(list[_Item], Generic[_Item]):
    """A list that a notebook shows as a table."""

    def _repr_html_(self) -> str:
        raise NotImplementedError

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return bundle(self)


class Jobs(Listed[_Item]):
    """A list of jobs, futures, or errors that stand in their place."""

    def _repr_html_(self) -> str:
        states = Counter(one.state.value for one in self if hasattr(one, "state"))
        summary = ", ".join(f"{count} {state}" for state, count in states.items())
        rows = [_row(one) for one in self[:MOST_ROWS]]
        names = ["job", "name", "formula", "recipe", "state", "energy (eV)", ""]
        head = f"<p>{len(self)} job{'' if len(self) == 1 else 's'}{summary and f': {summary}'}</p>"
        return head + _bar(states) + _table(names, rows, len(self))


class Findings(Listed[Finding]):
    """The findings of a job's check; without any the job is accepted."""

    def _repr_html_(self) -> str:
        if not self:
            return "<p>Nothing is wrong.</p>"
        rows = [
            [
                _colored(one.severity, "#e03131" if one.severity == "error" else "#e8590c"),
                text(one.place),
                text(one.message),
                text(one.remedy),
            ]
            for one in self[:MOST_ROWS]
        ]
        return _table(["", "place", "message", "remedy"], rows, len(self))


def bundle(shown: Any) -> dict[str, str]:
    """Return the MIME bundle of an object that has ``_repr_html_``."""
    return {"text/plain": repr(shown), "text/html": shown._repr_html_()}


def text(value: object, most: int = _MOST_LETTERS) -> str:
    """Escape a value from a job, so that browsers show it as plain text."""
    plain = "" if value is None else str(value)
    escaped = escape(plain if len(plain) <= most else f"{plain[:most]}…")
    return escaped.replace("$", "<span>$</span>").replace("\\", "<span>\\</span>")


def job_html(one: Any) -> str:
    """Show a job or a future."""
    known = getattr(one, "known", one)
    summary = _summary(one)
    energy, force = summary.get("energy_ev"), summary.get("max_force_ev_ang")
    rows = [("job", text(one.job_id)), ("state", _state(one.state.value))]
    rows.append(("energy", _number(energy, "eV")))
    rows.append(("largest force", _number(force, "eV/Å", force_text)))
    formula = summary.get("formula") or (known and known.formula)
    rows.append(("formula", text(formula)))
    if known is not None:
        place = known.engine + (f" on {known.cluster}" if known.cluster else "")
        rows += [("recipe", text(known.recipe)), ("engine", text(place))]
        rows.append(("reason", text(known.reason)))
        if known.started_at is not None and known.finished_at is not None:
            rows.append(("took", f"{max(0.0, known.finished_at - known.started_at):.1f} s"))
        rows.append(("steps", _bar(known.steps or {})))
        rows.append(("superseded by", text(known.superseded_by)))
    rows.append(("labels", ", ".join(f"{text(k)}={text(v)}" for k, v in one.labels.items())))
    rows.append(("ionic steps", sparkline(getattr(one, "energies", ()))))
    rows.append(("error", text(_error(one))))
    body = "".join(f"<tr><th>{name}</th>{_CELL}{cell}</td></tr>" for name, cell in rows if cell)
    return f"<table>{f'<caption>{text(one.name)}</caption>' if one.name else ''}{body}</table>"


def check_html(check: Any) -> str:
    """Show a job's findings, the jobs that it would call, and its programs' inputs."""
    steps = () if check.flow is None else check.flow.steps
    called = [
        [
            text(one.name),
            text(one.formula),
            text("; ".join(each["message"] for each in one.findings)),
        ]
        for one in steps[:MOST_ROWS]
    ]
    inputs = [
        [text(one.program), text(one.formula), text(one.step), text(", ".join(one.files))]
        for one in check.inputs.steps[:MOST_ROWS]
    ]
    html: str = Findings(check.findings)._repr_html_()
    if called:
        html += _table(["step of the flow", "formula", "found"], called, len(steps))
    if inputs:
        names = ["program", "formula", "calculation", "files"]
        html += _table(names, inputs, len(check.inputs.steps))
    rest = [check.flow and check.flow.rest, check.inputs.rest]
    return html + "".join(f"<p>{text(one)}</p>" for one in rest if one)


def progress_html(one: Any) -> str:
    """Show how far a calculation has come."""
    return f"<p>{text(one)} {sparkline(energies(one))}</p>"


def energies(one: Any) -> list[float]:
    """Return the energies (eV) of the ionic steps whose history is known."""
    return [step.energy_ev for step in one.history or () if step.energy_ev is not None]


def sparkline(values: Iterable[Any]) -> str:
    """Draw numbers as a curve in a line of text; return nothing for fewer than two."""
    points = [float(v) for v in values if isinstance(v, int | float) and abs(v) < _MOST_ENERGY]
    if not points[1:]:
        return ""
    title = f"{len(points)} energies, from {points[0]:.4f} to {points[-1]:.4f} eV"
    stride = -(-len(points) // _MOST_POINTS)
    points = points[(len(points) - 1) % stride :: stride]
    least, span = min(points), max(points) - min(points) or 1.0
    places = " ".join(
        f"{1 + 118 * i / (len(points) - 1):.1f},{22 - 20 * (value - least) / span:.1f}"
        for i, value in enumerate(points)
    )
    return (
        f'<svg width="120" height="24" role="img" aria-label="{title}"><title>{title}</title>'
        f'<polyline points="{places}" fill="none" stroke="currentColor"/></svg>'
    )


def bar_html(ended: int, without: int, number: int, elapsed_s: float) -> str:
    """Show how many of some jobs have ended."""
    counts = {"completed": ended - without, "failed": without, "pending": number - ended}
    summary = f"{ended}/{number} jobs, {elapsed_s:.0f} s"
    return f"<p>{_bar(counts)} {summary}{f', {without} without a result' if without else ''}</p>"


def _bar(counts: Mapping[str, int]) -> str:
    total, drawn, at = sum(counts.values()), "", 0.0
    for state in ("completed", "failed", "cancelled", "running", "pending"):
        width = 240 * counts.get(state, 0) / max(total, 1)
        drawn += f'<rect x="{at:.1f}" width="{width:.1f}" height="8" fill="{_COLORS[state]}"/>'
        at += width
    label = ", ".join(f"{text(count)} {text(state)}" for state, count in counts.items())
    bar = f'<svg width="240" height="8" role="img" aria-label="{label}">{drawn}</svg>'
    return bar if total else ""


def _row(one: Any) -> list[str]:
    if isinstance(one, Exception):  # it stands in the place of the job that was refused
        return ["", "", "", "", _colored("refused", _COLORS["failed"]), "", text(one)]
    known = getattr(one, "known", one)
    steps = _bar((known and known.steps) or {})
    more = text(_error(one)) or sparkline(getattr(one, "energies", ())) or steps
    recipe = known.recipe.removeprefix("quacc.recipes.") if known else ""
    energy = _summary(one).get("energy_ev")
    step = step_of((known and known.parents) or ())
    name = step[1].rpartition("/")[2] if step else one.name
    first = [text(one.job_id[:8]), text(name), text(known and known.formula), text(recipe)]
    return [*first, _state(one.state.value), _number(energy), more]


def _summary(one: Any) -> Mapping[str, Any]:
    """Return the summary of a job's record, or else of the result that its future has read."""
    known = getattr(one, "known", one)
    return (known and known.summary) or getattr(one, "summary", None) or {}


def _error(one: Any) -> str | None:
    """Return the first line of a job's error, if it is known; a cancelled job has none."""
    if one.state.value == "cancelled":
        return None
    error: str | None = getattr(one, "known", one) and getattr(one, "known", one).error
    return error.split("\n", 1)[0] if error else None


def _state(state: str) -> str:
    return _colored(state, _COLORS[state])


def _colored(word: str, color: str) -> str:
    return f'<span style="color:{color}">{text(word)}</span>'


def _number(value: object, unit: str = "", write: Callable[[float], str] = "{:.4f}".format) -> str:
    return f"{write(value)} {unit}".strip() if isinstance(value, int | float) else ""


def _table(names: Sequence[str], rows: Sequence[Sequence[str]], number: int) -> str:
    head = "".join(f"<th>{name}</th>" for name in names)
    body = "".join(f"<tr>{''.join(f'{_CELL}{one}</td>' for one in row)}</tr>" for row in rows)
    rest = f"<p>and {number - len(rows)} more</p>" if number > len(rows) else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{rest}"
