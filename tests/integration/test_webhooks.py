"""Webhooks over REST, from the request that makes one to a receiver that verifies its messages."""

import asyncio
import json
from collections.abc import AsyncIterator
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from standardwebhooks.webhooks import Webhook as Verifier

from control_plane.adapters.clocks import SystemClock
from control_plane.adapters.database import SqlDatabase
from control_plane.adapters.webhooks import HttpWebhookSender
from control_plane.domain.changes import UploadCreated
from control_plane.observability import Metrics
from control_plane.presentation import cloud_event_json
from control_plane.services.events.webhooks.dispatcher import WebhookDispatcher
from control_plane.services.events.webhooks.service import WebhookService
from control_plane.settings import Settings
from tests.support.fake_services import SECRET, FakeServices, api_over, http_to

PATIENCE: Final = 60.0


class Receiver:
    """A real HTTP server: what it received, and the status of its answers."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[tuple[dict[str, str], bytes]] = asyncio.Queue()
        self.status = 204
        self.url = ""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
        body = await reader.readexactly(int(headers["Content-Length"]))
        writer.write(f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()
        writer.close()
        self.messages.put_nowait((headers, body))

    async def next(self) -> tuple[dict[str, str], bytes]:
        async with asyncio.timeout(PATIENCE):
            return await self.messages.get()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    one = Receiver()
    async with await asyncio.start_server(one.handle, "127.0.0.1", 0) as server:
        one.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hooks"
        yield one


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[SqlDatabase]:
    one = SqlDatabase.open(f"sqlite:///{tmp_path / 'backhaul.db'}", patience=5)
    yield one
    await one.close()


@pytest.fixture
async def http(database: SqlDatabase) -> AsyncIterator[httpx.AsyncClient]:
    """REST with a running dispatcher."""
    metrics, clock, sender = Metrics(), SystemClock(), HttpWebhookSender(("127.0.0.0/8",))
    dispatcher = WebhookDispatcher(database, clock, metrics, sender, lambda one: cloud_event_json(one, "backhaul/test"))
    service = WebhookService(database, clock, sender, on_change=dispatcher.poke)
    running = asyncio.create_task(dispatcher.run())
    async with http_to(api_over(FakeServices(), Settings.load({}), metrics, webhooks=service)) as client:
        yield client
    running.cancel()
    await asyncio.gather(running, *dispatcher._tasks, return_exceptions=True)


async def append(database: SqlDatabase, upload_id: str) -> None:
    change = UploadCreated(at=1.0, client_id="a", upload_id=upload_id)
    await database.write(lambda records: records.changes.append([change]))


async def make(http: httpx.AsyncClient, receiver: Receiver, **more: object) -> dict[str, Any]:
    answer = await http.post("/webhooks", json={"url": receiver.url, **more})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    assert answer.headers["Location"] == f"/webhooks/{made['webhook_id']}"
    return made


async def test_a_receiver_verifies_a_message_with_the_library(
    http: httpx.AsyncClient, receiver: Receiver, database: SqlDatabase
) -> None:
    made = await make(http, receiver, types=["upload.*"])
    await append(database, "u1")
    headers, body = await receiver.next()
    event = Verifier(made["secret"]).verify(body, headers)
    assert (event["type"], event["data"]["upload_id"], event["id"]) == ("upload.created", "u1", headers["webhook-id"])
    assert headers["Content-Type"] == "application/cloudevents+json; charset=UTF-8"


async def test_the_secret_is_shown_once(http: httpx.AsyncClient, receiver: Receiver) -> None:
    made = await make(http, receiver)
    assert made["secret"].startswith("whsec_")
    shown = {key: value for key, value in made.items() if key != "secret"}
    assert (await http.get(f"/webhooks/{made['webhook_id']}")).json() == shown
    assert (await http.get("/webhooks")).json() == {"webhooks": [shown]}


async def test_a_delivery_that_fails_is_listed_with_its_error_and_replayed(
    http: httpx.AsyncClient, receiver: Receiver, database: SqlDatabase
) -> None:
    receiver.status = 410
    made = await make(http, receiver)
    await append(database, "u1")
    await receiver.next()
    path = f"/webhooks/{made['webhook_id']}"
    (dead,) = await dead_of(http, path)
    assert (dead["number"], dead["status"], dead["error"], dead["next_try_at"]) == (1, 410, "HTTP 410 Gone", None)
    assert (await http.get(path)).json()["enabled"] is False
    receiver.status = 204
    assert (await http.patch(path, json={"enabled": True})).json()["enabled"] is True
    assert (await http.post(f"{path}/deliveries/1/replay")).json()["state"] == "waiting"
    _, body = await receiver.next()
    assert json.loads(body)["id"] == "1"
    assert (await http.post(f"{path}/replay")).json() == {"replayed": 0}


async def dead_of(http: httpx.AsyncClient, path: str) -> list[dict[str, Any]]:
    """The dead deliveries, once there is one."""
    end = asyncio.get_running_loop().time() + PATIENCE
    while asyncio.get_running_loop().time() < end:
        found: list[dict[str, Any]] = (await http.get(f"{path}/deliveries?state=dead")).json()["deliveries"]
        if found:
            return found
        await asyncio.sleep(0.02)
    return []


async def test_a_webhook_is_changed_and_deleted(http: httpx.AsyncClient, receiver: Receiver) -> None:
    made = await make(http, receiver)
    path = f"/webhooks/{made['webhook_id']}"
    changed = (await http.patch(path, json={"types": ["job.*"], "selector": "site=berlin"})).json()
    assert (changed["types"], changed["selector"], changed["url"]) == (["job.*"], "site=berlin", receiver.url)
    assert (await http.delete(path)).status_code == 204
    assert (await http.get(path)).status_code == 404
    assert (await http.get(f"{path}/deliveries")).json()["type"] == "/help/reasons/unknown-webhook"


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ({}, "url"),
        ({"url": "https://a.example/", "colour": "red"}, "colour"),
        ({"url": "https://10.0.0.1/"}, "WEBHOOK_NETWORKS"),
        ({"url": "http://hooks.example.com/", "types": ["x"]}, "no event has the type"),
        ({"url": "https://a.example/", "selector": "a in ("}, "expected"),
        ({"url": "https://u:p@a.example/"}, "credentials"),
    ],
)
async def test_a_wrong_webhook_is_422(http: httpx.AsyncClient, body: dict[str, object], part: str) -> None:
    answer = await http.post("/webhooks", json=body)
    assert answer.status_code == 422
    assert part in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/webhooks", "/webhooks/0123456789abcdef"])
async def test_webhooks_need_a_token(path: str) -> None:
    async with http_to(api_over(FakeServices(), Settings.load({"JWT_SECRET": SECRET}), Metrics())) as client:
        assert (await client.get(path)).status_code == 401
