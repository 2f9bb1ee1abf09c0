"""Advances jobs: level-triggered, from what is stored and due.

Rule: every step is one transaction that reads rows, applies the machines and writes; only then is anything published.
What a crash leaves undone is due again, and a repeat of it changes nothing. Two replicas may run: rows are written by
compare-and-set, and the loser reads again.
"""

import asyncio
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

from control_plane.domain.changes import Change, UploadStateChanged
from control_plane.domain.jobs.events import Removed
from control_plane.domain.jobs.executions import apply
from control_plane.domain.jobs.machine import ACTIVE
from control_plane.domain.jobs.model import EXECUTION_OPEN, ExecutionKey, ExecutionState, FileOutcome
from control_plane.domain.reasons import Reason, ReasonCode
from control_plane.domain.uploads.events import CancelRequested
from control_plane.domain.uploads.model import TERMINAL, State, Upload
from control_plane.services.clients.targeting import resolves
from control_plane.services.commands import CommandPublisher
from control_plane.services.errors import BadInput, Permanent, ServiceError, Transient, VersionConflict
from control_plane.services.fair_queue import FairQueue
from control_plane.services.jobs.due import BATCH, change_membership, joins, turn_executions, turn_job
from control_plane.services.jobs.selections import Answer, take_answers
from control_plane.services.jobs.turn import Effects, JobTools, JobTurn, execution_changed, give_up_files
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.database import Database, Records
from control_plane.services.ports.jobs import Settlement
from control_plane.services.ports.log import EventLog
from control_plane.services.uploads.writer import Commit, UploadWriter
from schemas.messages import Command, Response

T = TypeVar("T")

POLL: Final = 1.0
LINGER: Final = 0.03
"""Seconds for which answers and ends of uploads are gathered for one commit."""

MAX_AT_ONCE: Final = 64
"""Requests that are being published."""

MAX_BACKLOG: Final = 256
"""Requests, duties, events and answers that wait for this process: until there are fewer, no execution begins.

A client with an open upload reports each second: what begins sooner than it can be served is more work, not faster.
"""

HOLD: Final = 0.1
"""Seconds until a job is looked at again whose next executions wait for a shorter backlog."""

MAX_WAITING: Final = 10_000
MAX_OF_ONE: Final = 64
JOBS_AT_ONCE: Final = 64
_TRIES: Final = 5

_FORGOTTEN: Final = Reason(ReasonCode.CLIENT_FORGOTTEN, "an operator deleted the client")
_OUTCOMES: Final = {State.COMPLETED: FileOutcome.PROVEN, State.REJECTED: FileOutcome.REJECTED}


class JobRunner:
    """Runs every job of the database. `duties_begun`: how many duties the outbox has begun and not finished."""

    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        log: EventLog,
        writer: UploadWriter,
        commands: CommandPublisher,
        tools: JobTools,
        duties_begun: Callable[[], int],
    ) -> None:
        self._database = database
        self._clock = clock
        self._log = log
        self._writer = writer
        self._commands = commands
        self.tools = tools
        self._duties_begun = duties_begun
        self._held_back = False
        self._answers: FairQueue[Answer] = FairQueue(most=MAX_WAITING, most_of_one=MAX_OF_ONE)
        self._changed_clients: dict[str, None] = {}
        self._poked = asyncio.Event()
        self._soon: asyncio.TimerHandle | None = None
        self._at_once = asyncio.Semaphore(MAX_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        writer.on_end(settle_files)
        writer.on_commit(self._on_commit)

    def poke(self) -> None:
        """Look for what is due now."""
        self._poked.set()

    def receive(self, client_id: str, response: Response) -> None:
        """Take the answer to a `select_files`. Never waits; one that is dropped is requested again."""
        if self._answers.offer(client_id, Answer(client_id, response)):
            self._poke_soon()
        else:
            self._log("event.shed", {"client_id": client_id, "event": "select_files"})

    def on_clients(self, client_ids: Iterable[str]) -> None:
        """Clients were born, or their labels changed: they may join continuous jobs, or leave them."""
        self._changed_clients.update(dict.fromkeys(client_ids))
        self.poke()

    async def run(self) -> None:
        """Advance jobs until cancelled; then publications that wait are cancelled too."""
        try:
            while True:
                try:
                    more = await self.step()
                except ServiceError as error:
                    self._log("jobs.failed", {"error": str(error)})
                    more = False
                if not more:
                    await self._sleep()
        finally:
            if self._soon is not None:
                self._soon.cancel()
            for task in self._tasks:
                task.cancel()

    async def step(self) -> bool:
        """Do what is due now, a batch of each kind; True when there may be more of it at once."""
        more = False
        if self._answers:
            batch = [self._answers.get_nowait() for _ in range(min(BATCH, len(self._answers)))]
            await self._take(batch)
            more = bool(self._answers)
        if self._changed_clients:
            names = list(self._changed_clients)[:BATCH]
            for name in names:
                del self._changed_clients[name]
            try:
                more = await self._joined(names) or bool(self._changed_clients) or more
            except Transient:
                self.on_clients(names)
                raise
        now = self._clock.now()
        executions, jobs = await self._database.read(
            lambda records: (records.jobs.executions.next_due(), records.jobs.next_due())
        )
        if executions is not None and executions <= now:
            more = await self._turn(turn_executions) == BATCH or more
        self._held_back = self._held_back and jobs is not None and jobs <= now + HOLD
        if jobs is not None and jobs <= now:
            due = await self._database.read(lambda records: records.jobs.due(now, JOBS_AT_ONCE))
            for job_id in [job.job_id for job in due]:
                self._held_back = self._backlog >= MAX_BACKLOG
                hold = HOLD if self._held_back else None
                try:
                    more = await self._turn(functools.partial(_turn_job, job_id, hold)) or more
                except Permanent as error:
                    # The others do not wait for it.
                    self._log("jobs.failed", {"job_id": job_id, "error": str(error)})
        return more

    @property
    def _backlog(self) -> int:
        return len(self._tasks) + len(self._answers) + self._writer.backlog + self._duties_begun()

    async def _take(self, batch: Sequence[Answer]) -> None:
        """Apply these answers; when the database refuses what one of them claims, the others by themselves."""
        try:
            await self._turn(lambda turn: take_answers(turn, batch))
        except Permanent as error:
            if len(batch) == 1:
                self._log("jobs.failed", {"client_id": batch[0].client_id, "error": str(error)})
                return
            for one in batch:
                await self._take([one])

    async def _joined(self, client_ids: Sequence[str]) -> bool:
        jobs = await self._database.read(lambda records: records.jobs.continuous())
        for job_id in [job.job_id for job in jobs]:
            await self._turn(functools.partial(_turn_members, job_id, client_ids))
        return bool(jobs)

    async def _turn(self, work: Callable[[JobTurn], T]) -> T:
        """Run one transaction, and then do what it decided."""

        def transact(records: Records) -> tuple[T, Effects]:
            turn = JobTurn(records, self.tools, self._clock.now())
            result = work(turn)
            return result, turn.finish()

        for _ in range(_TRIES - 1):
            try:
                result, effects = await self._database.write(transact)
                break
            except VersionConflict:
                # Another replica, or the end of an upload, changed a row: read and apply again.
                self._log("write.fenced", {"what": "jobs"})
                continue
        else:
            result, effects = await self._database.write(transact)
        self._perform(effects)
        return result

    def _perform(self, effects: Effects) -> None:
        if effects.decisions or effects.changes:
            self._writer.announce(Commit(tuple(effects.decisions), tuple(effects.changes)))
        for key in effects.cancels:
            self._writer.enqueue(key, CancelRequested(now=self._clock.now()))
        for client_id, command in effects.requests:
            task = asyncio.create_task(self._publish(client_id, command))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _publish(self, client_id: str, command: Command) -> None:
        """A request that is not published is repeated by its timer."""
        async with self._at_once:
            try:
                await self._commands.publish(client_id, command)
            except ServiceError as error:
                self._log("select.failed", {"client_id": client_id, "error": str(error)})

    async def _sleep(self) -> None:
        try:
            async with asyncio.timeout(HOLD if self._held_back else POLL):
                await self._poked.wait()
        except TimeoutError:
            pass
        self._poked.clear()

    def _on_commit(self, commit: Commit) -> None:
        """An upload of a job ended: its execution is due."""
        if any(_ends_file(change) for change in commit.changes):
            self._poke_soon()

    def _poke_soon(self) -> None:
        """Look in `LINGER` seconds: what arrives until then shares a commit."""
        if self._soon is None:
            self._soon = asyncio.get_running_loop().call_later(LINGER, self._poke_now)

    def _poke_now(self) -> None:
        self._soon = None
        self.poke()


def _ends_file(change: Change) -> bool:
    return isinstance(change, UploadStateChanged) and change.job_id is not None and change.state in TERMINAL


def settle_files(records: Records, ended: Sequence[Upload]) -> None:
    """Store the outcome of the files of these uploads; their executions are due. In the transaction that ends them."""
    ends = [
        Settlement(
            job_id=upload.job_id,
            client_id=upload.client_id,
            n=upload.job_file,
            upload_id=upload.upload_id,
            outcome=_OUTCOMES.get(upload.state, FileOutcome.FAILED),
            reason=None
            if upload.state is State.COMPLETED
            else Reason(upload.error or str(upload.state), upload.message or ""),
            key=upload.s3_key,
        )
        for upload in ended
        if upload.job_id is not None and upload.job_file is not None
    ]
    records.jobs.files.settle(ends)


def forget_client(records: Records, client_id: str, now: float) -> None:
    """A client is deleted: what does not upload yet of its executions is `removed`. In that transaction."""
    pairs = [
        (one, apply(one, Removed(now=now, reason=_FORGOTTEN))) for one in records.jobs.executions.of_client(client_id)
    ]
    changed = [(before, after) for before, after in pairs if after is not before]
    records.jobs.executions.save(changed)
    give_up_files(records, [after for _, after in changed])
    records.jobs.wake({after.job_id for _, after in changed}, now)
    records.changes.append([execution_changed(before, after, now) for before, after in changed])


def _turn_job(job_id: str, hold: float | None, turn: JobTurn) -> bool:
    job = turn.records.jobs.get(job_id)
    return job is not None and job.open and job.next_wake_at <= turn.now and turn_job(turn, job, hold)


def _turn_members(job_id: str, client_ids: Sequence[str], turn: JobTurn) -> None:
    """Let clients join a continuous job, or leave it."""
    job = turn.records.jobs.get(job_id)
    if job is None or job.state not in ACTIVE:
        return
    turn.take_job(job)
    targets = job.spec.targets
    known = turn.records.jobs.executions.some(ExecutionKey(job_id, client_id) for client_id in client_ids)
    new, rejoin, leave = [], [], []
    for client_id in client_ids:
        execution = known.get(ExecutionKey(job_id, client_id))
        try:
            meant = resolves(turn.records, targets.clients, targets.selector, client_id, targets.reach)
        except BadInput:
            return
        if meant and execution is None:
            new.append(client_id)
        elif meant and execution is not None and execution.state is ExecutionState.REMOVED:
            rejoin.append(client_id)
        elif not meant and execution is not None and execution.state in EXECUTION_OPEN:
            leave.append(client_id)
    joins(turn, job, new)
    change_membership(turn, job, rejoin=rejoin, leave=leave)
