"""The sign-in over REST: a token, or a code, becomes a cookie that no script can read.

Rule: a token and a code arrive in a body, never in a URL, and no answer has one that the caller did not make here.
"""

import math
from dataclasses import replace
from functools import partial
from typing import Annotated

from fastapi import Depends, Request, Response

from control_plane.api.auth import (
    COOKIE,
    Caller,
    CallRefused,
    CallRules,
    Known,
    SignIn,
    Unauthorized,
    cookie_of,
    needs,
    require_unrevoked,
)
from control_plane.api.documents import problems
from control_plane.api.problems import Problem, respond
from control_plane.api.sessions.models import NewCode, SessionDocument, SignInBody
from control_plane.api.tokens.reach import router_of_calls
from control_plane.domain.access import ANONYMOUS, Principal
from control_plane.domain.reasons import ProblemCode
from control_plane.services.sessions.service import CODE_LIFE, SessionService, SignedIn

router = router_of_calls(tags=["sessions"])


async def _sessions_of(request: Request) -> SessionService:
    sessions: SessionService = request.app.state.sessions
    return sessions


Sessions = Annotated[SessionService, Depends(_sessions_of)]


@router.get("/session", operation_id="getSession", openapi_extra=needs(), summary="See who the caller is")
async def get_session(request: Request, who: Known) -> SessionDocument:
    """Whether this server needs a token, and which subject the caller is. Answers every caller of this machine's."""
    return _document(request, who)


@router.post(
    "/session",
    operation_id="signIn",
    openapi_extra=needs(),
    summary="Sign a browser in",
    responses=problems(400, 401, 415, 422, 429),
)
async def sign_in(request: Request, response: Response, sessions: Sessions, body: SignInBody) -> SessionDocument:
    """Exchange a token or a code for the cookie of this browser, whose earlier session ends.

    Without `JWT_SECRET` there is no cookie.
    """
    tokens: SignIn = request.app.state.sign_in
    rules: CallRules = request.app.state.rules
    if tokens.secret is None:
        return _document(request, SignedIn(ANONYMOUS, math.inf))
    caller: Principal = request.state.caller
    try:
        if body.token is not None:
            who = await tokens.check(body.token)
            who = replace(who, principal=replace(who.principal, address=caller.address, reason=caller.reason))
            await require_unrevoked(request.app.state.tokens, who)
            # The gate counts who is known before the body is read: a browser that signs in is not.
            rules.count(who.principal.subject)
            value = await sessions.begin(who)
        else:
            found = await sessions.redeem(body.code or "", caller, partial(require_unrevoked, request.app.state.tokens))
            if found is None:
                return _refused("the code was used, or is older than a minute: make a new link")  # type: ignore[return-value]
            who, value = found
    except CallRefused as error:
        return respond(error.problem)  # type: ignore[return-value]  # the problem goes out as it is
    except Unauthorized as error:
        return _refused(str(error))  # type: ignore[return-value]
    if (before := cookie_of(request.headers)) is not None:
        await sessions.end(before, caller)
    life = max(0, int(who.valid_until - request.app.state.clock.now()))
    response.set_cookie(COOKIE, value, max_age=life, secure=_encrypted(request), httponly=True, samesite="strict")
    return _document(request, who)


@router.delete(
    "/session", operation_id="signOut", openapi_extra=needs(), summary="Sign this browser out", status_code=204
)
async def sign_out(request: Request, sessions: Sessions, caller: Caller) -> Response:
    """Revoke the browser's session, on every replica, and clear its cookie."""
    value = cookie_of(request.headers)
    if value is not None:
        await sessions.end(value, caller)
    response = Response(status_code=204)
    response.delete_cookie(COOKIE, secure=_encrypted(request), httponly=True, samesite="strict")
    return response


@router.post(
    "/session/codes",
    operation_id="createSessionCode",
    openapi_extra=needs(),
    summary="Make a code that signs one browser in",
    status_code=201,
    responses=problems(400),
)
async def create_code(sessions: Sessions, who: Known) -> NewCode:
    """A code for `/#code=…`. It signs one browser in as the caller, once, until the caller's token ends."""
    return NewCode(code=await sessions.code(who), expires_in=CODE_LIFE)


def _document(request: Request, who: SignedIn) -> SessionDocument:
    return SessionDocument.of(who, auth=request.app.needs_token)


def _refused(detail: str) -> Response:
    return respond(Problem(401, ProblemCode.UNAUTHORIZED, detail))


def _encrypted(request: Request) -> bool:
    """Whether the browser came by https, also through a proxy: `Origin` is what the browser has in its address bar."""
    return request.headers.get("origin", "").startswith("https://") or request.url.scheme == "https"
