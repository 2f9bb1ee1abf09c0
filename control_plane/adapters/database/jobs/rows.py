"""Between the Structs of jobs and the rows of their tables.

Rule: as in `adapters.database.rows`. A row is read by position, in the order of the constants here.
"""

import functools
from typing import Any, Final

from control_plane.adapters.database.rows import Convert, DriverRow, altered, clean, from_json, maybe, to_json
from control_plane.adapters.database.sql import Values
from control_plane.domain.jobs.model import (
    JOB_TERMINAL,
    ApprovalState,
    Execution,
    ExecutionState,
    FileOutcome,
    Job,
    JobFile,
    JobOutcome,
    JobState,
)
from control_plane.domain.jobs.spec import JobSpec
from control_plane.domain.reasons import Reason


def _reason(code: str | None, text: str | None) -> Reason | None:
    return None if code is None else Reason(code, text or "")


def _reason_values(reason: Reason | None) -> Values:
    if reason is None:
        return {"reason_code": None, "reason": None}
    return {"reason_code": clean(reason.code), "reason": clean(reason.text)}


# --- jobs ------------------------------------------------------------------------------------------------------------

_JOB_FIELDS: Final = tuple(name for name in Job.__struct_fields__ if name not in {"reason", "next_wake_at"})
JOB_COLUMNS: Final = (*_JOB_FIELDS, "reason_code", "reason", "next_wake_at")
_JOB_TO_COLUMN: Final[dict[str, Convert]] = {
    "spec": to_json,
    "state": str,
    "ending": maybe(str),
    "outcome": maybe(str),
    "approval": str,
    "created_by": clean,
}
_COLUMN_TO_JOB: Final[dict[str, Convert]] = {
    "spec": functools.lru_cache(1_024)(from_json(JobSpec)),
    "state": JobState,
    "ending": maybe(JobState),
    "outcome": maybe(JobOutcome),
    "approval": ApprovalState,
    "approve_later": bool,
}


def job_values(job: Job) -> Values:
    """The row of a job."""
    values: Values = {name: getattr(job, name) for name in _JOB_FIELDS} | _reason_values(job.reason)
    for name, convert in _JOB_TO_COLUMN.items():
        values[name] = convert(values[name])
    over = job.state in JOB_TERMINAL
    return values | {
        "next_wake_at": None if over else job.next_wake_at,
        "priority": job.spec.priority,
        "continuous": None if over else job.spec.targets.mode == "continuous",
    }


def to_job(row: DriverRow) -> Job:
    """The job of a row of `JOB_COLUMNS`."""
    values = dict(zip(JOB_COLUMNS, row, strict=False))
    for name, convert in _COLUMN_TO_JOB.items():
        values[name] = convert(values[name])
    values["reason"] = _reason(values.pop("reason_code"), values["reason"])
    values["next_wake_at"] = values["next_wake_at"] or 0.0
    return Job(**values)


# --- executions ------------------------------------------------------------------------------------------------------

_EXECUTION_FIELDS: Final = tuple(name for name in Execution.__struct_fields__ if name not in {"reason", "version"})
EXECUTION_COLUMNS: Final = (*_EXECUTION_FIELDS, "version", "reason_code", "reason")
_EXECUTION_TO_COLUMN: Final[dict[str, Convert]] = {"state": str, "ending": maybe(str), "selection": maybe(clean)}


def execution_values(execution: Execution) -> Values:
    """The row of an execution."""
    values: Values = {name: getattr(execution, name) for name in (*_EXECUTION_FIELDS, "version")}
    for name, convert in _EXECUTION_TO_COLUMN.items():
        values[name] = convert(values[name])
    return values | _reason_values(execution.reason) | {"queued": execution.state is ExecutionState.QUEUED}


def changed_execution(before: Execution, after: Execution) -> Values:
    """The columns that differ, without the version."""
    values: Values = {}
    for name in _EXECUTION_FIELDS:
        value = getattr(after, name)
        if altered(getattr(before, name), value):
            convert = _EXECUTION_TO_COLUMN.get(name)
            values[name] = value if convert is None else convert(value)
    if altered(before.reason, after.reason):
        values |= _reason_values(after.reason)
    if before.state is not after.state:
        values["queued"] = after.state is ExecutionState.QUEUED
    return values


def to_execution(row: DriverRow) -> Execution:
    """The execution of a row of `EXECUTION_COLUMNS`."""
    values: dict[str, Any] = dict(zip(EXECUTION_COLUMNS, row, strict=True))
    values["state"] = ExecutionState(values["state"])
    values["ending"] = None if values["ending"] is None else ExecutionState(values["ending"])
    values["approved"] = bool(values["approved"])
    values["reason"] = Reason(values.pop("reason_code"), values["reason"])
    return Execution(**values)


# --- files -----------------------------------------------------------------------------------------------------------

_FILE_FIELDS: Final = tuple(name for name in JobFile.__struct_fields__ if name not in {"reason", "outcome"})
FILE_COLUMNS: Final = (*_FILE_FIELDS, "outcome", "reason_code", "reason")


def file_values(file: JobFile) -> Values:
    """The row of a file."""
    values: Values = {name: getattr(file, name) for name in _FILE_FIELDS}
    values["path"] = clean(file.path)
    values["outcome"] = None if file.outcome is None else str(file.outcome)
    return values | _reason_values(file.reason)


def to_file(row: DriverRow) -> JobFile:
    """The file of a row of `FILE_COLUMNS`."""
    *fields, outcome, code, text = row
    return JobFile(
        **dict(zip(_FILE_FIELDS, fields, strict=True)),
        outcome=None if outcome is None else FileOutcome(outcome),
        reason=_reason(code, text),
    )
