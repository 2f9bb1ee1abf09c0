"""The receipt of an upload's object.

Rule: history is not edited.
"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("uploads", sa.Column("receipt", sa.String(), nullable=True))


def downgrade() -> None:
    op.drop_column("uploads", "receipt")
