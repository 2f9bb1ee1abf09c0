"""Windows over midnight, in two zones, and at both changes of the clocks."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.domain.gate.gate import Opening
from control_plane.domain.gate.windows import opening, zone_of
from control_plane.domain.jobs.spec import Window
from tests.support.examples import examples

BERLIN = "Europe/Berlin"
HOUR = 3_600.0


def at(text: str, zone: str = "UTC", fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


def window(cron: str, hours: float, **more: str) -> Window:
    return Window(cron, hours * HOUR, **more)  # type: ignore[arg-type]


def test_a_job_without_windows_is_always_open() -> None:
    assert opening((), 0.0, "UTC", None) == Opening()


def test_a_window_is_open_from_its_tick_to_just_before_its_end() -> None:
    night = (window("0 1 * * *", 3),)
    assert opening(night, at("2026-06-01T01:00"), "UTC", None).open
    assert opening(night, at("2026-06-01T03:59:59"), "UTC", None).open
    ended = opening(night, at("2026-06-01T04:00"), "UTC", None)
    assert (ended.open, ended.opens_at) == (False, at("2026-06-02T01:00"))


def test_a_window_passes_midnight() -> None:
    night = (window("0 22 * * *", 6),)
    assert opening(night, at("2026-06-02T03:59"), "UTC", None).open
    assert not opening(night, at("2026-06-02T04:00"), "UTC", None).open


def test_a_window_of_several_days_stays_open_over_its_own_ticks() -> None:
    weekend = (window("0 18 * * FRI", 60),)
    assert opening(weekend, at("2026-06-07T12:00"), "UTC", None).open
    assert not opening(weekend, at("2026-06-08T06:00"), "UTC", None).open


def test_a_window_is_in_the_zone_of_the_device_or_of_the_job() -> None:
    now = at("2026-06-01T01:30", "America/New_York")
    assert opening((window("0 1 * * *", 1, zone="device"),), now, BERLIN, "America/New_York").open
    assert not opening((window("0 1 * * *", 1, zone="job"),), now, BERLIN, "America/New_York").open


@pytest.mark.parametrize("reported", [None, "", "Mars/Olympus", "../etc/passwd"])
def test_a_device_without_a_known_zone_is_in_the_zone_of_the_job(reported: str | None) -> None:
    now = at("2026-06-01T01:30", BERLIN)
    assert opening((window("0 1 * * *", 1, zone="device"),), now, BERLIN, reported).open
    assert zone_of(reported, "Nowhere/Else") == ZoneInfo("UTC")


def test_a_window_whose_tick_is_left_out_in_spring_opens_right_after_the_gap() -> None:
    # On 2026-03-29 the clocks of Berlin go from 02:00 to 03:00.
    night = (window("30 2 * * *", 1),)
    before = opening(night, at("2026-03-29T01:59", BERLIN), BERLIN, None)
    assert (before.open, before.opens_at) == (False, at("2026-03-29T03:00", BERLIN))
    assert opening(night, at("2026-03-29T03:00", BERLIN), BERLIN, None).open
    assert opening(night, at("2026-03-29T03:59", BERLIN), BERLIN, None).open
    assert not opening(night, at("2026-03-29T04:00", BERLIN), BERLIN, None).open


def test_a_window_whose_tick_comes_twice_in_autumn_opens_once() -> None:
    # On 2026-10-25 the clocks of Berlin go from 03:00 back to 02:00.
    night = (window("30 2 * * *", 0.5),)
    assert opening(night, at("2026-10-25T02:45", BERLIN), BERLIN, None).open
    second = opening(night, at("2026-10-25T02:45", BERLIN, fold=1), BERLIN, None)
    assert (second.open, second.opens_at) == (False, at("2026-10-26T02:30", BERLIN))


def test_a_window_lasts_as_many_real_seconds_over_a_change_of_the_clocks() -> None:
    long = (window("0 0 * * *", 6),)
    assert opening(long, at("2026-10-25T04:59", BERLIN), BERLIN, None).open
    assert not opening(long, at("2026-10-25T05:00", BERLIN), BERLIN, None).open
    assert opening(long, at("2026-03-29T06:59", BERLIN), BERLIN, None).open
    assert not opening(long, at("2026-03-29T07:00", BERLIN), BERLIN, None).open


def test_the_end_of_the_last_window_decides_whether_what_runs_may_finish() -> None:
    both = (window("0 1 * * *", 1, on_end="pause"), window("0 3 * * *", 1, on_end="finish"))
    assert opening(both, at("2026-06-01T02:30"), "UTC", None).on_end == "pause"
    assert opening(both, at("2026-06-01T04:30"), "UTC", None).on_end == "finish"


def test_a_window_that_never_opens_again_has_no_next_opening() -> None:
    shut = opening((window("0 0 29 2 *", 1),), at("2026-06-01T00:00"), "UTC", None)
    assert (shut.open, shut.opens_at) == (False, None)


@settings(max_examples=examples(150))
@given(
    st.sampled_from(["0 1 * * *", "30 2 * * *", "*/20 * * * *", "15 */5 * * *", "0 23 * * SUN", "45 2 * * *"]),
    st.integers(1, 8).map(lambda half_hours: half_hours * 0.5),
    st.sampled_from([BERLIN, "America/New_York", "Australia/Lord_Howe", "UTC"]),
    st.sampled_from(["2026-03-07", "2026-03-28", "2026-10-03", "2026-10-24", "2026-10-31", "2026-04-04"]),
    st.integers(0, 3 * 24 * 60),
)
def test_a_window_is_open_exactly_within_its_seconds_after_a_tick(
    cron: str, hours: float, zone: str, day: str, minutes: int
) -> None:
    now = at(f"{day}T00:00") + 60.0 * minutes + 7
    local = datetime.fromtimestamp(now, UTC).astimezone(ZoneInfo(zone)) - timedelta(days=9)
    ticks: list[float] = []
    for tick in CronSim(cron, local):
        ticks.append(tick.timestamp())
        if ticks[-1] > now + 3 * 86_400:
            break
    found = opening((window(cron, hours),), now, zone, None)
    assert found.open == any(tick <= now < tick + hours * HOUR for tick in ticks)
    if not found.open:
        assert found.opens_at == min((tick for tick in ticks if tick > now), default=found.opens_at)
