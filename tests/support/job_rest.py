"""REST for jobs over a database of its own, without an engine: what a test stores is what REST shows.

Rule: the shipped services and database; only the clock stands still, and nothing runs the jobs.
"""

import functools
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
from fastapi import FastAPI

from control_plane.adapters.database import SqlDatabase, migrate
from control_plane.domain.clients import Client
from control_plane.domain.jobs.model import Execution, Job, JobFile
from control_plane.services.clients.beats import Beats
from control_plane.services.jobs.results.reader import JobResults
from control_plane.services.jobs.service import JobService
from control_plane.services.jobs.turn import JobTools
from control_plane.services.ports.database import Records
from tests.support.fake_services import NOW, FakeServices, a_client, http_to, make_api
from tests.support.fakes import FakeObjects

SMALLEST: dict[str, Any] = {"targets": {"clients": ["till-1"]}, "files": {"paths": ["/data/*.csv"]}}


@dataclass
class JobSite:
    """`pokes` counts how often the runner would have been woken."""

    http: httpx.AsyncClient
    database: SqlDatabase
    jobs: JobService
    objects: FakeObjects
    services: FakeServices
    pokes: list[None] = field(default_factory=list)

    async def store(self, *rows: Client | Job | Execution | JobFile) -> None:
        """Insert rows as they are."""

        def work(records: Records) -> None:
            records.clients.save([row for row in rows if isinstance(row, Client)])
            for row in rows:
                if isinstance(row, Job):
                    records.jobs.add(row)
            records.jobs.executions.add([row for row in rows if isinstance(row, Execution)])
            records.jobs.files.add([row for row in rows if isinstance(row, JobFile)])

        await self.database.write(work)

    async def create(self, **members: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
        """The document of a new job with these members."""
        answer = await self.http.post("/jobs", json={**SMALLEST, **members})
        assert answer.status_code == 201, answer.text
        document: dict[str, Any] = answer.json()
        return document

    async def job(self, job_id: str) -> Job:
        """The stored job."""
        job = await self.database.read(lambda records: records.jobs.get(job_id))
        assert job is not None
        return job

    async def execution(self, job_id: str, client_id: str) -> Execution:
        """The stored execution."""
        found = await self.database.read(lambda records: records.jobs.executions.of_client(client_id))
        return next(one for one in found if one.job_id == job_id)


def tills(count: int, **changes: object) -> Sequence[Client]:
    """Connected clients `till-1` and so on, which can select files."""
    given: dict[str, Any] = {"capabilities": ("select_files",), "roots": ("/data",), "seen_at": NOW - 5, **changes}
    return [a_client(f"till-{n}", **given) for n in range(1, count + 1)]


@functools.cache
def empty_database() -> bytes:
    """A migrated database: to copy one is faster than to migrate one for each test."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "empty.db"
        migrate(f"sqlite:///{file}")
        return file.read_bytes()


@functools.cache
def _api() -> FastAPI:
    """The routes are the same for every test; the services behind them are set for each."""
    return make_api(FakeServices())


@asynccontextmanager
async def job_site(folder: Path) -> AsyncIterator[JobSite]:
    """REST over an empty database below `folder`."""
    file = folder / "jobs.db"
    file.write_bytes(empty_database())
    database = SqlDatabase.open(f"sqlite:///{file}")
    services, objects = FakeServices(), FakeObjects()
    pokes: list[None] = []
    beats = Beats(NOW)
    # An act uses of the tools only what tells which client is connected, and the writer for uploads that are open.
    tools = cast("JobTools", SimpleNamespace(beats=beats, writer=None))
    jobs = JobService(database=database, clock=services, beats=beats, tools=tools, poke=lambda: pokes.append(None))
    api = _api()
    api.state.jobs, api.state.job_results = jobs, JobResults(database, objects)
    try:
        async with http_to(api) as http:
            yield JobSite(http, database, jobs, objects, services, pokes)
    finally:
        await database.close()
