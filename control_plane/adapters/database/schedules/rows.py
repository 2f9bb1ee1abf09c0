"""Between the Structs of schedules and the rows of their tables.

Rule: as in `adapters.database.rows`. A row is read by position, in the order of the constants here.
"""

from typing import Final

from control_plane.adapters.database.rows import DriverRow, clean, from_json, to_json
from control_plane.adapters.database.sql import Values
from control_plane.domain.reasons import Reason
from control_plane.domain.schedules.model import (
    Cell,
    CellState,
    RunKind,
    RunStatus,
    Schedule,
    ScheduleRun,
    ScheduleSpec,
)

SCHEDULE_COLUMNS: Final = Schedule.__struct_fields__
_spec: Final = from_json(ScheduleSpec)


def schedule_values(schedule: Schedule) -> Values:
    """The row of a schedule."""
    values: Values = {name: getattr(schedule, name) for name in SCHEDULE_COLUMNS}
    return values | {
        "spec": to_json(schedule.spec),
        "note": clean(schedule.note),
        "created_by": clean(schedule.created_by),
    }


def to_schedule(row: DriverRow) -> Schedule:
    """The schedule of a row of `SCHEDULE_COLUMNS`."""
    values = dict(zip(SCHEDULE_COLUMNS, row, strict=True))
    return Schedule(**(values | {"spec": _spec(values["spec"]), "paused": bool(values["paused"])}))


_RUN_FIELDS: Final = tuple(name for name in ScheduleRun.__struct_fields__ if name != "reason")
RUN_COLUMNS: Final = (*_RUN_FIELDS, "reason_code", "reason")


def run_values(run: ScheduleRun) -> Values:
    """The row of a run."""
    values: Values = {name: getattr(run, name) for name in _RUN_FIELDS}
    return values | {
        "kind": str(run.kind),
        "status": str(run.status),
        "reason_code": clean(run.reason.code),
        "reason": clean(run.reason.text),
    }


def to_run(row: DriverRow) -> ScheduleRun:
    """The run of a row of `RUN_COLUMNS`."""
    *fields, code, text = row
    values = dict(zip(_RUN_FIELDS, fields, strict=True))
    values |= {
        "kind": RunKind(values["kind"]),
        "status": RunStatus(values["status"]),
        "queued": bool(values["queued"]),
    }
    return ScheduleRun(**values, reason=Reason(code, text))


CELL_COLUMNS: Final = Cell.__struct_fields__
_FLAGS: Final = ("healing", "settled")


def cell_values(cell: Cell) -> Values:
    """The row of a cell."""
    values: Values = {name: getattr(cell, name) for name in CELL_COLUMNS}
    return values | {"state": str(cell.state), "reason_code": clean(cell.reason_code)}


def to_cell(row: DriverRow) -> Cell:
    """The cell of a row of `CELL_COLUMNS`."""
    values = dict(zip(CELL_COLUMNS, row, strict=True))
    values |= {name: bool(values[name]) for name in _FLAGS}
    return Cell(**(values | {"state": CellState(values["state"])}))
