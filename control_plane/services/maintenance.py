"""What time alone makes due: deadlines, forgotten multipart uploads, the end of history.

Rule: driven by the stored state and the clock alone, in small batches; started on any database state, it brings every
upload to its end. Nothing expires, and no history is deleted, while the clock is known to be wrong, or may be.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from control_plane.domain.jobs.executions import LOOK_AGAIN
from control_plane.domain.uploads.duties import Kind
from control_plane.domain.uploads.events import DeadlinePassed, MultipartCreated
from control_plane.domain.uploads.machine import PUT_URL_LIFE, UNSEEN_STRAY_WAIT
from control_plane.domain.uploads.model import MAX_DEADLINE, OPEN, UploadKey
from control_plane.services.clients.listings import KEPT_FOR
from control_plane.services.errors import ServiceError
from control_plane.services.object_store_probe import ObjectStoreProbe
from control_plane.services.policy import DAY, MAX_SKEW, Policy, client_of
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.database import Database, Records
from control_plane.services.ports.log import EventLog
from control_plane.services.ports.object_store import MultipartInfo, ObjectStore
from control_plane.services.uploads.outbox import LONGEST_RETRY, REFUSED_WAIT
from control_plane.services.uploads.service import IDEMPOTENT_FOR
from control_plane.services.uploads.writer import UploadWriter

EVERY: Final = 5.0
PULL_EVERY: Final = 60.0
UNPROBED: Final = 300.0
"""Seconds after the start for which nothing expires before the object store's clock was seen."""

_LONG_WAITS: Final = frozenset({Kind.ABORT_MULTIPART, Kind.DELETE_OBJECT, Kind.SEND_GRANT, Kind.RECEIPT})
"""Duties that may wait for an hour: clean-ups, a receipt, and a grant that the gate holds."""
LITTER_EVERY: Final = 3600.0
LITTER_AGE: Final = 3600.0
"""Seconds after its creation before an unknown multipart upload under one of our keys is aborted."""

CHANGES_FOR: Final = 7 * DAY
"""Seconds for which the change log keeps a change."""

BATCH: Final = 200


@dataclass(frozen=True, slots=True)
class LitterReport:
    """The result of a sweep: how many multipart uploads were aborted, and those of foreign keys, which are kept."""

    aborted: int
    foreign: tuple[MultipartInfo, ...]


class Maintenance:
    """Wakes up every few seconds and does what is due."""

    def __init__(
        self,
        database: Database,
        object_store: ObjectStore,
        clock: Clock,
        log: EventLog,
        *,
        writer: UploadWriter,
        policy: Policy,
        probe: ObjectStoreProbe,
        fleet: bool = False,
    ) -> None:
        self._fleet = fleet
        self._database = database
        self._object_store = object_store
        self._clock = clock
        self._log = log
        self._writer = writer
        self._policy = policy
        self._probe = probe
        self._began_at = clock.monotonic()

    async def run(self) -> None:
        """Work until cancelled."""
        next_pull = next_sweep = self._clock.monotonic()
        while True:
            try:
                self._probe.watch_clock()
                if self._clock.monotonic() >= next_pull:
                    next_pull = self._clock.monotonic() + PULL_EVERY
                    await self.pull_in()
                if self.time_is_sure():
                    await self.expire()
                if self.time_is_sure() and self._clock.monotonic() >= next_sweep:
                    next_sweep = self._clock.monotonic() + LITTER_EVERY
                    await self.prune()
                    await self.sweep_litter()
            except ServiceError as error:
                self._log("reaper.failed", {"error": str(error)})
            await asyncio.sleep(EVERY)

    def time_is_sure(self) -> bool:
        """Whether the clock is not known to be wrong. A program that has just started has seen no other clock."""
        started = self._probe.seen is None and self._clock.monotonic() - self._began_at < UNPROBED
        return not (started or self._probe.clock_is_wrong)

    async def pull_in(self) -> int:
        """Make the outbox entries due that lie further ahead than any wait: a clock that was wrong wrote them.

        Returns their number. An object is deleted no sooner than its last URL expires. A deadline that lies too far
        ahead is moved, so that the upload lives as long as was meant, from now on.
        """
        now = self._clock.now()
        soon = now + max(LONGEST_RETRY, self._policy.step_timeout) + MAX_SKEW
        late = now + max(REFUSED_WAIT, UNSEEN_STRAY_WAIT, PUT_URL_LIFE) + MAX_SKEW
        due = {Kind.DELETE_OBJECT: now + PUT_URL_LIFE + MAX_SKEW}

        def work(records: Records) -> int:
            return sum(
                records.outbox.pull_in(kind, late if kind in _LONG_WAITS else soon, due.get(kind, now)) for kind in Kind
            )

        pulled = await self._database.write(work)
        if self._fleet:
            pulled += await self._database.write(lambda records: records.jobs.pull_in(now + LOOK_AGAIN + MAX_SKEW, now))
        beyond = now + MAX_DEADLINE + MAX_SKEW
        for key in await self._database.read(lambda records: records.uploads.deadline_ahead(beyond, BATCH)):
            await self._writer.submit(key, DeadlinePassed(now=now))
        if pulled:
            self._log("clock.ahead", {"entries": pulled})
        return pulled

    async def expire(self) -> int:
        """End the uploads that are past their deadline; returns their number."""
        now = self._clock.now()
        overdue = await self._database.read(lambda records: records.uploads.overdue(now, BATCH))
        for key in overdue:
            await self._writer.submit(key, DeadlinePassed(now=now))
        return len(overdue)

    async def prune(self) -> int:
        """Delete old uploads, jobs, batches of devices, changes and so on; returns the number of uploads deleted."""
        now = self._clock.now()
        await self._database.write(lambda records: records.idempotency.prune(now - IDEMPOTENT_FOR))
        if self._fleet:
            await self._database.write(lambda records: records.gate.prune(now - DAY))
            await self._prune(lambda records: records.listings.prune(now - KEPT_FOR, BATCH))
            await self._prune(lambda records: records.jobs.prune(now - self._policy.history, BATCH))
            await self._prune(lambda records: records.batches.prune(now - self._policy.history, now, BATCH))
        await self._prune(lambda records: records.changes.prune(now - CHANGES_FOR, BATCH))
        return await self._prune(lambda records: records.uploads.prune(now - self._policy.history, BATCH))

    async def _prune(self, batch: Callable[[Records], int]) -> int:
        """Delete in transactions of `BATCH` rows, until there are fewer."""
        total = 0
        while True:
            deleted = await self._database.write(batch)
            total += deleted
            if deleted < BATCH:
                return total

    async def sweep_litter(self) -> LitterReport:
        """Abort multipart uploads under our keys that no upload uses; report all others."""
        prefix = f"{self._policy.base_path.strip('/')}/".lstrip("/")
        found = await self._object_store.list_multipart(prefix)
        old = [one for one in found if one.initiated_at < self._clock.now() - LITTER_AGE]
        rows = await self._database.read(lambda records: rows_of(records, old, self._policy.owner))
        foreign: list[MultipartInfo] = []
        aborted = 0
        for one in old:
            row = rows.get(one.s3_key)
            if row is None:
                foreign.append(one)
                continue
            key, current = row
            if one.s3_upload_id != current:
                # The state machine takes an id that is not the upload's own for litter, and aborts it.
                stray = MultipartCreated(now=self._clock.now(), attempt=0, s3_upload_id=one.s3_upload_id)
                await self._writer.submit(key, stray)
                aborted += 1
        if foreign:
            self._log("litter.foreign", {"uploads": len(foreign), "keys": [one.s3_key for one in foreign[:10]]})
        return LitterReport(aborted, tuple(foreign))


def rows_of(records: Records, found: list[MultipartInfo], owner: str) -> dict[str, tuple[UploadKey, str | None]]:
    """For each key that an upload of `owner` has or had: the upload, and the S3 upload id that it still needs there."""
    rows: dict[str, tuple[UploadKey, str | None]] = {}
    unknown: set[str] = set()
    for s3_key in {one.s3_key for one in found}:
        upload = records.uploads.by_s3_key(s3_key)
        if upload is None:
            unknown.add(s3_key)
        elif upload.owner == owner:
            rows[s3_key] = (upload.key, upload.s3_upload_id if upload.state in OPEN else None)
    for client_id in sorted({client_of(s3_key) for s3_key in unknown}):
        for upload in records.uploads.retried_of(client_id):
            if upload.owner == owner:
                rows |= dict.fromkeys(unknown.intersection(upload.keys), (upload.key, None))
    return rows
