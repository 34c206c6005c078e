"""Whether an attempt goes on from the last geometry of one that was lost."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; jobs of earlier releases said nothing of it."""
    op.add_column("jobs", sa.Column("continue_lost", sa.Boolean()))
