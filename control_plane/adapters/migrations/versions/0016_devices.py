"""Devices, their keys, and the keys that were revoked.

Rule: history is not edited.
"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

CODE = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "devices",
        sa.Column("client_id", CODE, nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("public_key", sa.String(), nullable=True),
        sa.Column("claim_secret", sa.String(), nullable=True),
        sa.Column("other_key", sa.String(), nullable=True),
        sa.Column("other_at", sa.Float(), nullable=True),
        sa.Column("pinned_at", sa.Float(), nullable=True),
        sa.Column("revoked_at", sa.Float(), nullable=True),
        sa.Column("revoked_by", sa.String(), nullable=True),
        sa.Column("has_account", sa.Boolean(), nullable=False),
        sa.Column("note", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("client_id", name="pk_devices"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_devices_public_key", "devices", ["public_key"], unique=True)
    op.create_table(
        "revoked_keys",
        sa.Column("public_key", sa.String(), nullable=False),
        sa.Column("client_id", CODE, nullable=False),
        sa.Column("revoked_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("public_key", name="pk_revoked_keys"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "device_changes",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_device_changes"),
    )


def downgrade() -> None:
    op.drop_table("device_changes")
    op.drop_table("revoked_keys")
    op.drop_table("devices")
