"""Receipts over REST: show one, verify an object against it.

Rule: as the other routers: a request becomes the arguments of one use case. No byte of an object passes here: who reads
it sends what was found.
"""

from typing import Annotated

from fastapi import Body, Depends, Request

from control_plane.api.auth import Caller, needs
from control_plane.api.documents import problems
from control_plane.api.parameters import UploadId, UploadQuery
from control_plane.api.receipts.models import MeasuredBody, ReceiptDocument, VerifiedDocument
from control_plane.api.tokens.reach import router_of_calls
from control_plane.domain.access import Scope
from control_plane.services.receipts.service import ReceiptService

router = router_of_calls(tags=["uploads"])


async def _receipts_of(request: Request) -> ReceiptService:
    receipts: ReceiptService = request.app.state.receipts
    return receipts


Receipts = Annotated[ReceiptService, Depends(_receipts_of)]
MeasuredInput = Annotated[MeasuredBody | None, Body(description="May be left out, empty or null.")]


@router.get(
    "/uploads/{upload_id}/receipt",
    operation_id="getReceipt",
    openapi_extra=needs(Scope.UPLOADS_READ),
    summary="Get the signed receipt of an upload",
    responses=problems(404, 409, 422),
)
async def get_receipt(upload_id: UploadId, receipts: Receipts, caller: Caller, which: UploadQuery) -> ReceiptDocument:
    """The receipt; 422 while there is none."""
    return ReceiptDocument.of(await receipts.receipt(caller, upload_id, which.client_id))


@router.post(
    "/uploads/{upload_id}/verify",
    operation_id="verifyUpload",
    openapi_extra=needs(Scope.OBJECTS_READ),
    summary="Verify the object of an upload against its receipt",
    responses=problems(404, 409, 415, 422),
)
async def verify(
    upload_id: UploadId, receipts: Receipts, caller: Caller, which: UploadQuery, *, body: MeasuredInput = None
) -> VerifiedDocument:
    """Look at the object, and compare it with the receipt and the database; 422 until the upload is completed."""
    measured = None if body is None else body.measured
    return VerifiedDocument.of(await receipts.verify(caller, upload_id, which.client_id, measured))
