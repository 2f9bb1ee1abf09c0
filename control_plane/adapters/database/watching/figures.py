"""The port `FigureRecords` in SQL.

Rule: every query walks an index over open rows, or reads sums. A test measures them over 100,000 executions.
"""

from collections import defaultdict
from typing import Final

from sqlalchemy import bindparam, func, select

from control_plane.adapters.database.jobs.tables import JOB_COUNTS, JOBS
from control_plane.adapters.database.schedules.tables import COVERAGE, SCHEDULES
from control_plane.adapters.database.sql import Statement, Transaction
from control_plane.adapters.database.tables import CLIENTS, IS_HELD, OUTBOX, UPLOADS
from control_plane.adapters.database.webhooks.tables import DELIVERIES, WAITS
from control_plane.domain.jobs.model import JobState
from control_plane.domain.schedules.model import CellState
from control_plane.domain.uploads.model import OPEN, State
from control_plane.domain.webhooks import DeliveryState
from control_plane.services.ports.database import PARKED
from control_plane.services.ports.figures import COVERED, MOST, MOST_SCHEDULES, Figures

_U: Final = UPLOADS.c
_J: Final = JOBS.c
_V: Final = COVERAGE.c

# A comparison, for SQLite uses no index for IS NOT NULL: a job that is over has no instant.
_IS_OPEN: Final = _J.next_wake_at >= 0

_COUNT: Final = Statement(select(func.count(), func.min(_U.created_at)).where(_U.state == bindparam("state")))
_SOME_HELD: Final = select(_U.reason_code).where(IS_HELD, _U.ended_at.is_(None)).limit(MOST).subquery("some_held")
_HELD: Final = Statement(select(_SOME_HELD.c.reason_code, func.count()).group_by(_SOME_HELD.c.reason_code))
_JOBS: Final = Statement(select(_J.state, func.count()).where(_IS_OPEN).group_by(_J.state))
_EXECUTIONS: Final = Statement(
    select(JOB_COUNTS.c.state, JOB_COUNTS.c.reason_code, func.sum(JOB_COUNTS.c.n))
    .select_from(JOBS.join(JOB_COUNTS, JOB_COUNTS.c.job_id == _J.job_id))
    .where(_IS_OPEN, JOB_COUNTS.c.n != 0)
    .group_by(JOB_COUNTS.c.state, JOB_COUNTS.c.reason_code)
)
_SCHEDULES: Final = Statement(select(SCHEDULES.c.paused, func.count()).group_by(SCHEDULES.c.paused))
_SOME: Final = (
    select(SCHEDULES.c.schedule_id).order_by(SCHEDULES.c.schedule_id).limit(MOST_SCHEDULES).subquery("some_schedules")
)
_COVERAGE: Final = Statement(
    select(_V.schedule_id, _V.state, func.sum(_V.n))
    .select_from(_SOME.join(COVERAGE, _V.schedule_id == _SOME.c.schedule_id))
    .where(_V.nominal_at >= bindparam("since"))
    .group_by(_V.schedule_id, _V.state)
)
_CLIENTS: Final = Statement(select(CLIENTS.c.online, func.count()).group_by(CLIENTS.c.online))
_DUE: Final = Statement(select(func.min(OUTBOX.c.due_at)))
_DEAD: Final = Statement(
    select(func.count()).select_from(
        select(DELIVERIES.c.number).where(DELIVERIES.c.state == DeliveryState.DEAD.value).limit(MOST).subquery()
    )
)
_WAITING: Final = Statement(
    select(func.count()).select_from(select(DELIVERIES.c.webhook_id).where(WAITS).limit(MOST).subquery())
)


class SqlFigures:
    """The figures, inside one transaction."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def read(self, now: float) -> Figures:
        run = self._transaction.run
        uploads: dict[State, int] = {}
        oldest: dict[State, float] = {}
        for state in sorted(OPEN):
            count, first = run(_COUNT, {"state": state.value}).fetchone() or (0, None)
            uploads[state] = count
            if first is not None:
                oldest[state] = first
        coverage: dict[str, dict[CellState, int]] = defaultdict(dict)
        for schedule_id, cell, count in run(_COVERAGE, {"since": now - COVERED}).fetchall():
            coverage[schedule_id][CellState(cell)] = int(count)
        schedules = {bool(paused): count for paused, count in run(_SCHEDULES, {}).fetchall()}
        clients = {bool(online): count for online, count in run(_CLIENTS, {}).fetchall()}
        (due_at,) = run(_DUE, {}).fetchone() or (None,)
        (dead,) = run(_DEAD, {}).fetchone() or (0,)
        (waiting,) = run(_WAITING, {}).fetchone() or (0,)
        return Figures(
            uploads=uploads,
            oldest=oldest,
            held={code or "": count for code, count in run(_HELD, {}).fetchall()},
            jobs={JobState(state): count for state, count in run(_JOBS, {}).fetchall()},
            executions={(state, code): int(count) for state, code, count in run(_EXECUTIONS, {}).fetchall()},
            coverage=coverage,
            schedules_active=schedules.get(False, 0),
            schedules_paused=schedules.get(True, 0),
            clients_online=clients.get(True, 0),
            clients_offline=clients.get(False, 0),
            due_at=None if due_at is None or due_at >= PARKED else due_at,
            deliveries_dead=dead,
            deliveries_waiting=waiting,
        )
