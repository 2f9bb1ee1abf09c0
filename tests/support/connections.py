"""A connection of the device under test, with a record of its callbacks.

Rule: a test waits for an event, with a limit; nothing sleeps for an estimated time.
"""

import itertools
import queue
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from broker.process import Broker
from device_agent.mqtt.connection import AckToken, Connection
from device_agent.mqtt.reconnect import ReconnectBackoff
from device_agent.reach.broker_link import BrokerWay
from schemas.broker_url import BrokerUrl
from schemas.topics import Topics

TIMEOUT: Final = 60.0
TOPICS: Final = Topics()


class Device:
    """A connection and its recorded events."""

    def __init__(self, url: str, **options: Any) -> None:  # noqa: ANN401 (options of Connection)
        self.id = f"device-{uuid.uuid4().hex[:12]}"
        self.events: queue.Queue[tuple[str, object]] = queue.Queue()
        self.commands: queue.Queue[tuple[bytes, AckToken]] = queue.Queue()
        self.births: queue.Queue[bytes] = queue.Queue()
        epochs = itertools.count(1)
        defaults: dict[str, Any] = {
            "way": BrokerWay(BrokerUrl.parse(url)),
            "client_id": self.id,
            "username": None,
            "password": None,
            "topics": TOPICS,
            "will": lambda: b"will %d" % next(epochs),
            "on_connected": lambda: self.events.put(("connected", None)),
            "on_disconnected": lambda text: self.events.put(("disconnected", text)),
            "on_command": lambda data, token, _retained, _trace, _signed: self.commands.put((data, token)),
            "on_birth": lambda data, _signed: self.births.put(data),
            "on_refused": lambda channel, text: self.events.put(("refused", (channel, text))),
            "backoff": ReconnectBackoff(first=0.01, longest=0.02),
        }
        self.connection = Connection(**(defaults | options))
        self.topic = TOPICS.command(self.id)

    def expect(self, what: str) -> object:
        events, detail = self.events.get(timeout=TIMEOUT)
        assert events == what, (events, detail)
        return detail

    def command(self) -> tuple[bytes, AckToken]:
        return self.commands.get(timeout=TIMEOUT)


@contextmanager
def device(url: str, **options: Any) -> Iterator[Device]:  # noqa: ANN401 (options of Connection)
    made = Device(url, **options)
    made.connection.start()
    try:
        yield made
    finally:
        made.connection.stop()


@contextmanager
def online(broker: Broker, **options: Any) -> Iterator[Device]:  # noqa: ANN401 (options of Connection)
    with device(broker.address.url, **options) as made:
        made.expect("connected")
        yield made
