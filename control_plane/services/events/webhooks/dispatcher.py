"""Sends changes to webhooks: at least once, and in order for one subject.

Rule: a delivery is a row, inserted in the transaction that moves the webhook's position in the log. It is claimed by a
lease, so replicas share the work. Of the deliveries of one subject only the oldest is due; its end, in one transaction,
makes the next one due.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeVar

from msgspec.structs import replace

from control_plane.domain.changes import NumberedChange, subject_of
from control_plane.domain.selectors import parse
from control_plane.domain.webhooks import GONE, Delivery, DeliveryState, ReceiverAnswer, Webhook, after_try
from control_plane.services.backoff import full_jitter
from control_plane.services.errors import ServiceError
from control_plane.services.events.filters import ChangeFilter, ChangePage, read_page
from control_plane.services.events.webhooks.signing import headers_of
from control_plane.services.policy import DAY
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.database import PARKED, Database, Records
from control_plane.services.ports.log import EventLog
from control_plane.services.ports.webhooks import WebhookSender

T = TypeVar("T")

POLL: Final = 0.5
IDLE_POLL: Final = 5.0
"""Seconds between two looks while no webhook is enabled."""

PAGE: Final = 500
MAX_WAITING: Final = 1_000
"""Deliveries of one webhook that wait as rows; beyond them its position in the log waits."""

MAX_SKIPPED: Final = 1_000
"""Changes that a webhook does not want, after which its position is stored."""

MAX_AT_ONCE: Final = 32
MAX_OF_ONE: Final = 8
"""Requests to one webhook at the same time: a slow receiver leaves room for the others."""

LEASE: Final = 60.0
"""Seconds after which a delivery that another process began is due again; longer than a request may take."""

FIRST_PAUSE: Final = 5.0
LONGEST_PAUSE: Final = 4 * 3_600.0
FARTHEST: Final = 2 * LONGEST_PAUSE + LEASE
"""Seconds that a delivery waits at most for its next try: what the receiver requested, and the jitter."""


DELIVERED_FOR: Final = DAY
DEAD_FOR: Final = 30 * DAY
_PRUNE_EVERY: Final = 600.0
_PRUNED: Final = 200


def filter_of(webhook: Webhook) -> ChangeFilter:
    """Which changes it wants."""
    return ChangeFilter(types=frozenset(webhook.types), selector=parse(webhook.selector))


class WebhookDispatcher:
    """The loop of all webhooks. `encode` makes the body of a change."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        log: EventLog,
        sender: WebhookSender,
        encode: Callable[[NumberedChange], str],
    ) -> None:
        self._database = database
        self._clock = clock
        self._log = log
        self._sender = sender
        self._encode = encode
        self._seen: dict[str, int] = {}
        """Positions beyond the stored ones: no change between the two was wanted."""
        self._running: Counter[str] = Counter()
        self._turns: dict[str, int] = {}
        """The higher, the later a delivery of the webhook was claimed last."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._answering: set[str] = set()
        """Webhooks with 2xx as the last answer in this process."""
        self._poked = asyncio.Event()
        self._failing = False
        self._next_prune = 0.0
        self._writing = asyncio.Lock()
        """On PostgreSQL transactions that lock one webhook at a time fail, and run again: in a process they queue."""

    def poke(self) -> None:
        """Look for changes and due deliveries now."""
        self._poked.set()

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            while True:
                self._poked.clear()
                pause = await self.look()
                try:
                    async with asyncio.timeout(pause):
                        await self._poked.wait()
                except TimeoutError:
                    continue
        finally:
            for task in self._tasks:
                task.cancel()

    async def look(self) -> float:
        """Do what is due now; seconds until the next look."""
        try:
            webhooks = await self._database.read(lambda records: [one for one in records.webhooks.all() if one.enabled])
            if self._clock.monotonic() >= self._next_prune:
                self._next_prune = self._clock.monotonic() + _PRUNE_EVERY
                await self.prune()
                await self.pull_in(webhooks)
            if not webhooks:
                return IDLE_POLL
            await self.read_log(webhooks)
            await self.deliver(webhooks)
            self._failing = False
        except ServiceError as error:
            if not self._failing:
                self._log("webhooks.failed", {"error": str(error)})
            self._failing = True
        return POLL

    # --- from the log to rows ----------------------------------------------------------------------------------------

    async def read_log(self, webhooks: Sequence[Webhook]) -> None:
        """Make rows of the changes since the last time; webhooks at one position share one read."""
        self._seen = {one.webhook_id: self._seen.get(one.webhook_id, 0) for one in webhooks}
        places: dict[int, list[Webhook]] = {}
        for webhook in webhooks:
            places.setdefault(max(webhook.position, self._seen[webhook.webhook_id]), []).append(webhook)
        for position, some in places.items():
            await self._read_from(position, some)

    async def _read_from(self, position: int, webhooks: Sequence[Webhook]) -> None:
        filters = [filter_of(one) for one in webhooks]

        def work(records: Records) -> tuple[int, ChangePage, set[str]]:
            page = read_page(records, after=position, limit=PAGE, filters=filters)
            names = [one.webhook_id for one in webhooks] if page.changes else []
            full = {name for name in names if records.webhooks.waiting(name, MAX_WAITING) >= MAX_WAITING}
            return records.changes.span()[0], page, full

        oldest, page, full = await self._database.read(work)
        if not page.changes:
            return
        end = page.changes[-1].number
        moved = False
        for webhook, where in zip(webhooks, filters, strict=True):
            wanted = page.wanted(where)
            if not wanted:
                moved = True
                self._seen[webhook.webhook_id] = end
            elif webhook.webhook_id in full:
                # A receiver may be away for days: meanwhile nothing is written.
                continue
            if wanted or end - webhook.position >= MAX_SKIPPED:
                stored = await self._write(partial(self._store, webhook=webhook, wanted=wanted, end=end))
                moved = moved or stored
                if stored and position + 1 < oldest:
                    self._log("webhook.missed", {"webhook_id": webhook.webhook_id, "after": position, "oldest": oldest})
        if moved and len(page.changes) == PAGE:
            self.poke()

    def _store(self, records: Records, webhook: Webhook, wanted: Sequence[NumberedChange], end: int) -> bool:
        """Insert the deliveries, as many as there is room for, and move the position; whether it moved."""
        current = records.webhooks.lock(webhook.webhook_id)
        if current is None or not current.enabled or current.position != webhook.position:
            # An operator changed it, or another replica was here; what it wants is looked at again.
            return False
        room = MAX_WAITING - records.webhooks.waiting(webhook.webhook_id, MAX_WAITING)
        taken = wanted[:room]
        if len(taken) < len(wanted):
            end = taken[-1].number if taken else current.position
        now = self._clock.now()
        busy = records.webhooks.waiting_subjects(webhook.webhook_id, {subject_of(one.change) for one in taken})
        deliveries: list[Delivery] = []
        for one in taken:
            subject = subject_of(one.change)
            deliveries.append(
                Delivery(
                    webhook_id=webhook.webhook_id,
                    number=one.number,
                    type=one.change.name,
                    subject=subject,
                    body=self._encode(one),
                    state=DeliveryState.WAITING,
                    due_at=PARKED if subject in busy else now,
                    since=now,
                )
            )
            busy.add(subject)
        records.webhooks.add(deliveries)
        records.webhooks.save(replace(current, position=end))
        return end != current.position

    # --- from rows to receivers --------------------------------------------------------------------------------------

    async def deliver(self, webhooks: Sequence[Webhook]) -> None:
        """Claim what is due, and send it; the requests continue after this returns."""
        now = self._clock.now()

        def room(webhook: Webhook) -> int:
            return min(MAX_OF_ONE - self._running[webhook.webhook_id], MAX_AT_ONCE - self._running.total())

        def is_any_due(records: Records) -> bool:
            return any(records.webhooks.due(one.webhook_id, now, 1) for one in webhooks if room(one) > 0)

        if not await self._database.read(is_any_due):
            return
        # The one that has waited longest first: else some that do not answer would take every place that is free.
        self._turns = {one.webhook_id: self._turns.get(one.webhook_id, 0) for one in webhooks}
        for webhook in sorted(webhooks, key=lambda one: self._turns[one.webhook_id]):
            if room(webhook) > 0:
                claim = partial(_claim, webhook_id=webhook.webhook_id, now=now, limit=room(webhook))
                for delivery in await self._write(claim):
                    self._start(webhook, delivery)
                    self._turns[webhook.webhook_id] = max(self._turns.values()) + 1

    async def _write(self, work: Callable[[Records], T]) -> T:
        async with self._writing:
            return await self._database.write(work)

    def _start(self, webhook: Webhook, delivery: Delivery) -> None:
        self._running[webhook.webhook_id] += 1
        task = asyncio.create_task(self._send(webhook, delivery))
        self._tasks.add(task)
        task.add_done_callback(partial(self._done, webhook.webhook_id))

    def _done(self, webhook_id: str, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._running[webhook_id] -= 1
        self.poke()
        if not task.cancelled() and (error := task.exception()) is not None:
            # The lease ends, and the delivery is tried again.
            self._log("webhook.failed", {"webhook_id": webhook_id, "error": str(error), "fault": error})

    async def _send(self, webhook: Webhook, delivery: Delivery) -> None:
        now = self._clock.now()
        headers = {
            "Content-Type": "application/cloudevents+json; charset=UTF-8",
            **headers_of(webhook.secret, str(delivery.number), delivery.body, now),
        }
        answer = await self._sender.post(webhook.url, headers, delivery.body.encode())
        try:
            after = await self._write(partial(self._settle, claimed=delivery, answer=answer))
        except ServiceError as error:
            self._log("webhook.failed", {"webhook_id": webhook.webhook_id, "error": str(error)})
            return
        if after is not None:
            self._note(after, answer)

    def _settle(self, records: Records, claimed: Delivery, answer: ReceiverAnswer) -> Delivery | None:
        """Store the result of a try; None when the row has changed since it was claimed."""
        webhook_id, now = claimed.webhook_id, self._clock.now()
        webhook = records.webhooks.lock(webhook_id)
        current = records.webhooks.delivery(webhook_id, claimed.number)
        if webhook is None or current is None or (current.state, current.tries) != (claimed.state, claimed.tries):
            return None
        after = after_try(current, answer, now, _pause(current.tries, answer))
        records.webhooks.put(after)
        if after.due_at is None:
            following = records.webhooks.oldest_waiting(webhook_id, after.subject)
            if following is not None and following.due_at == PARKED:
                records.webhooks.put(replace(following, due_at=now))
        if answer.accepted and webhook_id not in self._answering:
            # It answers again: what waits for its pause need not. A lease is not touched.
            records.webhooks.hasten(webhook_id, now + LEASE, now)
        if answer.status == GONE and webhook.enabled:
            records.webhooks.save(replace(webhook, enabled=False, note="the receiver answered 410 Gone"))
        return after

    def _note(self, after: Delivery, answer: ReceiverAnswer) -> None:
        (self._answering.add if answer.accepted else self._answering.discard)(after.webhook_id)
        facts = {
            "webhook_id": after.webhook_id,
            "number": after.number,
            "type": after.type,
            "tries": after.tries,
            "status": after.status,
        }
        if after.state is DeliveryState.DELIVERED:
            self._log("webhook.delivered", facts)
        elif after.state is DeliveryState.DEAD:
            self._log("webhook.dead", {**facts, "error": after.error})
        else:
            self._log("webhook.retried", {**facts, "error": after.error})

    async def pull_in(self, webhooks: Sequence[Webhook]) -> None:
        """Make the deliveries due that lie further ahead than any pause: a clock that was wrong wrote them."""
        now = self._clock.now()
        for webhook in webhooks:
            name = webhook.webhook_id
            await self._write(lambda records, name=name: records.webhooks.hasten(name, now + FARTHEST, now))  # type: ignore[misc]

    async def prune(self) -> int:
        """Delete what ended long ago; returns the number of deliveries."""
        now, total = self._clock.now(), 0
        for state, kept in ((DeliveryState.DELIVERED, DELIVERED_FOR), (DeliveryState.DEAD, DEAD_FOR)):
            while True:
                gone = await self._write(partial(_prune, state=state, before=now - kept))
                total += gone
                if gone < _PRUNED:
                    break
        return total


def _claim(records: Records, webhook_id: str, now: float, limit: int) -> list[Delivery]:
    """Lease what is due: until the lease ends no other process sends it."""
    webhook = records.webhooks.lock(webhook_id)
    if webhook is None or not webhook.enabled:
        return []
    claimed = [
        replace(one, tries=one.tries + 1, due_at=now + LEASE) for one in records.webhooks.due(webhook_id, now, limit)
    ]
    for one in claimed:
        records.webhooks.put(one)
    return claimed


def _prune(records: Records, state: DeliveryState, before: float) -> int:
    return records.webhooks.prune(state, before, _PRUNED)


def _pause(tries: int, answer: ReceiverAnswer) -> float:
    """Full jitter after so many tries; not before the receiver requested, within the longest pause."""
    asked = min(answer.retry_after or 0.0, LONGEST_PAUSE)
    return full_jitter(tries - 1, first=FIRST_PAUSE, longest=LONGEST_PAUSE, at_least=max(1.0, asked))
