"""The use cases over dictionaries: what a REST test needs of the services, and a record of the calls.

Rule: no rule of the services is repeated here; it finds, records and raises what a test sets.
"""

import dataclasses
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import fields
from typing import Any, Final

import httpx
import structlog
from fastapi import FastAPI
from msgspec.structs import replace
from structlog.typing import FilteringBoundLogger

from control_plane.adapters.memory.database import MemoryDatabase
from control_plane.adapters.webhooks import HttpWebhookSender
from control_plane.api.app import ApiServices, create_api
from control_plane.api.events.frames import FRAMES
from control_plane.api.gates import RECEIPT_DEADLINE
from control_plane.domain.access import Principal
from control_plane.domain.clients import Client
from control_plane.domain.reasons import Reason, ReasonCode
from control_plane.domain.uploads.model import Origin, State, Upload
from control_plane.observability import Metrics
from control_plane.services.budget import IngestBudget
from control_plane.services.clients.choosing import ClientChoice, ClientFilter
from control_plane.services.clients.fleet import FleetService
from control_plane.services.clients.history import History, history_of
from control_plane.services.clients.listings import FoundListing
from control_plane.services.clients.service import ClientService, FoundClients
from control_plane.services.engine import Engine
from control_plane.services.errors import UnknownClient, UnknownUpload
from control_plane.services.events.streams import EventStreams
from control_plane.services.events.webhooks.service import WebhookService
from control_plane.services.gate.budgets import BudgetService
from control_plane.services.jobs.results.reader import JobResults
from control_plane.services.jobs.service import JobService
from control_plane.services.jobs.views import JobView
from control_plane.services.ports.database import Page, UploadFilter
from control_plane.services.ports.jobs import JobFilter
from control_plane.services.ports.object_store import ObjectStoreCapabilities
from control_plane.services.readiness import Readiness, ReadinessCheck
from control_plane.services.sessions.service import SignedIn
from control_plane.services.uploads.service import Cancelled, Timeline, TriggerRequest, UploadService
from control_plane.services.uploads.views import UploadView
from control_plane.settings import Settings
from schemas.messages import AgentInfo, FileEntry, FileList, ListFiles
from schemas.values import DigestName

NOW: Final = 1_761_991_200.0
"""2025-11-01T10:00:00Z."""

OFFLINE: Final = Reason(ReasonCode.CLIENT_OFFLINE, "the client is offline")
SECRET: Final = "a secret of at least thirty-two bytes"
SILENT: Final[FilteringBoundLogger] = structlog.wrap_logger(
    structlog.ReturnLogger(), processors=[], wrapper_class=structlog.make_filtering_bound_logger("DEBUG")
)
HOST: Final = "http://127.0.0.1:8080"


def a_client(client_id: str = "restaurant-1", **changes: object) -> Client:
    """A client that is connected."""
    client = Client(
        client_id=client_id,
        install_id="install-1",
        epoch=42,
        sequence=7,
        online=True,
        seen_at=NOW - 5,
        connected_at=NOW - 300,
        agent=AgentInfo(version="1.0.0", hostname="pi", os="linux", arch="aarch64"),
        labels={"site": "berlin"},
        capabilities=("download_file",),
        default_file="/data/test-file.bin",
    )
    return replace(client, **changes)


def an_upload(upload_id: str = "upload-1", **changes: object) -> Upload:
    """An upload that waits for its client."""
    upload = Upload(
        client_id="restaurant-1",
        upload_id=upload_id,
        owner="control-plane",
        origin=Origin.REST,
        s3_key="uploads/restaurant-1/20251101-100000-test-file.bin",
        token="t",
        created_at=NOW - 60,
        updated_at=NOW,
        deadline=NOW + 3600,
        file_path="/data/test-file.bin",
    )
    return replace(upload, **changes)


class NoJobs(JobService):
    """The use cases of jobs where there is none."""

    def __init__(self) -> None:  # the real constructor needs real services
        pass

    async def jobs(self, _principal: Principal, where: JobFilter, page: Page) -> tuple[list[JobView], str | None]:
        assert (where, page) == (JobFilter(), Page())
        return [], None


class FakeServices(UploadService, ClientService, FleetService, BudgetService, ReadinessCheck):
    """All use cases in one. `fault`, when set, is raised by every call; `calls` are (name, arguments).

    `principals` are the callers of `trigger`. It is its own clock, which stands still.
    """

    def __init__(self) -> None:  # the real constructors need real services
        self.known = {"restaurant-1": a_client()}
        self.budget = self._budget = IngestBudget(self)
        self.views = {"upload-1": UploadView(an_upload(), OFFLINE, NOW + 30)}
        self.found = FileList(files=(FileEntry(path="/data/a", size=1, mtime_ns=3),), cursor="next")
        self.state = Readiness(
            ready=True,
            checks={"broker": "ok", "database": "ok", "object_store": "ok", "clock": "ok"},
            probe=ObjectStoreCapabilities(part_digests=frozenset({DigestName.MD5}), etag_is_md5=True),
        )
        self.jobs: JobService = NoJobs()
        self.job_results: JobResults | None = None
        self.fault: Exception | None = None
        self.calls: list[tuple[str, Any]] = []
        self.principals: list[Principal] = []
        self.denials: list[tuple[str | None, str | None, str, str, int]] = []
        self.revoked: set[str] = set()

    def now(self) -> float:
        return NOW

    def monotonic(self) -> float:
        return NOW

    async def trigger(self, principal: Principal, request: TriggerRequest) -> UploadView:
        self._note("trigger", request)
        self.principals.append(principal)
        client = await self.client(principal, request.client_id)
        return UploadView(an_upload(file_path=request.file_path or client.default_file), None, None)

    async def upload(self, _principal: Principal, upload_id: str, client_id: str | None = None) -> UploadView:
        self._note("upload", (upload_id, client_id))
        if upload_id not in self.views:
            raise UnknownUpload(upload_id)
        return self.views[upload_id]

    async def uploads(
        self, _principal: Principal, where: UploadFilter, page: Page, reason: str | None = None
    ) -> tuple[list[UploadView], str | None]:
        self._note("uploads", (where, page, reason))
        return list(self.views.values()), "next"

    async def cancel(self, principal: Principal, upload_id: str, client_id: str | None = None) -> UploadView:
        view = await self.upload(principal, upload_id, client_id)
        return dataclasses.replace(view, upload=replace(view.upload, state=State.CANCELLED))

    async def retry(self, principal: Principal, upload_id: str, client_id: str | None = None) -> UploadView:
        view = await self.upload(principal, upload_id, client_id)
        return dataclasses.replace(view, upload=replace(view.upload, upload_id="upload-2"))

    async def client(self, _principal: Principal, client_id: str) -> Client:
        self._note("client", client_id)
        if client_id not in self.known:
            raise UnknownClient(client_id)
        return self.known[client_id]

    async def client_status(self, principal: Principal, client_id: str) -> tuple[Client, UploadView | None]:
        return await self.client(principal, client_id), next(iter(self.views.values()), None)

    async def clients(self, _principal: Principal, where: ClientFilter, page: Page, _now: float) -> FoundClients:
        self._note("clients", (where, page))
        return FoundClients(list(self.known.values()), None, len(self.known), None)

    async def forget(self, principal: Principal, client_id: str) -> None:
        await self.client(principal, client_id)
        del self.known[client_id]

    async def listing(self, _principal: Principal, client_id: str, request: ListFiles) -> FoundListing:
        self._note("files", (client_id, request))
        return FoundListing(self.found, NOW)

    async def history(self, principal: Principal, client_id: str, seconds: float) -> History:
        client = await self.client(principal, client_id)
        return history_of(client, (), NOW - seconds, NOW)

    async def timeline(self, principal: Principal, upload_id: str, client_id: str | None = None) -> Timeline:
        await self.upload(principal, upload_id, client_id)
        return Timeline((), complete=False)

    async def cancel_many(self, _principal: Principal, choice: ClientChoice) -> Cancelled:
        self._note("cancel_many", choice)
        return Cancelled(1, 1, 0, more=False)

    async def label_many(
        self, _principal: Principal, choice: ClientChoice, changes: Mapping[str, str | None]
    ) -> tuple[int, int]:
        self._note("label_many", (choice, changes))
        return 1, 1

    async def object_url(self, principal: Principal, upload_id: str, client_id: str | None = None) -> tuple[str, float]:
        await self.upload(principal, upload_id, client_id)
        return "https://s3.example/uploads/key?X-Amz-Signature=abc", 900.0

    async def is_revoked(self, token_id: str) -> bool:
        return token_id in self.revoked

    def note(self, who: SignedIn) -> None:
        """Nothing lists tokens here."""

    async def readiness(self, _principal: Principal) -> Readiness:
        self._note("readiness", None)
        return self.state

    def denied(self, caller: Principal | None, address: str | None, method: str, path: str, status: int) -> None:
        """A request was denied."""
        self.denials.append((None if caller is None else caller.subject, address, method, path, status))

    def _note(self, name: str, arguments: object) -> None:
        self.calls.append((name, arguments))
        if self.fault is not None:
            raise self.fault


def fleet_api(services: FakeServices, engine: Engine) -> FastAPI:
    """The REST application over the clients, the uploads and the fleet of an engine; all else is of `services`."""
    real = {
        "uploads": engine.upload_service,
        "clients": engine.client_service,
        "fleet": engine.fleet_service,
        "budgets": engine.budget_service,
        "overview": engine.overview_service,
        "clock": engine.clock,
    }
    return create_api(Settings.load({}), Metrics(SILENT), _faked(services, **real))


def make_api(services: FakeServices, **settings: str) -> FastAPI:
    """The REST application with these settings over these services."""
    return api_over(services, Settings.load(settings), Metrics(SILENT))


def api_over(
    services: FakeServices,
    settings: Settings,
    metrics: Metrics,
    *,
    receipt_deadline: float = RECEIPT_DEADLINE,
    streams: EventStreams | None = None,
    webhooks: WebhookService | None = None,
    **others: object,
) -> FastAPI:
    """The REST application over these services; without `streams` or `webhooks` over those of an empty database."""
    streams = streams or EventStreams(MemoryDatabase(), services, lambda _event, _facts: None, FRAMES)
    webhooks = webhooks or WebhookService(MemoryDatabase(), services, HttpWebhookSender(), on_change=lambda: None)
    real = {"streams": streams, "webhooks": webhooks, "jobs": services.jobs, "job_results": services.job_results}
    return create_api(settings, metrics, _faked(services, **{**real, **others}), receipt_deadline=receipt_deadline)


def _faked(services: FakeServices, **real: object) -> ApiServices:
    """`services` stands for each service that is not in `real`."""
    chosen: dict[str, Any] = {field.name: real.get(field.name, services) for field in fields(ApiServices)}
    return ApiServices(**chosen)


@asynccontextmanager
async def http_to(api: FastAPI, headers: Mapping[str, str] | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """A caller on this machine, without a socket between."""
    transport = httpx.ASGITransport(api, raise_app_exceptions=True)
    async with httpx.AsyncClient(transport=transport, base_url=HOST, headers=headers) as http:
        yield http
