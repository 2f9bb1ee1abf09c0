"""Records every command and response at the broker, with its time, through all restarts of the broker.

Rule: it only subscribes. Messages that are published while it reconnects are missed, so a test draws no conclusion
from a missing message.
"""

import json
import threading
import time
from contextlib import suppress
from typing import Any, Self

from tests.support.history import RecordedMessage
from tests.support.mqtt_packets import Connect
from tests.support.mqtt_wire import Closed, Wire


class Watcher:
    """Subscribes to every command and response; `messages` are in the order of arrival."""

    def __init__(self, port: int, root: str = "fleet/v1") -> None:
        self.messages: list[RecordedMessage] = []
        self._port = port
        self._filters = (f"{root}/+/command", f"{root}/+/response")
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(60)

    def _run(self) -> None:
        while not self._stopping.wait(0.05):
            # The broker is killed, frozen and restarted: after every failure, connect again.
            with suppress(OSError, Closed, AssertionError), Wire(self._port) as wire:
                wire.connect(Connect("cli-watcher"))
                wire.subscribe(*self._filters)
                self._receive(wire)

    def _receive(self, wire: Wire) -> None:
        while not self._stopping.is_set():
            try:
                packet = wire.receive(0.5)
            except TimeoutError:
                continue
            wire.acknowledge(packet)
            message: Any = json.loads(packet.payload)
            if isinstance(message, dict):
                self.messages.append(RecordedMessage(time.time(), message))
