"""Hundreds of seeded histories of jobs: what must always hold of them holds at every commit, under every fault.

Rule: a seed determines its history. A failure shows how to replay it.
"""

import os
import subprocess
import sys
from collections import Counter

import pytest

from tests.simulation.jobs.history import FAULTS, play_jobs

CHUNK = 20
SEEDS = 200
QUIET = frozenset(FAULTS)

pytestmark = pytest.mark.timeout(300)


def play_all(seeds: range) -> tuple[Counter[str], int]:
    """How the executions of these histories ended, and how often a control plane died at a commit."""
    ended, deaths = Counter[str](), 0
    for seed in seeds:
        result = play_jobs(seed)
        ended.update(result.executions)
        deaths += result.deaths
    return ended, deaths


def test_what_must_hold_of_jobs_holds_in_a_few_histories() -> None:
    ended, _ = play_all(range(3))
    assert ended["succeeded"], ended


@pytest.mark.slow
@pytest.mark.parametrize("first", range(CHUNK, SEEDS, 3 * CHUNK))
def test_what_must_hold_of_jobs_holds_in_every_history(first: int) -> None:
    ended, deaths = play_all(range(first, first + CHUNK))
    assert ended["succeeded"] > CHUNK, ended
    assert deaths > 0


@pytest.mark.slow
def test_without_faults_no_execution_of_an_honest_device_fails_for_another_reason_than_its_files() -> None:
    for seed in range(5):
        result = play_jobs(seed, QUIET)
        assert set(result.executions) <= {"succeeded", "failed", "partial", "skipped", "cancelled", "timed_out"}
        assert result.deaths == 0


@pytest.mark.slow
def test_a_seed_gives_the_same_history_of_jobs_in_every_process() -> None:
    command = [sys.executable, "-m", "tests.simulation.jobs", "--seed", "3", "--trace"]
    traces = [
        subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True).stdout
        for seed in ("1", "2")
    ]
    assert traces[0].count(b"\n") > 20
    assert traces[0] == traces[1]
