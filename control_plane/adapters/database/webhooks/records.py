"""Webhooks and their deliveries in SQL.

Rule: there are few webhooks, so a list is one scan of their table; every query of deliveries has its index.
"""

from collections.abc import Collection, Sequence
from typing import Final

import msgspec
from sqlalchemy import bindparam, delete, func, select, update

from control_plane.adapters.cursors import Row, check_limit, decode_cursor, encode_cursor
from control_plane.adapters.database.rows import DriverRow, clean, to_json
from control_plane.adapters.database.sql import Statement, Transaction, Values, insert_new, upsert
from control_plane.adapters.database.webhooks.tables import DELIVERIES, WAITS, WEBHOOKS
from control_plane.domain.webhooks import Delivery, DeliveryState, Webhook
from control_plane.services.ports.database import PARKED, Page
from control_plane.services.ports.webhooks import DeliveryPage

_W: Final = WEBHOOKS.c
_D: Final = DELIVERIES.c
_ONE: Final = Statement(select(WEBHOOKS).where(_W.webhook_id == bindparam("webhook_id")))
_ALL: Final = Statement(select(WEBHOOKS).order_by(_W.webhook_id))
_SAVE: Final = upsert(WEBHOOKS)
_DROP: Final = Statement(delete(WEBHOOKS).where(_W.webhook_id == bindparam("of_id")))
# SQLite has one writer. On PostgreSQL the second of two transactions that update the row fails, and runs again.
_LOCK: Final = Statement(update(WEBHOOKS).where(_W.webhook_id == bindparam("of_id")).values(position=_W.position))

_OF: Final = _D.webhook_id == bindparam("webhook_id")
_DELIVERY: Final = Statement(select(DELIVERIES).where(_OF, _D.number == bindparam("number")))
_ADD: Final = insert_new(DELIVERIES)
_PUT: Final = upsert(DELIVERIES)
_WAITING: Final = Statement(
    select(func.count()).select_from(select(_D.number).where(_OF, WAITS).limit(bindparam("at_most")).subquery())
)
_SUBJECTS: Final = (
    select(_D.subject).where(_OF, WAITS, _D.subject.in_(bindparam("subjects", expanding=True))).distinct()
)
_DUE: Final = Statement(
    select(DELIVERIES).where(_OF, WAITS, _D.due_at <= bindparam("now")).order_by(_D.due_at).limit(bindparam("limit"))
)
_OLDEST: Final = Statement(
    select(DELIVERIES).where(
        _OF,
        _D.number
        == select(_D.number)
        .where(_OF, WAITS, _D.subject == bindparam("subject"))
        .order_by(_D.number)
        .limit(1)
        .correlate(None)
        .scalar_subquery(),
    )
)
_HASTEN: Final = Statement(
    update(DELIVERIES)
    .where(_D.webhook_id == bindparam("of_id"), WAITS, _D.due_at > bindparam("after"), _D.due_at < PARKED)
    .values(due_at=bindparam("now"))
)
_NUMBERS: Final = select(_D.number).where(_OF).order_by(_D.number.desc()).correlate(None)
_THESE: Final = select(DELIVERIES).where(_OF).order_by(_D.number.desc())
_ENDED: Final = (
    select(_D.webhook_id, _D.number)
    .where(_D.state == bindparam("of_state"), _D.tried_at < bindparam("before"))
    .order_by(_D.tried_at)
    .limit(bindparam("limit"))
)
_PRUNE: Final = Statement(
    delete(DELIVERIES).where(_D.webhook_id == bindparam("of_id"), _D.number == bindparam("of_number"))
)

_types: Final = msgspec.json.Decoder(tuple[str, ...])
_position: Final = msgspec.json.Decoder(tuple[Row])


class SqlWebhooks:
    """Webhooks and their deliveries, inside one transaction."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def get(self, webhook_id: str) -> Webhook | None:
        """By the primary key."""
        row = self._transaction.run(_ONE, {"webhook_id": webhook_id}).fetchone()
        return None if row is None else _to_webhook(row)

    def all(self) -> list[Webhook]:
        """By id."""
        return [_to_webhook(row) for row in self._transaction.run(_ALL, {}).fetchall()]

    def save(self, webhook: Webhook) -> None:
        """With every column."""
        values = {name: getattr(webhook, name) for name in Webhook.__struct_fields__}
        row = {**values, "types": to_json(webhook.types), "note": clean(webhook.note)}
        self._transaction.run(_SAVE, row)

    def delete(self, webhook_id: str) -> bool:
        """Its deliveries go with it, by the foreign key."""
        return self._transaction.run(_DROP, {"of_id": webhook_id}).rowcount > 0

    def lock(self, webhook_id: str) -> Webhook | None:
        """By an update that changes nothing."""
        self._transaction.run(_LOCK, {"of_id": webhook_id})
        return self.get(webhook_id)

    def delivery(self, webhook_id: str, number: int) -> Delivery | None:
        """By the primary key."""
        row = self._transaction.run(_DELIVERY, {"webhook_id": webhook_id, "number": number}).fetchone()
        return None if row is None else _to_delivery(row)

    def add(self, deliveries: Sequence[Delivery]) -> None:
        """A row that exists stays."""
        self._transaction.run_each(_ADD, [_values(one) for one in deliveries])

    def put(self, delivery: Delivery) -> None:
        """With every column."""
        self._transaction.run(_PUT, _values(delivery))

    def waiting(self, webhook_id: str, at_most: int) -> int:
        """By the index of what waits."""
        ((count,),) = self._transaction.run(_WAITING, {"webhook_id": webhook_id, "at_most": at_most}).fetchall()
        return int(count)

    def waiting_subjects(self, webhook_id: str, subjects: Collection[str]) -> set[str]:
        """One lookup for each subject."""
        values = {"webhook_id": webhook_id, "subjects": list(subjects)}
        return set(self._transaction.connection.execute(_SUBJECTS, values).scalars())

    def due(self, webhook_id: str, now: float, limit: int) -> list[Delivery]:
        """By the index on `due_at`."""
        found = self._transaction.run(_DUE, {"webhook_id": webhook_id, "now": now, "limit": limit})
        return [_to_delivery(row) for row in found.fetchall()]

    def oldest_waiting(self, webhook_id: str, subject: str) -> Delivery | None:
        """By the index of subjects."""
        row = self._transaction.run(_OLDEST, {"webhook_id": webhook_id, "subject": subject}).fetchone()
        return None if row is None else _to_delivery(row)

    def hasten(self, webhook_id: str, after: float, now: float) -> int:
        """By the index on `due_at`."""
        return self._transaction.run(_HASTEN, {"of_id": webhook_id, "after": after, "now": now}).rowcount

    def deliveries(self, webhook_id: str, state: DeliveryState | None, page: Page) -> DeliveryPage:
        """By the primary key, or by the index of states."""
        check_limit(page)
        numbers = _NUMBERS.limit(page.limit + 1)
        if state is not None:
            numbers = numbers.where(_D.state == state)
        if page.cursor is not None:
            numbers = numbers.where(_D.number < decode_cursor(page.cursor, _position)[0])
        query = _THESE.where(_D.number.in_(numbers.scalar_subquery()))
        rows = self._transaction.connection.execute(query, {"webhook_id": webhook_id}).all()
        found = [_to_delivery(row) for row in rows[: page.limit]]
        return found, encode_cursor((found[-1].number,)) if len(rows) > page.limit else None

    def prune(self, state: DeliveryState, tried_before: float, limit: int) -> int:
        """By the index of ends."""
        values = {"of_state": state, "before": tried_before, "limit": limit}
        rows = self._transaction.connection.execute(_ENDED, values).all()
        self._transaction.run_each(_PRUNE, [{"of_id": webhook_id, "of_number": number} for webhook_id, number in rows])
        return len(rows)


def _to_webhook(row: DriverRow) -> Webhook:
    values = dict(zip(Webhook.__struct_fields__, row, strict=True))
    return Webhook(**{**values, "types": _types.decode(values["types"]), "enabled": bool(values["enabled"])})


def _values(delivery: Delivery) -> Values:
    values = {name: getattr(delivery, name) for name in Delivery.__struct_fields__}
    error = None if delivery.error is None else clean(delivery.error)
    return {**values, "state": str(delivery.state), "error": error}


def _to_delivery(row: DriverRow) -> Delivery:
    values = dict(zip(Delivery.__struct_fields__, row, strict=True))
    return Delivery(**{**values, "state": DeliveryState(values["state"])})
