"""Passes the caller's connection to Alembic; the caller has begun the transaction.

Rule: nothing is decided here.
"""

from alembic import context

from control_plane.adapters.database.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    # SQLite rolls back DDL too, since BEGIN is explicit here; Alembic cannot detect that.
    transactional_ddl=True,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
