"""The documents of trust that are published, and what clients report about signed commands.

Rule: history is not edited.
"""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("clients", sa.Column("session", sa.String(), nullable=True))
    op.add_column("clients", sa.Column("keys_version", sa.BigInteger(), nullable=True))
    op.add_column("clients", sa.Column("unverified", sa.BigInteger(), nullable=False, server_default="0"))
    op.create_table(
        "trust",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("root", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("document", sa.String(), nullable=False),
        sa.Column("published_at", sa.Float(), nullable=False),
        sa.Column("published_by", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_trust"),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("trust")
    for column in ("unverified", "keys_version", "session"):
        op.drop_column("clients", column)
