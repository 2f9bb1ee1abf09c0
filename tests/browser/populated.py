"""A site with something to see in every view: devices that are there and away, and what was asked of them.

Rule: made over REST and by simulated devices, as an operator would; every view of the page has an address here.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from tests.browser.devices import simulated
from tests.support.sites import Fleet, running_fleet

FILE: Final = "/simulated/file.bin"
TILLS: Final = 3
TOKEN: Final = "0a1b2c3d4e5f6071"
FILES: Final = {"paths": ["/simulated/*"]}
SETTINGS: Final = {"WEBHOOK_NETWORKS": "127.0.0.0/8"}


@dataclass(frozen=True, slots=True)
class Populated:
    """A running site; `views` has the address of every view by its name in the route table of main.js."""

    fleet: Fleet
    views: Mapping[str, str]
    completed: str
    """An upload that is proven."""


@contextmanager
def populated(directory: Path, settings: Mapping[str, str] | None = None) -> Iterator[Populated]:
    """A site with devices `till-1` to `till-3`, a client that is away, and one of each thing that the page shows."""
    with ExitStack() as stack:
        fleet = stack.enter_context(running_fleet(directory, {**SETTINGS, **(settings or {})}))
        stack.enter_context(simulated(fleet, TILLS))
        _made(fleet, "/clients", [{"client_id": "cellar-1", "labels": {"site": "berlin"}, "note": "not built yet"}])
        completed = fleet.trigger("till-1", Path(FILE))
        failed = fleet.trigger("till-2", Path("/elsewhere/report.csv"))
        waiting = fleet.trigger("cellar-1", Path("/data/report.csv"))
        assert fleet.ended(completed)["state"] == "completed"
        fleet.ended(failed)
        _made(fleet, "/jobs", {"job_id": "collect", "targets": {"clients": ["till-*", "cellar-1"]}, "files": FILES})
        key = "{schedule}/{tick:%H}/{client_id}/{name}"
        job = {"targets": {"clients": ["till-*"]}, "files": FILES, "key": key}
        _made(fleet, "/schedules", {"schedule_id": "hourly", "every": "1h", "job": job})
        _made(fleet, "/schedules/hourly/run-now", None)
        hook = {"url": "http://127.0.0.1:9/hook", "types": ["upload.state_changed"]}
        _made(fleet, f"/tokens/{TOKEN}/revoke", None)
        _made(fleet, "/devices", {"client_id": "kiosk-1"})
        webhook = _made(fleet, "/webhooks", hook).json()["webhook_id"]
        views = {
            "fleet": "/",
            "clients": "/clients",
            "client": "/clients/till-1",
            "uploads": "/uploads",
            "upload": f"/uploads/{waiting}",
            "jobs": "/jobs",
            "job": "/jobs/collect",
            "schedules": "/schedules",
            "schedule": "/schedules/hourly",
            "new": "/new/job?client=till-1&path=/simulated/*",
            "webhooks": "/webhooks",
            "webhook": f"/webhooks/{webhook}",
            "devices": "/devices",
            "device": "/devices/kiosk-1",
            "keys": "/keys",
            "tokens": "/tokens",
            "token": f"/tokens/{TOKEN}",
            "audit": "/audit",
            "health": "/health",
            "signin": "/signin",
        }
        yield Populated(fleet, views, completed)


def _made(fleet: Fleet, path: str, body: object) -> httpx.Response:
    answer = httpx.post(f"{fleet.site.server}{path}", json=body, timeout=60, headers=fleet.headers)
    assert answer.is_success, answer.text
    return answer
