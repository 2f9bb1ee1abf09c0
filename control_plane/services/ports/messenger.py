"""The MQTT broker, as the services use it.

Rule: a publish returns once the broker has acknowledged it; `MessengerDown` otherwise.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from schemas.signing.canonical import SignedKind
from schemas.topics import Channel

UserProperties = tuple[tuple[str, str], ...]
"""Names and values of the user properties of one message."""

Sign = Callable[[SignedKind, str, bytes], UserProperties]
"""Makes the user properties that sign a message of this kind, on this topic, with this payload."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """One message that arrived.

    `retained` if the broker had stored it before the subscription. `expires_in` is what is left of its Message Expiry,
    in seconds; None without one. `traceparent` is the user property of this name, None without one; `properties` are
    all user properties, in their order.
    """

    topic: str
    payload: bytes
    retained: bool = False
    expires_in: float | None = None
    traceparent: str | None = None
    properties: UserProperties = ()


class Messenger(Protocol):
    """The broker. `MessengerDown` when it is unreachable or refuses, `BrokerRefused` when a message is too large."""

    @property
    def problem(self) -> str | None:
        """Why messages cannot pass now, such as no answer of late or the broker's own reason; None when they can."""

    @property
    def max_message_size(self) -> int:
        """Bytes of payload that the broker takes in one command."""

    async def publish(
        self,
        channel: Channel,
        client_id: str,
        payload: bytes,
        *,
        traceparent: str | None = None,
        properties: UserProperties = (),
    ) -> None:
        """Publish to one client's topic, or to a topic of the fleet, and wait for the broker's acknowledgement.

        `traceparent` becomes the user property of this name, and is left out where there is no room for it;
        `properties` are published as they are.
        """
