"""Looks at stored state and the clock, and at nothing else: deadlines, litter, history.

Rule: level-triggered, in small batches; started on any database state it brings every upload to its end.
"""

import asyncio
from dataclasses import dataclass
from typing import Final

from control_plane.domain.uploads.events import DeadlinePassed, MultipartCreated
from control_plane.domain.uploads.model import OPEN, UploadKey
from control_plane.services.errors import ServiceError
from control_plane.services.policy import Policy
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.database import Database, Records
from control_plane.services.ports.log import EventLog
from control_plane.services.ports.object_store import MultipartInfo, ObjectStore
from control_plane.services.uploads.service import IDEMPOTENT_FOR
from control_plane.services.uploads.writer import Uploads

EVERY: Final = 5.0
LITTER_EVERY: Final = 3600.0
LITTER_AGE: Final = 3600.0
"""Seconds after its creation before a multipart upload of ours that no row knows is aborted."""

BATCH: Final = 200


@dataclass(frozen=True, slots=True)
class LitterReport:
    """What a sweep found: ids of ours that were aborted, and uploads of strangers, which are never touched."""

    aborted: int
    foreign: tuple[MultipartInfo, ...]


class Maintenance:
    """Wakes up every few seconds and does what time alone makes due."""

    def __init__(
        self, store: Database, objects: ObjectStore, clock: Clock, log: EventLog, *, uploads: Uploads, policy: Policy
    ) -> None:
        self._store = store
        self._objects = objects
        self._clock = clock
        self._log = log
        self._uploads = uploads
        self._policy = policy

    async def run(self) -> None:
        """Reap until cancelled."""
        next_sweep = self._clock.monotonic()
        while True:
            try:
                await self.reap()
                if self._clock.monotonic() >= next_sweep:
                    next_sweep = self._clock.monotonic() + LITTER_EVERY
                    await self.prune()
                    await self.sweep_litter()
            except ServiceError as error:
                self._log("reaper.failed", {"error": str(error)})
            await asyncio.sleep(EVERY)

    async def reap(self) -> int:
        """End the uploads whose deadline has passed; returns how many were looked at."""
        now = self._clock.now()
        overdue = await self._store.read(lambda records: records.uploads.overdue(now, BATCH))
        for key in overdue:
            await self._uploads.submit(key, DeadlinePassed(now=now))
        return len(overdue)

    async def prune(self) -> int:
        """Forget history beyond its days, in small batches, and old idempotency keys; returns uploads forgotten."""
        now = self._clock.now()
        await self._store.write(lambda records: records.idempotency.prune(now - IDEMPOTENT_FOR))
        total = 0
        while True:
            gone = await self._store.write(lambda records: records.uploads.prune(now - self._policy.history, BATCH))
            total += gone
            if gone < BATCH:
                return total

    async def sweep_litter(self) -> LitterReport:
        """Abort multipart uploads of our rows that no row holds; report all others with the bytes they cost."""
        prefix = f"{self._policy.base_path.strip('/')}/".lstrip("/")
        found = await self._objects.list_multipart(prefix)
        old = [one for one in found if one.initiated_at < self._clock.now() - LITTER_AGE]
        rows = await self._store.read(lambda records: rows_of(records, old, self._policy.owner))
        foreign: list[MultipartInfo] = []
        aborted = 0
        for one in old:
            row = rows.get(one.s3_key)
            if row is None:
                foreign.append(one)
                continue
            key, current = row
            if one.s3_upload_id != current:
                # The machine knows what to do with an id that is not its own: it becomes litter, and is aborted.
                stray = MultipartCreated(now=self._clock.now(), attempt=0, s3_upload_id=one.s3_upload_id)
                await self._uploads.submit(key, stray)
                aborted += 1
        if foreign:
            self._log("litter.foreign", {"uploads": len(foreign), "keys": [one.s3_key for one in foreign[:10]]})
        return LitterReport(aborted, tuple(foreign))


def rows_of(records: Records, found: list[MultipartInfo], owner: str) -> dict[str, tuple[UploadKey, str | None]]:
    """For each key that belongs to a row of `owner`: the row, and the S3 upload id that it still needs."""
    rows: dict[str, tuple[UploadKey, str | None]] = {}
    for one in found:
        upload = records.uploads.by_s3_key(one.s3_key)
        if upload is not None and upload.owner == owner:
            rows[one.s3_key] = (upload.key, upload.s3_upload_id if upload.state in OPEN else None)
    return rows
