"""What a broker announces in its CONNACK, and how it explains a refusal or an end.

Rule: pure. A property that is absent has the default of the standard (MQTT 5.0 section 3.2.2.3).
"""

from dataclasses import dataclass
from typing import Final, Self

from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

UNLIMITED: Final = 268_435_460
"""Bytes: the largest packet that MQTT can express."""

_MOST_IN_FLIGHT: Final = 65_535
_PACKET_HEAD: Final = 10
"""Bytes of a PUBLISH beside topic and payload: fixed header (5), lengths of topic and properties (3), packet id (2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerTerms:
    """The limits of one connection: sizes in bytes, durations in seconds."""

    max_packet_size: int = UNLIMITED
    receive_maximum: int = _MOST_IN_FLIGHT
    maximum_qos: int = 2
    retain_available: bool = True
    server_keep_alive: int | None = None

    @classmethod
    def read(cls, properties: Properties | None) -> Self:
        """The terms of a CONNACK."""
        return cls(
            max_packet_size=getattr(properties, "MaximumPacketSize", UNLIMITED),
            receive_maximum=getattr(properties, "ReceiveMaximum", _MOST_IN_FLIGHT),
            maximum_qos=getattr(properties, "MaximumQoS", 2),
            retain_available=bool(getattr(properties, "RetainAvailable", 1)),
            server_keep_alive=getattr(properties, "ServerKeepAlive", None),
        )

    def keepalive(self, own: int) -> int:
        """The seconds between two signs of life: the shorter one of the two wishes, and never none."""
        return min(self.server_keep_alive or own, own)

    def room(self, topic: str) -> int:
        """Bytes of payload that fit into one message to this topic."""
        return self.max_packet_size - _PACKET_HEAD - len(topic.encode())


def reason_text(reason: ReasonCode, properties: Properties | None) -> str:
    """A reason code with its name, the broker's own sentence, and the server that it refers to.

    `Use another server (0x9C), it refers to broker-2.example:1883`
    """
    text = f"{reason.getName()} (0x{reason.value:02X})"
    sentence = getattr(properties, "ReasonString", None)
    server = getattr(properties, "ServerReference", None)
    return text + (f": {sentence[:200]}" if sentence else "") + (f", it refers to {server[:200]}" if server else "")
