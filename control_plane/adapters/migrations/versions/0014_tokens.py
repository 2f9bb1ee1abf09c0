"""Tokens that were used or revoked, and the rights of a signed-in browser.

Rule: history is not edited.
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

CODE = sa.String().with_variant(sa.String(collation="C"), "postgresql")
REVOKED = sa.text("revoked_at IS NOT NULL")
RIGHTS = ("scopes", "clients", "token_id")


def upgrade() -> None:
    op.create_table(
        "tokens",
        sa.Column("token_id", CODE, nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("scopes", sa.String(), nullable=True),
        sa.Column("clients", sa.String(), nullable=True),
        sa.Column("expires_at", sa.Float(), nullable=False),
        sa.Column("used_at", sa.Float(), nullable=True),
        sa.Column("address", sa.String(), nullable=True),
        sa.Column("revoked_at", sa.Float(), nullable=True),
        sa.Column("revoked_by", sa.String(), nullable=True),
        sa.Column("reason", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("token_id", name="pk_tokens"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_tokens_expires_at", "tokens", ["expires_at", "token_id"])
    op.create_index(
        "ix_tokens_revoked",
        "tokens",
        ["expires_at", "token_id"],
        sqlite_where=REVOKED,
        postgresql_where=REVOKED,
    )
    for name in RIGHTS:
        op.add_column("sessions", sa.Column(name, sa.String(), nullable=True))


def downgrade() -> None:
    for name in reversed(RIGHTS):
        op.drop_column("sessions", name)
    op.drop_table("tokens")
