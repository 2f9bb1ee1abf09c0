"""Composes REST: routers, gates and the one exception handler, over services that the caller built.

Rule: composition only. `control_plane.bootstrap` builds the services and owns their lifetime.
"""

from dataclasses import dataclass, fields
from typing import Any, Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.telemetry import TelemetryConfig
from starlette.exceptions import HTTPException

from control_plane.api import clients as client_routes
from control_plane.api import health as health_routes
from control_plane.api import help as help_routes
from control_plane.api import pages
from control_plane.api import uploads as upload_routes
from control_plane.api.audit import routes as audit_routes
from control_plane.api.auth import BearerGate, CallRules, SignIn, TokenIssuer
from control_plane.api.devices import routes as device_routes
from control_plane.api.documents import SUMMARY, TITLE, complete
from control_plane.api.events import stream as stream_routes
from control_plane.api.events import webhooks as webhook_routes
from control_plane.api.fleet import bulk as bulk_routes
from control_plane.api.fleet import history as history_routes
from control_plane.api.fleet import overview as overview_routes
from control_plane.api.fleet import routes as fleet_routes
from control_plane.api.gate import routes as budget_routes
from control_plane.api.gates import RECEIPT_DEADLINE, HeadAsGet, Observe, OwnPages, SecurityHeaders, WholeBody
from control_plane.api.jobs import routes as job_routes
from control_plane.api.problems import answer
from control_plane.api.receipts import routes as receipt_routes
from control_plane.api.schedules import routes as schedule_routes
from control_plane.api.sessions import routes as session_routes
from control_plane.api.tokens import routes as token_routes
from control_plane.api.tokens.rates import CallRates
from control_plane.api.trust import routes as trust_routes
from control_plane.domain.errors import DomainError
from control_plane.observability import Metrics
from control_plane.services.audit.denials import Denials
from control_plane.services.audit.service import AuditService
from control_plane.services.clients.fleet import FleetService
from control_plane.services.clients.service import ClientService
from control_plane.services.devices.requests import EnrollmentRequests
from control_plane.services.devices.service import DeviceService
from control_plane.services.diagnosis.server import ServerDiagnosis
from control_plane.services.errors import ServiceError
from control_plane.services.events.streams import EventStreams
from control_plane.services.events.webhooks.service import WebhookService
from control_plane.services.gate.budgets import BudgetService
from control_plane.services.jobs.results.reader import JobResults
from control_plane.services.jobs.service import JobService
from control_plane.services.overview.replicas import ReplicaList
from control_plane.services.overview.service import OverviewService
from control_plane.services.ports.clock import Clock
from control_plane.services.readiness import ReadinessCheck
from control_plane.services.receipts.service import ReceiptService
from control_plane.services.schedules.service import ScheduleService
from control_plane.services.sessions.service import SessionService
from control_plane.services.sessions.tokens import TokenService
from control_plane.services.trust.service import TrustService
from control_plane.services.uploads.service import UploadService
from control_plane.settings import Settings
from schemas.errors import SchemaError


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiServices:
    """What the routes call; each is `api.state` under its own name."""

    uploads: UploadService
    clients: ClientService
    fleet: FleetService
    budgets: BudgetService
    jobs: JobService
    job_results: JobResults
    receipts: ReceiptService
    streams: EventStreams
    webhooks: WebhookService
    schedules: ScheduleService
    overview: OverviewService
    audit: AuditService
    denials: Denials
    replicas: ReplicaList
    sessions: SessionService
    tokens: TokenService
    devices: DeviceService
    enrollments: EnrollmentRequests | None
    trust: TrustService
    readiness: ReadinessCheck
    diagnosis: ServerDiagnosis
    clock: Clock


ROUTERS: Final = (
    upload_routes.router,
    receipt_routes.router,
    client_routes.router,
    fleet_routes.router,
    overview_routes.router,
    bulk_routes.router,
    history_routes.router,
    budget_routes.router,
    job_routes.router,
    stream_routes.router,
    webhook_routes.router,
    schedule_routes.router,
    audit_routes.router,
    session_routes.router,
    token_routes.router,
    device_routes.router,
    trust_routes.router,
    health_routes.router,
    help_routes.router,
    pages.router,
)
"""A route that is more special stands before the one that would take its path."""


class _Api(FastAPI):
    """FastAPI with the OpenAPI document of `api.documents`."""

    needs_token = False

    def openapi(self) -> dict[str, Any]:
        """The document, made once."""
        if self.openapi_schema is None:
            self.openapi_schema = complete(super().openapi(), needs_token=self.needs_token)
        return self.openapi_schema


def create_api(
    settings: Settings,
    metrics: Metrics,
    services: ApiServices,
    *,
    receipt_deadline: float = RECEIPT_DEADLINE,
    issuer: TokenIssuer | None = None,
    spans: Any = None,  # noqa: ANN401 - a TracerProvider, of an extra
) -> FastAPI:
    """The REST interface over these services; `metrics` counts and logs, and is served at /metrics.

    FastAPI's own page of documentation would load scripts of another host: `pages` has one without.
    """
    api = _Api(
        title=TITLE,
        summary=SUMMARY,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry=_traced(spans),
    )
    api.needs_token = settings.jwt_secret is not None
    for one in fields(services):
        setattr(api.state, one.name, getattr(services, one.name))
    api.state.metrics = metrics
    for router in ROUTERS:
        api.router.routes.extend(router.routes)
    for kind in (ServiceError, DomainError, SchemaError, RequestValidationError, HTTPException):
        api.add_exception_handler(kind, answer)
    secret = None if settings.jwt_secret is None else settings.jwt_secret.get_secret_value()
    previous = None if settings.jwt_secret_previous is None else settings.jwt_secret_previous.get_secret_value()
    api.state.sign_in = SignIn(secret, settings.max_token_lifetime, issuer, previous)
    _guard(api, settings, metrics, receipt_deadline)
    return api


def _traced(spans: Any) -> TelemetryConfig:  # noqa: ANN401 - a TracerProvider, of an extra
    """FastAPI's own telemetry: one span for each request, and only where something is traced."""
    off: TelemetryConfig = {"tracing": spans is not None, "metrics": False, "logs": False, "operation_spans": False}
    return {**off, "tracer_provider": spans} if spans is not None else off


def _guard(api: FastAPI, settings: Settings, metrics: Metrics, receipt_deadline: float) -> None:
    """Add the gates, from the innermost to the outermost."""
    api.add_middleware(WholeBody, deadline=receipt_deadline)
    rules = api.state.rules = CallRules(CallRates(api.state.clock, settings.rate_limit), settings.require_reason)
    api.add_middleware(
        BearerGate, rules=rules, sign_in=api.state.sign_in, sessions=api.state.sessions, tokens=api.state.tokens
    )
    api.add_middleware(OwnPages, hosts=settings.host_names)
    api.add_middleware(HeadAsGet)
    api.add_middleware(Observe, metrics=metrics, behind_proxy=settings.behind_proxy, denials=api.state.denials)
    api.add_middleware(SecurityHeaders)
