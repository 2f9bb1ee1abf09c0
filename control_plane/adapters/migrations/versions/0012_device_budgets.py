"""The budget that a device reports, and what it was granted since.

Rule: history is not edited.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

CODE = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("clients", sa.Column("budget", sa.String(), nullable=True))
    op.add_column("clients", sa.Column("budget_at", sa.Float(), nullable=True))
    op.create_table(
        "device_ledgers",
        sa.Column("client_id", CODE, nullable=False),
        sa.Column("ledger", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("client_id", name="pk_device_ledgers"),
        sa.ForeignKeyConstraint(
            ["client_id"], ["clients.client_id"], name="fk_device_ledgers_clients", ondelete="CASCADE"
        ),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("device_ledgers")
    op.drop_column("clients", "budget_at")
    op.drop_column("clients", "budget")
