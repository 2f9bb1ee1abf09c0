"""Batches of devices that join with one token, and the names that were taken of each.

Rule: history is not edited.
"""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

CODE = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "batches",
        sa.Column("batch_id", CODE, nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("pattern", sa.String(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=False),
        sa.Column("auto", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("serials", sa.String(), nullable=False),
        sa.Column("wanted", sa.String(), nullable=False),
        sa.Column("revoked_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("batch_id", name="pk_batches"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_batches_digest", "batches", ["digest"], unique=True)
    op.create_table(
        "batch_slots",
        sa.Column("batch_id", CODE, nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("client_id", CODE, nullable=False),
        sa.Column("public_key", sa.String(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("batch_id", "number", name="pk_batch_slots"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_batch_slots_client_id", "batch_slots", ["client_id"], unique=True)
    op.create_index("ix_batch_slots_public_key", "batch_slots", ["public_key"], unique=True)


def downgrade() -> None:
    op.drop_table("batch_slots")
    op.drop_table("batches")
