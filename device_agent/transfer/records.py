"""What the journal keeps: one small record for each thing that must not be forgotten.

Rule: shapes only. A transfer is what is left after its records are replayed in order (`transfer_state.replay`).
"""

from typing import Any

from msgspec import Struct

from schemas.parts import MIN_CHUNK_SIZE
from schemas.values import DigestName, ErrorCode, Fingerprint, PresignedPart, ResponseStatus, UploadOptions


class Order(Struct, frozen=True, omit_defaults=True):
    """What the owner commanded; never changes within an attempt."""

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


class Ending(Struct, frozen=True, omit_defaults=True):
    """How the agent's side ended; `code` and `text` are absent on success."""

    status: ResponseStatus
    code: ErrorCode | None = None
    text: str | None = None


class Began(Struct, frozen=True, omit_defaults=True, tag="began"):
    """An attempt was accepted. Replaces every record of the same upload.

    `urls` are those of a pre-granted command: nobody may be there to grant them again. Negotiated URLs are never kept.
    """

    order: Order
    sequence: int = 0
    urls: tuple[PresignedPart, ...] = ()


class Progressed(Struct, frozen=True, omit_defaults=True, tag="progressed"):
    """All that is small and changes: the last sequence said, the last one acknowledged, the source, the end."""

    upload_id: str
    sequence: int
    acknowledged: int = 0
    source: Fingerprint | None = None
    ending: Ending | None = None


class PartKept(Struct, frozen=True, omit_defaults=True, tag="part"):
    """A part is stored under `etag`; `said` is the first response that told it, 0 for none yet.

    `etag` is None when the owner has acknowledged it and only the digest is still of use.
    """

    upload_id: str
    number: int
    etag: str | None = None
    digest: str | None = None
    said: int = 0


class Settled(Struct, frozen=True, tag="settled"):
    """Parts, as inclusive ranges, that need not be sent or told again."""

    upload_id: str
    ranges: tuple[tuple[int, int], ...]


class Tombstone(Struct, frozen=True, omit_defaults=True, tag="tombstone"):
    """An upload that is over; `at` is wall-clock seconds, used for nothing but forgetting it one day."""

    upload_id: str
    outcome: str
    at: int = 0


class Remembered(Struct, frozen=True, tag="remembered"):
    """A command that was accepted, with the epoch it was meant for."""

    message_id: str
    epoch: int


class Floor(Struct, frozen=True, tag="floor"):
    """Commands of epochs below this are stale: their ids are no longer remembered."""

    epoch: int


TransferRecord = Began | Progressed | PartKept | Settled
Record = TransferRecord | Tombstone | Remembered | Floor
