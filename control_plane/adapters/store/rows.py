"""Between the domain's dataclasses and the rows of the tables.

Rule: nothing is lost on the way there and back, but for U+0000 in plain text, which PostgreSQL cannot hold: it becomes
U+FFFD, so that no message of a device can poison a batch.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, Final

import msgspec
from sqlalchemy import Row

from control_plane.domain.events import Duty, Kind
from control_plane.domain.presence import Client
from control_plane.domain.record import Stray, Upload
from control_plane.domain.values import TERMINAL, Origin, PartRecord, Proof, State, UploadKey
from control_plane.services.ports import IdempotencyRecord, Task
from schemas.messages import AgentInfo
from schemas.values import DigestName, Fingerprint, UploadOptions, WantedPart

Values = dict[str, Any]
Parts = Mapping[int, PartRecord]
AnyRow = Row[*tuple[Any, ...]]
Convert = Callable[[Any], Any]

_json: Final = msgspec.json.Encoder(order="deterministic")


def to_json(value: object) -> str:
    """One line of JSON; equal values give equal texts."""
    return _json.encode(value).decode()


def _from_json(kind: object) -> Convert:
    return msgspec.json.Decoder(kind).decode


def _maybe(convert: Convert) -> Convert:
    return lambda value: None if value is None else convert(value)


def clean(text: str) -> str:
    """The text without U+0000."""
    return text.replace("\0", "\ufffd")


# --- uploads ---------------------------------------------------------------------------------------------------------

UPLOAD_FIELDS: Final = tuple(one.name for one in fields(Upload) if one.name not in {"parts", "version"})
"""The columns that hold one field of an upload each."""

_FIELD_TO_COLUMN: Final[dict[str, Convert]] = {
    "origin": str,
    "digest": str,
    "state": str,
    "proof": _maybe(str),
    "options": to_json,
    "metadata": to_json,
    "fingerprint": _maybe(to_json),
    "wanted": to_json,
    "litter": to_json,
    "strays": to_json,
    "file_path": _maybe(clean),
    "s3_upload_id": _maybe(clean),
    "reason": _maybe(clean),
    "error": _maybe(clean),
    "message": _maybe(clean),
}
_COLUMN_TO_FIELD: Final[dict[str, Convert]] = {
    "origin": Origin,
    "digest": DigestName,
    "state": State,
    "proof": _maybe(Proof),
    "options": _from_json(UploadOptions),
    "metadata": _from_json(dict[str, Any]),
    "fingerprint": _maybe(_from_json(Fingerprint)),
    "wanted": _from_json(tuple[WantedPart, ...]),
    "litter": _from_json(tuple[str, ...]),
    "strays": _from_json(tuple[Stray, ...]),
}


def _columns(record: Upload | Client, names: tuple[str, ...], converts: Mapping[str, Convert]) -> Values:
    values = {name: getattr(record, name) for name in names}
    for name in values.keys() & converts.keys():
        values[name] = converts[name](values[name])
    return values


def _ended_at(upload: Upload) -> float | None:
    if upload.state not in TERMINAL:
        return None
    return upload.updated_at if upload.completed_at is None else upload.completed_at


def upload_values(upload: Upload, parts_stamp: int) -> Values:
    """Every column of a new upload's row."""
    values = _columns(upload, UPLOAD_FIELDS, _FIELD_TO_COLUMN)
    return {**values, "version": 0, "ended_at": _ended_at(upload), "parts_stamp": parts_stamp}


def changed_values(before: Upload, after: Upload) -> Values:
    """The columns that differ, without those of the version and the parts.

    What is not written costs nothing: an index whose column is set is written again, even to the same value.
    """
    names = tuple(name for name in UPLOAD_FIELDS if getattr(before, name) != getattr(after, name))
    values = _columns(after, names, _FIELD_TO_COLUMN)
    if (ended_at := _ended_at(after)) != _ended_at(before):
        values["ended_at"] = ended_at
    return values


def to_upload(row: AnyRow, parts: Parts) -> Upload:
    """The upload of a row that holds `UPLOAD_FIELDS`, then the version."""
    values = dict(zip((*UPLOAD_FIELDS, "version"), row, strict=False))
    for name, convert in _COLUMN_TO_FIELD.items():
        values[name] = convert(values[name])
    return Upload(**values, parts=parts)


def part_values(key: UploadKey, parts: Parts) -> list[Values]:
    """One row for each part."""
    names = {"client_id": key.client_id, "upload_id": key.upload_id}
    return [
        {**names, "part_number": number, "digest": _maybe(clean)(part.digest), "etag": _maybe(clean)(part.etag)}
        for number, part in parts.items()
    ]


# --- tasks -----------------------------------------------------------------------------------------------------------


def task_values(task: Task) -> Values:
    """The row of a task."""
    return {
        "client_id": task.key.client_id,
        "upload_id": task.key.upload_id,
        "kind": str(task.duty.kind),
        "subject": task.duty.subject,
        "attempt": task.duty.attempt,
        "not_before": task.duty.due_at,
        "due_at": task.due_at,
        "tries": task.tries,
    }


def to_task(row: AnyRow) -> Task:
    """The task of a row with all columns, in the table's order."""
    client_id, upload_id, kind, subject, attempt, not_before, due_at, tries = row
    return Task(UploadKey(client_id, upload_id), Duty(Kind(kind), attempt, not_before, subject), due_at, tries)


# --- clients ---------------------------------------------------------------------------------------------------------

_CLIENT_FIELDS: Final = tuple(one.name for one in fields(Client))
_CLIENT_TO_COLUMN: Final[dict[str, Convert]] = {
    "install_id": clean,
    "retired": to_json,
    "agent": to_json,
    "labels": to_json,
    "capabilities": to_json,
    "default_file": _maybe(clean),
}
_COLUMN_TO_CLIENT: Final[dict[str, Convert]] = {
    "retired": _from_json(tuple[str, ...]),
    "agent": _from_json(AgentInfo),
    "labels": _from_json(dict[str, str]),
    "capabilities": _from_json(tuple[str, ...]),
}


def client_values(client: Client) -> Values:
    """The row of a client."""
    return _columns(client, _CLIENT_FIELDS, _CLIENT_TO_COLUMN)


def to_client(row: AnyRow) -> Client:
    """The client of a row with all columns."""
    values = dict(row._mapping)  # noqa: SLF001 - public in spite of its name: SQLAlchemy keeps names free for columns
    for name, convert in _COLUMN_TO_CLIENT.items():
        values[name] = convert(values[name])
    return Client(**values)


# --- idempotency -----------------------------------------------------------------------------------------------------


def idempotency_values(record: IdempotencyRecord) -> Values:
    """The row of a key."""
    return {one.name: getattr(record, one.name) for one in fields(record)}


def to_idempotency(row: AnyRow) -> IdempotencyRecord:
    """The key of a row with all columns, in the table's order."""
    return IdempotencyRecord(*row)
