"""The outbox in SQL.

Rule: a row is named by its upload, kind and subject; whoever drains the outbox asks by `due_at`.
"""

from typing import Final

from sqlalchemy import bindparam, delete, select, update

from control_plane.adapters.database.rows import task_values, to_task
from control_plane.adapters.database.sql import Session, Statement, upsert
from control_plane.adapters.database.tables import TASKS
from control_plane.domain.uploads.duties import Kind
from control_plane.domain.uploads.model import UploadKey
from control_plane.services.ports.database import PARKED, OutboxEntry

_T: Final = TASKS.c
_KEY: Final = (_T.client_id == bindparam("of_client")) & (_T.upload_id == bindparam("of_upload"))
_OF: Final = Statement(select(TASKS).where(_KEY))
_PUT: Final = upsert(TASKS)
_DROP: Final = Statement(
    delete(TASKS).where(_KEY, _T.kind == bindparam("of_kind"), _T.subject == bindparam("of_subject"))
)
_DUE: Final = Statement(
    select(TASKS).where(_T.due_at <= bindparam("now")).order_by(_T.due_at).limit(bindparam("limit"))
)
_WAKE: Final = Statement(
    update(TASKS).where(_T.client_id == bindparam("of_client"), _T.due_at >= PARKED).values(due_at=bindparam("now"))
)
_NEXT: Final = Statement(select(_T.due_at).where(_T.due_at < PARKED).order_by(_T.due_at).limit(1))


class OutboxRecords:
    """The outbox, inside one transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def tasks_of(self, key: UploadKey) -> list[OutboxEntry]:
        """By kind and subject."""
        found = self._session.run(_OF, {"of_client": key.client_id, "of_upload": key.upload_id})
        return [to_task(row) for row in found.fetchall()]

    def put_task(self, task: OutboxEntry) -> None:
        """Insert or replace."""
        self._session.run(_PUT, task_values(task))

    def drop_task(self, key: UploadKey, kind: Kind, subject: str) -> None:
        """Fine when it is not there."""
        names = {"of_client": key.client_id, "of_upload": key.upload_id}
        self._session.run(_DROP, {**names, "of_kind": str(kind), "of_subject": subject})

    def due_tasks(self, now: float, limit: int) -> list[OutboxEntry]:
        """Earliest first."""
        return [to_task(row) for row in self._session.run(_DUE, {"now": now, "limit": limit}).fetchall()]

    def wake_tasks(self, client_id: str, now: float) -> int:
        """Only what is parked."""
        return self._session.run(_WAKE, {"of_client": client_id, "now": now}).rowcount

    def next_due(self) -> float | None:
        """None when everything is parked, or nothing is there."""
        row = self._session.run(_NEXT, {}).fetchone()
        return None if row is None else row[0]
