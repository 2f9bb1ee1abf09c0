"""Coverage follows executions, and heals: which client's files of which tick are proven, or missing.

Rule: a cell follows the row of its execution, as often as it takes: nothing depends on a notice that a crash could
lose. A client that connects gets one execution for its earliest missing cell of a schedule, then for the next one.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from msgspec.structs import replace

from control_plane.domain.changes import ScheduleChanged
from control_plane.domain.jobs.spec import MAX_JOB_DEADLINE, JobSpec, Targets
from control_plane.domain.schedules.coverage import cell_after, may_heal
from control_plane.domain.schedules.model import HEAL, Cell, Schedule
from control_plane.domain.selectors import parse
from control_plane.services.errors import VersionConflict
from control_plane.services.ports.database import Database, Records
from control_plane.services.ports.log import EventLog
from control_plane.services.ports.schedules import CellPosition, EndedCell
from control_plane.services.schedules.advance import REFUSALS, JobMachine, stamp

CELLS: Final = 500
"""Cells of one transaction."""

LONGEST_WITHIN: Final = 90 * 86_400.0
"""Seconds of `catch_up.within`, at most."""

_MOST_JOBS: Final = 10_000


class CoverageKeeper:
    """Keeps the cells true, and makes the jobs that heal them."""

    def __init__(self, database: Database, jobs: JobMachine, log: EventLog) -> None:
        self._database = database
        self._jobs = jobs
        self._log = log

    async def follow(self, now: float) -> int:
        """Note the ends of executions in their cells; returns the number of cells. `ServiceError`."""
        total, position = 0, CellPosition(now)
        while ended := await self._ended(position):
            await self._database.write(lambda records, ended=ended: follow(records, ended, now))  # type: ignore[misc]
            total, position = total + len(ended), ended[-1].position
        return total

    async def _ended(self, position: CellPosition) -> Sequence[EndedCell]:
        return await self._database.read(lambda records: records.coverage.ended(position, CELLS))

    async def heal(self, now: float) -> list[str]:
        """Make jobs for the missing cells of clients that connected; returns the ids of the jobs. `ServiceError`."""
        made: list[str] = []
        schedules = await self._database.read(lambda records: records.coverage.with_missing(now - LONGEST_WITHIN))
        for schedule_id in schedules:
            made += await self._heal(schedule_id, now)
        return made

    async def _heal(self, schedule_id: str, now: float) -> list[str]:
        made: list[str] = []
        while await self._database.read(lambda records: _healable(records, schedule_id, now)[1]):
            try:
                job_id = await self._database.write(lambda records: heal(records, schedule_id, now, self._jobs))
            except VersionConflict:
                break
            except REFUSALS as error:
                self._log("schedule.refused", {"schedule_id": schedule_id, "error": str(error)})
                await self._database.write(lambda records: give_up(records, schedule_id, now))
            else:
                made += filter(None, [job_id])
        return made


def follow(records: Records, ended: Sequence[EndedCell], now: float) -> None:
    """Note the ends of executions in their cells; `VersionConflict` when another replica did."""
    records.coverage.save([(one.cell, _after(one)) for one in ended])
    _append_changed(records, (one.cell.schedule_id for one in ended), now)


def _after(ended: EndedCell) -> Cell:
    cell = ended.cell
    return replace(
        cell,
        state=cell_after(cell.state, ended.state, ended.reason),
        reason_code=ended.reason,
        at=max(cell.at, ended.ended_at),
        healing=False,
        settled=not may_heal(ended.state),
    )


def heal(records: Records, schedule_id: str, now: float, jobs: JobMachine) -> str | None:
    """Make one job for the earliest tick that clients may heal; its id, or None when there is nothing to heal."""
    schedule, found = _healable(records, schedule_id, now)
    cells = _earliest(found)
    if schedule is None or not cells:
        return None
    reach = schedule.spec.job.targets.reach
    if reach is not None:
        # One that left the reach of the schedule since the tick is healed no more.
        inside = frozenset(records.clients.selected([cell.client_id for cell in cells], parse(reach)))
        gone = [cell for cell in cells if cell.client_id not in inside]
        records.coverage.save([(cell, replace(cell, settled=True)) for cell in gone])
        cells = [cell for cell in cells if cell.client_id in inside]
        if not cells:
            return None
    nominal_at = cells[0].nominal_at
    job_id = _free_heal_id(records, schedule_id, nominal_at)
    spec = _healing(schedule.spec.job, [cell.client_id for cell in cells])
    jobs.make(records, job_id, spec, now, schedule.created_by, (schedule_id, HEAL, nominal_at))
    watch_until = now + 2 * MAX_JOB_DEADLINE
    records.coverage.save(
        [
            (
                cell,
                replace(
                    cell,
                    healing=True,
                    heal_job_id=job_id,
                    heals=cell.heals + 1,
                    watch_until=max(cell.watch_until, watch_until),
                ),
            )
            for cell in cells
        ]
    )
    _append_changed(records, [schedule_id], now)
    return job_id


def _append_changed(records: Records, schedule_ids: Iterable[str], now: float) -> None:
    """Append one change for each schedule whose cells changed; call it last in a transaction."""
    found = dict.fromkeys(schedule_ids)
    records.changes.append(ScheduleChanged(at=now, schedule_id=schedule_id) for schedule_id in found)


def give_up(records: Records, schedule_id: str, now: float) -> None:
    """Try the cells of that tick no more: no job can be made for them."""
    records.coverage.save(
        [(cell, replace(cell, settled=True)) for cell in _earliest(_healable(records, schedule_id, now)[1])]
    )


def _earliest(cells: list[Cell]) -> list[Cell]:
    """Those of the earliest tick."""
    nominal_at = min((cell.nominal_at for cell in cells), default=0.0)
    return [cell for cell in cells if cell.nominal_at == nominal_at]


def _healable(records: Records, schedule_id: str, now: float) -> tuple[Schedule | None, list[Cell]]:
    schedule = records.schedules.get(schedule_id)
    if schedule is None or schedule.paused:
        return schedule, []
    since = now - schedule.spec.catch_up.within
    return schedule, list(records.coverage.healable(schedule_id, since, CELLS))


def _healing(spec: JobSpec, client_ids: list[str]) -> JobSpec:
    """The job for these clients: without stages and rules of abort, which are about a whole fleet."""
    targets = Targets(clients=tuple(client_ids), reach=spec.targets.reach)
    return replace(spec, targets=targets, rollout=replace(spec.rollout, stages=()), abort=())


def _free_heal_id(records: Records, schedule_id: str, nominal_at: float) -> str:
    """The first of `{schedule}.heal.{tick}`, `…-2`, … that no job has."""
    wanted = f"{schedule_id}.{HEAL}.{stamp(nominal_at)}"
    for n in range(1, _MOST_JOBS):
        name = wanted if n == 1 else f"{wanted}-{n}"
        if records.jobs.get(name) is None:
            return name
    return wanted
