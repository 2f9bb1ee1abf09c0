"""The operator of a history of jobs: creates them until they are accepted, and steers them at random.

Rule: what the operator knows is what was answered. A call whose control plane died may have taken effect or not.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from control_plane.domain.access import Principal
from control_plane.domain.errors import DomainError
from control_plane.domain.jobs.four_eyes import OFF
from control_plane.domain.jobs.model import JOB_TERMINAL, JobState
from control_plane.domain.jobs.spec import JobSpec
from control_plane.services.engine import Engine
from control_plane.services.errors import BadInput, ServiceError
from control_plane.services.jobs.service import ActedOn, Choice, JobRequest, JobService
from control_plane.services.schedules.jobs import check_job, forecast_job, machine
from control_plane.services.schedules.service import ScheduleService
from tests.simulation.jobs.plane import Lost
from tests.simulation.jobs.site import Site
from tests.simulation.promises import Broken

T = TypeVar("T")

ANYONE: Final = Principal("operator")
PATIENCE: Final = 30.0
AGAIN: Final = 3.0


def schedules_of(engine: Engine) -> ScheduleService:
    """The use cases of schedules of this control plane."""
    return ScheduleService(
        database=engine.ports.database, clock=engine.clock, jobs=machine(OFF), check=check_job, forecast=forecast_job
    )


class Operator:
    """`accepted` are the clients of each job that was accepted; `cancelled` when a cancel of a job was accepted."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._world = site.world
        self._tasks: set[asyncio.Task[None]] = set()
        self.waiting: set[str] = set()
        self.accepted: dict[str, int] = {}
        self.refused: set[str] = set()
        self.cancelled: dict[str, float] = {}
        self.extended: dict[str, float] = {}
        self.settled_at = 0.0
        self._services: dict[int, JobService] = {}
        self.faults: list[str] = []

    # --- one call ---

    async def ask(self, what: Callable[[JobService], Coroutine[Any, Any, T]]) -> T:
        """One call of a control plane that runs; `Lost`, or the error that was answered."""
        plane = self._world.chance.choice(self._site.planes)

        async def call(engine: Engine) -> T:
            async with asyncio.timeout(PATIENCE):
                return await what(self._service(engine))

        return await plane.call(call)

    def _service(self, engine: Engine) -> JobService:
        """The use cases of this control plane; they remember the sets that they showed."""
        if self._services.get(id(engine)) is None:
            assert engine.jobs is not None
            self._services[id(engine)] = JobService(
                database=engine.ports.database,
                clock=engine.clock,
                beats=engine.beats,
                tools=engine.jobs.tools,
                poke=engine.jobs.poke,
            )
        return self._services[id(engine)]

    async def create(self, job_id: str, spec: JobSpec) -> int:
        """Create a job, again until it is accepted; returns its clients."""
        request = JobRequest(spec, repr(spec), job_id)
        while True:
            try:
                view, _ = await self.ask(lambda jobs: jobs.create(ANYONE, request))
            except (Lost, TimeoutError) as error:
                self._world.note("operator", f"create {job_id}: {error!r}")
            except BadInput as error:
                # No client matches, or none may read such a path.
                self._world.note("operator", f"create {job_id} is refused: {error!r}")
                self.refused.add(job_id)
                return 0
            except (ServiceError, DomainError) as error:
                self._world.note("operator", f"create {job_id}: {error!r}")
            else:
                self._world.note("operator", f"{job_id} has {view.job.clients} clients: {spec}")
                self.accepted[job_id] = view.job.clients
                return view.job.clients
            await asyncio.sleep(AGAIN)

    async def verb(self, name: str, act: Callable[[JobService], Coroutine[Any, Any, ActedOn]]) -> ActedOn | None:
        """Once; None when it was refused or not answered."""
        try:
            done = await self.ask(act)
        except (Lost, TimeoutError, ServiceError, DomainError) as error:
            self._world.note("operator", f"{name}: {error!r}")
            return None
        self._world.note("operator", f"{name}: {done.view.job.state}, {done.executions} executions")
        return done

    # --- a whole history ---

    def plan(self, job_id: str, spec: JobSpec, at: float) -> None:
        """Create this job in `at` seconds."""
        self.waiting.add(job_id)
        self._begin(self._create_later(job_id, spec, at))

    def meddle(self) -> None:
        """One verb on one job, at random."""
        jobs = [name for name in self._site.checks.jobs if name in self.accepted]
        if not self._world.calm and jobs:
            self._begin(self._meddle(self._world.chance.choice(jobs)))

    def settle(self) -> None:
        """The calm begins: resume what is paused and approve what waits, from now on."""
        self.settled_at = self._world.now()
        self._begin(self._settle())

    def stop(self) -> None:
        """Cancel what is under way."""
        for task in self._tasks:
            task.cancel()

    async def _create_later(self, job_id: str, spec: JobSpec, at: float) -> None:
        await asyncio.sleep(at)
        await self.create(job_id, spec)
        self.waiting.discard(job_id)

    async def _meddle(self, job_id: str) -> None:
        chance, checks = self._world.chance, self._site.checks
        row = checks.jobs[job_id]
        kind = chance.choice(["pause", "pause", "resume", "resume", "cancel", "extend", "retry", "approve", "reject"])
        if kind == "pause":
            await self.verb(f"pause {job_id}", lambda jobs: jobs.pause(ANYONE, job_id))
        elif kind == "resume":
            await self.verb(f"resume {job_id}", lambda jobs: jobs.resume(ANYONE, job_id))
        elif kind == "cancel":
            if await self.verb(f"cancel {job_id}", lambda jobs: jobs.cancel(ANYONE, job_id)) is not None:
                self.cancelled.setdefault(job_id, self._world.now())
        elif kind == "extend":
            await self.extend(job_id, row.deadline + chance.choice([300.0, 3600.0]))
        elif kind == "retry":
            await self.retry(job_id)
        elif kind == "approve":
            await self.approve(job_id)
        else:
            await self.verb(f"reject {job_id}", lambda jobs: jobs.reject(ANYONE, job_id, Choice()))

    async def extend(self, job_id: str, deadline: float) -> ActedOn | None:
        """Move the deadline."""
        version = self._site.checks.jobs[job_id].spec_version
        done = await self.verb(
            f"extend {job_id} to {deadline:.0f}", lambda jobs: jobs.extend(ANYONE, job_id, version, deadline)
        )
        if done is not None:
            self.extended[job_id] = deadline
        return done

    async def retry(self, job_id: str, choice: Choice | None = None) -> ActedOn | None:
        """Repeat what ended badly."""
        row = self._site.checks.jobs[job_id]
        deadline = self._world.wall() + 1800.0 if row.state in JOB_TERMINAL else None
        # Before the call: its answer may be lost.
        self._site.checks.retried.add(job_id)
        done = await self.verb(
            f"retry {job_id}",
            lambda jobs: jobs.retry(ANYONE, job_id, row.spec_version, choice or Choice(), deadline),
        )
        if done is not None and done.executions:
            self.cancelled.pop(job_id, None)
        return done

    async def approve(self, job_id: str) -> ActedOn | None:
        """Approve all that was listed up to now."""
        now = self._world.wall()
        return await self.verb(
            f"approve {job_id}",
            lambda jobs: jobs.approve(ANYONE, job_id, client_ids=None, but=frozenset(), as_of=now, later=True),
        )

    async def _settle(self) -> None:
        while True:
            for job_id, row in list(self._site.checks.jobs.items()):
                if row.state == JobState.PAUSED:
                    await self.verb(f"resume {job_id}", lambda jobs, one=job_id: jobs.resume(ANYONE, one))  # type: ignore[misc]
                if row.state not in JOB_TERMINAL and any(
                    one.state == "awaiting_approval" for key, one in self._site.checks.rows.items() if key[0] == job_id
                ):
                    await self.approve(job_id)
            await asyncio.sleep(60.0)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._site.checks.breaches.append(Broken(f"the operator met {error!r}"))
