"""The shapes of the audit in REST.

Rule: as in `api/models.py`. An export has each record as it was hashed, in CloudEvents 1.0.
"""

import json
from collections.abc import Iterable
from typing import Any, Final, Self

from pydantic import ConfigDict, ValidationError
from pydantic.config import JsonDict

from control_plane.api.models import Instant, Output
from control_plane.domain.audit.model import Act, AuditRecord, Outcome, instant_text
from control_plane.presentation import instant, known_instant
from control_plane.services.audit.ports import AuditSigned, StoredCheckpoint

_RECORD: Final[JsonDict] = {
    "writer": "5f1c9a3b7e20-0",
    "number": 17,
    "at": "2025-11-01T10:00:00.000Z",
    "subject": "ann@example.org",
    "token_id": "01JC4Q5J6V",
    "address": "192.0.2.7",
    "act": "upload.trigger",
    "target": "upload:5f2c0a4e9d1b4c7f8a6e3d2b1c0f9e8d",
    "clients": ["restaurant-1"],
    "client_count": 1,
    "client_set": None,
    "reason": "ticket 4711",
    "detail": {"file_path": "/data/sales.csv"},
    "outcome": "done",
    "previous": "0b" * 32,
    "hash": "c4" * 32,
}


_CHECKPOINT: Final[JsonDict] = {
    "writer": "5f1c9a3b7e20-0",
    "number": 17,
    "at": "2025-11-01T10:00:30.000Z",
    "sent_at": "2025-11-01T10:00:31.000Z",
}


class AuditDocument(Output):
    """One record: who did what, on which clients, why, and how it ended; and its place in the chain of its writer."""

    model_config = ConfigDict(json_schema_extra={"examples": [_RECORD]})

    writer: str
    number: int
    at: Instant
    subject: str
    token_id: str | None
    address: str | None
    act: Act
    target: str
    clients: list[str]
    client_count: int
    client_set: str | None
    reason: str | None
    detail: dict[str, str | int | bool]
    outcome: Outcome
    previous: str
    hash: str

    @classmethod
    def of(cls, record: AuditRecord) -> Self:
        """The document of a record."""
        return cls(**record.document, previous=record.previous, hash=record.hash)


class CheckpointDocument(Output):
    """The newest signed checkpoint: of which record of which chain; `sent_at` is when the bucket had it."""

    model_config = ConfigDict(json_schema_extra={"examples": [_CHECKPOINT]})

    writer: str
    number: int
    at: Instant
    sent_at: Instant | None


class AuditPage(Output):
    """Records, newest first; `key` verifies the checkpoints that this control plane signs.

    `unsigned` counts the chains with records after their last checkpoint: one is signed each minute. `bucket` gets the
    checkpoints, beside the log.

    `unreadable` has the places (`writer/number`) of records that were changed so that they cannot be read any more.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "records": [_RECORD],
                    "unreadable": [],
                    "cursor": None,
                    "key": "backhaul/fleet/v1+1a2b3c4d+AQ…",
                    "checkpoint": _CHECKPOINT,
                    "unsigned": 0,
                    "bucket": "audit",
                }
            ]
        }
    )

    records: list[AuditDocument]
    unreadable: list[str]
    cursor: str | None
    key: str
    checkpoint: CheckpointDocument | None
    unsigned: int
    bucket: str | None

    @classmethod
    def of(
        cls, found: Iterable[AuditRecord], cursor: str | None, key: str, signed: AuditSigned, bucket: str | None
    ) -> Self:
        """The page of some records."""
        records: list[AuditDocument] = []
        unreadable: list[str] = []
        for one in found:
            try:
                records.append(AuditDocument.of(one))
            except (ValidationError, TypeError):
                unreadable.append(f"{one.writer}/{one.number}")
        last = signed.checkpoint
        shown = last and CheckpointDocument(
            writer=last.writer, number=last.number, at=known_instant(last.at), sent_at=instant(signed.sent_at)
        )
        return cls(
            records=records,
            unreadable=unreadable,
            cursor=cursor,
            key=key,
            checkpoint=shown,
            unsigned=signed.unsigned,
            bucket=bucket,
        )


def export_line(one: AuditRecord | StoredCheckpoint, source: str) -> str:
    """A record, or a checkpoint, as one line of CloudEvents JSON."""
    return json.dumps(_event(one, source), separators=(",", ":"), ensure_ascii=False) + "\n"


def _event(one: AuditRecord | StoredCheckpoint, source: str) -> dict[str, Any]:
    shared = {"specversion": "1.0", "id": f"{one.writer}/{one.number}", "source": source}
    if isinstance(one, StoredCheckpoint):
        data: dict[str, Any] = {"note": one.note, "key": one.key}
        more: dict[str, Any] = {"type": "audit.checkpoint", "subject": one.writer, "time": instant_text(one.at)}
        shared["id"] += "/checkpoint"
    else:
        # Of a record that was changed as much as there is: the check finds it by its place.
        body = {"writer": one.writer, "number": one.number, **one.document}
        data = {"record": body, "previous": one.previous, "hash": one.hash}
        more = {"type": f"audit.{body.get('act')}", "subject": body.get("target") or one.writer, "time": body.get("at")}
    return {**shared, **more, "datacontenttype": "application/json", "data": data}
