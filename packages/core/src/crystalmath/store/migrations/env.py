"""Run the migrations for Alembic, on the connection and in the transaction of its caller."""

from __future__ import annotations

from alembic import context

from crystalmath.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
)
with context.begin_transaction():
    context.run_migrations()
