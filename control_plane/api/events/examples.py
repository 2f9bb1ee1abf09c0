"""What the answers about webhooks look like, for the OpenAPI document.

Rule: as `api/examples.py`.
"""

from typing import Any, Final

WEBHOOK_BODY: Final[dict[str, Any]] = {
    "url": "https://hooks.example.com/backhaul",
    "types": ["upload.state_changed", "job.*"],
    "selector": "site=berlin",
}
WEBHOOK_CHANGE: Final[dict[str, Any]] = {"enabled": True}
WEBHOOK: Final[dict[str, Any]] = {
    "webhook_id": "9f2c4a6b8d0e1f35",
    **WEBHOOK_BODY,
    "enabled": True,
    "note": "",
    "waiting": 0,
    "created_at": "2025-11-01T10:00:00.000Z",
    "created_by": "operator",
}
NEW_WEBHOOK: Final[dict[str, Any]] = {**WEBHOOK, "secret": "whsec_…"}
WEBHOOK_LIST: Final[dict[str, Any]] = {"webhooks": [WEBHOOK]}
DELIVERY: Final[dict[str, Any]] = {
    "number": 4711,
    "type": "upload.state_changed",
    "subject": "restaurant-1/5f3c1d2e9a7b4c60",
    "state": "waiting",
    "tries": 3,
    "status": 503,
    "error": "HTTP 503 Service Unavailable",
    "since": "2025-11-01T10:00:00.000Z",
    "tried_at": "2025-11-01T10:01:00.000Z",
    "next_try_at": "2025-11-01T10:01:30.000Z",
}
DELIVERY_PAGE: Final[dict[str, Any]] = {"deliveries": [DELIVERY], "cursor": None}
REPLAYED: Final[dict[str, Any]] = {"replayed": 12}
