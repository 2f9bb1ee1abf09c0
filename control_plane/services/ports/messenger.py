"""The MQTT broker, as the services use it.

Rule: a publish returns once the broker has acknowledged it; `MessengerDown` otherwise.
"""

from dataclasses import dataclass
from typing import Protocol

from schemas.topics import Channel


@dataclass(frozen=True, slots=True)
class Delivered:
    """One message that arrived.

    `retained` if the broker had stored it before the subscription. `expires_in` is what is left of its Message Expiry,
    in seconds; None without one. `traceparent` is the user property of this name, None without one.
    """

    topic: str
    payload: bytes
    retained: bool = False
    expires_in: float | None = None
    traceparent: str | None = None


class Messenger(Protocol):
    """The broker. `MessengerDown` when it is unreachable or refuses, `BrokerRefused` when a message is too large."""

    @property
    def problem(self) -> str | None:
        """Why messages cannot pass now, such as no answer of late or the broker's own reason; None when they can."""

    @property
    def max_message_size(self) -> int:
        """Bytes of payload that the broker takes in one command."""

    async def publish(
        self, channel: Channel, client_id: str, payload: bytes, *, traceparent: str | None = None
    ) -> None:
        """Publish to one client's topic, or to the birth topic, and wait for the broker's acknowledgement.

        `traceparent` becomes the user property of this name.
        """
