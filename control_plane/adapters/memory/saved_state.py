"""The database in memory as JSON: the state file of the direct MQTT CLI.

Rule: every format that was released can be read; only the latest is written. The change log is not saved.
"""

from typing import Any, Final

import msgspec

from control_plane.adapters.memory.records import Tables
from control_plane.domain.clients import Client
from control_plane.domain.reasons import Reason, ReasonCode
from control_plane.domain.uploads.duties import Duty, Kind
from control_plane.domain.uploads.model import Upload, UploadKey
from control_plane.services.errors import BadInput
from control_plane.services.ports.database import IdempotencyRecord, OutboxEntry, Subject

FORMAT: Final = 2


class _Header(msgspec.Struct):
    format: int


class SavedState(_Header):
    """What a state file holds."""

    uploads: list[Upload] = []
    outbox: list[OutboxEntry] = []
    clients: list[Client] = []
    idempotency: list[IdempotencyRecord] = []


def encode(tables: Tables) -> bytes:
    """The state as JSON, in the latest format."""
    entries = [entry for rows in tables.outbox.values() for entry in rows.values()]
    clients, idempotency = list(tables.clients.values()), list(tables.idempotency.values())
    return msgspec.json.encode(SavedState(FORMAT, list(tables.uploads.values()), entries, clients, idempotency))


def decode(data: bytes) -> SavedState:
    """The state that `encode` wrote; `BadInput` when its format is unknown, other errors when it is damaged."""
    version = msgspec.json.decode(data, type=_Header).format
    if version == 1:
        return _from_format_1(msgspec.json.decode(data, type=_Format1))
    if version == FORMAT:
        return msgspec.json.decode(data, type=SavedState)
    message = f"the saved state has format {version}, this program reads up to {FORMAT}: use the version that wrote it"
    raise BadInput(message)


# --- format 1: the reason of an upload is a text, and an outbox entry is a task of an upload -------------------------


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


class _Format1(_Header):
    uploads: list[dict[str, Any]] = []
    tasks: list[_Task1] = []
    clients: list[Client] = []
    idempotency: list[IdempotencyRecord] = []


def _from_format_1(old: _Format1) -> SavedState:
    uploads, entries = [_upload(one) for one in old.uploads], [_entry(one) for one in old.tasks]
    return SavedState(FORMAT, uploads, entries, old.clients, old.idempotency)


def _upload(old: dict[str, Any]) -> Upload:
    text = msgspec.convert(old.get("reason"), str | None)
    reason = None if text is None else Reason(ReasonCode.CLIENT_REPORTED, text)
    return msgspec.convert({**old, "reason": msgspec.to_builtins(reason)}, Upload, str_keys=True)


def _entry(old: _Task1) -> OutboxEntry:
    duty = Duty(old.duty.kind, old.duty.attempt, old.duty.due_at, old.duty.subject)
    return OutboxEntry(Subject.of_upload(old.key), duty, old.due_at, old.tries)
