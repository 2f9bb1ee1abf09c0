"""The audit over REST: look at it, export it.

Rule: as the other routers: a query becomes the arguments of one use case.
"""

from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Annotated, Final

from fastapi import Depends, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import Field

from control_plane.api.audit.models import AuditPage, export_line
from control_plane.api.auth import Caller, needs
from control_plane.api.bodies import Input
from control_plane.api.documents import problems
from control_plane.api.parameters import CheckedClientId, Paged, SinceInstant
from control_plane.api.tokens.reach import router_of_calls
from control_plane.domain.access import Scope
from control_plane.domain.audit.model import Act, AuditRecord, Outcome
from control_plane.services.audit.ports import AuditFilter, StoredCheckpoint
from control_plane.services.audit.service import AuditService

router = router_of_calls(tags=["audit"])

MEDIA_TYPE: Final = "application/cloudevents+jsonl"
SOURCE: Final = "backhaul/audit"


class WhichRecords(Paged):
    """Filters of the list of records; all that are given must match."""

    subject: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    act: Act | None = None
    outcome: Outcome | None = None
    client_id: CheckedClientId | None = None
    target: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    since: SinceInstant | None = None
    until: SinceInstant | None = None

    @property
    def where(self) -> AuditFilter:
        """As the service takes it."""
        return AuditFilter(
            subject=self.subject,
            act=self.act,
            outcome=self.outcome,
            client_id=self.client_id,
            target=self.target,
            since=None if self.since is None else self.since.timestamp(),
            until=None if self.until is None else self.until.timestamp(),
        )


class ExportFrom(Input):
    """Where each chain of an export begins."""

    since: SinceInstant | None = None


async def _audit_of(request: Request) -> AuditService:
    audit: AuditService = request.app.state.audit
    return audit


Audit = Annotated[AuditService, Depends(_audit_of)]


@router.get(
    "/audit",
    operation_id="listAudit",
    summary="See who did what, newest first",
    responses=problems(403, 422),
    openapi_extra=needs(Scope.AUDIT_READ),
)
async def list_audit(audit: Audit, caller: Caller, query: Annotated[WhichRecords, Query()]) -> AuditPage:
    """The records of what callers did, read of files, and were denied."""
    found, cursor = await audit.records(caller, query.where, query.page)
    return AuditPage.of(found, cursor, audit.key, await audit.signed(caller), audit.bucket)


@router.get(
    "/audit/export",
    operation_id="exportAudit",
    summary="Export the audit with its signed checkpoints",
    response_class=StreamingResponse,
    responses={
        HTTPStatus.OK: {
            "description": "One CloudEvent a line: records in the order of their chains, then checkpoints",
            "content": {MEDIA_TYPE: {"schema": {"type": "string"}}},
        },
        **problems(403, 422),
    },
    openapi_extra=needs(Scope.AUDIT_READ),
)
async def export_audit(audit: Audit, caller: Caller, query: Annotated[ExportFrom, Query()]) -> StreamingResponse:
    """Everything that a check needs; `backhaul audit verify` checks it. With `since` each chain begins there."""
    since = None if query.since is None else query.since.timestamp()
    return StreamingResponse(_lines(await audit.export(caller, since)), media_type=MEDIA_TYPE)


async def _lines(exported: AsyncIterator[AuditRecord | StoredCheckpoint]) -> AsyncIterator[str]:
    async for one in exported:
        yield export_line(one, SOURCE)
