"""The gate: rates, budgets and their shares; an upload may be held.

Rule: history is not edited.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

CODE = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("uploads", sa.Column("held", sa.Boolean(), nullable=False, server_default=sa.false()))
    held = sa.column("held", sa.Boolean()).is_(True)
    op.create_index("ix_uploads_held", "uploads", ["job_id"], sqlite_where=held, postgresql_where=held)
    op.create_table(
        "rates",
        sa.Column("name", CODE, nullable=False),
        sa.Column("tat", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_rates"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "budgets",
        sa.Column("label", CODE, nullable=False),
        sa.Column("value", CODE, nullable=False),
        sa.Column("rate", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("label", "value", name="pk_budgets"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "budget_shares",
        sa.Column("client_id", CODE, nullable=False),
        sa.Column("upload_id", CODE, nullable=False),
        sa.Column("key", CODE, nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("placed_at", sa.Float(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=True),
        sa.Column("since", sa.Float(), nullable=True),
        sa.Column("absent", sa.Boolean(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("client_id", "upload_id", "key", name="pk_budget_shares"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_budget_shares_turns", "budget_shares", ["key", "priority", "placed_at"])


def downgrade() -> None:
    op.drop_index("ix_budget_shares_turns", "budget_shares")
    op.drop_table("budget_shares")
    op.drop_table("budgets")
    op.drop_table("rates")
    op.drop_index("ix_uploads_held", "uploads")
    op.drop_column("uploads", "held")
