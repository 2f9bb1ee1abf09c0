"""Performs the duties of uploads: publishes commands, calls the object store, and retries until the state moves on.

Rule: an entry is done when the upload's state no longer requires it, never because a command was published or a call
returned. Every duty may be performed twice: after a crash, on another replica, or because an answer was lost.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, Final, assert_never

from control_plane.domain.clients import Client
from control_plane.domain.reasons import Reason, ReasonCode
from control_plane.domain.reported import REPORTED
from control_plane.domain.uploads.duties import COMMANDS, Duty, Kind, duties
from control_plane.domain.uploads.events import (
    CleanupDone,
    Dispatched,
    MultipartCreated,
    StepTimedOut,
    Succeeded,
)
from control_plane.domain.uploads.model import State, Upload, UploadKey
from control_plane.services.backoff import full_jitter
from control_plane.services.budget import Buckets, Limit
from control_plane.services.clients.beats import Beats
from control_plane.services.commands import CommandPublisher
from control_plane.services.errors import (
    BrokerRefused,
    DatabaseUnavailable,
    DeviceBarred,
    MessengerDown,
    ObjectStoreDown,
    ObjectStoreForbids,
    ObjectStoreRefused,
    ObjectStoreUnusable,
    ServiceError,
    Transient,
    UnknownUpload,
)
from control_plane.services.gate.keeper import GateKeeper
from control_plane.services.gate.sender import GrantSender
from control_plane.services.object_store_probe import ObjectStoreProbe
from control_plane.services.policy import MAX_SKEW, name_beside
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.database import PARKED, Database, Failure, OutboxEntry, Records, Subject
from control_plane.services.ports.log import EventLog
from control_plane.services.ports.object_store import ObjectStore
from control_plane.services.tracing import duty_span, job_and_trace, proof_span
from control_plane.services.uploads.completion import Completion, set_back
from control_plane.services.uploads.writer import LEASE, Commit, Decision, UploadWriter
from schemas.names import TOKEN_METADATA
from schemas.sealing.layout import sealed_name
from schemas.values import STATUS_EVERY

MAX_AT_ONCE: Final = 64
MAX_RUNNING: Final = 10_000
"""Duties that are started and not finished; most of them wait for one of the `MAX_AT_ONCE` places."""

MAX_RUNNING_OF_ONE: Final = 1_024
"""Of these, one client's: the others wait for a place no longer than these take."""

RELEASES: Final = Limit(rate=20, burst=MAX_AT_ONCE // 2)
"""Closes of unknown uploads of one client. A client repeats the report of an upload that is not closed."""

MAX_CLAIMED: Final = 256
POLL: Final = 1.0
LONGEST_LOOK: Final = 2.0
"""Seconds for which the commit of a success may wait for its proof."""

REPORTED_WAIT: Final = 2.5 * STATUS_EVERY
"""Seconds for which a wait that the client reported counts at least: one status may be lost."""

LONGEST_WAIT: Final = 300.0
LONGEST_RETRY: Final = 2 * LONGEST_WAIT
"""Seconds between two tries of a duty at most: a longer Retry-After of the object store counts as `LONGEST_WAIT`."""

FAULT_WAIT: Final = 30.0
"""Seconds, at least, before a duty is retried after a fault of the program."""

REFUSED_WAIT: Final = 3600.0
"""Seconds before a clean-up is retried that the object store refused, such as for lack of a permission."""

_STEPS: Final = frozenset({Kind.CREATE_MULTIPART, Kind.SEND_GRANT, Kind.COMPLETE})
"""Duties that bring an upload to its end. A refusal of one is a setback (`events.SetBack`); any other duty can wait."""

_STORE_CODES: Final = frozenset({str(ReasonCode.OBJECT_STORE_UNAVAILABLE), str(ReasonCode.OBJECT_STORE_REFUSED)})
_BROKER_CODES: Final = frozenset({str(ReasonCode.BROKER_UNAVAILABLE)})

_Name = tuple[UploadKey, str, int, str]
_Work = Coroutine[Any, Any, None]


@dataclass(frozen=True, slots=True)
class _Claimed:
    """A due duty that this process has leased. `failed`: its entry has a `last_error`; `gated`: the gate is asked."""

    upload: Upload
    duty: Duty
    failed: bool
    gated: bool


class Outbox:
    """Performs duties: right after the commit that decided them, and when a stored entry becomes due.

    A duty that failed for lack of the broker or of the object store is due as soon as that is there again.
    `step_timeout` (s) is how long a connected client may be silent after a command. With `performs` False every duty is
    stored, and none is performed.
    """

    def __init__(  # noqa: PLR0913 - one keyword for each collaborator
        self,
        *,
        database: Database,
        object_store: ObjectStore,
        clock: Clock,
        log: EventLog,
        writer: UploadWriter,
        commands: CommandPublisher,
        sender: GrantSender,
        gate: GateKeeper | None,
        completion: Completion,
        beats: Beats,
        probe: ObjectStoreProbe,
        step_timeout: float,
        performs: bool = True,
        receipts: Callable[[Upload], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        self._database = database
        self._object_store = object_store
        self._clock = clock
        self._log = log
        self._writer = writer
        self._commands = commands
        self._tracer = commands.tracer
        self._sender = sender
        self._gate = gate
        self._completion = completion
        self._beats = beats
        self._probe = probe
        self._step_timeout = step_timeout
        self._performs = performs
        self._receipts = receipts
        self._at_once = asyncio.Semaphore(MAX_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._running: dict[_Name, asyncio.Task[None]] = {}
        self._busy: Counter[str] = Counter()
        """Tasks by client."""
        self._releases = Buckets(clock.monotonic, RELEASES)
        self._looks = 0
        """How many deferred successes are being proven."""
        self._usable: frozenset[str] = frozenset()
        """Reason codes of failed duties whose cause was gone at the last look."""
        self._wakes = 0
        """How often a cause was found gone. A duty that began before the last time is not delayed by its failure."""
        self._poked = asyncio.Event()
        self._released: dict[UploadKey, asyncio.Event] = {}

    @property
    def running(self) -> int:
        """Duties that are started and not finished."""
        return len(self._tasks)

    def poke(self) -> None:
        """Look for due entries now."""
        self._poked.set()

    def on_commit(self, commit: Commit) -> None:
        """Perform what a commit decided; a listener of the writer."""
        for decision in commit.decisions:
            self.perform(decision)

    def perform(self, decision: Decision) -> None:
        """Start the duties of a decision. Never waits. If none is performed, a deferred success is committed alone."""
        key, upload = decision.key, decision.upload
        if not self._performs:
            if decision.deferred is not None:
                self._writer.enqueue(key, decision.deferred)
            return
        if upload is None:
            if not self._releases.take(key.client_id):
                self._log("release.shed", {"client_id": key.client_id, "upload_id": key.upload_id})
                return
            self._start(key, Duty(Kind.SEND_CLOSE, decision.attempt, 0.0), self._close_unknown(key, decision.attempt))
            return
        for duty in decision.duties:
            if decision.deferred is None:
                self._start(key, duty, self._perform(upload, duty, gated=decision.gated))
            elif self._at_once.locked() or self._looks >= MAX_AT_ONCE or self._is_full(key.client_id):
                # No place is free: a look that waits for one would delay the commit of the success.
                self._writer.enqueue(key, decision.deferred)
            else:
                self._start(key, duty, self._prove_deferred(upload, decision.deferred), deferred=True)

    async def resume(self, key: UploadKey) -> None:
        """Make every duty that the upload's state requires due now; `UnknownUpload`, `DatabaseUnavailable`.

        A backoff is not waited for. A stray object is: until its duty is due it may still be written with its URL.
        """
        now, subject = self._clock.now(), Subject.of_upload(key)

        def work(records: Records) -> None:
            upload = records.uploads.get(key)
            if upload is None:
                raise UnknownUpload(key.upload_id)
            for duty in duties(upload):
                due_at = max(now, duty.due_at) if duty.kind is Kind.DELETE_OBJECT else now
                records.outbox.put(OutboxEntry(subject, duty, due_at))

        await self._database.write(work)
        self.poke()

    def released(self, key: UploadKey) -> asyncio.Event:
        """The event that is set when a close for this upload is published, from the first call for it on."""
        return self._released.setdefault(key, asyncio.Event())

    async def run(self) -> None:
        """Perform due entries until cancelled; then running duties are cancelled too."""
        try:
            while True:
                if self._performs:
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
        try:
            await self._wake()
            due = await self._database.read(lambda records: records.outbox.next_due())
            if due is None or due > self._clock.now():
                return
            claimed, silent = await self._database.write(self._claim)
        except ServiceError as error:
            self._log("outbox.failed", {"error": str(error)})
            return
        for key in silent:
            self._writer.enqueue(key, StepTimedOut(now=self._clock.now()))
        for one in claimed:
            work = self._perform(one.upload, one.duty, gated=one.gated)
            self._start(one.upload.key, one.duty, work, failed=one.failed)
        if len(claimed) == MAX_CLAIMED:
            self.poke()

    async def _wake(self) -> None:
        """Make the duties due that failed for a cause which is gone since the last look."""
        usable = (_BROKER_CODES if self._commands.messenger.problem is None else frozenset()) | (
            _STORE_CODES if self._probe.failure is None else frozenset()
        )
        if back := usable - self._usable:
            now = self._clock.now()
            await self._database.write(lambda records: records.outbox.wake_failed(back, now))
            self._wakes += 1
        self._usable = usable

    def _claim(self, records: Records) -> tuple[list[_Claimed], list[UploadKey]]:
        """Lease due entries: the duties to perform, and the uploads of clients that did not respond in time."""
        now = self._clock.now()
        claimed: list[_Claimed] = []
        silent: list[UploadKey] = []
        for entry in records.outbox.due(now, MAX_CLAIMED):
            key, duty = entry.subject.upload_key, entry.duty
            upload = records.uploads.get(key)
            if upload is None:
                records.outbox.drop(entry.subject, duty.kind, duty.target)
                continue
            client = records.clients.get(upload.client_id) if duty.kind in COMMANDS else None
            due_at = self._due_at(client, upload, entry, now)
            if due_at is None:
                silent.append(key)
                due_at = now + LEASE
            elif due_at <= now:
                gated = self._is_gated(records, upload, client, duty)
                claimed.append(_Claimed(upload, duty, entry.last_error is not None, gated))
                due_at = now + (self._step_timeout if duty.kind in COMMANDS else LEASE)
            # A client that connects again gets the command again: the one before may be lost with its session.
            records.outbox.put(replace(entry, due_at=due_at, tries=0 if due_at == PARKED else entry.tries + 1))
        return claimed, silent

    def _is_gated(self, records: Records, upload: Upload, client: Client | None, duty: Duty) -> bool:
        if self._gate is None or duty.kind is not Kind.SEND_GRANT:
            return False
        return self._gate.concerns(records, upload, client, self._clock.now())

    def _due_at(self, client: Client | None, upload: Upload, entry: OutboxEntry, now: float) -> float | None:
        """When to perform a due entry: now, later, or None when its client got the command and did not respond."""
        if entry.duty.kind not in COMMANDS:
            return now
        if client is None or not self._beats.latest(client).dispatchable(now):
            return PARKED
        # The command of a queued upload may not be published: the process that leased the entry may have ended before.
        if entry.tries == 0 or upload.state is State.QUEUED:
            return now
        # The step timer runs only while the client is connected.
        began_at = max(upload.touched_at, client.connected_at or 0.0)
        ends_at = began_at + self._patience(upload)
        # An instant further ahead was written by a clock that was wrong: how long the client was silent is not known.
        return ends_at if now < ends_at and began_at <= now + MAX_SKEW else None

    def _patience(self, upload: Upload) -> float:
        """The step timer (s); longer than the agent's pause between two reports of the same wait."""
        waits = upload.reason is not None and upload.reason.code in REPORTED
        return max(self._step_timeout, REPORTED_WAIT) if waits else self._step_timeout

    def _start(self, key: UploadKey, duty: Duty, work: _Work, *, deferred: bool = False, failed: bool = False) -> None:
        # A deferred success that is not proven becomes a duty, which must not count as running already.
        name = (key, "deferred" if deferred else duty.kind, duty.attempt, duty.target)
        if self._is_full(key.client_id):
            # Nothing is lost: the entry becomes due again, and a client repeats its request.
            self._log("duty.shed", {"client_id": key.client_id, "upload_id": key.upload_id, "duty": duty.kind})
            work.close()
            return
        if name in self._running and duty.kind not in COMMANDS:
            work.close()
            return
        self._looks += deferred
        task = asyncio.create_task(self._watch(key, duty, work, failed=failed))
        self._tasks.add(task)
        self._busy[key.client_id] += 1
        self._running[name] = task
        task.add_done_callback(lambda done: self._ended(name, done, deferred=deferred))

    def _is_full(self, client_id: str) -> bool:
        return len(self._tasks) >= MAX_RUNNING or self._busy[client_id] >= MAX_RUNNING_OF_ONE

    def _ended(self, name: _Name, task: asyncio.Task[None], *, deferred: bool) -> None:
        self._looks -= deferred
        self._tasks.discard(task)
        client_id = name[0].client_id
        self._busy[client_id] -= 1
        if not self._busy[client_id]:
            del self._busy[client_id]
        if self._running.get(name) is task:
            del self._running[name]

    async def _watch(self, key: UploadKey, duty: Duty, work: _Work, *, failed: bool) -> None:
        try:
            async with self._at_once:
                await self._handle(key, duty, work, failed=failed)
        finally:
            # Cancelled before its turn, the coroutine was never started.
            work.close()

    async def _handle(self, key: UploadKey, duty: Duty, work: _Work, *, failed: bool) -> None:
        wakes = self._wakes
        try:
            await work
        except (Transient, ObjectStoreForbids) as error:
            if isinstance(error, ObjectStoreDown | ObjectStoreForbids):
                self._probe.look_again()
            at_least = error.retry_after if isinstance(error, Transient) else Transient.retry_after
            await self._retry(key, duty, reason_of(error), at_least, at_once=wakes != self._wakes)
        except UnknownUpload:
            return
        except Exception as error:  # noqa: BLE001 - a fault in one upload must not stop the others
            self._log(
                "duty.fault",
                {"client_id": key.client_id, "upload_id": key.upload_id, "duty": duty.kind, "error": repr(error)},
            )
            # The error's text may hold anything, so the reason names only its class, and the log.
            text = f"a fault of the control plane's own ({type(error).__name__}, see its log); tried again"
            await self._retry(key, duty, Reason(ReasonCode.INTERNAL, text), FAULT_WAIT)
        else:
            # Only a published command leaves its entry as it is. All other work moves the state on, and so the entry.
            if failed and duty.kind in COMMANDS:
                await self._update(key, duty, lambda entry: replace(entry, last_error=None))

    async def _perform(self, upload: Upload, duty: Duty, *, gated: bool) -> None:
        try:
            with duty_span(self._tracer, upload, duty.kind):
                await self._do(upload, duty, gated=gated)
        except ObjectStoreRefused as error:
            facts = {"client_id": upload.client_id, "upload_id": upload.upload_id, "duty": duty.kind}
            self._log("duty.refused", {**facts, **job_and_trace(upload), "error": str(error)})
            if duty.kind not in _STEPS:
                await self._reschedule(upload.key, duty, reason_of(error), lambda _: REFUSED_WAIT)
            elif isinstance(error, ObjectStoreForbids):
                # An operator may replace a revoked key. If that does not happen, the deadline ends the upload.
                raise
            else:
                self._writer.enqueue(upload.key, set_back(upload, self._clock.now(), reason_of(error)))

    async def _do(self, upload: Upload, duty: Duty, *, gated: bool) -> None:
        key, commands = upload.key, self._commands
        match duty.kind:
            case Kind.SEND_DOWNLOAD:
                await commands.publish(upload.client_id, commands.build_download(upload))
                self._writer.enqueue_lazily(key, Dispatched(now=self._clock.now(), attempt=upload.attempt))
            case Kind.SEND_GRANT:
                await self._sender.send(upload, gated=gated)
            case Kind.SEND_CANCEL:
                await commands.publish(upload.client_id, commands.build_cancel(upload))
            case Kind.SEND_CLOSE:
                await commands.publish(upload.client_id, commands.build_close(upload))
                self._note_release(key)
            case Kind.CREATE_MULTIPART:
                await self._create_multipart(upload)
            case Kind.COMPLETE:
                await self._writer.submit(key, await self._completion.settle(upload))
            case Kind.ABORT_MULTIPART:
                # An S3 upload id is known only below its own key, which may be that of an earlier attempt.
                for s3_key in upload.keys:
                    await self._object_store.abort(s3_key, duty.target)
                await self._writer.submit(key, CleanupDone(now=self._clock.now(), target=duty.target))
            case Kind.DELETE_OBJECT:
                await self._delete(upload, duty.target)
            case Kind.RECEIPT:
                if self._receipts is not None:
                    await self._receipts(upload)
            case never:
                assert_never(never)

    async def _prove_deferred(self, upload: Upload, success: Succeeded) -> None:
        """Look at the object of a success that is not committed yet, and commit both together.

        While the object store is unavailable or slow, the success alone is committed, and its proof becomes a duty: the
        step timer and the deadline run until the success is committed.
        """
        try:
            async with asyncio.timeout(min(LONGEST_LOOK, self._step_timeout / 4)):
                with proof_span(self._tracer, upload):
                    settled = await self._completion.settle(upload)
        except Exception as error:
            self._writer.enqueue(upload.key, success)
            if not isinstance(error, ServiceError | TimeoutError):
                raise
        else:
            await self._writer.submit_proven(upload, success, settled)

    async def _close_unknown(self, key: UploadKey, attempt: int) -> None:
        await self._commands.publish(key.client_id, self._commands.build_close_unknown(key, attempt))
        self._note_release(key)

    def _note_release(self, key: UploadKey) -> None:
        if key in self._released:
            self._released[key].set()

    async def _create_multipart(self, upload: Upload) -> None:
        name = name_beside(upload.s3_key, sealed_name(upload.file_path or "", upload.options))
        s3_upload_id = await self._object_store.create_multipart(
            upload.s3_key, upload.object_token, upload.digest, file_name=name
        )
        created = MultipartCreated(now=self._clock.now(), attempt=upload.attempt, s3_upload_id=s3_upload_id)
        await self._writer.submit(upload.key, created)

    async def _delete(self, upload: Upload, s3_key: str) -> None:
        """Delete a stray object, if the object under the key is recognised as one of an abandoned attempt."""
        tokens = {stray.token for stray in upload.strays if stray.s3_key == s3_key}
        info = await self._object_store.head(s3_key)
        if info is not None and info.metadata.get(TOKEN_METADATA, f'"{info.etag}"') in tokens:
            await self._object_store.delete(s3_key)
        await self._writer.submit(upload.key, CleanupDone(now=self._clock.now(), target=s3_key))

    async def _retry(
        self, key: UploadKey, duty: Duty, reason: Reason, at_least: float, *, at_once: bool = False
    ) -> None:
        def wait(tries: int) -> float:
            return 0.0 if at_once else full_jitter(tries, longest=LONGEST_WAIT, at_least=min(at_least, LONGEST_WAIT))

        tries = await self._reschedule(key, duty, reason, wait)
        facts = {"client_id": key.client_id, "upload_id": key.upload_id, "duty": duty.kind, "tries": tries}
        self._log("duty.again", {**facts, "error": reason.text})

    async def _reschedule(self, key: UploadKey, duty: Duty, reason: Reason, wait: Callable[[int], float]) -> int:
        """Store why the duty failed, and retry it in `wait(tries)` seconds; returns the number of tries."""
        now = self._clock.now()

        def failed(entry: OutboxEntry) -> OutboxEntry:
            # A command that was not published starts no step timer, so it counts as not tried.
            tries = 0 if duty.kind in COMMANDS else entry.tries
            # Never before the state requires it: until then an object may still be written with its URL.
            due_at = max(entry.duty.due_at, now + wait(entry.tries))
            return replace(entry, due_at=due_at, tries=tries, last_error=Failure(reason, now))

        entry = await self._update(key, duty, failed)
        return 0 if entry is None else entry.tries

    async def _update(
        self, key: UploadKey, duty: Duty, change: Callable[[OutboxEntry], OutboxEntry]
    ) -> OutboxEntry | None:
        """Replace the entry of a duty, if the state still requires it; returns the entry as it was."""

        def work(records: Records) -> OutboxEntry | None:
            for entry in records.outbox.of(Subject.of_upload(key)):
                if entry.duty.kind is duty.kind and entry.duty.target == duty.target:
                    records.outbox.put(change(entry))
                    return entry
            return None

        try:
            return await self._database.write(work)
        except ServiceError as error:
            # The entry keeps its lease, so it becomes due again.
            self._log("outbox.failed", {"error": str(error)})
            return None


def reason_of(error: ServiceError) -> Reason:
    """Why a duty waits, from the error of its last try."""
    match error:
        case MessengerDown():
            code = ReasonCode.BROKER_UNAVAILABLE
        case BrokerRefused():
            code = ReasonCode.BROKER_REFUSED
        case DeviceBarred():
            code = ReasonCode(error.code)
        case DatabaseUnavailable():
            code = ReasonCode.DATABASE_UNAVAILABLE
        case ObjectStoreRefused() | ObjectStoreUnusable():
            code = ReasonCode.OBJECT_STORE_REFUSED
        case _:
            code = ReasonCode.OBJECT_STORE_UNAVAILABLE
    return Reason(code, str(error))
