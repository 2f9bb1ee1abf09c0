"""Asks the gate with what is stored, and stores what its decision changes.

Rule: synchronous, inside the caller's transaction: a rate is charged in the transaction that dispatches or grants, by
the services' clock. The decisions are `domain.gate`'s.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from msgspec.structs import replace as replace_struct

from control_plane.domain.clients import Client
from control_plane.domain.gate.devices import DeviceFacts, Ledger, Paid, charged, concerns_grants, facts_of
from control_plane.domain.gate.gate import (
    MAX_GRANT,
    TURN,
    UNLIMITED,
    Facts,
    Opening,
    Permit,
    Turn,
    Wait,
    Want,
    may_grant,
    told_rate,
    within,
)
from control_plane.domain.gate.rates import cost_of, free_at, taken
from control_plane.domain.gate.windows import opening
from control_plane.domain.jobs.model import (
    JOB_TERMINAL,
    RUNNING_EXECUTIONS,
    Execution,
    ExecutionState,
    Job,
    JobState,
    in_state,
)
from control_plane.domain.reasons import ReasonCode
from control_plane.domain.uploads.duties import Kind
from control_plane.domain.uploads.model import Upload, UploadKey
from control_plane.services.ports.database import PARKED, Records, Subject
from control_plane.services.ports.gate import Budget, Share
from control_plane.services.uploads.quota import Quota
from schemas.parts import MAX_PART_SIZE

READ_EVERY: Final = 1.0
"""Seconds for which the list of budgets is used: so long may a budget that another replica created not hold yet."""

MAX_RELEASED: Final = 10_000
"""Waiters of a deleted budget that are decided at once; the others at the end of their wait."""

ARMED: Final = 3
"""Waiters that are woken when a budget is free: the next one, and two in case it is absent."""


class GateKeeper:
    """The gate of one control plane. `owner` and `quota` are those of its uploads."""

    def __init__(self, quota: Quota, owner: str) -> None:
        self._quota = quota
        self._owner = owner
        self._budgeted: frozenset[tuple[str, str]] = frozenset()
        self._shared = False
        """Whether any upload has a share: a budget that is gone may have left one."""
        self._read_at = float("-inf")

    def may_dispatch(
        self, records: Records, job: Job, execution: Execution, client: Client | None, now: float, *, begun: int = 0
    ) -> Wait | None:
        """Whether an execution may begin now; None when it may, and the rate is charged.

        `begun` is how many executions of the job this transaction has begun and not saved.
        """
        rollout = job.spec.rollout
        cost = None if rollout.rate is None else cost_of(rollout.rate.count, rollout.rate.seconds)
        name = f"job:{job.job_id}"
        capped = rollout.max_running is not None
        facts = Facts(
            ending=_is_ending(job),
            paused=job.paused,
            unapproved=execution.state is ExecutionState.AWAITING_APPROVAL and not execution.approved,
            windows=_windows(job, client, now),
            in_stage=execution.place <= job.stage_below,
            dispatch_free_at=now if cost is None else _free_at(records, name, now, cost),
            running=begun + (in_state(records.jobs.counts(job.job_id), *RUNNING_EXECUTIONS) if capped else 0),
            max_running=rollout.max_running,
            device=_device(records, client, now),
            over_quota=self._quota.fullness(records, execution.client_id, self._owner, now),
        )
        answer = may_grant(Want(now, begins=True), facts)
        if isinstance(answer, Wait):
            return answer
        if cost is not None:
            records.gate.set_tat(name, taken(records.gate.tat(name), now, cost))
        elif capped:
            # The row makes two transactions that count at the same time run one after the other.
            records.gate.set_tat(name, now)
        return None

    def may_grant(self, records: Records, upload: Upload, now: float) -> Permit | Wait:
        """Whether the parts that the client wants may be granted now; budgets and its device's caps are charged.

        A grant that is repeated for one request charges nothing.
        """
        wanted = upload.to_grant
        if not wanted:
            return Permit(0)
        job = None if upload.job_id is None else records.jobs.get(upload.job_id)
        client = records.clients.get(upload.client_id)
        budgets = [] if client is None else records.gate.budgets_of(client.effective_labels)
        stored = records.gate.shares_of(upload.key)
        lifted = _lifted(records, upload, stored) if stored and not budgets else None
        limit = None if client is None or not concerns_grants(client.budget) else client.budget
        if job is None and not budgets and limit is None:
            return Permit(rate=lifted)
        ledger = Ledger() if limit is None else records.gate.ledger(upload.client_id)
        granted = ledger.paid_for(upload.upload_id, upload.attempt, upload.sequence)
        device = facts_of(limit, ledger, now)
        shares = _shares(upload, stored, 0 if job is None else job.spec.priority, budgets, now)
        paid = {key: share for key, share in shares.items() if _is_paid(share, upload)}
        turns = tuple(
            Turn(
                one.key,
                one.rate,
                _free_at(records, rate_of(one.key), now, MAX_PART_SIZE / one.rate),
                records.gate.ahead_of(shares[one.key]),
            )
            for one in budgets
            if one.key not in paid
        )
        facts = Facts(
            ending=job is not None and _is_ending(job),
            paused=job is not None and job.paused,
            windows=Opening() if job is None else _windows(job, client, now),
            turns=turns,
            # Of a request that was granted before, the bytes are counted already.
            device=device if granted is None else replace_struct(device, rooms=()),
        )
        answer = may_grant(Want(now, begins=False, part=wanted[0].size), facts)
        if isinstance(answer, Wait):
            late = answer.reason.code == ReasonCode.BUDGET_SPENT
            _wait(records, shares, {turn.key for turn in turns if late and turn.begins_at > now}, now)
            return answer
        if paid and not turns:
            # The same request again: the same parts.
            rate = told_rate(wanted[0].size, [one.rate for one in budgets])
            return Permit(max(share.bytes for share in paid.values()), rate)
        if granted is not None:
            answer = replace_struct(answer, bytes=granted)
        size = sum(part.size for part in within(wanted, answer.bytes))
        if limit is not None and granted is None:
            payment = Paid(upload.upload_id, upload.attempt, upload.sequence, size)
            records.gate.put_ledger(upload.client_id, charged(limit, ledger, payment, now))
        for turn in turns:
            _charge(records, turn, shares[turn.key], upload, size, now)
        return answer if budgets else Permit(answer.bytes, lifted)

    def concerns(self, records: Records, upload: Upload, client: Client | None, now: float) -> bool:
        """Whether a grant of this upload must pass the gate.

        It does when it belongs to a job, when a budget applies to its client, or when the device has own caps.
        """
        if client is not None and concerns_grants(client.budget):
            return True
        if upload.job_id is not None and not _passes(records.jobs.get(upload.job_id), upload):
            return True
        if not 0 <= now - self._read_at < READ_EVERY:
            self._budgeted = frozenset((one.label, one.value) for one in records.gate.budgets())
            self._shared = records.gate.has_shares()
            self._read_at = now
        if self._shared and records.gate.shares_of(upload.key):
            return True
        return (
            bool(self._budgeted)
            and client is not None
            and not self._budgeted.isdisjoint(client.effective_labels.items())
        )

    def read_again(self) -> None:
        """Read the list of budgets with the next grant: this process changed it."""
        self._read_at = float("-inf")

    def forget(self, records: Records, upload: Upload) -> None:
        """Remove an upload that is over from the waiters; the next one has its turn."""
        if not (self._budgeted or self._shared or upload.held):
            return
        shares = records.gate.shares_of(upload.key)
        if shares:
            records.gate.drop_shares(upload.key)
        for share in shares.values():
            if share.since is not None:
                _arm(records, share.key, records.gate.tat(rate_of(share.key)) or 0.0)


def release_job(records: Records, job_id: str, now: float) -> int:
    """Ask again for every grant of the job that is held: it was resumed or changed. Returns their number."""
    return records.outbox.release(job_id, now)


def put_budget(records: Records, budget: Budget, now: float) -> None:
    """Create a budget, or change its rate from the next grant on. What is owed is owed in bytes."""
    before = {one.key: one for one in records.gate.budgets()}.get(budget.key)
    records.gate.put_budget(budget)
    tat = records.gate.tat(rate_of(budget.key))
    if before is not None and tat is not None and tat > now:
        tat = now + (tat - now) * before.rate / budget.rate
        records.gate.set_tat(rate_of(budget.key), tat)
        _arm(records, budget.key, tat)


def drop_budget(records: Records, label: str, value: str, now: float) -> bool:
    """Delete a budget; what waited for it is tried again at once. False when there is none."""
    key = f"{label}={value}"
    waiting, _ = records.gate.waiters(key, MAX_RELEASED)
    for share in waiting:
        _pull(records, share.upload_key, now)
    records.gate.set_tat(rate_of(key), now)
    return records.gate.drop_budget(label, value)


def _passes(job: Job | None, upload: Upload) -> bool:
    """Whether a job does not restrict this grant: it runs, without windows, and the grant is small enough.

    Read in the transaction that decides the grant: a pause that is committed later would come as late to the gate.
    """
    if job is None or job.state is not JobState.RUNNING or job.spec.windows or upload.held:
        return False
    return sum(part.size for part in upload.to_grant) <= MAX_GRANT


def _device(records: Records, client: Client | None, now: float) -> DeviceFacts:
    if client is None or not concerns_grants(client.budget):
        return DeviceFacts()
    return facts_of(client.budget, records.gate.ledger(client.client_id), now)


def _is_ending(job: Job) -> bool:
    """Whether its open uploads are to end; after an abort they may finish, unless the job specifies otherwise."""
    if job.state in JOB_TERMINAL:
        return True
    finishes = job.ending is JobState.ABORTED and job.spec.running == "finish"
    return job.state is JobState.CANCELLING and not finishes


def _windows(job: Job, client: Client | None, now: float) -> Opening:
    zone = None if client is None else client.timezone
    return opening(job.spec.windows, now, job.spec.zone, zone)


def rate_of(key: str) -> str:
    """The name of a budget's rate."""
    return f"budget:{key}"


def _free_at(records: Records, name: str, now: float, longest: float) -> float:
    tat = records.gate.tat(name)
    free = free_at(tat, now, longest)
    if tat is not None and free < tat:
        records.gate.set_tat(name, free)
    return free


def _shares(
    upload: Upload, stored: Mapping[str, Share], priority: int, budgets: Sequence[Budget], now: float
) -> dict[str, Share]:
    """The upload's share of each budget, as it is now. One that asks is not absent."""
    shares: dict[str, Share] = {}
    for budget in budgets:
        share = stored.get(budget.key)
        if share is None:
            share = Share(budget.key, *upload.key, priority, placed_at=now, job_id=upload.job_id)
        shares[budget.key] = replace(share, priority=priority, absent=False)
    return shares


def _wait(records: Records, shares: Mapping[str, Share], late: set[str], now: float) -> None:
    """Store for which budgets the upload waits: it takes no turn of the others, nor while its job is held."""
    for key, share in shares.items():
        since = (now if share.since is None else share.since) if key in late else None
        if since is not None or share.since is not None:
            records.gate.put_share(replace(share, since=since))


def _charge(records: Records, turn: Turn, share: Share, upload: Upload, size: int, now: float) -> None:
    if turn.ahead:
        records.gate.pass_over(share)
    name = rate_of(turn.key)
    tat = taken(records.gate.tat(name), now, size / turn.rate)
    records.gate.set_tat(name, tat)
    granted = replace(share, placed_at=tat, since=None, attempt=upload.attempt, sequence=upload.sequence, bytes=size)
    records.gate.put_share(granted)
    _arm(records, turn.key, tat)


def _lifted(records: Records, upload: Upload, stored: Mapping[str, Share]) -> int | None:
    """The rate that lifts what the client was sent, once its budget is deleted or its label is another.

    The shares go with the next request: until then the answer to this one may be lost.
    """
    told = [share for share in stored.values() if share.bytes or _is_paid(share, upload)]
    if not told:
        records.gate.drop_shares(upload.key)
        return None
    for share in told:
        now = replace(share, since=None, attempt=upload.attempt, sequence=upload.sequence, bytes=0)
        records.gate.put_share(now)
    return UNLIMITED


def _is_paid(share: Share, upload: Upload) -> bool:
    return share.since is None and (share.attempt, share.sequence) == (upload.attempt, upload.sequence)


def _arm(records: Records, key: str, at: float) -> None:
    """Make the next waiters of a budget ask at their turns, unless they ask sooner."""
    for place, share in enumerate(records.gate.first(key, ARMED)):
        _pull(records, share.upload_key, at + TURN * place)


def _pull(records: Records, key: UploadKey, at: float) -> None:
    for entry in records.outbox.of(Subject.of_upload(key)):
        # One that was tried waits for its client's answer, a parked one for its client.
        if entry.duty.kind is Kind.SEND_GRANT and entry.tries == 0 and at < entry.due_at < PARKED:
            records.outbox.put(replace(entry, due_at=at))
