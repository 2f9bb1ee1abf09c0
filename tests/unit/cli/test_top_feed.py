"""What `backhaul top` reads: a row that is opened while another one is read."""

import threading
from collections.abc import Iterator, Mapping
from typing import Any, Self, cast

import pytest

from control_plane.cli.errors import Failed
from control_plane.cli.rest.client import ControlPlane
from control_plane.cli.top import feed as feed_module
from control_plane.cli.top.feed import Feed
from control_plane.cli.top.model import Tab

CLIENT = {"client_id": "till-1"}
JOB = {"job_id": "0123", "state": "running"}


class Plane:
    """A control plane of one client and one job; the job is opened while the client is read."""

    def __init__(self) -> None:
        self.feed = Feed(lambda: cast("ControlPlane", self), self._changed)
        self.shown = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def _changed(self) -> None:
        opened = self.feed.opened
        if opened is not None and opened[1].get("state") == "paused":
            self.shown.set()

    def call(self, _method: str, path: str, **_: object) -> Mapping[str, Any]:
        if path == "/clients/till-1":
            self.feed.close()
            self.feed.open(Tab.JOBS, JOB)
            return {**CLIENT, "note": "read"}
        if path == "/jobs/0123":
            return {**JOB, "state": "paused"}
        return {path.removeprefix("/"): []}

    def lines(self, *_: object) -> Iterator[str]:
        text = "no stream"
        raise Failed(text)


def test_a_row_that_is_opened_while_another_is_read_keeps_its_own_details(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "BUSY", 0.0)
    plane = Plane()
    plane.feed.open(Tab.CLIENTS, CLIENT)
    plane.feed.start()
    try:
        assert plane.shown.wait(60), "nothing was read any more"
        assert plane.feed.opened == (Tab.JOBS, {**JOB, "state": "paused"})
    finally:
        plane.feed.stop()
