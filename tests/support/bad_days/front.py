"""A front before a TCP server: with TLS by a certificate of the test, as the login page of a network, or dead.

Rule: one thread for each connection and direction; what is changed counts for new connections, `die` for present ones.
"""

import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Final, Self

BLOCK: Final = 64 * 1024
PATIENCE: Final = 60.0
PAGE: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 90\r\nConnection: close\r\n\r\n"
    b"<html><head><title>Welcome</title></head><body>Accept our terms to go online.</body></html>"
)


def on_loopback() -> socket.socket:
    """A listener on a free port of this machine's loopback."""
    return socket.create_server(("127.0.0.1", 0))


class Front:
    """Forwards to a port of loopback; `make` opens the listener, in the network where the front is."""

    def __init__(
        self, target: int, *, tls: ssl.SSLContext | None = None, make: Callable[[], socket.socket] = on_loopback
    ) -> None:
        self.tls = tls
        self.portal = False
        """Whether a login page answers, and nothing is forwarded."""
        self.plain_portal = False
        """The same, without TLS where there is TLS otherwise."""
        self._target = target
        self._listener = make()
        self.port: int = self._listener.getsockname()[1]
        self._dead = threading.Event()
        self._open: set[socket.socket] = set()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in tuple(self._open):
            _shut(connection)

    def die(self) -> None:
        """Present connections carry nothing any more, and no end is shown; new ones work."""
        self._dead.set()
        self._dead = threading.Event()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection, self._dead), daemon=True).start()

    def _serve(self, connection: socket.socket, dead: threading.Event) -> None:
        connection.settimeout(PATIENCE)
        with suppress(OSError), ExitStack() as stack:
            stack.enter_context(connection)
            if self.plain_portal:
                _show_page(connection)
                return
            if self.tls is not None:
                connection = stack.enter_context(self.tls.wrap_socket(connection, server_side=True))
            if self.portal:
                _show_page(connection)
                return
            above = stack.enter_context(socket.create_connection(("127.0.0.1", self._target)))
            connection.settimeout(None)
            self._open |= {connection, above}
            down = threading.Thread(target=_carry, args=(above, connection, dead), daemon=True)
            down.start()
            _carry(connection, above, dead)
            down.join()
            self._open -= {connection, above}


def _show_page(connection: socket.socket) -> None:
    connection.recv(BLOCK)
    connection.sendall(PAGE)
    connection.shutdown(socket.SHUT_WR)
    while connection.recv(BLOCK):
        pass


def _carry(source: socket.socket, sink: socket.socket, dead: threading.Event) -> None:
    """One direction, until it ends. A dead one takes bytes, and loses them with the end."""
    with suppress(OSError):
        while block := source.recv(BLOCK):
            if not dead.is_set():
                sink.sendall(block)
    if not dead.is_set():
        _shut(sink)


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
