"""The gate's word: one order of refusals, the size of a grant, the turns of waiters."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from control_plane.domain.gate.devices import DeviceFacts, Room
from control_plane.domain.gate.gate import (
    LAST_TURN,
    MAX_GRANT,
    TURN,
    Facts,
    Opening,
    Permit,
    Turn,
    Wait,
    Want,
    allowance,
    may_grant,
)
from control_plane.domain.reasons import ReasonCode
from schemas.parts import MIB
from tests.support.examples import examples

NOW = 1_761_999_896.0
DISPATCH = Want(NOW, begins=True)
GRANT = Want(NOW, begins=False, part=5 * MIB)
SPENT = Room(0, whole=False, resets_at=NOW + 60, code=ReasonCode.DEVICE_BUDGET, cap="5 bytes a day")

REFUSALS: Mapping[ReasonCode, Mapping[str, Any]] = {
    ReasonCode.JOB_ENDED: {"ending": True},
    ReasonCode.JOB_PAUSED: {"paused": True},
    ReasonCode.APPROVAL_PENDING: {"unapproved": True},
    ReasonCode.OUTSIDE_WINDOW: {"windows": Opening(open=False, opens_at=NOW + 60)},
    ReasonCode.STAGE_NOT_REACHED: {"in_stage": False},
    ReasonCode.DISPATCH_RATE: {"dispatch_free_at": NOW + 1},
    ReasonCode.RUNNING_CAP: {"running": 3, "max_running": 3},
    ReasonCode.BUDGET_SPENT: {"turns": (Turn("site=berlin", MIB, NOW + 5),)},
    ReasonCode.DEVICE_BUDGET: {"device": DeviceFacts((SPENT,))},
    ReasonCode.CLIENT_QUOTA: {"over_quota": "the client has 8 open uploads"},
}
"""What refuses, in the order in which it is asked."""

OF_ROLLOUT = {ReasonCode.STAGE_NOT_REACHED, ReasonCode.DISPATCH_RATE, ReasonCode.RUNNING_CAP, ReasonCode.CLIENT_QUOTA}


def refused(want: Want, *codes: ReasonCode) -> str | None:
    facts: dict[str, Any] = {}
    for code in codes:
        facts |= REFUSALS[code]
    answer = may_grant(want, Facts(**facts))
    return answer.reason.code if isinstance(answer, Wait) else None


@pytest.mark.parametrize("code", REFUSALS)
def test_each_refusal_alone_is_the_reason(code: ReasonCode) -> None:
    assert refused(DISPATCH, code) == code
    assert refused(GRANT, code) == (None if code in OF_ROLLOUT else code)


@given(st.sets(st.sampled_from(list(REFUSALS)), min_size=1))
def test_the_first_refusal_in_order_is_the_reason(codes: set[ReasonCode]) -> None:
    first = next(code for code in REFUSALS if code in codes)
    assert refused(DISPATCH, *codes) == first


def test_an_open_gate_lets_a_dispatch_pass_and_grants_64_mib() -> None:
    assert may_grant(DISPATCH, Facts()) == Permit()
    assert may_grant(GRANT, Facts()) == Permit(MAX_GRANT)


def test_a_part_that_is_larger_than_any_grant_is_granted_whole() -> None:
    assert may_grant(replace(GRANT, part=100 * MIB), Facts()) == Permit(100 * MIB)


def test_after_a_window_what_runs_may_finish_if_the_window_allows_it() -> None:
    shut = Facts(windows=Opening(open=False, opens_at=NOW + 60, on_end="finish"))
    assert isinstance(may_grant(GRANT, shut), Permit)
    assert isinstance(may_grant(DISPATCH, shut), Wait)


def test_a_wait_names_when_to_ask_again() -> None:
    def wake(code: ReasonCode) -> float | None:
        answer = may_grant(DISPATCH, Facts(**REFUSALS[code]))
        assert isinstance(answer, Wait)
        return answer.wake_at

    assert wake(ReasonCode.OUTSIDE_WINDOW) == NOW + 60
    assert wake(ReasonCode.DISPATCH_RATE) == NOW + 1
    assert wake(ReasonCode.BUDGET_SPENT) == NOW + 5
    assert wake(ReasonCode.JOB_PAUSED) is None


def test_a_grant_under_several_budgets_has_the_size_and_the_rate_of_the_smallest() -> None:
    turns = (Turn("model=pi4", 2 * MIB, NOW), Turn("site=berlin", MIB, NOW - 3))
    assert may_grant(GRANT, Facts(turns=turns)) == Permit(10 * MIB, MIB, 10.0)


def test_a_grant_waits_for_the_last_of_its_budgets() -> None:
    turns = (Turn("a=1", MIB, NOW + 3), Turn("b=2", MIB, NOW + 1, ahead=2))
    answer = may_grant(GRANT, Facts(turns=turns))
    assert isinstance(answer, Wait)
    assert answer.wake_at == NOW + 1 + 2 * TURN
    assert "b=2" in answer.reason.text


@settings(max_examples=examples(100))
@given(st.integers(1, 2**40), st.lists(st.integers(1, 2**40), max_size=4))
def test_a_grant_is_never_smaller_than_a_part_nor_larger_than_both_limits(part: int, rates: list[int]) -> None:
    size = allowance(part, tuple(rates))
    assert part <= size <= max(part, MAX_GRANT)
    assert all(size <= max(part, 10 * rate) for rate in rates)


@given(st.integers(0, 50))
def test_a_waiter_further_back_never_has_its_turn_sooner(ahead: int) -> None:
    turn = Turn("site=berlin", MIB, NOW, ahead)
    assert turn.begins_at < replace(turn, ahead=ahead + 1).begins_at
    assert ahead > LAST_TURN or turn.begins_at == NOW + TURN * ahead
