"""What requests and answers of jobs look like, for the OpenAPI document; a test holds each against its model.

Rule: the values of docs/jobs.md, so that both documents show the same example.
"""

from typing import Any, Final

SMALLEST_JOB: Final[dict[str, Any]] = {
    "targets": {"clients": ["restaurant-1"]},
    "files": {"paths": ["/data/*.csv"]},
}
NEW_JOB: Final[dict[str, Any]] = {
    "job_id": "sales-2026-11-26",
    "reason": "daily report",
    "metadata": {"ticket": "OPS-112"},
    "targets": {"selector": "site=berlin,model in (pi4,pi5),!retired", "clients": [], "mode": "snapshot"},
    "files": {
        "paths": ["/var/log/**/*.log"],
        "exclude": ["**/debug.log"],
        "type": None,
        "newer_than": "24h",
        "older_than": None,
        "min_size": None,
        "max_size": "50MiB",
        "pick": "newest",
        "min_files": 0,
        "max_files": 100,
        "max_bytes": "200MiB",
        "skip": "unchanged",
    },
    "key": "{job}/{tick:%Y-%m-%d}/{client_id}/{path}",
    "options": {"compression": "gzip", "on_change": "prefix"},
    "approval": "never",
    "rollout": {
        "per_minute": 50,
        "max_running": 200,
        "stages": [{"percent": 1, "min": 5, "advance_at": 95, "then": "pause"}, {"percent": 100}],
    },
    "abort": [{"on": "failed", "percent": 10, "min_ended": 20}],
    "retry": {"failed": 2, "timed_out": 2},
    "timeouts": {"listing": "1h", "execution": "24h"},
    "deadline": "36h",
    "zone": "Europe/Berlin",
    "windows": [{"cron": "0 1 * * *", "for": "3h", "zone": "device", "on_end": "pause"}],
    "priority": 0,
}

_AT: Final = "2026-11-26T03:00:00.000Z"
_STATES: Final = (
    "queued",
    "listing",
    "awaiting_approval",
    "uploading",
    "succeeded",
    "partial",
    "failed",
    "rejected",
    "timed_out",
    "cancelled",
    "removed",
    "skipped",
)
JOB_ROW: Final[dict[str, Any]] = {
    "job_id": "sales-2026-11-26",
    "state": "running",
    "outcome": None,
    "approval": "not_needed",
    "reason": {
        "code": "job_paused",
        "text": "an operator paused the job",
        "next_wake_at": "2026-11-27T00:00:00.000Z",
    },
    "clients": 400,
    "executions": {**dict.fromkeys(_STATES, 0), "queued": 38, "uploading": 2, "succeeded": 360},
    "totals": {"files": 1150, "bytes": 3_204_116_992, "proven": 1080, "proven_bytes": 2_988_441_600},
    "version": 1,
    "schedule_id": None,
    "nominal_at": None,
    "created_at": _AT,
    "created_by": "alice",
    "deadline": "2026-11-27T15:00:00.000Z",
    "ended_at": None,
}
SPEC: Final[dict[str, Any]] = {
    "targets": {"clients": ["restaurant-1"], "selector": None, "mode": "snapshot"},
    "files": {
        "paths": ["/data/*.csv"],
        "exclude": [],
        "type": None,
        "newer_than": 86400.0,
        "older_than": None,
        "min_size": None,
        "max_size": 52428800,
        "pick": "newest",
        "min_files": None,
        "max_files": 1000,
        "max_bytes": None,
        "skip": "none",
    },
    "key": "{job}/{client_id}/{path}",
    "reason": "daily report",
    "metadata": {},
    "options": {
        "priority": 0,
        "max_bytes_per_second": None,
        "on_change": "fail",
        "compression": "none",
        "give_up_after": 86400,
        "encrypt_to": [],
    },
    "approval": "never",
    "rollout": {"per_minute": 50, "max_running": None, "stages": []},
    "abort": [],
    "retry": {"failed": 0, "timed_out": 0},
    "timeouts": {"listing": 3600.0, "execution": None},
    "deadline": 129600.0,
    "zone": "UTC",
    "windows": [],
    "priority": 0,
    "running": "finish",
}
JOB: Final[dict[str, Any]] = {
    **JOB_ROW,
    "ending": None,
    "run": 1,
    "stage": {"number": 1, "of": 2, "percent": 1.0, "since": _AT},
    "reasons": [
        {"state": "succeeded", "reason_code": "sent", "executions": 360},
        {"state": "queued", "reason_code": "created", "executions": 38},
        {"state": "uploading", "reason_code": "uploading", "executions": 2},
    ],
    "spec": SPEC,
}
JOB_PAGE: Final[dict[str, Any]] = {"jobs": [JOB_ROW], "cursor": None}
FORECAST: Final[dict[str, Any]] = {
    "limited": 20,
    "by_history": 18,
    "by_limit": 2,
    "unknown": 0,
    "bytes": 2_147_483_648,
    "crossings": [
        {"date": "2026-11-27", "period": "day", "clients": 2, "first": ["restaurant-1", "restaurant-2"]},
    ],
}
DRY_RUN: Final[dict[str, Any]] = {
    "dry_run": True,
    "clients": 2,
    "set": "9f86d081884c7d65",
    "first": ["restaurant-1", "restaurant-2"],
    "warnings": ["1 client was never seen: restaurant-2"],
    "spec": SPEC,
    "forecast": FORECAST,
}
EXECUTION: Final[dict[str, Any]] = {
    "client_id": "restaurant-1",
    "state": "uploading",
    "reason": {"code": "uploading", "text": "its files are being sent", "next_wake_at": "2026-11-27T15:00:00.000Z"},
    "attempt": 1,
    "approved": False,
    "matched_files": 3,
    "matched_bytes": 10_485_760,
    "left_out": 0,
    "unchanged": 0,
    "files": 3,
    "bytes": 10_485_760,
    "proven": 1,
    "proven_bytes": 5_242_880,
    "failed": 0,
    "rejected": 0,
    "began_at": _AT,
    "listed_at": _AT,
    "ended_at": None,
    "updated_at": _AT,
}
EXECUTION_PAGE: Final[dict[str, Any]] = {
    "executions": [EXECUTION],
    "count": 1,
    "set": "9f86d081884c7d65",
    "cursor": None,
}
JOB_FILE: Final[dict[str, Any]] = {
    "client_id": "restaurant-1",
    "number": 1,
    "path": "/data/day.csv",
    "size": 5_242_880,
    "mtime_ns": 1_764_126_000_000_000_000,
    "outcome": "proven",
    "reason": None,
    "upload_id": "5f3c1d2e9a7b4c60",
    "key": "uploads/sales-2026-11-26/restaurant-1/data/day.csv",
}
JOB_FILE_PAGE: Final[dict[str, Any]] = {"files": [JOB_FILE], "cursor": None}
MANIFEST_CLIENT: Final[dict[str, Any]] = {
    "client_id": "restaurant-1",
    "state": "awaiting_approval",
    "approved": False,
    "files": 3,
    "bytes": 10_485_760,
    "left_out": 0,
    "minutes": 1.4,
}
MANIFEST: Final[dict[str, Any]] = {
    "as_of": _AT,
    "approval": "pending",
    "totals": {"files": 3, "bytes": 10_485_760, "proven": 0, "proven_bytes": 0},
    "waiting": 1,
    "largest": [MANIFEST_CLIENT],
    "largest_files": [{**JOB_FILE, "outcome": None, "upload_id": None, "key": None}],
    "clients": [MANIFEST_CLIENT],
    "cursor": None,
}
ACT: Final[dict[str, Any]] = {"acted_on": 12, "job": JOB}
