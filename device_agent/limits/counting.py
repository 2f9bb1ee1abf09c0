"""The bytes that were sent today and this month, over all links and over metered ones.

Rule: never fewer than were sent. A part counts in full before its first byte leaves, also in the journal; its real
bytes replace that when it ends. So a crash counts the parts in flight in full, and forgets nothing.

The days follow the wall clock, which may be wrong. One that goes ahead begins a new day at once. One that goes back
begins none: the counts are kept, until the clock passes the day again, or has counted two days from there, which shows
that it was ahead before.
"""

from datetime import tzinfo
from typing import Final

from msgspec.structs import replace

from device_agent.limits.days import day_of, month_after, month_of
from device_agent.transfer.records import Spent

BELIEVED_AFTER: Final = 2
"""Days that a clock which went back must count before it is believed."""


class Counting:
    """The counts, as `Spent`. `kept` is what the journal has; None at the first start. `wall` in s since the epoch."""

    def __init__(self, kept: Spent | None, zone: tzinfo | None) -> None:
        self.zone = zone
        self.in_flight = 0
        """Bytes of the parts that have begun and not ended."""
        self._settled = kept or Spent(0)
        self._written = kept

    def total(self, *, metered: bool) -> Spent:
        """The counts with the parts in flight in full; with `metered` these count as metered too."""
        return _with(self._settled, self.in_flight, metered=metered)

    @property
    def next_day(self) -> int:
        """The counts of a day end when this day begins; 0 while the clock was never set."""
        day, back = self._settled.day, self._settled.back
        return day and (day + 1 if back is None else min(day + 1, back + BELIEVED_AFTER))

    @property
    def next_month(self) -> int:
        """The counts of a month end when this day begins; 0 while the clock was never set."""
        return self._settled.day and month_after(self._settled.day)

    def begin(self, size: int) -> None:
        """A part of `size` bytes begins."""
        self.in_flight += size

    def end(self, size: int, sent: int, *, metered: bool) -> None:
        """It has ended after `sent` bytes, which are more than `size` where it was repeated."""
        self.in_flight -= size
        self._settled = _with(self._settled, sent, metered=metered)

    def look_at_clock(self, wall: float) -> bool:
        """Begin a new day or month when it is time; True when the journal must know of it without a part."""
        now, settled = day_of(wall, self.zone), self._settled
        if now is None:
            return False
        if settled.day == 0:
            # What was sent before the clock was set for the first time counts today.
            self._settled = replace(settled, day=now)
            return False
        if now >= settled.day:
            if now > settled.day:
                settled = _on_day(settled, now, month=month_of(now) != month_of(settled.day))
            self._settled = replace(settled, back=None)
            return False
        if settled.back is None or now < settled.back:
            # A device that is switched off each night counts these days across its restarts.
            self._settled = replace(settled, back=now)
            return True
        if now - settled.back >= BELIEVED_AFTER:
            # The month has begun anew when the clock went ahead.
            self._settled = replace(_on_day(settled, now, month=False), back=None)
        return False

    def unwritten(self, *, metered: bool) -> Spent | None:
        """The counts, where the journal has others; the caller appends them to it."""
        total = self.total(metered=metered)
        return None if total == self._written else total

    def written(self, record: Spent) -> None:
        """This record was appended to the journal."""
        self._written = record


def _with(spent: Spent, size: int, *, metered: bool) -> Spent:
    also = size if metered else 0
    return replace(
        spent,
        bytes_day=spent.bytes_day + size,
        bytes_month=spent.bytes_month + size,
        metered_day=spent.metered_day + also,
        metered_month=spent.metered_month + also,
    )


def _on_day(spent: Spent, day: int, *, month: bool) -> Spent:
    spent = replace(spent, day=day, bytes_day=0, metered_day=0)
    return replace(spent, bytes_month=0, metered_month=0) if month else spent
