"""What lists are filtered and sorted by, in short rows."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_SAME = (
    *("number", "state", "created_at", "started_at", "finished_at", "recipe", "engine"),
    *("cluster", "name", "priority", "formula"),
)
_BATCH = 1000


def upgrade() -> None:
    """Make the table, and fill it from what is on record."""
    serial = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    exact = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    op.create_table(
        "listed",
        sa.Column("number", serial, sa.ForeignKey("jobs.number"), primary_key=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("started_at", sa.Float()),
        sa.Column("finished_at", sa.Float()),
        sa.Column("recipe", exact, nullable=False),
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
    )
    _fill(op.get_bind())


def _fill(connection: Any) -> None:
    jobs = sa.table("jobs", *map(sa.column, (*_SAME, "summary")))
    filled = (*_SAME, "reduced_formula", "elements", "natoms", "energy_ev", "max_force_ev_ang")
    listed = sa.table("listed", *map(sa.column, filled))
    last = 0
    while True:
        query = sa.select(jobs).where(jobs.c.number > last).order_by(jobs.c.number).limit(_BATCH)
        rows = [dict(row) for row in connection.execute(query).mappings()]
        if not rows:
            return
        connection.execute(sa.insert(listed), [_listed(row) for row in rows])
        last = rows[-1]["number"]


def _listed(row: dict[str, Any]) -> dict[str, Any]:
    from crystalmath.recipes.formulas import composition

    summary = json.loads(row.pop("summary") or "{}")
    found = composition(row["formula"]) if row["formula"] else None
    return {
        **row,
        "reduced_formula": found and found.reduced,
        "elements": found and f" {' '.join(found.elements)} ",
        "natoms": summary.get("natoms"),
        "energy_ev": summary.get("energy_ev"),
        "max_force_ev_ang": summary.get("max_force_ev_ang"),
    }
