"""The sign-in over REST: who the caller is."""

from fastapi import APIRouter, Request

from control_plane.api.auth import Caller
from control_plane.api.sessions.models import SessionDocument

router = APIRouter(tags=["sessions"])


@router.get("/session", operation_id="getSession", summary="See who the caller is")
async def get_session(request: Request, caller: Caller) -> SessionDocument:
    """Whether this server needs a token, and whom it takes the caller for."""
    return SessionDocument.of(caller, auth=request.app.needs_token)
