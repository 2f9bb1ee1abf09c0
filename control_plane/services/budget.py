"""What one client may cost: token buckets, and the budget of everything that the inbox receives.

Rule: a budget is checked before a message is decoded, by its topic and size alone. It is one client's: what one client
spends is taken from no other. What is over it is dropped and counted, and honest agents send it again.
"""

import ipaddress
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final

from control_plane.services.ports.clock import Clock
from schemas.topics import Channel

MAX_NAMES: Final = 100_000
"""Buckets of one kind that are not full. The one that was used longest ago is forgotten first."""

NOISY_FOR: Final = 60.0
"""Seconds after a dropped message for which a client counts as noisy."""


@dataclass(frozen=True, slots=True)
class Limit:
    """`burst` at once, and `rate` a second in the long run."""

    rate: float
    burst: float


MESSAGES: Final = {
    # At a reconnect an agent may publish one response for each upload in its table: 256 open and 4,096 ended ones,
    # and its hello. In the long run it sends few: a request is for 64 MiB or 100 parts, and a commit lies between two.
    Channel.RESPONSE: Limit(rate=200, burst=5_000),
    # An agent publishes one a second; a network that was away delivers the last minute's at once.
    Channel.STATUS: Limit(rate=2, burst=64),
    # One in 30 s, and a birth and a will for each connection; an agent waits between connections.
    Channel.PRESENCE: Limit(rate=1, burst=64),
    # Commands are published by operators and other control planes: at most one for each response that answers it.
    Channel.COMMAND: Limit(rate=200, burst=5_000),
}
"""Messages of one client, by channel."""

BYTES: Final = Limit(rate=1024 * 1024, burst=32 * 1024 * 1024)
"""Bytes of one client on one channel. A status has 96 KiB a second at most; at a reconnect a response has some KiB."""


def network_of(address: str) -> str:
    """What one caller has one of: an IPv4 address, or 64 bits of an IPv6 address."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    return address if parsed.version == 4 else str(ipaddress.ip_network((parsed.packed, 64), strict=False))  # noqa: PLR2004


class Buckets:
    """A token bucket for each name, all with one limit. A new one is full. `monotonic` gives seconds."""

    def __init__(self, monotonic: Callable[[], float], limit: Limit) -> None:
        self._monotonic = monotonic
        self._limit = limit
        self._levels: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def take(self, name: Hashable, amount: float = 1.0) -> bool:
        """Take `amount` from the bucket; False, and nothing is taken, when it has less."""
        now = self._monotonic()
        level, at = self._levels.pop(name, (self._limit.burst, now))
        level = min(self._limit.burst, level + (now - at) * self._limit.rate)
        enough = level >= amount
        self._levels[name] = (level - amount if enough else level, now)
        self._forget_full(now)
        return enough

    def _forget_full(self, now: float) -> None:
        """Drop a bucket that is full again, as a new one is; two at a time, so that they go faster than they come."""
        for _ in range(2):
            name, (level, at) = next(iter(self._levels.items()))
            if level + (now - at) * self._limit.rate < self._limit.burst and len(self._levels) <= MAX_NAMES:
                return
            del self._levels[name]
            if not self._levels:
                return


class IngestBudget:
    """Messages and bytes that the inbox takes from one client, by channel; and which clients are over it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._messages = {channel: Buckets(clock.monotonic, limit) for channel, limit in MESSAGES.items()}
        self._bytes = {channel: Buckets(clock.monotonic, BYTES) for channel in MESSAGES}
        self._noisy: OrderedDict[str, float] = OrderedDict()

    def take(self, client_id: str, channel: Channel, size: int) -> bool:
        """Whether to receive one message of `size` bytes; when not, the client is noisy for a while."""
        if self._messages[channel].take(client_id) and self._bytes[channel].take(client_id, size):
            return True
        self._noisy.pop(client_id, None)
        self._noisy[client_id] = self._clock.monotonic()
        if len(self._noisy) > MAX_NAMES:
            self._noisy.popitem(last=False)
        return False

    def noisy(self, client_id: str) -> bool:
        """Whether a message of this client was dropped in the last minute."""
        at = self._noisy.get(client_id)
        return at is not None and self._clock.monotonic() - at < NOISY_FOR
