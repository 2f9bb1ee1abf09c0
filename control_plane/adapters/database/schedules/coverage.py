"""The port `CoverageRecords` in SQL.

Rule: what inserts, changes or deletes a cell changes the sums in the same call, in the order of their keys.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import sqlalchemy
from sqlalchemy import and_, bindparam, case, delete, exists, func, or_, select, tuple_, update

from control_plane.adapters.cursors import check_limit, client_position, encode_cursor
from control_plane.adapters.database.jobs.tables import EXECUTIONS
from control_plane.adapters.database.reach import inside
from control_plane.adapters.database.schedules.rows import CELL_COLUMNS, cell_values, to_cell
from control_plane.adapters.database.schedules.tables import CELLS, COVERAGE, IS_MISSING, IS_WATCHED, SCHEDULES
from control_plane.adapters.database.sql import Statement, Transaction, Values
from control_plane.adapters.database.tables import CLIENTS
from control_plane.domain.jobs.model import ExecutionState
from control_plane.domain.reasons import ReasonCode
from control_plane.domain.schedules.coverage import MAX_HEALS
from control_plane.domain.schedules.model import Cell, CellState
from control_plane.domain.selectors import Selector
from control_plane.services.errors import VersionConflict
from control_plane.services.ports.database import Page
from control_plane.services.ports.schedules import CellCounts, CellFilter, CellPage, CellPosition, EndedCell

_C: Final = CELLS.c
_E: Final = EXECUTIONS.c
_V: Final = COVERAGE.c
_ROWS: Final = select(*(_C[name] for name in CELL_COLUMNS))

# Only executions of this tick's own job: a client that joins a continuous job later was not matched at the tick.
_ADD: Final = Statement(
    sqlalchemy.text(
        f"INSERT INTO schedule_cells ({', '.join(CELL_COLUMNS)})"  # noqa: S608 - the names are constants
        " SELECT :schedule_id, client_id, :nominal_at, :state, reason_code, job_id, :now, false, NULL, 0, false,"
        " :watch_until FROM executions WHERE job_id = :job_id ON CONFLICT DO NOTHING"
    )
)
_COUNT: Final = Statement(
    sqlalchemy.text(
        "INSERT INTO schedule_coverage (schedule_id, nominal_at, state, n)"
        " VALUES (:schedule_id, :nominal_at, :state, :n)"
        " ON CONFLICT (schedule_id, nominal_at, state) DO UPDATE SET n = schedule_coverage.n + excluded.n"
    )
)
_EXECUTION: Final = case((_C.healing.is_(True), _C.heal_job_id), else_=_C.job_id)
_NEWLY_ENDED: Final = or_(_C.state == CellState.PENDING.value, _C.healing.is_(True), _E.ended_at > _C.at)
_LOOKED_AT: Final = tuple(_C[name] for name in CellPosition._fields)
_ENDED: Final = Statement(
    select(*(_C[name] for name in CELL_COLUMNS), _E.state, _E.reason_code, _E.ended_at)
    .join(EXECUTIONS, and_(_E.job_id == _EXECUTION, _E.client_id == _C.client_id))
    .where(
        IS_WATCHED,
        tuple_(*_LOOKED_AT) > tuple_(*map(bindparam, CellPosition._fields)),
        _E.ended_at.is_not(None),
        _NEWLY_ENDED,
    )
    .order_by(*_LOOKED_AT)
    .limit(bindparam("limit"))
)
_SAVE: Final = Statement(
    update(CELLS).where(
        _C.schedule_id == bindparam("of_schedule"),
        _C.client_id == bindparam("of_client"),
        _C.nominal_at == bindparam("of_nominal"),
        _C.state == bindparam("read_state"),
        _C.healing == bindparam("read_healing"),
        _C.at == bindparam("read_at"),
    )
)
_OTHER: Final = CELLS.alias()
_HEALS_ANOTHER: Final = exists().where(
    _OTHER.c.schedule_id == _C.schedule_id, _OTHER.c.client_id == _C.client_id, _OTHER.c.healing.is_(True)
)
_HEALABLE: Final = Statement(
    _ROWS.join(CLIENTS, CLIENTS.c.client_id == _C.client_id)
    .where(
        _C.schedule_id == bindparam("of_schedule"),
        _C.state == CellState.MISSING.value,
        _C.nominal_at >= bindparam("since"),
        _C.settled.is_(False),
        _C.heals < MAX_HEALS,
        CLIENTS.c.online.is_(True),
        or_(CLIENTS.c.connected_at > _C.at, _C.reason_code == ReasonCode.DEADLINE_PASSED.value),
        ~_HEALS_ANOTHER,
    )
    .order_by(_C.client_id, _C.nominal_at)
    .limit(bindparam("limit"))
)
_WITH_MISSING: Final = Statement(
    select(_V.schedule_id).where(IS_MISSING, _V.nominal_at >= bindparam("since"), _V.n > 0).order_by(_V.schedule_id)
)
_COUNTS: Final = Statement(
    select(_V.nominal_at, _V.state, _V.n)
    .where(_V.schedule_id == bindparam("of_schedule"), _V.nominal_at.between(bindparam("since"), bindparam("until")))
    .where(_V.n != 0)
    .order_by(_V.nominal_at)
)
_RECOUNT: Final = Statement(
    select(_C.nominal_at, _C.state, func.count())
    .where(_C.schedule_id == bindparam("of_schedule"))
    .group_by(_C.nominal_at, _C.state)
)
_OLD: Final = Statement(
    _ROWS.where(_C.nominal_at < bindparam("before"), or_(~IS_WATCHED, _C.watch_until < bindparam("now")))
    .order_by(_C.nominal_at)
    .limit(bindparam("limit"))
)
_DELETE: Final = Statement(
    delete(CELLS).where(
        _C.schedule_id == bindparam("of_schedule"),
        _C.client_id == bindparam("of_client"),
        _C.nominal_at == bindparam("of_nominal"),
    )
)
_NO_CELLS: Final = Statement(
    delete(COVERAGE).where(
        _V.schedule_id == bindparam("of_schedule"), _V.nominal_at == bindparam("of_nominal"), _V.n == 0
    )
)


class SqlCoverage:
    """Cells and their sums, inside one transaction."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def add(self, schedule_id: str, nominal_at: float, job_id: str, *, now: float, watch_until: float) -> int:
        """One statement that copies the keys of the executions."""
        state = str(CellState.PENDING)
        values: Values = {"schedule_id": schedule_id, "nominal_at": nominal_at, "state": state, "job_id": job_id}
        made = self._transaction.run(_ADD, values | {"now": now, "watch_until": watch_until}).rowcount
        self._count({(schedule_id, nominal_at, state): made})
        return made

    def ended(self, after: CellPosition, limit: int) -> Sequence[EndedCell]:
        """A walk along the index of watched cells, with a lookup of the execution for each."""
        found = self._transaction.run(_ENDED, {**after._asdict(), "limit": limit}).fetchall()
        return [EndedCell(to_cell(row[:-3]), ExecutionState(row[-3]), row[-2], row[-1]) for row in map(tuple, found)]

    def save(self, changes: Sequence[tuple[Cell, Cell]]) -> None:
        """In the order of the keys."""
        deltas: Counter[tuple[str, float, str]] = Counter()
        for before, after in sorted(changes, key=lambda change: _position(change[0])):
            old, new = cell_values(before), cell_values(after)
            values = {name: value for name, value in new.items() if value != old[name]}
            guard = {"read_state": old["state"], "read_healing": before.healing, "read_at": before.at}
            if values and self._transaction.update(_SAVE, values, _named(before) | guard) == 0:
                message = f"the cell of {before.client_id!r} in schedule {before.schedule_id!r} changed"
                raise VersionConflict(message)
            deltas[before.schedule_id, before.nominal_at, old["state"]] -= 1
            deltas[before.schedule_id, before.nominal_at, new["state"]] += 1
        self._count(deltas)

    def healable(self, schedule_id: str, since: float, limit: int) -> Sequence[Cell]:
        """From the index of the cells by state."""
        values: Values = {"of_schedule": schedule_id, "since": since, "limit": limit}
        earliest: dict[str, Cell] = {}
        for row in self._transaction.run(_HEALABLE, values).fetchall():
            cell = to_cell(row)
            earliest.setdefault(cell.client_id, cell)
        return list(earliest.values())

    def with_missing(self, since: float) -> Sequence[str]:
        """From an index that has only missing cells."""
        rows = self._transaction.run(_WITH_MISSING, {"since": since}).fetchall()
        return list(dict.fromkeys(row[0] for row in rows))

    def counts(self, schedule_id: str, since: float, until: float) -> CellCounts:
        """A few rows of each tick."""
        values: Values = {"of_schedule": schedule_id, "since": since, "until": until}
        return _by_tick([tuple(row) for row in self._transaction.run(_COUNTS, values).fetchall()])

    def counts_within(self, schedule_id: str, since: float, until: float, reach: Selector) -> CellCounts:
        """A walk over the cells of the schedule."""
        within_reach = inside(self._transaction.connection, _C.client_id, reach)
        query = (
            select(_C.nominal_at, _C.state, func.count())
            .where(_C.schedule_id == schedule_id, _C.nominal_at.between(since, until), *within_reach)
            .group_by(_C.nominal_at, _C.state)
        )
        return _by_tick([tuple(row) for row in self._transaction.connection.execute(query)])

    def covering(self, reach: Selector) -> Collection[str]:
        """One look for each schedule that has cells, up to the first cell within."""
        connection = self._transaction.connection
        within_reach = inside(connection, _C.client_id, reach)
        cell = exists().where(_C.schedule_id == SCHEDULES.c.schedule_id, *within_reach)
        return frozenset(connection.execute(select(SCHEDULES.c.schedule_id).where(cell)).scalars())

    def recounted(self, schedule_id: str) -> CellCounts:
        """A scan of the schedule."""
        rows = self._transaction.run(_RECOUNT, {"of_schedule": schedule_id}).fetchall()
        return _by_tick([tuple(row) for row in rows])

    def list(self, where: CellFilter, page: Page) -> CellPage:
        """The clients of the page from an index, then their cells by the primary key."""
        check_limit(page)
        of = (_C.schedule_id == where.schedule_id, _C.nominal_at.between(where.since, where.until))
        query = select(_C.client_id).where(*of).distinct().order_by(_C.client_id).limit(page.limit + 1)
        if where.state is not None:
            query = query.where(_C.state == str(where.state))
        query = query.where(*inside(self._transaction.connection, _C.client_id, where.reach))
        if (after := client_position(page)) is not None:
            query = query.where(_C.client_id > after)
        names = list(self._transaction.connection.execute(query).scalars())
        cursor = encode_cursor((names[page.limit - 1],)) if len(names) > page.limit else None
        cells: dict[str, list[Cell]] = {name: [] for name in names[: page.limit]}
        if cells:
            rows = self._transaction.connection.execute(
                _ROWS.where(*of, _C.client_id.in_(list(cells))).order_by(_C.client_id, _C.nominal_at)
            )
            for cell in map(to_cell, map(tuple, rows)):
                cells[cell.client_id].append(cell)
        return list(cells.items()), cursor

    def prune(self, before: float, limit: int, *, now: float) -> int:
        """The sums follow."""
        values: Values = {"before": before, "now": now, "limit": limit}
        old = [to_cell(row) for row in self._transaction.run(_OLD, values).fetchall()]
        self._transaction.run_each(_DELETE, [_named(cell) for cell in old])
        self._count({key: -n for key, n in Counter(map(_sum_key, old)).items()})
        ticks = sorted({(cell.schedule_id, cell.nominal_at) for cell in old})
        self._transaction.run_each(_NO_CELLS, [{"of_schedule": name, "of_nominal": at} for name, at in ticks])
        return len(old)

    def _count(self, deltas: Mapping[tuple[str, float, str], int]) -> None:
        self._transaction.run_each(
            _COUNT,
            [
                {"schedule_id": schedule_id, "nominal_at": nominal_at, "state": state, "n": n}
                for (schedule_id, nominal_at, state), n in sorted(deltas.items())
                if n
            ],
        )


def _by_tick(rows: Sequence[tuple[float, str, int]]) -> CellCounts:
    found: dict[float, dict[CellState, int]] = defaultdict(dict)
    for nominal_at, state, n in rows:
        found[nominal_at][CellState(state)] = n
    return dict(found)


def _position(cell: Cell) -> tuple[str, str, float]:
    return cell.schedule_id, cell.client_id, cell.nominal_at


def _sum_key(cell: Cell) -> tuple[str, float, str]:
    return cell.schedule_id, cell.nominal_at, str(cell.state)


def _named(cell: Cell) -> Values:
    """Parameter names that no column has: an UPDATE sets the columns among its parameters."""
    return {"of_schedule": cell.schedule_id, "of_client": cell.client_id, "of_nominal": cell.nominal_at}
