"""The connection to the object store, below HTTP: through the proxy if there is one, with TLS.

Rule: the URL was allowed before. A proxy opens a connection for HTTPS, and passes on a request of plain HTTP.
"""

import socket

from msgspec import Struct

from device_agent.reach.dial import TIMEOUT, dial, dial_proxy
from device_agent.reach.proxy import HttpProxy
from device_agent.tls import TlsFiles, client_context


class UploadWay(Struct, frozen=True):
    """How the object store is reached."""

    proxy: HttpProxy | None = None
    tls: TlsFiles = TlsFiles()

    def passes_on(self, *, secure: bool) -> HttpProxy | None:
        """The proxy that reads a request and passes it on; None where there is none, or TLS ends behind it."""
        return None if secure else self.proxy

    def open(self, host: str, port: int, *, secure: bool, timeout: float = TIMEOUT) -> socket.socket:
        """A connection for HTTP; `OSError` when it cannot be made in `timeout` seconds, `SettingsError` for a file."""
        if (proxy := self.passes_on(secure=secure)) is not None:
            return dial_proxy(proxy, timeout)
        return dial(host, port, self.proxy, client_context(self.tls) if secure else None, timeout)
