"""What becomes of a tick, when the queue makes its next run, and when failures pause a schedule.

Rule: pure. A tick gets its verdict once, when it is due; every verdict has a reason.
"""

import hashlib
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from control_plane.domain.jobs.model import Job, JobOutcome, JobState
from control_plane.domain.reasons import Reason, ReasonCode
from control_plane.domain.schedules.model import RunKey, RunKind, RunStatus, Schedule, ScheduleRun

GRACE: Final = 300.0
"""Seconds by which a tick may be late without being made up for: the time of a restart."""


class TickVerdict(Struct, frozen=True):
    """What becomes of a tick. `cancels`: the running jobs of the schedule are cancelled first."""

    status: RunStatus
    reason: Reason
    cancels: bool = False


class World(Struct, frozen=True):
    """What a verdict depends on, besides the schedule.

    `is_last`: no later tick is due. `running`: a job of the schedule is not over. `waits`: a regular tick is queued.
    """

    now: float
    is_last: bool
    running: bool = False
    waits: bool = False


def judge(schedule: Schedule, nominal_at: float, world: World) -> TickVerdict:
    """What becomes of the tick at `nominal_at`, which is due."""
    if schedule.paused_during(nominal_at + schedule.delay):
        return _verdict(RunStatus.PAUSED, ReasonCode.SCHEDULE_PAUSED, schedule.note or "the schedule is paused")
    if schedule.skip_at == nominal_at:
        return _verdict(RunStatus.SKIPPED_BY_OPERATOR, ReasonCode.BY_OPERATOR, "an operator skipped this tick")
    late = world.now - nominal_at - schedule.delay
    if late > GRACE or not world.is_last:
        return _caught_up(schedule, late, is_last=world.is_last)
    if not world.running or schedule.spec.overlap == "allow":
        return _verdict(RunStatus.FIRED, ReasonCode.ON_TIME, "the tick was due")
    match schedule.spec.overlap:
        case "cancel_running":
            reason = Reason(ReasonCode.ON_TIME, "the tick was due; the job before it was cancelled")
            return TickVerdict(RunStatus.FIRED, reason, cancels=True)
        case "queue_one" if not world.waits:
            return _verdict(RunStatus.QUEUED, ReasonCode.OVERLAP, "waits for the end of the job before it")
        case "queue_one":
            return _verdict(RunStatus.SKIPPED_OVERLAP, ReasonCode.OVERLAP, "another tick waits already")
        case _:
            return _verdict(RunStatus.SKIPPED_OVERLAP, ReasonCode.OVERLAP, "the job before it was still running")


def _caught_up(schedule: Schedule, late: float, *, is_last: bool) -> TickVerdict:
    """The verdict on a tick for which the control plane came too late."""
    wanted = schedule.spec.catch_up
    if wanted.runs == "none":
        return _verdict(RunStatus.MISSED, ReasonCode.NO_CATCH_UP, f"came {late:.0f} s late; catch_up.runs is none")
    if late > wanted.within:
        return _verdict(RunStatus.MISSED, ReasonCode.TOO_OLD, f"came {late:.0f} s late; catch_up.within is less")
    if wanted.runs == "latest" and not is_last:
        return _verdict(RunStatus.MISSED, ReasonCode.SUPERSEDED, "a later tick was due too; catch_up.runs is latest")
    return _verdict(RunStatus.QUEUED, ReasonCode.CAUGHT_UP, f"came {late:.0f} s late, and is made up for")


def _verdict(status: RunStatus, code: ReasonCode, text: str) -> TickVerdict:
    return TickVerdict(status, Reason(code, text))


def queue_may_fire(schedule: Schedule, running: list[ScheduleRun]) -> bool:
    """Whether the oldest queued run may begin: one at a time, and beside no other job unless overlap is allowed."""
    if schedule.paused:
        return False
    return not any(run.queued or schedule.spec.overlap != "allow" for run in running)


def fired(run: ScheduleRun, job_id: str, now: float) -> ScheduleRun:
    """A run that has got its job."""
    status = RunStatus.BACKFILLED if run.kind is RunKind.BACKFILL else RunStatus.FIRED
    return replace(run, status=status, job_id=job_id, at=now)


def after_end(schedule: Schedule, kind: RunKind, job: Job | None, now: float) -> Schedule:
    """The schedule after a run's job ended; a failure may be the one that pauses it. Only ticks count.

    A failure is a job that was aborted, or in which no execution succeeded; one that a person cancelled is neither.
    """
    if kind is not RunKind.TICK or job is None or job.state is JobState.CANCELLED or job.clients == 0:
        return schedule
    failed = job.state is JobState.ABORTED or job.outcome is JobOutcome.NONE
    return after_failure(schedule, f"job {job.job_id}", now) if failed else replace(schedule, failures=0)


def after_failure(schedule: Schedule, what: str, now: float) -> Schedule:
    """The schedule after a run that failed."""
    failures, most = schedule.failures + 1, schedule.spec.pause_after_failures
    counted = replace(schedule, failures=failures)
    if most is None or failures < most or schedule.paused:
        return counted
    return paused(counted, f"paused after {failures} failed runs in a row, the last of them {what}", now)


def paused(schedule: Schedule, note: str, now: float) -> Schedule:
    """The schedule, paused; a pause that is repeated changes the note at most."""
    if schedule.paused:
        return replace(schedule, note=note or schedule.note)
    return replace(schedule, paused=True, paused_at=now, resumed_at=None, note=note)


def resumed(schedule: Schedule, now: float) -> Schedule:
    """The schedule, no longer paused; its failures are forgotten."""
    if not schedule.paused:
        return schedule
    return replace(schedule, paused=False, resumed_at=now, note="", failures=0)


def share_of_jitter(schedule_id: str, jitter: float) -> float:
    """By how many whole seconds every tick of a schedule begins later: less than `jitter`, and always the same.

    A delay that differed from tick to tick could change their order.
    """
    digest = hashlib.sha256(schedule_id.encode("utf-8", "surrogatepass")).digest()
    return float(int(jitter * int.from_bytes(digest[:6], "big") / 2**48))


def job_id_of(key: RunKey, stamp: str) -> str:
    """The id of a run's job: two replicas that make the same run name the same job."""
    kind = "" if key.kind is RunKind.TICK else f"{key.kind}."
    return f"{key.schedule_id}.{kind}{stamp}"
