"""Sessions in SQL.

Rule: what may happen once is a DELETE that counts its rows.
"""

from typing import Final

from sqlalchemy import bindparam, delete, select

from control_plane.adapters.database.sessions.tables import SESSIONS
from control_plane.adapters.database.sql import Statement, Transaction, insert_new
from control_plane.services.ports.sessions import SessionKind, StoredSession

_S: Final = SESSIONS.c
_ONE: Final = Statement(select(SESSIONS).where(_S.digest == bindparam("digest")))
_ADD: Final = insert_new(SESSIONS)
_DROP: Final = Statement(delete(SESSIONS).where(_S.digest == bindparam("of_digest")))
_BEYOND: Final = (
    select(_S.digest)
    .where(_S.subject == bindparam("subject"), _S.kind == bindparam("kind"), _S.digest != bindparam("kept"))
    .order_by(_S.expires_at.desc(), _S.digest)
    .offset(bindparam("others"))
    .correlate(None)
)
_TRIM: Final = Statement(delete(SESSIONS).where(_S.digest.in_(_BEYOND)))
_PRUNE: Final = Statement(delete(SESSIONS).where(_S.expires_at <= bindparam("now")))


class SqlSessions:
    """Sessions and codes, inside one transaction."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def get(self, digest: str) -> StoredSession | None:
        """By the primary key."""
        row = self._transaction.run(_ONE, {"digest": digest}).fetchone()
        return None if row is None else StoredSession(row[0], SessionKind(row[1]), *row[2:])

    def add(self, session: StoredSession) -> None:
        """With every column."""
        values = {name: getattr(session, name) for name in StoredSession.__dataclass_fields__}
        self._transaction.run(_ADD, {**values, "kind": session.kind.value})

    def take(self, digest: str) -> StoredSession | None:
        """On PostgreSQL the second of two deletes finds no row, or fails and runs again."""
        found = self.get(digest)
        return found if self._transaction.run(_DROP, {"of_digest": digest}).rowcount else None

    def trim(self, kept: StoredSession, most: int) -> int:
        """Over a table that stays small for it."""
        row = {"subject": kept.subject, "kind": kept.kind.value, "kept": kept.digest, "others": most - 1}
        return self._transaction.run(_TRIM, row).rowcount

    def prune(self, now: float) -> int:
        """By the index of ends."""
        return self._transaction.run(_PRUNE, {"now": now}).rowcount
