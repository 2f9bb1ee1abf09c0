"""When a schedule ticks: cron in a zone, changes of the clocks, intervals, and texts that are no cadence."""

import itertools
from datetime import UTC, date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain.errors import BadText
from control_plane.domain.schedules.ticks import (
    Cadence,
    described,
    next_tick,
    read_cron,
    read_every,
    read_zone,
    ticks,
)

ZONES: Final = (
    "Europe/Berlin",
    "America/New_York",
    "America/Santiago",  # midnight does not exist on the day of the change
    "Australia/Lord_Howe",  # half an hour
    "Pacific/Apia",
    "Africa/Cairo",
    "Asia/Kolkata",
    "UTC",
)
CRONS: Final = ("30 2 * * *", "0,30 0-4 * * *", "*/15 * * * *", "0 * * * *", "0 0 * * *", "15 1 * * 0", "59 23 L * *")


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def times(cron: str, zone: str, start: str, count: int) -> list[str]:
    """The next ticks, in UTC."""
    found = itertools.islice(ticks(Cadence(cron=cron, zone=zone), at(start)), count)
    return [datetime.fromtimestamp(one, UTC).strftime("%m-%dT%H:%M") for one in found]


def test_a_time_that_does_not_exist_is_right_after_the_gap() -> None:
    assert times("30 2 * * *", "Europe/Berlin", "2026-03-28T00:00Z", 3) == ["03-28T01:30", "03-29T01:00", "03-30T00:30"]


def test_a_time_that_comes_twice_is_one_tick() -> None:
    assert times("30 2 * * *", "Europe/Berlin", "2026-10-24T00:00Z", 3) == ["10-24T00:30", "10-25T00:30", "10-26T01:30"]


def test_two_times_of_one_gap_are_one_tick() -> None:
    assert times("10,50 2 * * *", "Europe/Berlin", "2026-03-29T00:00Z", 2) == ["03-29T01:00", "03-30T00:10"]
    assert times("0 2,3 * * *", "Europe/Berlin", "2026-03-29T00:00Z", 2) == ["03-29T01:00", "03-30T00:00"]


def test_an_expression_with_a_star_ticks_in_both_hours() -> None:
    assert times("*/30 * * * *", "Europe/Berlin", "2026-10-25T00:15Z", 4) == [
        "10-25T00:30",
        "10-25T01:00",
        "10-25T01:30",
        "10-25T02:00",
    ]


def test_after_the_first_of_a_time_that_comes_twice_the_second_is_no_tick() -> None:
    # 02:10 for the second time: 02:30 of the first time has passed.
    assert times("30 2 * * *", "Europe/Berlin", "2026-10-25T01:10Z", 1) == ["10-26T01:30"]


def test_a_midnight_that_does_not_exist() -> None:
    assert times("0 0 * * *", "America/Santiago", "2026-09-05T12:00Z", 2) == ["09-06T04:00", "09-07T03:00"]


def test_every_counts_from_the_epoch() -> None:
    six_hours = Cadence(every=21_600.0, zone="Europe/Berlin")
    assert next_tick(six_hours, at("2026-11-26T05:59:59Z")) == at("2026-11-26T06:00Z")
    assert next_tick(six_hours, at("2026-11-26T06:00Z")) == at("2026-11-26T12:00Z")


@pytest.mark.parametrize(
    ("cron", "zone", "start", "note"),
    [
        (
            "30 2 * * *",
            "Europe/Berlin",
            "2026-03-28T20:00Z",
            "02:30 does not exist on this day: the tick is at 03:00, right after the gap",
        ),
        (
            "30 2 * * *",
            "Europe/Berlin",
            "2026-10-24T20:00Z",
            "02:30 comes twice on this day: the tick is at the first one only",
        ),
        ("*/30 * * * *", "Europe/Berlin", "2026-10-25T00:15Z", "02:30 comes twice on this day: this is the first one"),
        ("*/30 * * * *", "Europe/Berlin", "2026-10-25T01:15Z", "02:30 comes twice on this day: this is the second one"),
        ("0 3 * * *", "Europe/Berlin", "2026-03-28T20:00Z", None),
        ("*/30 * * * *", "Europe/Berlin", "2026-03-29T00:45Z", None),
        (
            "0 0 * * *",
            "America/Santiago",
            "2026-09-05T12:00Z",
            "00:00 does not exist on this day: the tick is at 01:00, right after the gap",
        ),
        ("30 2 * * *", "Europe/Berlin", "2026-11-24T20:00Z", None),
    ],
)
def test_a_tick_names_what_the_clocks_do_to_it(cron: str, zone: str, start: str, note: str | None) -> None:
    cadence = Cadence(cron=cron, zone=zone)
    tick = next_tick(cadence, at(start))
    assert tick is not None
    assert described(cadence, tick).note == note


def test_a_tick_has_its_local_time_with_the_offset() -> None:
    cadence = Cadence(cron="0 3 * * *", zone="Europe/Berlin")
    assert described(cadence, at("2026-11-26T02:00Z")).local == "2026-11-26T03:00:00+01:00"


@given(
    cron=st.sampled_from(CRONS),
    zone=st.sampled_from(ZONES),
    start=st.integers(int(at("2025-01-01T00:00Z")), int(at("2027-01-01T00:00Z"))),
    cut=st.integers(0, 39),
)
def test_the_ticks_rise_and_depend_on_the_instant_alone(cron: str, zone: str, start: int, cut: int) -> None:
    """Begun again at any instant between two ticks, the rest is the same."""
    cadence = Cadence(cron=cron, zone=zone)
    found = list(itertools.islice(ticks(cadence, float(start)), 40))
    assert found == sorted(set(found))
    assert list(itertools.islice(ticks(cadence, found[cut]), 39 - cut)) == found[cut + 1 :]
    for one in found:
        described(cadence, one)


@given(zone=st.sampled_from(ZONES), year=st.integers(2015, 2035), hour=st.integers(0, 23), minute=st.integers(0, 59))
def test_a_daily_time_is_one_tick_on_every_day(zone: str, year: int, hour: int, minute: int) -> None:
    """Also on the two days of the change: 365 or 366 ticks a year, one for each local date."""
    first = datetime(year, 1, 1, tzinfo=ZoneInfo(zone))
    end = datetime(year + 1, 1, 1, tzinfo=ZoneInfo(zone)).timestamp()
    cadence = Cadence(cron=f"{minute} {hour} * * *", zone=zone)
    found = list(itertools.takewhile(lambda one: one < end, ticks(cadence, first.timestamp() - 1)))
    dates = [datetime.fromtimestamp(one, ZoneInfo(zone)).date() for one in found]
    days = (date(year + 1, 1, 1) - date(year, 1, 1)).days
    assert dates == [first.date() + timedelta(days=n) for n in range(days)]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("0 0 30 2 *", "never fires: no month of it has such a day"),
        ("0 0 31 4,6 *", "never fires"),
        ("0 0 L-3 * *", "cannot be read: bad day-of-month"),
        ("60 * * * *", "cannot be read: bad minute"),
        ("0 0 * * 8", "cannot be read: bad day-of-week"),
        ("0 3 * *", "five fields"),
        ("0 0 3 * * *", "five fields"),
        ("", "five fields"),
        ("* * * * *\0", "five fields"),
        ("1," * 200 + "1 * * * *", "five fields"),
        ("@reboot", "five fields"),
    ],
)
def test_an_expression_that_is_none_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(BadText, match=why):
        read_cron(text)


@given(st.text(st.sampled_from("0123456789*,/-#LW SUNmon"), max_size=30))
def test_any_text_is_an_expression_or_refused(text: str) -> None:
    try:
        cron = read_cron(text)
    except BadText:
        return
    assert next_tick(Cadence(cron=cron, zone="Europe/Berlin"), 0.0) is not None


def test_the_names_of_crontab_are_known() -> None:
    assert read_cron("@daily") == "0 0 * * *"


@pytest.mark.parametrize(
    "name", ["Mars/Base", "Europe", "../etc/passwd", "/etc/passwd", "", "UTC\0", "tzdata.zi", "x" * 300]
)
def test_a_zone_that_does_not_exist_is_refused(name: str) -> None:
    with pytest.raises(BadText, match="no such time zone is known"):
        read_zone(name)


def test_a_zone_that_exists_is_kept() -> None:
    assert [read_zone(name) for name in ZONES] == list(ZONES)


@pytest.mark.parametrize("seconds", [0.0, 59.0, 61.5, 1e9, -60.0, float("nan")])
def test_an_interval_outside_the_limits_is_refused(seconds: float) -> None:
    with pytest.raises(BadText, match="from 1m to 366d"):
        read_every(seconds)


def test_there_is_no_tick_after_the_end_of_the_calendar() -> None:
    assert next_tick(Cadence(cron="0 3 * * *"), 253_402_300_700.0) is None
    assert next_tick(Cadence(cron="0 3 * * *"), 1e18) is None
