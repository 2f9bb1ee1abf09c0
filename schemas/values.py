"""The values that messages carry, and what follows from each error code.

Rule: frozen, and equal when their fields are equal. An unknown value of an extensible list reads as `unknown`; the
message keeps its text.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final, Literal, Self

from msgspec import Meta, Struct

from schemas.names import UPLOAD_ID_PATTERN
from schemas.parts import MAX_PARTS

UploadId = Annotated[str, Meta(pattern=UPLOAD_ID_PATTERN)]
MessageId = Annotated[str, Meta(pattern=UPLOAD_ID_PATTERN)]
Attempt = Annotated[int, Meta(ge=1, le=1_000_000)]
PartNumber = Annotated[int, Meta(ge=1, le=MAX_PARTS)]
Size = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Count = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
"""Every number on the wire has a type of at most 64 bits: a larger one overflows what the other side computes with."""

_FILE_IDS: Final = range(2**64)
FileId = Annotated[int, Meta(extra_json_schema={"minimum": _FILE_IDS[0], "maximum": _FILE_IDS[-1]})]
"""A device or inode number: some file systems use all 64 bits. msgspec has no bound above 2^63 - 1."""

Figure = Annotated[float, Meta(ge=0, le=2**53 - 1)]
PartCount = Annotated[int, Meta(ge=0, le=MAX_PARTS)]
Instant = Annotated[datetime, Meta(tz=True)]

RECIPIENT_PATTERN: Final = r"^age1[02-9ac-hj-np-z]{58}\Z"
"""A native recipient of age: an X25519 public key in Bech32. `sealing.recipients` checks what the pattern cannot."""

MAX_RECIPIENTS: Final = 16
Recipient = Annotated[str, Meta(pattern=RECIPIENT_PATTERN)]

MAX_HEADERS: Final = 16
"""Signed headers of one URL."""

MAX_HOLDS: Final = 16
"""Reasons for which a device sends nothing, in one presence."""

LAST_SEQUENCE: Final = 2**53 - 1
"""The presence sequence of a will and of a graceful `offline`: later than every beat of its epoch."""

WILL_DELAY: Final = 10
"""Seconds after a lost connection until the broker publishes the will of an agent."""

STATUS_EVERY: Final = 30
"""Seconds after which an agent repeats a status that has not changed."""

PRESENCE_EXPIRY: Final = 120
"""Message Expiry of an `online`, in seconds. What a broker has left of it shows how old a stored one is."""


class _Extensible(StrEnum):
    """A list of values that later versions may extend."""

    @classmethod
    def read(cls, text: str) -> Self:
        """The member with this value, else `unknown`."""
        try:
            return cls(text)
        except ValueError:
            return cls("unknown")


class Action(StrEnum):
    """What a command requests, or what a response answers; `hello` is published by agents only."""

    DOWNLOAD_FILE = "download_file"
    GRANT_PARTS = "grant_parts"
    CANCEL_UPLOAD = "cancel_upload"
    CLOSE_UPLOAD = "close_upload"
    LIST_FILES = "list_files"
    SELECT_FILES = "select_files"
    HEALTH_CHECK = "health_check"
    HELLO = "hello"


class Feature(StrEnum):
    """What an agent supports beside its actions; `capabilities` of its presence lists both."""

    FOLDERS = "folders"
    WAIT = "wait"
    RATE = "rate"
    AFTER = "after"
    SEALED = "sealed"


class AfterOutcome(_Extensible):
    """What became of a file that was to be deleted or moved after its upload; an owner without a receipt: `pending`."""

    PENDING = "pending"
    DELETED = "deleted"
    MOVED = "moved"
    KEPT = "kept"
    UNKNOWN = "unknown"


class Pick(StrEnum):
    """The order of a selection, and so which files stay in it when there are too many."""

    NEWEST = "newest"
    OLDEST = "oldest"
    LARGEST = "largest"
    SMALLEST = "smallest"
    PATH = "path"


class DeviceHold(_Extensible):
    """Why a device sends nothing, though the owner has granted: its budget, a condition or its policy."""

    BUDGET = "device_budget"
    METERED = "device_metered"
    DISK = "device_disk"
    BATTERY = "device_battery"
    LOAD = "device_load"
    HOURS = "device_hours"
    CONSENT = "device_consent"
    UNKNOWN = "unknown"


class ResponseStatus(_Extensible):
    """Whether a response requests parts or reports an end, and which."""

    IN_PROGRESS = "in_progress"
    SUCCESS = "success"
    ERROR = "error"
    CANCELLED = "cancelled"
    REJECTED = "rejected"
    UNKNOWN = "unknown"


class Outcome(_Extensible):
    """How an upload ended, in `close_upload` and in tombstones (protocol.md section 5)."""

    COMPLETED = "completed"
    FAILED = "failed"
    REJECTED = "rejected"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    UNKNOWN = "unknown"


class DigestName(StrEnum):
    """What binds a part's URL to its bytes."""

    MD5 = "md5"
    SHA256 = "sha256"
    CRC32 = "crc32"
    NONE = "none"


class Follow(StrEnum):
    """What the owner does about an error."""

    FINAL = "final"
    SAME_ATTEMPT = "same attempt again, with backoff"
    NEW_ATTEMPT = "a new attempt, at most 3"


class ErrorCode(_Extensible):
    """Why an upload or a command failed (protocol.md section 4)."""

    PATH_NOT_ALLOWED = "path_not_allowed"
    HOST_NOT_ALLOWED = "host_not_allowed"
    FILE_TOO_LARGE = "file_too_large"
    NOT_A_FILE = "not_a_file"
    BAD_SIGNATURE = "bad_signature"
    UNSUPPORTED = "unsupported"
    AFTER_NOT_ALLOWED = "after_not_allowed"
    AFTER_NOT_POSSIBLE = "after_not_possible"
    URL_EXPIRED = "url_expired"
    STORAGE_UNAVAILABLE = "storage_unavailable"
    BUSY = "busy"
    NO_SPACE = "no_space"
    STALE_EPOCH = "stale_epoch"
    INTERNAL = "internal"
    SOURCE_CHANGED = "source_changed"
    UPLOAD_GONE = "upload_gone"
    DIGEST_MISMATCH = "digest_mismatch"
    FILE_NOT_FOUND = "file_not_found"
    PERMISSION_DENIED = "permission_denied"
    SOURCE_GONE = "source_gone"
    SOURCE_UNREADABLE = "source_unreadable"
    STORAGE_REFUSED = "storage_refused"
    BAD_REQUEST = "bad_request"
    OWNER_SILENT = "owner_silent"
    NO_PROGRESS = "no_progress"
    UNKNOWN = "unknown"


def nearest_int64(number: int) -> int:
    """The nearest number of 64 bits: a file may have a time that does not fit, such as the year 3000 in ns.

    >>> nearest_int64(5), nearest_int64(2**70), nearest_int64(-(2**70)) == -(2**63)
    (5, 9223372036854775807, True)
    """
    return max(-(2**63), min(number, 2**63 - 1))


class ErrorRule(Struct, frozen=True):
    """How a code travels and what the owner does about it."""

    travels_as: ResponseStatus
    follow: Follow
    meaning: str


def _final(meaning: str) -> ErrorRule:
    return ErrorRule(ResponseStatus.ERROR, Follow.FINAL, meaning)


def _rejected(meaning: str) -> ErrorRule:
    return ErrorRule(ResponseStatus.REJECTED, Follow.FINAL, meaning)


def _again(meaning: str) -> ErrorRule:
    return ErrorRule(ResponseStatus.ERROR, Follow.SAME_ATTEMPT, meaning)


def _anew(meaning: str) -> ErrorRule:
    return ErrorRule(ResponseStatus.ERROR, Follow.NEW_ATTEMPT, meaning)


ERRORS: Final[dict[ErrorCode, ErrorRule]] = {
    ErrorCode.PATH_NOT_ALLOWED: _rejected("ALLOWED_ROOTS or the policy of the device does not allow the path"),
    ErrorCode.HOST_NOT_ALLOWED: _rejected("UPLOAD_HOSTS of the device does not allow the URL"),
    ErrorCode.FILE_TOO_LARGE: _rejected("the file is larger than S3 or the device allows"),
    ErrorCode.NOT_A_FILE: _rejected("the path is a folder, a pipe, a socket or a device"),
    ErrorCode.BAD_SIGNATURE: _rejected("the device takes new work only with the signature of an operator's key"),
    ErrorCode.UNSUPPORTED: _rejected("the agent does not know this action, digest or option"),
    ErrorCode.AFTER_NOT_ALLOWED: _rejected("ALLOW_AFTER of the device does not allow to delete or move this file"),
    ErrorCode.AFTER_NOT_POSSIBLE: _final("the file was uploaded, and could not be deleted or moved"),
    ErrorCode.URL_EXPIRED: _again("a granted URL expired and no new one was granted"),
    ErrorCode.STORAGE_UNAVAILABLE: _again("the object store did not answer, or requested a pause"),
    ErrorCode.BUSY: _again("the agent has as many uploads as it takes"),
    ErrorCode.NO_SPACE: _again("the device's disk is full, or cannot be written"),
    ErrorCode.STALE_EPOCH: _again("the command was meant for another installation or epoch of the agent"),
    ErrorCode.INTERNAL: _again("the agent has an internal fault"),
    ErrorCode.SOURCE_CHANGED: _anew("the file changed while it was read"),
    ErrorCode.UPLOAD_GONE: _anew("the multipart upload no longer exists"),
    ErrorCode.DIGEST_MISMATCH: _anew("the object store received other bytes than were digested"),
    ErrorCode.FILE_NOT_FOUND: _final("there is no such file on the device"),
    ErrorCode.PERMISSION_DENIED: _final("the agent may not read the file"),
    ErrorCode.SOURCE_GONE: _final("the file was deleted before it was sent"),
    ErrorCode.SOURCE_UNREADABLE: _final("the device's system could not read the file for an hour"),
    ErrorCode.STORAGE_REFUSED: _again("the object store refused the granted URL twice; final the tenth time in a row"),
    ErrorCode.BAD_REQUEST: _final("the command contradicts the protocol"),
    ErrorCode.OWNER_SILENT: _final("the owner of the upload did not answer in time"),
    ErrorCode.NO_PROGRESS: _final("the client was connected and sent nothing"),
    ErrorCode.UNKNOWN: _final("the device reported a code that this version does not know"),
}


class PresignedPart(Struct, frozen=True, omit_defaults=True):
    """One URL that takes one part; `headers` were signed in and must be sent as they are."""

    part_number: PartNumber
    url: str
    headers: Annotated[dict[str, str], Meta(max_length=MAX_HEADERS)] = {}


class WantedPart(Struct, frozen=True, omit_defaults=True):
    """One part for which the agent requests a URL; `digest` is base64 of the raw digest."""

    part_number: PartNumber
    size: Size
    digest: str | None = None


class Fingerprint(Struct, frozen=True):
    """What the file system reports of the source file; detects a change while it is read."""

    size: Size
    mtime_ns: Int64
    ctime_ns: Int64
    device: FileId
    inode: FileId

    def __post_init__(self) -> None:
        if self.device not in _FILE_IDS or self.inode not in _FILE_IDS:
            message = "a device or inode number has more than 64 bits"
            raise ValueError(message)


class UploadOptions(Struct, frozen=True, omit_defaults=True):
    """How to do one upload; every field has a default."""

    priority: Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)] = 0
    max_bytes_per_second: Annotated[int, Meta(ge=1, le=2**53 - 1)] | None = None
    on_change: Literal["fail", "prefix"] = "fail"
    compression: Literal["none", "gzip"] = "none"
    give_up_after: Annotated[int, Meta(ge=1, le=31_536_000)] = 86_400
    encrypt_to: Annotated[tuple[Recipient, ...], Meta(max_length=MAX_RECIPIENTS)] = ()


class SystemInfo(Struct, frozen=True, omit_defaults=True):
    """What the device reports of itself; sizes in bytes, `uptime` in seconds, `load` over one minute."""

    hostname: str = ""
    os: str = ""
    arch: str = ""
    uptime: Figure | None = None
    load: Figure | None = None
    memory_total: Count | None = None
    memory_available: Count | None = None
    disk_total: Count | None = None
    disk_free: Count | None = None


class BudgetUse(Struct, frozen=True, omit_defaults=True):
    """One cap of a device: `used` of `cap` bytes until `resets_at`, the end of the day or month in its time zone."""

    cap: Size
    used: Size
    resets_at: Instant | None = None


class DeviceBudget(Struct, frozen=True, omit_defaults=True):
    """What a device may still send by its own settings; a cap that it does not have is absent.

    `day` and `month` count the bytes of all links, `metered_day` and `metered_month` those of metered links.
    `holds` are the reasons why it begins no part now (`DeviceHold`).
    """

    day: BudgetUse | None = None
    month: BudgetUse | None = None
    metered_day: BudgetUse | None = None
    metered_month: BudgetUse | None = None
    metered: bool = False
    holds: Annotated[tuple[Annotated[str, Meta(max_length=64)], ...], Meta(max_length=MAX_HOLDS)] = ()

    @property
    def caps(self) -> dict[str, BudgetUse]:
        """The caps that the device has, by the names of their fields."""
        names = ("day", "month", "metered_day", "metered_month")
        return {name: use for name in names if (use := getattr(self, name)) is not None}
