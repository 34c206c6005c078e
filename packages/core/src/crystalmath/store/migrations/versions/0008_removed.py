"""What was removed of a job's files, and when."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; of earlier jobs nothing is known to have been removed."""
    op.add_column("jobs", sa.Column("removed", sa.Text()))
    op.add_column("jobs", sa.Column("removed_at", sa.Float()))
