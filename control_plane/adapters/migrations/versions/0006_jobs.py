"""Jobs: their executions, counts and files; what was proven; an upload of a job names it.

Rule: history is not edited.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

CODE = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    _jobs()
    _executions()
    _counts()
    _files()
    op.add_column("uploads", sa.Column("job_id", CODE, nullable=True))
    op.add_column("uploads", sa.Column("job_file", sa.Integer(), nullable=True))
    op.add_column("uploads", sa.Column("listed", sa.String(), nullable=True))


def downgrade() -> None:
    op.drop_column("uploads", "listed")
    op.drop_column("uploads", "job_file")
    op.drop_column("uploads", "job_id")
    for name in ("proven_files", "job_files", "job_totals", "job_counts", "executions", "jobs"):
        op.drop_table(name)


def _jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("job_id", CODE, nullable=False),
        sa.Column("spec", sa.String(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("deadline", sa.Float(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("spec_version", sa.Integer(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("ending", sa.String(), nullable=True),
        sa.Column("outcome", sa.String(), nullable=True),
        sa.Column("approval", sa.String(), nullable=False),
        sa.Column("approve_later", sa.Boolean(), nullable=False),
        sa.Column("ended_at", sa.Float(), nullable=True),
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("stage", sa.Integer(), nullable=False),
        sa.Column("stage_since", sa.Float(), nullable=False),
        sa.Column("stage_below", sa.Float(), nullable=False),
        sa.Column("held_seconds", sa.Float(), nullable=False),
        sa.Column("held_since", sa.Float(), nullable=True),
        sa.Column("swept_at", sa.Float(), nullable=False),
        sa.Column("schedule_id", CODE, nullable=True),
        sa.Column("kind", sa.String(), nullable=True),
        sa.Column("nominal_at", sa.Float(), nullable=True),
        sa.Column("clients", sa.Integer(), nullable=False),
        sa.Column("request", sa.String(), nullable=False),
        sa.Column("reported", sa.Integer(), nullable=False),
        sa.Column("reason_code", sa.String(), nullable=True),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("next_wake_at", sa.Float(), nullable=True),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("continuous", sa.Boolean(), nullable=True),
        sa.PrimaryKeyConstraint("job_id", name="pk_jobs"),
    )
    op.create_index("ix_jobs_next_wake_at", "jobs", ["next_wake_at"])
    op.create_index("ix_jobs_continuous", "jobs", ["continuous"])
    op.create_index("ix_jobs_newest", "jobs", ["created_at", "job_id"])
    op.create_index("ix_jobs_newest_in_state", "jobs", ["state", "created_at", "job_id"])
    op.create_index("ix_jobs_newest_of_schedule", "jobs", ["schedule_id", "created_at", "job_id"])
    op.create_index("ix_jobs_ended_at", "jobs", ["ended_at"])


def _executions() -> None:
    op.create_table(
        "executions",
        sa.Column("job_id", CODE, nullable=False),
        sa.Column("client_id", CODE, nullable=False),
        sa.Column("place", sa.Float(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("updated_at", sa.Float(), nullable=False),
        sa.Column("due_at", sa.Float(), nullable=True),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("retries_failed", sa.Integer(), nullable=False),
        sa.Column("retries_timed_out", sa.Integer(), nullable=False),
        sa.Column("ending", sa.String(), nullable=True),
        sa.Column("began_at", sa.Float(), nullable=True),
        sa.Column("ended_at", sa.Float(), nullable=True),
        sa.Column("listing_left", sa.Float(), nullable=True),
        sa.Column("execution_left", sa.Float(), nullable=True),
        sa.Column("clock_at", sa.Float(), nullable=True),
        sa.Column("held_at", sa.Float(), nullable=False),
        sa.Column("asks", sa.Integer(), nullable=False),
        sa.Column("selection", sa.String(), nullable=True),
        sa.Column("next_index", sa.Integer(), nullable=True),
        sa.Column("listed_at", sa.Float(), nullable=True),
        sa.Column("approved", sa.Boolean(), nullable=False),
        sa.Column("matched_files", sa.BigInteger(), nullable=False),
        sa.Column("matched_bytes", sa.BigInteger(), nullable=False),
        sa.Column("left_out", sa.BigInteger(), nullable=False),
        sa.Column("unchanged", sa.Integer(), nullable=False),
        sa.Column("files", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("proven", sa.Integer(), nullable=False),
        sa.Column("proven_bytes", sa.BigInteger(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("rejected", sa.Integer(), nullable=False),
        sa.Column("reason_code", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("queued", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", "client_id", name="pk_executions"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_executions_due", "executions", ["queued", "due_at"])
    op.create_index("ix_executions_of_job", "executions", ["job_id", "queued", "due_at"])
    op.create_index("ix_executions_of_client", "executions", ["client_id", "due_at"])


def _counts() -> None:
    op.create_table(
        "job_counts",
        sa.Column("job_id", CODE, nullable=False),
        sa.Column("state", CODE, nullable=False),
        sa.Column("reason_code", CODE, nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", "state", "reason_code", name="pk_job_counts"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "job_totals",
        sa.Column("job_id", CODE, nullable=False),
        sa.Column("files", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("proven", sa.BigInteger(), nullable=False),
        sa.Column("proven_bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", name="pk_job_totals"),
        sqlite_with_rowid=False,
    )


def _files() -> None:
    op.create_table(
        "job_files",
        sa.Column("job_id", CODE, nullable=False),
        sa.Column("client_id", CODE, nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("mtime_ns", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("upload_id", sa.String(), nullable=True),
        sa.Column("outcome", sa.String(), nullable=True),
        sa.Column("key", sa.String(), nullable=True),
        sa.Column("reason_code", sa.String(), nullable=True),
        sa.Column("reason", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("job_id", "client_id", "n", name="pk_job_files"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "proven_files",
        sa.Column("client_id", CODE, nullable=False),
        sa.Column("scope", CODE, nullable=False),
        sa.Column("path", CODE, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("mtime_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("client_id", "scope", "path", name="pk_proven_files"),
        sqlite_with_rowid=False,
    )
