"""Signed-in browsers, the codes that sign one in, and the control planes that share this database.

What ended is summed from its index alone.

Rule: history is not edited.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

CODE = sa.String().with_variant(sa.String(collation="C"), "postgresql")
HAS_ENDED = sa.text("ended_at IS NOT NULL")


def upgrade() -> None:
    op.create_table(
        "sessions",
        sa.Column("digest", CODE, nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=False),
        sa.Column("valid_until", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_sessions"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_sessions_expires_at", "sessions", ["expires_at"])
    op.create_table(
        "replicas",
        sa.Column("replica_id", CODE, nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("started_at", sa.Float(), nullable=False),
        sa.Column("seen_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("replica_id", name="pk_replicas"),
        sqlite_with_rowid=False,
    )
    _index_ends("ended_at", "state", "error", "file_size")


def downgrade() -> None:
    _index_ends("ended_at")
    op.drop_table("replicas")
    op.drop_table("sessions")


def _index_ends(*columns: str) -> None:
    op.drop_index("ix_uploads_ended", "uploads")
    op.create_index("ix_uploads_ended", "uploads", list(columns), sqlite_where=HAS_ENDED, postgresql_where=HAS_ENDED)
