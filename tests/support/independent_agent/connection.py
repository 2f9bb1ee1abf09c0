"""The connection of the agent: CONNECT, subscriptions, presence, hello, responses.

Rule: one loop over a queue; the thread of paho and the senders put into it.
"""

import json
import os
import queue
import random
import signal
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from tests.support.independent_agent.types import BIRTH, CAPABILITIES, LAST, Json
from tests.support.independent_agent.upload import Upload


class Connection:
    """The loop, the connection, and what is published."""

    def __init__(self, environ: dict[str, str]) -> None:
        self.client_id = environ["CLIENT_ID"]
        url = urlsplit(environ["MQTT_URL"])
        self.host, self.port = url.hostname or "127.0.0.1", url.port or 1883
        self.hosts = [entry.rstrip("/") for entry in environ.get("UPLOAD_HOSTS", "").split(",") if entry]
        self.roots = [os.path.realpath(root) for root in environ.get("ALLOWED_ROOTS", "").split(",") if root]
        self.default = environ.get("FILE_PATH")
        self.state = Path(environ["STATE_DIR"]) / "independent.json"
        kept = json.loads(self.state.read_text()) if self.state.exists() else {}
        self.install_id: str = kept.get("install_id") or str(uuid.uuid4())
        self.epoch: int = kept.get("epoch", 0)
        self.sequence = 0
        self.queue: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        self.client: mqtt.Client | None = None
        self.online = False
        self.uploads: dict[str, Upload] = {}
        self.tombstones: dict[str, str] = {}
        self.pool = ThreadPoolExecutor(4)
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.status_at = 0.0
        self.busy = False
        self.stopping = False
        self.root = f"fleet/v1/{self.client_id}"

    # --- the connection ---

    def run(self) -> None:
        """Work until SIGTERM."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.queue.put(("stop",)))
        failures = 0
        self.at(0, self.connect)
        while not self.stopping:
            try:
                kind, *rest = self.queue.get(timeout=self.pause())
            except queue.Empty:
                kind, rest = "tick", []
            if kind == "lost" and rest[0] is self.client:
                self.drop()
                failures += 1
                self.at(random.uniform(0, min(60, failures)), self.connect)
            elif kind == "online":
                failures = 0
            elif kind == "call":
                rest[0](*rest[1:])
            elif kind == "stop":
                self.stop()
            self.tick()
        self.pool.shutdown(wait=False, cancel_futures=True)

    def pause(self) -> float:
        """Seconds until something is due."""
        return max(0.0, min([1.0, *(due - time.monotonic() for due, _ in self.timers)]))

    def at(self, seconds: float, call: Callable[[], None]) -> None:
        """Call it in so many seconds."""
        self.timers.append((time.monotonic() + seconds, call))

    def next_epoch(self) -> int:
        """An epoch above all before."""
        return self.epoch + 1

    def connect_properties(self) -> Json:
        """Properties of CONNECT."""
        return {"SessionExpiryInterval": 600, "ReceiveMaximum": 16}

    def clean_start(self) -> bool:
        """Clean Start of CONNECT."""
        return False

    def connect(self) -> None:
        """Open a connection, with an epoch of its own."""
        self.drop()
        self.epoch, self.sequence = self.next_epoch(), 0
        self.keep()
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=self.client_id, protocol=mqtt.MQTTv5, manual_ack=True
        )
        self.client = client
        client.will_set(f"{self.root}/presence", json.dumps(self.presence("offline", LAST)), 1, True, self.of_will())
        client.on_connect = lambda client, *_: self.queue.put(("call", self.subscribe, client))
        client.on_subscribe = lambda client, _data, mid, *_: self.queue.put(("call", self.subscribed, client, mid))
        client.on_message = lambda client, _data, message: self.queue.put(("call", self.received, client, message))
        client.on_disconnect = lambda client, *_: self.queue.put(("lost", client))
        try:
            client.connect(
                self.host,
                self.port,
                keepalive=30,
                clean_start=self.clean_start(),
                properties=properties(PacketTypes.CONNECT, self.connect_properties()),
            )
        except OSError:
            self.queue.put(("lost", client))
            return
        client.loop_start()

    def of_will(self) -> Properties:
        """Properties of the will."""
        return properties(PacketTypes.WILLMESSAGE, {"WillDelayInterval": 10})

    def keep(self) -> None:
        """Store what a restart needs."""
        fresh = self.state.with_suffix(".new")
        fresh.write_text(json.dumps({"install_id": self.install_id, "epoch": self.epoch}))
        fresh.replace(self.state)

    def drop(self) -> None:
        """Forget the connection."""
        client, self.client, self.online = self.client, None, False
        if client is not None:
            client.on_disconnect = None
            with suppress(OSError):
                client.disconnect()
            client.loop_stop()

    def subscriptions(self) -> list[tuple[str, SubscribeOptions]]:
        """Filters after the own presence."""
        topics = (f"{self.root}/command", BIRTH)
        return [(topic, SubscribeOptions(qos=1, retainHandling=2)) for topic in topics]

    def subscribe(self, client: mqtt.Client) -> None:
        """Own presence first, then commands and birth."""
        if client is self.client:
            client.subscribe(f"{self.root}/presence", options=SubscribeOptions(qos=0, noLocal=True))
            _, self.awaited = client.subscribe(self.subscriptions())

    def subscribed(self, client: mqtt.Client, mid: int) -> None:
        """Commands arrive: publish presence, hello and what is unanswered."""
        if client is not self.client or mid != self.awaited or self.online:
            return
        self.online = True
        self.queue.put(("online",))
        self.beat()
        self.hello()
        for upload in self.uploads.values():
            if upload.unanswered:
                self.publish_latest(upload)

    def own_presence(self, client: mqtt.Client, document: Json) -> None:
        """What the broker stored: an epoch that is not below the own one means that the state went back."""
        if self.online or document.get("install_id") != self.install_id or document.get("epoch", 0) < self.epoch:
            return
        self.epoch = document["epoch"]
        self.connect()

    def received(self, client: mqtt.Client, message: mqtt.MQTTMessage) -> None:
        """Carry a message out, then acknowledge it."""
        if client is not self.client:
            return
        channel = message.topic.rpartition("/")[2]
        if channel == "presence":
            with suppress(ValueError):
                self.own_presence(client, json.loads(message.payload))
        elif message.retain and not self.takes_retained():
            pass
        elif channel == "birth":
            self.at(random.uniform(0, 30), self.hello)
        else:
            self.command(bytes(message.payload))
        if message.qos:
            self.acknowledge(client, message.mid)

    def takes_retained(self) -> bool:
        """Whether a stored command is obeyed."""
        return False

    def acknowledge(self, client: mqtt.Client, mid: int) -> None:
        """PUBACK."""
        client.ack(mid, 1)

    def stop(self) -> None:
        """A graceful end."""
        self.stopping = True
        if self.client is not None and self.online:
            self.publish_presence("offline", LAST).wait_for_publish(5)
            self.client.disconnect()
            self.client.loop_stop()

    # --- what is published ---

    def presence(self, status: str, sequence: int) -> Json:
        """A Presence."""
        more = {"default_file": self.default} if self.default else {}
        return {
            "client_id": self.client_id,
            "status": status,
            "install_id": self.install_id,
            "epoch": self.epoch,
            "sequence": sequence,
            "agent": {"version": "independent", "protocol": [1]},
            "capabilities": CAPABILITIES,
            "roots": self.roots,
            **more,
        }

    def publish_presence(self, status: str, sequence: int) -> mqtt.MQTTMessageInfo:
        """Retained; an `online` expires."""
        assert self.client is not None
        expiry = {"MessageExpiryInterval": 120} if status == "online" else {}
        document = json.dumps(self.presence(status, sequence))
        return self.client.publish(f"{self.root}/presence", document, 1, True, properties(PacketTypes.PUBLISH, expiry))

    def beat(self) -> None:
        """`online`, every 30 s."""
        if self.online:
            self.publish_presence("online", self.sequence)
            self.sequence += 1
            epoch = self.epoch
            self.at(self.beat_every(), lambda: self.beat() if epoch == self.epoch else None)

    def beat_every(self) -> float:
        """Seconds between beats."""
        return 30.0

    def hello(self) -> None:
        """The uploads that are not closed."""
        active = [
            {
                "upload_id": one.upload_id,
                "attempt": one.attempt,
                "sequence": one.sequence,
                "status": one.ended or "in_progress",
                "owner": one.owner,
            }
            for one in self.uploads.values()
        ]
        payload = {"install_id": self.install_id, "active": active, "more": False}
        self.respond({"message_id": uuid.uuid4().hex, "action": "hello", "status": "success", "payload": payload})

    def respond(self, response: Json) -> None:
        """Publish a response."""
        if self.client is not None and self.online:
            self.client.publish(f"{self.root}/response", json.dumps({**response, "epoch": self.epoch}), 1)

    def report_status(self) -> None:
        """At most one status a second, then `idle`."""
        open_ = [one for one in self.uploads.values() if one.ended is None]
        now = time.monotonic()
        if self.client is None or not self.online or now - self.status_at < self.status_every():
            return
        if not open_ and not self.busy:
            return
        self.busy, self.status_at = bool(open_), now
        entries = [
            {
                "upload_id": one.upload_id,
                "attempt": one.attempt,
                "file_size": one.size(),
                **({"reason": one.reason} if one.waits_until else {}),
            }
            for one in open_[:64]
        ]
        document: Json = {"status": "uploading" if open_ else "idle", "client_id": self.client_id, "uploads": entries}
        self.client.publish(f"{self.root}/status", json.dumps(document), 0)

    def status_every(self) -> float:
        """Seconds between statuses."""
        return 1.2

    # --- what the loop calls ---

    def command(self, data: bytes) -> None:
        """A command arrived."""
        raise NotImplementedError

    def publish_latest(self, upload: Upload) -> None:
        """Publish the latest response of an upload."""
        raise NotImplementedError

    def tick(self) -> None:
        """Do what is due."""
        raise NotImplementedError

    def call_due(self) -> None:
        """The timers that are due."""
        now = time.monotonic()
        due = [call for when, call in self.timers if when <= now]
        self.timers = [(when, call) for when, call in self.timers if when > now]
        for call in due:
            call()


def properties(kind: int, values: Json) -> Properties:
    """MQTT properties."""
    made = Properties(kind)  # type: ignore[no-untyped-call]
    for name, value in values.items():
        setattr(made, name, value)
    return made
