"""What answers look like, for the OpenAPI document; a test holds each against its model.

Rule: the values of the README's first page, so that both documents show the same example.
"""

from typing import Any, Final

_UPLOAD_ID: Final = "5f3c1d2e9a7b4c60"
_KEY: Final = "uploads/restaurant-1/20251101-123456-test-file.bin"
_FILE: Final = "/data/test-file.bin"

TRIGGER: Final[dict[str, Any]] = {"file_path": _FILE, "metadata": {"key": "value"}, "deadline": 3600}
TRIGGERED: Final[dict[str, Any]] = {
    "success": True,
    "message": "Download triggered for client restaurant-1",
    "upload_id": _UPLOAD_ID,
    "s3_key": _KEY,
    "status": "in_progress",
}
REASON: Final[dict[str, Any]] = {
    "code": "client_offline",
    "text": "the client is offline",
    "next_wake_at": "2025-11-02T10:00:00.000Z",
}
CLIENT_STATUS: Final[dict[str, Any]] = {
    "client_id": "restaurant-1",
    "connected": True,
    "connected_at": "2025-11-01T10:00:00.000Z",
    "last_heartbeat": "2025-11-01T10:05:00.000Z",
    "current_upload": {"upload_id": _UPLOAD_ID, "file_path": _FILE, "status": "in_progress", "progress": 45.5},
    "reason": None,
}
CLIENT_ROW: Final[dict[str, Any]] = {
    "client_id": "restaurant-1",
    "connected": True,
    "state": "connected",
    "last_activity": "2025-11-01T10:05:00.000Z",
    "labels": {"site": "berlin"},
    "reason": None,
}
CLIENT_BUDGET: Final[dict[str, Any]] = {
    "as_of": "2025-11-01T10:59:30.000Z",
    "metered": False,
    "holds": [],
    "caps": [
        {
            "period": "day",
            "cap": 104_857_600,
            "used": 73_400_320,
            "resets_at": "2025-11-01T23:00:00.000Z",
            "applies": True,
        }
    ],
}
LISTED_CLIENT: Final[dict[str, Any]] = {
    **CLIENT_ROW,
    "open_uploads": 1,
    "current_upload": CLIENT_STATUS["current_upload"],
    "budget": CLIENT_BUDGET,
}
CLIENT_PAGE: Final[dict[str, Any]] = {"clients": [LISTED_CLIENT], "count": 1, "set": "5f3da80c4dfc339e", "cursor": None}
CLIENT: Final[dict[str, Any]] = {
    **CLIENT_ROW,
    "connected_at": "2025-11-01T10:00:00.000Z",
    "install_id": "0192f3a4-5b6c-7d8e-9f01-23456789abcd",
    "agent": {
        "version": "1.0.0",
        "protocol": [1],
        "hostname": "till-3",
        "os": "linux",
        "arch": "aarch64",
        "policy": ["deny"],
    },
    "supported": True,
    "capabilities": ["download_file", "list_files"],
    "default_file": _FILE,
    "timezone": "Europe/Berlin",
    "roots": ["/data"],
    "types": ["sales-report"],
    "device_labels": {"site": "berlin"},
    "set_labels": {},
    "expected": True,
    "note": "Alexanderplatz",
    "budget": CLIENT_BUDGET,
    "keys_version": 3,
    "unverified": 0,
}
EXPECTED_CLIENT: Final[dict[str, Any]] = {
    "client_id": "restaurant-7",
    "labels": {"site": "berlin", "ring": "beta"},
    "note": "opens in May",
}
GROUP: Final[dict[str, Any]] = {
    "name": "beta",
    "entries": 1,
    "selector": "ring=beta",
    "note": "first to get what is new",
    "created_at": "2025-11-01T10:00:00.000Z",
    "updated_at": "2025-11-01T10:00:00.000Z",
    "clients": ["restaurant-1*"],
    "count": 12,
    "set": "5f3da80c4dfc339e",
    "warnings": [],
}
UPLOAD: Final[dict[str, Any]] = {
    "upload_id": _UPLOAD_ID,
    "client_id": "restaurant-1",
    "file_path": _FILE,
    "s3_key": _KEY,
    "status": "completed",
    "state": "completed",
    "progress": 100.0,
    "completed_parts": 2,
    "total_parts": 2,
    "bytes_uploaded": 10_485_760,
    "file_size": 10_485_760,
    "attempt": 1,
    "proof": "etag",
    "receipt": "device",
    "reason": None,
    "error": None,
    "message": None,
    "metadata": {"key": "value"},
    "after": None,
    "encrypt_to": [],
    "origin": "rest",
    "job_id": None,
    "deadline": "2025-11-01T13:34:56.000Z",
    "created_at": "2025-11-01T12:34:56.000Z",
    "updated_at": "2025-11-01T12:35:01.000Z",
    "completed_at": "2025-11-01T12:35:01.000Z",
}
UPLOAD_PAGE: Final[dict[str, Any]] = {"uploads": [UPLOAD], "cursor": None}
OBJECT_URL: Final[dict[str, Any]] = {
    "upload_id": _UPLOAD_ID,
    "url": f"https://s3.example.com/file-download-system-uploads/{_KEY}?X-Amz-Signature=…",
    "expires_in": 3600.0,
}
FILE_PAGE: Final[dict[str, Any]] = {
    "files": [
        {"path": _FILE, "size": 10_485_760, "mtime_ns": 1_762_000_000_000_000_000, "digest": None, "folder": False}
    ],
    "cursor": None,
    "live": True,
    "as_of": "2025-11-01T10:05:00.000Z",
    "reason": None,
}
HEALTH: Final[dict[str, Any]] = {"status": "ok", "timestamp": "2025-11-01T10:00:00.000Z"}
READINESS: Final[dict[str, Any]] = {
    "status": "ready",
    "checks": {"broker": "ok", "database": "ok", "object_store": "ok", "clock": "ok", "store": "ok"},
    "probe": {
        "part_digests": ["md5"],
        "object_digests": ["md5"],
        "etag_is_md5": True,
        "if_none_match": True,
        "encrypts": False,
        "clock_skew": 0.2,
        "notes": [],
    },
}
PROBLEM: Final[dict[str, Any]] = {
    "type": "/help/reasons/unknown-client",
    "title": "No such client",
    "status": 404,
    "detail": "client 'restaurant-9' is not known: no agent has connected under this id, and no operator expects it",
}
HEALTH_DETAILS: Final = {
    "as_of": "2025-11-01T10:00:00.000Z",
    "ready": True,
    "checks": READINESS["checks"],
    "probe": READINESS["probe"],
    "findings": [
        {"name": "database", "fine": True, "text": "SQLite at backhaul.db: it can be written", "remedy": None}
    ],
    "replicas": [
        {
            "replica_id": "5f3c1d2e9a7b",
            "host": "site-1",
            "version": "0.1.0",
            "started_at": "2025-11-01T08:00:00.000Z",
            "seen_at": "2025-11-01T09:59:45.000Z",
            "this": True,
        }
    ],
}
