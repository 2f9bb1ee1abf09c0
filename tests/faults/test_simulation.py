"""Thousands of seeded histories of the whole system: every promise holds in each, under every fault.

Rule: a seed determines its history. A failure shows how to replay it.
"""

import asyncio
import os
import subprocess
import sys
from collections import Counter

import pytest

from tests.simulation.history import History, play, played
from tests.simulation.world import FAULTS

SEEDS = 2_000
CHUNK = 100
QUIET = frozenset(FAULTS)
AWAY = 30 * 3600.0

# All the work is processor time, so it takes long on a busy machine.
pytestmark = pytest.mark.timeout(600)


def play_all(seeds: range) -> Counter[str]:
    """How the uploads of these histories ended."""
    states: Counter[str] = Counter()
    for seed in seeds:
        states.update(play(seed).states)
    return states


@pytest.mark.parametrize(
    "first", [0, *(pytest.param(first, marks=pytest.mark.slow) for first in range(CHUNK, SEEDS, CHUNK))]
)
def test_every_promise_holds_in_every_history(first: int) -> None:
    states = play_all(range(first, first + CHUNK))
    assert states["completed"] > 0.8 * states.total(), states


@pytest.mark.slow
def test_without_faults_every_upload_completes_soon() -> None:
    for seed in range(100):
        result = play(seed, QUIET)
        assert set(result.states) == {"completed"}
        assert result.calm_for < 600.0


class BrokerAway(History):
    """The broker is gone for 30 hours from a moment at which a device works on an upload.

    That is longer than `give_up_after`, a day by default: an owner is not silent while it cannot be reached.
    """

    struck = False

    async def _wait(self, seconds: float) -> None:
        until = self.world.now() + seconds
        while not self.busy and self.world.now() < until:  # noqa: ASYNC110 - a device has no event; time is virtual
            await asyncio.sleep(0.5)
        self.struck = self.busy
        self.broker.stop(forgets=False)
        await super()._wait(AWAY)
        self.broker.start()
        await super()._wait(seconds)


@pytest.mark.slow
def test_a_broker_that_is_gone_for_more_than_a_day_costs_no_upload() -> None:
    struck = 0
    for seed in range(10):
        history = BrokerAway(seed, QUIET)
        result = played(history, seed, QUIET)
        assert set(result.states) == {"completed"}, (seed, result.states)
        struck += history.struck
    assert struck > 5


@pytest.mark.slow
def test_a_seed_gives_the_same_history_in_every_process() -> None:
    command = [sys.executable, "-m", "tests.simulation", "--trace", "--from", "40", "--count", "4"]
    traces = [
        subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True).stdout
        for seed in ("1", "2")
    ]
    assert traces[0].count(b"\n") > 100
    assert traces[0] == traces[1]
