"""The kit's own connection to the broker: it publishes commands, as the owner of uploads.

Rule: it subscribes to nothing. What the agent publishes is read at the tap.
"""

import asyncio
import json
import secrets
import ssl
from collections.abc import Mapping
from typing import Any

from control_plane.cli.errors import Unreachable
from control_plane.cli.simulate.connection import MqttConnection
from control_plane.cli.simulate.packets import REFUSED, Connect, Publish, text
from schemas.broker_url import BrokerUrl


class Owner:
    """Publishes to one client. The connection must stay: without it nothing can be checked."""

    def __init__(self, broker: BrokerUrl, username: str | None, password: str | None) -> None:
        self.name = f"cli-{secrets.token_hex(6)}"
        self._broker = broker
        self._account = (username, password)
        self._connection: MqttConnection | None = None
        self._up = asyncio.Event()
        self._waiting: dict[int, asyncio.Future[int]] = {}
        self._why = "no answer"

    async def connect(self, patience: float) -> None:
        """Connect; `Unreachable` when the broker does not accept it within `patience` seconds."""
        username, password = self._account
        # No keep alive: this connection sends nothing while the agent is silent.
        connect = Connect(client_id=self.name, username=username, password=password, clean_start=True, keepalive=0)
        broker = self._broker
        secure = ssl.create_default_context() if broker.secure else None
        try:
            async with asyncio.timeout(patience):
                loop = asyncio.get_running_loop()
                await loop.create_connection(
                    lambda: MqttConnection(connect, self), broker.host, broker.port, ssl=secure
                )
                await self._up.wait()
        except (OSError, TimeoutError) as error:
            text_ = f"no broker at {broker} ({str(error) or self._why}): name it in MQTT_URL"
            raise Unreachable(text_) from error

    async def publish(
        self, topic: str, message: Mapping[str, Any] | bytes, *, qos: int = 1, retain: bool = False
    ) -> None:
        """Publish, and wait until the broker has the message; `Unreachable` when the connection is lost."""
        payload = message if isinstance(message, bytes) else json.dumps(message).encode()
        if self._connection is None:
            lost = f"the broker ended the connection of the kit: {self._why}"
            raise Unreachable(lost)
        packet_id = self._connection.publish(text(topic), payload, qos=qos, retain=retain)
        if qos:
            self._waiting[packet_id] = asyncio.get_running_loop().create_future()
            try:
                reason = await self._waiting[packet_id]
            finally:
                del self._waiting[packet_id]
            if reason >= REFUSED:
                refused = f"the broker refuses a message to {topic}: reason 0x{reason:02x}"
                raise Unreachable(refused)

    def close(self) -> None:
        """Disconnect."""
        if self._connection is not None:
            self._connection.close()

    # The listener of the connection.

    def connected(self, connection: MqttConnection) -> None:
        """The broker accepted it."""
        self._connection = connection
        self._up.set()

    def received(self, message: Publish) -> None:
        """Nothing is subscribed."""

    def acknowledged(self, packet_id: int, reason: int) -> None:
        """The broker has a message."""
        waiting = self._waiting.get(packet_id)
        if waiting is not None and not waiting.done():
            waiting.set_result(reason)

    def disconnected(self, connection: MqttConnection, why: str) -> None:  # noqa: ARG002 - the one that it has
        """What waits for an acknowledgement ends."""
        self._connection, self._why = None, why
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(Unreachable(f"the broker ended the connection of the kit: {why}"))
