"""How far a rollout has come: when a stage is over, and when a job is aborted.

Rule: pure, from the counts of the job's executions. A stage holds back what has not begun, so all that ended or runs
belongs to the stages up to now. Executions that were cancelled or removed show nothing about how it went.
"""

import math
from typing import Final, Literal

from control_plane.domain.jobs.model import RUNNING_EXECUTIONS, Counts, ExecutionState, Job, in_state
from control_plane.domain.jobs.spec import AbortRule

ENDED: Final = (
    ExecutionState.SUCCEEDED,
    ExecutionState.PARTIAL,
    ExecutionState.FAILED,
    ExecutionState.REJECTED,
    ExecutionState.TIMED_OUT,
    ExecutionState.SKIPPED,
)
"""The ends that are judged."""

_WENT_WELL: Final = (ExecutionState.SUCCEEDED, ExecutionState.SKIPPED)
_ENDED_SO: Final[dict[str, tuple[ExecutionState, ...]]] = {
    "all": (ExecutionState.FAILED, ExecutionState.TIMED_OUT, ExecutionState.PARTIAL),
}


def stage_size(job: Job, stage: int) -> int:
    """How many of the job's clients, in the order of their places, may begin up to this stage (counted from 0).

    At least `min` of them, so that a small share of a small fleet is not empty. After the last stage all may.
    """
    stages = job.spec.rollout.stages
    if stage >= len(stages):
        return job.clients
    one = stages[stage]
    # Rounded first: 7 percent of 100 is 7.000000000000001 in floats.
    return min(job.clients, max(math.ceil(round(one.percent * job.clients / 100, 6)), one.min))


def stage_after(job: Job, counts: Counts, now: float) -> Literal["continue", "pause"] | None:
    """What happens now that the job's stage is over; None while it is not, or when all may begin.

    It is over when `min` executions ended, `advance_at` percent of those that ended went well, and none runs or
    `advance_after` passed since it began. Clients that are offline do not hold it.
    """
    stages = job.spec.rollout.stages
    if job.stage >= len(stages) or stage_size(job, job.stage) >= job.clients:
        return None
    stage = stages[job.stage]
    ended = in_state(counts, *ENDED)
    if ended < max(1, min(stage.min, job.clients)):
        return None
    if 100 * in_state(counts, *_WENT_WELL) < stage.advance_at * ended:
        return None
    if in_state(counts, *RUNNING_EXECUTIONS) and now < job.stage_since + stage.advance_after:
        return None
    return stage.then


def stage_ends_at(job: Job) -> float | None:
    """When `advance_after` of the job's stage passes (s since the epoch); None when all may begin."""
    stages = job.spec.rollout.stages
    return job.stage_since + stages[job.stage].advance_after if job.stage < len(stages) else None


def abort_rule_met(job: Job, counts: Counts) -> AbortRule | None:
    """The first rule that aborts the job; None when none does, or too few executions ended to judge."""
    ended = in_state(counts, *ENDED)
    for rule in job.spec.abort:
        states = _ENDED_SO.get(rule.on) or (ExecutionState(rule.on),)
        count = in_state(counts, *states)
        if count and ended >= rule.min_ended and 100 * count >= rule.percent * ended:
            return rule
    return None
