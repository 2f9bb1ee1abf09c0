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
    in seconds; None without one.
    """

    topic: str
    payload: bytes
    retained: bool = False
    expires_in: float | None = None


class Messenger(Protocol):
    """The broker. `MessengerDown` when it is unreachable or refuses."""

    @property
    def connected(self) -> bool:
        """Whether a connection exists and its subscriptions were granted."""

    async def publish(self, channel: Channel, client_id: str, payload: bytes) -> None:
        """Publish to one client's topic, or to the birth topic, and wait for the broker's acknowledgement."""
