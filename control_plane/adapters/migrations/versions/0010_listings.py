"""The last listings of files of each client; what happened to one upload or client; the uploads of one job.

Rule: history is not edited.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

CODE = sa.String().with_variant(sa.String(collation="C"), "postgresql")
HAS_JOB = sa.text("job_id IS NOT NULL")


def upgrade() -> None:
    op.create_table(
        "listings",
        sa.Column("client_id", CODE, nullable=False),
        sa.Column("request", CODE, nullable=False),
        sa.Column("as_of", sa.Float(), nullable=False),
        sa.Column("files", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["client_id"], ["clients.client_id"], name="fk_listings_clients", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("client_id", "request", name="pk_listings"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_listings_newest", "listings", ["client_id", "as_of"])
    op.create_index("ix_listings_as_of", "listings", ["as_of"])
    op.create_index("ix_changes_subject", "changes", ["client_id", "subject_id", "number"])
    op.create_index(
        "ix_uploads_newest_of_job",
        "uploads",
        ["job_id", "created_at", "client_id", "upload_id"],
        sqlite_where=HAS_JOB,
        postgresql_where=HAS_JOB,
    )


def downgrade() -> None:
    op.drop_index("ix_uploads_newest_of_job", "uploads")
    op.drop_index("ix_changes_subject", "changes")
    op.drop_table("listings")
