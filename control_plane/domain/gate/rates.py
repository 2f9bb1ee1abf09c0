"""Rates by the generic cell rate algorithm (GCRA): one instant for each rate, `tat`, and no counters.

Rule: pure. `tat` is when the next event is free: an event that is taken moves it by its cost (s), so the average holds
over restarts and replicas that share the stored instant. It works below one event a minute as it does above.
"""

from typing import Final

IDLE_CREDIT: Final = 5.0
"""Seconds of a rate that may be made up for at once: otherwise a request every second loses a second each time."""


def cost_of(count: int, seconds: float) -> float:
    """Seconds between two events of `count` in `seconds`.

    >>> cost_of(1, 1200.0), cost_of(50, 60.0)
    (1200.0, 1.2)
    """
    return seconds / count


def free_at(tat: float | None, now: float, longest: float) -> float:
    """When the next event is free (s since the epoch); not after `now` when it is free at once.

    `longest` (s) is the highest cost of one event. A `tat` further ahead was written at a lower rate, or by a clock
    that was wrong: `now + longest` takes its place, and is stored. So a new rate holds from the next event on.
    """
    return now if tat is None else min(tat, now + longest)


def taken(tat: float | None, now: float, cost: float) -> float:
    """The next `tat`, after an event of `cost` (s) at `now` that was free."""
    return (now if tat is None else max(tat, now - IDLE_CREDIT)) + cost
