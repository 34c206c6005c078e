"""The screen: a table of jobs that follows the event log, and a job with its curves and log.

Threads make the requests, so that the keys always answer. Texts from jobs are shown as they are:
their markup is not read, and they cannot steer the terminal.
"""

from __future__ import annotations

import time
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, ClassVar

from attrs import evolve
from rich.console import Group
from rich.text import Text
from textual import work
from textual.app import App
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.screen import ModalScreen, Screen
from textual.widgets import DataTable, Footer, Input, Static
from textual.worker import get_current_worker

from crystalmath.cli.shared.figure import Curve, Panel, draw
from crystalmath.cli.shared.output import first_line, printable
from crystalmath.errors import CrystalMathError
from crystalmath.models.progress import step_numbers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from textual.app import ComposeResult

    from crystalmath.client import Client, Job, JobChange
    from crystalmath.models import Progress

#: The newest jobs in the table, and the running jobs whose progress is read.
MOST_JOBS, MOST_RUNNING = 1000, 100
#: The pauses before the table is redrawn, and before progress and a shown job are read, in s.
DRAW_S, ASK_S = 0.25, 3.0
#: How long a thread waits for changes before it checks whether the screen has ended, in seconds.
WAIT_S = 1.0
#: The last lines of a log that are shown, and the bytes of it that are read.
LOG_LINES, LOG_BYTES = 200, 100_000
#: State and energy come first: a narrow terminal shows them, however long names are. Each has the
#: width that it needs, in characters.
COLUMNS = {
    "state": 9,
    "job": 8,
    "energy (eV)": 11,
    "name": 16,
    "formula": 10,
    "recipe": 24,
    "age": 8,
    "": 24,
}
#: The columns that a narrow terminal leaves out, the first one first.
LEFT_OUT = ("recipe", "formula", "age", "", "job")
#: The blanks of a column beside its text, in characters.
BESIDE = 2
STYLES = {
    "pending": "dim",
    "running": "blue",
    "completed": "green",
    "failed": "red",
    "cancelled": "yellow",
}


class Confirm(ModalScreen[bool]):
    """A question; `y` answers yes, any other key no.

    Parameters
    ----------
    question : str
        The question.
    """

    CSS = """
    Confirm { align: center middle; }
    Confirm Static { width: auto; max-width: 90%; padding: 1 2; border: round $error; }
    Confirm Static { background: $panel; }
    """

    def __init__(self, question: str) -> None:
        super().__init__()
        self._question = question

    def compose(self) -> ComposeResult:
        """Show the question."""
        yield Static(Text(f"{self._question}\n\ny: yes    any other key: no"))

    def on_key(self, event: Any) -> None:
        """Take the answer."""
        event.stop()
        self.dismiss(event.key == "y")


class JobView(Screen[None]):
    """A job: its story in some lines, the curves of its calculation, and the end of its log.

    Parameters
    ----------
    client : Client
        The client that reads the job.
    job_id : str
        The job.
    """

    CSS = """
    JobView Static { padding: 0 1; height: auto; }
    JobView #log { color: $text-muted; }
    """
    BINDINGS: ClassVar = [Binding("escape,backspace", "app.pop_screen", "Back")]

    def __init__(self, client: Client, job_id: str) -> None:
        super().__init__()
        self._client = client
        self.job_id = job_id

    def compose(self) -> ComposeResult:
        """Lay out the parts."""
        with VerticalScroll():
            yield Static(id="story")
            yield Static(id="curves")
            yield Static(id="log")
        yield Footer()

    def on_mount(self) -> None:
        """Begin to follow the job."""
        self.ask()
        self.set_interval(ASK_S, self.ask)

    # `exclusive`: a request that still waits must not be followed by another.
    @work(thread=True, exclusive=True, exit_on_error=False)
    def ask(self) -> None:
        """Read everything that is shown."""
        show = self.app.call_from_thread
        try:
            job = self._client.job(self.job_id)
            show(self.query_one("#story", Static).update, _story(job))
            progress = self._client.progress([self.job_id], history=True)[self.job_id]
            show(self.query_one("#curves", Static).update, _curves(progress, self.size.width))
            log = self._client.logs(self.job_id, tail=LOG_LINES, max_bytes=LOG_BYTES)["text"]
        except CrystalMathError as error:
            log = str(error)
        show(self.query_one("#log", Static).update, Text(printable(log)))


class Top(App[None]):
    """The screen.

    Parameters
    ----------
    client : Client
        The client whose jobs are shown.
    read_only : bool
        Whether to disable cancelling and retrying.
    """

    CSS = """
    #counts { height: 1; padding: 0 1; }
    #filter { display: none; }
    #filter.shown { display: block; }
    """
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar = [
        Binding("c", "cancel", "Cancel"),
        Binding("r", "retry", "Retry"),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("q", "quit", "Leave"),
    ]

    def __init__(self, client: Client, *, read_only: bool = False) -> None:
        super().__init__()
        self._client = client
        self._read_only = read_only
        #: Updates from threads, which the screen carries out.
        self._updates: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._jobs: dict[str, Job] = {}
        self._progress: Mapping[str, Progress | None] = {}
        self._totals: Mapping[str, int] = {}
        self._trouble = self._wanted = ""

    def compose(self) -> ComposeResult:
        """Lay out the parts."""
        yield Static(id="counts")
        yield DataTable(cursor_type="row", zebra_stripes=True)
        yield Input(id="filter", placeholder="part of a name, formula, recipe, label or state")
        yield Footer()

    def on_mount(self) -> None:
        """Begin to follow the jobs."""
        self.title = "CrystalMath jobs"
        self.query_one(DataTable).focus()
        self.follow()
        self.look()
        self.set_interval(DRAW_S, self.draw)
        self.set_interval(ASK_S, self.look)

    # --- requests, in threads --------------------------------------------------------------------

    @work(thread=True, group="follow")
    def follow(self) -> None:
        """Read the jobs, and then each change."""
        worker, last = get_current_worker(), None
        while not worker.is_cancelled:
            try:
                if last is None:
                    newest = self._client.call("jobs.events", {"after": 2**53 - 1, "limit": 1})
                    jobs = list(self._client.list(limit=MOST_JOBS))
                    self._updates.put(partial(self._begin, jobs))
                    last = newest["last"]
                for change in self._client.changes(after=last, job=True, timeout=WAIT_S):
                    last = change.seq
                    self._updates.put(partial(self._change, change))
            except CrystalMathError as error:
                self._updates.put(partial(setattr, self, "_trouble", first_line(str(error))))
                time.sleep(WAIT_S)

    @work(thread=True, exclusive=True, group="look")
    def look(self) -> None:
        """Read the progress of running jobs, and how many steps of flows have ended."""
        trouble = ""
        try:
            running = list(self._client.list(state="running", limit=MOST_RUNNING))
            progress = self._client.progress([job.job_id for job in running])
            self._updates.put(partial(self._look, running, progress, self._client.totals()))
        except CrystalMathError as error:
            trouble = first_line(str(error))
        self._updates.put(partial(setattr, self, "_trouble", trouble))

    # --- the table -------------------------------------------------------------------------------

    def on_resize(self) -> None:
        """Have the table show as many columns as there is room for."""
        self._updates.put(self._lay_out)

    def _lay_out(self) -> None:
        table: DataTable[Text] = self.query_one(DataTable)
        if (names := fitting_columns(self.size.width)) != [key.value for key in table.columns]:
            table.clear(columns=True)
            for name in names:
                table.add_column(name, key=name)

    def _begin(self, jobs: list[Job]) -> None:
        self._jobs = {job.job_id: job for job in jobs} | self._jobs

    def _change(self, change: JobChange) -> None:
        if change.job is None or any(one["role"] == "flow" for one in change.job.parents):
            return  # steps are not shown: a flow is one line
        if change.job.superseded_by is not None:
            self._jobs.pop(change.job_id, None)  # its retry is shown instead
            return
        # Events do not have the counts of a flow's steps; keep the known ones.
        before = self._jobs.get(change.job_id)
        steps = before.steps if before else None
        self._jobs[change.job_id] = evolve(change.job, steps=change.job.steps or steps)

    def _look(
        self,
        running: list[Job],
        progress: Mapping[str, Progress | None],
        totals: Mapping[str, int],
    ) -> None:
        self._progress, self._totals = progress, totals
        for job in running:
            known = self._jobs.get(job.job_id)
            if known is None or known.revision <= job.revision:
                self._jobs[job.job_id] = job

    def draw(self) -> None:
        """Carry out the updates, and redraw the table if there were any."""
        if self._updates.empty():
            return
        table: DataTable[Text] = self.query_one(DataTable)
        chosen, scroll = self.chosen, table.scroll_y
        while not self._updates.empty():
            self._updates.get()()
        fitting = [job for job in self._jobs.values() if self._wanted in _searched(job)]
        jobs = sorted(fitting, key=lambda job: -job.created_at)[:MOST_JOBS]
        known = [str(key.value) for key in table.rows]
        names = [str(key.value) for key in table.columns]
        rows = {job.job_id: _row(job, self._progress.get(job.job_id)) for job in jobs}
        if list(rows) == known:
            for job_id, row in rows.items():
                for name, cell in ((name, row[name]) for name in names):
                    if table.get_cell(job_id, name) != cell:
                        table.update_cell(job_id, name, cell, update_width=True)
        else:
            table.clear()
            for job_id, row in rows.items():
                table.add_row(*(row[name] for name in names), key=job_id)
            if chosen in rows:
                table.move_cursor(row=table.get_row_index(chosen), scroll=False)
                table.scroll_y = scroll
        counts = "  ".join(f"{count} {state}" for state, count in self._totals.items())
        line = Text(counts or "no jobs").append(f"  {self._trouble}", style="red")
        self.query_one("#counts", Static).update(line)

    @property
    def chosen(self) -> str:
        """The id of the shown job, or of the job under the cursor."""
        if isinstance(self.screen, JobView):
            return self.screen.job_id
        table: DataTable[Text] = self.query_one(DataTable)
        if not table.row_count:
            return ""
        return str(table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value)

    def tell(self, error: object) -> None:
        """Show an error."""
        self.notify(printable(str(error))[:500], severity="error", markup=False)

    # --- keys -------------------------------------------------------------------------------------

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        """Show a job."""
        self.push_screen(JobView(self._client, str(event.row_key.value)))

    def check_action(self, action: str, _parameters: tuple[object, ...]) -> bool | None:
        """Return whether a key works now; the footer shows only these keys."""
        if action in {"cancel", "retry"}:
            return not self._read_only
        return action != "filter" or len(self.screen_stack) == 1

    def action_filter(self) -> None:
        """Show the field for a filter."""
        field = self.query_one("#filter", Input)
        field.add_class("shown")
        field.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Show only jobs that fit the filter."""
        self._updates.put(partial(setattr, self, "_wanted", event.value.lower()))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Go back to the table, and hide an empty filter."""
        event.input.set_class(bool(event.value), "shown")
        self.query_one(DataTable).focus()

    def action_cancel(self) -> None:
        """Cancel a job, after a question."""
        self._act("Cancel", lambda job_id: self._client.cancel_many([job_id])[0]["error"])

    def action_retry(self) -> None:
        """Run a job again, after a question."""
        self._act("Retry", self._retry)

    def _retry(self, job_id: str) -> object:
        (answer,) = self._client.retry(job_id)
        return answer if isinstance(answer, CrystalMathError) else None

    def _act(self, verb: str, act: Callable[[str], object]) -> None:
        job = self._jobs.get(self.chosen)
        if job is None:
            self.tell("there is no job here")
            return
        name = first_line(job.name or job.recipe)
        question = f"{verb} {name} ({job.job_id[:8]}, {job.state.value})?"

        def decided(yes: bool | None) -> None:  # noqa: FBT001 - Textual calls it so
            if yes:
                self.act(act, job.job_id)

        self.push_screen(Confirm(question), decided)

    @work(thread=True)
    def act(self, act: Callable[[str], object], job_id: str) -> None:
        """Carry out an action on a job, and show its error."""
        try:
            wrong = act(job_id)
        except CrystalMathError as error:
            wrong = error
        if wrong is not None:
            self.tell(wrong)


def fitting_columns(width: int) -> list[str]:
    """Return the columns that a terminal of a width (characters) has room for."""
    left_out: set[str] = set()
    for name in LEFT_OUT:
        if sum(COLUMNS[one] + BESIDE for one in COLUMNS.keys() - left_out) <= width:
            break
        left_out.add(name)
    return [name for name in COLUMNS if name not in left_out]


def _searched(job: Job) -> str:
    labels = (f"{name}={value}" for name, value in job.labels.items())
    texts = (job.job_id, job.name or "", job.formula or "", job.recipe, job.state.value, *labels)
    return "\n".join(texts).lower()


def _row(job: Job, progress: Progress | None) -> dict[str, Text]:
    more = first_line(_error(job) or "")
    if job.state.value == "running":
        ended = (job.steps or {}).get("completed", 0)
        more = f"{ended}/{sum(job.steps.values())} steps" if job.steps else str(progress or "")
    energy = (job.summary or {}).get("energy_ev")
    recipe = job.recipe.removeprefix("quacc.recipes.")
    texts = {"job": job.job_id[:8], "name": job.name, "formula": job.formula, "recipe": recipe}
    return {
        **{name: Text(first_line(text or "")) for name, text in texts.items()},
        "state": Text(job.state.value, style=STYLES[job.state.value]),
        "energy (eV)": Text("" if energy is None else f"{energy:.4f}", justify="right"),
        "age": Text(_age(time.time() - job.created_at), justify="right"),
        "": Text(first_line(more)),
    }


def _error(job: Job) -> str | None:
    """Return the error of a job; a cancelled job has none, only its state."""
    return None if job.state.value == "cancelled" else job.error


def _age(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return "< 1 min"


def _story(job: Job) -> Group:
    lines = [
        Text(printable(job.name or job.job_id), style="bold"),
        Text(job.state.value, style=STYLES[job.state.value]),
        Text(f"{job.recipe} on {job.formula or 'no structure'}, {job.engine}, job {job.job_id}"),
    ]
    labels = ", ".join(f"{name}={value}" for name, value in job.labels.items())
    details = (job.reason, _error(job), labels)
    return Group(*lines, *(Text(printable(one)) for one in details if one))


def _curves(progress: Progress | None, width: int) -> Group:
    history = (progress and progress.history) or ()
    steps = list(zip(step_numbers(history), history, strict=True))
    panels = []
    for field, label, log in (
        ("energy_ev", "energy / eV", False),
        ("max_force_ev_ang", "largest force / (eV/Å)", True),
    ):
        points = [(at, value) for at, one in steps if (value := getattr(one, field)) is not None]
        if len(points) > 1 and not (log and min(value for _, value in points) <= 0):
            curve = Curve("", [at for at, _ in points], [value for _, value in points])
            panels.append(Panel("ionic step", label, [curve], log_y=log))
    lines = [line for panel in panels for line in draw(panel, min(width - 4, 100), 9)]
    return Group(Text(printable(str(progress or ""))), *lines)
