"""A control plane of a few rows, as a real server: for commands that run in a terminal, a pipe or a shell.

Rule: it answers what the command line asks, and nothing more; `tell` sends an event to every open stream.
"""

import json
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

UPLOAD_ID: Final = "0123456789abcdef0123456789abcdef"


def upload(client_id: str, state: str = "queued", **changes: object) -> dict[str, Any]:
    """An upload as REST shows it."""
    reason = {"code": "client_offline", "text": "the client is offline", "next_wake_at": None}
    return {
        "upload_id": UPLOAD_ID,
        "client_id": client_id,
        "file_path": "/data/Küche/daily-sales.bin",
        "s3_key": f"uploads/{client_id}/daily-sales.bin",
        "status": state,
        "state": state,
        "progress": 45.0,
        "bytes_uploaded": 45,
        "file_size": 100,
        "reason": reason if state == "queued" else None,
        "deadline": "2026-11-27T10:02:00.000Z",
        "created_at": "2026-11-20T10:02:00.000Z",
        "updated_at": "2026-11-20T10:02:00.000Z",
        **changes,
    }


@dataclass(slots=True)
class Rows:
    """What the server has. `streams` are the open event streams, `requests` what was asked."""

    clients: list[dict[str, Any]] = field(
        default_factory=lambda: [
            {"client_id": f"restaurant-{n}", "connected": n != 7, "state": "connected" if n != 7 else "offline",
             "last_activity": "2026-11-20T10:02:00.000Z", "labels": {"site": "berlin", "ring": "beta"}, "reason": None}
            for n in (1, 2, 7)
        ]
    )  # fmt: skip
    uploads: list[dict[str, Any]] = field(default_factory=lambda: [upload("restaurant-7")])
    paths: list[str] = field(default_factory=lambda: ["/data/daily sales.csv", "/data/logs/", "/data/till.log"])
    streams: list["queue.Queue[str | None]"] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    problem: int = 0
    """The status of every answer, if it is one of a problem."""

    def tell(self, name: str, **facts: object) -> None:
        """Send an event to each open stream."""
        for stream in list(self.streams):
            stream.put(f"id: 7\nevent: {name}\ndata: {json.dumps(facts)}\n\n")


class _Handler(BaseHTTPRequestHandler):
    rows: Rows
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer("POST")

    def do_DELETE(self) -> None:
        self._answer("DELETE")

    def _answer(self, method: str) -> None:
        url = urlsplit(self.path)
        self.rows.requests.append((method, self.path))
        if self.rows.problem:
            self._send({"title": "Not here", "status": self.rows.problem}, self.rows.problem)
        elif url.path == "/events":
            self._stream()
        else:
            self._send(*self._found(method, url.path, parse_qs(url.query)))

    def _found(self, method: str, path: str, query: dict[str, list[str]]) -> tuple[dict[str, Any], int]:
        rows = self.rows
        name = path.rpartition("/")[2]
        if method == "POST":
            return (self._requested(name), 200) if path.startswith("/trigger-download/") else self._cancelled()
        if path.endswith("/files"):
            prefix = query["pattern"][0].rstrip("*")
            files = [
                {"path": one.rstrip("/"), "size": 1, "mtime_ns": 0, "digest": None, "folder": one.endswith("/")}
                for one in rows.paths
                if one.startswith(prefix)
            ]
            return {"files": files, "cursor": None, "live": True}, 200
        page = {"count": len(rows.clients), "set": "0" * 16, "cursor": None}
        heard = {"connected": name != "restaurant-7", "last_heartbeat": "2026-11-20T10:02:00.000Z"}
        found: dict[str, dict[str, Any]] = {
            "/clients": {"clients": rows.clients, **page},
            f"/clients/{name}": {"client_id": name, "roots": ["/data"], "state": "connected"},
            f"/status/{name}": {"client_id": name, **heard},
            "/uploads": {"uploads": rows.uploads, "cursor": None},
            f"/uploads/{name}": rows.uploads[0] if rows.uploads else {},
            "/groups": {"groups": [{"name": "beta", "entries": 1, "selector": None, "note": ""}]},
            "/jobs": {"jobs": [{"job_id": "nightly-1", "state": "running"}], "cursor": None},
            "/schedules": {"schedules": [{"schedule_id": "every-day", "zone": "UTC"}], "cursor": None},
        }
        return (
            (found[path], 200) if path in found else ({"type": "urn:x", "title": "No such thing", "status": 404}, 404)
        )

    def _requested(self, client_id: str) -> dict[str, Any]:
        self.rows.uploads = [upload(client_id)]
        return {"message": "triggered", "upload_id": UPLOAD_ID, "s3_key": "k", "status": "queued"}

    def _cancelled(self) -> tuple[dict[str, Any], int]:
        self.rows.uploads = [self.rows.uploads[0] | {"state": "cancelled", "status": "cancelled"}]
        return self.rows.uploads[0], 200

    def _stream(self) -> None:
        waiting: queue.Queue[str | None] = queue.Queue()
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        with suppress(OSError):
            self.wfile.write(b"retry: 1000\nid: 1\n\n")
            self.rows.streams.append(waiting)
            while (text := waiting.get()) is not None:
                self.wfile.write(text.encode())

    def _send(self, document: dict[str, Any], status: int) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@contextmanager
def scripted_rest() -> Iterator[tuple[str, Rows]]:
    """The URL of the server, and its rows."""
    rows = Rows()
    handler = type("Handler", (_Handler,), {"rows": rows})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        httpd.daemon_threads = True
        httpd.block_on_close = False
        thread = threading.Thread(target=httpd.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}", rows
        for stream in rows.streams:
            stream.put(None)
        httpd.shutdown()
        thread.join()
