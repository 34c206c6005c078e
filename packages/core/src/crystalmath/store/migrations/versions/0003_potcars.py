"""The pseudopotentials that a job reads, beside its specification."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("specifications", sa.Column("potcars", sa.Text()))
