"""The audit: chained records, their heads and their signed checkpoints.

Rule: history is not edited.
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

CODE = sa.String().with_variant(sa.String(collation="C"), "postgresql")
UNSENT = sa.text("sent_at IS NULL")


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("writer", CODE, nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("subject", CODE, nullable=False),
        sa.Column("act", sa.String(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("target", CODE, nullable=False),
        sa.Column("previous", sa.String(), nullable=False),
        sa.Column("hash", sa.String(), nullable=False),
        sa.Column("body", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("writer", "number", name="pk_audit"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_audit_at", "audit", ["at", "writer", "number"])
    op.create_index("ix_audit_subject", "audit", ["subject", "at", "writer", "number"])
    op.create_index("ix_audit_target", "audit", ["target", "at", "writer", "number"])
    op.create_table(
        "audit_clients",
        sa.Column("writer", CODE, nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("client_id", CODE, nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("writer", "number", "client_id", name="pk_audit_clients"),
        sa.ForeignKeyConstraint(
            ["writer", "number"], ["audit.writer", "audit.number"], name="fk_audit_clients_audit", ondelete="CASCADE"
        ),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_audit_clients_client", "audit_clients", ["client_id", "at", "writer", "number"])
    op.create_table(
        "audit_chains",
        sa.Column("writer", CODE, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.String(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("writer", name="pk_audit_chains"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "audit_checkpoints",
        sa.Column("writer", CODE, nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("note", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("sent_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("writer", "number", name="pk_audit_checkpoints"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_audit_checkpoints_unsent",
        "audit_checkpoints",
        ["at", "writer", "number"],
        sqlite_where=UNSENT,
        postgresql_where=UNSENT,
    )


def downgrade() -> None:
    for table in ("audit_checkpoints", "audit_chains", "audit_clients", "audit"):
        op.drop_table(table)
