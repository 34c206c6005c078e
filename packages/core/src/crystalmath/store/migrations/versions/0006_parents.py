"""What a job came of."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column (JSON) and the table; jobs of earlier releases came of none."""
    serial = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    exact = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    op.add_column("jobs", sa.Column("parents", sa.Text(), nullable=False, server_default="[]"))
    op.create_table(
        "lineage",
        sa.Column("number", serial, sa.ForeignKey("jobs.number"), primary_key=True),
        sa.Column("parent", exact, primary_key=True),
        sa.Column("role", sa.Text(), primary_key=True),
    )
    op.create_index("ix_lineage_parent", "lineage", ["parent", "number"])
