"""What Alembic runs to find its connection: the caller has opened it and begun the transaction.

Rule: nothing is decided here.
"""

from alembic import context

from control_plane.adapters.database.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    # SQLite rolls DDL back like everything else, once BEGIN is said by us; Alembic cannot know that it is.
    transactional_ddl=True,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
