"""Rates, budgets and shares, inside one transaction.

Rule: a rate is written by the transaction that read it. On PostgreSQL a concurrent one fails and runs again; on SQLite
there is none.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Final

import msgspec
from sqlalchemy import and_, bindparam, delete, exists, func, or_, select, update

from control_plane.adapters.cursors import check_limit, decode_cursor, encode_cursor
from control_plane.adapters.database.gate.tables import BUDGETS, LEDGERS, RATES, SHARES
from control_plane.adapters.database.rows import DriverRow, clean, from_json, to_json
from control_plane.adapters.database.sql import Statement, Transaction, Values, upsert
from control_plane.adapters.database.tables import IS_OPEN, UPLOADS
from control_plane.domain.gate.devices import Ledger
from control_plane.domain.uploads.model import UploadKey
from control_plane.services.ports.database import Page
from control_plane.services.ports.gate import Budget, Share

MAX_AHEAD: Final = 200
"""Waiters at which counting stops: the turn of one behind so many is beyond the longest wait that is reported."""

_S: Final = SHARES.c
_TAT: Final = Statement(select(RATES.c.tat).where(RATES.c.name == bindparam("name")))
_SET_TAT: Final = upsert(RATES)
_PRUNE: Final = Statement(delete(RATES).where(RATES.c.tat < bindparam("before")))

_BUDGETS: Final = Statement(select(BUDGETS).order_by(BUDGETS.c.label, BUDGETS.c.value))
_PAGE: Final = Statement(
    select(BUDGETS)
    .where(
        or_(
            BUDGETS.c.label > bindparam("after_label"),
            and_(BUDGETS.c.label == bindparam("after_label"), BUDGETS.c.value > bindparam("after_value")),
        )
    )
    .order_by(BUDGETS.c.label, BUDGETS.c.value)
    .limit(bindparam("limit"))
)
_positions: Final = msgspec.json.Decoder(tuple[str, str])
_THIS: Final = and_(BUDGETS.c.label == bindparam("of_label"), BUDGETS.c.value == bindparam("of_value"))
_BUDGET: Final = Statement(select(BUDGETS).where(_THIS))
_PUT_BUDGET: Final = upsert(BUDGETS)
_DROP_BUDGET: Final = Statement(delete(BUDGETS).where(_THIS))

_FIELDS: Final = tuple(one.name for one in fields(Share))
_ROWS: Final = select(*(_S[name] for name in _FIELDS))
_UPLOAD: Final = and_(_S.client_id == bindparam("of_client"), _S.upload_id == bindparam("of_upload"))
_OF_UPLOAD: Final = Statement(_ROWS.where(_UPLOAD))
_DROP_OF_UPLOAD: Final = Statement(delete(SHARES).where(_UPLOAD))
_ANY: Final = Statement(select(_S.key).limit(1))
_PUT_SHARE: Final = upsert(SHARES)

_OPEN: Final = exists().where(UPLOADS.c.client_id == _S.client_id, UPLOADS.c.upload_id == _S.upload_id, IS_OPEN)
_PRUNE_SHARES: Final = Statement(delete(SHARES).where(~_OPEN))

_OF_KEY: Final = _S.key == bindparam("of_key")
_WAITS: Final = _S.since.is_not(None)
_PRESENT: Final = and_(_OF_KEY, _WAITS, _S.absent.is_(False))
_BEFORE: Final = or_(
    _S.priority > bindparam("of_priority"),
    and_(
        _S.priority == bindparam("of_priority"),
        or_(
            _S.placed_at < bindparam("of_placed"),
            and_(
                _S.placed_at == bindparam("of_placed"),
                or_(
                    _S.client_id < bindparam("of_client"),
                    and_(_S.client_id == bindparam("of_client"), _S.upload_id < bindparam("of_upload")),
                ),
            ),
        ),
    ),
)
_AHEAD: Final = Statement(
    select(func.count()).select_from(select(_S.key).where(_PRESENT, _BEFORE).limit(MAX_AHEAD).subquery())
)
_PASS_OVER: Final = Statement(update(SHARES).where(_PRESENT, _BEFORE).values(absent=True))
_FIRST: Final = Statement(
    _ROWS.where(_PRESENT)
    .order_by(_S.priority.desc(), _S.placed_at, _S.client_id, _S.upload_id)
    .limit(bindparam("limit"))
)
_WAITERS: Final = Statement(_ROWS.where(_OF_KEY, _WAITS).order_by(_S.since).limit(bindparam("limit")))
_COUNT: Final = Statement(select(func.count()).where(_OF_KEY, _WAITS))
_USERS: Final = Statement(
    _ROWS.where(_OF_KEY, _S.bytes > 0, _S.placed_at >= bindparam("oldest"))
    .order_by(_S.placed_at.desc())
    .limit(bindparam("limit"))
)

_LEDGER: Final = Statement(select(LEDGERS.c.ledger).where(LEDGERS.c.client_id == bindparam("of_client")))
_PUT_LEDGER: Final = upsert(LEDGERS)
_to_ledger: Final = from_json(Ledger)


class SqlGate:
    """`services.ports.gate.GateRecords`."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def tat(self, name: str) -> float | None:
        """By the primary key."""
        row = self._transaction.run(_TAT, {"name": name}).fetchone()
        return None if row is None else float(row[0])

    def set_tat(self, name: str, tat: float) -> None:
        """One upsert."""
        self._transaction.run(_SET_TAT, {"name": name, "tat": tat})

    def prune(self, before: float) -> int:
        """Two scans: there are as many rows as jobs and budgets of a day, and as uploads under budgets."""
        rates = self._transaction.run(_PRUNE, {"before": before}).rowcount
        return rates + self._transaction.run(_PRUNE_SHARES, {}).rowcount

    def ledger(self, client_id: str) -> Ledger:
        """By the primary key."""
        row = self._transaction.run(_LEDGER, {"of_client": client_id}).fetchone()
        return Ledger() if row is None else _to_ledger(row[0])

    def put_ledger(self, client_id: str, ledger: Ledger) -> None:
        """One upsert. It goes with its client, by the foreign key."""
        self._transaction.run(_PUT_LEDGER, {"client_id": client_id, "ledger": to_json(ledger)})

    def budgets(self) -> list[Budget]:
        """In the order of code points."""
        return [Budget(*row) for row in self._transaction.run(_BUDGETS, {}).fetchall()]

    def page_of_budgets(self, page: Page) -> tuple[list[Budget], str | None]:
        """From the primary key."""
        check_limit(page)
        label, value = ("", "") if page.cursor is None else decode_cursor(page.cursor, _positions)
        values = {"after_label": label, "after_value": value, "limit": page.limit + 1}
        found = [Budget(*row) for row in self._transaction.run(_PAGE, values).fetchall()]
        shown = found[: page.limit]
        cursor = encode_cursor((shown[-1].label, shown[-1].value)) if len(found) > page.limit else None
        return shown, cursor

    def budgets_of(self, labels: Mapping[str, str]) -> list[Budget]:
        """One lookup for each label: a client has few."""
        found: list[Budget] = []
        for label, value in sorted(labels.items()):
            row = self._transaction.run(_BUDGET, {"of_label": clean(label), "of_value": clean(value)}).fetchone()
            if row is not None:
                found.append(Budget(*row))
        return found

    def put_budget(self, budget: Budget) -> None:
        """One upsert."""
        self._transaction.run(_PUT_BUDGET, {one.name: getattr(budget, one.name) for one in fields(budget)})

    def drop_budget(self, label: str, value: str) -> bool:
        """By the primary key."""
        return self._transaction.run(_DROP_BUDGET, {"of_label": label, "of_value": value}).rowcount > 0

    def shares_of(self, upload: UploadKey) -> dict[str, Share]:
        """By the primary key."""
        rows = self._transaction.run(_OF_UPLOAD, {"of_client": upload.client_id, "of_upload": upload.upload_id})
        return {share.key: share for share in map(_to_share, rows.fetchall())}

    def has_shares(self) -> bool:
        """Reads one row at most."""
        return self._transaction.run(_ANY, {}).fetchone() is not None

    def put_share(self, share: Share) -> None:
        """One upsert."""
        self._transaction.run(_PUT_SHARE, {name: getattr(share, name) for name in _FIELDS})

    def drop_shares(self, upload: UploadKey) -> None:
        """By the primary key."""
        self._transaction.run(_DROP_OF_UPLOAD, {"of_client": upload.client_id, "of_upload": upload.upload_id})

    def ahead_of(self, share: Share) -> int:
        """From the index of turns."""
        ((count,),) = self._transaction.run(_AHEAD, _placed(share)).fetchall()
        return int(count)

    def pass_over(self, share: Share) -> None:
        """From the index of turns."""
        self._transaction.run(_PASS_OVER, _placed(share))

    def first(self, key: str, limit: int) -> list[Share]:
        """From the index of turns."""
        return [_to_share(row) for row in self._transaction.run(_FIRST, {"of_key": key, "limit": limit}).fetchall()]

    def waiters(self, key: str, limit: int) -> tuple[list[Share], int]:
        """The absent ones too."""
        rows = self._transaction.run(_WAITERS, {"of_key": key, "limit": limit}).fetchall()
        ((count,),) = self._transaction.run(_COUNT, {"of_key": key}).fetchall()
        return [_to_share(row) for row in rows], int(count)

    def users(self, key: str, since: float, limit: int) -> list[Share]:
        """The latest grant of each upload counts."""
        values = {"of_key": key, "oldest": since, "limit": limit}
        return [_to_share(row) for row in self._transaction.run(_USERS, values).fetchall()]


def _placed(share: Share) -> Values:
    return {
        "of_key": share.key,
        "of_priority": share.priority,
        "of_placed": share.placed_at,
        "of_client": share.client_id,
        "of_upload": share.upload_id,
    }


def _to_share(row: DriverRow) -> Share:
    values = dict(zip(_FIELDS, row, strict=True))
    values["absent"] = bool(values["absent"])
    return Share(**values)
