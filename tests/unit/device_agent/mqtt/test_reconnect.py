"""The pause before a reconnect: random, and bounded."""

import pytest

from device_agent.mqtt.reconnect import ReconnectBackoff


def test_the_span_doubles_up_to_a_minute() -> None:
    backoff = ReconnectBackoff(chance=lambda: 1.0)
    assert [backoff.next() for _ in range(9)] == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_the_pause_is_a_random_part_of_the_span() -> None:
    backoff = ReconnectBackoff(chance=lambda: 0.25)
    assert [backoff.next() for _ in range(3)] == [0.25, 0.5, 1.0]


def test_a_stable_connection_resets_the_backoff() -> None:
    backoff = ReconnectBackoff(chance=lambda: 1.0)
    for _ in range(8):
        backoff.next()
    assert backoff.next(stable=True) == 1.0


@pytest.mark.parametrize(("chance", "seconds"), [(0.0, 30.0), (1.0, 60.0)])
def test_a_permanent_failure_waits_at_least_half_of_the_longest_time(chance: float, seconds: float) -> None:
    assert ReconnectBackoff(chance=lambda: chance).next(permanent=True) == seconds


def test_a_year_of_failures_does_not_overflow() -> None:
    backoff = ReconnectBackoff(chance=lambda: 1.0)
    assert {backoff.next() for _ in range(100_000)} <= {1, 2, 4, 8, 16, 32, 60}
