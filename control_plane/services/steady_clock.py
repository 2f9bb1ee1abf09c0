"""The wall clock of the services: it runs with the monotonic clock, and follows a step of the machine's if it lasts.

Rule: every service reads the time here, so a step of the machine's clock neither expires nor delays anything at once. A
small difference is followed at once: it is the clock that is being adjusted (decision 18).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from control_plane.services.ports.clock import Clock
from control_plane.services.ports.log import EventLog

STEP: Final = 5.0
"""Seconds of difference that count as a step of the clock."""

LASTS: Final = 300.0
"""Seconds after which a step is followed, unless it is known to be wrong."""


@dataclass(frozen=True, slots=True)
class _Step:
    """A step that is not followed yet: the new difference of the two clocks (s), and when it was first seen."""

    offset: float
    seen_at: float


class SteadyClock:
    """Both clocks, for any thread. `now` follows no step of the machine's clock before that has lasted for LASTS."""

    def __init__(self, clock: Clock, log: EventLog) -> None:
        self._clock = clock
        self._log = log
        self._offset = clock.now() - clock.monotonic()
        self._step: _Step | None = None
        self.steps = 0
        """How often a step was seen, or was taken back."""
        self._known_wrong: Callable[[], bool] = lambda: False

    def judged_by(self, known_wrong: Callable[[], bool]) -> None:
        """Follow no step while `known_wrong` is true of the machine's clock."""
        self._known_wrong = known_wrong

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return self._clock.monotonic()

    def now(self) -> float:
        """Seconds since the epoch, UTC, as far as is known."""
        monotonic = self._clock.monotonic()
        self._follow(self._clock.now() - monotonic, monotonic)
        return monotonic + self._offset

    @property
    def warning(self) -> str | None:
        """The step that is not followed yet, as a sentence; None without one."""
        self.now()
        # Another thread may end the step meanwhile.
        step = self._step
        if step is None:
            return None
        age = self._clock.monotonic() - step.seen_at
        size = step.offset - self._offset
        return f"this machine's clock was set by {size:+.0f} s, {age:.0f} s ago: it is followed once that has lasted"

    def _follow(self, offset: float, monotonic: float) -> None:
        size, step = offset - self._offset, self._step
        if abs(size) <= STEP:
            self._offset, self._step = offset, None
            if step is not None:
                self.steps += 1
                self._log("clock.back", {"after": round(monotonic - step.seen_at)})
        elif step is None or abs(offset - step.offset) > STEP:
            self._step = _Step(offset, monotonic)
            self._log("clock.stepped", {"by": round(size)})
            self.steps += 1
        elif monotonic - step.seen_at >= LASTS and not self._known_wrong():
            self._offset, self._step = offset, None
            self._log("clock.followed", {"by": round(size)})
