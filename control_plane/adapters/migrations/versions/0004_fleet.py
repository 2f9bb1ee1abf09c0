"""Clients that are expected, labels that an operator sets, what a device allows; groups.

Rule: history is not edited.
"""

import json

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

CODE = sa.String().with_variant(sa.String(collation="C"), "postgresql")
NEW = ("timezone", "roots", "types", "set_labels", "expected", "note")


def upgrade() -> None:
    op.add_column("clients", sa.Column("timezone", sa.String(), nullable=True))
    op.add_column("clients", sa.Column("roots", sa.String(), nullable=False, server_default="[]"))
    op.add_column("clients", sa.Column("types", sa.String(), nullable=False, server_default="[]"))
    op.add_column("clients", sa.Column("set_labels", sa.String(), nullable=False, server_default="{}"))
    op.add_column("clients", sa.Column("expected", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("clients", sa.Column("note", sa.String(), nullable=False, server_default=""))
    op.create_table(
        "groups",
        sa.Column("name", CODE, nullable=False),
        sa.Column("clients", sa.String(), nullable=False),
        sa.Column("selector", sa.String(), nullable=True),
        sa.Column("note", sa.String(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("updated_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_groups"),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("groups")
    # A client that never connected has no row in the schema before.
    op.execute("DELETE FROM client_labels WHERE client_id IN (SELECT client_id FROM clients WHERE install_id = '')")
    op.execute("DELETE FROM clients WHERE install_id = ''")
    _show_labels_of_devices()
    for name in NEW:
        op.drop_column("clients", name)


def _show_labels_of_devices() -> None:
    """The index of labels has the operator's, which win, and in the schema before only those of devices."""
    clients = sa.table("clients", sa.column("client_id"), sa.column("labels"), sa.column("set_labels"))
    index = sa.table("client_labels", sa.column("client_id"), sa.column("name"), sa.column("value"))
    connection = op.get_bind()
    for client_id, labels, set_labels in connection.execute(
        sa.select(clients).where(clients.c.set_labels != "{}")
    ).all():
        own = json.loads(labels)
        for name in json.loads(set_labels):
            row = sa.and_(index.c.client_id == client_id, index.c.name == name)
            if name in own:
                connection.execute(sa.update(index).where(row).values(value=own[name]))
            else:
                connection.execute(sa.delete(index).where(row))
