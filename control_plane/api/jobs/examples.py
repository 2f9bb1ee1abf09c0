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
