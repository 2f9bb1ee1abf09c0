"""The rows of the database in memory, inside one transaction.

Rule: a transaction records an undo step for each write, so that all of them can be rolled back.
"""

from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from heapq import nlargest, nsmallest
from typing import Any, Final, TypeVar

from msgspec import structs

from control_plane.adapters.cursors import check_limit, client_position, encode_cursor, upload_position
from control_plane.adapters.memory.unsupported import UnkeptAudit, Unsupported
from control_plane.domain.changes import Change, NumberedChange
from control_plane.domain.changes import subject_id as subject_id_of
from control_plane.domain.clients import Client
from control_plane.domain.devices import Device
from control_plane.domain.selectors import Selector, ids_matching
from control_plane.domain.uploads.duties import Kind
from control_plane.domain.uploads.model import EXPIRABLE, OPEN, TERMINAL, Upload, UploadKey
from control_plane.services.devices.ports import MOST_CHANGES, DevicePage
from control_plane.services.errors import KeyTaken, VersionConflict
from control_plane.services.ports.database import (
    PARKED,
    ClientPage,
    IdempotencyRecord,
    OpenUploads,
    OutboxEntry,
    Page,
    Subject,
    UploadFilter,
    UploadPage,
)
from schemas.values import DeviceBudget

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

MAX_CHANGES: Final = 10_000
"""Changes that are kept; the oldest are dropped."""


@dataclass(slots=True)
class Tables:
    """`objects` finds an upload by its object's key: the unique constraint. `changes` ascend by number."""

    uploads: dict[UploadKey, Upload] = field(default_factory=dict)
    objects: dict[str, UploadKey] = field(default_factory=dict)
    outbox: dict[Subject, dict[tuple[Kind, str], OutboxEntry]] = field(default_factory=dict)
    clients: dict[str, Client] = field(default_factory=dict)
    idempotency: dict[tuple[str, str, str], IdempotencyRecord] = field(default_factory=dict)
    changes: list[NumberedChange] = field(default_factory=list)
    last_change: int = 0
    devices: dict[str, Device] = field(default_factory=dict)
    revoked_keys: dict[bytes, str] = field(default_factory=dict)
    device_changes: list[str] = field(default_factory=list)


class _Transaction:
    """Writes to the tables, each with the step that undoes it."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self._undo: list[Callable[[], object]] = []

    def undo(self) -> None:
        """Undo every write, the last one first."""
        while self._undo:
            self._undo.pop()()

    def put(self, table: dict[K, V], key: K, value: V) -> None:
        """Insert or replace one row."""
        if key in table:
            old = table[key]
            self._undo.append(lambda: table.__setitem__(key, old))
        else:
            self._undo.append(lambda: table.pop(key))
        table[key] = value

    def drop(self, table: dict[K, Any], key: K) -> None:
        """Delete one row."""
        old = table.pop(key)
        self._undo.append(lambda: table.__setitem__(key, old))

    def number(self) -> int:
        """Draw the next number of a change."""
        self.tables.last_change += 1
        self._undo.append(lambda: setattr(self.tables, "last_change", self.tables.last_change - 1))
        return self.tables.last_change

    def device_changed(self, client_id: str) -> None:
        """Note that the registry of devices changed at this name."""
        self.tables.device_changes.append(client_id)
        self._undo.append(self.tables.device_changes.pop)

    def replace_changes(self, rows: list[NumberedChange]) -> None:
        """Replace the whole list of changes."""
        old, self.tables.changes = self.tables.changes, rows
        self._undo.append(lambda: setattr(self.tables, "changes", old))


class MemoryUploads:
    """Uploads, inside one transaction."""

    def __init__(self, transaction: _Transaction) -> None:
        self._transaction = transaction
        self._tables = transaction.tables

    def get(self, key: UploadKey) -> Upload | None:
        """One upload, as it was saved."""
        return self._tables.uploads.get(key)

    def by_id(self, upload_id: str) -> list[Upload]:
        """Scans every upload."""
        return [one for one in self._tables.uploads.values() if one.upload_id == upload_id]

    def by_s3_key(self, s3_key: str) -> Upload | None:
        """By the unique key of its object."""
        key = self._tables.objects.get(s3_key)
        return None if key is None else self._tables.uploads[key]

    def retried_of(self, client_id: str) -> list[Upload]:
        """Scans every upload."""
        return [one for one in self._tables.uploads.values() if one.client_id == client_id and one.attempt > 1]

    def add(self, upload: Upload) -> None:
        """`KeyTaken` leaves nothing behind."""
        if upload.key in self._tables.uploads:
            message = f"client {upload.client_id!r} has an upload {upload.upload_id!r} already"
            raise KeyTaken(message)
        self._require_free(upload.s3_key)
        self._transaction.put(self._tables.objects, upload.s3_key, upload.key)
        self._transaction.put(self._tables.uploads, upload.key, structs.replace(upload, version=0))

    def save(self, before: Upload, after: Upload) -> Upload:
        """`VersionConflict` and `KeyTaken` leave nothing behind."""
        if after.s3_key != before.s3_key:
            self._require_free(after.s3_key)
        stored = self._tables.uploads.get(before.key)
        if stored is None or stored.version != before.version:
            message = f"upload {before.upload_id!r} is no longer at version {before.version}"
            raise VersionConflict(message)
        if after.s3_key != stored.s3_key:
            self._transaction.drop(self._tables.objects, stored.s3_key)
            self._transaction.put(self._tables.objects, after.s3_key, after.key)
        saved = structs.replace(after, version=before.version + 1)
        self._transaction.put(self._tables.uploads, saved.key, saved)
        return saved

    def _require_free(self, s3_key: str) -> None:
        if s3_key in self._tables.objects:
            message = f"the object {s3_key!r} belongs to another upload"
            raise KeyTaken(message)

    def open_of(self, client_id: str) -> list[Upload]:
        """Scans every upload."""
        return [
            one
            for one in self._tables.uploads.values()
            if one.client_id == client_id and (one.state in OPEN or one.client_busy)
        ]

    def count_open(self, client_id: str) -> int:
        """Scans every upload."""
        return len(self.open_of(client_id))

    def bytes_offered(self, client_id: str, owner: str, since: float) -> int:
        """Scans every upload."""
        uploads = self._tables.uploads.values()
        wanted = (one for one in uploads if (one.client_id, one.owner) == (client_id, owner))
        return sum(one.file_size or 0 for one in wanted if one.created_at >= since)

    def open_among(self, client_ids: Sequence[str]) -> dict[str, OpenUploads]:
        """Scans every upload."""
        found: dict[str, list[Upload]] = {}
        for one in self._tables.uploads.values():
            if one.client_id in client_ids and one.state in OPEN:
                found.setdefault(one.client_id, []).append(one)
        return {
            client_id: OpenUploads(len(some), max(some, key=lambda one: (one.updated_at, one.upload_id)))
            for client_id, some in found.items()
        }

    def overdue(self, now: float, limit: int) -> list[UploadKey]:
        """Longest overdue first."""
        uploads = self._tables.uploads.values()
        ends = (one for one in uploads if one.state in EXPIRABLE or (one.state in OPEN and not one.opened))
        late = (one for one in ends if one.deadline <= now)
        return [one.key for one in nsmallest(limit, late, key=lambda one: one.deadline)]

    def deadline_ahead(self, after: float, limit: int) -> list[UploadKey]:
        """In the order in which they were added."""
        uploads = self._tables.uploads.values()
        return [one.key for one in uploads if one.state in OPEN and one.deadline > after][:limit]

    def prune(self, ended_before: float, limit: int) -> int:
        """Oldest end first."""
        old = (one for one in self._tables.uploads.values() if _ended_at(one) < ended_before)
        idle = (one for one in old if Subject.of_upload(one.key) not in self._tables.outbox)
        gone = nsmallest(limit, idle, key=_ended_at)
        for upload in gone:
            self._transaction.drop(self._tables.objects, upload.s3_key)
            self._transaction.drop(self._tables.uploads, upload.key)
        return len(gone)

    def list(self, where: UploadFilter, page: Page) -> UploadPage:
        """Newest first; the same order and cursors as in SQL."""
        check_limit(page)
        after = upload_position(page)
        fitting = (
            one
            for one in self._tables.uploads.values()
            if _fits(where, one)
            and _within(where.reach, self._tables.clients.get(one.client_id))
            and (after is None or _position(one) < after)
        )
        found = nlargest(page.limit + 1, fitting, key=_position)
        rest = len(found) > page.limit
        return found[: page.limit], encode_cursor(_position(found[page.limit - 1])) if rest else None


class MemoryOutbox:
    """The outbox, inside one transaction."""

    def __init__(self, transaction: _Transaction) -> None:
        self._transaction = transaction
        self._rows = transaction.tables.outbox

    def of(self, subject: Subject) -> list[OutboxEntry]:
        """In the order in which they were first put."""
        return list(self._rows.get(subject, {}).values())

    def put(self, entry: OutboxEntry) -> None:
        """Insert or replace."""
        rows = self._rows.get(entry.subject, {})
        self._transaction.put(self._rows, entry.subject, {**rows, (entry.duty.kind, entry.duty.target): entry})

    def drop(self, subject: Subject, kind: Kind, target: str) -> None:
        """Does nothing when the row does not exist."""
        rows = self._rows.get(subject, {})
        rest = {name: entry for name, entry in rows.items() if name != (kind, target)}
        if rest:
            self._transaction.put(self._rows, subject, rest)
        elif rows:
            self._transaction.drop(self._rows, subject)

    def due(self, now: float, limit: int) -> list[OutboxEntry]:
        """Earliest first."""
        return nsmallest(limit, (one for one in self._all() if one.due_at <= now), key=lambda one: one.due_at)

    def wake(self, client_id: str, now: float) -> int:
        """Only parked rows."""
        parked = [one for one in self._all() if one.subject.client_id == client_id and one.due_at >= PARKED]
        for entry in parked:
            self.put(replace(entry, due_at=now))
        return len(parked)

    def wake_failed(self, codes: Iterable[str], now: float) -> int:
        """Neither parked entries nor those that are due."""
        failed = frozenset(codes)
        waiting = [
            one
            for one in self._all()
            if now < one.due_at < PARKED and one.last_error is not None and one.last_error.reason.code in failed
        ]
        for entry in waiting:
            self.put(replace(entry, due_at=max(now, entry.duty.due_at)))
        return len(waiting)

    def release(self, job_id: str, now: float) -> int:
        """There are no jobs."""
        del job_id, now
        return 0

    def release_device(self, client_id: str, now: float) -> int:
        """Nothing is held: there is no gate."""
        del client_id, now
        return 0

    def pull_in(self, kind: Kind, after: float, due_at: float) -> int:
        """Not the parked ones."""
        ahead = [one for one in self._all() if one.duty.kind is kind and after < one.due_at < PARKED]
        for entry in ahead:
            self.put(replace(entry, due_at=due_at))
        return len(ahead)

    def next_due(self) -> float | None:
        """None when all rows are parked, or there are none."""
        return min((one.due_at for one in self._all() if one.due_at < PARKED), default=None)

    def _all(self) -> Iterable[OutboxEntry]:
        return (entry for rows in self._rows.values() for entry in rows.values())


class MemoryClients:
    """Clients, inside one transaction."""

    def __init__(self, transaction: _Transaction) -> None:
        self._transaction = transaction
        self._rows = transaction.tables.clients

    def get(self, client_id: str) -> Client | None:
        """One client, as it was saved."""
        return self._rows.get(client_id)

    def among(self, client_ids: Iterable[str]) -> dict[str, Client]:
        """Unknown ids are left out."""
        return {client_id: self._rows[client_id] for client_id in client_ids if client_id in self._rows}

    def budgets(self, client_ids: Collection[str]) -> dict[str, DeviceBudget]:
        """Looks at these."""
        known = self.among(client_ids)
        return {client_id: one.budget for client_id, one in known.items() if one.budget is not None}

    def presences(self, client_ids: Sequence[str]) -> dict[str, Client]:
        """The whole clients."""
        return self.among(client_ids)

    def save(self, clients: Sequence[Client]) -> None:
        """The last of several with one id wins."""
        for client in clients:
            self._transaction.put(self._rows, client.client_id, client)

    def delete(self, client_id: str) -> bool:
        """False when it does not exist."""
        if client_id not in self._rows:
            return False
        self._transaction.drop(self._rows, client_id)
        return True

    def left_rows(self, client_ids: Collection[str]) -> frozenset[str]:
        """Looks at every upload and every change: there is no execution."""
        tables = self._transaction.tables
        named = {key.client_id for key in tables.uploads}
        named.update(getattr(row.change, "client_id", "") for row in tables.changes)
        return frozenset(named.intersection(client_ids))

    def matching(self, patterns: Sequence[str], selector: Selector | None) -> list[str]:
        """Looks at every client."""
        selected = {
            client_id
            for client_id, client in self._rows.items()
            if selector is not None and selector.matches(client.effective_labels)
        }
        return sorted(selected.union(ids_matching(patterns, self._rows)))

    def selected(self, client_ids: Sequence[str], selector: Selector) -> list[str]:
        """Looks at these."""
        return [client_id for client_id in client_ids if _within(selector, self._rows.get(client_id))]

    def list(self, page: Page, client_ids: Sequence[str] | None = None, reach: Selector | None = None) -> ClientPage:
        """By client id, in the order of code points."""
        check_limit(page)
        after = client_position(page) or ""
        wanted = list(self._rows) if client_ids is None else client_ids
        wanted = wanted if reach is None else self.selected(wanted, reach)
        found = nsmallest(page.limit + 1, (one for one in wanted if one > after))
        shown = found[: page.limit]
        cursor = encode_cursor((shown[-1],)) if len(found) > page.limit else None
        return [self._rows[client_id] for client_id in shown], cursor, len(wanted)


class MemoryIdempotency:
    """Idempotency keys, inside one transaction."""

    def __init__(self, transaction: _Transaction) -> None:
        self._transaction = transaction
        self._rows = transaction.tables.idempotency

    def get(self, caller: str, client_id: str, idempotency_key: str) -> IdempotencyRecord | None:
        """None when the key is new."""
        return self._rows.get((caller, client_id, idempotency_key))

    def add(self, record: IdempotencyRecord) -> None:
        """`KeyTaken` leaves nothing behind."""
        key = (record.caller, record.client_id, record.idempotency_key)
        if key in self._rows:
            message = f"the Idempotency-Key {record.idempotency_key!r} is in use"
            raise KeyTaken(message)
        self._transaction.put(self._rows, key, record)

    def prune(self, created_before: float) -> int:
        """All that are old, without a limit."""
        old = [key for key, record in self._rows.items() if record.created_at < created_before]
        for key in old:
            self._transaction.drop(self._rows, key)
        return len(old)


class MemoryChanges:
    """The change log, inside one transaction. It keeps the last `MAX_CHANGES`, and ends with the process."""

    def __init__(self, transaction: _Transaction) -> None:
        self._transaction = transaction

    def append(self, changes: Iterable[Change]) -> None:
        """Drops the oldest changes beyond `MAX_CHANGES`."""
        new = [NumberedChange(self._transaction.number(), change) for change in changes]
        if new:
            self._transaction.replace_changes([*self._rows, *new][-MAX_CHANGES:])

    def after(self, number: int, limit: int) -> list[NumberedChange]:
        """Lowest number first."""
        return [row for row in self._rows if row.number > number][:limit]

    def about(self, client_id: str, subject_id: str, limit: int) -> list[NumberedChange]:
        """Looks at every change."""
        wanted = (client_id, subject_id)
        found = [
            row for row in self._rows if (getattr(row.change, "client_id", ""), subject_id_of(row.change)) == wanted
        ]
        return found[::-1][:limit]

    def span(self) -> tuple[int, int]:
        """The ends of the list."""
        return (self._rows[0].number, self._rows[-1].number) if self._rows else (0, 0)

    def prune(self, before: float, limit: int) -> int:
        """Oldest first."""
        old = nsmallest(
            limit, (row for row in self._rows[:-1] if row.change.at < before), key=lambda row: row.change.at
        )
        gone = {row.number for row in old}
        if gone:
            self._transaction.replace_changes([row for row in self._rows if row.number not in gone])
        return len(gone)

    @property
    def _rows(self) -> list[NumberedChange]:
        return self._transaction.tables.changes


class MemoryDevices:
    """Devices, inside one transaction."""

    def __init__(self, transaction: _Transaction) -> None:
        self._transaction = transaction
        self._rows = transaction.tables.devices

    def get(self, client_id: str) -> Device | None:
        """None when it does not exist."""
        return self._rows.get(client_id)

    def among(self, client_ids: Iterable[str]) -> dict[str, Device]:
        """Those that exist."""
        return {client_id: self._rows[client_id] for client_id in client_ids if client_id in self._rows}

    def list(self, page: Page) -> DevicePage:
        """Sorts all of them."""
        check_limit(page)
        after = client_position(page) or ""
        shown = sorted(client_id for client_id in self._rows if client_id > after)
        cursor = encode_cursor((shown[page.limit - 1],)) if len(shown) > page.limit else None
        return [self._rows[client_id] for client_id in shown[: page.limit]], cursor

    def save(self, device: Device) -> None:
        """`KeyTaken` leaves nothing behind."""
        taken = None if device.public_key is None else self.by_key(device.public_key)
        if taken is not None and taken.client_id != device.client_id:
            message = f"the key of {device.client_id!r} is that of {taken.client_id!r}"
            raise KeyTaken(message)
        self._transaction.put(self._rows, device.client_id, device)
        self._transaction.device_changed(device.client_id)

    def delete(self, client_id: str) -> bool:
        """False when it does not exist."""
        if client_id not in self._rows:
            return False
        self._transaction.drop(self._rows, client_id)
        self._transaction.device_changed(client_id)
        return True

    def by_key(self, public_key: bytes) -> Device | None:
        """Looks at every device."""
        return next((device for device in self._rows.values() if device.public_key == public_key), None)

    def pinned(self) -> Sequence[Device]:
        """All."""
        return tuple(self._rows.values())

    def revoke_key(self, public_key: bytes, client_id: str, at: float) -> None:  # noqa: ARG002 - the port's arguments
        """Once."""
        keys = self._transaction.tables.revoked_keys
        if public_key not in keys:
            self._transaction.put(keys, public_key, client_id)
            self._transaction.device_changed(client_id)

    def revoked_keys(self) -> frozenset[bytes]:
        """All."""
        return frozenset(self._transaction.tables.revoked_keys)

    def signed_names(self) -> frozenset[str]:
        """All but the released ones."""
        return frozenset(self._transaction.tables.revoked_keys.values()) - {""}

    def revoked_under(self, client_ids: Iterable[str]) -> dict[bytes, str]:
        """A look at each."""
        wanted = frozenset(client_ids)
        return {key: name for key, name in self._transaction.tables.revoked_keys.items() if name in wanted}

    def release_name(self, client_id: str) -> None:
        """In each row of the name."""
        keys = self._transaction.tables.revoked_keys
        of_name = [key for key, name in keys.items() if name == client_id]
        for key in of_name:
            self._transaction.put(keys, key, "")
        if of_name:
            self._transaction.device_changed(client_id)

    def version(self) -> int:
        """The count of changes."""
        return len(self._transaction.tables.device_changes)

    def changed_since(self, version: int) -> frozenset[str] | None:
        """Every name is kept: the process with this database changes few devices."""
        every = self._transaction.tables.device_changes
        return frozenset(every[version:]) if len(every) - MOST_CHANGES <= version <= len(every) else None


class MemoryRecords:
    """One transaction: `services.ports.database.Records`."""

    groups = Unsupported("groups")
    listings = Unsupported("listings")
    figures = Unsupported("figures")
    jobs = Unsupported("jobs")
    gate = Unsupported("budgets")
    schedules = Unsupported("schedules")
    coverage = Unsupported("coverage")
    overview = Unsupported("sums over the fleet")
    sessions = Unsupported("sessions")
    tokens = Unsupported("tokens")
    enrollments = Unsupported("requests of devices")
    batches = Unsupported("batches of devices")
    trust = Unsupported("documents of trust")
    webhooks = Unsupported("webhooks")

    def __init__(self, tables: Tables) -> None:
        transaction = _Transaction(tables)
        self.audit = UnkeptAudit()
        self.uploads = MemoryUploads(transaction)
        self.outbox = MemoryOutbox(transaction)
        self.clients = MemoryClients(transaction)
        self.idempotency = MemoryIdempotency(transaction)
        self.changes = MemoryChanges(transaction)
        self.devices = MemoryDevices(transaction)
        self.undo: Final = transaction.undo
        """Undo every write."""


def _position(upload: Upload) -> tuple[float, str, str]:
    return upload.created_at, upload.client_id, upload.upload_id


def _ended_at(upload: Upload) -> float:
    """When it ended; infinity while it is open."""
    if upload.state not in TERMINAL:
        return float("inf")
    return upload.updated_at if upload.completed_at is None else upload.completed_at


def _within(reach: Selector | None, client: Client | None) -> bool:
    return reach is None or (client is not None and reach.matches(client.effective_labels))


def _fits(where: UploadFilter, upload: Upload) -> bool:
    return (
        (where.client_id is None or upload.client_id == where.client_id)
        and (where.states is None or upload.state in where.states)
        and (where.error is None or upload.error == where.error)
        and (where.job_id is None or upload.job_id == where.job_id)
        and (where.created_since is None or upload.created_at >= where.created_since)
        and (where.created_before is None or upload.created_at < where.created_before)
        and (where.ended_since is None or (upload.state in TERMINAL and _ended_at(upload) >= where.ended_since))
    )
