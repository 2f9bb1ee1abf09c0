"""The use cases of uploads: trigger, look, cancel, retry, read the object.

Rule: every method takes the calling `Principal` first; input is checked here once, for every entry point; the answer is
what was committed.
"""

import asyncio
import dataclasses
import functools
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from msgspec.structs import replace

from control_plane.domain.access import Principal
from control_plane.domain.audit.model import Act
from control_plane.domain.changes import NumberedChange, UploadCreated
from control_plane.domain.clients import Client
from control_plane.domain.errors import Forbidden, IllegalTransition
from control_plane.domain.reasons import Reason, ReasonCode
from control_plane.domain.uploads.events import CancelRequested
from control_plane.domain.uploads.model import MAX_DEADLINE, OPEN, TERMINAL, Origin, State, Upload, UploadKey
from control_plane.services.audit.recording import Detail, record
from control_plane.services.clients.choosing import ClientChoice, ClientChooser
from control_plane.services.clients.reach import reach_of, reachable, require_reach
from control_plane.services.clients.service import check_client_id
from control_plane.services.errors import (
    AmbiguousUpload,
    BadInput,
    KeyTaken,
    NotOurs,
    OperatorNeeded,
    UnknownUpload,
    VersionConflict,
)
from control_plane.services.object_store_probe import ObjectStoreProbe
from control_plane.services.policy import DAY, Policy, object_key
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.database import Database, IdempotencyRecord, Page, Records, UploadFilter
from control_plane.services.ports.object_store import ObjectStore
from control_plane.services.ports.tracing import Tracer
from control_plane.services.tracing import NO_TRACES
from control_plane.services.uploads.views import UploadView, UploadViews
from control_plane.services.uploads.writer import Recorder, UploadWriter
from schemas.codec import require_metadata
from schemas.errors import SchemaError
from schemas.messages import KEEP
from schemas.sealing.layout import sealed_name
from schemas.sealing.recipients import sealing_contradiction
from schemas.values import Feature, UploadOptions

IDEMPOTENT_FOR: Final = DAY
"""Seconds for which an idempotency key is kept."""

READ_URL_LIFE: Final = 3600.0
"""Seconds for which a URL that reads an object is valid, at most."""


MOST_CHANGES: Final = 500
"""Changes of one upload that are shown, the last ones."""

MOST_LOOKED_AT: Final = 2_000
"""Uploads that one page looks at when it is filtered by the reason of a wait: the reason is in no row."""

MOST_CANCELLED: Final = 5_000
"""Uploads that one bulk act cancels."""

_OF_A_BUDGET: Final = "a budget that it shares with clients that this token does not have is spent"
_AT_ONCE: Final = 256
"""Cancels that wait for their commit at a time: one batch of the writer."""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """What a bulk cancel came to.

    `clients` that were meant; uploads that were `cancelled`, and that were `refused`: they were completing, or over.
    `more`: there are further ones, for the same act again.
    """

    clients: int
    cancelled: int
    refused: int
    more: bool


@dataclass(frozen=True, slots=True)
class Timeline:
    """The last changes of an upload, oldest first; `complete` if the first one is its creation."""

    changes: tuple[NumberedChange, ...]
    complete: bool


@dataclass(frozen=True, slots=True)
class TriggerRequest:
    """A new upload. `deadline` is an instant (s since the epoch).

    `body_digest` is the digest of the request's body; two requests with one `idempotency_key` must have one digest.
    """

    client_id: str
    file_path: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    options: UploadOptions = field(default_factory=UploadOptions)
    deadline: float | None = None
    after: str = KEEP
    idempotency_key: str | None = None
    body_digest: str = ""


class UploadService:
    """What a caller may do with uploads."""

    def __init__(  # noqa: PLR0913 - one keyword for each collaborator
        self,
        *,
        database: Database,
        object_store: ObjectStore,
        clock: Clock,
        policy: Policy,
        writer: UploadWriter,
        probe: ObjectStoreProbe,
        views: UploadViews,
        chooser: ClientChooser,
        tracer: Tracer = NO_TRACES,
    ) -> None:
        self._tracer = tracer
        self._chooser = chooser
        self._database = database
        self._object_store = object_store
        self._clock = clock
        self._policy = policy
        self._writer = writer
        self._probe = probe
        self._views = views

    async def trigger(self, principal: Principal, request: TriggerRequest) -> UploadView:
        """Commit a new upload; its command is published at once when the client is connected.

        `UnknownClient`, `BadInput` (no path, a deadline in the past, too much metadata), `KeyReused`; `Forbidden` for a
        path that a second person must approve, `OperatorNeeded` for a device that takes no work from here.
        """
        return await self._trigger(principal, request, Act.UPLOAD_TRIGGER, {})

    async def _trigger(self, principal: Principal, request: TriggerRequest, act: Act, detail: Detail) -> UploadView:
        check_client_id(request.client_id)
        key, now = UploadKey(request.client_id, secrets.token_hex(16)), self._clock.now()
        idempotency = _idempotency_record(principal, request, key, now)
        recorder = _recorder(principal, act, now, detail)
        client: Client | None = None
        traceparent = self._tracer.current()
        if idempotency is not None and principal.clients is not None:
            # A repeat is answered with the first upload, before there is a plan.
            known = await self._database.read(lambda records: records.clients.get(request.client_id))
            require_reach(principal, known, request.client_id)

        def plan(records: Records, mark: str = "") -> Upload:
            nonlocal client
            client = require_reach(principal, records.clients.get(request.client_id), request.client_id)
            return replace(self._planned(request, key, client, now, mark), traceparent=traceparent)

        try:
            created = await self._writer.create(plan, idempotency, recorder)
        except KeyTaken:
            # Another trigger for the same file name in the same second has the plain key.
            marked = functools.partial(plan, mark=key.upload_id[:8])
            created = await self._writer.create(marked, idempotency, recorder)
        if created.key != key:
            return await self._view(principal, created)
        # No second read: the transaction read the client, and the new upload's duties are being performed.
        return self._views.explain(created, client, [])

    def _planned(self, request: TriggerRequest, key: UploadKey, client: Client, now: float, mark: str) -> Upload:
        if client.needs_operator:
            raise OperatorNeeded(client.client_id)
        path = request.file_path or client.default_file
        deadline = now + self._policy.deadline if request.deadline is None else request.deadline
        _require(bool(path), f"client {client.client_id!r} has no default file: name a file_path")
        if path and self._policy.four_eyes.names(path):
            message = f"a second person must approve the upload of {path}: request it with a job"
            raise Forbidden(message)
        if self._policy.four_eyes.selects(client.effective_labels):
            message = f"a second person must approve what {client.client_id!r} sends: request it with a job"
            raise Forbidden(message)
        _require(deadline > now, "the deadline has passed already")
        _require(deadline <= now + MAX_DEADLINE, f"the deadline is more than {MAX_DEADLINE / DAY:.0f} days away")
        try:
            require_metadata(request.metadata)
        except SchemaError as error:
            raise BadInput(str(error)) from error
        lacks = request.after != KEEP and not client.never_seen and Feature.AFTER not in client.capabilities
        _require(not lacks, f"after: the agent of {client.client_id!r} can delete and move no files: update it")
        contradiction = sealing_contradiction(request.options, request.after)
        _require(contradiction is None, contradiction or "")
        lacks = bool(request.options.encrypt_to) and not client.never_seen and Feature.SEALED not in client.capabilities
        _require(not lacks, f"encrypt_to: the agent of {client.client_id!r} can seal no files: install PyNaCl there")
        refused = self._probe.capabilities.refused_characters
        kept_as = sealed_name(path or "", request.options)
        return Upload(
            client_id=key.client_id,
            upload_id=key.upload_id,
            owner=self._policy.owner,
            origin=Origin.REST,
            s3_key=object_key(self._policy.base_path, key.client_id, kept_as, now, mark, refused=refused),
            token=secrets.token_hex(16),
            created_at=now,
            updated_at=now,
            deadline=deadline,
            file_path=path,
            digest=self._probe.capabilities.digest_for(self._policy.digest),
            chunk_size=self._policy.chunk_size,
            options=request.options,
            metadata=request.metadata,
            after=request.after,
            touched_at=now,
        )

    async def upload(self, principal: Principal, upload_id: str, client_id: str | None = None) -> UploadView:
        """One upload; `UnknownUpload`, or `AmbiguousUpload` when several clients have one of this id."""
        return await self._view(principal, await self._find(principal, upload_id, client_id))

    async def uploads(
        self, principal: Principal, where: UploadFilter, page: Page, reason: str | None = None
    ) -> tuple[list[UploadView], str | None]:
        """The uploads that match, newest first, and the cursor of the next page.

        With the code of a `reason`: those that are not over and wait for it. Such a page may have fewer rows than there
        is room for, even none, while its cursor leads on.
        """
        where = dataclasses.replace(where, reach=reach_of(principal))
        if reason is None:
            return await self._database.read(lambda records: self._page(records, principal, where, page))
        waiting = dataclasses.replace(where, states=OPEN if where.states is None else where.states & OPEN)
        shown: list[UploadView] = []
        looked_at, cursor = 0, page.cursor
        while True:
            room = functools.partial(
                self._page, principal=principal, where=waiting, page=Page(page.limit - len(shown), cursor)
            )
            views, cursor = await self._database.read(room)
            shown += [view for view in views if view.reason is not None and view.reason.code == reason]
            looked_at += len(views)
            if cursor is None or 2 * len(shown) >= page.limit or looked_at >= MOST_LOOKED_AT:
                return shown, cursor

    def _page(
        self, records: Records, principal: Principal, where: UploadFilter, page: Page
    ) -> tuple[list[UploadView], str | None]:
        """One page from one snapshot, as this caller sees it."""
        found, cursor = records.uploads.list(where, page)
        return [_seen(principal, view) for view in self._views.within(records, found)], cursor

    async def timeline(self, principal: Principal, upload_id: str, client_id: str | None = None) -> Timeline:
        """What happened to an upload, as far as the change log goes back; errors as for `upload`."""
        key = (await self._find(principal, upload_id, client_id)).key

        def work(records: Records) -> list[NumberedChange]:
            return records.changes.about(key.client_id, key.upload_id, MOST_CHANGES)

        changes = tuple(reversed(await self._database.read(work)))
        return Timeline(changes, bool(changes) and isinstance(changes[0].change, UploadCreated))

    async def cancel(self, principal: Principal, upload_id: str, client_id: str | None = None) -> UploadView:
        """End an upload; `IllegalTransition` once it is completing or over, `NotOurs` for another owner's."""
        upload = await self._find(principal, upload_id, client_id)
        self._require_ours(upload, "cancel it there")
        return await self._view(principal, await self._cancelled(principal, upload.key))

    async def cancel_many(self, principal: Principal, choice: ClientChoice) -> Cancelled:
        """End the uploads of many clients that are not over; `SetChanged`, `UnknownClient`, `BadInput`."""
        now = self._clock.now()

        def work(records: Records) -> tuple[int, list[UploadKey]]:
            chosen = self._chooser.chosen(records, choice, now, reach_of(principal))
            keys: list[UploadKey] = []
            for client_id in chosen:
                uploads = records.uploads.open_of(client_id)
                keys += [one.key for one in uploads if self._may_end(one)]
                if len(keys) > MOST_CANCELLED:
                    break
            return len(chosen), keys

        clients, keys = await self._database.read(work)
        wanted = keys[:MOST_CANCELLED]
        cancelled = 0
        for start in range(0, len(wanted), _AT_ONCE):
            some = (self._may_cancel(principal, key) for key in wanted[start : start + _AT_ONCE])
            cancelled += sum(await asyncio.gather(*some))
        return Cancelled(clients, cancelled, len(wanted) - cancelled, len(keys) > MOST_CANCELLED)

    async def end_all(self, principal: Principal, client_id: str) -> int:
        """End every open upload of one client, whether its device answers or not; the number that was ended."""

        def work(records: Records) -> list[UploadKey]:
            return [one.key for one in records.uploads.open_of(client_id) if self._may_end(one)]

        ended = 0
        for key in await self._database.read(work):
            ended += await self._may_cancel(principal, key)
        return ended

    def _may_end(self, upload: Upload) -> bool:
        return upload.state in OPEN and upload.owner == self._policy.owner

    async def _cancelled(self, principal: Principal, key: UploadKey) -> Upload:
        now = self._clock.now()
        return await self._writer.submit(
            key, CancelRequested(now=now), _recorder(principal, Act.UPLOAD_CANCEL, now, {})
        )

    async def _may_cancel(self, principal: Principal, key: UploadKey) -> bool:
        """Whether an upload was cancelled; False when its state does not allow it any more."""
        try:
            await self._cancelled(principal, key)
        except (IllegalTransition, UnknownUpload, VersionConflict):
            return False
        return True

    async def retry(self, principal: Principal, upload_id: str, client_id: str | None = None) -> UploadView:
        """Trigger the same file again as a new upload; `BadInput` while the old one is not over."""
        old = await self._find(principal, upload_id, client_id)
        _require(old.state in TERMINAL, f"upload {upload_id!r} is {old.state}: it is not over, so there is no retry")
        request = TriggerRequest(
            client_id=old.client_id,
            file_path=old.file_path,
            metadata=old.metadata,
            options=old.options,
            after=old.after,
        )
        retried = await self._trigger(principal, request, Act.UPLOAD_RETRY, {"of": upload_id})
        return await self._view(principal, retried.upload)

    async def object_url(self, principal: Principal, upload_id: str, client_id: str | None = None) -> tuple[str, float]:
        """A URL that reads the object, and for how many seconds; `BadInput` before it is completed.

        `NotOurs` for another owner's upload: its key comes from an observed command, and may name any bucket's object.
        A signed URL for it would let everyone who may publish a command read every object that the credentials reach.
        """
        upload = await self._find(principal, upload_id, client_id)
        self._require_ours(upload, "read its object with that owner's credentials")
        _require(upload.state is State.COMPLETED, f"upload {upload_id!r} is {upload.state}: it has no object yet")
        lifetime = self._object_store.url_lifetime(READ_URL_LIFE)
        recorder = _recorder(principal, Act.OBJECT_URL, self._clock.now(), {"s3_key": upload.s3_key})
        await self._database.write(lambda records: recorder(records, upload))
        return self._object_store.presign_get(upload.s3_key, lifetime), lifetime

    async def _view(self, principal: Principal, upload: Upload) -> UploadView:
        return _seen(principal, await self._views.of(upload))

    def _require_ours(self, upload: Upload, remedy: str) -> None:
        if upload.owner != self._policy.owner:
            text = f"upload {upload.upload_id!r} belongs to {upload.owner}: {remedy}"
            raise NotOurs(text)

    async def _find(self, principal: Principal, upload_id: str, client_id: str | None) -> Upload:
        def work(records: Records) -> list[Upload]:
            named = [one for one in records.uploads.by_id(upload_id) if client_id in {None, one.client_id}]
            return [one for one in named if reachable(records, principal, one.client_id)]

        found = await self._database.read(work)
        if not found:
            raise UnknownUpload(upload_id)
        if len(found) > 1:
            raise AmbiguousUpload(upload_id, sorted(upload.client_id for upload in found))
        return found[0]


def _recorder(principal: Principal, act: Act, at: float, detail: Detail) -> Recorder:
    """Records an act on one upload."""

    def work(records: Records, upload: Upload) -> None:
        facts = {**detail, "file_path": upload.file_path or ""}
        target = f"upload:{upload.upload_id}"
        record(records, principal, act, at, target=target, clients=[upload.client_id], detail=facts)

    return work


def _seen(principal: Principal, view: UploadView) -> UploadView:
    """The view as this caller sees it: a budget is the whole fleet's, and so is how many wait for it."""
    reason = view.reason
    if principal.clients is None or reason is None or reason.code != ReasonCode.BUDGET_SPENT:
        return view
    return dataclasses.replace(view, reason=Reason(reason.code, _OF_A_BUDGET))


def _idempotency_record(
    principal: Principal, request: TriggerRequest, key: UploadKey, now: float
) -> IdempotencyRecord | None:
    if request.idempotency_key is None:
        return None
    return IdempotencyRecord(
        caller=principal.subject,
        client_id=request.client_id,
        idempotency_key=request.idempotency_key,
        body=request.body_digest,
        upload_id=key.upload_id,
        created_at=now,
    )


def _require(condition: bool, text: str) -> None:  # noqa: FBT001 - a condition and the error's text when it fails
    if not condition:
        raise BadInput(text)
