"""Token buckets, and the budget of one client."""

from control_plane.services import budget
from control_plane.services.budget import MESSAGES, NOISY_FOR, Buckets, IngestBudget, Limit
from schemas.codec import MAX_MESSAGE_SIZE
from schemas.topics import Channel
from tests.support.fakes import FakeClock


def test_a_bucket_gives_its_burst_at_once_and_then_its_rate() -> None:
    clock = FakeClock()
    buckets = Buckets(clock.monotonic, Limit(rate=2, burst=3))
    assert [buckets.take("a") for _ in range(4)] == [True, True, True, False]
    clock.time += 1
    assert [buckets.take("a") for _ in range(3)] == [True, True, False]
    clock.time += 1_000
    assert [buckets.take("a") for _ in range(4)] == [True, True, True, False]


def test_what_is_refused_takes_nothing() -> None:
    buckets = Buckets(FakeClock().monotonic, Limit(rate=0, burst=10))
    assert not buckets.take("a", 11)
    assert buckets.take("a", 10)


def test_names_do_not_share_a_bucket_and_their_number_is_bounded() -> None:
    clock = FakeClock()
    buckets = Buckets(clock.monotonic, Limit(rate=0, burst=1))
    for number in range(budget.MAX_NAMES + 10):
        assert buckets.take(number)
    assert len(buckets._levels) == budget.MAX_NAMES


def test_a_client_over_its_budget_is_noisy_for_a_while_and_costs_no_other() -> None:
    clock = FakeClock()
    ingest = IngestBudget(clock)
    taken = sum(ingest.take("loud", Channel.STATUS, 100) for _ in range(1_000))
    assert taken == MESSAGES[Channel.STATUS].burst
    assert ingest.take("good", Channel.STATUS, 100)
    assert ingest.take("loud", Channel.RESPONSE, 100)
    assert (ingest.noisy("loud"), ingest.noisy("good")) == (True, False)
    clock.time += NOISY_FOR
    assert not ingest.noisy("loud")


def test_large_messages_are_limited_by_their_bytes() -> None:
    ingest = IngestBudget(FakeClock())
    assert sum(ingest.take("loud", Channel.RESPONSE, MAX_MESSAGE_SIZE) for _ in range(1_000)) == 256


def test_an_agent_with_every_upload_it_can_hold_is_never_over_its_budget() -> None:
    """An hour: a reconnect with 256 open and 4,096 ended uploads, a full status a second, 16 requests a second."""
    clock = FakeClock()
    ingest = IngestBudget(clock)
    within = [ingest.take("busy", Channel.RESPONSE, 7_000) for _ in range(256 + 4_096 + 10)]
    for second in range(3_600):
        clock.time += 1
        within.append(ingest.take("busy", Channel.STATUS, 96 * 1024))
        within.extend(ingest.take("busy", Channel.RESPONSE, 10_000) for _ in range(16))
        if second % 30 == 0:
            within.append(ingest.take("busy", Channel.PRESENCE, 2_000))
    assert all(within)


def test_the_statuses_that_a_network_held_back_for_a_minute_are_within_the_budget() -> None:
    ingest = IngestBudget(FakeClock())
    assert all(ingest.take("late", Channel.STATUS, 96 * 1024) for _ in range(60))


def test_a_bucket_that_is_full_again_takes_no_memory() -> None:
    """Most clients are calm: ten thousand of them leave next to nothing behind, and a loud one keeps its level."""
    now = [0.0]
    buckets = Buckets(lambda: now[0], Limit(rate=1, burst=4))
    for _ in range(4):
        assert buckets.take("loud")
    for number in range(10_000):
        now[0] += 0.0001
        buckets.take(f"calm-{number}")
    assert not buckets.take("loud", 2.0)
    now[0] += 1.5
    for number in range(10_000):
        buckets.take(f"other-{number}")
    assert len(buckets._levels) <= 10_001
    assert buckets.take("loud", 2.0)
