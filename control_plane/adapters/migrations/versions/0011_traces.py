"""The trace that an upload belongs to; how many clients are connected, from an index alone.

Rule: history is not edited.
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_clients_online", "clients", ["online"])
    op.add_column("uploads", sa.Column("traceparent", sa.String(), nullable=True))


def downgrade() -> None:
    op.drop_column("uploads", "traceparent")
    op.drop_index("ix_clients_online", "clients")
