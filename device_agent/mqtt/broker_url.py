"""The setting `MQTT_URL`.

Rule: pure; a wrong value is one clear line.
"""

from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import urlsplit

from device_agent.errors import SettingsError

PORTS: Final = {"mqtt": 1883, "mqtts": 8883}


@dataclass(frozen=True, slots=True)
class BrokerUrl:
    """The broker's host and port, and whether the connection uses TLS."""

    host: str
    port: int
    secure: bool

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read `mqtt://host[:port]` or `mqtts://host[:port]`; `SettingsError` for anything else.

        >>> BrokerUrl.parse("mqtts://broker.example.com")
        BrokerUrl(host='broker.example.com', port=8883, secure=True)
        """
        try:
            parts = urlsplit(url)
            port = PORTS[parts.scheme] if parts.port is None else parts.port
            more = parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc
            if not parts.hostname or more or parts.scheme not in PORTS or port == 0:
                raise _wrong()
            # The form in which it is looked up; a name without this form (`a..b`) would raise there, as if by a bug.
            parts.hostname.encode("idna")
        except (ValueError, KeyError) as error:
            raise _wrong() from error
        return cls(parts.hostname, port, parts.scheme == "mqtts")


def _wrong() -> SettingsError:
    # The value is not repeated: it may contain a password.
    return SettingsError("MQTT_URL must be mqtt://host:1883 or mqtts://host:8883; the password goes to MQTT_PASSWORD")
