"""A fleet of two sites behind REST, and callers with a reach, over a database of its own.

Rule: the shipped services and database; only the clock stands still, and nothing runs the jobs. `of_site` makes the
same rows every time, so that two fleets can be compared answer by answer.
"""

import asyncio
import functools
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast

import httpx
from fastapi import FastAPI
from msgspec.structs import replace
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from control_plane.adapters.database import SqlDatabase
from control_plane.domain.access import ANONYMOUS, Principal
from control_plane.domain.changes import ClientConnected, UploadCreated
from control_plane.domain.jobs.four_eyes import OFF
from control_plane.domain.jobs.model import ExecutionKey, ExecutionState, JobFile, JobTotals
from control_plane.domain.jobs.spec import Targets
from control_plane.domain.reasons import Reason, ReasonCode
from control_plane.domain.uploads.model import State, UploadReceipt
from control_plane.observability import Metrics
from control_plane.services.engine import Engine, Ports, build_engine
from control_plane.services.jobs.creation import create_job
from control_plane.services.jobs.results.reader import JobResults
from control_plane.services.jobs.service import JobService
from control_plane.services.jobs.turn import JobTools
from control_plane.services.policy import Policy
from control_plane.services.ports.database import Records
from control_plane.services.receipts.service import ReceiptService
from control_plane.services.schedules.jobs import check_job, forecast_job, machine
from control_plane.services.schedules.service import ScheduleService
from control_plane.services.sessions.service import SessionService
from control_plane.services.sessions.tokens import TokenService
from control_plane.services.trust.keyring import ControlPlaneKey
from control_plane.services.trust.service import TrustService
from control_plane.settings import Settings
from schemas.receipts.envelope import encode_envelope, pae, seal_payload
from schemas.signing.ed25519 import Signer
from schemas.topics import Topics
from tests.support.devices import device_service, enrollment_requests
from tests.support.fake_services import NOW, SILENT, FakeServices, a_client, an_upload, api_over, http_to
from tests.support.fakes import FakeClock, FakeMessenger, FakeObjects
from tests.support.job_rest import empty_database
from tests.support.jobs import a_spec
from tests.support.schedules import a_schedule

PLANE_KEY: Final = ControlPlaneKey(Signer(b"p" * 32))
BERLIN = Principal("berlin", clients="site=berlin")
OF_BOTH = ("shared-job", "shared-schedule")
"""A job and a schedule that a caller without a reach made for clients of every site."""

_SIGNER = Signer(bytes(32))
RECEIPT = UploadReceipt(
    0.0,
    envelope=encode_envelope(seal_payload(b"{}", _SIGNER.kid, _SIGNER.sign_bytes(pae(b"{}")))).decode(),
    witness_key=_SIGNER.verifier.text,
    done_at=0.0,
)
"""Of each upload that is completed: signed by a control plane, and about nothing."""


@dataclass
class Fleet:
    """`api` answers every call as of `caller`."""

    api: FastAPI
    http: httpx.AsyncClient
    database: SqlDatabase
    engine: Engine
    caller: Principal = ANONYMOUS

    async def store(self, sites: Iterable[str]) -> None:
        """Insert what belongs to these sites, and what belongs to all of them."""
        names = list(sites)
        for site in names:
            await self.database.write(lambda records, site=site: _store_site(records, site))  # type: ignore[misc]
        await self.database.write(lambda records: _store_shared(records, names))

    async def end(self, job_id: str, *client_ids: str) -> None:
        """Let the executions of these clients fail."""

        def work(records: Records) -> None:
            found = records.jobs.executions.some(ExecutionKey(job_id, one) for one in client_ids).values()
            over = {"state": ExecutionState.FAILED, "due_at": None, "ended_at": NOW}
            records.jobs.executions.save([(one, replace(one, **over)) for one in found])

        await self.database.write(work)

    async def rows(self) -> str:
        """Everything that the acts of callers change, as text."""

        def work(records: Records) -> str:
            clients = records.clients.among(records.clients.matching(["*"], None))
            jobs = records.jobs.some(["berlin-job", "munich-job", "shared-job"])
            schedules = [records.schedules.get(f"{name}-schedule") for name in ("berlin", "munich", "shared")]
            uploads = [records.uploads.by_id(f"{name}-upload-{n}") for name in ("berlin", "munich") for n in (1, 2, 3)]
            executions = [records.jobs.executions.of_client(client_id) for client_id in sorted(clients)]
            return repr([sorted(clients.items()), sorted(jobs.items()), schedules, uploads, executions])

        return await self.database.read(work)


@asynccontextmanager
async def fleet_of(
    folder: Path, *sites: str, caller: Principal = ANONYMOUS, jwt_secret: str | None = None
) -> AsyncIterator[Fleet]:
    """REST over these sites, for one caller that a test may change; with `jwt_secret` for those of tokens."""
    clock, database, messenger = FakeClock(), _database_in(folder), FakeMessenger()
    clock.time = NOW
    objects = FakeObjects()
    engine = build_engine(Ports(database, objects, messenger, clock), lambda *_: None, Policy(), fleet=True)
    tools = cast("JobTools", SimpleNamespace(beats=engine.beats, writer=engine.uploads))
    jobs = JobService(
        database=database, clock=clock, beats=engine.beats, tools=tools, poke=lambda: None, sets=engine.chooser.sets
    )
    schedules = ScheduleService(
        database=database, clock=clock, jobs=machine(OFF), check=check_job, forecast=forecast_job, on_made=lambda: None
    )
    devices = device_service(engine)
    real: dict[str, Any] = {
        "uploads": engine.upload_service,
        "clients": engine.client_service,
        "fleet": engine.fleet_service,
        "budgets": engine.budget_service,
        "overview": engine.overview_service,
        "jobs": jobs,
        "job_results": JobResults(database, objects, clock),
        "schedules": schedules,
        "receipts": ReceiptService(
            uploads=engine.upload_service,
            database=database,
            object_store=objects,
            probe=engine.probe,
            clock=clock,
            log=lambda *_: None,
            policy=Policy(),
            is_witness=lambda _key: True,
        ),
        "clock": clock,
        "devices": devices,
        "enrollments": enrollment_requests(engine, devices),
        "trust": TrustService(database, clock, lambda *_: None, messenger, Topics(), PLANE_KEY),
    }
    api = _api(folder.name)
    if jwt_secret is not None:
        sessions, tokens = SessionService(database, clock, jwt_secret), TokenService(database, clock, 86_400)
        api = api_over(
            FakeServices(),
            Settings.load({"JWT_SECRET": jwt_secret}),
            Metrics(SILENT),
            sessions=sessions,
            tokens=tokens,
        )
    for name, service in real.items():
        setattr(api.state, name, service)
    async with http_to(api) as http:
        fleet = Fleet(api, http, database, engine, caller)
        if jwt_secret is None:
            api.state.two_sites = fleet
        await fleet.store(sites)
        writing = asyncio.create_task(engine.uploads.run())
        try:
            yield fleet
        finally:
            writing.cancel()
            await asyncio.wait([writing])
            await database.close()


@functools.cache
def _api(_name: str) -> FastAPI:
    """The routes are the same for every test; the services behind them are set for each."""
    api = api_over(FakeServices(), Settings.load({}), Metrics(SILENT))
    api.user_middleware.append(Middleware(_CallerOfFleet))
    return api


class _CallerOfFleet:
    """Behind all gates: whoever they identified, the caller is the fleet's."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["state"].update(caller=scope["app"].state.two_sites.caller, valid_until=float("inf"))
        await self._app(scope, receive, send)


def _database_in(folder: Path) -> SqlDatabase:
    folder.mkdir()
    file = folder / "backhaul.db"
    file.write_bytes(empty_database())
    return SqlDatabase.open(f"sqlite:///{file}")


def _store_site(records: Records, site: str) -> None:
    """Two clients, uploads that wait, failed and are completed, a job with a file, a schedule with a cell."""
    labels = {"site": site}
    ids = [f"{site}-1", f"{site}-2"]
    shown = {"labels": labels, "capabilities": ("select_files",), "roots": ("/data",), "seen_at": NOW - 5}
    records.clients.save([a_client(ids[0], **shown), replace(a_client(ids[1], **shown), online=False)])
    records.changes.append([ClientConnected(at=NOW - 300, client_id=ids[0])])
    for n, state in enumerate((State.QUEUED, State.FAILED, State.COMPLETED), start=1):
        upload = an_upload(
            f"{site}-upload-{n}", client_id=ids[0], s3_key=f"uploads/{site}/{n}", created_at=NOW - 60 * n
        )
        ended = {"error": f"error_of_{site}", "message": f"text of {site}"} if state is State.FAILED else {}
        receipt = RECEIPT if state is State.COMPLETED else None
        records.uploads.add(replace(upload, state=state, receipt=receipt, **ended))
        records.changes.append([UploadCreated(at=NOW, client_id=ids[0], upload_id=upload.upload_id)])
    targets = Targets(selector="site", reach=f"site={site}")
    create_job(records, f"{site}-job", a_spec(targets=targets), NOW, site, client_ids=ids)
    _settle(records, f"{site}-job", ids[0], f"/data/{site}.csv")
    records.schedules.add(a_schedule(f"{site}-schedule", NOW - 7200, job=a_spec(targets=targets)))
    records.coverage.add(f"{site}-schedule", NOW - 3600, f"{site}-job", now=NOW, watch_until=NOW + 1e6)


def _store_shared(records: Records, sites: list[str]) -> None:
    job_id, schedule_id = OF_BOTH
    ids = [f"{site}-{n}" for site in sites for n in (1, 2)]
    create_job(records, job_id, a_spec(targets=Targets(clients=tuple(ids))), NOW, "operator", client_ids=ids)
    for site in sites:
        _settle(records, job_id, f"{site}-1", f"/data/{site}.csv")
    job = records.jobs.get(job_id)
    assert job is not None
    text = f"half of {len(ids)} clients failed: {', '.join(ids)}"
    records.jobs.save(job, replace(job, reason=Reason(ReasonCode.PAUSED, text)))
    shared = a_schedule(schedule_id, NOW - 7200, job=a_spec(targets=Targets(clients=tuple(ids))))
    records.schedules.add(replace(shared, note=f"for {ids}"))
    records.coverage.add(schedule_id, NOW - 3600, job_id, now=NOW, watch_until=NOW + 1e6)


def _settle(records: Records, job_id: str, client_id: str, path: str) -> None:
    """Give an execution a file that it waits for approval to send."""
    key = ExecutionKey(job_id, client_id)
    one = records.jobs.executions.some([key])[key]
    after = replace(
        one,
        state=ExecutionState.AWAITING_APPROVAL,
        listed_at=NOW - 1,
        files=1,
        bytes=7,
        matched_files=1,
        matched_bytes=7,
    )
    records.jobs.executions.save([(one, after)])
    records.jobs.add_to_totals(job_id, JobTotals(files=1, bytes=7))
    records.jobs.files.add([JobFile(job_id=job_id, client_id=client_id, n=1, path=path, size=7, mtime_ns=1)])
