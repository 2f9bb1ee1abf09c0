"""The setting `MQTT_URL`, as agents, control planes and tools read it.

Rule: pure; what is no broker's URL is a `SchemaError` that does not repeat the value, for it may hold a password.
"""

import re
from typing import Final, Self
from urllib.parse import urlsplit

from msgspec import Struct

from schemas.environment import host_name, is_loopback
from schemas.errors import SchemaError

PORTS: Final = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}
"""The default port of each scheme."""

WEBSOCKET_PATH: Final = "/mqtt"
"""The path of a WebSockets URL that has none."""

_SECURE: Final = frozenset({"mqtts", "wss"})
_WEBSOCKETS: Final = frozenset({"ws", "wss"})
_PATH: Final = re.compile(r"/(?:(?![?#\\\"<>])[!-~]){0,1000}")


class BrokerUrl(Struct, frozen=True):
    """Where the broker is, and whether the connection uses TLS; `path` is None where MQTT is spoken without HTTP."""

    host: str
    port: int
    secure: bool
    path: str | None = None
    """The path of the WebSocket."""

    def __str__(self) -> str:
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    @property
    def scheme(self) -> str:
        """The scheme of the URL."""
        return ("wss" if self.secure else "ws") if self.path is not None else ("mqtts" if self.secure else "mqtt")

    @property
    def url(self) -> str:
        """The whole URL.

        >>> BrokerUrl.parse("wss://broker.example.com").url
        'wss://broker.example.com:443/mqtt'
        """
        return f"{self.scheme}://{self}{self.path or ''}"

    def exposure(self, password: str | None) -> str | None:
        """The warning for a password that crosses a network unencrypted; None when it does not.

        >>> BrokerUrl("broker", 1883, secure=False).exposure("secret")
        'MQTT_PASSWORD goes unencrypted to broker:1883, readable on the way: use mqtts:// in MQTT_URL'
        """
        if not password or self.secure or is_loopback(self.host):
            return None
        safe = "mqtts" if self.path is None else "wss"
        return f"MQTT_PASSWORD goes unencrypted to {self}, readable on the way: use {safe}:// in MQTT_URL"

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read `mqtt(s)://host[:port]` or `ws(s)://host[:port][/path]`; `SchemaError` for anything else.

        >>> BrokerUrl.parse("mqtts://broker.example.com")
        BrokerUrl(host='broker.example.com', port=8883, secure=True, path=None)
        """
        try:
            parts = urlsplit(url)
            default = PORTS[parts.scheme]
            port = default if parts.port is None else parts.port
            path = (parts.path.rstrip("/") or WEBSOCKET_PATH) if parts.scheme in _WEBSOCKETS else None
            more = parts.path.strip("/") if path is None else _PATH.fullmatch(path) is None
            if not parts.hostname or more or parts.query or parts.fragment or "@" in parts.netloc or port == 0:
                raise _wrong()
            # The form in which the name is looked up; a name without it (`a..b`) would raise UnicodeError only then.
            host_name(parts.hostname)
        except (ValueError, KeyError) as error:
            raise _wrong() from error
        return cls(parts.hostname, port, parts.scheme in _SECURE, path)


def _wrong() -> SchemaError:
    text = "a broker's URL must be mqtt://host:1883, mqtts://host:8883 or wss://host:443/mqtt, without credentials"
    return SchemaError(text)
