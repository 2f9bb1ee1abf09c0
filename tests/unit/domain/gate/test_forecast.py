"""The forecast of a dry run: who would pass which cap, and on which day."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from control_plane.domain.gate.forecast import NAMED, Crossing, forecast
from schemas.parts import MIB
from schemas.values import BudgetUse, DeviceBudget

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp()
DAY = 86_400.0
NEXT_MONTH = datetime(2026, 12, 1, tzinfo=UTC)
TOMORROW = datetime(2026, 11, 21, tzinfo=UTC)


def of_month(used: int, cap: int = 100 * MIB) -> DeviceBudget:
    """Bytes of this month."""
    return DeviceBudget(month=BudgetUse(cap, used, NEXT_MONTH))


def test_devices_are_counted_on_the_day_whose_tick_would_pass_their_cap() -> None:
    """30 MiB a day from the 21st on; 100 MiB a month, of which some have used a part."""
    ticks = [NOW + n * DAY for n in range(1, 20)]
    fleet = {f"till-{n:02}": of_month(20 * MIB) for n in range(14)} | {
        "van": of_month(80 * MIB),
        "shop": of_month(0, 10**12),
    }
    sent = dict.fromkeys(fleet, 30.0 * MIB)
    found = forecast(fleet, sent, None, ticks, NOW, UTC)
    assert found.crossings == (
        Crossing("2026-11-21", "month", 1, ("van",)),
        Crossing("2026-11-23", "month", 14, tuple(f"till-{n:02}" for n in range(NAMED))),
    )
    assert (found.limited, found.by_history, found.by_limit, found.unknown) == (16, 16, 0, 0)
    # Ten ticks until December for each.
    assert found.bytes == 16 * 10 * 30 * MIB


def test_a_cap_that_is_reset_before_the_sum_is_reached_is_not_passed() -> None:
    daily = {"till": DeviceBudget(day=BudgetUse(50 * MIB, 10 * MIB, TOMORROW))}
    ticks = [NOW + n * 3_600 for n in range(1, 48)]
    assert forecast(daily, {"till": 3.0 * MIB}, None, ticks, NOW, UTC).crossings == ()
    (crossing,) = forecast(daily, {"till": 4.0 * MIB}, None, ticks, NOW, UTC).crossings
    assert (crossing.date, crossing.period) == ("2026-11-20", "day")


def test_the_day_is_that_of_the_zone_of_the_job() -> None:
    fleet = {"till": of_month(100 * MIB)}
    found = forecast(fleet, {"till": 1.0}, None, [NOW + 8 * 3_600], NOW, ZoneInfo("Asia/Tokyo"))
    assert [one.date for one in found.crossings] == ["2026-11-21"]


def test_a_device_without_a_past_is_expected_to_send_as_much_as_the_others_or_else_the_most_that_it_may() -> None:
    fleet = {name: of_month(95 * MIB) for name in ("a", "b")}
    found = forecast(fleet, {"a": 6.0 * MIB}, None, [NOW], NOW, UTC)
    assert [one.first for one in found.crossings] == [("a", "b")]
    assert forecast(fleet, {"a": 6.0 * MIB}, 2 * MIB, [NOW], NOW, UTC).crossings == ()
    by_limit = forecast(fleet, {}, 6 * MIB, [NOW], NOW, UTC)
    assert (by_limit.by_limit, by_limit.bytes, len(by_limit.crossings)) == (2, 12 * MIB, 1)
    unknown = forecast(fleet, {}, None, [NOW], NOW, UTC)
    assert (unknown.unknown, unknown.bytes, unknown.crossings) == (2, 0, ())


def test_a_device_whose_period_has_ended_starts_with_nothing_used() -> None:
    before = DeviceBudget(day=BudgetUse(10, 10, datetime.fromtimestamp(NOW - 60, UTC)))
    assert forecast({"till": before}, {"till": 10.0}, None, [NOW], NOW, UTC).crossings == ()


def test_a_cap_that_the_ticks_use_up_exactly_is_not_passed() -> None:
    fleet, ticks = {"till": of_month(70 * MIB)}, [NOW + n * DAY for n in range(1, 5)]
    assert forecast(fleet, {"till": 10.0 * MIB}, None, ticks[:3], NOW, UTC).crossings == ()
    (crossing,) = forecast(fleet, {"till": 10.0 * MIB}, None, ticks, NOW, UTC).crossings
    assert crossing.date == "2026-11-24"
    assert forecast(fleet, {"till": 0.0}, None, ticks, NOW, UTC).crossings == ()


def test_the_forecast_of_a_large_fleet_does_not_look_at_each_tick_of_each_device() -> None:
    class Counted(list[float]):
        read = 0

        def __iter__(self) -> Iterator[float]:
            Counted.read += len(self)
            return super().__iter__()

        def __getitem__(self, at: Any) -> Any:  # noqa: ANN401 - as of any list
            Counted.read += 1
            return super().__getitem__(at)

    ticks = Counted(NOW + n * 600 for n in range(1_000))
    fleet = {f"till-{n}": of_month(0) for n in range(100)}
    forecast(fleet, dict.fromkeys(fleet, 1.0), None, ticks, NOW, UTC)
    assert 0 < Counted.read < len(ticks) * len(fleet) / 10
