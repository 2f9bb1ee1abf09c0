"""Somebody who overhears everything at the broker, through all its restarts, and writes down when.

Rule: it only listens. What is said while it reconnects is missed, so nothing may be concluded from silence.
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
    """Listens to every command and response; `messages` are in the order of arrival."""

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
        self._thread.join(10)

    def _run(self) -> None:
        while not self._stopping.wait(0.05):
            # The broker is killed, frozen and restarted: whatever happens, listen again.
            with suppress(OSError, Closed, AssertionError), Wire(self._port) as wire:
                wire.connect(Connect("cli-watcher"))
                wire.subscribe(*self._filters)
                self._listen(wire)

    def _listen(self, wire: Wire) -> None:
        while not self._stopping.is_set():
            try:
                packet = wire.receive(0.5)
            except TimeoutError:
                continue
            wire.acknowledge(packet)
            message: Any = json.loads(packet.payload)
            if isinstance(message, dict):
                self.messages.append(RecordedMessage(time.time(), message))
