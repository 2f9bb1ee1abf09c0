"""The engine with jobs, over SQLite that runs on the event loop, and devices that answer at once.

Rule: only the test moves the clock. A rig may be killed at any commit, and another one started on its database.
"""

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Self, TypeVar

from sqlalchemy import Engine, create_engine
from sqlalchemy.pool import StaticPool

from control_plane.adapters.database import transactions
from control_plane.adapters.database.database import SqlRecords
from control_plane.adapters.database.sql import Transaction
from control_plane.adapters.database.uploads.parts import PartsCache
from control_plane.domain.jobs.model import (
    EXECUTION_TERMINAL,
    JOB_TERMINAL,
    Execution,
    ExecutionKey,
    Job,
    JobFile,
    in_state,
)
from control_plane.domain.jobs.spec import FileQuery, JobSpec, Targets
from control_plane.services.clients import registry
from control_plane.services.clients.registry import PAUSE
from control_plane.services.jobs.creation import create_job
from control_plane.services.policy import Policy
from control_plane.services.ports.database import Records
from control_plane.services.ports.messenger import Delivered, UserProperties
from schemas.codec import encode
from schemas.messages import (
    AgentInfo,
    CancelUpload,
    Command,
    DownloadFile,
    FileEntry,
    GrantParts,
    Presence,
    Response,
    ResponsePayload,
    SelectFiles,
    Selection,
    UploadReport,
)
from schemas.topics import CONTROL_PLANE, Channel
from schemas.values import Action, Fingerprint
from tests.simulation.jobs.database import migrated
from tests.support.fakes import FakeClock, FakeObjects, Rig
from tests.support.uploads import wanted

T = TypeVar("T")
SIZE: Final = 12 * 1024 * 1024
"""Bytes of every file that is sent: what `FakeObjects` shows of an object."""


Started = Callable[..., Any]
"""Starts a `JobRig` with the devices that it is given, all of them connected."""


class Killed(BaseException):
    """The process ends here."""


class InlineDatabase:
    """`Database` in memory. After commit number `dies_at` every call ends in `Killed`; `checks` run at each commit."""

    def __init__(self) -> None:
        self.driver = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self.driver.deserialize(migrated())
        self.commits = 0
        self.dies_at: int | None = None
        self.checks: list[Callable[[Records], None]] = []
        self._cache = PartsCache()
        self._engine: Engine = create_engine(
            "sqlite+pysqlite://", creator=lambda: self.driver, poolclass=StaticPool, paramstyle="named"
        )

    async def write(self, work: Callable[[Records], T]) -> T:
        """One transaction."""
        await asyncio.sleep(0)
        self._live()
        before = self.driver.total_changes
        done = self._run("BEGIN IMMEDIATE", work)
        if self.driver.total_changes != before:
            self.commits += 1
            for check in self.checks:
                self._run("BEGIN", check)
            if self.dies_at is not None and self.commits >= self.dies_at:
                raise Killed
        return done

    async def read(self, work: Callable[[Records], T]) -> T:
        """One snapshot."""
        await asyncio.sleep(0)
        self._live()
        return self._run("BEGIN", work)

    def _live(self) -> None:
        if self.dies_at is not None and self.commits >= self.dies_at:
            raise Killed

    def _run(self, begin: str, work: Callable[[Records], T]) -> T:
        def whole(connection: Any) -> T:  # noqa: ANN401 - SQLAlchemy's connection
            connection.connection.driver_connection.execute(begin)
            return work(SqlRecords(Transaction(connection), self._cache))

        return transactions.run(self._engine, whole, 0.0)

    async def check(self) -> None:
        """It can always be used."""

    async def close(self) -> None:
        """Forget it."""
        self._engine.dispose()
        self.driver.close()


@dataclass
class Device:
    """A device that answers as it is told. `ends` has the end of each file that is not sent: an error code.

    A list of codes is used up one by one; then the file is sent.
    """

    client_id: str
    paths: Sequence[str] = ("/data/a.log",)
    ends: dict[str, list[str]] = field(default_factory=dict)
    silent: bool = False
    deaf: frozenset[str] = frozenset()
    """Actions that it does not answer."""
    refuses: str | None = None
    walks: int = 0
    """How often it answers that it still walks."""
    page: int = 500
    changed: frozenset[str] = frozenset()
    """Paths that are other files when they are offered."""
    capabilities: tuple[str, ...] = tuple(Action)
    asked: Counter[str] = field(default_factory=Counter)
    selection: str = "s1"
    labels: dict[str, str] = field(default_factory=dict)
    size: int = SIZE
    policy: tuple[str, ...] = ()
    """The rules of its owner, as its presence has them."""

    def entries(self) -> list[FileEntry]:
        """What it lists."""
        return [FileEntry(path, self.size, 1_000 + n) for n, path in enumerate(self.paths)]

    def answers(self, command: Command) -> list[Response]:
        """The answers to a command."""
        payload = command.payload
        self.asked[command.action] += 1
        if self.silent or command.action in self.deaf:
            return []
        if isinstance(payload, SelectFiles):
            return [self._select(command, payload)]
        if isinstance(payload, DownloadFile):
            return [self._offer(command, payload)]
        if isinstance(payload, GrantParts) and payload.upload_config and payload.upload_config.presigned_urls:
            return [self._sent(payload)]
        if isinstance(payload, CancelUpload):
            report = UploadReport(upload_id=payload.upload_id, owner=CONTROL_PLANE, attempt=payload.attempt or 1)
            return [_response(report, "cancelled", action=command.action)]
        return []

    def _select(self, command: Command, request: SelectFiles) -> Response:
        about: dict[str, Any] = {"action": command.action, "message_id": command.message_id}
        if self.refuses:
            status = "rejected" if self.refuses == "path_not_allowed" else "error"
            return Response(
                status=status, payload=Selection(request.job_id, "none", complete=False), error=self.refuses, **about
            )
        if self.walks:
            self.walks -= 1
            return Response(
                status="success", payload=Selection(request.job_id, self.selection, complete=False), **about
            )
        entries = self.entries()
        last = request.offset + min(self.page, request.limit)
        page = Selection(
            request.job_id,
            self.selection,
            complete=True,
            files=len(entries),
            bytes=len(entries) * self.size,
            offset=request.offset,
            entries=tuple(entries[request.offset : last]),
            next=last if last < len(entries) else None,
        )
        return Response(status="success", payload=page, **about)

    def _offer(self, command: Command, payload: DownloadFile) -> Response:
        config = payload.upload_config
        assert config is not None
        path = payload.file_path or ""
        about: dict[str, Any] = {"upload_id": config.upload_id, "owner": CONTROL_PLANE, "attempt": config.attempt}
        ends = self.ends.get(path, [])
        if ends:
            code = ends.pop(0) if len(ends) > 1 or ends[0] != "*" else ends[0]
            status = "rejected" if code == "path_not_allowed" else "error"
            code = "file_not_found" if code == "*" else code
            return _response(UploadReport(**about, file_path=path), status, action=command.action, error=code)
        n = list(self.paths).index(path)
        print_ = Fingerprint(self.size + (path in self.changed), 1_000 + n, 1, 1, 1)
        report = UploadReport(
            **about,
            file_path=path,
            file_size=self.size,
            fingerprint=print_,
            wanted_parts=wanted(self.size),
            chunk_size=5 * 1024 * 1024,
        )
        return _response(report, "in_progress", action=command.action, sequence=1)

    def _sent(self, payload: GrantParts) -> Response:
        config = payload.upload_config
        assert config is not None
        report = UploadReport(
            upload_id=config.upload_id,
            owner=CONTROL_PLANE,
            attempt=config.attempt or 1,
            etags={1: '"e1"', 2: '"e2"', 3: '"e3"'},
            file_size=self.size,
        )
        return _response(report, "success", action="download_file", sequence=2)


def _response(report: ResponsePayload, status: str, *, sequence: int | None = 1, **more: Any) -> Response:  # noqa: ANN401
    if isinstance(report, UploadReport):
        more["sequence"] = sequence
    return Response(message_id="m", status=status, payload=report, **more)


class JobRig(Rig):
    """A rig with jobs and devices; `on` are the devices that are connected."""

    def __init__(
        self,
        devices: Sequence[Device] = (),
        *,
        policy: Policy | None = None,
        database: InlineDatabase | None = None,
        clock: FakeClock | None = None,
        objects: FakeObjects | None = None,
    ) -> None:
        self.sql = database or InlineDatabase()
        super().__init__(policy, database=self.sql, clock=clock, fleet=True)
        if objects is not None:
            vars_of = ("objects", "multipart", "_ids")
            for name in vars_of:
                setattr(self.objects, name, getattr(objects, name))
        self.devices = {device.client_id: device for device in devices}
        self.on: set[str] = set()
        self.epoch = 0
        self._epochs: dict[str, int] = {}
        self._connections = 0
        self._sequence = 0
        self.messenger_publish = self.messenger.publish
        self.messenger.publish = self._publish  # type: ignore[method-assign]

    async def _publish(
        self,
        channel: Channel,
        client_id: str,
        payload: bytes,
        *,
        traceparent: str | None = None,
        properties: UserProperties = (),
    ) -> None:
        await self.messenger_publish(channel, client_id, payload, properties=properties)
        if channel is Channel.COMMAND and client_id in self.on:
            _, command = self.messenger.sent[-1]
            for response in self.devices[client_id].answers(command):
                message = Delivered(self.topics.of(client_id, Channel.RESPONSE), encode(response))
                asyncio.get_running_loop().call_soon(self.engine.inbox.receive, message)

    async def __aenter__(self) -> Self:
        # The pause in which births are gathered for one commit is real time.
        registry.PAUSE = 0.0  # type: ignore[misc]
        await super().__aenter__()
        assert self.engine.jobs is not None
        self._loops.append(asyncio.create_task(self.engine.jobs.run()))
        return self

    async def __aexit__(self, *_: object) -> None:
        registry.PAUSE = PAUSE  # type: ignore[misc]
        for loop in self._loops:
            loop.cancel()
        for loop in self._loops:
            with suppress(asyncio.CancelledError, Killed):
                await loop

    async def settle(self, seconds: float = 0.0) -> None:
        """Move the clock, and let everything that is due happen."""
        self.clock.time += seconds
        quiet = 0
        while quiet < 3:
            before = (self.sql.commits, len(self.messenger.sent))
            self.engine.outbox.poke()
            assert self.engine.jobs is not None
            self.engine.jobs.poke()
            for _ in range(40):
                await asyncio.sleep(0)
            quiet = quiet + 1 if before == (self.sql.commits, len(self.messenger.sent)) else 0

    async def beat(self) -> None:
        """Every device that is on sends a beat."""
        await self._present(sorted(self.on))

    async def connect(self, *client_ids: str) -> None:
        """Devices connect."""
        names = client_ids or tuple(self.devices)
        for client_id in names:
            self.on.add(client_id)
            self._connections += 1
            self._epochs[client_id] = self._connections
        await self._present(names)

    async def _present(self, client_ids: Sequence[str]) -> None:
        for client_id in client_ids:
            self._sequence += 1
            presence = Presence(
                client_id,
                status="online",
                epoch=self._epochs[client_id] + self.epoch,
                sequence=self._sequence,
                install_id=f"install-{client_id}",
                agent=AgentInfo(policy=self.devices[client_id].policy),
                capabilities=self.devices[client_id].capabilities,
                labels=self.devices[client_id].labels,
            )
            message = Delivered(self.topics.of(client_id, Channel.PRESENCE), encode(presence))
            self.engine.inbox.receive(message)
        await self.settle()

    def leave(self, client_id: str) -> None:
        """A device is gone, without a word."""
        self.on.discard(client_id)

    async def passes(self, seconds: float, step: float = 60.0) -> None:
        """Let time pass; devices that are on send their beats."""
        until = self.clock.time + seconds
        while self.clock.time < until:
            self.clock.time += min(step, until - self.clock.time)
            if self.on:
                await self.beat()
            else:
                await self.settle()

    async def create(self, job_id: str = "job", clients: Sequence[str] = ("*",), **changes: Any) -> Job:  # noqa: ANN401
        """An operator creates a job."""
        values: dict[str, Any] = {
            "targets": Targets(clients=tuple(clients)),
            "files": FileQuery(paths=("/data/*.log",)),
            **changes,
        }
        job = await self.database.write(
            lambda records: create_job(records, job_id, JobSpec(**values), self.clock.now(), "operator")
        )
        await self.settle()
        return job

    async def job(self, job_id: str = "job") -> Job:
        """The job as it is stored."""
        job = await self.database.read(lambda records: records.jobs.get(job_id))
        assert job is not None
        return job

    async def execution(self, client_id: str, job_id: str = "job") -> Execution:
        """An execution as it is stored."""
        key = ExecutionKey(job_id, client_id)
        return (await self.database.read(lambda records: records.jobs.executions.some([key])))[key]

    async def files(self, client_id: str, job_id: str = "job") -> Sequence[JobFile]:
        """The files of an execution."""
        return await self.database.read(lambda records: records.jobs.files.of(ExecutionKey(job_id, client_id)))

    async def states(self, job_id: str = "job") -> Mapping[str, str]:
        """The state of each execution."""
        found = await self.database.read(lambda records: records.jobs.executions.clients(job_id))
        return {client_id: str(state) for client_id, state in found.items()}

    def check_at_every_commit(self) -> None:
        """From now on the roll-ups are compared with the rows at each commit."""
        self.sql.checks.append(_require_true_sums)


def _require_true_sums(records: Records) -> None:
    for job in records.jobs.due(float("inf"), 100):
        counts = records.jobs.counts(job.job_id)
        assert counts == records.jobs.recounted(job.job_id)
        assert in_state(counts, *EXECUTION_TERMINAL) <= job.clients
        assert sum(counts.values()) == job.clients
        assert job.state not in JOB_TERMINAL
