"""Every message as a frozen Struct: five kinds, the payload of each action, and the payloads of responses.

Rule: shapes only; `schemas.codec` turns them into bytes and back. A field that an agent may leave out has a default, so
messages of the Go demo that this project started from decode.
"""

from typing import Annotated, Any, Final, TypeVar

from msgspec import Meta, Struct, field

from schemas.names import TYPE_NAME_PATTERN, UNKNOWN_OWNER
from schemas.parts import MAX_PART_SIZE, MAX_PARTS, MIN_CHUNK_SIZE
from schemas.receipts.envelope import Envelope
from schemas.topics import CONTROL_PLANE
from schemas.values import (
    Action,
    Attempt,
    Count,
    DeviceBudget,
    DigestName,
    Figure,
    Fingerprint,
    Instant,
    Int64,
    MessageId,
    PartCount,
    PartNumber,
    Pick,
    PresignedPart,
    Size,
    SystemInfo,
    UploadId,
    UploadOptions,
    WantedPart,
)

PROTOCOL: Final = 1
"""The one version of the protocol that this code supports."""

# Every list and every map has a bound that follows from what an agent keeps: a message of many small entries costs its
# reader far more than its bytes show.
MAX_STATUS_UPLOADS: Final = 64
MAX_HELLO_PAGE: Final = 512
MAX_WANTED_PARTS: Final = 100
MAX_REPORTED_ETAGS: Final = 2_500
"""An agent keeps 2,000 etags that the owner has not acknowledged, and may have a window of parts in flight."""

MAX_FILES: Final = 500
MAX_PATHS: Final = 100
MAX_SELECTED: Final = 10_000
"""Files of one selection."""

MAX_WAIT: Final = 3_600
"""Seconds of one `wait`: an owner that holds an upload for longer renews it."""

MAX_REASON: Final = 200
MAX_ROOTS: Final = 64
MAX_TYPES: Final = 64
MAX_COUNTERS: Final = 256
MAX_PROTOCOLS: Final = 16

KEEP: Final = "keep"
DELETE: Final = "delete"
MOVE: Final = "move:"
AFTER_PATTERN: Final = r"^(keep|delete|move:/[^\n]*)\Z"
"""What is done with a file after its upload: nothing, or one of two acts that the device must allow."""

CHUNK_SIZE: Final = MIN_CHUNK_SIZE
After = Annotated[str, Meta(pattern=AFTER_PATTERN, max_length=4_101)]
Owner = Annotated[str, Meta(min_length=1, max_length=64)]
FilePath = Annotated[str, Meta(min_length=1, max_length=4096)]
ChunkSize = Annotated[int, Meta(ge=MIN_CHUNK_SIZE, le=MAX_PART_SIZE)]
SessionId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{22}\Z")]
"""Base64url of the 16 random bytes of one connection of an agent."""

KeyText = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{43}\Z")]
"""Base64url of 32 bytes: a public key, or a proof by a shared secret."""

InstallId = Annotated[str, Meta(min_length=1, max_length=128)]
Label = Annotated[str, Meta(max_length=256)]
Labels = Annotated[dict[Label, Label], Meta(max_length=64)]
Ranges = Annotated[tuple[tuple[Int64, Int64], ...], Meta(max_length=MAX_PARTS)]
PresignedParts = Annotated[tuple[PresignedPart, ...], Meta(max_length=MAX_PARTS)]
Lifetime = Annotated[float, Meta(gt=0, le=2**31 - 1)]
Percent = Annotated[float, Meta(ge=0, le=100)]
Rate = Annotated[int, Meta(ge=1, le=2**53 - 1)]
JobId = Annotated[str, Meta(min_length=1, max_length=64)]
TypeName = Annotated[str, Meta(pattern=TYPE_NAME_PATTERN)]
Patterns = Annotated[tuple[FilePath, ...], Meta(max_length=MAX_PATHS)]

# JSON has text keys; `extra_json_schema` names the texts that are part numbers.
_PART_NUMBERS: Final = {"propertyNames": {"pattern": "^([1-9][0-9]{0,3}|10000)$"}}
ETags = Annotated[dict[PartNumber, str], Meta(max_length=MAX_REPORTED_ETAGS, extra_json_schema=_PART_NUMBERS)]

Value = TypeVar("Value")


def _always(value: Value) -> Value:
    """A default that is sent all the same: `omit_defaults` leaves out plain defaults, never what a factory made."""
    return field(default_factory=lambda: value)


class UploadConfig(Struct, frozen=True, omit_defaults=True):
    """Which upload a command is about, and in the pre-granted form the URLs themselves."""

    upload_id: UploadId | None = None
    attempt: Attempt | None = None
    owner: Owner | None = None
    digest: DigestName | None = None
    chunk_size: ChunkSize | None = None
    bucket: str | None = None
    key: str | None = None
    presigned_urls: PresignedParts | None = None
    expires_in: Lifetime | None = None


class AboutUpload(Struct, frozen=True, omit_defaults=True):
    """What every command about an upload has: its identity, in `upload_config` or beside it, and an acknowledgement."""

    upload_config: UploadConfig | None = None
    upload_id: UploadId | None = None
    attempt: Attempt | None = None
    acknowledges: Count = 0

    @property
    def about(self) -> str | None:
        """The upload meant; a reader accepts both places."""
        return (self.upload_config and self.upload_config.upload_id) or self.upload_id

    @property
    def about_attempt(self) -> int:
        """The attempt meant; 1 if neither place names one."""
        return (self.upload_config and self.upload_config.attempt) or self.attempt or 1


class DownloadFile(AboutUpload, frozen=True, omit_defaults=True):
    """Upload this file. Without `upload_config` it was typed by hand; with URLs it is granted already.

    Its place among the uploads of the device is `options.priority`.
    """

    file_path: FilePath | None = None
    options: UploadOptions = UploadOptions()
    metadata: dict[str, Any] = {}
    after: After = KEEP

    @property
    def pregranted(self) -> bool:
        """Whether the command carries URLs."""
        return self.upload_config is not None and self.upload_config.presigned_urls is not None

    @property
    def owner(self) -> str:
        """The owner of the upload, named or not."""
        named = self.upload_config and self.upload_config.owner
        return named or (UNKNOWN_OWNER if self.pregranted else CONTROL_PLANE)


class Wait(Struct, frozen=True):
    """The owner grants nothing for some seconds from receipt, and the reason why."""

    reason: Annotated[str, Meta(min_length=1, max_length=MAX_REASON)]
    for_seconds: Annotated[float, Meta(gt=0, le=MAX_WAIT)]


class GrantParts(AboutUpload, frozen=True, omit_defaults=True):
    """URLs for some parts; `completed_parts` are inclusive ranges that need not be sent."""

    completed_parts: Ranges = ()
    presigned_urls: PresignedParts | None = None
    expires_in: Lifetime | None = None
    wait: Wait | None = None
    max_bytes_per_second: Rate | None = None

    @property
    def urls(self) -> tuple[PresignedPart, ...]:
        """The URLs, from either place."""
        inside = self.upload_config.presigned_urls if self.upload_config else None
        return inside or self.presigned_urls or ()

    @property
    def lifetime(self) -> float | None:
        """Seconds from receipt for which the URLs are good; None: until they are refused."""
        inside = self.upload_config.expires_in if self.upload_config else None
        return inside or self.expires_in


class CancelUpload(AboutUpload, frozen=True, omit_defaults=True):
    """Stop this upload."""


class ReceiptOrder(Struct, frozen=True, omit_defaults=True):
    """The owner asks for the receipt of an object that it has proven: what only the owner knows of it."""

    key: Annotated[str, Meta(min_length=1, max_length=1024)]
    completed_at: Instant
    job: Annotated[str, Meta(max_length=64)] | None = None


class CloseUpload(AboutUpload, frozen=True, omit_defaults=True):
    """The upload is over for its owner: keep a tombstone, drop the rest; with `receipt` sign for the object."""

    outcome: str = _always("unknown")
    proof: str | None = None
    receipt: ReceiptOrder | None = None


class ListFiles(Struct, frozen=True, omit_defaults=True):
    """Which files match `pattern`; `digest` requests the digest of each file, `folders` lists folders too."""

    pattern: Annotated[str, Meta(min_length=1, max_length=4096)]
    limit: Annotated[int, Meta(ge=1, le=MAX_FILES)] = _always(100)
    cursor: str | None = None
    digest: DigestName | None = None
    folders: bool = False


class SelectFiles(Struct, frozen=True, omit_defaults=True):
    """Walk once, keep the files that match in the order of `pick`, and answer with a page of them.

    Files match one of `paths`, or else of the patterns of the file type `type`, and none of `exclude`. Ages in seconds,
    sizes in bytes, all inclusive. `selection` and `offset` name the page of a selection that was made before.
    """

    job_id: JobId
    paths: Patterns = ()
    exclude: Patterns = ()
    type: TypeName | None = None
    newer_than: Figure | None = None
    older_than: Figure | None = None
    min_size: Size | None = None
    max_size: Size | None = None
    pick: Pick = Pick.NEWEST
    max_files: Annotated[int, Meta(ge=1, le=MAX_SELECTED)] = MAX_SELECTED
    selection: MessageId | None = None
    offset: Annotated[int, Meta(ge=0, le=MAX_SELECTED)] = 0
    limit: Annotated[int, Meta(ge=1, le=MAX_FILES)] = MAX_FILES


class HealthCheck(Struct, frozen=True):
    """Report version, counters and system information."""


CommandPayload = DownloadFile | GrantParts | CancelUpload | CloseUpload | ListFiles | SelectFiles | HealthCheck
COMMAND_PAYLOADS: Final[dict[str, type[CommandPayload]]] = {
    Action.DOWNLOAD_FILE: DownloadFile,
    Action.GRANT_PARTS: GrantParts,
    Action.CANCEL_UPLOAD: CancelUpload,
    Action.CLOSE_UPLOAD: CloseUpload,
    Action.LIST_FILES: ListFiles,
    Action.SELECT_FILES: SelectFiles,
    Action.HEALTH_CHECK: HealthCheck,
}


class Command(Struct, frozen=True, omit_defaults=True):
    """A command of the owner of an upload, or of an operator, to one agent.

    A signed one names the `session` of the agent that it is for.
    """

    message_id: MessageId
    action: str
    payload: CommandPayload
    issued_at: Instant | None = None
    epoch: Count | None = None
    install_id: str | None = None
    session: SessionId | None = None


class AfterReport(Struct, frozen=True, omit_defaults=True):
    """The receipt for `after`: what became of the file, and why it was kept; `at` by the device's clock."""

    outcome: str
    code: str | None = None
    text: str | None = None
    at: Instant | None = None


class UploadReport(Struct, frozen=True, omit_defaults=True):
    """A report of an agent about an upload: an offer, a request for parts, or its end."""

    upload_id: UploadId | None = None
    attempt: Attempt = _always(1)
    owner: Owner | None = None
    file_path: str | None = None
    file_size: Size | None = None
    fingerprint: Fingerprint | None = None
    chunk_size: Size | None = None
    digest: DigestName | None = None
    options: UploadOptions = UploadOptions()
    metadata: dict[str, Any] = {}
    etags: ETags = {}
    wanted_parts: Annotated[tuple[WantedPart, ...], Meta(max_length=MAX_WANTED_PARTS)] = ()
    after: AfterReport | None = None
    receipt: Envelope | None = None


class FileEntry(Struct, frozen=True, omit_defaults=True):
    """One file on the device, or one folder: that has no size."""

    path: str
    size: Size
    mtime_ns: Int64
    digest: str | None = None
    folder: bool = False


class FileList(Struct, frozen=True, omit_defaults=True):
    """A page of files; `cursor` is None on the last one."""

    files: Annotated[tuple[FileEntry, ...], Meta(max_length=MAX_FILES)] = _always(())
    cursor: str | None = None


class Selection(Struct, frozen=True, omit_defaults=True):
    """A page of a selection: `entries` from index `offset` on, `next` is the index of the page after it.

    `files` and `bytes` count all that matched, `left_out` those of them that the selection has no room for. While
    `complete` is false the device still walks, and no entry is known. A failure has the `job_id` alone.
    """

    job_id: Annotated[str, Meta(max_length=64)] = _always("")
    selection: MessageId | None = None
    complete: bool = _always(False)  # noqa: FBT003  (a default, not a switch)
    files: Count = _always(0)
    bytes: Size = _always(0)
    left_out: Count = _always(0)
    offset: Count = _always(0)
    entries: Annotated[tuple[FileEntry, ...], Meta(max_length=MAX_FILES)] = _always(())
    next: Count | None = None


class Health(Struct, frozen=True, omit_defaults=True):
    """The answer to `health_check`; `counters` counts faults since the agent started, by name."""

    version: str = _always("")
    active_uploads: Count = _always(0)
    system_info: SystemInfo = _always(SystemInfo())
    counters: Annotated[dict[str, Count], Meta(max_length=MAX_COUNTERS)] = {}


class ActiveUpload(Struct, frozen=True, omit_defaults=True):
    """One entry of a hello: an upload that the owner has not closed."""

    upload_id: UploadId
    attempt: Attempt
    sequence: Count = _always(0)
    status: str = _always("in_progress")
    owner: Owner | None = None


class Hello(Struct, frozen=True, omit_defaults=True):
    """The uploads of the agent; `more` is true if another page follows."""

    install_id: str
    active: Annotated[tuple[ActiveUpload, ...], Meta(max_length=MAX_HELLO_PAGE)] = _always(())
    more: bool = _always(False)  # noqa: FBT003  (a default, not a switch)


class Nothing(Struct, frozen=True):
    """The payload of an answer without content."""


ResponsePayload = UploadReport | FileList | Selection | Health | Hello | Nothing
RESPONSE_PAYLOADS: Final[dict[str, type[ResponsePayload]]] = {
    Action.DOWNLOAD_FILE: UploadReport,
    Action.GRANT_PARTS: UploadReport,
    Action.CANCEL_UPLOAD: UploadReport,
    Action.CLOSE_UPLOAD: UploadReport,
    Action.LIST_FILES: FileList,
    Action.SELECT_FILES: Selection,
    Action.HEALTH_CHECK: Health,
    Action.HELLO: Hello,
}


class Response(Struct, frozen=True, omit_defaults=True):
    """An answer of an agent. `error` and `message` are set beside `status` on a failure."""

    message_id: str
    action: str
    status: str
    payload: ResponsePayload
    epoch: Count | None = None
    sequence: Count | None = None
    error: str | None = None
    message: str | None = None


class CurrentUpload(Struct, frozen=True, omit_defaults=True):
    """Progress of one upload: `progress` is 0 to 100, `reason` is what a waiting upload waits for."""

    upload_id: UploadId
    attempt: Attempt = _always(1)
    file_path: str | None = None
    progress: Percent = _always(0.0)
    bytes_sent: Size = _always(0)
    file_size: Size = _always(0)
    completed_parts: PartCount = _always(0)
    total_parts: PartCount = _always(0)
    reason: str | None = None


class Status(Struct, frozen=True, omit_defaults=True):
    """Progress of the agent's uploads; at most one a second, and only while it has any."""

    status: str
    client_id: str | None = None
    epoch: Count | None = None
    current_upload: CurrentUpload | None = None
    uploads: Annotated[tuple[CurrentUpload, ...], Meta(max_length=MAX_STATUS_UPLOADS)] = ()
    system_info: SystemInfo | None = None


MAX_RULES: Final = 32
MAX_RULE: Final = 128


class AgentInfo(Struct, frozen=True, omit_defaults=True):
    """The agent program and where it runs; `protocol` lists the versions it supports.

    `policy` names the rules of the device's policy, without their values: those may show what is to be hidden.
    """

    version: str = ""
    protocol: Annotated[tuple[Int64, ...], Meta(max_length=MAX_PROTOCOLS)] = _always((PROTOCOL,))
    hostname: str = ""
    os: str = ""
    arch: str = ""
    policy: Annotated[tuple[Annotated[str, Meta(max_length=MAX_RULE)], ...], Meta(max_length=MAX_RULES)] = ()


class Presence(Struct, frozen=True, omit_defaults=True):
    """Whether a client is connected. Applied only if `(epoch, sequence)` exceeds the pair last applied.

    `key` is the public key of the device, and `claim` shows, until the key is known, that it was enrolled with it.
    `session` is what a signed command must name. `keys_version` is the version of the list of keys that the agent
    obeys, and `unverified` counts the messages since its start that were not signed by one of them.
    """

    client_id: str
    status: str
    install_id: InstallId
    epoch: Count
    sequence: Count
    since: Instant | None = None
    agent: AgentInfo = AgentInfo()
    labels: Labels = {}
    capabilities: Annotated[tuple[str, ...], Meta(max_length=64)] = ()
    default_file: FilePath | None = None
    timezone: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    roots: Annotated[tuple[FilePath, ...], Meta(max_length=MAX_ROOTS)] = ()
    types: Annotated[tuple[TypeName, ...], Meta(max_length=MAX_TYPES)] = ()
    budget: DeviceBudget | None = None
    key: KeyText | None = None
    claim: KeyText | None = None
    session: SessionId | None = None
    keys_version: Count | None = None
    unverified: Count = 0


class Birth(Struct, frozen=True, omit_defaults=True):
    """A control plane started: each agent publishes a hello, after 0 to 30 s of jitter."""

    instance: str
    issued_at: Instant | None = None
