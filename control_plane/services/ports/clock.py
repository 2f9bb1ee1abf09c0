"""The two clocks.

Rule: instants are seconds since the epoch (UTC); spans come from `monotonic`.
"""

from typing import Protocol


class Clock(Protocol):
    """Both clocks, so that tests can set them."""

    def now(self) -> float:
        """Seconds since the epoch, UTC."""

    def monotonic(self) -> float:
        """Seconds that never go back."""
