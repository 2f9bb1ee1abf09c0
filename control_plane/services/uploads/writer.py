"""The one writer: the only code that changes an upload.

Rule: what arrived since the last commit is applied in order, and uploads and outbox rows are written in one
transaction; only then is anything said or done. A batch of one is the same code.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from control_plane.domain.errors import DomainError
from control_plane.domain.uploads.duties import COMMANDS, Duty, duties
from control_plane.domain.uploads.events import REMOTE_EVENTS, Event, Observed, Progressed
from control_plane.domain.uploads.machine import apply
from control_plane.domain.uploads.model import Upload, UploadKey
from control_plane.services.errors import (
    BadInput,
    DatabaseUnavailable,
    KeyReused,
    KeyTaken,
    ServiceError,
    UnknownClient,
    UnknownUpload,
    VersionConflict,
)
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.database import PARKED, Database, IdempotencyRecord, OutboxEntry, Records, Subject
from control_plane.services.ports.log import EventLog
from control_plane.services.uploads.effects import Effects, OpenUploads, Perform, ahead_of, same_object
from control_plane.services.uploads.quota import Quota

MAX_BATCH: Final = 256
MAX_WAITING: Final = 10_000
"""Events that may wait for a commit. Beyond it remote ones are shed: their senders ask again."""

NOTE_FOR: Final = 0.25
"""Seconds for which an event that nobody waits for may wait for company."""

LEASE: Final = 30.0
"""Seconds after which a duty that somebody began is anybody's again."""

_TRIES: Final = 5


Plan = Callable[[Records], Upload]
"""Makes a new upload of what the database holds; called in the transaction, perhaps more than once."""


@dataclass(slots=True)
class _Entry:
    key: UploadKey
    event: Event | None
    then: Event | None = None
    """What came of `event` before it was committed, and of the upload as it was `seen`."""
    seen: Upload | None = None
    new: Upload | None = None
    plan: Plan | None = None
    remember: IdempotencyRecord | None = None
    done: asyncio.Future[Upload] | None = None
    may_wait: bool = False
    """Whether `event` may be committed later, together with what comes of it."""


@dataclass(slots=True)
class _Draft:
    """One upload while a batch is applied to it."""

    before: Upload | None
    after: Upload
    urgent: dict[tuple[str, str], Duty] = field(default_factory=dict)
    spoke: bool = False


@dataclass(slots=True)
class _Outcome:
    """What one transaction came to: an answer for every entry, effects for every upload that was touched.

    `events` are told once it is committed: a transaction may run twice, or not at all.
    """

    answers: list[Upload | Exception] = field(default_factory=list)
    effects: list[Effects] = field(default_factory=list)
    drafts: dict[UploadKey, _Draft] = field(default_factory=dict)
    events: list[tuple[str, Mapping[str, str | int | None]]] = field(default_factory=list)


class Uploads:
    """Takes events for uploads and commits them in batches.

    `owner` is whose uploads carry duties here; others are history. `step_timeout` (s) is how long a client may be
    silent after it was told something. `linger` (s) is how long a note waits for company.
    """

    def __init__(self, store: Database, clock: Clock, log: EventLog, *, owner: str, step_timeout: float) -> None:
        self._store = store
        self._clock = clock
        self._log = log
        self._owner = owner
        self._step_timeout = step_timeout
        self._quota = Quota(clock)
        self._waiting: asyncio.Queue[_Entry] = asyncio.Queue(MAX_WAITING)
        self._notes: list[_Entry] = []
        self._open = OpenUploads()
        self._busy = False
        self.linger = NOTE_FOR
        self._perform: Perform = lambda _effects: None

    def performs_with(self, perform: Perform) -> None:
        """Name who does what a commit decided; called once, by the composition root."""
        self._perform = perform

    async def submit(
        self, key: UploadKey, event: Event, then: Event | None = None, seen: Upload | None = None
    ) -> Upload:
        """Apply one event, and what came of it, and return the upload as committed.

        `then` was made of the upload as it was `seen`: of another object it means nothing, and is a duty still.

        `UnknownUpload`, `IllegalTransition`, or `Transient` when it could not be committed.
        """
        return await self._put(_Entry(key, event, then, seen))

    async def create(self, key: UploadKey, plan: Plan, remember: IdempotencyRecord | None = None) -> Upload:
        """Commit a new upload, or return the one that `remember` already stands for: then nothing is planned.

        `KeyTaken` when its id or object key is in use, `KeyReused` when the key was used for another request, and
        `UnknownClient` or `BadInput` as `plan` has it.
        """
        return await self._put(_Entry(key, None, plan=plan, remember=remember))

    def hear(self, key: UploadKey, event: Event, *, new: Upload | None = None, may_wait: bool = False) -> None:
        """Take what a device said. `new` is inserted first when nobody knows the upload.

        With `may_wait` a success whose proof takes one look at the store is committed when that was taken.

        Never waits: when too much waits already it is dropped and counted, for the device will say it again.
        """
        # While a batch is committed the next one gathers: to look at the database for many at once costs little.
        if may_wait and not self._busy and (look := self._open.ahead_of(key, event)) is not None:
            self._perform(look)
            return
        try:
            self._waiting.put_nowait(_Entry(key, event, new=new, may_wait=may_wait))
        except asyncio.QueueFull:
            self._log("event.shed", {"client_id": key.client_id, "event": type(event).__name__})

    def note(self, key: UploadKey, event: Event) -> None:
        """Take what nothing waits for: it is committed with the next batch, or by itself a little later.

        A client answers a command at once: a commit of its own for having said it would stand in the answer's way.
        """
        self._notes.append(_Entry(key, event))
        if len(self._notes) == 1:
            asyncio.get_running_loop().call_later(self.linger, self._notes_are_due)

    def _notes_are_due(self) -> None:
        notes, self._notes = self._notes, []
        for entry in notes:
            assert entry.event is not None  # noqa: S101 - `note` takes events only
            self.hear(entry.key, entry.event)

    async def run(self) -> None:
        """Commit batches until cancelled."""
        while True:
            first = await self._waiting.get()
            batch, self._notes = [*self._notes[:MAX_BATCH], first], self._notes[MAX_BATCH:]
            while len(batch) < MAX_BATCH and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            self._busy = True
            await self._commit(batch)
            self._busy = False

    async def _put(self, entry: _Entry) -> Upload:
        entry.done = asyncio.get_running_loop().create_future()
        await self._waiting.put(entry)
        return await entry.done

    async def _commit(self, batch: list[_Entry]) -> None:
        try:
            outcome = await self._write(batch)
        except Exception as error:  # noqa: BLE001 - one event that cannot be committed must not take others with it
            await self._uncommitted(batch, error)
            return
        for draft in outcome.drafts.values():
            if draft.after.owner == self._owner:
                self._open.committed(draft.after)
        # First what a device waits for, then what an operator does.
        for effects in outcome.effects:
            self._perform(effects)
        for entry, result in zip(batch, outcome.answers, strict=True):
            _settle(entry, result)
        for event, facts in outcome.events:
            self._log(event, facts)

    async def _uncommitted(self, batch: list[_Entry], error: Exception) -> None:
        """Say so; when it is not the database that is away, one event is at fault, and the others are tried alone."""
        facts = {"events": len(batch), "error": str(error)}
        self._log("commit.failed", facts if isinstance(error, ServiceError) else {**facts, "fault": error})
        if len(batch) > 1 and not isinstance(error, DatabaseUnavailable):
            for entry in batch:
                await self._commit([entry])
            return
        for entry in batch:
            _settle(entry, error)

    async def _write(self, batch: list[_Entry]) -> _Outcome:
        for _ in range(_TRIES):
            try:
                return await self._store.write(lambda records: self._transact(records, batch))
            except VersionConflict:
                # Another replica changed one of them: all was rolled back, so read again and apply again.
                continue
        message = "the uploads are changed by somebody else faster than they can be read"
        raise DatabaseUnavailable(message)

    def _transact(self, records: Records, batch: list[_Entry]) -> _Outcome:
        outcome = _Outcome()
        for entry in batch:
            try:
                outcome.answers.append(self._apply(records, entry, outcome))
            except (DomainError, BadInput, KeyReused, KeyTaken, UnknownClient, UnknownUpload) as error:
                outcome.answers.append(error)
                if isinstance(error, UnknownUpload):
                    outcome.effects.extend(_released(entry))
        for draft in outcome.drafts.values():
            outcome.effects.extend(self._save(records, draft))
        return outcome

    def _apply(self, records: Records, entry: _Entry, outcome: _Outcome) -> Upload:
        drafts = outcome.drafts
        draft = drafts.get(entry.key) or _loaded(records, entry.key)
        if entry.event is None:
            return self._insert(records, entry, outcome)
        if draft is None:
            if entry.new is None:
                raise UnknownUpload(entry.key.upload_id)
            if not self._quota.take(entry.key.client_id):
                outcome.events.append(("upload.refused", {"client_id": entry.key.client_id}))
                return entry.new
            records.uploads.add(entry.new)
            draft = _Draft(entry.new, entry.new)
        drafts[entry.key] = draft
        before = draft.after
        if not self._concerns(before, entry.event):
            return before
        draft.after, effects = apply(before, entry.event)
        if entry.may_wait and draft.before is before:
            look = ahead_of(before, draft.after, effects, entry.event)
            if look is not None:
                del drafts[entry.key]
                outcome.effects.append(look)
                return before
        if entry.then is not None and (entry.seen is None or same_object(entry.seen, draft.after)):
            settled, more = apply(draft.after, entry.then)
            # Where it means nothing any more, what `event` came to is still to be done: to release the client, say.
            draft.after, effects = (draft.after, effects) if settled is draft.after else (settled, more)
        draft.spoke = draft.spoke or isinstance(entry.event, REMOTE_EVENTS)
        draft.urgent.update({(duty.kind, duty.target): duty for duty in effects})
        outcome.events.extend(_told(before, draft.after, entry.event))
        return draft.after

    def _concerns(self, upload: Upload, event: Event) -> bool:
        """Whether this event may say something about this upload.

        Ours is not observed: a broker without No Local plays our own commands back, and anyone may send one. Of
        another owner's it is only noted how far it came: what its client answers is that owner's to understand.
        """
        if upload.owner == self._owner:
            return not isinstance(event, Observed)
        return isinstance(event, Progressed) or not isinstance(event, REMOTE_EVENTS)

    def _insert(self, records: Records, entry: _Entry, outcome: _Outcome) -> Upload:
        plan, remember = entry.plan, entry.remember
        assert plan is not None  # noqa: S101 - for the type checker: an entry has an event or a plan
        if remember is not None:
            known = records.idempotency.get(remember.caller, remember.client_id, remember.idempotency_key)
            if known is not None:
                return _same_request(records, known, remember)
        upload = plan(records)
        records.uploads.add(upload)
        if remember is not None:
            records.idempotency.add(remember)
        outcome.drafts[upload.key] = _Draft(None, upload, {(one.kind, one.target): one for one in duties(upload)})
        outcome.events.append(("upload.created", {"upload_id": upload.upload_id, "client_id": upload.client_id}))
        return upload

    def _save(self, records: Records, draft: _Draft) -> list[Effects]:
        """Write one upload and make its outbox rows what its state obliges to."""
        upload = draft.after
        if draft.before is not None and draft.before is not upload:
            upload = records.uploads.save(draft.before, upload)
        if upload.owner != self._owner:
            return []
        now = self._clock.now()
        heard = self._hears(records, draft, now)
        if draft.before is None or draft.before is not draft.after:
            self._keep_tasks(records, upload, draft, heard=heard)
        urgent = tuple(
            duty for duty in draft.urgent.values() if duty.due_at <= now and (heard or duty.kind not in COMMANDS)
        )
        return [Effects(upload.key, upload, urgent, upload.attempt)] if urgent else []

    def _keep_tasks(self, records: Records, upload: Upload, draft: _Draft, *, heard: bool) -> None:
        now = self._clock.now()
        rows = {(task.duty.kind, task.duty.target): task for task in records.outbox.of(Subject.of_upload(upload.key))}
        kept = {(duty.kind, duty.target): duty for duty in duties(upload)}
        for name, task in rows.items():
            if name not in kept:
                records.outbox.drop(Subject.of_upload(upload.key), task.duty.kind, task.duty.target)
        for name, duty in kept.items():
            row = rows.get(name)
            if row is not None and row.duty.attempt == duty.attempt and name not in draft.urgent:
                continue
            records.outbox.put(self._task(upload, duty, now, heard=heard))

    def _task(self, upload: Upload, duty: Duty, now: float, *, heard: bool) -> OutboxEntry:
        """The row of a duty: under our lease when we are about to do it, parked when its client is away."""
        if duty.due_at > now:
            return OutboxEntry(Subject.of_upload(upload.key), duty, duty.due_at)
        if duty.kind not in COMMANDS:
            return OutboxEntry(Subject.of_upload(upload.key), duty, now + LEASE, tries=1)
        return (
            OutboxEntry(Subject.of_upload(upload.key), duty, now + self._step_timeout, tries=1)
            if heard
            else OutboxEntry(Subject.of_upload(upload.key), duty, PARKED)
        )

    @staticmethod
    def _hears(records: Records, draft: _Draft, now: float) -> bool:
        """Whether a command reaches the client. One that just spoke is there, even if its presence is still to come."""
        client = records.clients.get(draft.after.client_id)
        if client is None:
            return draft.spoke
        return client.dispatchable(now) or (draft.spoke and client.answerable(now))


def _released(entry: _Entry) -> list[Effects]:
    """Let go of a client that reports an upload nobody knows. A status does not say whose its upload is."""
    event = entry.event
    if not isinstance(event, REMOTE_EVENTS) or isinstance(event, Progressed):
        return []
    return [Effects(entry.key, None, (), event.attempt)]


def _loaded(records: Records, key: UploadKey) -> _Draft | None:
    upload = records.uploads.get(key)
    return None if upload is None else _Draft(upload, upload)


def _same_request(records: Records, known: IdempotencyRecord, now: IdempotencyRecord) -> Upload:
    if known.body != now.body:
        message = f"Idempotency-Key {now.idempotency_key!r} was used for another request: use a new one"
        raise KeyReused(message)
    upload = records.uploads.get(UploadKey(known.client_id, known.upload_id))
    if upload is None:
        raise UnknownUpload(known.upload_id)
    return upload


def _told(before: Upload, after: Upload, event: Event) -> list[tuple[str, Mapping[str, str | int | None]]]:
    """A change of the state, or that a device repeated itself."""
    if before.state is not after.state:
        return [("upload.state", _facts(before, after))]
    if before is after and isinstance(event, REMOTE_EVENTS):
        said = f"{type(event).__name__} of attempt {event.attempt}"
        return [("event.repeated", {"upload_id": after.upload_id, "client_id": after.client_id, "said": said})]
    return []


def _facts(before: Upload, after: Upload) -> dict[str, str | int | None]:
    return {
        "upload_id": after.upload_id,
        "client_id": after.client_id,
        "attempt": after.attempt,
        "was": before.state,
        "state": after.state,
        "error": after.error,
    }


def _settle(entry: _Entry, result: Upload | Exception) -> None:
    if entry.done is None or entry.done.done():
        return
    if isinstance(result, Exception):
        entry.done.set_exception(result)
    else:
        entry.done.set_result(result)
