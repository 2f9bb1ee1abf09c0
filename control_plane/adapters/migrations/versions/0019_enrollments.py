"""Devices that ask to be enrolled, so that every replica answers them.

Rule: history is not edited.
"""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

CODE = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "enrollments",
        sa.Column("device_code", CODE, nullable=False),
        sa.Column("user_code", sa.String(), nullable=False),
        sa.Column("public_key", sa.String(), nullable=False),
        sa.Column("seal_to", sa.String(), nullable=False),
        sa.Column("address", sa.String(), nullable=False),
        sa.Column("asked_at", sa.Float(), nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=False),
        sa.Column("client_id", CODE, nullable=True),
        sa.Column("sealed", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("device_code", name="pk_enrollments"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_enrollments_user_code", "enrollments", ["user_code"], unique=True)
    op.create_index("ix_enrollments_public_key", "enrollments", ["public_key"])
    op.create_index("ix_enrollments_expires_at", "enrollments", ["expires_at"])


def downgrade() -> None:
    op.drop_table("enrollments")
