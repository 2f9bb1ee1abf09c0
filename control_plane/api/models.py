"""The shapes of REST's answers (protocol.md section 6); the shapes of MQTT are in `schemas`.

Rule: an answer always has all its members. Instants are RFC 3339 in UTC with `Z`, sizes bytes, durations seconds.
"""

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from control_plane.api import examples
from control_plane.domain.clients import Client as KnownClient
from control_plane.domain.clients import ClientState
from control_plane.domain.gate.devices import caps_of, is_over, used_at
from control_plane.domain.reasons import Reason as KnownReason
from control_plane.domain.uploads.model import Origin, Proof, State
from control_plane.domain.uploads.model import Upload as KnownUpload
from control_plane.presentation import (
    STATUS,
    ReceiptState,
    Status,
    instant,
    known_instant,
    progress,
    reason_document,
    upload_document,
)
from control_plane.services.clients.listings import FoundListing
from control_plane.services.diagnosis.findings import Finding
from control_plane.services.ports.database import OpenUploads
from control_plane.services.ports.object_store import ObjectStoreCapabilities
from control_plane.services.readiness import Readiness as FoundReadiness
from control_plane.services.uploads.views import UploadView
from schemas.messages import FileEntry
from schemas.values import AfterOutcome, DigestName

Instant = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
"""Made by `presentation.instant`."""


class Output(BaseModel):
    """An answer."""

    model_config = ConfigDict(frozen=True)


class Reason(Output):
    """Why something waits or ended. `next_wake_at` is when the cause is looked at next, if that is known."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.REASON]})

    code: Annotated[str, Field(description="Stable; the set of codes is open. `/help/reasons/CODE` explains it.")]
    text: Annotated[str, Field(description="A sentence for people; its wording may change.")]
    next_wake_at: Instant | None

    @classmethod
    def of(cls, reason: KnownReason | None, next_wake_at: float | None = None) -> Self | None:
        """The reason, if there is one; `next_wake_at` in seconds since the epoch."""
        document = reason_document(reason, next_wake_at)
        return None if document is None else cls.model_validate(document)


class Triggered(Output):
    """The new upload; it is queued while the client is offline."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.TRIGGERED]})

    success: bool = True
    message: str
    upload_id: str
    s3_key: str
    status: Status


class CurrentUpload(Output):
    """The unfinished upload of a client."""

    upload_id: str
    file_path: str | None
    status: Status
    progress: Annotated[float, Field(ge=0, le=100)]

    @classmethod
    def of(cls, upload: KnownUpload) -> Self:
        """The upload in short."""
        return cls(
            upload_id=upload.upload_id,
            file_path=upload.file_path,
            status=STATUS[upload.state],
            progress=progress(upload),
        )


class ClientStatus(Output):
    """One client and its unfinished upload with the latest activity."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.CLIENT_STATUS]})

    client_id: str
    connected: bool
    connected_at: Instant | None
    last_heartbeat: Instant | None
    current_upload: CurrentUpload | None
    reason: Reason | None

    @classmethod
    def of(cls, client: KnownClient, current: UploadView | None, now: float, reason: KnownReason | None) -> Self:
        """The client at `now` (s), with its unfinished upload if it has one."""
        return cls(
            client_id=client.client_id,
            connected=client.connected(now),
            connected_at=instant(client.connected_at),
            last_heartbeat=None if client.never_seen else instant(client.seen_at),
            current_upload=None if current is None else CurrentUpload.of(current.upload),
            reason=Reason.of(reason),
        )


class ClientRow(Output):
    """One client in a list. Without a `reason` commands can be sent to it, and it is not noisy."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.CLIENT_ROW]})

    client_id: str
    connected: bool
    state: ClientState
    last_activity: Instant | None
    labels: Annotated[dict[str, str], Field(description="The device's labels, and the operator's, which win.")]
    reason: Reason | None


def _row(client: KnownClient, now: float, reason: KnownReason | None) -> dict[str, Any]:
    """The members of a `ClientRow`, for those that have more."""
    return {
        "client_id": client.client_id,
        "connected": client.connected(now),
        "state": client.state(now),
        "last_activity": None if client.never_seen else instant(client.seen_at),
        "labels": client.effective_labels,
        "reason": Reason.of(reason),
    }


Period = Literal["day", "month", "metered_day", "metered_month"]
"""The name of a cap, as in `schemas.values.DeviceBudget`."""


class DeviceCap(Output):
    """Bytes that a device may send in a day or a month of its time zone, over all links or over metered ones."""

    period: Period
    cap: int
    used: int
    resets_at: Instant | None
    applies: Annotated[bool, Field(description="Whether it holds on the present link.")]


class ClientBudget(Output):
    """What a device may still send by its own settings, as it reported it at `as_of`.

    After its `resets_at` a period is shown as unused. `holds` are the codes of what it holds back for now.
    """

    as_of: Instant
    metered: bool
    holds: list[str]
    caps: list[DeviceCap]

    @classmethod
    def of(cls, client: KnownClient, now: float) -> Self | None:
        """That of the client at `now` (s); None when its agent reports none."""
        budget, as_of = client.budget, client.budget_as_of
        if budget is None or as_of is None:
            return None
        applying = caps_of(budget)
        caps = [
            DeviceCap(
                period=period,
                cap=use.cap,
                used=used_at(use, now),
                resets_at=None if is_over(use, now) or use.resets_at is None else instant(use.resets_at.timestamp()),
                applies=period in applying,
            )
            for period in get_args(Period)
            if (use := getattr(budget, period)) is not None
        ]
        return cls(as_of=instant(as_of), metered=budget.metered, holds=list(budget.holds), caps=caps)


class Agent(Output):
    """The agent program and where it runs."""

    version: str
    protocol: list[int]
    hostname: str
    os: str
    arch: str
    policy: Annotated[list[str], Field(description="Rules of the device's policy, by name.")]


class Client(ClientRow):
    """One client in full."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.CLIENT]})

    connected_at: Instant | None
    install_id: str | None
    agent: Agent
    supported: bool
    capabilities: list[str]
    default_file: str | None
    timezone: Annotated[str | None, Field(description="IANA name of the device's time zone.")]
    roots: Annotated[list[str], Field(description="Folders below which the device allows files to be read.")]
    types: Annotated[list[str], Field(description="File types that the device's configuration names.")]
    device_labels: dict[str, str]
    set_labels: Annotated[dict[str, str], Field(description="Labels that an operator set.")]
    expected: Annotated[bool, Field(description="Whether an operator named the client as one of the fleet.")]
    note: str
    budget: ClientBudget | None
    keys_version: Annotated[
        int | None, Field(description="Version of the list of keys that it obeys; null: it obeys unsigned commands.")
    ]
    unverified: Annotated[int, Field(description="Messages since its start that no key of the list had signed.")]

    @classmethod
    def of(cls, client: KnownClient, now: float, reason: KnownReason | None) -> Self:
        """The client at `now` (s)."""
        return cls(
            **_row(client, now, reason),
            connected_at=instant(client.connected_at),
            install_id=client.install_id or None,
            agent=Agent.model_validate(client.agent, from_attributes=True),
            supported=client.supported,
            capabilities=list(client.capabilities),
            default_file=client.default_file,
            timezone=client.timezone,
            roots=list(client.roots),
            types=list(client.types),
            device_labels=dict(client.labels),
            set_labels=dict(client.set_labels),
            expected=client.expected,
            note=client.note,
            budget=ClientBudget.of(client, now),
            keys_version=client.keys_version,
            unverified=client.unverified,
        )


class ListedClient(ClientRow):
    """One client in a list, and what it does: its unfinished uploads, and the one that changed last."""

    open_uploads: int
    current_upload: CurrentUpload | None
    budget: ClientBudget | None

    @classmethod
    def listed(
        cls, client: KnownClient, now: float, reason: KnownReason | None, busy: OpenUploads | None, *, uploads: bool
    ) -> Self:
        """The client at `now` (s); with `uploads` which file it sends, else how many only."""
        return cls(
            **_row(client, now, reason),
            open_uploads=0 if busy is None else busy.count,
            current_upload=CurrentUpload.of(busy.latest) if uploads and busy is not None else None,
            budget=ClientBudget.of(client, now),
        )


class ClientPage(Output):
    """Clients by id; `count` counts all that match, `cursor` gets the next page.

    `set` is a hash of the ids of all that match; null without a filter. Where a token reaches more than 2,000 clients,
    but not all, `count` is up to a second old.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [examples.CLIENT_PAGE]})

    clients: list[ListedClient]
    count: int
    set: str | None
    cursor: str | None


class AfterAct(Output):
    """What the device is asked to do with the file once the object is proven, and what became of the file."""

    asked: Annotated[str, Field(description="`delete`, or `move:` and a folder of the device.")]
    outcome: AfterOutcome
    at: Instant | None
    code: Annotated[str | None, Field(description="Why it was kept. `/help/reasons/CODE` explains it.")]
    text: Annotated[str | None, Field(description="A sentence for people; where a moved file is.")]


class Upload(Output):
    """One upload. `status` is one of five values, `state` is exact; `reason` explains a wait or an end."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.UPLOAD]})

    upload_id: str
    client_id: str
    file_path: str | None
    s3_key: str
    status: Status
    state: State
    progress: Annotated[float, Field(ge=0, le=100)]
    completed_parts: int
    total_parts: int | None
    bytes_uploaded: int
    file_size: int | None
    attempt: int
    proof: Proof | None
    receipt: Annotated[
        ReceiptState | None,
        Field(description="Who signed its receipt: `device` (both), or `control-plane` (alone); null: none is made."),
    ]
    reason: Reason | None
    error: str | None
    message: str | None
    metadata: dict[str, Any]
    after: AfterAct | None
    encrypt_to: Annotated[list[str], Field(description="Who can open the object; empty: it is the file as it is.")]
    origin: Origin
    job_id: Annotated[str | None, Field(description="The job that requested it.")]
    deadline: Instant | None
    created_at: Instant
    updated_at: Instant
    completed_at: Instant | None

    @classmethod
    def of(cls, view: UploadView) -> Self:
        """The upload of `view`."""
        return cls(**upload_document(view))


class UploadPage(Output):
    """Uploads, newest first; `cursor` gets the next page."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.UPLOAD_PAGE]})

    uploads: list[Upload]
    cursor: str | None


class ObjectUrl(Output):
    """A URL that reads the object for `expires_in` seconds. It needs no credentials: keep it secret."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.OBJECT_URL]})

    upload_id: str
    url: str
    expires_in: float


class File(Output):
    """One file on a client, or one folder."""

    path: str
    size: int
    mtime_ns: int
    digest: str | None
    folder: bool

    @classmethod
    def of(cls, entry: FileEntry) -> Self:
        """The file as the client lists it."""
        return cls.model_validate(entry, from_attributes=True)


class FilePage(Output):
    """Files that match, as of `as_of`; `cursor` gets the next page.

    `live`: the client has just listed them. Else it does not answer, for `reason`, and this is its last such answer.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [examples.FILE_PAGE]})

    files: list[File]
    cursor: str | None
    live: bool
    as_of: Instant
    reason: Reason | None

    @classmethod
    def of(cls, found: FoundListing) -> Self:
        """The listing."""
        return cls(
            files=[File.of(entry) for entry in found.files.files],
            cursor=found.files.cursor,
            live=found.live,
            as_of=known_instant(found.as_of),
            reason=Reason.of(found.reason),
        )


class Health(Output):
    """The process answers."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.HEALTH]})

    status: Literal["ok"] = "ok"
    timestamp: Instant


class Probe(Output):
    """What the last probe of the object store showed (protocol.md section 8)."""

    part_digests: list[DigestName]
    object_digests: list[DigestName]
    etag_is_md5: bool
    if_none_match: bool
    encrypts: bool
    clock_skew: float | None
    notes: list[str]

    @classmethod
    def of(cls, seen: ObjectStoreCapabilities) -> Self:
        """The result of a probe."""
        return cls(
            part_digests=sorted(seen.part_digests),
            object_digests=sorted(seen.object_digests),
            etag_is_md5=seen.etag_is_md5,
            if_none_match=seen.if_none_match,
            encrypts=seen.encrypts,
            clock_skew=seen.clock_skew,
            notes=list(seen.notes),
        )


class Readiness(Output):
    """Whether work can be done. `checks` has `ok`, or what is wrong, for `broker`, `database` and `object_store`.

    `clock` reports a step of the machine's clock, and `keys`, if it is there, that the broker refuses the list of keys;
    neither prevents work. `store` is the old name of `object_store`,
    with the same text.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [examples.READINESS]})

    status: Literal["ready", "not ready"]
    checks: dict[str, str]
    probe: Probe | None

    @classmethod
    def of(cls, found: FoundReadiness) -> Self:
        """The result of the checks."""
        return cls(
            status="ready" if found.ready else "not ready",
            checks={**found.checks, "store": found.checks["object_store"]},
            probe=None if found.probe is None else Probe.of(found.probe),
        )


class FoundFact(Output):
    """The result of one check, as of `backhaul doctor`; `remedy` is what to do about it."""

    name: str
    fine: bool
    text: str
    remedy: str | None

    @classmethod
    def of(cls, found: Finding) -> Self:
        """The finding."""
        return cls(name=found.name, fine=found.fine, text=found.text, remedy=found.remedy)


class ReplicaRow(Output):
    """A control plane that shares the database; `this` is the one that answers."""

    replica_id: str
    host: str
    version: str
    started_at: Instant
    seen_at: Instant
    this: bool


class HealthDetails(Output):
    """Everything that the page shows of health: checks, what the object store enforces, findings, replicas.

    `findings` stand in the order in which to repair them. `replicas` is empty while the database cannot be read.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [examples.HEALTH_DETAILS]})

    as_of: Instant
    ready: bool
    checks: dict[str, str]
    probe: Probe | None
    findings: list[FoundFact]
    replicas: list[ReplicaRow]


class ProblemDocument(Output):
    """What went wrong (RFC 9457); `type` distinguishes problems, `detail` is for a person."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": [examples.PROBLEM]})

    type: str
    title: str
    status: int
    detail: str | None = None
