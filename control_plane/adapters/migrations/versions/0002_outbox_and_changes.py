"""The outbox serves more than uploads and keeps the last error; uploads keep a reason's code; the change log.

Rule: history is not edited.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

CODE = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "outbox",
        sa.Column("client_id", CODE, nullable=False),
        sa.Column("subject_type", CODE, nullable=False),
        sa.Column("subject_id", CODE, nullable=False),
        sa.Column("kind", CODE, nullable=False),
        sa.Column("target", CODE, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("not_before", sa.Float(), nullable=False),
        sa.Column("due_at", sa.Float(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("last_error_code", sa.String(), nullable=True),
        sa.Column("last_error_text", sa.String(), nullable=True),
        sa.Column("last_error_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("client_id", "subject_type", "subject_id", "kind", "target", name="pk_outbox"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_outbox_due_at", "outbox", ["due_at"])
    op.execute(
        "INSERT INTO outbox"
        " (client_id, subject_type, subject_id, kind, target, attempt, not_before, due_at, tries)"
        " SELECT client_id, 'upload', upload_id, kind, subject, attempt, not_before, due_at, tries FROM tasks"
    )
    op.drop_table("tasks")
    op.add_column("uploads", sa.Column("reason_code", sa.String(), nullable=True))
    op.create_table(
        "changes",
        sa.Column(
            "number",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            primary_key=True,
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("client_id", CODE, nullable=False),
        sa.Column("subject_id", CODE, nullable=False),
        sa.Column("body", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_changes"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_changes_at", "changes", ["at", "number"])


def downgrade() -> None:
    op.drop_table("changes")
    op.drop_column("uploads", "reason_code")
    op.create_table(
        "tasks",
        sa.Column("client_id", CODE, nullable=False),
        sa.Column("upload_id", CODE, nullable=False),
        sa.Column("kind", CODE, nullable=False),
        sa.Column("subject", CODE, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("not_before", sa.Float(), nullable=False),
        sa.Column("due_at", sa.Float(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("client_id", "upload_id", "kind", "subject", name="pk_tasks"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_tasks_due_at", "tasks", ["due_at"])
    op.execute(
        "INSERT INTO tasks (client_id, upload_id, kind, subject, attempt, not_before, due_at, tries)"
        " SELECT client_id, subject_id, kind, target, attempt, not_before, due_at, tries"
        " FROM outbox WHERE subject_type = 'upload'"
    )
    op.drop_table("outbox")
