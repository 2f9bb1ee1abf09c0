"""The first tables: uploads and their parts, outbox, clients and their labels, idempotency keys.

Rule: history is not edited.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

CODE = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    _uploads()
    _parts()
    _tasks()
    _clients()
    _client_labels()
    _idempotency()
    _checks()
    op.execute("INSERT INTO checks (id, count) VALUES (1, 0)")


def downgrade() -> None:
    for name in ("checks", "idempotency", "client_labels", "clients", "tasks", "parts", "uploads"):
        op.drop_table(name)


def _uploads() -> None:
    op.create_table(
        "uploads",
        sa.Column("client_id", CODE, nullable=False),
        sa.Column("upload_id", CODE, nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("origin", sa.String(), nullable=False),
        sa.Column("s3_key", sa.String(), nullable=False),
        sa.Column("token", sa.String(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("updated_at", sa.Float(), nullable=False),
        sa.Column("deadline", sa.Float(), nullable=False),
        sa.Column("file_path", sa.String(), nullable=True),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("chunk_size", sa.BigInteger(), nullable=False),
        sa.Column("options", sa.String(), nullable=False),
        sa.Column("metadata", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("s3_upload_id", sa.String(), nullable=True),
        sa.Column("one_put", sa.Boolean(), nullable=False),
        sa.Column("file_size", sa.BigInteger(), nullable=True),
        sa.Column("part_size", sa.BigInteger(), nullable=True),
        sa.Column("fingerprint", sa.String(), nullable=True),
        sa.Column("wanted", sa.String(), nullable=False),
        sa.Column("resume_at", sa.Float(), nullable=False),
        sa.Column("touched_at", sa.Float(), nullable=False),
        sa.Column("strikes", sa.Integer(), nullable=False),
        sa.Column("bytes_sent", sa.BigInteger(), nullable=False),
        sa.Column("client_busy", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("error", sa.String(), nullable=True),
        sa.Column("message", sa.String(), nullable=True),
        sa.Column("proof", sa.String(), nullable=True),
        sa.Column("completed_at", sa.Float(), nullable=True),
        sa.Column("litter", sa.String(), nullable=False),
        sa.Column("strays", sa.String(), nullable=False),
        sa.Column("ended_at", sa.Float(), nullable=True),
        sa.Column("live", sa.Boolean(), nullable=False),
        sa.Column("stored_parts", sa.String(), nullable=False),
        sa.Column("parts_stamp", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("client_id", "upload_id", name="pk_uploads"),
        sa.UniqueConstraint("s3_key", name="uq_uploads_s3_key"),
    )
    op.create_index(
        "ix_uploads_ended",
        "uploads",
        ["ended_at"],
        sqlite_where=sa.text("ended_at IS NOT NULL"),
        postgresql_where=sa.text("ended_at IS NOT NULL"),
    )
    op.create_index("ix_uploads_live_of_client", "uploads", ["client_id", "live", "created_at"])
    op.create_index("ix_uploads_newest", "uploads", ["created_at", "client_id", "upload_id"])
    op.create_index("ix_uploads_newest_in_state", "uploads", ["state", "created_at", "client_id", "upload_id"])
    op.create_index("ix_uploads_newest_of_client", "uploads", ["client_id", "created_at", "upload_id"])
    op.create_index(
        "ix_uploads_newest_with_error",
        "uploads",
        ["error", "created_at", "client_id", "upload_id"],
        sqlite_where=sa.text("error IS NOT NULL"),
        postgresql_where=sa.text("error IS NOT NULL"),
    )
    op.create_index(
        "ix_uploads_overdue",
        "uploads",
        ["deadline"],
        sqlite_where=sa.text("ended_at IS NULL"),
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.create_index("ix_uploads_upload_id", "uploads", ["upload_id", "client_id"])


def _parts() -> None:
    op.create_table(
        "parts",
        sa.Column("client_id", CODE, nullable=False),
        sa.Column("upload_id", CODE, nullable=False),
        sa.Column("part_number", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(), nullable=True),
        sa.Column("etag", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(
            ["client_id", "upload_id"],
            ["uploads.client_id", "uploads.upload_id"],
            name="fk_parts_uploads",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("client_id", "upload_id", "part_number", name="pk_parts"),
        sqlite_with_rowid=False,
    )


def _tasks() -> None:
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


def _clients() -> None:
    op.create_table(
        "clients",
        sa.Column("client_id", CODE, nullable=False),
        sa.Column("install_id", sa.String(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("online", sa.Boolean(), nullable=False),
        sa.Column("seen_at", sa.Float(), nullable=False),
        sa.Column("connected_at", sa.Float(), nullable=True),
        sa.Column("registered_at", sa.Float(), nullable=False),
        sa.Column("retired", sa.String(), nullable=False),
        sa.Column("conflict_at", sa.Float(), nullable=True),
        sa.Column("agent", sa.String(), nullable=False),
        sa.Column("labels", sa.String(), nullable=False),
        sa.Column("capabilities", sa.String(), nullable=False),
        sa.Column("default_file", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("client_id", name="pk_clients"),
    )


def _client_labels() -> None:
    op.create_table(
        "client_labels",
        sa.Column("client_id", CODE, nullable=False),
        sa.Column("name", CODE, nullable=False),
        sa.Column("value", CODE, nullable=False),
        sa.ForeignKeyConstraint(
            ["client_id"], ["clients.client_id"], name="fk_client_labels_clients", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("client_id", "name", name="pk_client_labels"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_client_labels_bearers", "client_labels", ["name", "value", "client_id"])


def _idempotency() -> None:
    op.create_table(
        "idempotency",
        sa.Column("caller", CODE, nullable=False),
        sa.Column("client_id", CODE, nullable=False),
        sa.Column("idempotency_key", CODE, nullable=False),
        sa.Column("body", sa.String(), nullable=False),
        sa.Column("upload_id", sa.String(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("caller", "client_id", "idempotency_key", name="pk_idempotency"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_idempotency_created_at", "idempotency", ["created_at"])


def _checks() -> None:
    op.create_table(
        "checks",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_checks"),
    )
