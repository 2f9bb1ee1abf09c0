"""The setting `MQTT_URL`, as agents, control planes and tools read it.

Rule: pure; what is no broker's URL is a `SchemaError` that does not repeat the value, for it may hold a password.
"""

from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import urlsplit

from schemas.environment import is_loopback
from schemas.errors import SchemaError

PORTS: Final = {"mqtt": 1883, "mqtts": 8883}
"""The default port of each scheme."""


@dataclass(frozen=True, slots=True)
class BrokerUrl:
    """Where the broker is, and whether the connection uses TLS."""

    host: str
    port: int
    secure: bool

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    def exposure(self, password: str | None) -> str | None:
        """The warning for a password that crosses a network unencrypted; None when it does not.

        >>> BrokerUrl("broker", 1883, secure=False).exposure("secret")
        'MQTT_PASSWORD goes unencrypted to broker:1883, readable on the way: use mqtts:// in MQTT_URL'
        """
        if not password or self.secure or is_loopback(self.host):
            return None
        return f"MQTT_PASSWORD goes unencrypted to {self}, readable on the way: use mqtts:// in MQTT_URL"

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read `mqtt://host[:port]` or `mqtts://host[:port]`; `SchemaError` for anything else.

        >>> BrokerUrl.parse("mqtts://broker.example.com")
        BrokerUrl(host='broker.example.com', port=8883, secure=True)
        """
        try:
            parts = urlsplit(url)
            port = PORTS[parts.scheme] if parts.port is None else parts.port
            more = parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc
            if parts.scheme not in PORTS or not parts.hostname or more or port == 0:
                raise _wrong()
            # The form in which the name is looked up; a name without it (`a..b`) would raise UnicodeError only then.
            parts.hostname.encode("idna")
        except (ValueError, KeyError) as error:
            raise _wrong() from error
        return cls(parts.hostname, port, parts.scheme == "mqtts")


def _wrong() -> SchemaError:
    return SchemaError("a broker's URL must be mqtt://host:1883 or mqtts://host:8883, without credentials")
