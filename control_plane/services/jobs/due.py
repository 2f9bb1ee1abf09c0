"""Executions that are due, and jobs that are: what time, or an event that woke them, requires.

Rule: each function is the work of one transaction, over at most `BATCH` executions.
"""

from collections.abc import Sequence
from typing import Final

from control_plane.domain.clients import Client
from control_plane.domain.jobs.events import (
    AbortThresholdMet,
    AllEnded,
    Begun,
    ClientsJoined,
    JobDeadlinePassed,
    ListingRefused,
    Rejoined,
    Removed,
    StageBegan,
    StagePaused,
    Stopped,
    Withheld,
)
from control_plane.domain.jobs.executions import LOOK_AGAIN, OFFLINE
from control_plane.domain.jobs.machine import ACTIVE
from control_plane.domain.jobs.model import (
    DONE,
    EXECUTION_OPEN,
    EXECUTION_TERMINAL,
    MAX_OPEN_FILES,
    Counts,
    Execution,
    ExecutionKey,
    ExecutionState,
    Job,
    JobState,
    in_state,
)
from control_plane.domain.jobs.rollout import abort_rule_met, stage_after, stage_ends_at, stage_size
from control_plane.domain.jobs.spec import Retry
from control_plane.domain.reasons import Reason, ReasonCode
from control_plane.domain.reported import DEVICE_WAITS
from control_plane.domain.uploads.model import OPEN, Upload, UploadKey
from control_plane.services.clients.targeting import resolve
from control_plane.services.errors import BadInput, UnknownClient
from control_plane.services.jobs.creation import add_clients
from control_plane.services.jobs.selections import NO_AFTER, NOT_SEALED, UNSUPPORTED
from control_plane.services.jobs.turn import NEEDS_OPERATOR, QUOTA_PAUSE, JobTurn
from control_plane.services.ports.database import PARKED
from schemas.messages import KEEP
from schemas.values import Action, Feature

BATCH: Final = 256
SWEEP_EVERY: Final = 300.0
"""Seconds between two looks for clients that match a continuous job: one that connects is looked at at once."""

CLOCK_PAUSE: Final = 60.0
"""Seconds before a deadline is looked at again that passed by a clock which is known to be wrong."""


# --- executions ------------------------------------------------------------------------------------------------------


def turn_executions(turn: JobTurn) -> int:
    """Look at the executions that are due; returns their number."""
    due = turn.records.jobs.executions.due(turn.now, BATCH)
    turn.load(due)
    sending = [one for one in due if one.state is ExecutionState.UPLOADING]
    tallies = turn.records.jobs.files.tally(one.key for one in sending) if sending else {}
    for execution in due:
        if execution.state is not ExecutionState.UPLOADING:
            turn.look(execution)
    rest = [turn.count(one, tallies[one.key]) for one in sending]
    still = [(one, tally) for one, tally in zip(rest, tallies.values(), strict=True) if one.open]
    _look_at_uploads(turn, [one for one, _ in still if one.state is ExecutionState.UPLOADING])
    for execution, tally in still:
        now = turn.current(execution.key) or execution
        if (
            now.state is ExecutionState.UPLOADING
            and now.ending is None
            and tally.pending
            and tally.open < MAX_OPEN_FILES
        ):
            files = turn.records.jobs.files.pending(now.key, MAX_OPEN_FILES - tally.open)
            turn.begin_files(now, files, tally.open)
    return len(due)


def _look_at_uploads(turn: JobTurn, executions: Sequence[Execution]) -> None:
    """Look at clocks, and cancel the uploads of what is being ended."""
    late = [one for one in executions if _runs_out(turn, one)]
    opened = turn.records.jobs.files.open(one.key for one in executions if one in late or one.ending is not None)
    for execution in executions:
        files = opened.get(execution.key, [])
        after = turn.look(execution, all_held=execution in late and _all_held(turn, execution, files))
        if after.ending is not None and after.state is ExecutionState.UPLOADING:
            files = files or turn.records.jobs.files.open([after.key]).get(after.key, [])
            turn.effects.cancels += [UploadKey(one.client_id, one.upload_id) for one in files if one.upload_id]


def _runs_out(turn: JobTurn, execution: Execution) -> bool:
    left, began_at = execution.execution_left, execution.clock_at
    return left is not None and began_at is not None and turn.now - began_at >= left


def _all_held(turn: JobTurn, execution: Execution, files: Sequence[object]) -> bool:
    """Whether the gate, or the device by its own caps and conditions, holds back every open upload."""
    uploads = turn.records.uploads.open_of(execution.client_id)
    mine = [one for one in uploads if one.job_id == execution.job_id and one.state in OPEN]
    return bool(files) and bool(mine) and all(_is_held(one) for one in mine)


def _is_held(upload: Upload) -> bool:
    return upload.held or (upload.reason is not None and upload.reason.code in DEVICE_WAITS)


# --- jobs ------------------------------------------------------------------------------------------------------------


def turn_job(turn: JobTurn, job: Job, hold: float | None = None) -> bool:
    """Do what one job is due for; True when there is more of it at once. With `hold` (s) none begins until then."""
    turn.take_job(job)
    counts = turn.records.jobs.counts(job.job_id)
    over = not in_state(counts, *EXECUTION_OPEN)
    late = turn.now >= job.deadline and any(code == ReasonCode.DEADLINE_PASSED for _, code in counts)
    if late or not (over and _is_done(turn, job)):
        job = _judged(turn, job, counts)
    if job.state is JobState.CANCELLING and _stop_some(turn, job):
        turn.wake_job(job.job_id, turn.now)
        return True
    if over and (job.state is JobState.CANCELLING or _is_done(turn, job)):
        done = in_state(counts, *DONE)
        partial = in_state(counts, ExecutionState.PARTIAL)
        removed = in_state(counts, ExecutionState.REMOVED)
        other = in_state(counts, *EXECUTION_TERMINAL) - done - partial - removed
        turn.apply_to_job(job.job_id, AllEnded(now=turn.now, done=done, partial=partial, other=other))
        return False
    if job.state in ACTIVE and job.spec.targets.mode == "continuous":
        job = _sweep(turn, job)
    wake_at = turn.now + LOOK_AGAIN
    more = False
    if job.state is JobState.RUNNING:
        wake_at, more = _begin_some(turn, job) if hold is None else (turn.now + hold, False)
    times = [wake_at, stage_ends_at(job) if job.spec.rollout.stages else None]
    if job.state in ACTIVE:
        # Nothing expires while the clock is known to be wrong.
        times.append(max(job.deadline, turn.now + CLOCK_PAUSE))
        times.append(job.swept_at + SWEEP_EVERY if job.spec.targets.mode == "continuous" else None)
    ahead = [at for at in times if at is not None and (at > turn.now or at == wake_at)]
    turn.wake_job(job.job_id, min(ahead))
    return more


def _is_done(turn: JobTurn, job: Job) -> bool:
    """Whether the job ends once its executions are over: while clients may join, only at its deadline."""
    takes_more = job.spec.targets.mode == "continuous" and turn.now < job.deadline
    return job.state is JobState.RUNNING and not takes_more


def _judged(turn: JobTurn, job: Job, counts: Counts) -> Job:
    """The job after its deadline, its abort rules and its stages."""
    if turn.now >= job.deadline and job.state in ACTIVE and not turn.tools.planner.probe.clock_is_wrong:
        return turn.apply_to_job(job.job_id, JobDeadlinePassed(now=turn.now))
    rule = abort_rule_met(job, counts) if job.state in ACTIVE else None
    if rule is not None:
        text = f"{rule.percent:g} % of the executions that ended did so as {rule.on}"
        return turn.apply_to_job(job.job_id, AbortThresholdMet(now=turn.now, reason=Reason(ReasonCode.ABORTED, text)))
    if job.state is not JobState.RUNNING or not job.spec.rollout.stages:
        return job
    while (then := stage_after(job, counts, turn.now)) is not None:
        # One without clients, in a small fleet, is over as it begins.
        job = begin_stage(turn, job, job.stage + 1)
        if then == "pause":
            text = f"stage {job.stage} of {len(job.spec.rollout.stages)} is done: resume it to continue"
            return turn.apply_to_job(job.job_id, StagePaused(now=turn.now, reason=Reason(ReasonCode.PAUSED, text)))
    return job


def begin_stage(turn: JobTurn, job: Job, stage: int) -> Job:
    """Let the executions up to this stage begin."""
    size = stage_size(job, stage)
    below = 1.0 if size >= job.clients else turn.records.jobs.executions.nth_place(job.job_id, size)
    event = StageBegan(now=turn.now, stage=stage, below=1.0 if below is None else below)
    return turn.apply_to_job(job.job_id, event)


def _stop_some(turn: JobTurn, job: Job) -> bool:
    """End a batch of executions of a job that is being ended; False when there is none left."""
    finishes = job.ending is JobState.ABORTED and job.spec.running == "finish"
    batch = turn.records.jobs.executions.all_open(job.job_id, BATCH, sending=not finishes)
    turn.load(batch)
    ending = ExecutionState.TIMED_OUT if job.ending is JobState.EXPIRED else ExecutionState.CANCELLED
    reason = job.reason or Reason(ReasonCode.CANCELLED, "the job is being ended")
    for execution in batch:
        turn.apply(execution, Stopped(now=turn.now, ending=ending, reason=reason))
    return bool(batch)


def _begin_some(turn: JobTurn, job: Job) -> tuple[float, bool]:
    """Begin queued executions while the gate lets them; returns when to look again, and whether at once."""
    executions = turn.records.jobs.executions
    batch = executions.queued(job.job_id, turn.now, job.stage_below, BATCH)
    turn.load(batch)
    begun = 0
    for execution in batch:
        if turn.has_changed(execution.key):
            # Its client left the targets a moment ago.
            continue
        client = turn.clients.get(execution.client_id)
        if client is None or not client.dispatchable(turn.now):
            turn.apply(execution, Withheld(now=turn.now, reason=OFFLINE, due_at=PARKED))
            continue
        wait = turn.tools.gate.may_dispatch(turn.records, job, execution, client, turn.now, begun=begun)
        if wait is not None and wait.whole_job:
            turn.hold_job(job.job_id, wait.reason)
            return _at_last(turn, wait.wake_at), False
        if wait is not None:
            quota = wait.reason.code == ReasonCode.CLIENT_QUOTA
            due_at = turn.now + QUOTA_PAUSE if quota else _at_last(turn, wait.wake_at)
            turn.apply(execution, Withheld(now=turn.now, reason=wait.reason, due_at=due_at))
            continue
        begun += 1
        _begin(turn, job, execution, refused=_lacking(job, client))
    turn.hold_job(job.job_id, None)
    if len(batch) == BATCH:
        return turn.now, True
    following = executions.next_queued(job.job_id, job.stage_below)
    # What was postponed in this transaction is not written yet.
    postponed = [one.due_at for one in map(turn.current, (one.key for one in batch)) if one is not None]
    ahead = [at for at in (following, *postponed) if at is not None and turn.now < at < PARKED]
    return min([turn.now + LOOK_AGAIN, *ahead]), False


def _at_last(turn: JobTurn, wake_at: float | None) -> float:
    """When to try the gate again, in an hour at most: a due instant further ahead was written by a wrong clock."""
    longest = turn.now + LOOK_AGAIN
    return longest if wake_at is None else min(wake_at, longest)


def _lacking(job: Job, client: Client) -> Reason | None:
    """Why the agent of a client cannot do what this job requests; None when it can."""
    if client.needs_operator:
        return NEEDS_OPERATOR
    if Action.SELECT_FILES not in client.capabilities:
        return UNSUPPORTED
    if job.spec.options.encrypt_to and Feature.SEALED not in client.capabilities:
        return NOT_SEALED
    return NO_AFTER if job.spec.after != KEEP and Feature.AFTER not in client.capabilities else None


def _begin(turn: JobTurn, job: Job, execution: Execution, *, refused: Reason | None) -> None:
    timeouts, held = job.spec.timeouts, turn.held(execution)
    begun = turn.apply(
        execution, Begun(now=turn.now, held=held, listing=timeouts.listing, execution=timeouts.execution)
    )
    if refused is None:
        turn.ask(begun)
        return
    end = ListingRefused(now=turn.now, held=held, reason=refused, rejected=False, final=True, retry=Retry())
    turn.apply(begun, end)


# --- continuous targets ----------------------------------------------------------------------------------------------


def _sweep(turn: JobTurn, job: Job) -> Job:
    """Compare all clients with the targets of a continuous job, now and then."""
    if turn.now < job.swept_at + SWEEP_EVERY:
        return job
    targets = job.spec.targets
    try:
        wanted = set(resolve(turn.records, targets.clients, targets.selector, targets.reach).client_ids)
    except UnknownClient as error:
        # A client that was named and is forgotten: the others still count.
        names = [one for one in targets.clients if one not in error.client_ids]
        wanted = set(resolve(turn.records, names, targets.selector, targets.reach).client_ids)
    except BadInput:
        # A group was deleted: nothing follows for those that joined by it.
        return turn.sweep_done(job)
    known = turn.records.jobs.executions.clients(job.job_id)
    joins(turn, job, sorted(wanted - known.keys()))
    rejoin = [name for name in wanted & known.keys() if known[name] is ExecutionState.REMOVED]
    leave = [name for name in known.keys() - wanted if known[name] in EXECUTION_OPEN]
    change_membership(turn, job, rejoin=rejoin, leave=leave)
    return turn.sweep_done(turn.jobs[job.job_id])


def joins(turn: JobTurn, job: Job, client_ids: Sequence[str]) -> None:
    """Add executions for clients that have none."""
    if client_ids:
        approval = add_clients(turn.records, job, client_ids, turn.now)
        turn.apply_to_job(job.job_id, ClientsJoined(now=turn.now, count=len(client_ids), approval=approval))


def change_membership(turn: JobTurn, job: Job, *, rejoin: Sequence[str], leave: Sequence[str]) -> None:
    """Queue executions again whose client matches again, and end those of clients that no longer do."""
    keys = [ExecutionKey(job.job_id, client_id) for client_id in (*rejoin, *leave)]
    found = turn.records.jobs.executions.some(keys)
    turn.load(found.values())
    gone = Reason(ReasonCode.NO_LONGER_MATCHES, "the client no longer matches the targets")
    for client_id in rejoin:
        turn.apply(found[ExecutionKey(job.job_id, client_id)], Rejoined(now=turn.now))
    for client_id in leave:
        turn.apply(found[ExecutionKey(job.job_id, client_id)], Removed(now=turn.now, reason=gone))
