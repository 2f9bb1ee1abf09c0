"""The database in memory as JSON: the state file of the direct MQTT CLI.

Rule: every format that was released can be read; only the latest is written. The change log is not saved.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import msgspec

from control_plane.adapters.memory.records import Tables
from control_plane.domain.clients import Client
from control_plane.domain.reasons import Reason, WaitCode
from control_plane.domain.uploads.duties import Duty, Kind
from control_plane.domain.uploads.model import Upload, UploadKey
from control_plane.services.errors import BadInput
from control_plane.services.ports.database import Failure, IdempotencyRecord, OutboxEntry, Subject
from schemas.values import ErrorCode

FORMAT: Final = 2

_WAIT_CODES: Final = frozenset(WaitCode)


@dataclass(frozen=True, slots=True)
class SavedState:
    """What a state file holds."""

    uploads: list[Upload]
    outbox: list[OutboxEntry]
    clients: list[Client]
    idempotency: list[IdempotencyRecord]


class _Header(msgspec.Struct):
    format: int


class _Failure(msgspec.Struct):
    code: str
    text: str
    at: float

    def failure(self) -> Failure:
        code = WaitCode(self.code) if self.code in _WAIT_CODES else ErrorCode(self.code)
        return Failure(Reason(code, self.text), self.at)


class _Entry(msgspec.Struct):
    subject: Subject
    kind: Kind
    target: str
    attempt: int
    not_before: float
    due_at: float
    tries: int
    last_error: _Failure | None

    def entry(self) -> OutboxEntry:
        duty = Duty(self.kind, self.attempt, self.not_before, self.target)
        error = None if self.last_error is None else self.last_error.failure()
        return OutboxEntry(self.subject, duty, self.due_at, self.tries, error)


class _Format2(_Header):
    uploads: list[Upload] = []
    outbox: list[_Entry] = []
    clients: list[Client] = []
    idempotency: list[IdempotencyRecord] = []


class _Duty1(msgspec.Struct):
    kind: Kind
    attempt: int
    due_at: float
    subject: str = ""


class _Task1(msgspec.Struct):
    key: UploadKey
    duty: _Duty1
    due_at: float
    tries: int = 0

    def entry(self) -> OutboxEntry:
        duty = Duty(self.duty.kind, self.duty.attempt, self.duty.due_at, self.duty.subject)
        return OutboxEntry(Subject.of_upload(self.key), duty, self.due_at, self.tries)


class _Format1(_Header):
    uploads: list[Upload] = []
    tasks: list[_Task1] = []
    clients: list[Client] = []
    idempotency: list[IdempotencyRecord] = []


def encode(tables: Tables) -> bytes:
    """The state as JSON, in the latest format."""
    return msgspec.json.encode(
        _Format2(
            FORMAT,
            list(tables.uploads.values()),
            list(_entries(entry for rows in tables.outbox.values() for entry in rows.values())),
            list(tables.clients.values()),
            list(tables.idempotency.values()),
        )
    )


def decode(data: bytes) -> SavedState:
    """The state that `encode` wrote; `BadInput` when its format is unknown, other errors when it is damaged."""
    version = msgspec.json.decode(data, type=_Header).format
    if version == 1:
        old = msgspec.json.decode(data, type=_Format1)
        return SavedState(old.uploads, [task.entry() for task in old.tasks], old.clients, old.idempotency)
    if version == FORMAT:
        now = msgspec.json.decode(data, type=_Format2)
        return SavedState(now.uploads, [entry.entry() for entry in now.outbox], now.clients, now.idempotency)
    message = f"the saved state has format {version}, this program reads up to {FORMAT}: use the version that wrote it"
    raise BadInput(message)


def _entries(entries: Iterable[OutboxEntry]) -> Iterable[_Entry]:
    for entry in entries:
        duty, error = entry.duty, entry.last_error
        failure = None if error is None else _Failure(error.reason.code, error.reason.text, error.at)
        yield _Entry(
            entry.subject, duty.kind, duty.target, duty.attempt, duty.due_at, entry.due_at, entry.tries, failure
        )
