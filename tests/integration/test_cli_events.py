"""`backhaul webhook`, `backhaul events` and `backhaul watch` against a running server."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import pytest
import uvicorn
from typer.testing import CliRunner

from broker.server import free_port
from control_plane.adapters.clocks import SystemClock
from control_plane.adapters.database import SqlDatabase
from control_plane.adapters.webhooks import HttpWebhookSender
from control_plane.api.events.frames import FRAMES
from control_plane.api.server import server_config
from control_plane.cli.commands import build
from control_plane.cli.rest import events as module
from control_plane.cli.rest.client import ControlPlane
from control_plane.cli.rest.events import NoStream, Wakes, stream
from control_plane.cli.session import CliSession, Given
from control_plane.domain.changes import ClientConnected, UploadCreated
from control_plane.observability import Metrics
from control_plane.presentation import cloud_event_json
from control_plane.services.events.streams import EventStreams
from control_plane.services.events.webhooks.dispatcher import WebhookDispatcher
from control_plane.services.events.webhooks.service import WebhookService
from control_plane.settings import Settings
from tests.support.fake_services import SILENT, FakeServices, api_over
from tests.support.loop_thread import LoopThread
from tests.support.patience import came_true

PATIENCE: Final = 60.0
CLOSED: Final = "https://127.0.0.1:9/"


class Site:
    """A server in a thread, over a database of its own."""

    def __init__(self, directory: Path) -> None:
        self.loop = LoopThread("server")
        self.loop.start()
        self.database = SqlDatabase.open(f"sqlite:///{directory / 'backhaul.db'}", patience=5)
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listening.getsockname()[1]}"
        self.loop.call(self._begin())

    async def _begin(self) -> None:
        metrics, clock, sender = Metrics(SILENT), SystemClock(), HttpWebhookSender(("127.0.0.0/8",))
        streams = EventStreams(self.database, clock, metrics, FRAMES)
        dispatcher = WebhookDispatcher(self.database, clock, metrics, sender, lambda one: cloud_event_json(one, "test"))
        service = WebhookService(self.database, clock, sender, on_change=dispatcher.poke)
        api = api_over(FakeServices(), Settings.load({}), metrics, streams=streams, webhooks=service)
        self.server = uvicorn.Server(server_config(api, "127.0.0.1", 0))
        self.tasks = [asyncio.create_task(one) for one in (streams.run(), dispatcher.run())]
        self.serving = asyncio.create_task(self.server.serve([self.listening]))

    def append(self, *changes: Any) -> None:  # noqa: ANN401
        self.loop.call(self.database.write(lambda records: records.changes.append(changes)))

    async def _end(self) -> None:
        self.server.should_exit = True
        await self.serving
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.database.close()

    def stop(self) -> None:
        self.loop.call(self._end())
        self.loop.stop()
        self.listening.close()

    def run(self, *arguments: str) -> str:
        ended = CliRunner().invoke(build(), ["--server", self.url, *arguments])
        assert ended.exit_code == 0, ended.output
        return ended.stdout


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    one = Site(tmp_path)
    yield one
    one.stop()


def test_a_webhook_from_add_to_rm(site: Site) -> None:
    made = json.loads(site.run("--json", "webhook", "add", CLOSED, "--type", "upload.*", "-l", "site=berlin"))
    name = made["webhook_id"]
    assert (made["types"], made["selector"], made["secret"][:6]) == (["upload.*"], "site=berlin", "whsec_")
    assert name in site.run("webhook", "list")
    assert "secret" not in site.run("webhook", "show", name)
    assert "disabled" in site.run("webhook", "disable", name)
    assert "enabled" in site.run("webhook", "enable", name)
    assert "is deleted" in site.run("webhook", "rm", name)
    assert json.loads(site.run("--json", "webhook", "list")) == {"webhooks": []}


def test_deliveries_are_listed_and_replayed(site: Site) -> None:
    name = json.loads(site.run("--json", "webhook", "add", CLOSED))["webhook_id"]
    site.append(UploadCreated(at=1.0, client_id="a", upload_id="u1"))

    def tried() -> bool:
        (one,) = json.loads(site.run("--json", "webhook", "deliveries", name))["deliveries"] or [{"error": None}]
        return bool(one["error"] == "nothing listens there")

    assert came_true(tried, PATIENCE)
    shown = site.run("webhook", "deliveries", name, "--state", "waiting")
    assert "upload.created" in shown
    assert "nothing listens there" in shown
    assert "a/u1" in site.run("webhook", "replay", name, "1")
    assert "0 deliveries wait again" in site.run("webhook", "replay", name, "--dead")


@pytest.mark.parametrize("arguments", [("replay", "w"), ("replay", "w", "1", "--dead")])
def test_a_replay_names_a_delivery_or_the_dead(arguments: tuple[str, ...]) -> None:
    ended = CliRunner().invoke(build(), ["webhook", *arguments])
    assert ended.exit_code == 2
    assert "NUMBER" in ended.stderr


def test_events_come_one_by_one_and_go_on_after_the_last(site: Site) -> None:
    with ControlPlane(site.url) as plane:
        site.append(UploadCreated(at=1.0, client_id="a", upload_id="u1"), ClientConnected(at=1.0, client_id="a"))
        found = stream(plane, {"type": ["upload.*"]}, "0")
        assert next(found).name == ""
        event = next(found)
        assert (event.id, event.name, event.data["upload_id"]) == ("1", "upload.created", "u1")
        found.close()
        again = stream(plane, {}, event.id)
        assert [next(again).id, next(again).name] == ["1", "client.connected"]
        again.close()


def test_a_change_wakes_a_command_that_waits_for_one(site: Site) -> None:
    with Wakes(CliSession(Given(server=site.url))) as wakes:
        assert wakes.changed.wait(PATIENCE), "the beginning of the stream"
        wakes.wait(0.1)
        began = time.monotonic()
        site.append(ClientConnected(at=1.0, client_id="a"))
        wakes.wait(PATIENCE)
        assert (time.monotonic() - began < PATIENCE, wakes.missing) == (True, False)


class Older(BaseHTTPRequestHandler):
    """A control plane that knows no stream, or another server."""

    status = 404

    def do_GET(self) -> None:
        body = b'{"type": "/help/reasons/not-found", "title": "Not Found", "status": 404}'
        self.send_response(self.status)
        self.send_header("Content-Type", "application/problem+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture(params=[404, 200])
def older(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Older, "status", request.param)
    with ThreadingHTTPServer(("127.0.0.1", 0), Older) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


def test_an_older_control_plane_is_named_and_a_command_looks_again_and_again(
    older: str, capsys: pytest.CaptureFixture[str]
) -> None:
    wakes = Wakes(CliSession(Given(server=older)))
    wakes.start()
    wakes.join(PATIENCE)
    assert wakes.missing
    assert "has no event stream: it is older" in capsys.readouterr().err
    ended = CliRunner().invoke(build(), ["--server", older, "events"])
    assert ended.exit_code == 1
    assert "has no event stream" in ended.stderr


def test_a_wrong_filter_ends_the_command(site: Site) -> None:
    ended = CliRunner().invoke(build(), ["--server", site.url, "events", "--type", "upload.creatd"])
    assert ended.exit_code == 1
    assert "no event has the type" in ended.stderr


def test_a_control_plane_that_was_never_there_ends_the_command() -> None:
    ended = CliRunner().invoke(build(), ["--server", f"http://127.0.0.1:{free_port()}", "events"])
    assert ended.exit_code == 3


def test_what_is_no_stream_is_not_taken_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class Plane:
        def lines(self, *_: object) -> Iterator[str]:
            yield "<html>\n"

    monkeypatch.setattr(module, "PAUSE", 0.0)
    with pytest.raises(NoStream):
        next(stream(Plane(), {}, None))  # type: ignore[arg-type]
