"""What an operator may do, over REST or from a command line: one method each.

Rule: input is checked here once, whoever calls; the answer is what was committed.
"""

import functools
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from control_plane.domain.clients import Client
from control_plane.domain.reasons import Reason
from control_plane.domain.uploads.duties import Kind
from control_plane.domain.uploads.events import CancelRequested
from control_plane.domain.uploads.model import EXPIRABLE, OPEN, TERMINAL, Origin, State, Upload, UploadKey
from control_plane.services.clients.queries import ClientQueries
from control_plane.services.errors import (
    AmbiguousUpload,
    BadInput,
    KeyTaken,
    NotOurs,
    UnknownClient,
    UnknownUpload,
)
from control_plane.services.object_store_probe import ObjectStoreProbe
from control_plane.services.policy import DAY, MAX_DEADLINE, Policy, object_key
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.database import (
    PARKED,
    Database,
    IdempotencyRecord,
    OutboxEntry,
    Page,
    Records,
    Subject,
    UploadFilter,
)
from control_plane.services.ports.messenger import Messenger
from control_plane.services.ports.object_store import ObjectStore, ObjectStoreCapabilities
from control_plane.services.uploads.outbox import Outbox
from control_plane.services.uploads.writer import Uploads
from schemas.codec import require_metadata
from schemas.errors import SchemaError
from schemas.messages import FileList, ListFiles
from schemas.topics import Channel, require_client_id
from schemas.values import UploadOptions

IDEMPOTENT_FOR: Final = DAY
READ_URL_LIFE: Final = 3600.0
ANSWERS: Final = frozenset({Kind.CREATE_MULTIPART, Kind.SEND_GRANT})
"""What is done for a client that asks for URLs."""


@dataclass(frozen=True, slots=True)
class TriggerRequest:
    """One upload to begin. `deadline` is an instant; `body_digest` tells two requests under one key apart."""

    client_id: str
    caller: str
    file_path: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    options: UploadOptions = field(default_factory=UploadOptions)
    deadline: float | None = None
    idempotency_key: str | None = None
    body_digest: str = ""


@dataclass(frozen=True, slots=True)
class UploadView:
    """An upload, and when it waits: for what, and when somebody looks at it again."""

    upload: Upload
    reason: str | None
    next_wake_at: float | None


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether work can be done: `checks` says `ok` or what is wrong, per neighbour."""

    ready: bool
    checks: Mapping[str, str]
    probe: ObjectStoreCapabilities | None


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Everything that operations stand on."""

    store: Database
    objects: ObjectStore
    messenger: Messenger
    clock: Clock


class Operations:
    """The operator's side of the control plane."""

    def __init__(  # noqa: PLR0913 - every service that an operator's call can reach
        self,
        neighbours: Neighbours,
        *,
        uploads: Uploads,
        outbox: Outbox,
        inquiries: ClientQueries,
        policy: Policy,
        probing: ObjectStoreProbe,
    ) -> None:
        self._near = neighbours
        self._uploads = uploads
        self._outbox = outbox
        self._inquiries = inquiries
        self._policy = policy
        self._probing = probing

    def now(self) -> float:
        """The control plane's clock."""
        return self._near.clock.now()

    async def trigger(self, request: TriggerRequest) -> UploadView:
        """Queue an upload; it is told to the client at once when that is connected. Its next wake-up is the deadline.

        `UnknownClient`, `BadInput` (no path, a deadline that has passed, too much metadata), `KeyReused`.
        """
        _require_client_id(request.client_id)
        key, now = UploadKey(request.client_id, secrets.token_hex(16)), self.now()
        remember = _remembered(request, key, now)
        client: Client | None = None

        def plan(records: Records, mark: str = "") -> Upload:
            nonlocal client
            client = records.clients.get(request.client_id)
            if client is None:
                raise UnknownClient(request.client_id)
            return self._planned(request, key, client, now, mark)

        try:
            created = await self._uploads.create(key, plan, remember)
        except KeyTaken:
            # Another trigger for the same file name in the same second has the plain key.
            marked = functools.partial(plan, mark=key.upload_id[:8])
            created = await self._uploads.create(key, marked, remember)
        if created.key != key:
            return await self._view(created)
        # Not looked up again: the client is in hand, and its duties are on their way.
        return self._explained(created, client, [])

    def _planned(self, request: TriggerRequest, key: UploadKey, client: Client, now: float, mark: str) -> Upload:
        path = request.file_path or client.default_file
        deadline = now + self._policy.deadline if request.deadline is None else request.deadline
        _require(bool(path), f"client {client.client_id!r} has no default file: name a file_path")
        _require(deadline > now, "the deadline has passed already")
        _require(deadline <= now + MAX_DEADLINE, f"the deadline is more than {MAX_DEADLINE / DAY:.0f} days away")
        try:
            require_metadata(request.metadata)
        except SchemaError as error:
            raise BadInput(str(error)) from error
        return Upload(
            client_id=key.client_id,
            upload_id=key.upload_id,
            owner=self._policy.owner,
            origin=Origin.REST,
            s3_key=object_key(self._policy.base_path, key.client_id, path, now, mark),
            token=secrets.token_hex(16),
            created_at=now,
            updated_at=now,
            deadline=deadline,
            file_path=path,
            digest=self._probing.digest_for(self._policy.digest),
            chunk_size=self._policy.chunk_size,
            options=request.options,
            metadata=request.metadata,
            touched_at=now,
        )

    async def upload(self, upload_id: str, client_id: str | None = None) -> UploadView:
        """One upload; `UnknownUpload`, or `AmbiguousUpload` when several clients have this id."""
        return await self._view(await self._find(upload_id, client_id))

    async def uploads(self, where: UploadFilter, page: Page) -> tuple[list[UploadView], str | None]:
        """Uploads, newest first, and the cursor of the next page."""
        found, cursor = await self._near.store.read(lambda records: records.uploads.list(where, page))
        return await self._views(found), cursor

    async def cancel(self, upload_id: str, client_id: str | None = None) -> UploadView:
        """End an upload; `IllegalTransition` once it is completing or over, `NotOurs` for another owner's."""
        upload = await self._find(upload_id, client_id)
        self._require_ours(upload, "cancel it there")
        return await self._view(await self._uploads.submit(upload.key, CancelRequested(now=self.now())))

    async def retry(self, upload_id: str, client_id: str | None = None) -> UploadView:
        """Trigger the same again as a new upload; `BadInput` while the old one is still under way."""
        old = await self._find(upload_id, client_id)
        _require(old.state in TERMINAL, f"upload {upload_id!r} is {old.state}: it is not over, so there is no retry")
        request = TriggerRequest(
            client_id=old.client_id,
            caller="",
            file_path=old.file_path,
            metadata=old.metadata,
            options=old.options,
        )
        return await self._view((await self.trigger(request)).upload)

    async def client(self, client_id: str) -> Client:
        """One client; `UnknownClient`, or `BadInput` for what cannot be a client's id."""
        _require_client_id(client_id)
        client = await self._near.store.read(lambda records: records.clients.get(client_id))
        if client is None:
            raise UnknownClient(client_id)
        return client

    async def client_status(self, client_id: str) -> tuple[Client, UploadView | None]:
        """A client and its unfinished upload with the latest activity."""
        client = await self.client(client_id)
        uploads = await self._near.store.read(lambda records: records.uploads.open_of(client_id))
        unfinished = [upload for upload in uploads if upload.state in OPEN]
        if not unfinished:
            return client, None
        return client, await self._view(max(unfinished, key=lambda upload: upload.updated_at))

    async def clients(self, labels: Mapping[str, str], page: Page) -> tuple[list[Client], str | None, int]:
        """Clients by id, the cursor of the next page, and how many there are in all."""
        return await self._near.store.read(lambda records: records.clients.list(labels, page))

    async def forget_client(self, client_id: str) -> None:
        """Forget a client and clear its retained presence; its history stays."""
        await self.client(client_id)
        await self._near.messenger.publish(Channel.PRESENCE, client_id, b"")
        await self._near.store.write(lambda records: records.clients.delete(client_id))

    async def files(self, client_id: str, request: ListFiles) -> FileList:
        """What the client has; `ClientSilent`, `ClientRefused`."""
        await self.client(client_id)
        return await self._inquiries.files(client_id, request)

    async def object_url(self, upload_id: str, client_id: str | None = None) -> tuple[str, float]:
        """A URL to read the object with, and for how many seconds; `BadInput` before it is completed.

        `NotOurs` for another owner's upload: its key is whatever an overheard command said, in whatever bucket, and
        to sign it would let anyone who may publish a command read every object that our credentials reach.
        """
        upload = await self._find(upload_id, client_id)
        self._require_ours(upload, "read its object with that owner's credentials")
        _require(upload.state is State.COMPLETED, f"upload {upload_id!r} is {upload.state}: it has no object yet")
        lifetime = self._near.objects.url_lifetime(READ_URL_LIFE)
        return self._near.objects.presign_get(upload.s3_key, lifetime), lifetime

    async def readiness(self) -> Readiness:
        """Look at every neighbour."""
        checks = {"broker": "ok" if self._near.messenger.connected else "not connected"}
        nowhere = f"{self._policy.base_path}/.backhaul-ready"
        for name, check in (("database", self._near.store.check()), ("store", self._near.objects.head(nowhere))):
            try:
                await check
                checks[name] = "ok"
            except Exception as error:  # noqa: BLE001 - whatever is wrong, this call is there to say it
                checks[name] = str(error) or type(error).__name__
        if checks["store"] == "ok" and self._probing.complaint:
            checks["store"] = self._probing.complaint
        return Readiness(all(state == "ok" for state in checks.values()), checks, self._probing.seen)

    def _require_ours(self, upload: Upload, remedy: str) -> None:
        if upload.owner != self._policy.owner:
            text = f"upload {upload.upload_id!r} belongs to {upload.owner}: {remedy}"
            raise NotOurs(text)

    async def _find(self, upload_id: str, client_id: str | None) -> Upload:
        found = await self._near.store.read(lambda records: records.uploads.by_id(upload_id))
        found = [upload for upload in found if client_id in {None, upload.client_id}]
        if not found:
            raise UnknownUpload(upload_id)
        if len(found) > 1:
            raise AmbiguousUpload(upload_id, sorted(upload.client_id for upload in found))
        return found[0]

    async def _view(self, upload: Upload) -> UploadView:
        return (await self._views([upload]))[0]

    async def _views(self, uploads: list[Upload]) -> list[UploadView]:
        waiting = [upload for upload in uploads if upload.state in OPEN and upload.owner == self._policy.owner]
        if not waiting:
            return [UploadView(upload, _text(upload.reason), None) for upload in uploads]

        def work(records: Records) -> tuple[dict[str, Client], dict[UploadKey, list[OutboxEntry]]]:
            clients = records.clients.among({upload.client_id for upload in waiting})
            return clients, {upload.key: records.outbox.of(Subject.of_upload(upload.key)) for upload in waiting}

        clients, tasks = await self._near.store.read(work)
        return [self._explained(upload, clients.get(upload.client_id), tasks.get(upload.key)) for upload in uploads]

    def _explained(self, upload: Upload, client: Client | None, tasks: list[OutboxEntry] | None) -> UploadView:
        """Why an upload waits, the nearest cause first, and when it is looked at next."""
        if tasks is None:
            return UploadView(upload, _text(upload.reason), None)
        complaint = self._outbox.complaint(upload.key)
        away = _away(upload, client, self.now())
        told = complaint.text if complaint else None
        # A client that asked waits for us, and says so: what keeps us from answering is nearer to the cause.
        ours = told if complaint and complaint.kind in ANSWERS and upload.wanted else None
        reason = away or ours or _text(upload.reason) or told or _doing(upload)
        due = [task.due_at for task in tasks if task.due_at < PARKED]
        ends = [upload.deadline] if upload.state in EXPIRABLE else []
        return UploadView(upload, reason, min([*due, *ends], default=None))


def _away(upload: Upload, client: Client | None, now: float) -> str | None:
    """Why the client is told nothing now, if there is something to tell it: what is completing waits for the store."""
    if upload.state is State.COMPLETING:
        return None
    return "the client is not known" if client is None else _text(client.waiting_for(now))


def _text(reason: Reason | None) -> str | None:
    return None if reason is None else reason.text


def _doing(upload: Upload) -> str:
    match upload.state:
        case State.QUEUED:
            return "about to be told to the client"
        case State.DISPATCHED:
            return "the client was told, and has not answered yet"
        case State.COMPLETING:
            return "the object is being completed and proven"
        case _:
            return "the client is uploading"


def _require_client_id(client_id: str) -> None:
    try:
        require_client_id(client_id)
    except SchemaError as error:
        raise BadInput(str(error)) from error


def _remembered(request: TriggerRequest, key: UploadKey, now: float) -> IdempotencyRecord | None:
    if request.idempotency_key is None:
        return None
    return IdempotencyRecord(
        caller=request.caller,
        client_id=request.client_id,
        idempotency_key=request.idempotency_key,
        body=request.body_digest,
        upload_id=key.upload_id,
        created_at=now,
    )


def _require(fine: bool, text: str) -> None:  # noqa: FBT001 - a condition and what to say when it does not hold
    if not fine:
        raise BadInput(text)
