"""Between the domain's dataclasses and the rows of the tables.

Rule: a round trip loses nothing except U+0000 in plain text, which PostgreSQL cannot hold: it becomes U+FFFD, so no
message of a device makes a batch fail.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Final, get_args

import msgspec

from control_plane.adapters.database.sql import Values
from control_plane.adapters.database.tables import CLIENTS
from control_plane.domain.changes import Change, NumberedChange, subject_id
from control_plane.domain.clients import Client
from control_plane.domain.reasons import Reason, ReasonCode
from control_plane.domain.uploads.duties import Duty, Kind
from control_plane.domain.uploads.model import (
    TERMINAL,
    AfterReceipt,
    ListedFile,
    Origin,
    PartRecord,
    Proof,
    State,
    Stray,
    Upload,
    UploadKey,
    UploadReceipt,
)
from control_plane.services.errors import BadInput
from control_plane.services.ports.database import Failure, IdempotencyRecord, OutboxEntry, Subject, SubjectType
from schemas.messages import AgentInfo
from schemas.parts import from_ranges, to_ranges
from schemas.values import DeviceBudget, DigestName, Fingerprint, UploadOptions, WantedPart

Parts = Mapping[int, PartRecord]
DriverRow = Sequence[Any]
"""As the driver returns it: columns by position, and SQLite's booleans as 0 and 1."""

Convert = Callable[[Any], Any]

_json: Final = msgspec.json.Encoder(order="deterministic")


def to_json(value: object) -> str:
    """One line of JSON; equal values give equal texts. `BadInput` for what JSON in UTF-8 cannot represent."""
    try:
        return _json.encode(value).decode()
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        message = f"the database cannot hold a value: {error}"
        raise BadInput(message) from error


def from_json(kind: object) -> Convert:
    """What decodes a column into a value of this type."""
    return msgspec.json.Decoder(kind).decode


def maybe(convert: Convert) -> Convert:
    """The same for a column that may be NULL."""
    return lambda value: None if value is None else convert(value)


def clean(text: str) -> str:
    """The text without U+0000."""
    return text.replace("\0", "\ufffd")


# --- uploads ---------------------------------------------------------------------------------------------------------

_FIELDS: Final = tuple(name for name in Upload.__struct_fields__ if name not in {"parts", "reason", "version"})
"""The fields with a column of the same name; the others have several columns, or other tables."""

_READ: Final = (*_FIELDS, "reason_code", "reason", "version")

UPLOAD_COLUMNS: Final = (*_READ, "stored_parts", "parts_stamp")
"""The columns that a query of uploads selects, in this order; the first two are the key."""

_FIELD_TO_COLUMN: Final[dict[str, Convert]] = {
    "origin": str,
    "digest": str,
    "state": str,
    "proof": maybe(str),
    "options": to_json,
    "metadata": to_json,
    "fingerprint": maybe(to_json),
    "listed": maybe(to_json),
    "after": clean,
    "after_receipt": maybe(to_json),
    "receipt": maybe(to_json),
    "wanted": to_json,
    "litter": to_json,
    "strays": to_json,
    "file_path": maybe(clean),
    "s3_upload_id": maybe(clean),
    "error": maybe(clean),
    "message": maybe(clean),
}
_COLUMN_TO_FIELD: Final[dict[str, Convert]] = {
    "origin": Origin,
    "digest": DigestName,
    "state": State,
    "proof": maybe(Proof),
    "options": from_json(UploadOptions),
    "metadata": from_json(dict[str, Any]),
    "fingerprint": maybe(from_json(Fingerprint)),
    "listed": maybe(from_json(ListedFile)),
    "after_receipt": maybe(from_json(AfterReceipt)),
    "receipt": maybe(from_json(UploadReceipt)),
    "wanted": from_json(tuple[WantedPart, ...]),
    "litter": from_json(tuple[str, ...]),
    "strays": from_json(tuple[Stray, ...]),
    "one_put": bool,
    "client_busy": bool,
    "held": bool,
}
_ranges: Final = from_json(tuple[tuple[int, int], ...])
_STORED: Final = PartRecord(etag="")


def _columns(record: Upload | Client, names: tuple[str, ...], converts: Mapping[str, Convert]) -> Values:
    values = {name: getattr(record, name) for name in names}
    for name in values.keys() & converts.keys():
        values[name] = converts[name](values[name])
    return values


def _derived(upload: Upload) -> Values:
    """The columns that exist for queries and follow from others."""
    if upload.state not in TERMINAL:
        return {"ended_at": None, "live": True}
    ended_at = upload.updated_at if upload.completed_at is None else upload.completed_at
    return {"ended_at": ended_at, "live": upload.client_busy}


def upload_key(row: DriverRow) -> UploadKey:
    """The key of a row."""
    return UploadKey(row[0], row[1])


def parts_stamp(row: DriverRow) -> int:
    """The stamp of the parts that belong to this row."""
    stamp: int = row[-1]
    return stamp


def stored_parts(row: DriverRow) -> Parts:
    """The parts that are stored, without their etags."""
    return dict.fromkeys(sorted(from_ranges(_ranges(row[-2]))), _STORED)


def to_upload(row: DriverRow, parts: Parts) -> Upload:
    """The upload of a row of `UPLOAD_COLUMNS`."""
    values = dict(zip(_READ, row, strict=False))
    for name, convert in _COLUMN_TO_FIELD.items():
        values[name] = convert(values[name])
    values["reason"] = _reason(values.pop("reason_code"), values["reason"])
    return Upload(**values, parts=parts)


def _reason(code: str | None, text: str | None) -> Reason | None:
    """A row that revision 0001 wrote has a text without a code."""
    return None if text is None else Reason(ReasonCode.CLIENT_REPORTED if code is None else code, text)


def _reason_values(reason: Reason | None) -> Values:
    if reason is None:
        return {"reason_code": None, "reason": None}
    return {"reason_code": clean(reason.code), "reason": clean(reason.text)}


def upload_values(upload: Upload, stamp: int) -> Values:
    """Every column of a new upload's row."""
    values = {**_columns(upload, _FIELDS, _FIELD_TO_COLUMN), **_reason_values(upload.reason), **_derived(upload)}
    return {**values, "version": 0, **parts_values(upload.parts, stamp)}


def changed_values(before: Upload, after: Upload) -> Values:
    """The columns that differ, without those of the version and the parts.

    A column that is set costs an update of its indexes, even if the value is the same.
    """
    names = tuple(name for name in _FIELDS if altered(getattr(before, name), getattr(after, name)))
    values = _columns(after, names, _FIELD_TO_COLUMN)
    if altered(before.reason, after.reason):
        values |= _reason_values(after.reason)
    old = _derived(before)
    return values | {name: value for name, value in _derived(after).items() if value != old[name]}


def altered(before: object, after: object) -> bool:
    """Whether they differ. Most are the same object, which is cheaper to see than to compare field by field."""
    return before is not after and before != after


def parts_values(parts: Parts, stamp: int) -> Values:
    """The columns that follow from an upload's parts."""
    stored = to_ranges(number for number, part in parts.items() if part.stored)
    return {"stored_parts": to_json(stored), "parts_stamp": stamp}


def part_values(key: UploadKey, parts: Parts) -> list[Values]:
    """One row for each part."""
    names = {"client_id": key.client_id, "upload_id": key.upload_id}
    return [
        {**names, "part_number": number, "digest": maybe(clean)(part.digest), "etag": maybe(clean)(part.etag)}
        for number, part in parts.items()
    ]


# --- outbox ----------------------------------------------------------------------------------------------------------


def entry_values(entry: OutboxEntry) -> Values:
    """The row of an outbox entry."""
    error = entry.last_error
    return {
        "client_id": entry.subject.client_id,
        "subject_type": str(entry.subject.type),
        "subject_id": entry.subject.id,
        "kind": str(entry.duty.kind),
        "target": entry.duty.target,
        "attempt": entry.duty.attempt,
        "not_before": entry.duty.due_at,
        "due_at": entry.due_at,
        "tries": entry.tries,
        "last_error_code": None if error is None else clean(error.reason.code),
        "last_error_text": None if error is None else clean(error.reason.text),
        "last_error_at": None if error is None else error.at,
    }


def to_entry(row: DriverRow) -> OutboxEntry:
    """The outbox entry of a row with all columns, in the table's order."""
    client_id, subject_type, subject_id, kind, target, attempt, not_before, due_at, tries, code, text, at = row
    subject = Subject(SubjectType(subject_type), client_id, subject_id)
    error = None if code is None else Failure(Reason(code, text), at)
    return OutboxEntry(subject, Duty(Kind(kind), attempt, not_before, target), due_at, tries, error)


# --- changes ---------------------------------------------------------------------------------------------------------

CHANGE_TYPES: Final[dict[str, type[Change]]] = {kind.name: kind for kind in get_args(Change)}
"""The class of each stored name."""

_changed: Final = from_json(dict[str, Any])


def change_values(change: Change) -> Values:
    """The row of a change, without its number; `client_id` is "" where no client is involved."""
    facts = {one.name: getattr(change, one.name) for one in fields(change)}
    body = {name: value for name, value in facts.items() if name not in {"at", "client_id", change.subject}}
    return {
        "at": change.at,
        "type": change.name,
        "client_id": facts.get("client_id", ""),
        "subject_id": subject_id(change),
        "body": to_json(body),
    }


def to_change(row: DriverRow) -> NumberedChange:
    """The change of a row with all columns, in the table's order."""
    number, at, name, client_id, subject, body = row
    kind = CHANGE_TYPES[name]
    facts = {**_changed(body), "at": at, "client_id": client_id, kind.subject: subject}
    # A fact that this class does not have, such as the client of a job, is ignored.
    return NumberedChange(number, msgspec.convert(facts, kind))


# --- clients ---------------------------------------------------------------------------------------------------------

_CLIENT_COLUMNS: Final = tuple(column.name for column in CLIENTS.columns)
_CLIENT_FIELDS: Final = Client.__struct_fields__
to_budget: Final = from_json(DeviceBudget)
_CLIENT_TO_COLUMN: Final[dict[str, Convert]] = {
    "install_id": clean,
    "retired": to_json,
    "agent": to_json,
    "labels": to_json,
    "capabilities": to_json,
    "default_file": maybe(clean),
    "timezone": maybe(clean),
    "roots": to_json,
    "types": to_json,
    "set_labels": to_json,
    "note": clean,
    "budget": maybe(to_json),
}
_COLUMN_TO_CLIENT: Final[dict[str, Convert]] = {
    "retired": from_json(tuple[str, ...]),
    "agent": from_json(AgentInfo),
    "labels": from_json(dict[str, str]),
    "capabilities": from_json(tuple[str, ...]),
    "online": bool,
    "roots": from_json(tuple[str, ...]),
    "types": from_json(tuple[str, ...]),
    "set_labels": from_json(dict[str, str]),
    "expected": bool,
    "budget": maybe(to_budget),
}


def client_values(client: Client) -> Values:
    """The row of a client."""
    return _columns(client, _CLIENT_FIELDS, _CLIENT_TO_COLUMN)


def to_client(row: DriverRow) -> Client:
    """The client of a row with all columns, in the table's order."""
    values = dict(zip(_CLIENT_COLUMNS, row, strict=True))
    for name, convert in _COLUMN_TO_CLIENT.items():
        values[name] = convert(values[name])
    return Client(**values)


# --- idempotency -----------------------------------------------------------------------------------------------------


def idempotency_values(record: IdempotencyRecord) -> Values:
    """The row of a key."""
    return {one.name: getattr(record, one.name) for one in fields(record)}


def to_idempotency(row: DriverRow) -> IdempotencyRecord:
    """The key of a row with all columns, in the table's order."""
    return IdempotencyRecord(*row)
