"""The limits of a device: what may begin, what is told, and what is read how often."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import pytest

from device_agent.bootstrap import rules_of
from device_agent.limits.conditions import battery_percent, load_per_processor
from device_agent.limits.limits import LOOK_EVERY, Limits, Readings, Rules
from device_agent.settings import load_settings
from device_agent.system_info import disk_space

Value = TypeVar("Value")
NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)


@dataclass
class Device:
    """What the readings show."""

    wall: float = NOON.timestamp()
    metered: bool | None = None
    free: int | None = 1000
    battery: int | None = None
    load: float | None = 0.1
    asked: list[str] = field(default_factory=list)

    def limits(self, **rules: object) -> Limits:
        return Limits(Rules(**rules), "UTC", self.readings())  # type: ignore[arg-type]

    def read(self, what: str, shown: Value) -> Value:
        self.asked.append(what)
        return shown

    def readings(self) -> Readings:
        return Readings(
            wall=lambda: self.wall,
            link_is_metered=lambda: self.read("link", self.metered),
            free_disk=lambda: self.read("disk", self.free),
            battery_percent=lambda: self.battery,
            load=lambda: self.load,
        )


def code(reason: str | None) -> str | None:
    return None if reason is None else reason.partition(":")[0]


def test_without_a_rule_everything_may_begin_and_nothing_is_written() -> None:
    limits = Limits()
    limits.begin(10)
    limits.end(10, 10)
    assert (limits.enabled, limits.reason(2**40), limits.never(2**40)) == (False, None, None)
    assert limits.unwritten(others=True) is None
    assert limits.report(0.0) is None


def test_a_part_begins_only_where_the_cap_has_room_for_all_of_it() -> None:
    limits = Device().limits(day=100)
    limits.look(0.0, wanted=True)
    limits.begin(60)
    assert limits.reason(40) is None
    reason = limits.reason(41)
    assert reason == (
        "device_budget: 60 of 100 bytes of this day are used (BYTES_PER_DAY); the next part has 41 bytes; "
        "the next day begins at 2026-11-28T00:00:00+00:00"
    )
    limits.end(60, 10)
    assert limits.reason(41) is None


def test_the_next_day_gives_room_again() -> None:
    device = Device()
    limits = device.limits(day=100, month=1000)
    limits.look(0.0, wanted=True)
    limits.begin(100)
    assert code(limits.reason(1)) == "device_budget"
    limits.end(100, 100)
    device.wall += 86_400
    limits.look(1.0, wanted=True)
    assert limits.reason(100) is None
    month = limits.budget().month
    assert month is not None
    assert month.used == 100


def test_a_metered_cap_counts_only_metered_links() -> None:
    device = Device(metered=True)
    limits = device.limits(metered_day=100)
    limits.look(0.0, wanted=True)
    limits.begin(100)
    limits.end(100, 100)
    assert code(limits.reason(1)) == "device_metered"
    device.metered = False
    limits.look(LOOK_EVERY, wanted=True)
    assert limits.reason(1000) is None
    limits.begin(50)
    limits.end(50, 50)
    budget = limits.budget()
    assert budget.metered_day is not None
    assert (budget.metered_day.used, budget.metered, budget.holds) == (100, False, ())


def test_a_cap_of_nothing_sends_nothing_over_a_metered_link() -> None:
    limits = Device().limits(metered_day=0, metered=True)
    limits.look(0.0, wanted=True)
    assert code(limits.reason(1)) == "device_metered"
    assert limits.never(1) is None


@pytest.mark.parametrize(
    ("rules", "shown", "expected"),
    [
        ({"disk_free": 2000}, {}, "device_disk"),
        ({"disk_free": 2000}, {"free": None}, None),
        ({"battery": 20}, {"battery": 19}, "device_battery"),
        ({"battery": 20}, {"battery": 20}, None),
        ({"battery": 20}, {}, None),
        ({"load": 1.5}, {"load": 1.6}, "device_load"),
        ({"load": 1.5}, {"load": None}, None),
    ],
)
def test_a_condition_holds_uploads_back(rules: dict[str, object], shown: dict[str, float], expected: str) -> None:
    limits = Device(**shown).limits(**rules)  # type: ignore[arg-type]
    limits.look(0.0, wanted=True)
    assert code(limits.reason(1)) == expected
    assert limits.budget().holds == ((expected,) if expected else ())


def test_the_device_is_read_once_a_minute_and_only_while_an_upload_wants_to_go_on() -> None:
    device = Device()
    limits = device.limits(metered_day=100, disk_free=10)
    for second in range(100):
        limits.look(float(second), wanted=False)
    assert device.asked == []
    for second in range(150):
        limits.look(100.0 + second, wanted=True)
    assert device.asked == ["disk", "link"] * 3


def test_an_agent_at_rest_reports_no_condition_and_no_link() -> None:
    """An owner that waited for these would wait for ever: nothing is looked at."""
    limits = Device(free=0).limits(metered_day=0, metered=True, disk_free=10)
    limits.look(0.0, wanted=True)
    assert limits.budget().holds == ("device_metered", "device_disk")
    limits.look(1.0, wanted=False)
    assert limits.budget().holds == ()


def test_the_report_changes_at_most_once_a_minute() -> None:
    limits = Device().limits(day=100)
    limits.look(0.0, wanted=True)
    reports = []
    for second in range(0, 180, 10):
        limits.begin(1)
        limits.end(1, 1)
        reports.append(limits.report(float(second)))
    assert len({report.day.used for report in reports if report is not None and report.day is not None}) == 3


@pytest.mark.parametrize(("rules", "size"), [({"day": 10}, 11), ({"month": 10}, 11)])
def test_a_part_that_no_day_has_room_for_can_never_begin(rules: dict[str, int], size: int) -> None:
    limits = Device().limits(**rules)
    assert "one part has 11 bytes, and this device sends 10 in a whole" in (limits.never(size) or "")
    assert limits.never(10) is None


def test_a_record_is_due_before_a_part_and_with_other_records_only() -> None:
    limits = Device().limits(day=100)
    limits.look(0.0, wanted=True)
    assert limits.unwritten(others=False) is None
    limits.begin(10)
    record = limits.unwritten(others=False)
    assert record is not None
    assert record.bytes_day == 10
    limits.end(10, 4)
    assert limits.unwritten(others=False) is None
    after = limits.unwritten(others=True)
    assert after is not None
    assert after.bytes_day == 4


def test_the_rules_are_those_of_the_settings() -> None:
    given = {"CLIENT_ID": "d", "BYTES_PER_DAY": "1", "METERED": "no", "MAX_LOAD": "2", "MIN_DISK_FREE": "3"}
    assert rules_of(load_settings(given)) == Rules(day=1, metered=False, load=2.0, disk_free=3)
    assert rules_of(load_settings({"CLIENT_ID": "d"})) == Rules()


def test_outside_of_its_hours_a_device_begins_no_part() -> None:
    device = Device()
    limits = device.limits(hours=((22 * 60, 6 * 60),))
    limits.look(0.0, wanted=True)
    reason = limits.reason(1) or ""
    assert code(reason) == "device_hours"
    assert "it is 12:00, and this device sends at 22:00-06:00" in reason
    assert limits.budget().holds == ("device_hours",)
    device.wall += 11 * 3600
    limits.look(LOOK_EVERY, wanted=True)
    assert limits.reason(1) is None
    device.wall = 0.0
    limits.look(2 * LOOK_EVERY, wanted=True)
    assert "clock of the device is not set" in (limits.reason(1) or "")


def supply(folder: Path, name: str, **values: str) -> None:
    (folder / name).mkdir()
    for key, value in values.items():
        (folder / name / key).write_text(f"{value}\n")


def test_the_battery_is_the_lowest_that_feeds_the_device_and_is_not_charged(tmp_path: Path) -> None:
    assert battery_percent(str(tmp_path / "none")) is None
    supply(tmp_path, "AC", type="Mains", online="0")
    supply(tmp_path, "mouse", type="Battery", scope="Device", capacity="3", status="Discharging")
    supply(tmp_path, "odd", type="Battery", capacity="", status="Discharging")
    assert battery_percent(str(tmp_path)) is None
    supply(tmp_path, "BAT0", type="Battery", capacity="40", status="Discharging")
    supply(tmp_path, "BAT1", type="Battery", capacity="30", status="Not charging")
    supply(tmp_path, "BAT2", type="Battery", capacity="20", status="Charging")
    assert battery_percent(str(tmp_path)) == 30


def test_this_machine_shows_its_load_and_its_disk(tmp_path: Path) -> None:
    load = load_per_processor()
    assert load is not None
    assert load >= 0.0
    assert (disk_space(str(tmp_path))[1] or 0) > 0
    assert disk_space(str(tmp_path / "none")) == (None, None)
