"""One transaction over executions: what it changes, and what is to be done after its commit.

Rule: executions change by `apply` only, and are written once, by `finish`, which comes last. What is to be published
follows from the rows, so nothing is lost when the process ends before it is done.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from msgspec.structs import replace

from control_plane.domain.changes import Change, ExecutionStateChanged, JobChanged, JobStateChanged, UploadCreated
from control_plane.domain.clients import Client
from control_plane.domain.errors import BadKey
from control_plane.domain.jobs.events import (
    ApprovalNeeded,
    Counted,
    ExecutionEvent,
    JobEvent,
    Looked,
    Postponed,
)
from control_plane.domain.jobs.executions import apply
from control_plane.domain.jobs.machine import apply_to_job
from control_plane.domain.jobs.model import (
    EXECUTION_TERMINAL,
    MAX_OPEN_FILES,
    RUNNING_EXECUTIONS,
    Execution,
    ExecutionKey,
    ExecutionState,
    FileOutcome,
    Job,
    JobFile,
    JobTotals,
)
from control_plane.domain.reasons import Reason, ReasonCode
from control_plane.domain.uploads.model import UploadKey
from control_plane.services.clients.beats import Beats
from control_plane.services.errors import KeyTaken, QuotaExceeded
from control_plane.services.gate.keeper import GateKeeper
from control_plane.services.jobs.effects import carry_over
from control_plane.services.jobs.plans import UploadPlanner, build_select_files
from control_plane.services.ports.database import Records
from control_plane.services.ports.jobs import Tally
from control_plane.services.uploads.writer import Decision, UploadWriter
from schemas.messages import Command

NEEDS_OPERATOR: Final = Reason(
    ReasonCode.NEEDS_OPERATOR_SIGNATURE, "the device takes new work from an operator's signature alone"
)
QUOTA_PAUSE: Final = 60.0
"""Seconds before the next file of a client is begun that has as many open uploads as it may."""


@dataclass(frozen=True, slots=True)
class JobTools:
    """What the turns of jobs use. `max_files` bounds the files of one job."""

    writer: UploadWriter
    beats: Beats
    planner: UploadPlanner
    gate: GateKeeper
    max_files: int


@dataclass(slots=True)
class Effects:
    """What to do after the commit."""

    decisions: list[Decision] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    requests: list[tuple[str, Command]] = field(default_factory=list)
    cancels: list[UploadKey] = field(default_factory=list)


class JobTurn:
    """Executions of any jobs in one transaction at `now` (s since the epoch)."""

    def __init__(self, records: Records, tools: JobTools, now: float) -> None:
        self.records = records
        self.tools = tools
        self.now = now
        self.effects = Effects()
        self.jobs: dict[str, Job] = {}
        self.clients: dict[str, Client] = {}
        self._before_jobs: dict[str, Job] = {}
        self._before: dict[ExecutionKey, Execution] = {}
        self._after: dict[ExecutionKey, Execution] = {}
        self._new_files: list[JobFile] = []
        self._changed_files: dict[tuple[str, str, int], JobFile] = {}
        self._given_up: list[Execution] = []
        self._totals: dict[str, JobTotals] = {}
        self._listed: dict[str, tuple[int, int]] = {}
        """Files and bytes that this transaction has added to the executions of each job."""

    def load(self, executions: Iterable[Execution]) -> None:
        """Take these executions, with their jobs and clients."""
        taken = list(executions)
        self._before.update((one.key, one) for one in taken)
        missing = {one.job_id for one in taken} - self.jobs.keys()
        if missing:
            found = self.records.jobs.some(missing)
            self.jobs |= found
            self._before_jobs |= found
        unknown = {one.client_id for one in taken} - self.clients.keys()
        rows = self.records.clients.among(unknown)
        self.clients.update((client_id, self.tools.beats.latest(row)) for client_id, row in rows.items())

    def take_job(self, job: Job) -> None:
        """Take one job, without its executions."""
        self.jobs[job.job_id] = self._before_jobs[job.job_id] = job

    # --- changes -----------------------------------------------------------------------------------------------------

    def apply(self, execution: Execution, event: ExecutionEvent) -> Execution:
        """The execution after `event`; it is written by `finish`."""
        after = apply(execution, event)
        if after is not execution:
            self._after[execution.key] = after
            if after.state in EXECUTION_TERMINAL:
                self._given_up.append(after)
            if after.files != execution.files or after.bytes != execution.bytes:
                files, size = self._listed.get(after.job_id, (0, 0))
                size += after.bytes - execution.bytes
                self._listed[after.job_id] = (files + after.files - execution.files, size)
        return after

    def current(self, key: ExecutionKey) -> Execution | None:
        """The execution as it is now in this transaction; None when it was not loaded."""
        return self._after.get(key) or self._before.get(key)

    def has_changed(self, key: ExecutionKey) -> bool:
        """Whether this transaction has changed the execution."""
        return key in self._after

    def apply_to_job(self, job_id: str, event: JobEvent) -> Job:
        """The same for a job that was loaded."""
        job = apply_to_job(self.jobs[job_id], event)
        self.jobs[job_id] = job
        return job

    def wake_job(self, job_id: str, at: float) -> None:
        """When the runner looks at this job next."""
        self.jobs[job_id] = replace(self.jobs[job_id], next_wake_at=at)

    def hold_job(self, job_id: str, reason: Reason | None) -> None:
        """What holds back the queued executions of a running job."""
        if self.jobs[job_id].reason != reason:
            self.jobs[job_id] = replace(self.jobs[job_id], reason=reason)

    def sweep_done(self, job: Job) -> Job:
        """Note that the targets of a continuous job were resolved now."""
        self.jobs[job.job_id] = replace(job, swept_at=self.now)
        return self.jobs[job.job_id]

    def reachable(self, client_id: str) -> bool:
        """Whether a command reaches the client now."""
        client = self.clients.get(client_id)
        return client is not None and client.dispatchable(self.now)

    def held(self, execution: Execution) -> float:
        """How long (s) the job of this execution was paused in all."""
        return self.jobs[execution.job_id].held(self.now)

    def since(self, execution: Execution) -> float:
        """When the connection of its client began."""
        client = self.clients.get(execution.client_id)
        return 0.0 if client is None else client.connected_at or 0.0

    def look(self, execution: Execution, *, all_held: bool = False) -> Execution:
        """Look at its clocks. A request that is due again is sent again."""
        client = self.clients.get(execution.client_id)
        after = self.apply(
            execution,
            Looked(
                now=self.now,
                held=self.held(execution),
                since=self.since(execution),
                connected=self.reachable(execution.client_id),
                seen_at=0.0 if client is None else client.seen_at,
                retry=self.jobs[execution.job_id].spec.retry,
                all_held=all_held,
            ),
        )
        if after.state is ExecutionState.LISTING and after.asks > execution.asks:
            self.ask(after)
        return after

    def ask(self, execution: Execution) -> None:
        """Request the next page of its selection."""
        command = build_select_files(self.jobs[execution.job_id], execution, self.now)
        self.effects.requests.append((execution.client_id, command))

    def count(self, execution: Execution, tally: Tally) -> Execution:
        """Apply the outcomes of its files."""
        job = self.jobs[execution.job_id]
        after = self.apply(
            execution,
            Counted(
                now=self.now,
                held=self.held(execution),
                open=tally.open,
                pending=tally.pending,
                proven=tally.proven,
                proven_bytes=tally.proven_bytes,
                failed=tally.failed,
                rejected=tally.rejected,
                worst=tally.worst,
                retry=job.spec.retry,
            ),
        )
        if after.state in EXECUTION_TERMINAL and tally.proven and job.spec.files.skip == "unchanged":
            proven = [file for file in self.records.jobs.files.of(execution.key) if file.outcome is FileOutcome.PROVEN]
            self.records.jobs.files.note_proven(job.scope, proven)
        return after

    # --- files -------------------------------------------------------------------------------------------------------

    def add_file(self, file: JobFile) -> None:
        """Insert a new file; `change_file` may still replace it."""
        self._new_files.append(file)

    def change_file(self, file: JobFile) -> None:
        """Write a file over its row."""
        self._changed_files[file.job_id, file.client_id, file.n] = file

    def total_of(self, job_id: str) -> JobTotals:
        """The sums over the job's executions with the changes of this transaction; they stay locked."""
        if job_id not in self._totals:
            self._totals[job_id] = self.records.jobs.add_to_totals(job_id, JobTotals())
        total, (files, size) = self._totals[job_id], self._listed.get(job_id, (0, 0))
        return replace(total, files=total.files + files, bytes=total.bytes + size)

    def begin_files(self, execution: Execution, files: Sequence[JobFile], opened: int) -> Execution:
        """Make the uploads of the next files, while there is room beside those that are open (`opened`)."""
        job, client = self.jobs[execution.job_id], self.clients.get(execution.client_id)
        if client is None:
            return execution
        for file in files:
            if opened >= MAX_OPEN_FILES:
                return execution
            try:
                begun = self._begin(job, file, client)
            except QuotaExceeded:
                return self.apply(execution, Postponed(now=self.now, due_at=self.now + QUOTA_PAUSE))
            opened += begun
            if not begun:
                execution = self.apply(execution, Postponed(now=self.now, due_at=self.now))
        return execution

    def _begin(self, job: Job, file: JobFile, client: Client) -> bool:
        """Whether an upload was made; else the file has failed."""
        if client.needs_operator:
            self.change_file(replace(file, outcome=FileOutcome.FAILED, reason=NEEDS_OPERATOR))
            return False
        reachable = client.dispatchable(self.now)
        try:
            for marked in (False, True):
                upload = self.tools.planner.plan(job, file, client, self.now, marked=marked)
                try:
                    decision = self.tools.writer.admit(self.records, upload, self.now, reachable=reachable)
                except KeyTaken as error:
                    taken = str(error)
                    continue
                self.effects.decisions.append(decision)
                self.effects.changes.append(
                    UploadCreated(
                        at=self.now, client_id=upload.client_id, upload_id=upload.upload_id, job_id=job.job_id
                    )
                )
                self.change_file(replace(file, upload_id=upload.upload_id, key=upload.s3_key))
                return True
        except BadKey as error:
            taken = str(error)
        reason = Reason(ReasonCode.BAD_KEY, taken)
        self.change_file(replace(file, outcome=FileOutcome.FAILED, reason=reason))
        return False

    # --- the end -----------------------------------------------------------------------------------------------------

    def ask_for_approval(self, job_id: str) -> None:
        """Note that a person has to approve something of the job."""
        self.apply_to_job(job_id, ApprovalNeeded(now=self.now))

    def finish(self) -> Effects:
        """Write everything; the last step of the transaction."""
        jobs, files = self.records.jobs, self.records.jobs.files
        changed = self._changed_files
        new = [changed.pop((one.job_id, one.client_id, one.n), one) for one in self._new_files]
        files.add(new)
        files.put(list(changed.values()))
        give_up_files(self.records, self._given_up)
        pairs = [(self._before[key], after) for key, after in sorted(self._after.items())]
        jobs.executions.save(pairs)
        for job_id, change in sorted(_sums(pairs).items()):
            if change != JobTotals():
                jobs.add_to_totals(job_id, change)
        self._save_jobs()
        jobs.wake({after.job_id for before, after in pairs if _concerns_job(before, after)}, self.now)
        self.effects.changes += [
            execution_changed(before, after, self.now) for before, after in pairs if before.state is not after.state
        ]
        if self.effects.changes:
            self.records.changes.append(self.effects.changes)
        return self.effects

    def _save_jobs(self) -> None:
        for job_id, before in sorted(self._before_jobs.items()):
            after = self.jobs[job_id]
            if after is not before:
                self.records.jobs.save(before, after)
                carry_over(self.records, self.tools.writer, before, after, self.now)
                if after.state is not before.state:
                    self.effects.changes.append(job_changed(before, after, self.now))
                elif after.spec_version != before.spec_version or after.approval is not before.approval:
                    self.effects.changes.append(JobChanged(at=self.now, job_id=job_id, version=after.spec_version))


def give_up_files(records: Records, ended: Iterable[Execution]) -> None:
    """Decide the files that were not begun of executions that are over."""
    ends: dict[tuple[FileOutcome, Reason], list[ExecutionKey]] = defaultdict(list)
    for execution in ended:
        # The files of an earlier attempt are no longer among its counts.
        if execution.files or execution.attempt > 1:
            rejected = execution.state is ExecutionState.REJECTED
            outcome = FileOutcome.REJECTED if rejected else FileOutcome.LEFT_OUT
            ends[outcome, execution.reason].append(execution.key)
    for (outcome, reason), keys in ends.items():
        records.jobs.files.give_up(keys, outcome, reason)


def _concerns_job(before: Execution, after: Execution) -> bool:
    """Whether the job has something to do: a place is free, an execution is over, or one waits for its turn."""
    if before.state is after.state:
        return False
    free = before.state in RUNNING_EXECUTIONS and after.state not in RUNNING_EXECUTIONS
    return free or after.state in EXECUTION_TERMINAL or after.state is ExecutionState.QUEUED


def _sums(pairs: Sequence[tuple[Execution, Execution]]) -> Mapping[str, JobTotals]:
    sums: dict[str, JobTotals] = {}
    for before, after in pairs:
        one = sums.get(after.job_id, JobTotals())
        sums[after.job_id] = JobTotals(
            one.files + after.files - before.files,
            one.bytes + after.bytes - before.bytes,
            one.proven + after.proven - before.proven,
            one.proven_bytes + after.proven_bytes - before.proven_bytes,
        )
    return sums


def execution_changed(before: Execution | None, after: Execution, now: float) -> ExecutionStateChanged:
    """The change of an execution's state."""
    return ExecutionStateChanged(
        at=now,
        job_id=after.job_id,
        client_id=after.client_id,
        attempt=after.attempt,
        was=None if before is None else str(before.state),
        state=str(after.state),
        reason=after.reason.code,
    )


def job_changed(before: Job | None, after: Job, now: float) -> JobStateChanged:
    """The change of a job's state."""
    return JobStateChanged(
        at=now,
        job_id=after.job_id,
        was=None if before is None else str(before.state),
        state=str(after.state),
        outcome=None if after.outcome is None else str(after.outcome),
    )
