"""Which device each of the last changes was about, so that a replica reads only what changed.

Rule: history is not edited. A change by an earlier version leaves a gap in the numbers: then everything is read.
"""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

CODE = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "changed_devices",
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("client_id", CODE, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_changed_devices"),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("changed_devices")
