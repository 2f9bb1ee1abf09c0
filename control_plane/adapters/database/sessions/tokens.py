"""Tokens in SQL.

Rule: a use of a token never changes whether it is revoked.
"""

from dataclasses import asdict, fields
from typing import Final

import msgspec
from sqlalchemy import and_, bindparam, delete, or_, select, update

from control_plane.adapters.cursors import check_limit, decode_cursor, encode_cursor
from control_plane.adapters.database.sessions.tables import REVOKED, TOKENS
from control_plane.adapters.database.sql import Statement, Transaction, insert_new
from control_plane.services.ports.database import Page
from control_plane.services.ports.sessions import StoredToken

_T: Final = TOKENS.c
_ROWS: Final = select(*(_T[field.name] for field in fields(StoredToken)))
_THIS: Final = _T.token_id == bindparam("of_token")
_ONE: Final = Statement(_ROWS.where(_THIS))
_ADD: Final = insert_new(TOKENS)
_UPDATE: Final = Statement(update(TOKENS).where(_THIS))
_REVOKED: Final = Statement(select(_T.token_id).where(REVOKED, _T.expires_at > bindparam("now")))
_LIST: Final = Statement(
    _ROWS.where(
        or_(
            _T.expires_at > bindparam("after"),
            and_(_T.expires_at == bindparam("after"), _T.token_id > bindparam("after_token")),
        )
    )
    .order_by(_T.expires_at, _T.token_id)
    .limit(bindparam("limit"))
)
_PRUNE: Final = Statement(delete(TOKENS).where(_T.expires_at <= bindparam("now")))
_positions: Final = msgspec.json.Decoder(tuple[float, str])


class SqlTokens:
    """Tokens, inside one transaction."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def get(self, token_id: str) -> StoredToken | None:
        """By the primary key."""
        row = self._transaction.run(_ONE, {"of_token": token_id}).fetchone()
        return None if row is None else StoredToken(*row)

    def saw(self, token: StoredToken) -> None:
        """One insert or one update."""
        self._put(token, "used_at", "address")

    def revoke(self, token: StoredToken) -> None:
        """One insert or one update."""
        self._put(token, "revoked_at", "revoked_by", "reason")

    def revoked(self, now: float) -> frozenset[str]:
        """From the index of what is revoked."""
        return frozenset(row[0] for row in self._transaction.run(_REVOKED, {"now": now}).fetchall())

    def list(self, now: float, page: Page) -> tuple[list[StoredToken], str | None]:
        """From the index of ends."""
        check_limit(page)
        # It is behind every id: a token that expires now is not listed.
        after, token_id = (now, "\U0010ffff") if page.cursor is None else decode_cursor(page.cursor, _positions)
        values = {"after": max(after, now), "after_token": token_id, "limit": page.limit + 1}
        found = [StoredToken(*row) for row in self._transaction.run(_LIST, values).fetchall()]
        shown = found[: page.limit]
        cursor = encode_cursor((shown[-1].expires_at, shown[-1].token_id)) if len(found) > page.limit else None
        return shown, cursor

    def prune(self, now: float) -> int:
        """By the index of ends."""
        return self._transaction.run(_PRUNE, {"now": now}).rowcount

    def _put(self, token: StoredToken, *changed: str) -> None:
        row = asdict(token)
        if not self._transaction.run(_ADD, row).rowcount:
            self._transaction.update(_UPDATE, {name: row[name] for name in changed}, {"of_token": token.token_id})
