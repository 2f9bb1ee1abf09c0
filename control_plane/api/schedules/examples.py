"""What requests and answers of schedules look like, for the OpenAPI document; a test holds each against its model.

Rule: the values of docs/jobs.md, so that both documents show the same example.
"""

from typing import Any, Final

from control_plane.api.jobs.examples import FORECAST, SPEC

_JOB_ID: Final = "sales.20261126T020000Z"

NEW_SCHEDULE: Final[dict[str, Any]] = {
    "cron": "0 3 * * *",
    "zone": "Europe/Berlin",
    "job": {
        "targets": {"selector": "kind=restaurant"},
        "files": {"paths": ["/data/sales-{tick-1d:%Y%m%d}.csv"]},
        "key": "{schedule}/{tick:%Y-%m-%d}/{client_id}/{name}",
        "deadline": "20h",
    },
    "overlap": "allow",
    "catch_up": {"within": "7d", "runs": "all"},
    "jitter": "10m",
    "pause_after_failures": 3,
}
BACKFILL: Final[dict[str, Any]] = {"from": "2026-11-20T00:00:00Z", "to": "2026-11-25T23:59:59Z"}
SCHEDULE_ROW: Final[dict[str, Any]] = {
    "schedule_id": "sales",
    "cron": "0 3 * * *",
    "every": None,
    "zone": "Europe/Berlin",
    "next_at": "2026-11-27T02:00:00.000Z",
    "paused": False,
    "note": "",
    "failures": 0,
    "queued": 0,
    "running": [_JOB_ID],
    "version": 1,
}
TICK: Final[dict[str, Any]] = {
    "at": "2027-03-28T01:00:00.000Z",
    "local": "2027-03-28T03:00:00+02:00",
    "note": "02:30 does not exist on this day: the tick is at 03:00, right after the gap",
}
DRY_RUN: Final[dict[str, Any]] = {
    **SCHEDULE_ROW,
    "running": [],
    "overlap": "allow",
    "catch_up": {"within": "7d", "runs": "all"},
    "jitter": "10m",
    "delay": 192.5,
    "pause_after_failures": 3,
    "skip_at": None,
    "paused_at": None,
    "created_at": "2026-11-26T12:00:00.000Z",
    "created_by": "alice",
    "updated_at": "2026-11-26T12:00:00.000Z",
    "job": SPEC,
    "warnings": ["1 client was never seen: restaurant-2"],
    "dry_run": True,
    "clients": 400,
    "first": ["restaurant-1", "restaurant-2"],
    "ticks": [TICK],
    "forecast": FORECAST,
}
RUN: Final[dict[str, Any]] = {
    "kind": "tick",
    "nominal_at": "2026-11-26T02:00:00.000Z",
    "status": "fired",
    "reason": {"code": "on_time", "text": "the tick was due", "next_wake_at": None},
    "at": "2026-11-26T02:03:12.000Z",
    "job_id": _JOB_ID,
    "ended_at": None,
    "outcome": None,
}
BACKFILLED: Final[dict[str, Any]] = {"queued": 5, "left_out": 1}
COVERED_TICK: Final[dict[str, Any]] = {
    "nominal_at": "2026-11-26T02:00:00.000Z",
    "local": "2026-11-26T03:00:00+01:00",
    "status": "fired",
    "job_id": _JOB_ID,
    "clients": 400,
    "pending": 0,
    "proven": 397,
    "unchanged": 0,
    "empty": 0,
    "missing": 2,
    "healed": 1,
}
CELL: Final[dict[str, Any]] = {
    "nominal_at": "2026-11-26T02:00:00.000Z",
    "state": "missing",
    "reason_code": "deadline_passed",
    "healing_job_id": None,
}
COVERAGE: Final[dict[str, Any]] = {
    "schedule_id": "sales",
    "from": "2026-10-27T02:00:00.000Z",
    "to": "2026-11-26T02:00:00.000Z",
    "ticks": [COVERED_TICK],
    "clients": [{"client_id": "restaurant-1", "cells": [CELL]}],
    "cursor": None,
}
