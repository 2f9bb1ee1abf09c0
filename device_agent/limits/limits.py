"""Whether a part may begin: the budget of the device, and its conditions.

Rule: used by the agent's loop only. Conditions are read when an upload could continue, and at most once a minute; an
agent at rest reads nothing. A reason is a code of `DeviceHold`, a colon, and a sentence for a person.
"""

import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Final

from msgspec import Struct, field

from device_agent.limits.conditions import battery_percent, load_per_processor
from device_agent.limits.counting import Counting
from device_agent.limits.days import beginning_of, minute_of, zone_of
from device_agent.limits.network_manager import link_is_metered
from device_agent.policy.hours import Span, is_inside, shown, shown_minute
from device_agent.system_info import disk_space
from device_agent.transfer.records import Spent
from schemas.values import BudgetUse, DeviceBudget, DeviceHold

LOOK_EVERY: Final = 60.0
"""Seconds between two looks at the conditions, and between two states of the budget in presences."""


class Rules(Struct, frozen=True):
    """The settings; None is no limit. Bytes, percent, and the load of one processor; `metered` is None for `auto`.

    `hours` are those of the day in which parts begin, none for all. `day_setting` names what `day` comes from.
    """

    day: int | None = None
    month: int | None = None
    metered_day: int | None = None
    metered_month: int | None = None
    metered: bool | None = None
    disk_free: int | None = None
    battery: int | None = None
    load: float | None = None
    hours: tuple[Span, ...] = ()
    day_setting: str = "BYTES_PER_DAY"

    @property
    def caps(self) -> bool:
        """Whether any bytes are counted."""
        return (self.day, self.month, self.metered_day, self.metered_month) != (None,) * 4

    @property
    def metered_caps(self) -> bool:
        """Whether it matters that a link is metered."""
        return (self.metered_day, self.metered_month) != (None, None)

    @property
    def conditions(self) -> bool:
        """Whether anything of the device is read."""
        return (self.disk_free, self.battery, self.load) != (None,) * 3 or bool(self.hours)


class Readings(Struct, frozen=True):
    """How the device is read; a test reads from elsewhere. None is what this system does not show."""

    wall: Callable[[], float] = time.time
    link_is_metered: Callable[[], bool | None] = link_is_metered
    free_disk: Callable[[], int | None] = lambda: disk_space("/")[1]
    battery_percent: Callable[[], int | None] = battery_percent
    load: Callable[[], float | None] = load_per_processor


class _Cap(Struct, frozen=True):
    """One cap and its present count, with the text for a person."""

    code: DeviceHold
    setting: str
    cap: int
    used: int
    period: str
    resets_on: int

    def reason(self, size: int, resets_at: str) -> str:
        least = f"; the next part has {size:,} bytes" if self.used < self.cap else ""
        more = (
            f"; the next {self.period} begins at {resets_at}" if resets_at else "; the clock of the device is not set"
        )
        used = f"{self.used:,} of {self.cap:,} bytes of this {self.period} are used ({self.setting})"
        return f"{self.code}: {used}{least}{more}"


class _Seen(Struct):
    """What the last look has shown."""

    metered: bool = False
    conditions: tuple[str, ...] = ()


class Limits(Struct):
    """The limits of one device; without a rule every part may begin. Moments are of the loop's clock, in seconds."""

    rules: Rules = field(default_factory=Rules)
    timezone: str | None = None
    readings: Readings = field(default_factory=Readings)
    look_at: float = 0.0
    """When the device is looked at next, if an upload could continue."""
    _counting: Counting = field(default_factory=lambda: Counting(None, zone_of(None)))
    _seen: _Seen = field(default_factory=_Seen)
    _urgent: bool = False
    _began: bool = False
    _reported: DeviceBudget | None = None
    _report_at: float = 0.0

    def __post_init__(self) -> None:
        self._seen.metered = self.rules.metered or False
        self._counting = Counting(None, zone_of(self.timezone if self.rules.caps or self.rules.hours else None))

    @property
    def enabled(self) -> bool:
        """Whether there is any rule."""
        return self.rules.caps or self.rules.conditions

    def restore(self, kept: Spent | None) -> None:
        """Continue with the counts of the journal."""
        self._counting = Counting(kept, self._counting.zone)

    # Before a part.

    def look(self, now: float, *, wanted: bool) -> None:
        """Look at the calendar, and where an upload is `wanted` at the device, once a minute."""
        if self.rules.caps:
            self._urgent = self._counting.look_at_clock(self.readings.wall()) or self._urgent
        if not wanted:
            # What holds uploads back is not known while none is there to be held.
            self._seen.conditions = ()
            self.look_at = 0.0
        elif now >= self.look_at:
            self.look_at = now + LOOK_EVERY
            self._seen.conditions = tuple(self._conditions())
            if self.rules.metered_caps and self.rules.metered is None:
                self._seen.metered = self.readings.link_is_metered() or False

    def look_soon(self) -> None:
        """The network may have changed: the next look is due at once."""
        self.look_at = 0.0

    def reason(self, size: int) -> str | None:
        """Why a part of `size` bytes may not begin now; None when it may."""
        for cap in self._caps():
            if cap.used + size > cap.cap:
                return cap.reason(size, self._moment(cap.resets_on))
        return next(iter(self._seen.conditions), None)

    def never(self, size: int) -> str | None:
        """Why a part of `size` bytes could not begin on any day; None when it could."""
        for setting, cap, period in (
            (self.rules.day_setting, self.rules.day, "day"),
            ("BYTES_PER_MONTH", self.rules.month, "month"),
        ):
            if cap is not None and size > cap:
                return f"one part has {size:,} bytes, and this device sends {cap:,} in a whole {period} ({setting})"
        return None

    # While parts are sent.

    def begin(self, size: int) -> None:
        """A part of `size` bytes begins; its bytes count in full until it ends."""
        if self.rules.caps:
            self._counting.begin(size)
            self._began = True

    def end(self, size: int, sent: int) -> None:
        """It has ended, and `sent` bytes have left; over the link that is in use now."""
        if self.rules.caps:
            self._counting.end(size, sent, metered=self._seen.metered)

    def unwritten(self, *, others: bool) -> Spent | None:
        """The record to append to the journal now: before a part begins, and where `others` are written anyway."""
        if not self.rules.caps or not (self._began or self._urgent or others):
            return None
        record = self._counting.unwritten(metered=self._seen.metered)
        if record is not None:
            self._counting.written(record)
        self._began = self._urgent = False
        return record

    # For people and the owner.

    def report(self, now: float) -> DeviceBudget | None:
        """The state of the budget, which changes at most once a minute; None without any rule."""
        if self.enabled and now >= self._report_at:
            fresh = self.budget()
            if fresh != self._reported:
                self._reported, self._report_at = fresh, now + LOOK_EVERY
        return self._reported

    def budget(self) -> DeviceBudget:
        """The present state of the budget, and why no part may begin."""
        uses = {name: BudgetUse(cap.cap, cap.used, self._instant(cap.resets_on)) for name, cap in self._named().items()}
        return DeviceBudget(**uses, metered=self._seen.metered, holds=tuple(dict.fromkeys(self._holds())))

    @property
    def conditions(self) -> tuple[str, ...]:
        """The conditions that held uploads back at the last look, a reason each."""
        return self._seen.conditions

    def _holds(self) -> Iterator[str]:
        # An agent at rest does not know its link, and an owner that waited for it would wait for ever.
        known = self.look_at > 0
        for cap in self._caps():
            if cap.used >= cap.cap and (known or cap.code is DeviceHold.BUDGET):
                yield str(cap.code)
        for condition in self._seen.conditions:
            yield condition.partition(":")[0]

    def _caps(self) -> Iterator[_Cap]:
        """The caps that count for the present link."""
        for name, cap in self._named().items():
            if self._seen.metered or not name.startswith("metered"):
                yield cap

    def _named(self) -> dict[str, _Cap]:
        rules, counting = self.rules, self._counting
        if not rules.caps:
            return {}
        spent, day, month = counting.total(metered=self._seen.metered), counting.next_day, counting.next_month
        everything, metered = DeviceHold.BUDGET, DeviceHold.METERED
        shown = (
            ("day", everything, rules.day_setting, rules.day, spent.bytes_day, "day", day),
            ("month", everything, "BYTES_PER_MONTH", rules.month, spent.bytes_month, "month", month),
            ("metered_day", metered, "METERED_BYTES_PER_DAY", rules.metered_day, spent.metered_day, "day", day),
            (
                "metered_month",
                metered,
                "METERED_BYTES_PER_MONTH",
                rules.metered_month,
                spent.metered_month,
                "month",
                month,
            ),
        )
        return {
            name: _Cap(code, setting, cap, used, period, resets)
            for name, code, setting, cap, used, period, resets in shown
            if cap is not None
        }

    def _instant(self, day: int) -> datetime | None:
        return beginning_of(day, self._counting.zone) if day else None

    def _moment(self, day: int) -> str:
        instant = self._instant(day)
        return instant.isoformat() if instant else ""

    def _conditions(self) -> Iterator[str]:
        """One reason for each condition that does not hold now."""
        rules, readings = self.rules, self.readings
        if rules.hours:
            minute = minute_of(readings.wall(), self._counting.zone)
            if minute is None:
                yield f"{DeviceHold.HOURS}: the clock of the device is not set, so the hours of its policy are unknown"
            elif not is_inside(minute, rules.hours):
                allowed = ", ".join(map(shown, rules.hours))
                yield f"{DeviceHold.HOURS}: it is {shown_minute(minute)}, and this device sends at {allowed} (hours)"
        if rules.disk_free is not None:
            free = readings.free_disk()
            if free is not None and free < rules.disk_free:
                yield f"{DeviceHold.DISK}: {free:,} bytes of the disk are free, of {rules.disk_free:,} (MIN_DISK_FREE)"
        if rules.battery is not None:
            charge = readings.battery_percent()
            if charge is not None and charge < rules.battery:
                yield f"{DeviceHold.BATTERY}: the battery has {charge} %, of {rules.battery} % (MIN_BATTERY_PERCENT)"
        if rules.load is not None:
            load = readings.load()
            if load is not None and load > rules.load:
                yield f"{DeviceHold.LOAD}: the load of one processor is {load:.2f}, above {rules.load:g} (MAX_LOAD)"
