"""Connections of the doctor: a name, a socket, a login at the broker, one request to the object store.

Rule: bare sockets with a limit on every wait. The login neither ends nor changes the session of the agent that the
broker keeps: it begins without Clean Start and subscribes to nothing.
"""

import socket
import ssl
import struct
from contextlib import closing
from email.utils import parsedate_to_datetime
from typing import Final

from msgspec import Struct

from device_agent.mqtt.session import KEEPALIVE, SESSION_EXPIRY
from device_agent.reach.broker_link import BrokerWay
from device_agent.reach.upload_link import UploadWay
from device_agent.reach.websocket import WebSocket
from device_agent.storage.url_policy import ParsedUrl, origin_of
from device_agent.tls import failure_text
from schemas.environment import host_name

TIMEOUT: Final = 10.0
"""Seconds that each connection, and each answer, may take."""

_MOST: Final = 16 * 1024
_ACCEPTED: Final = 0
_REASONS: Final = {
    132: "the broker speaks no MQTT 5",
    134: "user name or password is wrong",
    135: "not authorized: the account or its password is wrong",
    137: "the broker is busy",
    140: "the authentication method is not accepted",
    149: "the packet is too large",
    151: "the quota is exceeded",
    159: "too many connections in this time",
}
"""Reason codes of CONNACK (MQTT 5.0 section 3.2.2.2) that a person can act on."""


class Answer(Struct, frozen=True):
    """The answer to one request: its status, and the `Date` of the server in seconds since the epoch."""

    status: int
    date: float | None


def addresses(host: str, port: int) -> list[str]:
    """The addresses of a name; `OSError` when it has none."""
    found = socket.getaddrinfo(host_name(host), port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(one[4][0]) for one in found))


def login(way: BrokerWay, client_id: str, username: str | None, password: str | None) -> str | None:
    """Log in at the broker and leave; None when it accepts, else why not. `OSError` when it cannot be reached."""
    with closing(way.open(TIMEOUT)) as connection:
        connection.send(_connect(client_id, username, password))
        head = _received(connection, 2)
        body = _received(connection, min(head[1], _MOST))
        if head[0] >> 4 != 2 or len(body) < 2:  # noqa: PLR2004 (CONNACK; flags and reason)
            return "it does not speak MQTT"
        reason = body[1]
        if reason == _ACCEPTED:
            connection.send(b"\xe0\x00")
            return None
        return _REASONS.get(reason, f"the broker refuses the connection (0x{reason:02X})")


def request(method: str, url: ParsedUrl, way: UploadWay, body: bytes = b"") -> Answer:
    """Send one request; `OSError` when nothing answers, `ValueError` when the answer is not HTTP."""
    secure = url.scheme == "https"
    origin = origin_of(url.scheme, url.host, url.port)
    proxy = way.passes_on(secure=secure)
    target = url.target if proxy is None else f"{origin}{url.target}"
    credentials = None if proxy is None else proxy.authorization
    extra = "" if credentials is None else f"Proxy-Authorization: {credentials}\r\n"
    head = (
        f"{method} {target} HTTP/1.1\r\nHost: {origin.partition('://')[2]}\r\nContent-Length: {len(body)}\r\n"
        f"{extra}Content-Type: application/octet-stream\r\nConnection: close\r\n\r\n"
    )
    with way.open(url.host, url.port, secure=secure, timeout=TIMEOUT) as connection:
        connection.sendall(head.encode() + body)
        data = b""
        while b"\r\n\r\n" not in data and len(data) < _MOST:
            more = connection.recv(_MOST)
            if not more:
                break
            data += more
    lines = data.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    version, _, rest = lines[0].partition(" ")
    if not version.startswith("HTTP/") or not rest[:3].isdecimal():
        text = "what answers does not speak HTTP"
        raise ValueError(text)
    return Answer(int(rest[:3]), _date(lines[1:]))


def reason_of(error: OSError) -> str:
    """Why a connection failed, in the system's text."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return failure_text(error)
    if isinstance(error, TimeoutError):
        return f"no answer within {TIMEOUT:.0f} s"
    return error.strerror or str(error) or type(error).__name__


def _date(lines: list[str]) -> float | None:
    for line in lines:
        name, _, value = line.partition(":")
        if name.lower() == "date":
            try:
                return parsedate_to_datetime(value.strip()).timestamp()
            except ValueError:
                return None
    return None


def _connect(client_id: str, username: str | None, password: str | None) -> bytes:
    """A CONNECT packet (MQTT 5.0 section 3.1): no will, no Clean Start, the session is kept as the agent has it."""
    flags = (0x80 if username is not None else 0) | (0x40 if password is not None else 0)
    properties = b"\x11" + struct.pack(">I", SESSION_EXPIRY)
    body = _text("MQTT") + bytes([5, flags]) + struct.pack(">H", KEEPALIVE) + bytes([len(properties)]) + properties
    body += _text(client_id)
    for one in (username, password):
        body += b"" if one is None else _text(one)
    return b"\x10" + _length(len(body)) + body


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack(">H", len(data)) + data


def _length(value: int) -> bytes:
    """A variable byte integer."""
    found = bytearray()
    while True:
        value, low = divmod(value, 128)
        found.append(low | (0x80 if value else 0))
        if not value:
            return bytes(found)


def _received(connection: socket.socket | WebSocket, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := connection.recv(size - len(data))):
        data += more
    if len(data) < size and not data:
        text = "the connection was closed without an answer"
        raise ConnectionError(text)
    return data.ljust(size, b"\0")
