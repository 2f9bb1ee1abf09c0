"""The audit in SQL: chains of records, one for each thread that writes.

Rule: a chain has one writer, a thread of one process, so no two transactions append to one chain at the same time: none
waits for another, and none has to be repeated for the chain's sake.
"""

import itertools
import secrets
import threading
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Select, and_, bindparam, delete, func, select, true, tuple_, update

from control_plane.adapters.cursors import Row, check_limit, decode_cursor, encode_cursor
from control_plane.adapters.database.audit.tables import AUDIT, AUDIT_CLIENTS, CHAINS, CHECKPOINTS, UNSENT
from control_plane.adapters.database.rows import clean
from control_plane.adapters.database.sql import Statement, Transaction, insert_new, upsert
from control_plane.domain.audit.model import GENESIS, AuditEntry, AuditRecord, ChainHead, chained
from control_plane.services.audit.ports import AuditFilter, AuditSigned, RecordPage, StoredCheckpoint
from control_plane.services.errors import DatabaseUnavailable
from control_plane.services.ports.database import Page

_A: Final = AUDIT.c
_L: Final = AUDIT_CLIENTS.c
_C: Final = CHAINS.c
_K: Final = CHECKPOINTS.c

_RECORD: Final = (_A.writer, _A.number, _A.previous, _A.hash, _A.body)
_STORED: Final = (_K.writer, _K.number, _K.at, _K.note, _K.key)
_ADD: Final = insert_new(AUDIT)
_ADD_CLIENT: Final = insert_new(AUDIT_CLIENTS)
_PUT_HEAD: Final = upsert(CHAINS)
_ADD_CHECKPOINT: Final = insert_new(CHECKPOINTS)
_HEAD: Final = Statement(select(CHAINS).where(_C.writer == bindparam("writer")))
_AFTER: Final = (
    select(*_RECORD)
    .where(tuple_(_A.writer, _A.number) > tuple_(bindparam("writer"), bindparam("number")))
    .order_by(_A.writer, _A.number)
    .limit(bindparam("limit"))
)
_UNSIGNED: Final = (
    select(CHAINS)
    .where(~select(_K.writer).where(_K.writer == _C.writer, _K.number == _C.number).exists())
    .order_by(_C.writer)
)
_LAST: Final = select(*_STORED).where(_K.writer == bindparam("writer")).order_by(_K.number.desc()).limit(1)
_OF_CHAIN: Final = CHECKPOINTS.alias()
_NEWEST: Final = (
    select(*_STORED, _K.sent_at)
    .join(CHAINS, _C.writer == _K.writer)
    .where(_K.number == select(func.max(_OF_CHAIN.c.number)).where(_OF_CHAIN.c.writer == _C.writer).scalar_subquery())
    .order_by(_K.at.desc(), _K.writer)
    .limit(1)
)
_CHECKPOINTS: Final = (
    select(*_STORED)
    .where(tuple_(_K.writer, _K.number) > tuple_(bindparam("writer"), bindparam("number")))
    .order_by(_K.writer, _K.number)
    .limit(bindparam("limit"))
)
_TO_SEND: Final = select(*_STORED).where(UNSENT).order_by(_K.at, _K.writer, _K.number).limit(bindparam("limit"))
_SENT: Final = (
    update(CHECKPOINTS)
    .where(_K.writer == bindparam("of"), _K.number == bindparam("place"))
    .values(sent_at=bindparam("sent_at"))
)
_FIRST: Final = select(func.min(_A.number)).where(_A.writer == bindparam("writer"))

_position: Final = msgspec.json.Decoder(tuple[float, str, Row])


class AuditWriters:
    """The names of this process's writers: random for each process, and a number for each of its threads."""

    def __init__(self) -> None:
        self._process = secrets.token_hex(6)
        self._numbers = itertools.count()
        self._local = threading.local()

    @property
    def own(self) -> str:
        """The name of the calling thread."""
        name: str | None = getattr(self._local, "name", None)
        if name is None:
            name = self._local.name = f"{self._process}-{next(self._numbers)}"
        return name


WRITERS: Final = AuditWriters()


class SqlAudit:
    """The audit, inside one transaction."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def add(self, entry: AuditEntry) -> None:
        """After the head of the thread's chain, which only this thread moves."""
        writer = WRITERS.own
        row = self._transaction.run(_HEAD, {"writer": writer}).fetchone()
        number, previous = (1, GENESIS) if row is None else (int(row[1]) + 1, str(row[2]))
        record = chained(entry, writer, number, previous)
        values = {
            "writer": writer,
            "number": number,
            "at": entry.at,
            "subject": clean(entry.subject),
            "act": str(entry.act),
            "outcome": str(entry.outcome),
            "target": clean(entry.target),
            "previous": previous,
            "hash": record.hash,
            "body": record.body,
        }
        if self._transaction.run(_ADD, values).rowcount == 0:
            # A commit that was in doubt has come after all.
            message = f"the audit has a record {number} of {writer} already"
            raise DatabaseUnavailable(message)
        place = {"writer": writer, "number": number, "at": entry.at}
        self._transaction.run_each(_ADD_CLIENT, [{**place, "client_id": one} for one in entry.clients])
        self._transaction.run(_PUT_HEAD, {**place, "hash": record.hash})

    def list(self, where: AuditFilter, page: Page) -> RecordPage:
        """By the index of the rarest filter, which ends with the instant."""
        check_limit(page)
        found: Select[Any] = select(*_RECORD, _A.at)
        instant, writer, number = _A.at, _A.writer, _A.number
        if where.client_id is not None:
            joined = and_(_L.writer == _A.writer, _L.number == _A.number)
            found = found.join(AUDIT_CLIENTS, joined).where(_L.client_id == where.client_id)
            instant, writer, number = _L.at, _L.writer, _L.number
        for column, value in (
            (_A.subject, where.subject),
            (_A.act, where.act),
            (_A.outcome, where.outcome),
            (_A.target, where.target),
        ):
            if value is not None:
                found = found.where(column == str(value))
        if where.since is not None:
            found = found.where(instant >= where.since)
        if where.until is not None:
            found = found.where(instant < where.until)
        if page.cursor is not None:
            found = found.where(tuple_(instant, writer, number) < tuple_(*decode_cursor(page.cursor, _position)))
        found = found.order_by(instant.desc(), writer.desc(), number.desc()).limit(page.limit + 1)
        rows = self._transaction.connection.execute(found).all()
        records = [AuditRecord(*row[:5]) for row in rows[: page.limit]]
        if len(rows) <= page.limit:
            return records, None
        last = rows[page.limit - 1]
        return records, encode_cursor((last[5], last[0], last[1]))

    def after(self, writer: str, number: int, limit: int) -> Sequence[AuditRecord]:
        """By the primary key."""
        values = {"writer": writer, "number": number, "limit": limit}
        return [AuditRecord(*row) for row in self._transaction.connection.execute(_AFTER, values)]

    def unsigned(self) -> Sequence[ChainHead]:
        """A scan of the heads, of which there is one for each thread of each process, and a lookup for each."""
        return [ChainHead(*row) for row in self._transaction.connection.execute(_UNSIGNED)]

    def checkpoint(self, writer: str) -> StoredCheckpoint | None:
        """By the primary key."""
        row = self._transaction.connection.execute(_LAST, {"writer": writer}).first()
        return None if row is None else StoredCheckpoint(*row)

    def add_checkpoint(self, checkpoint: StoredCheckpoint) -> None:
        """A row that exists stays."""
        values = {name: getattr(checkpoint, name) for name in ("writer", "number", "at", "note", "key")}
        self._transaction.run(_ADD_CHECKPOINT, {**values, "sent_at": None})

    def checkpoints(self, writer: str, number: int, limit: int) -> Sequence[StoredCheckpoint]:
        """By the primary key."""
        values = {"writer": writer, "number": number, "limit": limit}
        return [StoredCheckpoint(*row) for row in self._transaction.connection.execute(_CHECKPOINTS, values)]

    def signed(self) -> AuditSigned:
        """A lookup for each chain, of which there is one for each thread of each process."""
        row = self._transaction.connection.execute(_NEWEST).first()
        unsigned = len(self.unsigned())
        return (
            AuditSigned(None, None, unsigned)
            if row is None
            else AuditSigned(StoredCheckpoint(*row[:5]), row[5], unsigned)
        )

    def unsent(self, limit: int) -> Sequence[StoredCheckpoint]:
        """By the index of what is not sent."""
        return [StoredCheckpoint(*row) for row in self._transaction.connection.execute(_TO_SEND, {"limit": limit})]

    def sent(self, checkpoint: StoredCheckpoint, at: float) -> None:
        """By the primary key."""
        values = {"of": checkpoint.writer, "place": checkpoint.number, "sent_at": at}
        self._transaction.connection.execute(_SENT, values)

    def prune(self, before: float, limit: int, *, unsent: bool) -> int:
        """Chain by chain: by the primary keys."""
        run = self._transaction.connection.execute
        pruned, may_go = 0, true() if unsent else ~UNSENT
        for (writer,) in run(select(_C.writer).order_by(_C.writer)).all():
            # The last checkpoint from before the instant: up to there the records of this chain may go.
            end = run(select(func.max(_K.number)).where(_K.writer == writer, _K.at < before)).scalar()
            if end is None:
                continue
            first = run(_FIRST, {"writer": writer}).scalar()
            if first is not None and first <= end:
                upto = min(end, first + limit - pruned - 1)
                pruned += run(delete(AUDIT).where(_A.writer == writer, _A.number <= upto)).rowcount
                if pruned >= limit:
                    break
            run(delete(CHECKPOINTS).where(_K.writer == writer, _K.number < end, may_go))
        return pruned
