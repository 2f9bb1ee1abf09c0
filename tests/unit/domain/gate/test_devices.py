"""What a device may still send: its report, less what was granted since; and no wait without an end."""

from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from control_plane.domain.gate.devices import (
    LEDGER_LIFE,
    LONGEST_PERIOD,
    Ledger,
    Paid,
    charged,
    concerns_grants,
    eases,
    facts_of,
    settled,
)
from control_plane.domain.gate.gate import MAX_GRANT, Facts, Permit, Wait, Want, may_grant
from control_plane.domain.reasons import ReasonCode
from schemas.parts import MIB
from schemas.values import BudgetUse, DeviceBudget

NOW = 1_761_999_896.0
MIDNIGHT = NOW + 3_600.0
PART = 5 * MIB
EMPTY = Ledger()


def use(cap: int, used: int = 0, resets_at: float | None = MIDNIGHT) -> BudgetUse:
    """A cap of a device."""
    return BudgetUse(cap, used, None if resets_at is None else datetime.fromtimestamp(resets_at, UTC))


def asked(budget: DeviceBudget | None, ledger: Ledger = EMPTY, *, at: float = NOW, part: int = PART) -> Permit | Wait:
    """The gate's decision about a grant."""
    return may_grant(Want(at, begins=False, part=part), Facts(device=facts_of(budget, ledger, at)))


def begins(budget: DeviceBudget, ledger: Ledger = EMPTY, *, at: float = NOW) -> Permit | Wait:
    """The gate's decision about an execution that would begin."""
    return may_grant(Want(at, begins=True), Facts(device=facts_of(budget, ledger, at)))


def refusal(answer: Permit | Wait) -> tuple[str, float | None]:
    """Its code, and when to ask again."""
    assert isinstance(answer, Wait)
    assert not answer.whole_job
    return answer.reason.code, answer.wake_at


def test_a_device_without_caps_is_granted_as_much_as_any() -> None:
    for budget in (None, DeviceBudget(), DeviceBudget(metered_day=use(0))):
        assert asked(budget) == Permit(MAX_GRANT)
        assert not concerns_grants(budget)


def test_a_grant_has_no_more_than_the_smallest_cap_leaves() -> None:
    budget = DeviceBudget(day=use(40 * MIB, 10 * MIB), month=use(100 * MIB, 88 * MIB, MIDNIGHT + 9_000))
    assert asked(budget) == Permit(12 * MIB)


def test_a_part_that_does_not_fit_waits_until_every_cap_that_lacks_room_is_reset() -> None:
    budget = DeviceBudget(day=use(40 * MIB, 38 * MIB), month=use(100 * MIB, 97 * MIB, MIDNIGHT + 9_000))
    assert refusal(asked(budget)) == (ReasonCode.DEVICE_BUDGET, MIDNIGHT + 9_000)
    assert asked(budget, part=2 * MIB) == Permit(2 * MIB)
    daily = replace(budget, month=None)
    assert refusal(asked(daily)) == (ReasonCode.DEVICE_BUDGET, MIDNIGHT)
    assert asked(daily, at=MIDNIGHT) == Permit(40 * MIB)


def test_an_execution_begins_while_a_byte_is_left() -> None:
    assert begins(DeviceBudget(day=use(10, 9))) == Permit()
    assert refusal(begins(DeviceBudget(day=use(10, 10)))) == (ReasonCode.DEVICE_BUDGET, MIDNIGHT)


def test_caps_of_metered_links_hold_on_such_a_link_only() -> None:
    budget = DeviceBudget(metered_day=use(10 * MIB, 10 * MIB))
    assert asked(budget) == Permit(MAX_GRANT)
    assert refusal(asked(replace(budget, metered=True))) == (ReasonCode.DEVICE_METERED, MIDNIGHT)


def test_a_part_larger_than_the_whole_cap_is_left_to_the_device() -> None:
    """Else it would wait for ever."""
    assert asked(DeviceBudget(day=use(MIB))) == Permit(PART)
    assert refusal(asked(DeviceBudget(day=use(MIB, 1)))) == (ReasonCode.DEVICE_BUDGET, MIDNIGHT)


def test_what_was_granted_since_the_report_is_subtracted_until_the_device_reports_it() -> None:
    budget = DeviceBudget(day=use(20 * MIB))
    ledger = charged(budget, Ledger(), Paid("u1", 1, 1, 15 * MIB), NOW)
    assert asked(budget, ledger, at=NOW + 60) == Permit(5 * MIB)
    sent = DeviceBudget(day=use(20 * MIB, 10 * MIB))
    assert asked(sent, ledger, at=NOW + 60) == Permit(5 * MIB)
    ledger = charged(sent, ledger, Paid("u2", 1, 1, 5 * MIB), NOW + 60)
    # What is not sent by then, of an upload that was cancelled, is free again.
    assert refusal(asked(sent, ledger, at=NOW + 61)) == (ReasonCode.DEVICE_BUDGET, NOW + 60 + LEDGER_LIFE)
    assert asked(sent, ledger, at=NOW + 60 + LEDGER_LIFE) == Permit(10 * MIB)


def test_what_other_owners_make_a_device_send_counts_once_it_is_reported() -> None:
    ledger = charged(DeviceBudget(day=use(20 * MIB)), Ledger(), Paid("u1", 1, 1, 5 * MIB), NOW)
    assert asked(DeviceBudget(day=use(20 * MIB, 12 * MIB)), ledger) == Permit(8 * MIB)


def test_what_was_granted_over_midnight_counts_for_the_new_day() -> None:
    before = DeviceBudget(day=use(20 * MIB, 10 * MIB, NOW + 1))
    ledger = charged(before, Ledger(), Paid("u1", 1, 1, 10 * MIB), NOW)
    assert asked(before, ledger, at=NOW + 2) == Permit(10 * MIB)
    assert asked(DeviceBudget(day=use(20 * MIB, 4 * MIB)), ledger, at=NOW + 2) == Permit(10 * MIB)


def test_what_was_reported_before_midnight_is_not_owed_after_it() -> None:
    before = DeviceBudget(day=use(20 * MIB, 0, NOW + 1))
    ledger = charged(before, Ledger(), Paid("u1", 1, 1, 20 * MIB), NOW)
    ledger = settled(DeviceBudget(day=use(20 * MIB, 20 * MIB, NOW + 2)), ledger, NOW + 1)
    assert asked(DeviceBudget(day=use(20 * MIB)), ledger, at=NOW + 3) == Permit(20 * MIB)


def test_what_the_device_holds_back_for_is_the_reason_that_is_shown() -> None:
    full, half = use(10 * MIB, 10 * MIB), use(10 * MIB, 4 * MIB)
    assert refusal(asked(DeviceBudget(holds=("device_battery",)))) == (ReasonCode.DEVICE_BATTERY, None)
    assert refusal(begins(DeviceBudget(holds=("device_load",)))) == (ReasonCode.DEVICE_LOAD, None)
    assert refusal(asked(DeviceBudget(holds=("from_a_later_version",)))) == (ReasonCode.CLIENT_REPORTED, None)
    assert refusal(asked(DeviceBudget(day=half, holds=("device_budget",)))) == (ReasonCode.DEVICE_BUDGET, MIDNIGHT)
    # Its next report comes up to a minute after the reset.
    assert asked(DeviceBudget(day=full, holds=("device_budget",)), at=MIDNIGHT) == Permit(10 * MIB)


def test_a_device_at_its_cap_waits_for_the_reset_of_that_cap_and_not_of_another() -> None:
    next_month = MIDNIGHT + 9 * 86_400
    holds = ("device_budget",)
    of_day = DeviceBudget(day=use(10 * MIB, 10 * MIB), month=use(100 * MIB, 40 * MIB, next_month), holds=holds)
    assert refusal(asked(of_day)) == (ReasonCode.DEVICE_BUDGET, MIDNIGHT)
    assert asked(of_day, at=MIDNIGHT) == Permit(10 * MIB)
    of_month = DeviceBudget(day=use(10 * MIB, 4 * MIB), month=use(40 * MIB, 40 * MIB, next_month), holds=holds)
    assert refusal(asked(of_month)) == (ReasonCode.DEVICE_BUDGET, next_month)
    assert refusal(asked(of_month, at=MIDNIGHT)) == (ReasonCode.DEVICE_BUDGET, next_month)
    # Of a metered link: the cap of all links is not the one that is reached.
    metered = DeviceBudget(
        month=use(40 * MIB, 40 * MIB, NOW - 1), metered_day=use(0), metered=True, holds=("device_metered",)
    )
    assert refusal(asked(metered)) == (ReasonCode.DEVICE_METERED, MIDNIGHT)


def test_a_device_at_rest_whose_link_was_metered_begins_since_it_looks_at_its_link_only_then() -> None:
    """Without that, neither side would ever find out that the device has another link."""
    at_rest = DeviceBudget(metered_month=use(10 * MIB, 10 * MIB, MIDNIGHT + 9 * 86_400), metered=True)
    assert begins(at_rest) == Permit()
    assert refusal(asked(at_rest))[0] == ReasonCode.DEVICE_METERED
    assert refusal(begins(replace(at_rest, holds=("device_metered",))))[0] == ReasonCode.DEVICE_METERED


def test_a_device_whose_clock_is_behind_is_granted_and_decides_itself() -> None:
    """Its day ended a month ago by the right clock, and it does not know that yet."""
    behind = DeviceBudget(day=use(10 * MIB, 10 * MIB, NOW - 30 * 86_400), holds=("device_budget",))
    assert asked(behind) == Permit(10 * MIB)


def test_a_reset_that_no_right_clock_reports_is_not_waited_for() -> None:
    """The device's next report, or the next look, ends the wait."""
    wrong = use(10 * MIB, 10 * MIB, NOW + LONGEST_PERIOD)
    assert refusal(asked(DeviceBudget(day=wrong))) == (ReasonCode.DEVICE_BUDGET, None)
    assert refusal(asked(DeviceBudget(day=wrong, holds=("device_budget",)))) == (ReasonCode.DEVICE_BUDGET, None)
    assert refusal(asked(DeviceBudget(day=use(5, 5, None)))) == (ReasonCode.DEVICE_BUDGET, None)


def test_a_report_that_leaves_more_wakes_what_waits_and_one_that_leaves_less_does_not() -> None:
    at_noon = DeviceBudget(day=use(20, 10), holds=("device_load",))
    assert not eases(None, at_noon)
    assert not eases(at_noon, at_noon)
    assert not eases(at_noon, DeviceBudget(day=use(20, 11), holds=("device_load", "device_disk")))
    assert eases(at_noon, DeviceBudget(day=use(20, 11)))
    assert eases(at_noon, DeviceBudget(day=use(21, 10), holds=("device_load",)))
    assert eases(at_noon, DeviceBudget(holds=("device_load",)))
    assert eases(at_noon, None)
    metered = DeviceBudget(metered_day=use(20, 20), metered=True)
    assert eases(metered, replace(metered, metered=False))


@given(
    cap=st.integers(1, 200 * MIB),
    used=st.integers(0, 200 * MIB),
    asks=st.lists(st.tuples(st.integers(1, 16 * MIB), st.floats(0, 19), st.booleans()), max_size=30),
)
def test_a_device_that_sends_what_it_is_granted_is_never_granted_more_than_its_cap(
    cap: int, used: int, asks: list[tuple[int, float, bool]]
) -> None:
    """But for one part that is larger than the whole cap; and each wait has an end."""
    ledger, now, sent, granted = Ledger(), NOW, used, used
    report: dict[str, Any] = {"day": use(cap, used, NOW + 86_400)}
    for number, (part, pause, reports) in enumerate(asks):
        now += pause
        answer = asked(DeviceBudget(**report), ledger, at=now, part=part)
        if isinstance(answer, Permit):
            size = max(part, answer.bytes or 0)
            alone = granted == 0 and part > cap
            assert alone or granted + size <= cap
            ledger = charged(DeviceBudget(**report), ledger, Paid(f"u{number}", 1, 1, size), now)
            granted += size
        else:
            assert answer.wake_at is not None
            assert now < answer.wake_at <= NOW + 86_400
        if reports:
            sent += (granted - sent) // 2
            report = {"day": use(cap, sent, NOW + 86_400)}
