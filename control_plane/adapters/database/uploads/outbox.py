"""The outbox in SQL.

Rule: the subject, kind and target identify a row; the outbox worker selects rows by `due_at`.
"""

from collections.abc import Iterable
from typing import Final

from sqlalchemy import bindparam, case, delete, select, tuple_, update

from control_plane.adapters.database.rows import entry_values, to_entry
from control_plane.adapters.database.sql import Statement, Transaction, Values, is_one_of, upsert
from control_plane.adapters.database.tables import IS_HELD, OUTBOX, UPLOADS
from control_plane.domain.reported import DEVICE_WAITS
from control_plane.domain.uploads.duties import Kind
from control_plane.services.ports.database import PARKED, OutboxEntry, Subject, SubjectType

_O: Final = OUTBOX.c
_SUBJECT: Final = (
    (_O.client_id == bindparam("of_client"))
    & (_O.subject_type == bindparam("of_type"))
    & (_O.subject_id == bindparam("of_id"))
)
_OF: Final = Statement(select(OUTBOX).where(_SUBJECT))
_PUT: Final = upsert(OUTBOX)
_DROP: Final = Statement(
    delete(OUTBOX).where(_SUBJECT, _O.kind == bindparam("of_kind"), _O.target == bindparam("of_target"))
)
_DUE: Final = Statement(
    select(OUTBOX).where(_O.due_at <= bindparam("now")).order_by(_O.due_at).limit(bindparam("limit"))
)
_WAKE: Final = Statement(
    update(OUTBOX).where(_O.client_id == bindparam("of_client"), _O.due_at >= PARKED).values(due_at=bindparam("now"))
)
_WAKE_FAILED: Final = Statement(
    update(OUTBOX)
    .where(_O.due_at > bindparam("now"), _O.due_at < PARKED, _O.last_error_code == bindparam("of_code"))
    .values(due_at=case((_O.not_before > bindparam("now"), _O.not_before), else_=bindparam("now")))
)
_HELD: Final = select(UPLOADS.c.client_id, UPLOADS.c.upload_id).where(UPLOADS.c.job_id == bindparam("of_job"), IS_HELD)
_RELEASE: Final = Statement(
    update(OUTBOX)
    .where(
        _O.subject_type == SubjectType.UPLOAD.value,
        _O.kind == Kind.SEND_GRANT.value,
        _O.due_at > bindparam("now"),
        _O.due_at < PARKED,
        tuple_(_O.client_id, _O.subject_id).in_(_HELD),
    )
    .values(due_at=bindparam("now"))
)
_HELD_OF: Final = select(UPLOADS.c.client_id, UPLOADS.c.upload_id).where(
    UPLOADS.c.client_id == bindparam("of_client"),
    UPLOADS.c.live.is_(True),
    IS_HELD,
    is_one_of(UPLOADS.c.reason_code, DEVICE_WAITS),
)
_RELEASE_DEVICE: Final = Statement(
    update(OUTBOX)
    .where(
        _O.client_id == bindparam("of_client"),
        _O.subject_type == SubjectType.UPLOAD.value,
        _O.kind == Kind.SEND_GRANT.value,
        _O.due_at > bindparam("now"),
        _O.due_at < PARKED,
        tuple_(_O.client_id, _O.subject_id).in_(_HELD_OF),
    )
    .values(due_at=bindparam("now"))
)
_PULL_IN: Final = Statement(
    update(OUTBOX)
    .where(_O.due_at > bindparam("after"), _O.due_at < PARKED, _O.kind == bindparam("of_kind"))
    .values(due_at=bindparam("to"))
)
_NEXT: Final = Statement(select(_O.due_at).where(_O.due_at < PARKED).order_by(_O.due_at).limit(1))


class SqlOutbox:
    """The outbox, inside one transaction."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def of(self, subject: Subject) -> list[OutboxEntry]:
        """By kind and target."""
        return [to_entry(row) for row in self._transaction.run(_OF, _named(subject)).fetchall()]

    def put(self, entry: OutboxEntry) -> None:
        """Insert or replace."""
        self._transaction.run(_PUT, entry_values(entry))

    def drop(self, subject: Subject, kind: Kind, target: str) -> None:
        """Does nothing when the row does not exist."""
        self._transaction.run(_DROP, {**_named(subject), "of_kind": str(kind), "of_target": target})

    def due(self, now: float, limit: int) -> list[OutboxEntry]:
        """Earliest first."""
        return [to_entry(row) for row in self._transaction.run(_DUE, {"now": now, "limit": limit}).fetchall()]

    def wake(self, client_id: str, now: float) -> int:
        """Only parked rows."""
        return self._transaction.run(_WAKE, {"of_client": client_id, "now": now}).rowcount

    def wake_failed(self, codes: Iterable[str], now: float) -> int:
        """Found by `due_at`: an entry that failed waits, and few do at one time."""
        return sum(self._transaction.run(_WAKE_FAILED, {"of_code": code, "now": now}).rowcount for code in codes)

    def release(self, job_id: str, now: float) -> int:
        """Found by the index of held uploads."""
        return self._transaction.run(_RELEASE, {"of_job": job_id, "now": now}).rowcount

    def release_device(self, client_id: str, now: float) -> int:
        """Found by the index of the client's live uploads."""
        return self._transaction.run(_RELEASE_DEVICE, {"of_client": client_id, "now": now}).rowcount

    def pull_in(self, kind: Kind, after: float, due_at: float) -> int:
        """Found by `due_at`: there are hardly ever any."""
        return self._transaction.run(_PULL_IN, {"of_kind": str(kind), "after": after, "to": due_at}).rowcount

    def next_due(self) -> float | None:
        """None when all rows are parked, or there are none."""
        row = self._transaction.run(_NEXT, {}).fetchone()
        return None if row is None else row[0]


def _named(subject: Subject) -> Values:
    return {"of_client": subject.client_id, "of_type": str(subject.type), "of_id": subject.id}
