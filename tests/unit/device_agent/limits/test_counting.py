"""Bytes by days and months: nothing is forgotten, and a wrong clock gives no second budget."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.limits.counting import Counting
from device_agent.limits.days import beginning_of, day_of, zone_of
from device_agent.transfer.records import Spent

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")


def wall(moment: datetime) -> float:
    return moment.timestamp()


def counting(moment: datetime = NOON, kept: Spent | None = None) -> Counting:
    made = Counting(kept, UTC)
    made.look_at_clock(wall(moment))
    return made


def sent(counts: Counting, size: int, *, metered: bool = False) -> None:
    counts.begin(size)
    counts.end(size, size, metered=metered)


def used(counts: Counting) -> tuple[int, int]:
    total = counts.total(metered=False)
    return total.bytes_day, total.bytes_month


def after_a_crash(counts: Counting, moment: datetime) -> Counting:
    """What a new process finds, if every record that was due had been appended."""
    return counting(moment, counts.total(metered=False))


def test_a_new_day_and_a_new_month_begin_anew() -> None:
    counts = counting()
    sent(counts, 10)
    counts.look_at_clock(wall(NOON + timedelta(days=1)))
    assert used(counts) == (0, 10)
    counts.look_at_clock(wall(NOON + timedelta(days=4)))
    assert used(counts) == (0, 0)


def test_a_part_in_flight_counts_in_full_and_its_real_bytes_replace_that() -> None:
    counts = counting()
    counts.begin(100)
    assert used(counts) == (100, 100)
    assert used(after_a_crash(counts, NOON)) == (100, 100)
    counts.end(100, 30, metered=True)
    assert used(counts) == (30, 30)
    assert counts.total(metered=False).metered_day == 30


def test_a_part_that_was_repeated_counts_twice() -> None:
    counts = counting()
    counts.begin(100)
    counts.end(100, 200, metered=False)
    assert used(counts) == (200, 200)


def test_bytes_before_the_clock_was_set_count_on_its_first_day() -> None:
    counts = counting(datetime(1970, 1, 1, 5, tzinfo=UTC))
    sent(counts, 10)
    assert (counts.next_day, counts.next_month) == (0, 0)
    counts.look_at_clock(wall(NOON))
    assert used(counts) == (10, 10)
    counts.look_at_clock(wall(NOON + timedelta(days=1)))
    assert used(counts) == (0, 10)


@pytest.mark.parametrize("moment", [datetime(1970, 1, 1, tzinfo=UTC), datetime(2000, 1, 1, tzinfo=UTC)])
def test_a_boot_with_an_unset_clock_gives_no_new_budget(moment: datetime) -> None:
    counts = counting()
    sent(counts, 10)
    for _ in range(5):
        counts = after_a_crash(counts, moment)
        assert used(counts) == (10, 10)
        counts.look_at_clock(wall(NOON))
        assert used(counts) == (10, 10)


def test_a_clock_that_is_an_hour_old_at_each_boot_gives_no_new_budget() -> None:
    """As a Raspberry Pi without a clock: its first minutes are yesterday's."""
    counts = counting(datetime(2026, 11, 27, 0, 30, tzinfo=UTC))
    sent(counts, 10)
    for _ in range(5):
        counts = after_a_crash(counts, datetime(2026, 11, 26, 23, 50, tzinfo=UTC))
        counts.look_at_clock(wall(NOON))
        assert used(counts) == (10, 10)


def test_a_clock_that_went_years_ahead_and_back_gives_one_budget_more_and_then_counts_days_again() -> None:
    counts = counting()
    sent(counts, 10)
    counts.look_at_clock(wall(NOON + timedelta(days=4_000)))
    assert used(counts) == (0, 0)
    sent(counts, 20)
    assert counts.look_at_clock(wall(NOON)), "the journal learns the first day of a clock that went back"
    assert used(counts) == (20, 20)
    days = []
    for number in range(1, 6):
        # Switched off each night: only the journal knows.
        counts = after_a_crash(counts, NOON + timedelta(days=number))
        days.append(counts.total(metered=False).bytes_day)
        sent(counts, 1)
    assert days == [20, 0, 0, 0, 0]
    assert counts.total(metered=False).bytes_day == 1


@given(
    st.lists(
        st.tuples(st.integers(0, 100), st.sampled_from(["day", "crash", "unset", "hour-back", "send"])), max_size=60
    )
)
def test_over_any_history_with_unset_clocks_a_day_never_has_two_budgets(steps: list[tuple[int, str]]) -> None:
    """Time goes on; boots show 1970 or an hour ago first. The count of a day is what was sent on it, and never less."""
    now, truth, counts = NOON, 0, counting()
    for size, step in steps:
        match step:
            case "day":
                now, truth = now + timedelta(days=1), 0
                counts.look_at_clock(wall(now))
            case "crash":
                counts = after_a_crash(counts, now)
            case "unset":
                counts = after_a_crash(counts, datetime(1970, 1, 1, tzinfo=UTC))
                counts.look_at_clock(wall(now))
            case "hour-back":
                counts = after_a_crash(counts, now - timedelta(hours=20))
                counts.look_at_clock(wall(now))
            case _:
                truth += size
                sent(counts, size)
        assert counts.total(metered=False).bytes_day == truth


@pytest.mark.parametrize(
    ("day", "hours"), [(date(2026, 3, 29), 23), (date(2026, 10, 25), 25), (date(2026, 6, 1), 24)], ids=str
)
def test_a_day_is_the_calendars_also_when_the_clocks_change(day: date, hours: int) -> None:
    beginning, end = (beginning_of(day.toordinal() + more, BERLIN) for more in (0, 1))
    assert (end.astimezone(UTC) - beginning.astimezone(UTC)) == timedelta(hours=hours)
    assert day_of(beginning.timestamp(), BERLIN) == day.toordinal()
    assert day_of(end.timestamp() - 1, BERLIN) == day.toordinal()


def test_two_years_of_hours_begin_each_day_and_month_once() -> None:
    counts = Counting(None, BERLIN)
    moment, days, months, last = datetime(2026, 1, 1, tzinfo=BERLIN).timestamp(), 0, 0, (0, 0)
    counts.look_at_clock(moment)
    for _ in range(2 * 365 * 24):
        sent(counts, 1)
        counts.look_at_clock(moment)
        now = used(counts)
        days, months = days + (now[0] <= last[0]), months + (now[1] <= last[1])
        last, moment = now, moment + 3600
    assert (days, months) == (2 * 365 - 1, 23)


@pytest.mark.parametrize("far", [1e12, 1e18, -1e18, float("inf")])
def test_a_clock_beyond_the_calendar_has_no_day(far: float) -> None:
    assert day_of(far, UTC) is None


def test_a_zone_that_the_system_does_not_know_is_the_systems_own() -> None:
    assert zone_of("Mars/Olympus") is None
    assert zone_of(None) is None
    assert beginning_of(NOON.date().toordinal(), None).tzinfo is not None


def test_a_record_is_due_only_where_the_journal_has_another_count() -> None:
    counts = counting()
    due: Callable[[], Spent | None] = lambda: counts.unwritten(metered=False)  # noqa: E731 (used five times)
    counts.begin(10)
    record = due()
    assert record is not None
    counts.written(record)
    assert due() is None
    counts.end(10, 10, metered=False)
    assert due() is None, "the part had counted in full"
    assert record.bytes_day == 10
