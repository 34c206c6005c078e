"""What a job asks of the machine."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column (JSON); jobs of earlier releases asked for nothing."""
    op.add_column("jobs", sa.Column("resources", sa.Text(), nullable=False, server_default="{}"))
