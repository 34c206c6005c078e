"""The schema of the job database, as Alembic migrations; they only go forward.

``crystalmath.store.database`` runs them. A new one is a file in ``versions`` named for its number
(four digits), and changes ``crystalmath.store.plain_sql.HEAD`` with it.
"""
