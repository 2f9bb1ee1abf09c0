"""Health, readiness and metrics over REST."""

import asyncio

from fastapi import Request, Response

from control_plane.api import models
from control_plane.api.auth import Caller, needs
from control_plane.api.parameters import Now, Readiness
from control_plane.api.tokens.reach import router_of_calls
from control_plane.domain.access import Scope
from control_plane.observability import CONTENT_TYPE, Metrics
from control_plane.presentation import known_instant
from control_plane.services.diagnosis.server import ServerDiagnosis
from control_plane.services.errors import ServiceError
from control_plane.services.overview.replicas import ReplicaList
from control_plane.services.ports.overview import Replica

router = router_of_calls(tags=["health"])
_METRICS_EXAMPLE = 'backhaul_uploads_total{state="completed"} 3.0\n'


@router.get("/health", operation_id="getHealth", openapi_extra=needs(), summary="See that the process answers")
async def health(now: Now) -> models.Health:
    """Needs no token and checks nothing: an unavailable broker must not make a supervisor restart this process."""
    return models.Health(timestamp=known_instant(now))


@router.get(
    "/health/ready",
    operation_id="getReadiness",
    openapi_extra=needs(),
    summary="See whether broker, database and object store can be used",
    responses={503: {"model": models.Readiness, "description": "Broker, database or object store cannot be used"}},
)
async def ready(readiness: Readiness, caller: Caller, response: Response) -> models.Readiness:
    """What can be used now, and what the last probe showed that the object store enforces."""
    found = await readiness.readiness(caller)
    if not found.ready:
        response.status_code = 503
        response.headers["Retry-After"] = "5"
    return models.Readiness.of(found)


@router.get(
    "/health/details",
    operation_id="getHealthDetails",
    openapi_extra=needs(Scope.METRICS_READ),
    summary="See what is wrong and what to do about it",
)
async def details(request: Request, readiness: Readiness, caller: Caller, now: Now) -> models.HealthDetails:
    """The findings of `backhaul doctor` as this server sees them, and the control planes that share its database."""
    diagnosis: ServerDiagnosis = request.app.state.diagnosis
    replicas: ReplicaList = request.app.state.replicas
    found, findings = await asyncio.gather(readiness.readiness(caller), diagnosis.findings())
    try:
        seen = await replicas.seen(caller)
    except ServiceError:
        # The findings show that the database is away.
        seen = []
    return models.HealthDetails(
        as_of=known_instant(now),
        ready=found.ready,
        checks=dict(found.checks),
        probe=None if found.probe is None else models.Probe.of(found.probe),
        findings=[models.FoundFact.of(one) for one in findings],
        replicas=[_replica(one, replicas.own) for one in seen],
    )


def _replica(one: Replica, own: Replica) -> models.ReplicaRow:
    return models.ReplicaRow(
        replica_id=one.replica_id,
        host=one.host,
        version=one.version,
        started_at=known_instant(one.started_at),
        seen_at=known_instant(one.seen_at),
        this=one.replica_id == own.replica_id,
    )


@router.get(
    "/metrics",
    operation_id="getMetrics",
    openapi_extra=needs(Scope.METRICS_READ),
    summary="Read the counters as Prometheus text",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"example": _METRICS_EXAMPLE}}}},
)
async def metrics(request: Request) -> Response:
    """The counters since the start, and the state of the fleet now: docs/reference/metrics.md has all of them."""
    counted: Metrics = request.app.state.metrics
    await counted.refresh()
    # In a thread, since the figures of the process are read from /proc.
    return Response(await asyncio.to_thread(counted.render), media_type=CONTENT_TYPE)
