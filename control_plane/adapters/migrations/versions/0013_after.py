"""What the device does with a file after its upload, and its receipt.

Rule: history is not edited.
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("uploads", sa.Column("after", sa.String(), nullable=False, server_default="keep"))
    op.add_column("uploads", sa.Column("after_receipt", sa.String(), nullable=True))


def downgrade() -> None:
    op.drop_column("uploads", "after_receipt")
    op.drop_column("uploads", "after")
