"""How many calls each caller may make.

Rule: one number for each caller that made calls lately, in memory; each replica counts for itself.
"""

from typing import Final

from control_plane.services.ports.clock import Clock

BURST: Final = 10.0
"""Seconds of calls that may come at once."""

MOST_CALLERS: Final = 10_000
_MINUTE: Final = 60.0


class CallRates:
    """Bounds the calls of each subject to `per_minute`, in the long run; 0 bounds nothing."""

    def __init__(self, clock: Clock, per_minute: int) -> None:
        self.per_minute = per_minute
        self._clock = clock
        self._each = _MINUTE / per_minute if per_minute else 0.0
        self._due: dict[str, float] = {}
        """When the calls that a subject made would have ended, had they come one after the other."""

    def wait(self, subject: str) -> float:
        """Count a call; the seconds to wait when it is one too many, and then it is not counted; else 0."""
        if not self._each:
            return 0.0
        now = self._clock.monotonic()
        due = max(self._due.get(subject, now), now)
        # At least one call fits, however low the rate is.
        if (early := due - now - max(0.0, BURST - self._each)) > 0:
            return early
        if subject not in self._due and len(self._due) >= MOST_CALLERS:
            self._due = {name: one for name, one in self._due.items() if one > now}
        self._due[subject] = due + self._each
        return 0.0
