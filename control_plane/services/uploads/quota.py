"""Rate limit per client on uploads that a device creates unasked.

Rule: a refused upload is neither stored nor closed; the client offers it again later.
"""

from typing import Final

from control_plane.services.ports.clock import Clock

NEW_UPLOADS: Final = 500
"""New uploads of a client in one period: started by hand, or by other owners."""

PERIOD: Final = 3_600.0
"""Seconds."""

MAX_CLIENTS: Final = 100_000


class Quota:
    """Counts new uploads per client, in periods that start with the client's first."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._taken: dict[str, tuple[float, int]] = {}

    def take(self, client_id: str) -> bool:
        """Count one more upload; whether this client may have it."""
        now = self._clock.monotonic()
        since, taken = self._taken.get(client_id, (now, 0))
        if now - since >= PERIOD:
            since, taken = now, 0
        if len(self._taken) >= MAX_CLIENTS:
            self._taken.clear()
        self._taken[client_id] = (since, min(taken + 1, NEW_UPLOADS + 1))
        return taken < NEW_UPLOADS
