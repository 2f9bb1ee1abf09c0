"""Stages and abort rules, from the counts of a job's executions."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain.jobs.model import ExecutionState, Job
from control_plane.domain.jobs.rollout import abort_rule_met, stage_after, stage_ends_at, stage_size
from control_plane.domain.jobs.spec import AbortRule, Rollout, Stage
from tests.support.gates import START, a_job

SUCCEEDED, FAILED, SKIPPED = ExecutionState.SUCCEEDED, ExecutionState.FAILED, ExecutionState.SKIPPED
LISTING, QUEUED = ExecutionState.LISTING, ExecutionState.QUEUED
CANARY = Stage(percent=1, min=5, advance_at=95, then="pause")


def staged(*stages: Stage, **changes: Any) -> Job:  # noqa: ANN401 - any field
    return a_job(rollout=Rollout(stages=stages), stage_since=START, **changes)


def counted(**counts: int) -> dict[tuple[ExecutionState, str], int]:
    return {(ExecutionState(state), "a"): count for state, count in counts.items()}


@pytest.mark.parametrize(("clients", "first"), [(1_000, 10), (1_001, 11), (100, 5), (3, 3), (0, 0)])
def test_a_stage_has_its_share_of_the_clients_and_at_least_its_minimum(clients: int, first: int) -> None:
    job = staged(CANARY, Stage(percent=100), clients=clients)
    assert [stage_size(job, stage) for stage in (0, 1, 2)] == [first, clients, clients]


def test_seven_percent_of_a_hundred_are_seven() -> None:
    assert stage_size(staged(Stage(percent=7)), 0) == 7


@pytest.mark.parametrize(
    ("counts", "after", "expected"),
    [
        ({"succeeded": 4}, 0.0, None),
        ({"succeeded": 5}, 0.0, "pause"),
        ({"succeeded": 5, "listing": 1}, 0.0, None),
        ({"succeeded": 5, "uploading": 1}, 3_600.0, "pause"),
        ({"succeeded": 5, "queued": 90}, 0.0, "pause"),
        ({"succeeded": 18, "failed": 2}, 9_999.0, None),
        ({"succeeded": 19, "failed": 1}, 0.0, "pause"),
        ({"succeeded": 3, "skipped": 2}, 0.0, "pause"),
        ({"succeeded": 4, "cancelled": 3, "removed": 3}, 9_999.0, None),
    ],
)
def test_a_stage_is_over_when_enough_of_what_ended_went_well(
    counts: dict[str, int], after: float, expected: str | None
) -> None:
    job = staged(CANARY, Stage(percent=100), clients=1_000)
    assert stage_after(job, counted(**counts), START + after) == expected


def test_the_last_stage_and_a_job_without_stages_are_never_over() -> None:
    everything = counted(succeeded=1_000)
    assert stage_after(a_job(), everything, START) is None
    assert stage_after(staged(CANARY, Stage(percent=100), stage=1, clients=1_000), everything, START) is None
    assert stage_after(staged(CANARY, stage=1, clients=1_000), everything, START) is None
    assert stage_after(staged(CANARY, clients=4), everything, START) is None


def test_after_the_last_stage_that_is_not_whole_all_may_begin() -> None:
    job = staged(Stage(percent=50, then="continue"), clients=10)
    assert stage_after(job, counted(succeeded=5), START) == "continue"
    assert stage_size(job, 1) == 10


def test_the_instant_at_which_running_executions_hold_a_stage_no_longer() -> None:
    assert stage_ends_at(staged(CANARY)) == START + 3_600
    assert stage_ends_at(staged(CANARY, stage=1)) is None


@pytest.mark.parametrize(
    ("rule", "counts", "met"),
    [
        (AbortRule("failed", 10, 20), {"failed": 2, "succeeded": 18}, True),
        (AbortRule("failed", 10, 20), {"failed": 2, "succeeded": 17}, False),
        (AbortRule("failed", 10, 20), {"failed": 1, "succeeded": 19}, False),
        (AbortRule("failed", 10, 1), {"timed_out": 5}, False),
        (AbortRule("timed_out", 10, 1), {"timed_out": 5}, True),
        (AbortRule("all", 50, 1), {"failed": 1, "timed_out": 1, "partial": 1, "succeeded": 3}, True),
        (AbortRule("all", 1, 1), {"rejected": 5, "skipped": 5}, False),
        (AbortRule("rejected", 50, 10), {"rejected": 5, "skipped": 5}, True),
        (AbortRule("failed", 1, 1), {"failed": 0, "succeeded": 50}, False),
        (AbortRule("failed", 50, 2), {"failed": 1, "cancelled": 9, "removed": 9}, False),
    ],
)
def test_a_job_is_aborted_when_a_share_of_what_ended_ended_so(
    rule: AbortRule, counts: dict[str, int], *, met: bool
) -> None:
    assert abort_rule_met(a_job(abort=(rule,)), counted(**counts)) == (rule if met else None)


def test_the_first_rule_that_is_met_counts() -> None:
    rules = (AbortRule("timed_out", 1, 1), AbortRule("all", 50, 1), AbortRule("failed", 1, 1))
    assert abort_rule_met(a_job(abort=rules), counted(failed=2, succeeded=2)) is rules[1]


@given(st.integers(0, 10**6), st.floats(0.01, 100), st.integers(1, 100))
def test_a_stage_is_never_empty_nor_larger_than_the_job(clients: int, percent: float, least: int) -> None:
    size = stage_size(staged(Stage(percent=percent, min=least), clients=clients), 0)
    assert min(clients, least) <= size <= clients
