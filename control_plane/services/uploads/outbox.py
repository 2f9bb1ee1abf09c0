"""Does what uploads oblige to: speaks to clients, calls the object store, tries again until the state moves on.

Rule: a row is done when the state no longer asks for it, never because something was sent. Everything here may happen
twice: after a crash, on another replica, or because an answer was lost.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, Final, assert_never

from control_plane.domain.reasons import Reason, WaitCode
from control_plane.domain.uploads.duties import COMMANDS, Duty, Kind
from control_plane.domain.uploads.events import (
    CleanupDone,
    CompletionFailed,
    Dispatched,
    MultipartCreated,
    ObjectStoreRejected,
    StepTimedOut,
    Succeeded,
)
from control_plane.domain.uploads.model import Refusal, State, Upload, UploadKey
from control_plane.services.commands import CommandPublisher
from control_plane.services.errors import (
    DatabaseUnavailable,
    MessengerDown,
    ObjectStoreForbids,
    ObjectStoreRefused,
    ServiceError,
    Transient,
    UnknownUpload,
)
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.database import PARKED, Database, OutboxEntry, Records, Subject
from control_plane.services.ports.log import EventLog
from control_plane.services.ports.object_store import ObjectStore
from control_plane.services.uploads.completion import Completion
from control_plane.services.uploads.effects import Effects
from control_plane.services.uploads.writer import LEASE, Uploads
from schemas.names import TOKEN_METADATA

MAX_AT_ONCE: Final = 64
MAX_RUNNING: Final = 10_000
"""Duties begun and not done: most of them wait for their turn."""

MAX_CLAIMED: Final = 256
POLL: Final = 1.0
LONGEST_LOOK: Final = 2.0
"""Seconds for which a success may wait to be committed together with its proof."""

LONGEST_WAIT: Final = 300.0
MAX_COMPLAINTS: Final = 10_000
FAULT_WAIT: Final = 30.0
"""Seconds at least before what met a fault of ours is tried again."""

REFUSED_WAIT: Final = 3600.0
"""Seconds before a refused clean-up (no permission to abort, say) is tried again."""


_Name = tuple[UploadKey, str, int, str]


@dataclass(frozen=True, slots=True)
class Complaint:
    """Why a duty of an upload could not be done the last time, for whoever asks why nothing happens."""

    reason: Reason
    at: float
    kind: Kind


@dataclass(frozen=True, slots=True)
class Tools:
    """What duties are done with."""

    store: Database
    objects: ObjectStore
    clock: Clock
    log: EventLog
    sayings: CommandPublisher
    completion: Completion


class Outbox:
    """Performs duties: at once when a commit decided them, and whenever a stored one has come due."""

    def __init__(self, uploads: Uploads, tools: Tools, *, step_timeout: float) -> None:
        self._uploads = uploads
        self._tools = tools
        self._step_timeout = step_timeout
        self._at_once = asyncio.Semaphore(MAX_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._running: dict[_Name, asyncio.Task[None]] = {}
        self._looks = 0
        """Looks taken ahead of a commit that are not done."""
        self._poked = asyncio.Event()
        self._complaints: dict[UploadKey, Complaint] = {}

    def complaint(self, key: UploadKey) -> Complaint | None:
        """What went wrong the last time for this upload, if nothing has gone right since."""
        return self._complaints.get(key)

    def poke(self) -> None:
        """Stored duties were made due: look now."""
        self._poked.set()

    def perform(self, effects: Effects) -> None:
        """Begin what a commit decided. Never waits."""
        if effects.upload is None:
            unknown = Duty(Kind.SEND_CLOSE, effects.attempt, 0.0)
            self._begin(effects.key, unknown, self._tools.sayings.close_unknown(effects.key, effects.attempt))
            return
        for duty in effects.duties:
            if effects.ahead is None:
                self._begin(effects.key, duty, self._do(effects.upload, duty))
            elif self._at_once.locked() or self._looks >= MAX_AT_ONCE or len(self._tasks) >= MAX_RUNNING:
                # A look that has to wait for its turn keeps a success from being committed.
                self._uploads.hear(effects.key, effects.ahead)
            else:
                self._begin(effects.key, duty, self._do_ahead(effects.upload, effects.ahead), ahead=True)

    async def run(self) -> None:
        """Look for due duties until cancelled; what is under way then is cancelled too."""
        try:
            while True:
                await self._look()
                await self._sleep()
        finally:
            for task in self._tasks:
                task.cancel()

    async def _sleep(self) -> None:
        try:
            async with asyncio.timeout(POLL):
                await self._poked.wait()
        except TimeoutError:
            pass
        self._poked.clear()

    async def _look(self) -> None:
        store, clock = self._tools.store, self._tools.clock
        try:
            due = await store.read(lambda records: records.outbox.next_due())
            if due is None or due > clock.now():
                return
            claimed, silent = await store.write(self._claim)
        except ServiceError as error:
            self._tools.log("outbox.failed", {"error": str(error)})
            return
        for key in silent:
            self._uploads.hear(key, StepTimedOut(now=clock.now()))
        for upload, duty in claimed:
            self._begin(upload.key, duty, self._do(upload, duty))
        if len(claimed) == MAX_CLAIMED:
            self.poke()

    def _claim(self, records: Records) -> tuple[list[tuple[Upload, Duty]], list[UploadKey]]:
        """Take due rows under a lease: those to perform, and the uploads whose clients stayed silent."""
        now = self._tools.clock.now()
        claimed: list[tuple[Upload, Duty]] = []
        silent: list[UploadKey] = []
        for task in records.outbox.due(now, MAX_CLAIMED):
            upload = records.uploads.get(task.subject.upload_key)
            if upload is None:
                records.outbox.drop(task.subject, task.duty.kind, task.duty.target)
                continue
            again_at = self._next_try(records, upload, task, now)
            if again_at is None:
                silent.append(task.subject.upload_key)
                again_at = now + LEASE
            elif again_at <= now:
                claimed.append((upload, task.duty))
                again_at = now + (self._step_timeout if task.duty.kind in COMMANDS else LEASE)
            # A client that comes back is told afresh: what it was told before may be lost with its session.
            records.outbox.put(replace(task, due_at=again_at, tries=0 if again_at == PARKED else task.tries + 1))
        return claimed, silent

    def _next_try(self, records: Records, upload: Upload, task: OutboxEntry, now: float) -> float | None:
        """When to perform a due row: now, later, or None when its client was told and stayed silent."""
        if task.duty.kind not in COMMANDS:
            return now
        client = records.clients.get(upload.client_id)
        if client is None or not client.dispatchable(now):
            return PARKED
        # Of a queued upload nobody knows that its client was told: whoever meant to may have died before he did.
        if task.tries == 0 or upload.state is State.QUEUED:
            return now
        # While the client is away its silence does not count.
        patience = max(upload.touched_at, client.connected_at or 0.0) + self._step_timeout
        return patience if patience > now else None

    def _begin(self, key: UploadKey, duty: Duty, work: Coroutine[Any, Any, None], *, ahead: bool = False) -> None:
        # What is done ahead and fails leads to the duty itself, which must not be taken for what is under way.
        name = (key, "ahead" if ahead else duty.kind, duty.attempt, duty.target)
        if len(self._tasks) >= MAX_RUNNING:
            # Nothing is lost: its row comes due again, and whoever asked asks again.
            self._tools.log("duty.shed", {"upload_id": key.upload_id, "duty": duty.kind})
            work.close()
            return
        if name in self._running and duty.kind not in COMMANDS:
            work.close()
            return
        self._looks += ahead
        task = asyncio.create_task(self._watched(key, duty, work))
        self._tasks.add(task)
        self._running[name] = task
        task.add_done_callback(lambda done: self._ended(name, done, ahead=ahead))

    def _ended(self, name: _Name, task: asyncio.Task[None], *, ahead: bool) -> None:
        self._looks -= ahead
        self._tasks.discard(task)
        if self._running.get(name) is task:
            del self._running[name]

    async def _watched(self, key: UploadKey, duty: Duty, work: Coroutine[Any, Any, None]) -> None:
        try:
            async with self._at_once:
                await self._handled(key, duty, work)
        finally:
            # Cancelled before its turn came, it was never begun.
            work.close()

    async def _handled(self, key: UploadKey, duty: Duty, work: Coroutine[Any, Any, None]) -> None:
        known = self._complaints.get(key)
        try:
            await work
        except Transient as error:
            await self._again(key, duty, reason_of(error), error.retry_after)
        except ObjectStoreRefused as error:
            await self._refused(key, duty, error)
        except UnknownUpload:
            return
        except Exception as error:  # noqa: BLE001 - a fault of ours in one upload must not stop the others
            self._tools.log("duty.fault", {"upload_id": key.upload_id, "duty": duty.kind, "error": repr(error)})
            # Its text may hold anything: whoever asks why nothing happens is told where to look.
            text = f"a fault of the control plane's own ({type(error).__name__}, see its log); tried again"
            await self._again(key, duty, Reason(WaitCode.INTERNAL, text), FAULT_WAIT)
        else:
            # What followed from this work may have gone wrong already.
            if self._complaints.get(key) is known:
                self._complaints.pop(key, None)

    async def _do(self, upload: Upload, duty: Duty) -> None:
        sayings, objects = self._tools.sayings, self._tools.objects
        match duty.kind:
            case Kind.SEND_DOWNLOAD:
                await sayings.download(upload)
                self._uploads.note(upload.key, Dispatched(now=self._tools.clock.now(), attempt=upload.attempt))
            case Kind.SEND_GRANT:
                await sayings.grant(upload)
            case Kind.SEND_CANCEL:
                await sayings.cancel(upload)
            case Kind.SEND_CLOSE:
                await sayings.close(upload)
            case Kind.CREATE_MULTIPART:
                await self._create(upload)
            case Kind.COMPLETE:
                await self._uploads.submit(upload.key, await self._tools.completion.settle(upload))
            case Kind.ABORT_MULTIPART:
                await objects.abort(upload.s3_key, duty.target)
                await self._uploads.submit(upload.key, CleanupDone(now=self._tools.clock.now(), target=duty.target))
            case Kind.DELETE_OBJECT:
                await self._delete(upload, duty.target)
            case never:
                assert_never(never)

    async def _do_ahead(self, upload: Upload, success: Succeeded) -> None:
        """Look at the object of a success that is not committed yet, and commit both at once.

        While the store is away or slow the success alone is committed, and its proof is a duty like any other: until
        then the step timer and the deadline run.
        """
        try:
            async with asyncio.timeout(min(LONGEST_LOOK, self._step_timeout / 4)):
                settled = await self._tools.completion.settle(upload)
        except Exception as error:
            self._uploads.hear(upload.key, success)
            if not isinstance(error, ServiceError | TimeoutError):
                raise
        else:
            await self._uploads.submit(upload.key, success, settled, upload)

    async def _create(self, upload: Upload) -> None:
        s3_upload_id = await self._tools.objects.create_multipart(upload.s3_key, upload.object_token, upload.digest)
        created = MultipartCreated(now=self._tools.clock.now(), attempt=upload.attempt, s3_upload_id=s3_upload_id)
        await self._uploads.submit(upload.key, created)

    async def _delete(self, upload: Upload, s3_key: str) -> None:
        """Delete a stray object, if the one that is there bears the abandoned attempt's token."""
        tokens = {stray.token for stray in upload.strays if stray.s3_key == s3_key}
        info = await self._tools.objects.head(s3_key)
        if info is not None and info.metadata.get(TOKEN_METADATA) in tokens:
            await self._tools.objects.delete(s3_key)
        await self._uploads.submit(upload.key, CleanupDone(now=self._tools.clock.now(), target=s3_key))

    async def _again(self, key: UploadKey, duty: Duty, reason: Reason, at_least: float) -> None:
        tries = await self._reschedule(key, duty, reason, lambda tries: _backoff(tries, at_least))
        facts = {"upload_id": key.upload_id, "duty": duty.kind, "tries": tries, "error": reason.text}
        self._tools.log("duty.again", facts)

    async def _refused(self, key: UploadKey, duty: Duty, error: ObjectStoreRefused) -> None:
        now = self._tools.clock.now()
        self._tools.log("duty.refused", {"upload_id": key.upload_id, "duty": duty.kind, "error": str(error)})
        if duty.kind is Kind.COMPLETE:
            failed = CompletionFailed(now=now, attempt=duty.attempt, error=Refusal.STORE_REFUSED, text=str(error))
            self._uploads.hear(key, failed)
        elif duty.kind in {Kind.CREATE_MULTIPART, Kind.SEND_GRANT} and isinstance(error, ObjectStoreForbids):
            # A key that was revoked may be given anew; if it is not, there is the deadline.
            await self._again(key, duty, reason_of(error), Transient.retry_after)
        elif duty.kind in {Kind.CREATE_MULTIPART, Kind.SEND_GRANT}:
            self._uploads.hear(key, ObjectStoreRejected(now=now, attempt=duty.attempt, text=str(error)))
        else:
            await self._reschedule(key, duty, reason_of(error), lambda _: REFUSED_WAIT)

    async def _reschedule(self, key: UploadKey, duty: Duty, reason: Reason, wait: Callable[[int], float]) -> int:
        """Set the row's next try `wait(tries)` seconds from now, if the state still asks for it; returns the tries."""
        now = self._tools.clock.now()

        def work(records: Records) -> int:
            for task in records.outbox.of(Subject.of_upload(key)):
                if task.duty.kind is duty.kind and task.duty.target == duty.target:
                    # A word that never got out was not said: the client's silence does not count yet.
                    tries = 0 if duty.kind in COMMANDS else task.tries
                    # Never sooner than the state wants it: an object may still be written under its URL.
                    due_at = max(task.duty.due_at, now + wait(task.tries))
                    records.outbox.put(replace(task, due_at=due_at, tries=tries))
                    return task.tries
            return 0

        self._complaints[key] = Complaint(reason, now, duty.kind)
        while len(self._complaints) > MAX_COMPLAINTS:
            self._complaints.pop(next(iter(self._complaints)))
        try:
            return await self._tools.store.write(work)
        except ServiceError as error:
            # The row keeps its lease, so it comes due again all the same.
            self._tools.log("outbox.failed", {"error": str(error)})
            return 0


def _backoff(tries: int, at_least: float) -> float:
    """Seconds to wait, with full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter")."""
    return at_least + random.uniform(0.0, min(LONGEST_WAIT, 2.0 ** min(tries, 10)))  # noqa: S311 - not a secret


def reason_of(error: ServiceError) -> Reason:
    """Why a duty has to wait, from what it failed with."""
    match error:
        case MessengerDown():
            code = WaitCode.BROKER_UNAVAILABLE
        case DatabaseUnavailable():
            code = WaitCode.DATABASE_UNAVAILABLE
        case ObjectStoreRefused():
            code = WaitCode.OBJECT_STORE_REFUSED
        case _:
            code = WaitCode.OBJECT_STORE_UNAVAILABLE
    return Reason(code, str(error))
