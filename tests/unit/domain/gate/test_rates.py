"""GCRA keeps a rate exactly, from below one a minute to many a second."""

from bisect import bisect_left

from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.domain.gate.rates import IDLE_CREDIT, cost_of, free_at, taken
from tests.support.examples import examples

START = 1_761_999_896.0


def taken_at(asked_at: list[float], cost: float) -> list[float]:
    tat: float | None = None
    events: list[float] = []
    for now in asked_at:
        if free_at(tat, now, cost) <= now:
            tat = taken(tat, now, cost)
            events.append(now)
    return events


@settings(max_examples=examples(200))
@given(
    st.lists(st.floats(0.0, 40.0), min_size=1, max_size=200),
    st.integers(1, 200),
    st.sampled_from([1.0, 60.0, 1200.0]),
)
def test_no_span_of_time_has_more_events_than_the_rate_and_the_credit_allow(
    gaps: list[float], count: int, seconds: float
) -> None:
    cost = cost_of(count, seconds)
    asked_at = [START]
    for gap in gaps:
        asked_at.append(asked_at[-1] + gap)
    events = taken_at(asked_at, cost)
    for first, begin in enumerate(events):
        for last in range(first, len(events)):
            span = events[last] - begin
            assert (last - first) * cost <= span + IDLE_CREDIT + 1e-3


def test_a_rate_that_is_asked_for_every_second_is_used_up() -> None:
    events = taken_at([START + second for second in range(3_600)], cost_of(7, 60.0))
    assert abs(len(events) - 420) <= 2


def test_a_rate_below_one_a_minute_has_one_event_in_each_of_its_spans() -> None:
    events = taken_at([START + second for second in range(4 * 1_200 + 1)], cost_of(1, 1_200.0))
    assert [at - START for at in events] == [0.0, 1_200.0, 2_400.0, 3_600.0, 4_800.0]


def test_a_higher_rate_holds_from_the_next_event_on() -> None:
    slow = taken(None, START, cost_of(1, 1_200.0))
    assert free_at(slow, START, cost_of(1, 1_200.0)) == START + 1_200
    assert free_at(slow, START, cost_of(60, 60.0)) == START + 1


def test_an_idle_rate_saves_up_no_more_than_its_credit() -> None:
    tat = taken(None, START, 1.0)
    later = START + 86_400
    burst = 0
    while free_at(tat, later, 1.0) <= later:
        tat = taken(tat, later, 1.0)
        burst += 1
    assert burst == IDLE_CREDIT + 1


def test_the_events_of_an_hour_lie_within_one_part_in_ten_of_the_rate() -> None:
    events = taken_at([START + 0.9 * tick for tick in range(4_000)], cost_of(50, 60.0))
    for minute in range(1, 59):
        begin = START + 60.0 * minute
        assert abs(bisect_left(events, begin + 60) - bisect_left(events, begin) - 50) <= 5
