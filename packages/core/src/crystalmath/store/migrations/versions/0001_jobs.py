"""Jobs, their specifications, labels, parents and events."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_serial = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_exact = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "jobs",
        sa.Column("number", _serial, primary_key=True),
        sa.Column("job_id", _exact, nullable=False),
        sa.Column("recipe", sa.Text(), nullable=False),
        sa.Column("engine", sa.Text(), nullable=False),
        sa.Column("cluster", sa.Text(), nullable=False),
        sa.Column("name", sa.Text()),
        sa.Column("labels", sa.Text(), nullable=False),
        sa.Column("key", _exact),
        sa.Column("spec_hash", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("walltime_s", sa.Float()),
        sa.Column("formula", sa.Text()),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("started_at", sa.Float()),
        sa.Column("finished_at", sa.Float()),
        sa.Column("cancel_requested_at", sa.Float()),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("error", sa.Text()),
        sa.Column("traceback", sa.Text()),
        sa.Column("summary", sa.Text()),
        sa.Column("warnings", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("priority", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("resources", sa.Text(), nullable=False, server_default="{}"),
        sa.Column("parents", sa.Text(), nullable=False, server_default="[]"),
        sa.Column("removed", sa.Text()),
        sa.Column("removed_at", sa.Float()),
        sa.Column("stage", sa.Text()),
        sa.Column("continue_lost", sa.Boolean()),
        sa.Column("parcel", sa.Integer()),
        sa.Column("superseded_by", _exact),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_jobs_job_id", "jobs", ["job_id"], unique=True)
    op.create_index("ix_jobs_key", "jobs", ["key"], unique=True)
    op.create_index("ix_jobs_state_number", "jobs", ["state", "number"])
    op.create_table(
        "specifications",
        sa.Column("number", _serial, sa.ForeignKey("jobs.number"), primary_key=True),
        sa.Column("specification", sa.Text(), nullable=False),
        sa.Column("potcars", sa.Text()),
    )
    op.create_table(
        "labels",
        sa.Column("number", _serial, sa.ForeignKey("jobs.number"), primary_key=True),
        sa.Column("name", _exact, primary_key=True),
        sa.Column("value", _exact, nullable=False),
    )
    op.create_index("ix_labels_name_value", "labels", ["name", "value", "number"])
    op.create_table(
        "events",
        sa.Column("seq", _serial, primary_key=True),
        sa.Column("number", _serial, sa.ForeignKey("jobs.number"), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("from_state", sa.Text()),
        sa.Column("to_state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text()),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_events_number_seq", "events", ["number", "seq"])
    op.create_table(
        "lineage",
        sa.Column("number", _serial, sa.ForeignKey("jobs.number"), primary_key=True),
        sa.Column("parent", _exact, primary_key=True),
        sa.Column("role", sa.Text(), primary_key=True),
    )
    op.create_index("ix_lineage_parent", "lineage", ["parent", "role", "number"])
    op.create_table(
        "listed",
        sa.Column("number", _serial, sa.ForeignKey("jobs.number"), primary_key=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("started_at", sa.Float()),
        sa.Column("finished_at", sa.Float()),
        sa.Column("recipe", _exact, nullable=False),
        sa.Column("engine", sa.Text(), nullable=False),
        sa.Column("cluster", sa.Text(), nullable=False),
        sa.Column("name", sa.Text()),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("formula", sa.Text()),
        sa.Column("reduced_formula", sa.Text()),
        sa.Column("elements", sa.Text()),
        sa.Column("natoms", sa.Integer()),
        sa.Column("energy_ev", sa.Float()),
        sa.Column("max_force_ev_ang", sa.Float()),
        sa.Column("flow", _exact),
        sa.Column("step", sa.Text()),
        sa.Column("superseded_by", _exact),
    )
    of_flows = sa.text("flow IS NOT NULL")
    op.create_index(
        "ix_listed_flow",
        "listed",
        ["flow", "step", "number"],
        sqlite_where=of_flows,
        postgresql_where=of_flows,
    )
    superseded = sa.text("superseded_by IS NOT NULL")
    op.create_index(
        "ix_listed_superseded",
        "listed",
        ["flow", "state", "number"],
        sqlite_where=superseded,
        postgresql_where=superseded,
    )
