"""The connection to the broker, below MQTT: through the proxy if there is one, with TLS, as a WebSocket.

Rule: all of it within one time limit.
"""

import socket
import time

from msgspec import Struct

from device_agent.reach.dial import TIMEOUT, dial
from device_agent.reach.proxy import HttpProxy
from device_agent.reach.websocket import WebSocket, upgrade
from device_agent.tls import TlsFiles, client_context
from schemas.broker_url import BrokerUrl


class BrokerWay(Struct, frozen=True):
    """Where the broker is, and how it is reached."""

    broker: BrokerUrl
    proxy: HttpProxy | None = None
    tls: TlsFiles = TlsFiles()

    def __str__(self) -> str:
        return f"{self.broker} through the proxy {self.proxy}" if self.proxy is not None else str(self.broker)

    def open(self, timeout: float = TIMEOUT) -> socket.socket | WebSocket:
        """A connection for MQTT; `OSError` when it cannot be made in `timeout` seconds, `SettingsError` for a file."""
        until = time.monotonic() + timeout
        broker = self.broker
        context = client_context(self.tls) if broker.secure else None
        link = dial(broker.host, broker.port, self.proxy, context, timeout)
        if broker.path is None:
            return link
        try:
            return upgrade(link, broker.host, broker.port, broker.path, until)
        except BaseException:
            link.close()
            raise
