"""Schedules as a caller with a reach sees them.

Rule: it sees those that were made with its reach, and those that cover one of its clients: of these neither the targets
nor a text that may name other clients. It changes only the first kind. For a caller without a reach nothing differs.
"""

from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from control_plane.domain.access import Principal
from control_plane.domain.errors import Forbidden
from control_plane.domain.reasons import Reason
from control_plane.domain.schedules.model import Schedule, ScheduleRun
from control_plane.services.clients.reach import reach_of, same_reach
from control_plane.services.errors import UnknownSchedule
from control_plane.services.ports.database import Page, Records
from control_plane.services.ports.schedules import CellFilter, SchedulePage

_OF_THE_WHOLE: Final = "it is about the whole run, which has clients that this token does not have"
_ALWAYS: Final = 1e15
"""Behind every nominal instant."""


def seen_by(records: Records, principal: Principal, schedule: Schedule) -> Schedule:
    """The schedule as the caller sees it; `UnknownSchedule` when it does not see it."""
    reach = reach_of(principal)
    if reach is None or _is_own(principal, schedule):
        return schedule
    cells = CellFilter(schedule.schedule_id, 0.0, _ALWAYS, reach=reach)
    if not records.coverage.list(cells, Page(1))[0]:
        raise UnknownSchedule(schedule.schedule_id)
    return _without_targets(schedule)


def seen_page(records: Records, principal: Principal, page: Page) -> SchedulePage:
    """A page of schedules by id, as the caller sees them."""
    reach = reach_of(principal)
    if reach is None:
        return records.schedules.list(page)
    covering = records.coverage.covering(reach)
    seen: list[Schedule] = []
    cursor = page.cursor
    while len(seen) < page.limit:
        found, cursor = records.schedules.list(Page(page.limit - len(seen), cursor))
        seen += [one for one in found if _is_own(principal, one) or one.schedule_id in covering]
        if cursor is None:
            break
    return [one if _is_own(principal, one) else _without_targets(one) for one in seen], cursor


def seen_runs(principal: Principal, schedule: Schedule, runs: Sequence[ScheduleRun]) -> list[ScheduleRun]:
    """Runs of a schedule that the caller sees."""
    if principal.clients is None or _is_own(principal, schedule):
        return list(runs)
    return [replace(run, reason=Reason(run.reason.code, _OF_THE_WHOLE)) for run in runs]


def require_own(records: Records, principal: Principal, schedule: Schedule) -> Schedule:
    """The schedule; `UnknownSchedule` when the caller does not see it, `Forbidden` when it may not change it."""
    seen_by(records, principal, schedule)
    if principal.clients is not None and not _is_own(principal, schedule):
        text = f"schedule {schedule.schedule_id!r} has clients that are not among the token's: {principal.clients}"
        raise Forbidden(text)
    return schedule


def _is_own(principal: Principal, schedule: Schedule) -> bool:
    return same_reach(schedule.spec.job.targets.reach, principal.clients)


def _without_targets(schedule: Schedule) -> Schedule:
    job = schedule.spec.job
    targets = replace(job.targets, clients=(), selector=None)
    return replace(schedule, spec=replace(schedule.spec, job=replace(job, targets=targets)), note="")
