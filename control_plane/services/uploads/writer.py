"""The one writer: the only code that changes an upload.

Rule: events that arrived since the last commit are applied in order; uploads, outbox entries and changes are written in
one transaction; only then are the listeners called, which publish and act. A batch of one takes the same path.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from control_plane.domain.changes import Change, UploadCreated, UploadStateChanged
from control_plane.domain.clients import Client
from control_plane.domain.errors import DomainError
from control_plane.domain.uploads.duties import COMMANDS, Duty, Kind, duties
from control_plane.domain.uploads.events import (
    REMOTE_EVENTS,
    AfterReported,
    CancelRequested,
    DeadlineMoved,
    Dispatched,
    Event,
    Heard,
    Observed,
    OverQuota,
    Progressed,
    Succeeded,
)
from control_plane.domain.uploads.machine import apply
from control_plane.domain.uploads.model import TERMINAL, State, Upload, UploadKey
from control_plane.services.clients.beats import Beats
from control_plane.services.errors import (
    BadInput,
    DatabaseUnavailable,
    KeyReused,
    KeyTaken,
    QuotaExceeded,
    ServiceError,
    UnknownClient,
    UnknownUpload,
    VersionConflict,
)
from control_plane.services.fair_queue import FairQueue
from control_plane.services.gate.keeper import GateKeeper
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.database import PARKED, Database, IdempotencyRecord, OutboxEntry, Records, Subject
from control_plane.services.ports.log import EventLog
from control_plane.services.uploads.completion import Settled
from control_plane.services.uploads.quota import Quota

MAX_BATCH: Final = 256
MAX_WAITING: Final = 10_000
"""Events that may wait for a commit. Beyond it events of devices are dropped: their senders repeat them."""

MAX_OF_ONE: Final = 1_024
"""Events of one client that may wait: at a reconnect its 256 open uploads may have a response and a progress each."""

OPERATORS: Final = ""
"""The lane of what operators create: no client's backlog delays a trigger."""

LINGER: Final = 0.25
"""Seconds for which `enqueue_lazily` may hold an event back."""

LEASE: Final = 30.0
"""Seconds after which a duty that another process began is due again."""

_TRIES: Final = 5


@dataclass(frozen=True, slots=True)
class Decision:
    """The duties of one upload to perform now: after the commit that decided them.

    `upload` is None when no upload has this key: then the client is released from it. With `deferred` that event is not
    committed yet: its object is looked at first, which changes nothing and may be repeated, and then the event is
    committed together with the result (decision 10). Without `gated` the gate is known to let a grant of
    this upload pass.
    """

    key: UploadKey
    upload: Upload | None
    duties: tuple[Duty, ...]
    attempt: int = 1
    deferred: Succeeded | None = None
    gated: bool = True


@dataclass(frozen=True, slots=True)
class Commit:
    """What one transaction of the writer came to."""

    decisions: tuple[Decision, ...]
    changes: tuple[Change, ...]


Listener = Callable[[Commit], None]
"""Called after each commit, on the event loop; it must not block and must not raise."""


EndHook = Callable[[Records, Sequence[Upload]], None]
"""Called in the transaction in which uploads of jobs end, before its commit."""

Plan = Callable[[Records], Upload]
"""Makes a new upload from the records; called in the transaction, and again when the transaction is repeated."""

Recorder = Callable[[Records, Upload], None]
"""Called in the transaction that applied an entry, with the upload as it will be: it records the act."""

_Name = tuple[Kind, str]
"""Names a duty of one upload: its kind and target."""


@dataclass(frozen=True, slots=True)
class _Proof:
    """The result of a completion, and the upload for which it was found."""

    settled: Settled
    seen: Upload


@dataclass(slots=True)
class _Happened:
    """An event to apply. `new` makes the upload when it is unknown; `may_defer` allows a deferred success."""

    key: UploadKey
    event: Event
    new: Plan | None = None
    proof: _Proof | None = None
    may_defer: bool = False
    recorder: Recorder | None = None
    result: asyncio.Future[Upload] | None = None


@dataclass(slots=True)
class _Creation:
    """An upload to create, unless `idempotency` names one that was created before."""

    plan: Plan
    idempotency: IdempotencyRecord | None
    recorder: Recorder | None = None
    result: asyncio.Future[Upload] | None = None


_Entry = _Happened | _Creation


@dataclass(slots=True)
class _Draft:
    """One upload while a batch is applied to it. `urgent` are the duties to perform right after the commit."""

    before: Upload | None
    after: Upload
    urgent: dict[_Name, Duty] = field(default_factory=dict)
    responded: bool = False


@dataclass(slots=True)
class _Outcome:
    """What one transaction came to: a result for each entry, a draft for each upload.

    `log` is written after the commit: a transaction may run twice, or not at all.
    """

    results: list[Upload | Exception] = field(default_factory=list)
    drafts: dict[UploadKey, _Draft] = field(default_factory=dict)
    decisions: list[Decision] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    log: list[tuple[str, Mapping[str, str | int | None]]] = field(default_factory=list)


class UploadWriter:
    """Takes events for uploads and commits them in batches.

    Uploads of `owner` carry duties; all others are observed. `step_timeout` (s) is how long a client may be silent
    after a command. `linger` (s) is how long `enqueue_lazily` holds an event back at most.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        log: EventLog,
        *,
        owner: str,
        step_timeout: float,
        quota: Quota,
        beats: Beats,
        gate: GateKeeper | None = None,
    ) -> None:
        self._beats = beats
        self._gate = gate
        self._database = database
        self._clock = clock
        self._log = log
        self._owner = owner
        self._step_timeout = step_timeout
        self._quota = quota
        self._waiting: FairQueue[_Entry] = FairQueue(most=MAX_WAITING, most_of_one=MAX_OF_ONE)
        self._lazy: list[_Happened] = []
        self._listeners: list[Listener] = []
        self._on_end: EndHook | None = None
        self.linger = LINGER

    @property
    def backlog(self) -> int:
        """Events that wait for their commit."""
        return len(self._waiting)

    def on_commit(self, listener: Listener) -> None:
        """Call `listener` after each commit; listeners are called in the order in which they were added."""
        self._listeners.append(listener)

    def on_end(self, hook: EndHook) -> None:
        """Call `hook` in each transaction in which uploads of jobs end."""
        self._on_end = hook

    def admit(self, records: Records, upload: Upload, now: float, *, reachable: bool) -> Decision:
        """Insert a new upload with its duties in a transaction of the caller, who gives the decision to `announce`.

        `reachable`: its client is connected. `KeyTaken` and `QuotaExceeded` leave the transaction usable.
        """
        self._quota.require_place(records, upload.client_id)
        records.uploads.add(upload)
        subject = Subject.of_upload(upload.key)
        urgent = []
        for duty in duties(upload):
            records.outbox.put(self._entry(subject, duty, now, reachable=reachable))
            if duty.due_at <= now and (reachable or duty.kind not in COMMANDS):
                urgent.append(duty)
        return Decision(upload.key, upload, tuple(urgent), upload.attempt)

    def move_deadline(self, records: Records, upload: Upload, deadline: float, now: float) -> None:
        """Move the deadline (s) of an open upload, in a transaction of the caller; `VersionConflict`."""
        moved, _ = apply(upload, DeadlineMoved(now=now, deadline=deadline))
        if moved is not upload:
            records.uploads.save(upload, moved)

    def announce(self, commit: Commit) -> None:
        """Call the listeners after a transaction of the caller was committed."""
        for listener in self._listeners:
            listener(commit)

    async def submit(self, key: UploadKey, event: Event, recorder: Recorder | None = None) -> Upload:
        """Apply one event and return the upload as committed; `recorder` is called in the same transaction.

        `UnknownUpload`, `IllegalTransition`, or `Transient` when it could not be committed.
        """
        return await self._put(_Happened(key, event, recorder=recorder))

    async def submit_proven(self, seen: Upload, success: Succeeded, settled: Settled) -> Upload:
        """Apply a deferred success and the result of its completion, in one commit; errors as for `submit`.

        `settled` was found for the upload as `seen`. When the upload has another object by now, only the success is
        applied, and the completion is a duty.
        """
        return await self._put(_Happened(seen.key, success, proof=_Proof(settled, seen)))

    async def create(
        self, plan: Plan, idempotency: IdempotencyRecord | None = None, recorder: Recorder | None = None
    ) -> Upload:
        """Commit a new upload; `recorder` is called in the same transaction.

        When one exists for this idempotency key, return that one and call neither.

        `KeyTaken` when its id or object key is in use, `KeyReused` when the key was used for another request,
        `QuotaExceeded`, and `UnknownClient` or `BadInput` from `plan`.
        """
        return await self._put(_Creation(plan, idempotency, recorder))

    def enqueue_command(self, key: UploadKey, event: Heard, new: Plan, recorder: Recorder | None = None) -> None:
        """Apply the event of a command that another sender published; `new` makes the upload when it is unknown.

        Never waits and drops nothing: the inbox limits the commands that are received.
        """
        self._waiting.put(key.client_id, _Happened(key, event, new=new, recorder=recorder))

    def enqueue(self, key: UploadKey, event: Event, *, may_defer: bool = False) -> None:
        """Apply one event with the next batch.

        With `may_defer` a success that one look at the object store proves is committed after that look. Never
        waits: when the queue, or the client's part of it, is full, the event is dropped and counted, and the device
        repeats it.
        """
        self._enqueue(_Happened(key, event, may_defer=may_defer))

    def enqueue_lazily(self, key: UploadKey, event: Event) -> None:
        """Apply an event that is not urgent with the next batch, or alone after `linger` seconds.

        A client responds to a command at once: a separate commit of the publication would delay its answer.
        """
        self._lazy.append(_Happened(key, event))
        if len(self._lazy) == 1:
            asyncio.get_running_loop().call_later(self.linger, self._flush_lazy)

    async def run(self) -> None:
        """Commit batches until cancelled."""
        while True:
            first = await self._waiting.get()
            batch: list[_Entry] = [*self._lazy[:MAX_BATCH], first]
            self._lazy = self._lazy[MAX_BATCH:]
            while len(batch) < MAX_BATCH and self._waiting:
                batch.append(self._waiting.get_nowait())
            await self._commit(batch)

    def _flush_lazy(self) -> None:
        lazy, self._lazy = self._lazy, []
        for entry in lazy:
            self._enqueue(entry)

    def _enqueue(self, entry: _Happened) -> None:
        if not self._waiting.offer(entry.key.client_id, entry):
            self._log("event.shed", {**_ids(entry.key), "event": type(entry.event).__name__})

    async def _put(self, entry: _Entry) -> Upload:
        entry.result = asyncio.get_running_loop().create_future()
        self._waiting.put(entry.key.client_id if isinstance(entry, _Happened) else OPERATORS, entry)
        return await entry.result

    async def _commit(self, batch: list[_Entry]) -> None:
        try:
            outcome = await self._write(batch)
        except Exception as error:  # noqa: BLE001 - an event that cannot be committed must not affect the others
            await self._failed(batch, error)
            return
        self.announce(Commit(tuple(outcome.decisions), tuple(outcome.changes)))
        for entry, result in zip(batch, outcome.results, strict=True):
            _resolve(entry, result)
        for event, facts in outcome.log:
            self._log(event, facts)

    async def _failed(self, batch: list[_Entry], error: Exception) -> None:
        """Log it. Unless the database is unavailable, one entry is at fault: then each is committed alone."""
        facts = {"events": len(batch), "error": str(error)}
        self._log("commit.failed", facts if isinstance(error, ServiceError) else {**facts, "fault": error})
        if len(batch) > 1 and not isinstance(error, DatabaseUnavailable):
            for entry in batch:
                await self._commit([entry])
            return
        for entry in batch:
            _resolve(entry, error)

    async def _write(self, batch: list[_Entry]) -> _Outcome:
        for _ in range(_TRIES):
            try:
                return await self._database.write(lambda records: self._transact(records, batch))
            except VersionConflict:
                # Another replica changed an upload: the transaction was rolled back, so read and apply again.
                self._log("write.fenced", {"what": "uploads"})
                continue
        message = "other replicas change the uploads faster than this one can read them"
        raise DatabaseUnavailable(message)

    def _transact(self, records: Records, batch: list[_Entry]) -> _Outcome:
        outcome = _Outcome()
        for entry in batch:
            try:
                if isinstance(entry, _Creation):
                    result = self._create(records, entry, outcome)
                else:
                    result = self._apply(records, entry, outcome)
            except (DomainError, BadInput, KeyReused, KeyTaken, QuotaExceeded, UnknownClient, UnknownUpload) as error:
                outcome.results.append(error)
                if isinstance(error, UnknownUpload):
                    outcome.decisions.extend(_release(entry))
                elif isinstance(entry, _Happened) and entry.new is not None:
                    outcome.log.append(("upload.refused", {**_ids(entry.key), "error": str(error)}))
            else:
                outcome.results.append(result)
        for draft in outcome.drafts.values():
            outcome.decisions.extend(self._save(records, draft))
        ended = [draft.after for draft in outcome.drafts.values() if _has_ended(draft)]
        if self._on_end is not None and ended:
            self._on_end(records, ended)
        if outcome.changes:
            records.changes.append(outcome.changes)
        return outcome

    def _create(self, records: Records, entry: _Creation, outcome: _Outcome) -> Upload:
        idempotency = entry.idempotency
        if idempotency is not None:
            known = records.idempotency.get(idempotency.caller, idempotency.client_id, idempotency.idempotency_key)
            if known is not None:
                return _same_request(records, known, idempotency)
        upload = entry.plan(records)
        self._quota.require_place(records, upload.client_id)
        records.uploads.add(upload)
        if idempotency is not None:
            records.idempotency.add(idempotency)
        outcome.drafts[upload.key] = _Draft(None, upload, _by_name(duties(upload)))
        outcome.changes.append(_created(upload))
        if entry.recorder is not None:
            entry.recorder(records, upload)
        return upload

    def _apply(self, records: Records, entry: _Happened, outcome: _Outcome) -> Upload:
        key, event = entry.key, entry.event
        draft = outcome.drafts.get(key) or _load(records, key)
        if draft is None:
            if entry.new is None:
                raise UnknownUpload(key.upload_id)
            draft = self._commanded(records, entry.new, outcome)
        elif entry.new is not None and isinstance(event, Dispatched | CancelRequested):
            # The command of an upload that is known: another replica published it, or a person typed it again.
            return draft.after
        before = draft.after
        if not self._accepts(before, event):
            return before
        if isinstance(event, Observed) and not event.may_change(before.owner):
            outcome.log.append(("upload.refused", {**_ids(key), "error": "its key is not for this owner"}))
            return before
        after, urgent = apply(before, event)
        unsaved = (one.after for one in outcome.drafts.values() if one.before is None or one.before.file_size is None)
        refusal = self._quota.refusal(records, before, after, event.now, unsaved)
        if refusal is not None:
            after, urgent = apply(before, OverQuota(now=event.now, text=refusal))
        if entry.may_defer and draft.before is before:
            deferred = _deferred_success(before, after, urgent, event)
            if deferred is not None:
                outcome.decisions.append(deferred)
                return before
        if entry.proof is not None and _same_object(entry.proof.seen, after):
            settled, more = apply(after, entry.proof.settled)
            # A result that no longer applies leaves the duties of the event itself, such as the client's release.
            after, urgent = (after, urgent) if settled is after else (settled, more)
        outcome.drafts[key] = draft
        draft.after = after
        draft.responded = draft.responded or isinstance(event, REMOTE_EVENTS)
        draft.urgent.update(_by_name(urgent))
        if entry.recorder is not None:
            entry.recorder(records, after)
        if before.state is not after.state:
            outcome.changes.append(_state_changed(before, after, event))
        elif before is after and isinstance(event, REMOTE_EVENTS):
            outcome.log.append(("event.repeated", _repeated(after, event.attempt, type(event).__name__)))
        return after

    def _commanded(self, records: Records, plan: Plan, outcome: _Outcome) -> _Draft:
        """The upload of a command that another sender published."""
        upload = plan(records)
        self._quota.require_place(records, upload.client_id)
        records.uploads.add(upload)
        outcome.changes.append(_created(upload))
        return _Draft(upload, upload)

    def _accepts(self, upload: Upload, event: Event) -> bool:
        """Whether this event may change this upload.

        An upload of this owner is not observed: a broker without No Local returns this owner's own commands, and anyone
        may publish one. An upload of another owner is only observed: its client's responses are for that owner.
        """
        if upload.owner == self._owner:
            return not isinstance(event, Observed)
        return isinstance(event, Progressed | AfterReported) or not isinstance(event, REMOTE_EVENTS)

    def _save(self, records: Records, draft: _Draft) -> list[Decision]:
        """Write one upload, and the outbox entries that its state requires."""
        upload = draft.after
        changed = draft.before is not upload
        if changed and draft.before is not None:
            upload = records.uploads.save(draft.before, upload)
        if upload.owner != self._owner:
            return []
        now = self._clock.now()
        if changed and self._gate is not None and draft.before is not None and upload.state in TERMINAL:
            self._gate.forget(records, draft.before)
        client = records.clients.get(upload.client_id)
        reachable = self._reachable(client, draft, now)
        if changed:
            self._save_entries(records, upload, draft, now, reachable=reachable)
        urgent = tuple(
            duty for duty in draft.urgent.values() if duty.due_at <= now and (reachable or duty.kind not in COMMANDS)
        )
        if not urgent:
            return []
        grants = any(duty.kind is Kind.SEND_GRANT for duty in urgent)
        gated = grants and self._gate is not None and self._gate.concerns(records, upload, client, now)
        return [Decision(upload.key, upload, urgent, upload.attempt, gated=gated)]

    def _reachable(self, client: Client | None, draft: _Draft, now: float) -> bool:
        """Whether a command reaches the client. One that just responded is connected; its presence may come later."""
        if client is None:
            return draft.responded
        return self._beats.latest(client).dispatchable(now) or (draft.responded and client.answerable(now))

    def _save_entries(self, records: Records, upload: Upload, draft: _Draft, now: float, *, reachable: bool) -> None:
        subject = Subject.of_upload(upload.key)
        stored = {(entry.duty.kind, entry.duty.target): entry for entry in records.outbox.of(subject)}
        required = _by_name(duties(upload))
        for kind, target in stored:
            if (kind, target) not in required:
                records.outbox.drop(subject, kind, target)
        for name, duty in required.items():
            entry = stored.get(name)
            if entry is None or entry.duty.attempt != duty.attempt or name in draft.urgent:
                records.outbox.put(self._entry(subject, duty, now, reachable=reachable))

    def _entry(self, subject: Subject, duty: Duty, now: float, *, reachable: bool) -> OutboxEntry:
        """The entry of a duty: leased when it is performed after this commit, parked when its client is offline."""
        if duty.due_at > now:
            return OutboxEntry(subject, duty, duty.due_at)
        if duty.kind not in COMMANDS:
            return OutboxEntry(subject, duty, now + LEASE, tries=1)
        if reachable:
            return OutboxEntry(subject, duty, now + self._step_timeout, tries=1)
        return OutboxEntry(subject, duty, PARKED)


def _resolve(entry: _Entry, result: Upload | Exception) -> None:
    """Give the result to the caller that waits for it, if there is one."""
    if entry.result is None or entry.result.done():
        return
    if isinstance(result, Exception):
        entry.result.set_exception(result)
    else:
        entry.result.set_result(result)


def _release(entry: _Entry) -> list[Decision]:
    """Release a client that reports an unknown upload. A status is no such report: it does not name the owner."""
    if isinstance(entry, _Creation):
        return []
    event = entry.event
    if not isinstance(event, REMOTE_EVENTS) or isinstance(event, Progressed):
        return []
    return [Decision(entry.key, None, (), event.attempt)]


def _has_ended(draft: _Draft) -> bool:
    """Whether this transaction ends an upload of a job."""
    after, before = draft.after, draft.before
    return after.job_id is not None and after.state in TERMINAL and (before is None or before.state not in TERMINAL)


def _load(records: Records, key: UploadKey) -> _Draft | None:
    upload = records.uploads.get(key)
    return None if upload is None else _Draft(upload, upload)


def _ids(key: UploadKey) -> dict[str, str]:
    return {"client_id": key.client_id, "upload_id": key.upload_id}


def _by_name(some: tuple[Duty, ...]) -> dict[_Name, Duty]:
    return {(duty.kind, duty.target): duty for duty in some}


def _same_request(records: Records, known: IdempotencyRecord, now: IdempotencyRecord) -> Upload:
    if known.body != now.body:
        message = f"Idempotency-Key {now.idempotency_key!r} was used for another request: use a new one"
        raise KeyReused(message)
    upload = records.uploads.get(UploadKey(known.client_id, known.upload_id))
    if upload is None:
        raise UnknownUpload(known.upload_id)
    return upload


def _created(upload: Upload) -> UploadCreated:
    return UploadCreated(
        at=upload.created_at, client_id=upload.client_id, upload_id=upload.upload_id, job_id=upload.job_id
    )


def _state_changed(before: Upload, after: Upload, event: Event) -> UploadStateChanged:
    return UploadStateChanged(
        at=event.now,
        client_id=after.client_id,
        upload_id=after.upload_id,
        attempt=after.attempt,
        was=before.state,
        state=after.state,
        error=after.error,
        job_id=after.job_id,
    )


def _repeated(upload: Upload, attempt: int, event: str) -> dict[str, str | int | None]:
    said = f"{event} of attempt {attempt}"
    return {"upload_id": upload.upload_id, "client_id": upload.client_id, "said": said}


def _deferred_success(before: Upload, after: Upload, duties: tuple[Duty, ...], event: Event) -> Decision | None:
    """The decision that defers `event`: a success that completes an object which was PUT whole; else None.

    Nothing is lost when the process ends before it is committed: the client gets no answer, and reports it again.
    """
    finished = before.state is not State.COMPLETING and after.state is State.COMPLETING
    if not (finished and after.one_put and isinstance(event, Succeeded)):
        return None
    completion = tuple(duty for duty in duties if duty.kind is Kind.COMPLETE)
    return Decision(after.key, after, completion, after.attempt, event)


def _same_object(seen: Upload, now: Upload) -> bool:
    """Whether a proof for `seen` also proves `now`: the same object with the same digests."""
    return _object_of(seen) == _object_of(now)


def _object_of(upload: Upload) -> tuple[object, ...]:
    digests = {number: part.digest for number, part in upload.parts.items()}
    return upload.s3_key, upload.object_token, upload.file_size, upload.one_put, digests
