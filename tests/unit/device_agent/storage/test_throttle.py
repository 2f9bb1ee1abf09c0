"""The token bucket, on a simulated clock."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.storage.throttle import SMOOTH, Throttle


class Clock:
    """A clock that moves only in `sleep`."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def read(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@given(rate=st.integers(1, 10**9), sizes=st.lists(st.integers(0, SMOOTH), max_size=50))
def test_the_rate_is_not_exceeded(rate: int, sizes: list[int]) -> None:
    clock = Clock()
    throttle = Throttle(rate, clock=clock.read, sleep=clock.sleep)
    gone = 0
    for size in sizes:
        throttle.take(size)
        assert gone <= clock.now * rate * (1 + 1e-9) + throttle.piece
        gone += size


def test_the_rate_is_reached() -> None:
    clock = Clock()
    throttle = Throttle(1_000_000, clock=clock.read, sleep=clock.sleep)
    for _ in range(100):
        throttle.take(50_000)
    assert clock.now == pytest.approx(5.0, abs=0.2)


def test_unused_time_is_not_saved_up() -> None:
    clock = Clock()
    throttle = Throttle(1_000_000, clock=clock.read, sleep=clock.sleep)
    clock.now = 3600.0
    for _ in range(20):
        throttle.take(50_000)
    assert clock.now - 3600.0 == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize(("rate", "piece"), [(1, 1024), (8192, 1024), (80_000, 10_000), (10**9, SMOOTH)])
def test_pieces_are_small_at_a_low_rate(rate: int, piece: int) -> None:
    assert Throttle(rate).piece == piece


@pytest.mark.parametrize("rate", [0, -1])
def test_a_rate_of_zero_is_refused(rate: int) -> None:
    with pytest.raises(ValueError, match="never send"):
        Throttle(rate)


def test_concurrent_senders_are_served_in_order() -> None:
    slept: list[float] = []
    throttle = Throttle(1000, clock=lambda: 0.0, sleep=slept.append)
    threads = [threading.Thread(target=throttle.take, args=(100,)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(slept) == pytest.approx([0.1, 0.2, 0.3, 0.4])
