"""The tables of the job database."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
)

# SQLite numbers rows only in a column whose type is exactly INTEGER.
_Serial = BigInteger().with_variant(Integer(), "sqlite")
# Ordered by code point everywhere, so that a range finds a prefix by the index.
_Exact = Text().with_variant(Text(collation="C"), "postgresql")

metadata = MetaData()

jobs = Table(
    "jobs",
    metadata,
    Column("number", _Serial, primary_key=True),
    Column("job_id", _Exact, nullable=False),
    Column("recipe", Text, nullable=False),
    Column("engine", Text, nullable=False),
    Column("cluster", Text, nullable=False),
    Column("name", Text),
    Column("labels", Text, nullable=False),
    Column("key", _Exact),
    Column("spec_hash", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("walltime_s", Float),
    Column("resources", Text, nullable=False, server_default="{}"),
    Column("priority", Integer, nullable=False, server_default="0"),
    Column("continue_lost", Boolean),
    Column("parcel", Integer),
    Column("formula", Text),
    Column("created_at", Float, nullable=False),
    Column("started_at", Float),
    Column("finished_at", Float),
    Column("cancel_requested_at", Float),
    Column("owner", Text, nullable=False),
    Column("error", Text),
    Column("traceback", Text),
    Column("summary", Text),
    Column("warnings", Text, nullable=False),
    Column("reason", Text),
    Column("parents", Text, nullable=False, server_default="[]"),
    Column("removed", Text),
    Column("removed_at", Float),
    Column("stage", Text),
    # The id of the newest job that runs, or reads, this one again (see ``lineage``).
    Column("superseded_by", _Exact),
    Index("ix_jobs_job_id", "job_id", unique=True),
    Index("ix_jobs_key", "key", unique=True),
    Index("ix_jobs_state_number", "state", "number"),
    sqlite_autoincrement=True,
)

# Rows that belong to a job name it by its number: an index over growing numbers is written at its
# end. An index over random ids is written everywhere, which triples the time of a submission among
# 100,000 jobs.
#
# Specifications and the records of pseudopotentials have a table of their own, because SQLite
# rewrites a whole row at each change of state.
specifications = Table(
    "specifications",
    metadata,
    Column("number", _Serial, ForeignKey("jobs.number"), primary_key=True),
    Column("specification", Text, nullable=False),
    # JSON; NULL for most jobs, which read no pseudopotentials.
    Column("potcars", Text),
)

# The labels in a form that SQL can search (records are read from ``jobs.labels``).
labels = Table(
    "labels",
    metadata,
    Column("number", _Serial, ForeignKey("jobs.number"), primary_key=True),
    Column("name", _Exact, primary_key=True),
    Column("value", _Exact, nullable=False),
    Index("ix_labels_name_value", "name", "value", "number"),
)

# The parents in a form by which SQL finds a job's children. A parent is named by its id, as its
# row may be gone. With the role "taken" the parent is a flow that took over another flow's step.
lineage = Table(
    "lineage",
    metadata,
    Column("number", _Serial, ForeignKey("jobs.number"), primary_key=True),
    Column("parent", _Exact, primary_key=True),
    Column("role", Text, primary_key=True),
    Index("ix_lineage_parent", "parent", "role", "number"),
)

# The columns that filter and sort lists, in short rows. A scan of 100,000 rows takes a tenth of the
# time of a scan of ``jobs``.
listed = Table(
    "listed",
    metadata,
    Column("number", _Serial, ForeignKey("jobs.number"), primary_key=True),
    Column("state", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("started_at", Float),
    Column("finished_at", Float),
    Column("recipe", _Exact, nullable=False),
    Column("engine", Text, nullable=False),
    Column("cluster", Text, nullable=False),
    Column("name", Text),
    Column("priority", Integer, nullable=False),
    Column("formula", Text),
    Column("reduced_formula", Text),
    # " Cu O ", so that a search for " C " does not find Cu.
    Column("elements", Text),
    Column("natoms", Integer),
    Column("energy_ev", Float),
    Column("max_force_ev_ang", Float),
    # The id of the flow that the job is a step of, and the name of the step.
    Column("flow", _Exact),
    Column("step", Text),
    Column("superseded_by", _Exact),
)
Index(
    "ix_listed_flow",
    *(listed.c.flow, listed.c.step, listed.c.number),
    sqlite_where=listed.c.flow.is_not(None),
    postgresql_where=listed.c.flow.is_not(None),
)
# A count of superseded jobs by their state reads this index alone.
Index(
    "ix_listed_superseded",
    *(listed.c.flow, listed.c.state, listed.c.number),
    sqlite_where=listed.c.superseded_by.is_not(None),
    postgresql_where=listed.c.superseded_by.is_not(None),
)

# Times of submission grow, so that each entry is written at the end of the index.
Index("ix_listed_created_at", listed.c.created_at, listed.c.number)

events = Table(
    "events",
    metadata,
    Column("seq", _Serial, primary_key=True),
    Column("number", _Serial, ForeignKey("jobs.number"), nullable=False),
    Column("at", Float, nullable=False),
    Column("from_state", Text),
    Column("to_state", Text, nullable=False),
    Column("reason", Text),
    Index("ix_events_number_seq", "number", "seq"),
    Index("ix_events_at", "at"),
    sqlite_autoincrement=True,
)
