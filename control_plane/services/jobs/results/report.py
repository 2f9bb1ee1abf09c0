"""Writes the report of each run of a job beside its objects: `report-{run}.jsonl`, the lines of the results.

Rule: derived from the rows alone. A run without a report is found after every start, and a report that was written
twice is the same one; the row notes it last.
"""

import asyncio
import tempfile
from typing import IO, Final

from msgspec.structs import replace

from control_plane.domain.jobs.model import Job
from control_plane.services.errors import Permanent, ServiceError, VersionConflict
from control_plane.services.jobs.results.formats import jsonl
from control_plane.services.jobs.results.reader import result_lines
from control_plane.services.policy import DAY
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.database import Database, Records
from control_plane.services.ports.log import EventLog
from control_plane.services.ports.object_store import ObjectStore

LOOK_EVERY: Final = 5.0
"""Seconds between two looks for runs that ended."""

TRY_AGAIN: Final = 60.0
AT_ONCE: Final = 100
"""Runs that are looked at: so many with a refused report do not hold up the others."""

NO_LONGER: Final = 7 * DAY
"""Seconds after the end of a run for which its report is tried."""

_IN_MEMORY: Final = 4 * 1024 * 1024
_LINES: Final = 500


class ReportWriter:
    """Writes reports in the background, one at a time."""

    def __init__(
        self, database: Database, object_store: ObjectStore, clock: Clock, log: EventLog, *, base_path: str
    ) -> None:
        self._database = database
        self._object_store = object_store
        self._clock = clock
        self._log = log
        self._base = base_path.strip("/")
        self._later: dict[str, float] = {}
        """Jobs whose report was refused, and when it is tried again."""

    async def run(self) -> None:
        """Write reports until cancelled; a neighbour that is unavailable is tried again."""
        while True:
            pause = LOOK_EVERY
            try:
                while await self.step():
                    pass
            except ServiceError as error:
                self._log("job.report_failed", {"error": str(error)})
                pause = TRY_AGAIN
            await asyncio.sleep(pause)

    async def step(self) -> bool:
        """Write the report of one run that has none; False when there is no such run. `Transient` when none can be."""
        since = self._clock.now() - NO_LONGER
        found = await self._database.read(lambda records: records.jobs.unreported(since, AT_ONCE))
        now = self._clock.monotonic()
        job = next((one for one in found if self._later.get(one.job_id, 0.0) <= now), None)
        if job is None:
            return False
        try:
            await self._write(job)
        except (Permanent, OSError) as error:
            # The others have keys of their own, and may have room on the disk.
            self._log("job.report_failed", {"job_id": job.job_id, "error": str(error)})
            self._later[job.job_id] = now + TRY_AGAIN
            return True
        self._later.pop(job.job_id, None)
        try:
            await self._database.write(lambda records: _note(records, job))
        except VersionConflict:
            # The job began again meanwhile: its report is written once more after the next run.
            return True
        self._log("job.reported", {"job_id": job.job_id, "run": job.run, "s3_key": self.key(job)})
        return True

    def key(self, job: Job) -> str:
        """The key of the report of the job's last run."""
        return "/".join(filter(None, (self._base, job.job_id, f"report-{job.run}.jsonl")))

    async def _write(self, job: Job) -> None:
        # On disk beyond a few MiB: a job may have a million files.
        with tempfile.SpooledTemporaryFile(_IN_MEMORY) as file:
            lines: list[str] = []
            async for line in result_lines(self._database, job.job_id):
                lines.append(jsonl(line))
                if len(lines) == _LINES:
                    await asyncio.to_thread(_append, file, lines)
                    lines = []
            await asyncio.to_thread(_append, file, lines)
            file.seek(0)
            await self._object_store.put(self.key(job), file)


def _append(file: IO[bytes], lines: list[str]) -> None:
    file.write("".join(lines).encode())


def _note(records: Records, job: Job) -> None:
    now = records.jobs.get(job.job_id)
    if now is not None and now.run == job.run and now.ended_at is not None:
        records.jobs.save(now, replace(now, reported=job.run))
