"""How many new rows one client may bring about by its own word.

Rule: a device that invents uploads fills its own measure, never the database; one that is refused asks again later.
"""

from typing import Final

from control_plane.services.ports.clock import Clock

NEW_UPLOADS: Final = 500
"""Uploads begun by hand or by other owners, in an hour, that are noted for one client."""

PERIOD: Final = 3_600.0
MAX_CLIENTS: Final = 100_000


class Quota:
    """Counts per client in fixed periods of its own."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._taken: dict[str, tuple[float, int]] = {}

    def take(self, client_id: str) -> bool:
        """Whether this client may have one more."""
        now = self._clock.monotonic()
        since, taken = self._taken.get(client_id, (now, 0))
        if now - since >= PERIOD:
            since, taken = now, 0
        if len(self._taken) >= MAX_CLIENTS:
            self._taken.clear()
        self._taken[client_id] = (since, min(taken + 1, NEW_UPLOADS + 1))
        return taken < NEW_UPLOADS
