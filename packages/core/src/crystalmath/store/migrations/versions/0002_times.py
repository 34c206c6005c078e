"""Indexes of the times of submissions and of events."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the indexes."""
    op.create_index("ix_listed_created_at", "listed", ["created_at", "number"])
    op.create_index("ix_events_at", "events", ["at"])
