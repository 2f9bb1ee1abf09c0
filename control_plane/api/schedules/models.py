"""The shapes of REST's answers about schedules.

Rule: as in `api.models`: an answer always has all its members.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal, Self

import msgspec
from pydantic import ConfigDict, Field

from control_plane.api.jobs.models import ForecastDocument, spec_document
from control_plane.api.models import Instant, Output, Reason
from control_plane.api.schedules import examples
from control_plane.domain.jobs.durations import show_seconds
from control_plane.domain.schedules.model import Cell, CellState, Overlap, RunKind, RunStatus, ScheduleRun
from control_plane.domain.schedules.ticks import Tick
from control_plane.presentation import instant, known_instant
from control_plane.services.jobs.service import FIRST
from control_plane.services.schedules.service import Backfilled, Coverage, CoveredTick, Created, ScheduleView


class ScheduleRow(Output):
    """One schedule in a list. `version` is that of its specification: `ETag` and `If-Match` hold it."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.SCHEDULE_ROW]})

    schedule_id: str
    cron: str | None
    every: str | None
    zone: str
    next_at: Instant | None
    paused: bool
    note: str
    failures: int
    queued: int
    running: list[str]
    version: int

    @classmethod
    def of(cls, view: ScheduleView) -> Self:
        """The schedule of `view`, in short."""
        return cls(**_row(view))


class CatchUpDocument(Output):
    """Which ticks are made up for."""

    within: str
    runs: str


class ScheduleDocument(ScheduleRow):
    """One schedule with its request. `skip_at` is the tick that an operator skips; `delay` (s) is due to jitter."""

    overlap: Overlap
    catch_up: CatchUpDocument
    jitter: str
    delay: float
    pause_after_failures: int | None
    skip_at: Instant | None
    paused_at: Instant | None
    created_at: Instant
    created_by: str
    updated_at: Instant
    job: dict[str, Any]
    warnings: list[str]

    @classmethod
    def of(cls, view: ScheduleView, warnings: tuple[str, ...] = ()) -> Self:
        """The schedule of `view`."""
        schedule, spec = view.schedule, view.schedule.spec
        return cls(
            **_row(view),
            overlap=spec.overlap,
            catch_up=CatchUpDocument(within=show_seconds(spec.catch_up.within), runs=spec.catch_up.runs),
            jitter=show_seconds(spec.jitter),
            delay=schedule.delay,
            pause_after_failures=spec.pause_after_failures,
            skip_at=instant(schedule.skip_at),
            paused_at=instant(schedule.paused_at) if schedule.paused else None,
            created_at=known_instant(schedule.created_at),
            created_by=schedule.created_by,
            updated_at=known_instant(schedule.updated_at),
            job=spec_document(spec.job),
            warnings=list(warnings),
        )

    @classmethod
    def made(cls, created: Created) -> Self:
        """The result of a creation."""
        return cls.of(created.view, created.warnings)


class TickDocument(Output):
    """One tick: the instant, the local time, and what a change of the clocks does to it."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.TICK]})

    at: Instant
    local: str
    note: str | None

    @classmethod
    def of(cls, tick: Tick) -> Self:
        """The tick."""
        return cls(at=known_instant(tick.at), local=tick.local, note=tick.note)


class ScheduleDryRun(ScheduleDocument):
    """What a schedule would do: the next ten ticks, how many clients match now, and the first ten of them."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.DRY_RUN]})

    dry_run: Literal[True] = True
    clients: int
    first: list[str]
    ticks: list[TickDocument]
    forecast: ForecastDocument | None

    @classmethod
    def tried(cls, tried: Created) -> Self:
        """The result of the checks."""
        return cls(
            **dict(ScheduleDocument.made(tried)),
            clients=len(tried.clients),
            first=list(tried.clients[:FIRST]),
            ticks=[TickDocument.of(tick) for tick in tried.upcoming],
            forecast=ForecastDocument.of(tried.forecast),
        )


class SchedulePageDocument(Output):
    """Schedules by id; `cursor` gets the next page."""

    schedules: list[ScheduleRow]
    cursor: str | None


class Preview(Output):
    """The next ticks."""

    ticks: list[TickDocument]


class RunDocument(Output):
    """One tick, or one run that an operator started; `at` is when its status was decided."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.RUN]})

    kind: RunKind
    nominal_at: Instant
    status: RunStatus
    reason: Reason | None
    at: Instant
    job_id: str | None
    ended_at: Instant | None
    outcome: str | None

    @classmethod
    def of(cls, run: ScheduleRun) -> Self:
        """The run."""
        return cls(
            kind=run.kind,
            nominal_at=known_instant(run.nominal_at),
            status=run.status,
            reason=Reason.of(run.reason),
            at=known_instant(run.at),
            job_id=run.job_id,
            ended_at=instant(run.ended_at),
            outcome=run.outcome,
        )


class RunPageDocument(Output):
    """Runs, the latest first; `cursor` gets the next page."""

    runs: list[RunDocument]
    cursor: str | None


class BackfilledDocument(Output):
    """How many ticks were queued, and how many have a job, or wait for one, already."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.BACKFILLED]})

    queued: int
    left_out: int

    @classmethod
    def of(cls, found: Backfilled) -> Self:
        """The result of a backfill."""
        return cls(queued=found.queued, left_out=found.left_out)


class CoveredTickDocument(Output):
    """One tick with the number of clients in each state; `status` and `job_id` of its run, as far as it is kept."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.COVERED_TICK]})

    nominal_at: Instant
    local: str
    status: RunStatus | None
    job_id: str | None
    clients: int
    pending: int
    proven: int
    unchanged: int
    empty: int
    missing: int
    healed: int

    @classmethod
    def of(cls, one: CoveredTick) -> Self:
        """The tick of a report."""
        return cls(
            nominal_at=known_instant(one.tick.at),
            local=one.tick.local,
            status=None if one.run is None else one.run.status,
            job_id=None if one.run is None else one.run.job_id,
            clients=sum(one.counts.values()),
            **{str(state): one.counts.get(state, 0) for state in CellState},
        )


class CellDocument(Output):
    """One client at one tick. `healing_job_id` is the job that makes up for it, or did last."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.CELL]})

    nominal_at: Instant
    state: CellState
    reason_code: str
    healing_job_id: str | None


class CoveredClient(Output):
    """One client with its cells."""

    client_id: str
    cells: list[CellDocument]


class CoverageDocument(Output):
    """Every tick of the span with its sums, and one page of clients with their cells."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.COVERAGE]}, populate_by_name=True)

    schedule_id: str
    since: Instant = Field(alias="from")
    until: Instant = Field(alias="to")
    ticks: list[CoveredTickDocument]
    clients: list[CoveredClient]
    cursor: str | None


def coverage_json(schedule_id: str, found: Coverage) -> bytes:
    """The report as a `CoverageDocument` in JSON. A page has thousands of cells: no model is made for each."""
    clients, cursor = found.clients
    shown = functools.cache(known_instant)
    return msgspec.json.encode(
        {
            "schedule_id": schedule_id,
            "from": known_instant(found.since),
            "to": known_instant(found.until),
            "ticks": [CoveredTickDocument.of(one).model_dump(mode="json") for one in found.ticks],
            "clients": [
                {"client_id": client_id, "cells": [_cell(cell, shown) for cell in cells]}
                for client_id, cells in clients
            ],
            "cursor": cursor,
        }
    )


def _cell(cell: Cell, shown: Callable[[float], str]) -> dict[str, str | None]:
    return {
        "nominal_at": shown(cell.nominal_at),
        "state": str(cell.state),
        "reason_code": cell.reason_code,
        "healing_job_id": cell.heal_job_id,
    }


def _row(view: ScheduleView) -> dict[str, Any]:
    schedule = view.schedule
    cadence = schedule.spec.cadence
    return {
        "schedule_id": schedule.schedule_id,
        "cron": cadence.cron,
        "every": None if cadence.every is None else show_seconds(cadence.every),
        "zone": cadence.zone,
        "next_at": instant(view.next_at),
        "paused": schedule.paused,
        "note": schedule.note,
        "failures": schedule.failures,
        "queued": view.queued,
        "running": list(view.running),
        "version": schedule.spec_version,
    }
