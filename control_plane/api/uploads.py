"""Uploads over REST: trigger, list, show, cancel, retry, read the object."""

import hashlib
import json
from datetime import datetime
from typing import Annotated

from fastapi import Body, Request

from control_plane.api import models
from control_plane.api.auth import Caller, needs
from control_plane.api.bodies import TriggerBody
from control_plane.api.documents import problems
from control_plane.api.gates import discloses
from control_plane.api.parameters import ClientId, IdempotencyKey, Now, UploadId, UploadQuery, Uploads, UploadsQuery
from control_plane.api.tokens.reach import router_of_calls
from control_plane.domain.access import Scope
from control_plane.presentation import STATUS
from control_plane.services.uploads.service import TriggerRequest
from schemas.values import UploadOptions

router = router_of_calls(tags=["uploads"])
TriggerInput = Annotated[TriggerBody | None, Body(description="May be left out, empty or null.")]


@router.post(
    "/trigger-download/{client_id}",
    operation_id="triggerDownload",
    openapi_extra=needs(Scope.UPLOADS_WRITE),
    summary="Command a client to upload a file",
    responses=problems(400, 404, 409, 415, 422, 429),
)
async def trigger(
    client_id: ClientId,
    *,
    uploads: Uploads,
    caller: Caller,
    now: Now,
    body: TriggerInput = None,
    idempotency_key: IdempotencyKey = None,
) -> models.Triggered:
    """Create an upload. An offline client gets the command when it connects, until the deadline."""
    wanted = body or TriggerBody()
    request = TriggerRequest(
        client_id=client_id,
        file_path=wanted.file_path,
        metadata=wanted.metadata,
        options=UploadOptions(**wanted.options.model_dump()),
        deadline=_deadline(wanted.deadline, now),
        after=wanted.after,
        idempotency_key=idempotency_key,
        body_digest=_digest(wanted),
    )
    upload = (await uploads.trigger(caller, request)).upload
    return models.Triggered(
        message=f"Download triggered for client {client_id}",
        upload_id=upload.upload_id,
        s3_key=upload.s3_key,
        status=STATUS[upload.state],
    )


@router.get(
    "/uploads",
    operation_id="listUploads",
    openapi_extra=needs(Scope.UPLOADS_READ),
    summary="List uploads, newest first",
    responses=problems(422),
)
async def list_uploads(uploads: Uploads, caller: Caller, query: UploadsQuery) -> models.UploadPage:
    """List uploads, newest first."""
    found, cursor = await uploads.uploads(caller, query.where, query.page, query.reason_code)
    return models.UploadPage(uploads=[models.Upload.of(view) for view in found], cursor=cursor)


@router.get(
    "/uploads/{upload_id}",
    operation_id="getUpload",
    openapi_extra=needs(Scope.UPLOADS_READ),
    summary="Look at one upload",
    responses=problems(404, 409, 422),
)
async def get_upload(upload_id: UploadId, uploads: Uploads, caller: Caller, which: UploadQuery) -> models.Upload:
    """The state of one upload, and what it waits for."""
    return models.Upload.of(await uploads.upload(caller, upload_id, which.client_id))


@router.post(
    "/uploads/{upload_id}/cancel",
    operation_id="cancelUpload",
    openapi_extra=needs(Scope.UPLOADS_WRITE),
    summary="Cancel an upload",
    responses=problems(404, 409, 422),
)
async def cancel(upload_id: UploadId, uploads: Uploads, caller: Caller, which: UploadQuery) -> models.Upload:
    """End an upload at once; 409 when its object is being completed, it is over, or it has another owner."""
    return models.Upload.of(await uploads.cancel(caller, upload_id, which.client_id))


@router.post(
    "/uploads/{upload_id}/retry",
    operation_id="retryUpload",
    openapi_extra=needs(Scope.UPLOADS_WRITE),
    summary="Begin an upload once more, under a new id",
    responses=problems(404, 409, 422, 429),
)
async def retry(upload_id: UploadId, uploads: Uploads, caller: Caller, which: UploadQuery) -> models.Upload:
    """The new upload; 422 while the old one is not over."""
    return models.Upload.of(await uploads.retry(caller, upload_id, which.client_id))


@router.get(
    "/uploads/{upload_id}/url",
    operation_id="getObjectUrl",
    openapi_extra=needs(Scope.OBJECTS_READ),
    summary="Get a URL that reads the object",
    responses=problems(404, 409, 422, 502),
)
async def object_url(
    request: Request, upload_id: UploadId, uploads: Uploads, caller: Caller, which: UploadQuery
) -> models.ObjectUrl:
    """A presigned GET; 422 until the upload is completed, 409 for an upload of another owner."""
    discloses(request, client_id=which.client_id)
    url, expires_in = await uploads.object_url(caller, upload_id, which.client_id)
    return models.ObjectUrl(upload_id=upload_id, url=url, expires_in=expires_in)


def _deadline(wanted: float | datetime | None, now: float) -> float | None:
    """The deadline as an instant."""
    return wanted.timestamp() if isinstance(wanted, datetime) else None if wanted is None else now + wanted


def _digest(body: TriggerBody) -> str:
    """One digest for every spelling of a request: order, spaces, defaults given or left out."""
    canonical = json.dumps(body.model_dump(), default=str, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
