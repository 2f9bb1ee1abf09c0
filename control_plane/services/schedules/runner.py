"""The loop of all schedules.

Rule: level-triggered: each look reads what is due, on every replica; the primary key of a run and the version of a
schedule decide which replica makes it. Nothing ticks while the clock is known to be wrong, or may be.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from control_plane.domain.reasons import Reason
from control_plane.domain.schedules.model import RunKey
from control_plane.services.errors import ServiceError, VersionConflict
from control_plane.services.events.log import ChangeLogger
from control_plane.services.policy import DAY
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.database import Database
from control_plane.services.ports.log import EventLog
from control_plane.services.schedules.advance import Advance, JobMachine, JobNotMade, Step, tick_of
from control_plane.services.schedules.coverage import CoverageKeeper

EVERY: Final = 1.0
COVERAGE_EVERY: Final = 5.0
COVERAGE_SHARE: Final = 20.0
"""A look at the coverage that took a second is repeated after as many seconds, at least."""

PRUNE_EVERY: Final = 3600.0
SCHEDULES: Final = 100
"""Schedules of one look."""

ROWS: Final = 500
"""Rows that one transaction deletes."""


class ScheduleRunner:
    """Makes the jobs of schedules. `on_made` is called after a commit that made a job."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        log: EventLog,
        *,
        jobs: JobMachine,
        time_is_sure: Callable[[], bool],
        history: float = 90 * DAY,
        on_made: Callable[[], None] = lambda: None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._log = log
        self._advance = Advance(jobs)
        self._coverage = CoverageKeeper(database, jobs, log)
        self._time_is_sure = time_is_sure
        self._history = history
        self._on_made = on_made

    async def run(self) -> None:
        """Work until cancelled."""
        next_coverage = next_prune = self._clock.monotonic()
        while True:
            busy = False
            try:
                if self._time_is_sure():
                    busy = await self.tick()
                    if self._clock.monotonic() >= next_coverage:
                        began_at = self._clock.monotonic()
                        await self.cover()
                        took = self._clock.monotonic() - began_at
                        next_coverage = began_at + took + max(COVERAGE_EVERY, took * COVERAGE_SHARE)
                    if self._clock.monotonic() >= next_prune:
                        next_prune = self._clock.monotonic() + PRUNE_EVERY
                        await self.prune()
            except ServiceError as error:
                self._log("schedules.failed", {"error": str(error)})
            await asyncio.sleep(0 if busy else EVERY)

    async def tick(self) -> bool:
        """Advance every schedule that is due by one step; whether there is more to do at once. `ServiceError`."""
        now = self._clock.now()
        due = await self._database.read(
            lambda records: [*records.schedules.due(now, SCHEDULES), *records.schedules.with_ended_jobs(SCHEDULES)]
        )
        more = len(due) >= SCHEDULES
        for schedule_id in dict.fromkeys(due):
            step = await self.advance(schedule_id)
            more = more or (step is not None and step.schedule.due_at <= now)
        return more

    async def advance(self, schedule_id: str) -> Step | None:
        """Advance one schedule by one step; None when it does not exist, or another replica was first."""
        refused: dict[RunKey, Reason] = {}
        while True:
            now = self._clock.now()
            try:
                step = await self._database.write(
                    lambda records, now=now: self._advance.step(records, schedule_id, now, refused)  # type: ignore[misc]
                )
            except JobNotMade as error:
                refused[error.key] = error.reason
                self._log("schedule.refused", {"schedule_id": schedule_id, "error": error.reason.text})
                continue
            except VersionConflict:
                self._log("write.fenced", {"what": "schedules"})
                return None
            if step is not None:
                ChangeLogger(self._log).committed(tick_of(run) for run in step.decided)
                if step.made_job:
                    self._on_made()
            return step

    async def cover(self) -> None:
        """Bring the coverage up to date, and heal what can be healed. `ServiceError`."""
        try:
            await self._coverage.follow(self._clock.now())
        except VersionConflict:
            # Another replica follows the same cells; the next look sees what is left.
            self._log("write.fenced", {"what": "schedules"})
            return
        if await self._coverage.heal(self._clock.now()):
            self._on_made()

    async def prune(self) -> None:
        """Delete runs and cells that are older than the history. `ServiceError`."""
        now = self._clock.now()
        before = now - self._history
        while await self._database.write(lambda records: records.schedules.prune(before, ROWS)) == ROWS:
            pass
        while await self._database.write(lambda records: records.coverage.prune(before, ROWS, now=now)) == ROWS:
            pass
