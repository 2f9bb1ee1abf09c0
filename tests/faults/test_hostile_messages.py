"""Hostile messages: no message blocks an agent or the control plane, and none changes an upload that it must not.

Rule: after every attack an upload of the same client completes.
"""

import base64
import json
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import pytest

from schemas.topics import Topics
from tests.support.fault_sites import CHUNK, FaultSite
from tests.support.mqtt_packets import Connect, Packet
from tests.support.mqtt_wire import Closed, Wire, connected
from tests.support.strict_s3 import Operation

pytestmark = pytest.mark.slow

TOPICS: Final = Topics()
NO_LOCAL: Final = 4
TOO_LARGE: Final = 0x95

POISON: Final = {
    "no-utf8": b"\xff\xfe\x00",
    "no-json": b"{",
    "nothing": b"null",
    "a-list": b"[1,2,3]",
    "no-fields": b"{}",
    "deep": b"[" * 5_000,
    "deep-object": b'{"payload":' * 3_000 + b"1" + b"}" * 3_000,
    "not-a-number": b'{"message_id":"m","action":"hello","epoch":NaN}',
    "twice-the-same": b'{"message_id":"a","message_id":"b","action":"hello","action":"download_file"}',
    "huge-number": b'{"message_id":"m","action":"hello","epoch":' + b"9" * 5_000 + b"}",
    "huge-sequence": b'{"message_id":"m","action":"download_file","status":"success","sequence":99999999999999999999}',
    "zeros": b"\x00" * 1_000,
    "as-large-as-can-be": b'{"message_id":"' + b"x" * (128 * 1024 - 100) + b'"}',
    "wrong-types": b'{"message_id":7,"action":[],"status":{},"payload":"text","client_id":null,"epoch":"one"}',
    "unknown-values": b'{"message_id":"m","action":"reboot","status":"splendid","payload":{"upload_id":"u"}}',
    "half-a-report": b'{"message_id":"m","action":"download_file","status":"success","payload":{"upload_id":""}}',
    "negative": b'{"message_id":"m","action":"download_file","status":"in_progress","sequence":-1,'
    b'"payload":{"upload_id":"u","attempt":-5,"file_size":-1,"etags":{"-1":"x"}}}',
}


@contextmanager
def wired(site: FaultSite, name: str) -> Iterator[Wire]:
    """A raw client that may publish to every topic."""
    with connected(site.broker.address.port, Connect(f"cli-{name[-40:]}")) as wire:
        yield wire


def check_works(site: FaultSite, name: str) -> None:
    """The next valid command is executed."""
    path = site.file(name, "good.bin", CHUNK + 1)
    site.completed(site.trigger(name, path), path)


def test_the_control_plane_counts_poison_and_processes_the_next(site: FaultSite, name: str) -> None:
    site.attach(name)
    before = site.plane.log
    with wired(site, name) as wire:
        for payload in POISON.values():
            for topic in (TOPICS.response(name), TOPICS.status(name), TOPICS.presence(name), TOPICS.command("other-1")):
                wire.publish(topic, payload, qos=1)
        for topic in ("fleet/v1/x", "fleet/v1/a/b/response", "fleet/v1/ü/response", "fleet/v1/%00/presence"):
            wire.publish(topic, b"{}", qos=1)
    check_works(site, name)
    logged = [json.loads(line) for line in site.plane.log[len(before) :].splitlines() if line.startswith("{")]
    assert site.counted("message.refused") >= len(POISON)
    assert [line for line in logged if line["event"] in {"message.fault", "duty.fault", "request.failed"}] == []
    assert site.connected(name)


def test_an_agent_counts_poison_and_executes_the_next_command(site: FaultSite, name: str) -> None:
    agent = site.attach(name)
    with wired(site, name) as wire:
        wire.subscribe(TOPICS.response(name))
        for payload in POISON.values():
            wire.publish(TOPICS.command(name), payload, qos=1)
            wire.publish(TOPICS.birth(), payload, qos=1)
        check_works(site, name)
        counted, answered = counters(wire, name)
    assert "Traceback" not in agent.log
    # A message with a readable message_id is answered; every other one is counted.
    assert sum(counted.values()) + answered >= len(POISON)
    assert {"unreadable_messages", "bad_commands"} <= set(counted)
    # The agent logs one line a minute of each kind, since poison may arrive at the full rate of the network.
    logged = [line for line in agent.log.splitlines() if "next line in 60 s at the earliest" in line]
    assert len(logged) == len(counted)


def test_a_message_over_the_limit_is_refused_without_disconnect(site: FaultSite, name: str) -> None:
    site.attach(name)
    with wired(site, name) as wire:
        for topic in (TOPICS.response(name), TOPICS.command(name)):
            assert wire.publish(topic, b"x" * (128 * 1024 + 1)) == TOO_LARGE
        wire.ping()
    check_works(site, name)


def test_a_packet_over_the_limit_disconnects_only_its_sender(site: FaultSite, name: str) -> None:
    site.attach(name)
    with wired(site, name) as wire:
        with suppress(Closed, ConnectionError):
            wire.publish(TOPICS.command(name), b"x" * (256 * 1024))
        assert not wire.alive
    check_works(site, name)


def counters(wire: Wire, name: str) -> tuple[dict[str, int], int]:
    """The agent's counters from a health check, and the number of error responses that arrived before it."""
    command = {"message_id": "how-are-you", "action": "health_check", "payload": {}}
    wire.publish(TOPICS.command(name), json.dumps(command).encode(), qos=1)
    answered = 0
    while True:
        packet = wire.receive()
        wire.acknowledge(packet)
        answer = json.loads(packet.payload)
        answered += answer["status"] == "error"
        if answer["message_id"] == "how-are-you":
            return dict(answer["payload"]["counters"]), answered


class Echo:
    """Publishes every message of one client a second time, at once."""

    def __init__(self, wire: Wire, client_id: str) -> None:
        self.received: list[Packet] = []
        self._wire = wire
        wire.subscribe(f"fleet/v1/{client_id}/#", options=NO_LOCAL)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Stop; returns when the last message is published."""
        self._wire.drop()
        self._thread.join(60)

    def _run(self) -> None:
        try:
            while True:
                try:
                    packet = self._wire.receive(0.5)
                except TimeoutError:
                    continue
                self._wire.acknowledge(packet)
                self.received.append(packet)
                self._wire.publish(packet.topic, packet.payload, qos=1, retain=packet.topic.endswith("presence"))
        except (Closed, OSError):
            return


def test_every_message_published_twice_changes_nothing(site: FaultSite, name: str) -> None:
    site.attach(name)
    path = site.file(name, "doubled.bin", 4 * CHUNK)
    wire = connected(site.broker.address.port, Connect(f"cli-{name[-40:]}"))
    echo = Echo(wire, name)
    upload_id = site.trigger(name, path)
    upload = site.completed(upload_id, path)
    echo.end()
    assert upload["attempt"] == 1
    assert len(site.s3_uploads(upload_id)) == 1
    assert site.bytes_received(upload_id) == path.stat().st_size
    assert {packet.topic.rpartition("/")[2] for packet in echo.received} >= {"command", "response"}


def test_recorded_messages_replayed_in_any_order_change_nothing(site: FaultSite, name: str) -> None:
    site.attach(name)
    path = site.file(name, "recorded.bin", 2 * CHUNK)
    with wired(site, name) as wire:
        wire.subscribe(f"fleet/v1/{name}/#")
        upload_id = site.trigger(name, path)
        before = site.completed(upload_id, path)
        recorded = wire.received(0.5)
    assert {packet.topic.rpartition("/")[2] for packet in recorded} >= {"command", "response"}
    events = len(site.events(upload_id))
    chance = random.Random(7)
    with wired(site, name) as wire:
        for _ in range(3):
            chance.shuffle(recorded)
            for packet in recorded:
                wire.publish(packet.topic, packet.payload, qos=1)
    check_works(site, name)
    after = site.upload(upload_id)
    assert {**after, "updated_at": ""} == {**before, "updated_at": ""}
    assert site.stored(upload_id) == path.read_bytes()
    more = site.events(upload_id)[events:]
    assert {one.operation for one in more} <= {Operation.GET_OBJECT}


def test_a_false_success_with_invented_etags_completes_nothing(site: FaultSite, name: str) -> None:
    """The client offers a file, is granted URLs, sends nothing, and reports success with invented etags."""
    presence = {"client_id": name, "status": "online", "install_id": "forger", "epoch": 1, "sequence": 0}
    presence |= {"agent": {"version": "1", "protocol": [1]}}
    with wired(site, name) as wire:
        wire.subscribe(TOPICS.command(name))
        wire.publish(TOPICS.presence(name), json.dumps(presence).encode(), retain=True)
        site.until(lambda: site.connected(name), "the client")
        upload_id = site.trigger(name, site.file(name, "never.bin", 10))

        def command() -> dict[str, object]:
            packet = wire.receive()
            wire.acknowledge(packet)
            return dict(json.loads(packet.payload))

        def respond(attempt: int, sequence: int, status: str, **payload: object) -> None:
            about = {"upload_id": upload_id, "attempt": attempt, "owner": "control-plane", "file_size": CHUNK + 1}
            response = {"message_id": begun["message_id"], "action": "download_file", "status": status, "epoch": 1}
            response |= {"sequence": sequence, "payload": {**about, **payload}}
            wire.publish(TOPICS.response(name), json.dumps(response).encode())

        begun = command()
        sha256 = base64.b64encode(bytes(32)).decode()
        sizes = {1: CHUNK, 2: 1}
        wanted = [{"part_number": number, "size": size, "digest": sha256} for number, size in sizes.items()]
        respond(1, 1, "in_progress", wanted_parts=wanted)
        assert command()["action"] == "grant_parts"
        respond(1, 2, "success", etags={"1": f'"{"0" * 32}"', "2": f'"{"0" * 32}"'})
        refused = Operation.COMPLETE_MULTIPART_UPLOAD
        site.until(lambda: len(site.events(upload_id, refused)) > 1, "the control plane to complete it again")
    upload = site.upload(upload_id)
    assert (upload["state"], upload["reason"]["code"]) == ("completing", "object_not_visible")
    assert not [one for one in site.events(upload_id, Operation.COMPLETE_MULTIPART_UPLOAD) if one.done]
