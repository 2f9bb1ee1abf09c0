"""The tables of schedules.

Rule: as in `adapters.database.tables`. `schedule_coverage` has sums over `schedule_cells`, changed in the transaction
that changes a cell: a report over thirty ticks of ten thousand clients reads a few rows.
"""

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, Float, Index, Integer, String, Table, literal_column

from control_plane.adapters.database.tables import METADATA, Code
from control_plane.domain.schedules.model import CellState, RunStatus

SCHEDULES: Final = Table(
    "schedules",
    METADATA,
    Column("schedule_id", Code, primary_key=True),
    Column("spec", String, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("created_by", String, nullable=False),
    Column("updated_at", Float, nullable=False),
    Column("spec_version", Integer, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("cursor", Float, nullable=False),
    Column("due_at", Float, nullable=False),
    Column("paused", Boolean, nullable=False),
    Column("paused_at", Float),
    Column("resumed_at", Float),
    Column("note", String, nullable=False),
    Column("skip_at", Float),
    Column("failures", Integer, nullable=False),
    Column("delay", Float, nullable=False),
    Index("ix_schedules_due_at", "due_at"),
)

RUNS: Final = Table(
    "schedule_runs",
    METADATA,
    Column("schedule_id", Code, primary_key=True),
    Column("kind", Code, primary_key=True),
    Column("nominal_at", Float, primary_key=True),
    Column("status", String, nullable=False),
    Column("reason_code", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("at", Float, nullable=False),
    Column("queued", Boolean, nullable=False),
    Column("job_id", Code),
    Column("ended_at", Float),
    Column("outcome", String),
    Index("ix_schedule_runs_latest", "schedule_id", "nominal_at", "kind"),
    Index("ix_schedule_runs_at", "at"),
    sqlite_with_rowid=False,
)

CELLS: Final = Table(
    "schedule_cells",
    METADATA,
    Column("schedule_id", Code, primary_key=True),
    Column("client_id", Code, primary_key=True),
    Column("nominal_at", Float, primary_key=True),
    Column("state", String, nullable=False),
    Column("reason_code", String, nullable=False),
    Column("job_id", Code, nullable=False),
    Column("at", Float, nullable=False),
    Column("healing", Boolean, nullable=False),
    Column("heal_job_id", Code),
    Column("heals", Integer, nullable=False),
    Column("settled", Boolean, nullable=False),
    Column("watch_until", Float, nullable=False),
    Index("ix_schedule_cells_in_state", "schedule_id", "state", "client_id", "nominal_at"),
    Index("ix_schedule_cells_of_tick", "nominal_at"),
    sqlite_with_rowid=False,
)

COVERAGE: Final = Table(
    "schedule_coverage",
    METADATA,
    Column("schedule_id", Code, primary_key=True),
    Column("nominal_at", Float, primary_key=True),
    Column("state", Code, primary_key=True),
    Column("n", Integer, nullable=False),
    sqlite_with_rowid=False,
)

# A query uses a partial index only if it has the same condition, so both use these; a bound value is another condition.
IS_RUNNING: Final = RUNS.c.job_id.is_not(None) & RUNS.c.ended_at.is_(None)
IS_QUEUED: Final = RUNS.c.status == literal_column(f"'{RunStatus.QUEUED}'")
IS_WATCHED: Final = CELLS.c.state.in_(
    [literal_column(f"'{state}'") for state in (CellState.PENDING, CellState.MISSING)]
)

Index(
    "ix_schedule_runs_running",
    RUNS.c.schedule_id,
    RUNS.c.nominal_at,
    sqlite_where=IS_RUNNING,
    postgresql_where=IS_RUNNING,
)
Index(
    "ix_schedule_runs_queued",
    RUNS.c.schedule_id,
    RUNS.c.nominal_at,
    RUNS.c.kind,
    sqlite_where=IS_QUEUED,
    postgresql_where=IS_QUEUED,
)
IS_MISSING: Final = COVERAGE.c.state == literal_column(f"'{CellState.MISSING}'")

Index(
    "ix_schedule_coverage_missing",
    COVERAGE.c.schedule_id,
    COVERAGE.c.nominal_at,
    sqlite_where=IS_MISSING,
    postgresql_where=IS_MISSING,
)
Index(
    "ix_schedule_cells_watched",
    CELLS.c.watch_until,
    CELLS.c.schedule_id,
    CELLS.c.client_id,
    CELLS.c.nominal_at,
    sqlite_where=IS_WATCHED,
    postgresql_where=IS_WATCHED,
)
