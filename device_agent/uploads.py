"""The table of all uploads on the device, and the scheduler: which upload opens, which part is sent next.

Rule: used by the agent's loop only. Decisions about one upload are made in `device_agent.transfer`; this module decides
between uploads, and collects their effects.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, assert_never

from msgspec import Struct, field
from msgspec.structs import replace

from device_agent.files.mounts import mount_of
from device_agent.limits.limits import Limits
from device_agent.state.consents import Consents
from device_agent.state.journal import MAX_RECEIPTS, MAX_UNFINISHED, Journal, recorded_size
from device_agent.storage.host_backoff import HostBackoff
from device_agent.transfer.advance import latest_effects
from device_agent.transfer.closing import keep_file
from device_agent.transfer.events import (
    Admitted,
    Barred,
    Count,
    DigestParts,
    Effect,
    Event,
    Faulted,
    HostPaused,
    Keep,
    MeasureSource,
    OpenSource,
    PublishResponse,
    PutPart,
    StopParts,
    Tick,
    WorkerFree,
    WriteTombstone,
)
from device_agent.transfer.machine import (
    apply,
    begin,
    derive,
    needs_source,
    next_size,
    next_url,
    ready,
    restored,
    unreachable,
    wake_at,
)
from device_agent.transfer.model import State, Transfer
from device_agent.transfer.records import Afterwards, Began, Order, ReceiptDue, Tombstone
from device_agent.workers.part_io import SourceSession
from schemas.parts import MIN_CHUNK_SIZE
from schemas.values import DeviceHold, ErrorCode, Outcome, PresignedPart

MAX_ADMITTED: Final = 4
"""Uploads with an open file that progress at the same time."""

SMALL: Final = MIN_CHUNK_SIZE
"""Bytes that a file of one part has at most."""

SMALL_SLOTS: Final = 2
"""Further slots, for small files: they do not wait behind large ones."""

MAX_UNANSWERED: Final = 4
"""Uploads of one mount that may wait for its answer; the others stay in the queue, and take no thread."""

UNRESPONSIVE: Final = "source_unresponsive"
"""How the reason of an upload begins whose file system does not answer."""

MAX_ACTIVE: Final = 256
MAX_ENDED: Final = 4_096
MAX_HELD: Final = 4 * 1024 * 1024
"""Bytes, as in the journal, of the uploads that wait for something or have ended. Ended ones give way first, down to
half of it: else one that has just ended would be forgotten before its owner has the result.
"""

_REQUEST_PATIENCE: Final = 5.0
"""Seconds after which an upload whose owner does not answer gives its slot to others."""

_STOOD_STILL: Final = 180.0
"""Seconds between two ticks that show a suspended device or a disk that took no records: the loop wakes each minute."""

log = logging.getLogger(__name__)


class DiscardCopy(Struct, frozen=True):
    """The attempt is over or replaced: delete its copy, if it has one."""

    order: Order


class CloseSource(Struct, frozen=True):
    """All work on this source is stopped: close it."""

    session: SourceSession


DeferredEffect = PublishResponse | MeasureSource | OpenSource | DigestParts | PutPart | DiscardCopy | CloseSource
"""Effects that are collected for the loop; the others are done at once."""


class Run(Struct, eq=False):
    """One upload that is not closed. `number` is its order of arrival."""

    number: int
    transfer: Transfer
    session: SourceSession = field(default_factory=SourceSession)
    wake_at: float | None = None
    held: int = 0
    """Bytes that it takes of `MAX_HELD`: as it began, and anew when it has ended."""
    served: int = 0
    """When a sender was given a part of it last, counted in parts."""
    measuring: bool = False
    """Whether the size of its file was requested."""
    traceparent: str | None = None
    """The trace of its last command, which its responses repeat."""
    asks: str | None = None
    """The class of the policy that needs a person's consent for its path, whether that was given or not."""
    silent_mount: str | None = None
    """The mount for which it waits in the queue, because other files there get no answer."""

    @property
    def upload_id(self) -> str:
        """The upload's id."""
        return self.transfer.order.upload_id

    @property
    def ended(self) -> bool:
        """Whether only the owner's close is missing."""
        return self.transfer.state is State.ENDED

    def unresponsive(self, now: float) -> str | None:
        """The reason why it waits for a file system; None when it does not."""
        since = self.session.unanswered_since
        if since is not None:
            return f"{UNRESPONSIVE}: the file system has not answered for {now - since:.0f} s"
        return f"{UNRESPONSIVE}: {self.silent_mount!r} does not answer for other files" if self.silent_mount else None

    @property
    def priority(self) -> int:
        """A higher one goes first."""
        return self.transfer.order.options.priority

    @property
    def rank(self) -> tuple[int, int]:
        """Its place in the queue: high priority first, then order of arrival."""
        return -self.priority, self.number


class Uploads:
    """The table of uploads. `effects` collects what the loop performs once its records are durable."""

    def __init__(
        self,
        journal: Journal,
        transfers: Iterable[Transfer],
        *,
        workers: int,
        now: float,
        wall: Callable[[], float] = time.time,
        mount_of: Callable[[str], str] = mount_of,
        limits: Limits | None = None,
        consents: Consents | None = None,
    ) -> None:
        self.effects: list[tuple[Run, DeferredEffect]] = []
        self.counters: Counter[str] = Counter()
        self.outcomes: Counter[Outcome] = Counter()
        """How the uploads ended that were closed since the start."""
        self.rate: float | None = None
        """Bytes per second that one part has reached lately."""
        self.host_backoff = HostBackoff()
        self.limits = limits or Limits()
        """What the device's owner allows."""
        self._consents = consents
        self._afterwards: list[str] = []
        self._journal = journal
        self._wall = wall
        self._mount_of = mount_of
        self._lost_senders = 0
        self._unanswered: list[str] = []
        self._workers = workers
        self._sending = 0
        self._served = 0
        self._arrivals = 0
        self._ticked_at = now
        self._runs: dict[str, Run] = {}
        for transfer in transfers:
            self._add(restored(transfer, now))
        self._forget_approvals()

    def __iter__(self) -> Iterator[Run]:
        return iter(tuple(self._runs.values()))

    def get(self, upload_id: str) -> Run | None:
        """The upload with this id, if it is not closed."""
        return self._runs.get(upload_id)

    @property
    def full(self) -> bool:
        """Whether no further upload is accepted: too many are open, or their commands are too large together."""
        held = [run.held for run in self._runs.values() if not run.ended]
        return len(held) >= MAX_ACTIVE or sum(held) >= MAX_HELD

    def begin(
        self,
        order: Order,
        *,
        acknowledges: int,
        urls: tuple[PresignedPart, ...] = (),
        lifetime: float | None = None,
        now: float,
    ) -> Run:
        """Accept a new attempt; an older one of the same upload is stopped and replaced."""
        old = self._runs.pop(order.upload_id, None)
        if old is not None:
            self._stop(old)
            self.effects.append((old, DiscardCopy(old.transfer.order)))
        transfer, effects = begin(order, acknowledges=acknowledges, urls=urls, now=now, lifetime=lifetime)
        run = self._add(transfer)
        self._collect(run, effects)
        if old is not None and old.asks is not None and old.transfer.order.file_path != order.file_path:
            # A person may have seen the other path, and be about to name this id.
            text = "a person on the device was asked for another path under this upload_id"
            self.refuse(order.upload_id, ErrorCode.BAD_REQUEST, text, now)
        return run

    def handle(self, run: Run, event: Event) -> None:
        """Apply an event to one upload, and collect its effects."""
        had_ended = run.ended
        try:
            run.transfer, effects = apply(run.transfer, event)
        except Exception as bug:
            # A bug met by one upload must not end the others.
            self.counters["faults"] += 1
            log.exception("upload %s cannot continue", run.upload_id)
            fault = Faulted(now=event.now, code=ErrorCode.INTERNAL, text=f"{type(bug).__name__}: {bug}")
            run.transfer, effects = apply(run.transfer, fault)
        run.wake_at, run.session.rate = wake_at(run.transfer), run.transfer.rate_limit
        if run.ended and not had_ended:
            run.held = recorded_size(run.transfer)
        self._collect(run, effects)
        if run.transfer.state is State.CLOSED:
            self._remove(run)
        elif run.ended and not had_ended and not needs_source(run.transfer):
            # The owner may not answer for a year, and the copy is not sent again.
            self.effects.append((run, DiscardCopy(run.transfer.order)))

    def answer(self, run: Run) -> None:
        """Publish the latest response of an upload again, which stays as it is."""
        self._collect(run, latest_effects(run.transfer))

    def derive_effects(self) -> None:
        """Collect again every effect that a state demands: unanswered responses, and work on the source."""
        for run in self:
            self._collect(run, derive(run.transfer))

    def take_effects(
        self, may_run: Callable[[Order, DeferredEffect], bool] | None = None
    ) -> list[tuple[Run, DeferredEffect]]:
        """Remove and return the collected effects: those that `may_run` accepts, or all of them."""
        taken: list[tuple[Run, DeferredEffect]] = []
        kept: list[tuple[Run, DeferredEffect]] = []
        for run, effect in self.effects:
            runs = may_run is None or may_run(run.transfer.order, effect)
            (taken if runs else kept).append((run, effect))
        self.effects = kept
        return taken

    def take_afterwards(self) -> list[str]:
        """Remove and return the closed uploads of which more is to be done: with their file, or a receipt."""
        taken, self._afterwards = self._afterwards, []
        return taken

    def durable(self) -> list[Run]:
        """Uploads with their command in the journal."""
        pending = self._journal.pending_uploads(Began)
        return [run for run in self._runs.values() if run.upload_id not in pending]

    def discard_pending(self) -> list[Run]:
        """Remove the uploads whose command could not be made durable, as if it had never arrived."""
        pending = self._journal.pending_uploads(Began)
        discarded = [run for run in self if run.upload_id in pending]
        for run in discarded:
            self._journal.discard_pending(run.upload_id)
            del self._runs[run.upload_id]
            # No PUT of these starts, so no event frees their senders.
            for owner, effect in self.effects:
                if owner is run and isinstance(effect, PutPart):
                    self._put_ended(effect.part.size, 0)
            self.effects = [(owner, effect) for owner, effect in self.effects if owner is not run]
            self.effects.append((run, DiscardCopy(run.transfer.order)))
            self._stop(run)
        return discarded

    def effect_done(self, session: SourceSession) -> None:
        """An effect that occupies no sender has posted its event."""
        session.running -= 1

    def put_done(self, session: SourceSession, size: int, sent: int) -> None:
        """A PUT of `size` bytes has posted its event, after `sent` bytes have left."""
        session.running -= 1
        self._put_ended(size, sent)

    def _put_ended(self, size: int, sent: int) -> None:
        self._sending -= 1
        self.limits.end(size, sent)

    def write_tombstone(
        self, upload_id: str, outcome: str, after: Afterwards | None = None, receipt: ReceiptDue | None = None
    ) -> None:
        """Keep nothing of an upload but its outcome, what is to be done with its file, and its receipt."""
        self.outcomes[Outcome.read(outcome)] += 1
        if after is not None and len(self._journal.memory.unfinished) >= MAX_UNFINISHED:
            after = keep_file(after, f"{MAX_UNFINISHED} other files wait to be deleted or moved")
        at = int(self._wall())
        room = len(self._journal.memory.receipts) < MAX_RECEIPTS
        receipt = replace(receipt, closed_at=at) if receipt is not None and room else None
        self._journal.append(Tombstone(upload_id, outcome, at, after, receipt))
        if after is not None or receipt is not None:
            self._afterwards.append(upload_id)

    def tick(self, now: float, jitter: float, *, connected: bool = True) -> None:
        """Send a `Tick` to every upload whose time has come.

        An owner is not silent while it cannot be reached: without a connection, and while this loop stood still.
        """
        before, self._ticked_at = self._ticked_at, now
        if not connected or now - before > _STOOD_STILL:
            for run in self:
                run.transfer = unreachable(run.transfer, before, now)
                run.wake_at = wake_at(run.transfer)
        for run in self:
            if run.wake_at is not None and now >= run.wake_at:
                self.handle(run, Tick(now=now, jitter=jitter))

    def unanswered(self, since: Mapping[SourceSession, float], lost_senders: int) -> None:
        """The sources whose file system does not answer, and since when; and the senders that were replaced."""
        self._lost_senders = lost_senders
        # Also those of uploads that were cancelled: their threads wait on.
        self._unanswered = [session.path for session in since]
        for run in self._runs.values():
            run.session.unanswered_since = since.get(run.session)

    def next_wake(self) -> float | None:
        """The next moment at which `tick` has an effect."""
        moments = [run.wake_at for run in self._runs.values() if run.wake_at is not None]
        if self.limits.enabled and any(run.transfer.barred for run in self._runs.values()):
            moments.append(self.limits.look_at)
        return min(moments, default=None)

    def schedule(self, now: float) -> None:
        """Open what may be opened, and give every idle sender a part."""
        self._drop_oldest_ended()
        if self.limits.enabled or self._consents is not None:
            self._obey_limits(now)
        self._admit(now)
        while self._sending - self._lost_senders < self._workers:
            answered = (run for run in self._runs.values() if run.session.unanswered_since is None)
            run = min((run for run in answered if ready(run.transfer, now)), key=self._turn, default=None)
            if run is None:
                return
            if self.limits.enabled and self._obey(run, now):
                # The parts that began in this turn have taken what was left.
                continue
            self._served += 1
            run.served = self._served
            until = self.host_backoff.until(next_url(run.transfer, now) or "")
            self.handle(run, HostPaused(now=now, until=until) if until > now else WorkerFree(now=now, rate=self.rate))

    def _turn(self, run: Run) -> tuple[int, int, int, int]:
        """Its place at each part boundary: priority, then fewest parts in flight, then the longest without a part."""
        return -run.priority, len(run.transfer.in_flight), run.served, run.number

    def _obey_limits(self, now: float) -> None:
        """Bar each upload if its next part may not begin, and only then."""
        wanted = [run for run in self if not run.ended]
        self.limits.look(now, wanted=bool(wanted))
        for run in wanted:
            self._obey(run, now)

    def _obey(self, run: Run, now: float) -> bool:
        """Whether the next part of this upload may not begin; the upload knows why."""
        size = next_size(run.transfer)
        never = None if size is None else self.limits.never(size)
        if never is not None:
            self.handle(run, Faulted(now=now, code=ErrorCode.FILE_TOO_LARGE, text=never))
            return True
        reason = self._consent_reason(run) or (None if size is None else self.limits.reason(size))
        if reason != run.transfer.barred:
            self.handle(run, Barred(now=now, reason=reason))
        return reason is not None

    # Consent of a person on the device.

    def asks(self, run: Run) -> str | None:
        """The class of the policy for which this upload waits for a person; None when it does not."""
        if run.asks is None or run.ended or self._consents is None:
            return None
        order = run.transfer.order
        return None if self._consents.holds(order.upload_id, order.file_path) else run.asks

    def approve(self, upload_id: str) -> str | None:
        """A person allows an upload that waits for it; why that cannot be kept, None when it is durable."""
        run = self._runs.get(upload_id)
        if run is not None and self._consents is not None:
            try:
                self._consents.approve(upload_id, run.transfer.order.file_path, self._runs)
            except OSError as error:
                return error.strerror or str(error)
        return None

    def refuse(self, upload_id: str, code: ErrorCode, text: str, now: float) -> None:
        """End an upload, if it is open."""
        run = self._runs.get(upload_id)
        if run is not None and not run.ended:
            self.handle(run, Faulted(now=now, code=code, text=text))

    def _forget_approvals(self) -> None:
        if self._consents is not None:
            self._consents.keep_only(self._runs)

    def _consent_reason(self, run: Run) -> str | None:
        name = self.asks(run)
        if name is None:
            return None
        what = f"a person on the device must allow it: class {name!r} of its policy asks (backhaul-agent requests)"
        return f"{DeviceHold.CONSENT}: {what}"

    def _admit(self, now: float) -> None:
        """Open what has a slot. An upload of a lower priority takes none from it, and continues with idle senders."""
        taken = [run.priority for run in self._runs.values() if self._holds_a_slot(run, now)]
        waiting = (run for run in self._runs.values() if run.transfer.state is State.QUEUED)
        queued = [run for run in waiting if not run.session.running and not run.transfer.barred]
        self._find_silent_mounts(queued)
        for run in sorted((run for run in queued if run.silent_mount is None), key=lambda run: run.rank):
            size = run.transfer.known_size
            slots = MAX_ADMITTED + (SMALL_SLOTS if size is not None and size <= SMALL else 0)
            if sum(priority >= run.priority for priority in taken) < slots:
                taken.append(run.priority)
                run.session = SourceSession(run.transfer.order.file_path)
                self.handle(run, Admitted(now=now))
            elif size is None and not run.measuring:
                run.measuring, run.session = True, SourceSession(run.transfer.order.file_path)
                self.effects.append((run, MeasureSource(run.transfer.order)))

    def _find_silent_mounts(self, queued: list[Run]) -> None:
        """Set `silent_mount` of each queued upload: its mount, if that leaves too many others without an answer."""
        full: set[str] = set()
        if len(self._unanswered) >= MAX_UNANSWERED:
            counted = Counter(map(self._mount_of, self._unanswered))
            full = {mount for mount, count in counted.items() if count >= MAX_UNANSWERED}
        for run in queued:
            mount = self._mount_of(run.transfer.order.file_path) if full else ""
            run.silent_mount = mount if mount in full else None

    def _holds_a_slot(self, run: Run, now: float) -> bool:
        if run.session.unanswered_since is not None:
            return False
        state = run.transfer.state
        if state is State.REQUESTING and run.transfer.awaiting_grant:
            return now - run.transfer.published_at < _REQUEST_PATIENCE
        if state is State.WAITING and (run.transfer.hold is not None or run.transfer.barred):
            # For hours, maybe. What was granted before is in flight, or is sent when its senders are free.
            return False
        return state not in {State.QUEUED, State.ENDED, State.CLOSED}

    def _drop_oldest_ended(self) -> None:
        """When ended uploads are never closed, and too many or too large, the oldest become tombstones."""
        ended = [run for run in self._runs.values() if run.ended]
        too_many, held = len(ended) - MAX_ENDED, sum(run.held for run in ended)
        waiting = sum(run.held for run in self._runs.values()) - held
        room = max(MAX_HELD - waiting, MAX_HELD // 2)
        for number, run in enumerate(ended):
            if number >= too_many and held <= room:
                return
            held -= run.held
            self.write_tombstone(run.upload_id, Outcome.UNKNOWN)
            self._remove(run)

    def _add(self, transfer: Transfer) -> Run:
        self._arrivals += 1
        run = Run(self._arrivals, transfer, wake_at=wake_at(transfer), held=recorded_size(transfer))
        run.traceparent = transfer.order.traceparent
        run.asks = None if self._consents is None else self._consents.asks_for(transfer.order.file_path)
        self._runs[run.upload_id] = run
        return run

    def _stop(self, run: Run) -> None:
        run.session.stopped.set()
        self.effects.append((run, CloseSource(run.session)))

    def _remove(self, run: Run) -> None:
        self._runs.pop(run.upload_id, None)
        self._forget_approvals()
        self.effects.append((run, DiscardCopy(run.transfer.order)))

    def _collect(self, run: Run, effects: tuple[Effect, ...]) -> None:
        for effect in effects:
            match effect:
                case Keep(record=record):
                    self._journal.append(record)
                case WriteTombstone(outcome=outcome, after=after, receipt=receipt):
                    self.write_tombstone(run.upload_id, outcome, after, receipt)
                case StopParts():
                    self._stop(run)
                case Count(what=what):
                    self.counters[what] += 1
                case PutPart(part=part):
                    self._sending += 1
                    self.limits.begin(part.size)
                    self.effects.append((run, effect))
                case PublishResponse() | OpenSource() | DigestParts():
                    self.effects.append((run, effect))
                case _:
                    assert_never(effect)
