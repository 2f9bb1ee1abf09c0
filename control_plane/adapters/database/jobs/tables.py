"""The tables of jobs.

Rule: as in `adapters.database.tables`. `executions` has one index for each question of the runner: what is due, what of
a job waits for its turn, what waits for a client.
"""

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, Float, Index, Integer, String, Table

from control_plane.adapters.database.tables import METADATA, Code

JOBS: Final = Table(
    "jobs",
    METADATA,
    Column("job_id", Code, primary_key=True),
    Column("spec", String, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("deadline", Float, nullable=False),
    Column("created_by", String, nullable=False),
    Column("spec_version", Integer, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("state", String, nullable=False),
    Column("ending", String),
    Column("outcome", String),
    Column("approval", String, nullable=False),
    Column("approve_later", Boolean, nullable=False),
    Column("ended_at", Float),
    Column("run", Integer, nullable=False),
    Column("stage", Integer, nullable=False),
    Column("stage_since", Float, nullable=False),
    Column("stage_below", Float, nullable=False),
    Column("held_seconds", Float, nullable=False),
    Column("held_since", Float),
    Column("swept_at", Float, nullable=False),
    Column("schedule_id", Code),
    Column("kind", String),
    Column("nominal_at", Float),
    Column("clients", Integer, nullable=False),
    Column("request", String, nullable=False),
    Column("reported", Integer, nullable=False),
    Column("reason_code", String),
    Column("reason", String),
    # NULL once the job is over.
    Column("next_wake_at", Float),
    Column("priority", Integer, nullable=False),
    # Whether clients may join: NULL once the job is over.
    Column("continuous", Boolean),
    Index("ix_jobs_next_wake_at", "next_wake_at"),
    Index("ix_jobs_continuous", "continuous"),
    Index("ix_jobs_newest", "created_at", "job_id"),
    Index("ix_jobs_newest_in_state", "state", "created_at", "job_id"),
    Index("ix_jobs_newest_of_schedule", "schedule_id", "created_at", "job_id"),
    Index("ix_jobs_ended_at", "ended_at"),
)

EXECUTIONS: Final = Table(
    "executions",
    METADATA,
    Column("job_id", Code, primary_key=True),
    Column("client_id", Code, primary_key=True),
    Column("place", Float, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    # NULL once the execution is over.
    Column("due_at", Float),
    Column("version", BigInteger, nullable=False),
    Column("state", String, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("retries_failed", Integer, nullable=False),
    Column("retries_timed_out", Integer, nullable=False),
    Column("ending", String),
    Column("began_at", Float),
    Column("ended_at", Float),
    Column("listing_left", Float),
    Column("execution_left", Float),
    Column("clock_at", Float),
    Column("held_at", Float, nullable=False),
    Column("asks", Integer, nullable=False),
    Column("selection", String),
    Column("next_index", Integer),
    Column("listed_at", Float),
    Column("approved", Boolean, nullable=False),
    Column("matched_files", BigInteger, nullable=False),
    Column("matched_bytes", BigInteger, nullable=False),
    Column("left_out", BigInteger, nullable=False),
    Column("unchanged", Integer, nullable=False),
    Column("files", Integer, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("proven", Integer, nullable=False),
    Column("proven_bytes", BigInteger, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("rejected", Integer, nullable=False),
    Column("reason_code", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("queued", Boolean, nullable=False),
    Index("ix_executions_due", "queued", "due_at"),
    Index("ix_executions_of_job", "job_id", "queued", "due_at"),
    Index("ix_executions_of_client", "client_id", "due_at"),
    sqlite_with_rowid=False,
)

JOB_COUNTS: Final = Table(
    "job_counts",
    METADATA,
    Column("job_id", Code, primary_key=True),
    Column("state", Code, primary_key=True),
    Column("reason_code", Code, primary_key=True),
    Column("n", Integer, nullable=False),
    sqlite_with_rowid=False,
)

JOB_TOTALS: Final = Table(
    "job_totals",
    METADATA,
    Column("job_id", Code, primary_key=True),
    Column("files", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("proven", BigInteger, nullable=False),
    Column("proven_bytes", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

JOB_FILES: Final = Table(
    "job_files",
    METADATA,
    Column("job_id", Code, primary_key=True),
    Column("client_id", Code, primary_key=True),
    Column("n", Integer, primary_key=True),
    Column("path", String, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("mtime_ns", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("upload_id", String),
    Column("outcome", String),
    Column("key", String),
    Column("reason_code", String),
    Column("reason", String),
    sqlite_with_rowid=False,
)

PROVEN_FILES: Final = Table(
    "proven_files",
    METADATA,
    Column("client_id", Code, primary_key=True),
    Column("scope", Code, primary_key=True),
    Column("path", Code, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("mtime_ns", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
