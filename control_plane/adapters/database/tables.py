"""The tables, as SQLModel models. They never leave this package: its results are the domain's dataclasses.

Rule: a table serves the queries of `services.ports.Records`, and every query has an index. The migrations build the
same schema; a test compares the two. Structured fields are JSON in text columns: no query reads inside them, and
PostgreSQL's JSON type rejects U+0000, which a device may send.
"""

from typing import Any, ClassVar, Final

from sqlalchemy import BigInteger, Column, ForeignKeyConstraint, Index, Integer, MetaData, String, Table, TypeDecorator
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeEngine
from sqlmodel import Field, SQLModel

METADATA: Final = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
    }
)

_NEWEST: Final = ("created_at", "client_id", "upload_id")
_CLUSTERED: Final = {"sqlite_with_rowid": False}
"""SQLite stores the rows in the primary key's tree: one tree to write instead of two."""


class Code(TypeDecorator[str]):
    """Text that sorts by code point everywhere: by default PostgreSQL sorts by its cluster's language."""

    impl = String
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """`COLLATE "C"` on PostgreSQL."""
        return dialect.type_descriptor(String(collation="C" if dialect.name == "postgresql" else None))


class _Row(SQLModel):
    metadata: ClassVar[MetaData] = METADATA


class UploadRow(_Row, table=True):
    """One upload without its parts.

    `ended_at` is None while the state is not terminal; `live` is false once the client has no end to acknowledge
    either. `stored_parts` are the numbers of the stored parts, as ranges. `parts_stamp` changes whenever a part does,
    is never used twice, and is 0 while there are no parts.
    """

    __tablename__ = "uploads"
    __table_args__ = (
        Index("ix_uploads_upload_id", "upload_id", "client_id"),
        Index("ix_uploads_newest", *_NEWEST),
        Index("ix_uploads_newest_of_client", "client_id", "created_at", "upload_id"),
        Index("ix_uploads_live_of_client", "client_id", "live", "created_at"),
        Index("ix_uploads_newest_in_state", "state", *_NEWEST),
    )
    client_id: str = Field(primary_key=True, sa_type=Code)
    upload_id: str = Field(primary_key=True, sa_type=Code)
    owner: str
    origin: str
    s3_key: str = Field(unique=True)
    token: str
    created_at: float
    updated_at: float
    deadline: float
    file_path: str | None
    digest: str
    chunk_size: int = Field(sa_type=BigInteger)
    options: str
    user_metadata: str = Field(sa_column_kwargs={"name": "metadata"})
    state: str
    version: int = Field(sa_type=BigInteger)
    attempt: int
    sequence: int = Field(sa_type=BigInteger)
    s3_upload_id: str | None
    one_put: bool
    file_size: int | None = Field(sa_type=BigInteger)
    part_size: int | None = Field(sa_type=BigInteger)
    fingerprint: str | None
    wanted: str
    resume_at: float
    touched_at: float
    strikes: int
    bytes_sent: int = Field(sa_type=BigInteger)
    client_busy: bool
    reason: str | None
    error: str | None
    message: str | None
    proof: str | None
    completed_at: float | None
    litter: str
    strays: str
    ended_at: float | None
    live: bool
    stored_parts: str
    parts_stamp: int = Field(sa_type=BigInteger)
    reason_code: str | None
    setbacks: int
    held: bool
    job_id: str | None = Field(sa_type=Code)
    job_file: int | None
    listed: str | None
    traceparent: str | None
    after: str
    after_receipt: str | None
    receipt: str | None


class PartRow(_Row, table=True):
    """One part of an upload's current attempt."""

    __tablename__ = "parts"
    __table_args__ = (
        ForeignKeyConstraint(
            ["client_id", "upload_id"], ["uploads.client_id", "uploads.upload_id"], ondelete="CASCADE"
        ),
        _CLUSTERED,
    )
    client_id: str = Field(primary_key=True, sa_type=Code)
    upload_id: str = Field(primary_key=True, sa_type=Code)
    part_number: int = Field(primary_key=True)
    digest: str | None
    etag: str | None


class OutboxRow(_Row, table=True):
    """One outbox entry. `due_at` is the entry's, `not_before` the duty's.

    The key begins with the client: one index finds the entries of a client and those of a subject.
    """

    __tablename__ = "outbox"
    __table_args__ = (Index("ix_outbox_due_at", "due_at"), _CLUSTERED)
    client_id: str = Field(primary_key=True, sa_type=Code)
    subject_type: str = Field(primary_key=True, sa_type=Code)
    subject_id: str = Field(primary_key=True, sa_type=Code)
    kind: str = Field(primary_key=True, sa_type=Code)
    target: str = Field(primary_key=True, sa_type=Code)
    attempt: int
    not_before: float
    due_at: float
    tries: int
    last_error_code: str | None
    last_error_text: str | None
    last_error_at: float | None


class ChangeRow(_Row, table=True):
    """One change. `body` holds the facts of its type that are not columns.

    AUTOINCREMENT: without it SQLite would use the numbers of pruned rows again.
    """

    __tablename__ = "changes"
    __table_args__ = (
        Index("ix_changes_at", "at", "number"),
        Index("ix_changes_subject", "client_id", "subject_id", "number"),
        {"sqlite_autoincrement": True},
    )
    number: int = Field(
        sa_column=Column(BigInteger().with_variant(Integer(), "sqlite"), primary_key=True, autoincrement=True)
    )
    at: float
    type: str
    client_id: str = Field(sa_type=Code)
    subject_id: str = Field(sa_type=Code)
    body: str


class ClientRow(_Row, table=True):
    """One client. `labels` repeats the table of labels, so one query reads a client."""

    __tablename__ = "clients"
    __table_args__ = (Index("ix_clients_online", "online"),)
    client_id: str = Field(primary_key=True, sa_type=Code)
    install_id: str
    epoch: int = Field(sa_type=BigInteger)
    sequence: int = Field(sa_type=BigInteger)
    online: bool
    seen_at: float
    connected_at: float | None
    registered_at: float
    retired: str
    conflict_at: float | None
    agent: str
    labels: str
    capabilities: str
    default_file: str | None
    timezone: str | None
    roots: str
    types: str
    set_labels: str
    expected: bool
    note: str
    budget: str | None
    budget_at: float | None
    session: str | None
    keys_version: int | None = Field(sa_type=BigInteger)
    unverified: int = Field(sa_type=BigInteger)


class LabelRow(_Row, table=True):
    """One effective label of one client, for queries by label."""

    __tablename__ = "client_labels"
    __table_args__ = (
        ForeignKeyConstraint(["client_id"], ["clients.client_id"], ondelete="CASCADE"),
        Index("ix_client_labels_bearers", "name", "value", "client_id"),
        _CLUSTERED,
    )
    client_id: str = Field(primary_key=True, sa_type=Code)
    name: str = Field(primary_key=True, sa_type=Code)
    value: str = Field(sa_type=Code)


class IdempotencyRow(_Row, table=True):
    """What a caller's key was used for."""

    __tablename__ = "idempotency"
    __table_args__ = (Index("ix_idempotency_created_at", "created_at"), _CLUSTERED)
    caller: str = Field(primary_key=True, sa_type=Code)
    client_id: str = Field(primary_key=True, sa_type=Code)
    idempotency_key: str = Field(primary_key=True, sa_type=Code)
    body: str
    upload_id: str
    created_at: float


class CheckRow(_Row, table=True):
    """One row that `check` writes."""

    __tablename__ = "checks"
    id: int = Field(primary_key=True)
    count: int = Field(sa_type=BigInteger)


UPLOADS: Final[Table] = METADATA.tables["uploads"]
PARTS: Final[Table] = METADATA.tables["parts"]
OUTBOX: Final[Table] = METADATA.tables["outbox"]
CHANGES: Final[Table] = METADATA.tables["changes"]
CLIENTS: Final[Table] = METADATA.tables["clients"]
LABELS: Final[Table] = METADATA.tables["client_labels"]
IDEMPOTENCY: Final[Table] = METADATA.tables["idempotency"]
CHECKS: Final[Table] = METADATA.tables["checks"]

# A query uses a partial index only if it has the same condition, so both use these.
IS_OPEN: Final = UPLOADS.c.ended_at.is_(None)
IS_HELD: Final = UPLOADS.c.held.is_(True)
HAS_ERROR: Final = UPLOADS.c.error.is_not(None)
HAS_JOB: Final = UPLOADS.c.job_id.is_not(None)

Index("ix_uploads_overdue", UPLOADS.c.deadline, sqlite_where=IS_OPEN, postgresql_where=IS_OPEN)
Index("ix_uploads_held", UPLOADS.c.job_id, sqlite_where=IS_HELD, postgresql_where=IS_HELD)
Index(
    "ix_uploads_ended",
    *(UPLOADS.c[name] for name in ("ended_at", "state", "error", "file_size")),
    sqlite_where=~IS_OPEN,
    postgresql_where=~IS_OPEN,
)
Index(
    "ix_uploads_newest_of_job",
    UPLOADS.c.job_id,
    *(UPLOADS.c[name] for name in _NEWEST),
    sqlite_where=HAS_JOB,
    postgresql_where=HAS_JOB,
)
Index(
    "ix_uploads_newest_with_error",
    UPLOADS.c.error,
    *(UPLOADS.c[name] for name in _NEWEST),
    sqlite_where=HAS_ERROR,
    postgresql_where=HAS_ERROR,
)
