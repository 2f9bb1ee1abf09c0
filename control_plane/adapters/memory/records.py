"""The rows of the store in memory, inside one transaction.

Rule: a transaction notes how to undo each thing it does, so that what it did can be taken back.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from heapq import nlargest, nsmallest
from typing import Any, TypeVar

from control_plane.adapters.cursors import check_limit, client_position, encode_cursor, upload_position
from control_plane.domain.clients import Client
from control_plane.domain.uploads.duties import Kind
from control_plane.domain.uploads.model import EXPIRABLE, OPEN, TERMINAL, Upload, UploadKey
from control_plane.services.errors import KeyTaken, VersionConflict
from control_plane.services.ports.database import PARKED, IdempotencyRecord, OutboxEntry, Page, UploadFilter

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(slots=True)
class Tables:
    """`objects` finds an upload by its object's key: the unique constraint."""

    uploads: dict[UploadKey, Upload] = field(default_factory=dict)
    objects: dict[str, UploadKey] = field(default_factory=dict)
    tasks: dict[UploadKey, dict[tuple[Kind, str], OutboxEntry]] = field(default_factory=dict)
    clients: dict[str, Client] = field(default_factory=dict)
    idempotency: dict[tuple[str, str, str], IdempotencyRecord] = field(default_factory=dict)


class MemoryRecords:
    """One transaction: `services.ports.Records`."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._undo: list[Callable[[], object]] = []

    def undo(self) -> None:
        """Take everything back, the last thing first."""
        while self._undo:
            self._undo.pop()()

    def _put(self, table: dict[K, V], key: K, value: V) -> None:
        if key in table:
            old = table[key]
            self._undo.append(lambda: table.__setitem__(key, old))
        else:
            self._undo.append(lambda: table.pop(key))
        table[key] = value

    def _drop(self, table: dict[K, Any], key: K) -> None:
        old = table.pop(key)
        self._undo.append(lambda: table.__setitem__(key, old))

    # uploads

    def upload(self, key: UploadKey) -> Upload | None:
        """One upload, as it was saved."""
        return self._tables.uploads.get(key)

    def uploads_by_id(self, upload_id: str) -> list[Upload]:
        """Looks at every upload."""
        return [one for one in self._tables.uploads.values() if one.upload_id == upload_id]

    def upload_by_s3_key(self, s3_key: str) -> Upload | None:
        """By the unique key of its object."""
        key = self._tables.objects.get(s3_key)
        return None if key is None else self._tables.uploads[key]

    def add_upload(self, upload: Upload) -> None:
        """`KeyTaken` leaves nothing behind."""
        if upload.key in self._tables.uploads:
            message = f"client {upload.client_id!r} has an upload {upload.upload_id!r} already"
            raise KeyTaken(message)
        self._require_free(upload.s3_key)
        self._put(self._tables.objects, upload.s3_key, upload.key)
        self._put(self._tables.uploads, upload.key, replace(upload, version=0))

    def save_upload(self, before: Upload, after: Upload) -> Upload:
        """`VersionConflict` and `KeyTaken` leave nothing behind."""
        if after.s3_key != before.s3_key:
            self._require_free(after.s3_key)
        stored = self._tables.uploads.get(before.key)
        if stored is None or stored.version != before.version:
            message = f"upload {before.upload_id!r} is no longer at version {before.version}"
            raise VersionConflict(message)
        if after.s3_key != stored.s3_key:
            self._drop(self._tables.objects, stored.s3_key)
            self._put(self._tables.objects, after.s3_key, after.key)
        saved = replace(after, version=before.version + 1)
        self._put(self._tables.uploads, saved.key, saved)
        return saved

    def _require_free(self, s3_key: str) -> None:
        if s3_key in self._tables.objects:
            message = f"the object {s3_key!r} belongs to another upload"
            raise KeyTaken(message)

    def list_uploads(self, where: UploadFilter, page: Page) -> tuple[list[Upload], str | None]:
        """Newest first; the same order and cursors as in SQL."""
        check_limit(page)
        after = upload_position(page)
        fitting = (
            one
            for one in self._tables.uploads.values()
            if _fits(where, one) and (after is None or _position(one) < after)
        )
        found = nlargest(page.limit + 1, fitting, key=_position)
        rest = len(found) > page.limit
        return found[: page.limit], encode_cursor(_position(found[page.limit - 1])) if rest else None

    def open_uploads_of(self, client_id: str) -> list[Upload]:
        """Looks at every upload."""
        return [
            one
            for one in self._tables.uploads.values()
            if one.client_id == client_id and (one.state in OPEN or one.client_busy)
        ]

    def overdue(self, now: float, limit: int) -> list[UploadKey]:
        """Longest overdue first."""
        uploads = self._tables.uploads.values()
        ends = (one for one in uploads if one.state in EXPIRABLE or (one.state in OPEN and not one.opened))
        late = (one for one in ends if one.deadline <= now)
        return [one.key for one in nsmallest(limit, late, key=lambda one: one.deadline)]

    def prune_uploads(self, ended_before: float, limit: int) -> int:
        """Oldest end first."""
        old = (one for one in self._tables.uploads.values() if _ended_at(one) < ended_before)
        idle = (one for one in old if one.key not in self._tables.tasks)
        gone = nsmallest(limit, idle, key=_ended_at)
        for upload in gone:
            self._drop(self._tables.objects, upload.s3_key)
            self._drop(self._tables.uploads, upload.key)
        return len(gone)

    # outbox

    def tasks_of(self, key: UploadKey) -> list[OutboxEntry]:
        """In the order in which they were first put."""
        return list(self._tables.tasks.get(key, {}).values())

    def put_task(self, task: OutboxEntry) -> None:
        """Insert or replace."""
        rows = self._tables.tasks.get(task.key, {})
        self._put(self._tables.tasks, task.key, {**rows, (task.duty.kind, task.duty.target): task})

    def drop_task(self, key: UploadKey, kind: Kind, subject: str) -> None:
        """Fine when it is not there."""
        rows = self._tables.tasks.get(key, {})
        rest = {name: task for name, task in rows.items() if name != (kind, subject)}
        if rest:
            self._put(self._tables.tasks, key, rest)
        elif rows:
            self._drop(self._tables.tasks, key)

    def due_tasks(self, now: float, limit: int) -> list[OutboxEntry]:
        """Earliest first."""
        return nsmallest(limit, (one for one in self._all_tasks() if one.due_at <= now), key=lambda one: one.due_at)

    def wake_tasks(self, client_id: str, now: float) -> int:
        """Only what is parked."""
        parked = [one for one in self._all_tasks() if one.key.client_id == client_id and one.due_at >= PARKED]
        for task in parked:
            self.put_task(replace(task, due_at=now))
        return len(parked)

    def next_due(self) -> float | None:
        """None when everything is parked, or nothing is there."""
        return min((one.due_at for one in self._all_tasks() if one.due_at < PARKED), default=None)

    def _all_tasks(self) -> Iterable[OutboxEntry]:
        return (task for rows in self._tables.tasks.values() for task in rows.values())

    # clients

    def client(self, client_id: str) -> Client | None:
        """One client, as it was saved."""
        return self._tables.clients.get(client_id)

    def clients(self, client_ids: Iterable[str]) -> dict[str, Client]:
        """Unknown ids are left out."""
        known = self._tables.clients
        return {client_id: known[client_id] for client_id in client_ids if client_id in known}

    def save_clients(self, clients: Sequence[Client]) -> None:
        """The last of several with one id wins."""
        for client in clients:
            self._put(self._tables.clients, client.client_id, client)

    def list_clients(self, labels: Mapping[str, str], page: Page) -> tuple[list[Client], str | None, int]:
        """By client id, in the order of code points."""
        check_limit(page)
        after = client_position(page)
        bearers = [one for one in self._tables.clients.values() if labels.items() <= one.labels.items()]
        fitting = (one for one in bearers if after is None or one.client_id > after)
        found = nsmallest(page.limit + 1, fitting, key=lambda one: one.client_id)
        rest = len(found) > page.limit
        cursor = encode_cursor((found[page.limit - 1].client_id,)) if rest else None
        return found[: page.limit], cursor, len(bearers)

    def delete_client(self, client_id: str) -> bool:
        """False when it was not known."""
        if client_id not in self._tables.clients:
            return False
        self._drop(self._tables.clients, client_id)
        return True

    # idempotency

    def idempotency(self, caller: str, client_id: str, idempotency_key: str) -> IdempotencyRecord | None:
        """None when the key is new."""
        return self._tables.idempotency.get((caller, client_id, idempotency_key))

    def add_idempotency(self, record: IdempotencyRecord) -> None:
        """`KeyTaken` leaves nothing behind."""
        key = (record.caller, record.client_id, record.idempotency_key)
        if key in self._tables.idempotency:
            message = f"the Idempotency-Key {record.idempotency_key!r} is in use"
            raise KeyTaken(message)
        self._put(self._tables.idempotency, key, record)

    def prune_idempotency(self, created_before: float) -> int:
        """However many there are."""
        table = self._tables.idempotency
        old = [key for key, record in table.items() if record.created_at < created_before]
        for key in old:
            self._drop(table, key)
        return len(old)


def _position(upload: Upload) -> tuple[float, str, str]:
    return upload.created_at, upload.client_id, upload.upload_id


def _ended_at(upload: Upload) -> float:
    """When it ended; infinity while it did not."""
    if upload.state not in TERMINAL:
        return float("inf")
    return upload.updated_at if upload.completed_at is None else upload.completed_at


def _fits(where: UploadFilter, upload: Upload) -> bool:
    return (
        (where.client_id is None or upload.client_id == where.client_id)
        and (where.states is None or upload.state in where.states)
        and (where.error is None or upload.error == where.error)
        and (where.created_after is None or upload.created_at > where.created_after)
        and (where.created_before is None or upload.created_at < where.created_before)
    )
