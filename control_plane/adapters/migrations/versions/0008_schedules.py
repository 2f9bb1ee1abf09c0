"""Schedules: their runs, the cells of their coverage, and sums over these.

Rule: history is not edited.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

CODE = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    _schedules()
    _runs()
    _cells()
    _coverage()


def downgrade() -> None:
    for name in ("schedule_coverage", "schedule_cells", "schedule_runs", "schedules"):
        op.drop_table(name)


def _schedules() -> None:
    op.create_table(
        "schedules",
        sa.Column("schedule_id", CODE, nullable=False),
        sa.Column("spec", sa.String(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("updated_at", sa.Float(), nullable=False),
        sa.Column("spec_version", sa.Integer(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("cursor", sa.Float(), nullable=False),
        sa.Column("due_at", sa.Float(), nullable=False),
        sa.Column("paused", sa.Boolean(), nullable=False),
        sa.Column("paused_at", sa.Float(), nullable=True),
        sa.Column("resumed_at", sa.Float(), nullable=True),
        sa.Column("note", sa.String(), nullable=False),
        sa.Column("skip_at", sa.Float(), nullable=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("delay", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("schedule_id", name="pk_schedules"),
    )
    op.create_index("ix_schedules_due_at", "schedules", ["due_at"])


def _runs() -> None:
    op.create_table(
        "schedule_runs",
        sa.Column("schedule_id", CODE, nullable=False),
        sa.Column("kind", CODE, nullable=False),
        sa.Column("nominal_at", sa.Float(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("reason_code", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("queued", sa.Boolean(), nullable=False),
        sa.Column("job_id", CODE, nullable=True),
        sa.Column("ended_at", sa.Float(), nullable=True),
        sa.Column("outcome", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("schedule_id", "kind", "nominal_at", name="pk_schedule_runs"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_schedule_runs_latest", "schedule_runs", ["schedule_id", "nominal_at", "kind"])
    op.create_index("ix_schedule_runs_at", "schedule_runs", ["at"])
    running = sa.text("job_id IS NOT NULL AND ended_at IS NULL")
    op.create_index(
        "ix_schedule_runs_running",
        "schedule_runs",
        ["schedule_id", "nominal_at"],
        sqlite_where=running,
        postgresql_where=running,
    )
    queued = sa.text("status = 'queued'")
    op.create_index(
        "ix_schedule_runs_queued",
        "schedule_runs",
        ["schedule_id", "nominal_at", "kind"],
        sqlite_where=queued,
        postgresql_where=queued,
    )


def _cells() -> None:
    op.create_table(
        "schedule_cells",
        sa.Column("schedule_id", CODE, nullable=False),
        sa.Column("client_id", CODE, nullable=False),
        sa.Column("nominal_at", sa.Float(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("reason_code", sa.String(), nullable=False),
        sa.Column("job_id", CODE, nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("healing", sa.Boolean(), nullable=False),
        sa.Column("heal_job_id", CODE, nullable=True),
        sa.Column("heals", sa.Integer(), nullable=False),
        sa.Column("settled", sa.Boolean(), nullable=False),
        sa.Column("watch_until", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("schedule_id", "client_id", "nominal_at", name="pk_schedule_cells"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_schedule_cells_in_state", "schedule_cells", ["schedule_id", "state", "client_id", "nominal_at"])
    op.create_index("ix_schedule_cells_of_tick", "schedule_cells", ["nominal_at"])
    watched = sa.text("state IN ('pending', 'missing')")
    op.create_index(
        "ix_schedule_cells_watched",
        "schedule_cells",
        ["watch_until", "schedule_id", "client_id", "nominal_at"],
        sqlite_where=watched,
        postgresql_where=watched,
    )


def _coverage() -> None:
    op.create_table(
        "schedule_coverage",
        sa.Column("schedule_id", CODE, nullable=False),
        sa.Column("nominal_at", sa.Float(), nullable=False),
        sa.Column("state", CODE, nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("schedule_id", "nominal_at", "state", name="pk_schedule_coverage"),
        sqlite_with_rowid=False,
    )
    missing = sa.text("state = 'missing'")
    op.create_index(
        "ix_schedule_coverage_missing",
        "schedule_coverage",
        ["schedule_id", "nominal_at"],
        sqlite_where=missing,
        postgresql_where=missing,
    )
