"""Turn filters, and the order of lists, into SQL; count the jobs that filters select."""

from __future__ import annotations

from collections import Counter
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from crystalmath.errors import InvalidJob, UnknownJob, did_you_mean, shown, the_one
from crystalmath.models.columns import SORTED_BY
from crystalmath.models.job_notes import UNFINISHED, JobState
from crystalmath.store.plain_sql import Parameters, is_storable
from crystalmath.store.records import group_errors, in_common

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from crystalmath.models.filters import Selection, StoreSelection
    from crystalmath.store.plain_sql import Snapshot
    from crystalmath.store.records import ErrorCount


#: How many jobs have each value, by filter and (for labels) the label's name.
FacetCounts: TypeAlias = "dict[tuple[_Facet, str | None], Counter[str]]"
_Facet: TypeAlias = Literal["state", "recipe", "engine", "cluster", "elements", "labels"]


class Condition:
    """Make conditions of filters; their values go to the parameters of a statement.

    `of` is the table: ``listed`` has the columns of most filters in shorter rows. For the others
    (`is_wide`) it must be joined with ``jobs``. `among` is a query of the numbers of a few
    candidate jobs: only their labels are read. With `one_by_one` a frequent label is read as each
    job is judged, so that the first page of many jobs is read without the labels of the others.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        parameters: Parameters,
        of: str = "listed",
        among: str | None = None,
        *,
        one_by_one: bool = False,
    ) -> None:
        self._snapshot = snapshot
        self._parameters = parameters
        self._of = of
        self._among = "" if among is None else f" AND number IN ({among})"
        self._one_by_one = one_by_one
        #: Whether a period or a label selects few jobs, which an index finds.
        self.selects_few = False

    def __call__(
        self,
        *,
        state: JobState | Collection[JobState] | None = None,
        seen: Mapping[str, JobState] | None = None,
        errors: Mapping[str, str] | None = None,
        engine: str | None = None,
        cluster: str | None = None,
        label: Mapping[str, str] | None = None,
        recipe: str | None = None,
        name: str | None = None,
        formula: str | None = None,
        elements: Collection[str] | None = None,
        energy_min: float | None = None,
        energy_max: float | None = None,
        since: float | None = None,
        until: float | None = None,
        error: str | None = None,
        failure: str | None = None,
        prefix: str | None = None,
        key: str | None = None,
        parent: str | Collection[str] | None = None,
        steps: bool | None = None,
        superseded: bool | None = None,
        owner: str | None = None,
        ended_before: float | None = None,
        pruned: bool | None = None,
        exclude: Selection | None = None,
    ) -> str:
        """Make the condition that all filters hold (`InvalidJob`: a formula or element is none).

        The filters are those of :class:`~crystalmath.models.JobFilter`, with energies in eV and
        times in seconds since the epoch. `steps` hides the steps of flows only if it is ``False``.
        `superseded` hides jobs that were run, or read, again; ``True`` selects only them. `seen`
        has the newer states of some jobs, by id, which count in place of the rows' states;
        `errors` has the errors of the failed ones among them. `owner` is the text in the row.
        `ended_before` is compared with the end of a job, or else with its submission. `pruned`
        hides jobs whose run directory was removed only if it is ``False``.
        """
        of, parameters = self._of, self._parameters
        conditions = [self._labelled(key, value) for key, value in (label or {}).items()]
        if recipe is not None:
            conditions.append(self._of_recipe(recipe))
        if name is not None:
            conditions.append(self.contains(f"{of}.name", name))
        if error is not None:
            conditions.append(self._failed_by(error, errors or {}))
        if failure is not None:
            conditions.append(self._in_group(failure, errors or {}))
        texts = {f"{of}.engine": engine, f"{of}.cluster": cluster}
        texts |= {"jobs.key": key, "jobs.owner": owner}
        conditions += [
            parameters.equal(where, text) for where, text in texts.items() if text is not None
        ]
        conditions += self._made_of(formula, elements)
        for where, bound in (
            ("listed.energy_ev >=", energy_min),
            ("listed.energy_ev <=", energy_max),
        ):
            if bound is not None:
                conditions.append(f"{where} {parameters.add(float(bound))}")
        conditions += self._submitted(since, until)
        conditions += _to_prune(parameters, ended_before, pruned=pruned)
        if state is not None:
            states = [state] if isinstance(state, str) else state
            conditions.append(self._is_in({JobState(one) for one in states}, seen or {}))
        if parent is not None:
            flows = [parent] if isinstance(parent, str) else parent
            ids = [self._flow(one) for one in flows]
            own = parameters.among("flow", ids)
            conditions.append(
                f"listed.number IN (SELECT number FROM listed WHERE {own} "
                f"UNION ALL SELECT number FROM lineage WHERE {_taken(parameters, ids)})"
            )

        conditions += _shown(steps=steps, superseded=superseded)
        if prefix:
            conditions.append(self.starts_with("jobs.job_id", prefix))
        few = self.selects_few
        # A condition on a missing value is not true, so that `exclude` keeps the job.
        conditions += [f"({self(**one)}) IS NOT TRUE" for one in _each(exclude or {}, seen, errors)]
        self.selects_few = few  # if few jobs are excluded, many may be left
        return " AND ".join(conditions) or "1 = 1"

    def _labelled(self, name: str, value: str) -> str:
        named = labelled(self._parameters, "own", name, value)
        rows = f"labels AS own WHERE {named}"
        if self._one_by_one:
            if count_some(self._snapshot, rows, self._parameters) == _COUNTED:
                named += f" AND own.number = {self._of}.number"
                # OFFSET keeps PostgreSQL from reading all of the label's rows first.
                return f"EXISTS (SELECT 1 FROM labels AS own WHERE {named} LIMIT 1 OFFSET 0)"
            self.selects_few = True
        return f"{self._of}.number IN (SELECT number FROM {rows}{self._among})"

    def _submitted(self, since: float | None, until: float | None) -> Iterator[str]:
        """Make the condition that a job was submitted in a period, by an index if it is short."""
        if since is None and until is None:
            return

        def within(parameters: Parameters, column: str) -> str:
            bounds = ((">=", since), ("<", until))
            return " AND ".join(
                f"{column} {sign} {parameters.add(float(bound))}"
                for sign, bound in bounds
                if bound is not None
            )

        values = Parameters()
        rows = f"listed WHERE {within(values, 'created_at')}"
        if count_some(self._snapshot, rows, values) < _COUNTED:
            self.selects_few = True
            period = within(self._parameters, "created_at")
            yield f"listed.number IN (SELECT number FROM listed WHERE {period})"
        else:
            # SQLite uses no index for an expression: it would sort all jobs of the period.
            yield within(self._parameters, "+listed.created_at")

    def _of_recipe(self, recipe: str) -> str:
        where, names = f"{self._of}.recipe", sorted({recipe, f"quacc.recipes.{recipe}"})
        ways = [self._parameters.equal(where, name) for name in names]
        ways += [self.starts_with(where, f"{name}.") for name in names]
        return f"({' OR '.join(ways)})"

    def _made_of(self, formula: str | None, elements: Collection[str] | None) -> list[str]:
        if formula is None and elements is None:
            return []
        from crystalmath.recipes.formulas import read_elements, read_formula

        conditions = []
        if formula is not None:
            sought = read_formula(formula)
            column = "reduced_formula" if sought.formula == sought.reduced else "formula"
            conditions.append(self._parameters.equal(f"listed.{column}", sought.formula))
        symbols = () if elements is None else read_elements(elements)
        return conditions + [
            f"listed.elements LIKE {self._parameters.add(f'% {symbol} %')}" for symbol in symbols
        ]

    def _is_in(self, states: set[JobState], seen: Mapping[str, JobState]) -> str:
        values = sorted(state.value for state in states)
        on_record = self._parameters.among(f"{self._of}.state", values)
        if not seen:
            return on_record
        matching = [job_id for job_id, state in seen.items() if state in states]
        return f"({on_record} AND NOT {self.has_id(seen)} OR {self.has_id(matching)})"

    def _failed_by(self, text: str, errors: Mapping[str, str]) -> str:
        on_record = self.contains("jobs.error", text)
        matching = [job_id for job_id, error in errors.items() if text.lower() in error.lower()]
        return f"({on_record} OR {self.has_id(matching)})" if matching else on_record

    def _in_group(self, failure: str, errors: Mapping[str, str]) -> str:
        """Make the condition that a job failed, with an error that `group_errors` counts there."""
        common, values = in_common(failure), Parameters()
        # SQL finds errors that contain a part of the text; the group is judged here.
        part = max(common.split("..."), key=len)
        where = Condition(self._snapshot, values).contains("error", part)
        query = f"SELECT job_id, error FROM jobs WHERE state = 'failed' AND {where}"
        rows = self._snapshot.rows(query, values, many=True)
        on_record = ((str(row["job_id"]), str(row["error"])) for row in rows)
        known = chain(on_record, errors.items())
        return self.has_id([job_id for job_id, error in known if in_common(error) == common])

    def _flow(self, prefix: str) -> str:
        """Return the only id with a prefix (`UnknownJob`: there is none, `InvalidJob`: several)."""
        parameters = Parameters()
        where = Condition(self._snapshot, parameters).starts_with("job_id", prefix)
        query = f"SELECT job_id FROM jobs WHERE {where} ORDER BY job_id LIMIT 5"
        rows = self._snapshot.rows(query, parameters)
        return the_one(prefix, [str(row["job_id"]) for row in rows])

    def has_id(self, job_ids: Collection[str]) -> str:
        """Make the condition that a job has one of any number of ids."""
        return f"jobs.job_id IN ({self._snapshot.ids(self._parameters, job_ids)})"

    def starts_with(self, where: str, text: str) -> str:
        """Make the condition that a column's text begins with another."""
        # A range uses the index, which LIKE does not, and knows no wildcards.
        if not is_storable(text):
            return "1 = 0"
        end = self._parameters.add(text + "\U0010ffff")
        return f"({where} >= {self._parameters.add(text)} AND {where} < {end})"

    def contains(self, where: str, text: str) -> str:
        """Make the condition that a column's text contains another; case does not count."""
        if not is_storable(text):
            return "1 = 0"
        # SQLite knows upper and lower case of ASCII only, PostgreSQL of all letters.
        ways = {text.lower(), "".join(c.lower() if c.isascii() else c for c in text)}
        comparisons = [
            f"lower({where}) LIKE {self._parameters.add(like(way))} ESCAPE '/'" for way in ways
        ]
        return f"({' OR '.join(comparisons)})"


def _shown(*, steps: bool | None, superseded: bool | None) -> Iterator[str]:
    """Make the conditions that hide steps of flows and superseded jobs."""
    if steps is False:
        yield "listed.flow IS NULL"
    if superseded is not None:
        yield f"listed.superseded_by IS {'NOT ' * superseded}NULL"


def _to_prune(
    parameters: Parameters, ended_before: float | None, *, pruned: bool | None
) -> Iterator[str]:
    """Make the conditions that a job has ended long ago, and that its files are there."""
    if ended_before is not None:
        ended = "coalesce(listed.finished_at, listed.created_at)"
        yield f"{ended} < {parameters.add(float(ended_before))}"
    if pruned is False:
        yield "coalesce(jobs.removed, '') <> 'all'"


def labelled(parameters: Parameters, labels: str, name: str, value: str) -> str:
    """Make the condition that a row of labels has this name and value."""
    named = parameters.equal(f"{labels}.name", name)
    return f"{named} AND {parameters.equal(f'{labels}.value', value)}"


def rarest(snapshot: Snapshot, label: Mapping[str, str]) -> str:
    """Return the name of the label that the fewest jobs have; all beyond `_COUNTED` are equal."""
    counts = {}
    for name, value in label.items() if len(label) > 1 else ():
        parameters = Parameters()
        where = labelled(parameters, "labels", name, value)
        counts[name] = count_some(snapshot, f"labels WHERE {where}", parameters)
    return min(label, key=lambda name: counts.get(name, 0))


def count_some(snapshot: Snapshot, rows: str, parameters: Parameters) -> int:
    """Count rows of a table, but no more than `_COUNTED`."""
    first = f"SELECT 1 FROM {rows} LIMIT {_COUNTED}"
    return int(snapshot.value(f"SELECT count(*) AS value FROM ({first}) AS counted", parameters))


#: More rows than this are many, which counts them in a millisecond.
_COUNTED = 2000


def like(text: str) -> str:
    """Write a text as a pattern of ``LIKE`` that finds it anywhere; ``/`` escapes."""
    for mark in "/%_":
        text = text.replace(mark, f"/{mark}")
    return f"%{text}%"


#: Filters whose columns only ``listed`` has, or has in shorter rows.
_SHORT = {
    *("cluster", "recipe", "name", "formula", "elements", "energy_min", "energy_max"),
    *("since", "until", "parent", "steps", "superseded", "exclude", "ended_before"),
}


def is_short(filters: StoreSelection) -> bool:
    """Return whether ``listed`` answers these filters faster than ``jobs``."""
    return any(filters.get(name) is not None for name in _SHORT)


def source(filters: StoreSelection) -> str:
    """Return the table to select from: ``listed``, joined with ``jobs`` if a filter needs it."""
    excluded = filters.get("exclude") or {}
    is_wide = any(filters.get(name) for name in ("seen", "prefix", "key", "owner")) or any(
        one.get(name) is not None
        for one in (filters, excluded)
        for name in ("error", "failure", "pruned")
    )
    return BOTH if is_wide else "listed"


#: Short rows with their jobs.
BOTH = "listed JOIN jobs ON listed.number = jobs.number"


def _each(
    exclude: Selection, seen: Mapping[str, JobState] | None, errors: Mapping[str, str] | None
) -> list[dict[str, Any]]:
    """Return each filter, each label, and each element as filters of their own."""
    excluded: Mapping[str, Any] = exclude
    single: list[dict[str, Any]] = [
        {name: part}
        for name, value in excluded.items()
        for part in (
            [{key: text} for key, text in value.items()]
            if name == "label"
            else [[one] for one in value]
            if name == "elements"
            else [value]
        )
    ]
    return [{**one, "seen": seen, "errors": errors} for one in single]


# --- order -----------------------------------------------------------------------------------

#: Smaller energies count as zero, in eV: PostgreSQL fails if a quotient underflows.
_NOTHING_EV = "1e-290"
_MADE = {
    "runtime_s": "(listed.finished_at - listed.started_at)",
    "energy_per_atom_ev": "CASE WHEN coalesce(listed.natoms, 0) = 0 THEN NULL "
    f"WHEN abs(listed.energy_ev) < {_NOTHING_EV} THEN 0.0 "
    "ELSE listed.energy_ev / CAST(listed.natoms AS FLOAT) END",
}


def sorted_page(
    snapshot: Snapshot, parameters: Parameters, sort: str | None, before: str | None
) -> tuple[str, str]:
    """Return a condition and an order for a page of ``listed``, sorted by one of ``SORTED_BY``.

    A minus before `sort` reverses the order; the default is the newest first. Jobs without a value
    come last; jobs with equal values have the newest first. The page begins after the job
    `before`, the last one of the previous page. `InvalidJob`: `sort` is no column to sort by;
    `UnknownJob`: no job has the id `before`.
    """
    newest_first = "listed.number DESC"
    if sort is None:
        if before is None:
            return "1 = 1", newest_first
        _, number = _place(snapshot, "listed.number", before)
        return f"listed.number < {parameters.add(number)}", newest_first
    name, falls = sort.removeprefix("-"), sort.startswith("-")
    if name not in SORTED_BY:
        raise InvalidJob(f"jobs are not sorted by {shown(name)}; {did_you_mean(name, SORTED_BY)}")
    value = _MADE.get(name, f"listed.{name}")
    condition = "1 = 1"
    if before is not None:
        last, number = _place(snapshot, value, before)
        earlier = f"listed.number < {parameters.add(number)}"
        if last is None:
            condition = f"{value} IS NULL AND {earlier}"
        else:
            at, sign = parameters.add(last), "<" if falls else ">"
            # The first comparison, which both others imply, begins an index at the right place.
            condition = f"{value} {sign}= {at} AND ({value} {sign} {at} OR {earlier})"
            if not SORTED_BY[name]:
                condition = f"({condition} OR {value} IS NULL)"
    order = [] if SORTED_BY[name] else [f"{value} IS NULL"]
    order += [f"{value} {'DESC' if falls else 'ASC'}", newest_first]
    return condition, ", ".join(order)


def _place(snapshot: Snapshot, value: str, job_id: str) -> tuple[Any, int]:
    parameters = Parameters()
    where = parameters.equal("jobs.job_id", job_id)
    row = snapshot.row(
        f"SELECT {value} AS value, listed.number FROM {BOTH} WHERE {where}", parameters
    )
    if row is None:
        raise UnknownJob(job_id)
    return row["value"], int(row["number"])


def _taken(parameters: Parameters, flows: Collection[str]) -> str:
    """Make the condition that one of these flows has taken over a step of another flow."""
    return f"{parameters.among('lineage.parent', flows)} AND lineage.role = 'taken'"


# --- counted ---------------------------------------------------------------------------------


def count_steps(snapshot: Snapshot, flows: Collection[str]) -> dict[str, dict[JobState, int]]:
    """Count the steps of each flow by their state; if a step was tried again, its newest job."""
    by_flow: dict[str, dict[JobState, int]] = {}
    parameters = Parameters()
    # In short rows, and by an index that has all of the inner query.
    for row in snapshot.rows(
        "SELECT newest.flow, listed.state, count(*) AS count FROM "
        "(SELECT flow, max(number) AS number FROM "
        f"(SELECT flow, step, number FROM listed WHERE {parameters.among('flow', flows)} UNION ALL "
        "SELECT lineage.parent, listed.step, listed.number FROM lineage JOIN listed "
        f"ON listed.number = lineage.number WHERE {_taken(parameters, flows)}) AS tries "
        "GROUP BY flow, step) AS newest "
        "JOIN listed ON listed.number = newest.number GROUP BY newest.flow, listed.state",
        parameters,
    ):
        counts = by_flow.setdefault(str(row["flow"]), {})
        counts[JobState(row["state"])] = int(row["count"])
    return by_flow


#: The numbers of the jobs that have not ended.
OPEN = "SELECT number FROM jobs WHERE state IN ('{}')".format("', '".join(UNFINISHED))


def count_states(
    snapshot: Snapshot, filters: StoreSelection, *, among: str | None = None
) -> dict[JobState, int]:
    """Count the selected jobs by their state, without states that no job has.

    `among` is a query of the numbers of the jobs that count; by default all do.
    """
    if among is None and all(value is None or value == {} for value in filters.values()):
        # All jobs: an index has them in this order.
        every = snapshot.rows("SELECT state, count(*) AS count FROM jobs GROUP BY state")
        by_state = {JobState(row["state"]): int(row["count"]) for row in every}
        return {state: by_state[state] for state in JobState if state in by_state}
    parameters, seen = Parameters(), filters.get("seen") or {}
    condition = Condition(snapshot, parameters, one_by_one=among is not None)
    where = condition(**filters)
    if among is not None:
        where = f"listed.number IN ({among}) AND {where}"
    # One pass; to group 100,000 rows, SQLite sorts them.
    sums = ", ".join(
        f"count(CASE WHEN listed.state = '{state.value}' THEN 1 END) AS {state.value}"
        for state in JobState
    )
    counted = snapshot.row(f"SELECT {sums} FROM {source(filters)} WHERE {where}", parameters)
    counts = Counter({state: int(counted[state.value]) for state in JobState if counted})
    if seen:
        those = f"{where} AND {condition.has_id(seen)}"
        for row in snapshot.rows(
            f"SELECT jobs.job_id, jobs.state FROM {BOTH} WHERE {those}", parameters
        ):
            counts[JobState(row["state"])] -= 1
            counts[seen[row["job_id"]]] += 1
    return {state: counts[state] for state in JobState if counts[state]}


def count_facets(
    snapshot: Snapshot, filters: StoreSelection, *, among: str | None = None
) -> FacetCounts:
    """Count the jobs by their values of each filter in `_Facet`, and of each label.

    `among` is as for `count_states`.
    """
    by_state = count_states(snapshot, filters, among=among)
    states = {state.value: count for state, count in by_state.items()}
    facets: FacetCounts = {("state", None): Counter(states)}
    parameters = Parameters()
    condition = Condition(snapshot, parameters, one_by_one=among is not None)
    where = f"{source(filters)} WHERE {condition(**filters)}"
    if among is not None:
        where += f" AND listed.number IN ({among})"
    columns: tuple[_Facet, ...] = ("recipe", "engine", "cluster", "elements")
    facets |= {(name, None): Counter() for name in columns}
    named = ", ".join(f"listed.{name}" for name in columns)
    # In one pass: most values come together.
    for row in snapshot.rows(
        f"SELECT {named}, count(*) AS count FROM {where} GROUP BY {named}", parameters
    ):
        for name in columns:
            for value in (row[name] or "").split() if name == "elements" else [row[name]]:
                facets[name, None][value] += row["count"]
    query = "SELECT labels.name, labels.value, count(*) AS count FROM labels"
    if among is not None or any(value not in (None, {}) for value in filters.values()):
        query += f" WHERE number IN (SELECT listed.number FROM {where})"
    for row in snapshot.rows(f"{query} GROUP BY labels.name, labels.value", parameters):
        facets.setdefault(("labels", row["name"]), Counter())[row["value"]] = row["count"]
    return facets


def count_errors(snapshot: Snapshot, filters: StoreSelection) -> list[ErrorCount]:
    """Count the failed jobs by their kind of error, the most frequent first."""
    parameters, errors = Parameters(), filters.get("errors") or {}
    condition = Condition(snapshot, parameters)
    # The state of the wide row, which has an index; a scan of short rows would read all jobs.
    failed = "jobs.state = 'failed' AND jobs.error IS NOT NULL"
    failed = f"({failed} OR {condition.has_id(errors)})" if errors else failed
    rows = snapshot.rows(
        f"SELECT jobs.error, jobs.job_id FROM {BOTH} WHERE {condition(**filters)} AND {failed} "
        "ORDER BY listed.number DESC",
        parameters,
        many=True,
    )
    failures = ((str(row["job_id"]), str(row["error"])) for row in rows)
    return group_errors((errors.get(job_id, error), job_id) for job_id, error in failures)
