"""The records of the journal: one small record for each change that must survive a crash.

Rule: shapes only. A transfer is the result of its records, replayed in order (`transfer.replay`). Tags, stored
field names and defaults never change: journals of older agents hold the names, and leave the defaults out.
"""

from enum import StrEnum
from typing import Any

from msgspec import Struct, field

from schemas.messages import KEEP
from schemas.parts import MIN_CHUNK_SIZE
from schemas.values import DigestName, ErrorCode, Fingerprint, Instant, PresignedPart, ResponseStatus, UploadOptions


class Seal(Struct, frozen=True):
    """What makes a file a sealed one, the same for every part of an attempt: the key, the nonce, the age header."""

    file_key: bytes
    nonce: bytes
    header: bytes

    def __repr__(self) -> str:
        """Without the key: this is part of an order, which may be logged."""
        return "Seal(…)"


class Order(Struct, frozen=True, omit_defaults=True):
    """The command of the owner; constant within an attempt.

    Of a signed command: `principal` is the one of its key, and `command_sha256` (hex) the digest of its payload.
    """

    upload_id: str
    message_id: str
    file_path: str
    attempt: int = 1
    owner: str = "control-plane"
    digest: DigestName = DigestName.MD5
    chunk_size: int = MIN_CHUNK_SIZE
    options: UploadOptions = UploadOptions()
    metadata: dict[str, Any] = {}
    pregranted: bool = False
    traceparent: str | None = None
    after: str = KEEP
    seal: Seal | None = None
    principal: str | None = None
    command_sha256: str | None = None


class Ending(Struct, frozen=True, omit_defaults=True):
    """How the agent's side ended; `code` and `text` are absent on success."""

    status: ResponseStatus
    code: ErrorCode | None = None
    text: str | None = None


class Began(Struct, frozen=True, omit_defaults=True, tag="began"):
    """An attempt was accepted. Replaces every record of the same upload.

    `urls` are those of a pre-granted command: its owner may never grant them again. Negotiated URLs are not kept.
    """

    order: Order
    sequence: int = 0
    urls: tuple[PresignedPart, ...] = ()


class Progressed(Struct, frozen=True, omit_defaults=True, tag="progressed"):
    """Everything small that changes: the last sequence published, the last one acknowledged, the source, the end."""

    upload_id: str
    sequence: int
    acknowledged: int = 0
    source: Fingerprint | None = None
    ending: Ending | None = None


class PartKept(Struct, frozen=True, omit_defaults=True, tag="part"):
    """A part is stored under `etag`; `reported_in` is the sequence of the first response with it, 0 for none yet.

    `etag` is None when the owner has acknowledged it and only the digest is still needed. With `content` the part is
    not stored: it is one of a sealed file, with the digest of the file's bytes in it. A field, as in `Tombstone`.
    """

    upload_id: str
    number: int
    etag: str | None = None
    digest: str | None = None
    reported_in: int = field(default=0, name="said")
    content: str | None = None


class Settled(Struct, frozen=True, tag="settled"):
    """Parts, as inclusive ranges, that need not be sent or reported again."""

    upload_id: str
    ranges: tuple[tuple[int, int], ...]


class AfterStep(StrEnum):
    """How far the act after an upload has come, as far as a crash must know it."""

    DUE = "due"
    """The owner has closed the upload as `completed`. The file has its name, or its hidden name."""
    ENDING = "ending"
    """The hidden file is the one that was uploaded, and is deleted or moved now: a crash may have come after that."""
    REPORTED = "reported"
    """It is over; the receipt is published until the owner acknowledges it."""


class Afterwards(Struct, frozen=True, omit_defaults=True):
    """What is to be done with the file of a closed upload, or was done with it.

    `source` is the file as it was sent, `found` as it was compared last; `content` is `closing.content_of` the parts.
    `sequence` is that of the receipt. `code` is an `ErrorCode`; `at` is wall-clock seconds.
    """

    asked: str
    file_path: str
    message_id: str
    attempt: int
    sequence: int
    owner: str = "control-plane"
    source: Fingerprint | None = None
    digest: DigestName = DigestName.MD5
    part_size: int = MIN_CHUNK_SIZE
    content: str = ""
    step: AfterStep = AfterStep.DUE
    found: Fingerprint | None = None
    outcome: str | None = None
    code: str | None = None
    text: str | None = None
    at: int = 0
    principal: str | None = None


class ReceiptDue(Struct, frozen=True, omit_defaults=True):
    """The receipt that the owner asked for in its close: what is signed, and published until a close needs it no more.

    `digest` is of `Statement.subject`, in hex under its name. `closed_at` is wall-clock seconds, 0 where not known.
    """

    message_id: str
    attempt: int
    owner: str
    key: str
    completed_at: Instant
    proof: str
    file_path: str
    file_size: int
    mtime_ns: int
    algorithm: DigestName
    part_size: int
    digest: dict[str, str]
    options: UploadOptions
    job: str | None = None
    closed_at: int = 0
    command_sha256: str | None = None
    principal: str | None = None


class Tombstone(Struct, frozen=True, omit_defaults=True, tag="tombstone"):
    """A closed upload; `at` is wall-clock seconds, used only to delete the tombstone after its age limit.

    A later tombstone of the same upload replaces it. `after` is None once nothing is left to be done with the file, and
    `receipt` once the owner needs none. They are fields, and not other kinds of record: an older agent, after a
    downgrade, reads the rest of the journal.
    """

    upload_id: str
    outcome: str
    at: int = 0
    after: Afterwards | None = None
    receipt: ReceiptDue | None = None


class Remembered(Struct, frozen=True, tag="remembered"):
    """The id of an accepted command, with the epoch that it was sent to."""

    message_id: str
    epoch: int


class Floor(Struct, frozen=True, tag="floor"):
    """Commands of epochs below this are stale: their ids are no longer kept."""

    epoch: int


class Spent(Struct, frozen=True, omit_defaults=True, tag="spent"):
    """Bytes that were sent on `day` and in its month, and over metered links of these; those in flight in full.

    `day` is an ordinal, 0 while the clock was never set; `back` the first day that a clock has shown which went back.
    """

    day: int
    bytes_day: int = 0
    bytes_month: int = 0
    metered_day: int = 0
    metered_month: int = 0
    back: int | None = None


TransferRecord = Began | Progressed | PartKept | Settled
Record = TransferRecord | Tombstone | Remembered | Floor | Spent
