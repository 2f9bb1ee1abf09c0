"""Which endpoints take a token with the claim `clients`: those whose use cases apply it.

Rule: closed by default. An endpoint that is not in `BOUND` refuses such a token, so a new one does too until its use
case applies the claim and a test shows it (`tests/security/test_reach.py`).
"""

from typing import Any, Final

from fastapi import APIRouter, Depends, Request

from control_plane.api.auth import Caller, check_rights
from control_plane.domain.errors import Forbidden

BOUND: Final = frozenset(
    {
        # One client, or those of a list: all others are as if they did not exist.
        "changeLabels",
        "dropLabel",
        "expectClients",
        "forgetClient",
        "getClient",
        "getClientHistory",
        "getClientStatus",
        "labelClients",
        "listClients",
        "listFiles",
        "setLabels",
        # Sums over clients and uploads.
        "getFleet",
        "getFleetHistory",
        # Uploads of these clients.
        "cancelUpload",
        "cancelUploads",
        "getObjectUrl",
        "getReceipt",
        "getUpload",
        "getUploadTimeline",
        "listUploads",
        "retryUpload",
        "triggerDownload",
        "verifyUpload",
        # Jobs: what belongs to these clients is seen; a verb needs a job that has no others.
        "addClientsToJob",
        "approveJob",
        "cancelJob",
        "createJob",
        "extendJob",
        "getJob",
        "getManifest",
        "getResults",
        "listExecutions",
        "listJobFiles",
        "listJobs",
        "pauseJob",
        "rejectJob",
        "resumeJob",
        "retryJob",
        "tuneJob",
        # Schedules and their coverage, in the same way.
        "backfillSchedule",
        "createSchedule",
        "deleteSchedule",
        "getCoverage",
        "getSchedule",
        "listRuns",
        "listSchedules",
        "pauseSchedule",
        "previewSchedule",
        "replaceSchedule",
        "resumeSchedule",
        "runScheduleNow",
        "skipNextTick",
        # Changes of these clients.
        "streamEvents",
        # Nothing about any client; a session and a code have the claim of the token.
        "createSessionCode",
        "getHealth",
        "getReadiness",
        "getSession",
        "signIn",
        "signOut",
    }
)
"""By `operationId`. Groups, budgets, webhooks, metrics and findings are about the whole fleet: they are not here."""


async def require_bound(request: Request, caller: Caller) -> None:
    """`Forbidden` for a token with the claim `clients`, unless this endpoint applies it."""
    if caller.clients is None:
        return
    operation = getattr(request.scope.get("route"), "operation_id", None)
    if operation not in BOUND:
        text = f"this is about the whole fleet, and the token is for the clients {caller.clients} only"
        raise Forbidden(text)


def router_of_calls(**options: Any) -> APIRouter:  # noqa: ANN401 - as FastAPI's
    """An empty router: its calls need the scopes that they declare; those of `BOUND` alone take the claim `clients`.

    The application takes the routes as they are: a router that FastAPI includes is built a second time, while the first
    request waits.
    """
    return APIRouter(dependencies=[Depends(check_rights), Depends(require_bound)], **options)
