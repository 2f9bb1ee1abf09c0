"""The records of the audit, and how one is chained to the one before.

Rule: a record is the text that is hashed. The columns of a database repeat some of it, so that a query finds it.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from msgspec import Struct, field

GENESIS: Final = "0" * 64
"""The digest before the first record of a chain."""

MOST_CLIENTS: Final = 1_000
"""Clients that one record names; of more it has their number and a digest of all ids."""

MOST_TEXT: Final = 1_024
"""Characters of one text of a record."""

_PREFIX: Final = "backhaul-audit-v1"


class Act(StrEnum):
    """What a caller did, or was refused."""

    UPLOAD_TRIGGER = "upload.trigger"
    UPLOAD_CANCEL = "upload.cancel"
    UPLOAD_RETRY = "upload.retry"
    UPLOAD_VERIFY = "upload.verify"
    UPLOAD_ADOPT = "upload.adopt"
    """A download that an operator's key signed, and that this control plane took on."""

    OBJECT_URL = "object.url"
    CLIENT_EXPECT = "client.expect"
    CLIENT_LABEL = "client.label"
    CLIENT_LABEL_MANY = "client.label_many"
    CLIENT_FORGET = "client.forget"
    FILES_LIST = "files.list"
    GROUP_PUT = "group.put"
    GROUP_DELETE = "group.delete"
    BUDGET_PUT = "budget.put"
    BUDGET_DELETE = "budget.delete"
    JOB_CREATE = "job.create"
    JOB_PAUSE = "job.pause"
    JOB_RESUME = "job.resume"
    JOB_CANCEL = "job.cancel"
    JOB_EXTEND = "job.extend"
    JOB_CHANGE = "job.change"
    JOB_APPROVE = "job.approve"
    JOB_REJECT = "job.reject"
    JOB_RETRY = "job.retry"
    JOB_ADD_CLIENTS = "job.add_clients"
    JOB_FILES = "job.files"
    JOB_MANIFEST = "job.manifest"
    JOB_RESULTS = "job.results"
    SCHEDULE_CREATE = "schedule.create"
    SCHEDULE_REPLACE = "schedule.replace"
    SCHEDULE_DELETE = "schedule.delete"
    SCHEDULE_PAUSE = "schedule.pause"
    SCHEDULE_RESUME = "schedule.resume"
    SCHEDULE_SKIP = "schedule.skip"
    SCHEDULE_RUN = "schedule.run"
    SCHEDULE_BACKFILL = "schedule.backfill"
    WEBHOOK_CREATE = "webhook.create"
    WEBHOOK_CHANGE = "webhook.change"
    WEBHOOK_DELETE = "webhook.delete"
    WEBHOOK_REPLAY = "webhook.replay"
    SESSION_BEGIN = "session.begin"
    SESSION_CODE = "session.code"
    SESSION_END = "session.end"
    DEVICE_ENROLL = "device.enroll"
    DEVICE_APPROVE = "device.approve"
    DEVICE_REJECT = "device.reject"
    DEVICE_ROTATE = "device.rotate"
    DEVICE_REVOKE = "device.revoke"
    DEVICE_ACCEPT_KEY = "device.accept_key"
    DEVICE_FORGET = "device.forget"
    DEVICE_PIN = "device.pin"
    DEVICE_ALARM = "device.alarm"
    """These two are acts of a device: its key was pinned, or another key was seen under its name."""

    BATCH_CREATE = "batch.create"
    BATCH_REVOKE = "batch.revoke"
    KEYS_PUBLISH = "keys.publish"
    TOKEN_REVOKE = "token.revoke"  # noqa: S105 - the name of an act
    AUDIT_EXPORT = "audit.export"
    REQUEST = "request"
    """A request over REST that was denied before its use case began."""


class Outcome(StrEnum):
    """How an act ended."""

    DONE = "done"
    DENIED = "denied"
    FAILED = "failed"


class AuditEntry(Struct, frozen=True, kw_only=True):
    """An act that is not in a chain yet. `at` is an instant (s since the epoch); `target` is `kind:id`."""

    at: float
    act: Act
    subject: str
    token_id: str | None = None
    address: str | None = None
    reason: str | None = None
    target: str = ""
    clients: tuple[str, ...] = ()
    client_count: int = 0
    client_set: str | None = None
    """SHA-256 of the sorted ids with a line break after each, where there are more than `clients` names."""

    detail: Mapping[str, str | int | bool] = field(default_factory=dict)
    outcome: Outcome = Outcome.DONE


class AuditRecord(Struct, frozen=True):
    """One link of the chain of a writer. `body` is the text that is hashed; `number` counts from 1."""

    writer: str
    number: int
    previous: str
    hash: str
    body: str

    @property
    def document(self) -> dict[str, Any]:
        """The body as JSON has it; empty where the body was changed so that it is no JSON object."""
        try:
            found = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def is_sound(self) -> bool:
        """Whether the hash is that of the body, and the body is of this place in the chain."""
        if self.hash != digest_of(self.previous, self.body):
            return False
        document = self.document
        return document.get("writer") == self.writer and document.get("number") == self.number


class ChainHead(Struct, frozen=True):
    """The last record of a chain: its number, its hash, and when it was written (s since the epoch)."""

    writer: str
    number: int
    hash: str
    at: float


def clients_of(client_ids: Iterable[str]) -> tuple[tuple[str, ...], int, str | None]:
    """The members `clients`, `client_count` and `client_set` of an entry about these clients."""
    ordered = sorted(client_ids)
    if len(ordered) <= MOST_CLIENTS:
        return tuple(ordered), len(ordered), None
    whole = hashlib.sha256()
    for one in ordered:
        whole.update(f"{one}\n".encode())
    return tuple(ordered[:MOST_CLIENTS]), len(ordered), whole.hexdigest()


def chained(entry: AuditEntry, writer: str, number: int, previous: str) -> AuditRecord:
    """The entry as the record `number` of the chain of `writer`, after the record with the hash `previous`."""
    body = body_text(
        {
            "act": entry.act,
            "address": entry.address,
            "at": instant_text(entry.at),
            "client_count": entry.client_count,
            "client_set": entry.client_set,
            "clients": list(entry.clients),
            "detail": {name: _short(value) for name, value in entry.detail.items()},
            "number": number,
            "outcome": entry.outcome,
            "reason": entry.reason,
            "subject": entry.subject,
            "target": entry.target,
            "token_id": entry.token_id,
            "writer": writer,
        }
    )
    return AuditRecord(writer, number, previous, digest_of(previous, body), body)


def body_text(document: Mapping[str, Any]) -> str:
    """The text that is hashed: JSON with sorted names and without spaces (as RFC 8785 for strings and whole numbers).

    A character that UTF-8 cannot express is replaced.
    """
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "replace").decode()


def digest_of(previous: str, body: str) -> str:
    """SHA-256, in hex, of the prefix, the hash before and the body, each but the last with a line break after it."""
    return hashlib.sha256(f"{_PREFIX}\n{previous}\n{body}".encode()).hexdigest()


def instant_text(at: float) -> str:
    """RFC 3339 with milliseconds, UTC."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _short(value: str | int | bool) -> str | int | bool:  # noqa: FBT001 - a value of a record
    return value[:MOST_TEXT] if isinstance(value, str) else value
