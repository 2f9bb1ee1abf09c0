"""Authentication: a bearer token (HS256), or the cookie of a signed-in browser, identifies the caller.

Rule: closed by default. With a secret, every request needs one of the two except those of `OPEN`, so a new route is
closed too. The algorithm is a constant and is never read from the token (RFC 8725 section 3.1). A browser sends a
cookie by itself, so a request with one that may have an effect must name its own page as `Origin`.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final

import jwt
from fastapi import Depends, Request
from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Receive, Scope, Send

from control_plane.api.problems import Problem, problem_of, respond
from control_plane.domain.access import ANONYMOUS, Principal
from control_plane.domain.reasons import ProblemCode
from control_plane.services.errors import ServiceError
from control_plane.services.sessions.service import SessionService, SignedIn

AUDIENCE: Final = "backhaul"
OPEN: Final = frozenset({"/health", "/", "/docs", "/help"})
"""Paths whose GET and HEAD need no token and no known `Host`: their answers show no client (protocol.md section 7)."""

OPEN_BELOW: Final = ("/static/", "/help/")
"""The same for every path that begins so: the files of the page, which are in the package as they are served."""

SESSION_PATH: Final = "/session"
"""Needs no token, and answers about the caller itself only: a browser signs in here, and reads whether it is."""

REASON_HEADER: Final = "X-Reason"
MAX_REASON: Final = 1_000
"""Bytes of a reason; the rest is dropped."""

COOKIE: Final = "backhaul_session"
LEEWAY: Final = 30
"""Seconds by which the clock of a token's issuer may differ from this one."""

_ALGORITHMS: Final = ("HS256",)
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_FOREVER: Final = float("inf")
_MAX_TOKEN: Final = 4096
_MAX_SUBJECT: Final = 128
_OPTIONS: Final[Any] = {"require": ["exp", "iat", "aud", "sub"], "strict_aud": True}


class Unauthorized(Exception):
    """No token, or an invalid one; the text has the cause, and no part of the token."""


@dataclass(frozen=True, slots=True)
class SignIn:
    """How this server judges tokens; `secret` None: it needs none."""

    secret: str | None
    max_lifetime: float

    def check(self, token: str) -> SignedIn:
        """The subject that a token names, and until when; `Unauthorized`."""
        return signed_in(self.secret or "", token, self.max_lifetime)


class ForeignPage(Exception):
    """A request with a cookie that no page of this server is known to have sent."""


def create_token(secret: str, subject: str, lifetime: float) -> str:
    """A token for the caller `subject`, valid for `lifetime` seconds from now.

    `ValueError` for a subject that `subject_of` would refuse, and for a lifetime of less than a second.
    """
    if lifetime < 1:
        message = "the lifetime must be 1 second or more"
        raise ValueError(message)
    _require_subject(subject)
    now = int(time.time())
    claims = {"sub": subject, "aud": AUDIENCE, "iat": now, "exp": now + int(lifetime)}
    return jwt.encode(claims, secret, algorithm=_ALGORITHMS[0])


def subject_of(secret: str, token: str, max_lifetime: float) -> str:
    """The subject of a token; `Unauthorized` unless every claim is valid and its life is at most `max_lifetime` s."""
    return signed_in(secret, token, max_lifetime).principal.subject


def signed_in(secret: str, token: str, max_lifetime: float) -> SignedIn:
    """The subject that a token names, and until when; `Unauthorized` as for `subject_of`."""
    if len(token) > _MAX_TOKEN:
        raise Unauthorized(f"the token is longer than {_MAX_TOKEN} bytes")  # noqa: EM102, TRY003
    try:
        claims = jwt.decode(token, secret, list(_ALGORITHMS), _OPTIONS, audience=AUDIENCE, leeway=LEEWAY)
        expires_at = int(claims["exp"])
        lifetime = expires_at - int(claims["iat"])
    except jwt.ExpiredSignatureError as error:
        message = "the token has expired"
        raise Unauthorized(message) from error
    # Claims are untrusted JSON: nesting too deep, or a number too long, raises other errors than PyJWT's.
    except (jwt.PyJWTError, ValueError, TypeError, ArithmeticError, RecursionError) as error:
        message = "the token is not valid here"
        raise Unauthorized(message) from error
    if lifetime > max_lifetime:
        message = f"the token's life is longer than the {max_lifetime:.0f} s of MAX_TOKEN_LIFETIME: take a shorter one"
        raise Unauthorized(message)
    try:
        return SignedIn(Principal(_require_subject(str(claims["sub"]))), float(expires_at))
    except ValueError as error:
        raise Unauthorized(str(error)) from error


def _require_subject(subject: str) -> str:
    if not 0 < len(subject) <= _MAX_SUBJECT or not subject.isprintable():
        message = f"the token's subject must be 1 to {_MAX_SUBJECT} printable characters"
        raise ValueError(message)
    return subject


class BearerGate:
    """Passes on requests with a valid token or cookie; their state has the `caller`, and until when (`valid_until`)."""

    def __init__(self, app: ASGIApp, tokens: SignIn, sessions: SessionService) -> None:
        self._app = app
        self._tokens = tokens
        self._sessions = sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401; 403 for a cookie without an own `Origin`."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            who = await self._who(scope)
        except Unauthorized as error:
            if scope["path"] != SESSION_PATH:
                problem = Problem(401, ProblemCode.UNAUTHORIZED, str(error))
                await _refuse(problem, scope, receive, send, {"WWW-Authenticate": f'Bearer realm="{AUDIENCE}"'})
                return
            who = SignedIn(ANONYMOUS, _FOREVER)
        except ForeignPage as error:
            await _refuse(Problem(403, ProblemCode.FOREIGN_PAGE, str(error)), scope, receive, send)
            return
        except ServiceError as error:
            await _refuse(problem_of(error), scope, receive, send)
            return
        state = scope.setdefault("state", {})
        caller = replace(who.principal, address=state.get("address"), reason=reason_of(Headers(scope=scope)))
        state.update(caller=caller, valid_until=who.valid_until)
        await self._app(scope, receive, send)

    async def _who(self, scope: Scope) -> SignedIn:
        if self._tokens.secret is None or is_open(scope):
            return SignedIn(ANONYMOUS, _FOREVER)
        headers = Headers(scope=scope)
        cookie = cookie_of(headers)
        if cookie is None or "authorization" in headers:
            return self._tokens.check(_token(headers))
        if scope["method"] not in _SAFE_METHODS and "origin" not in headers:
            # `gates.OwnPages` has refused every other origin.
            message = "a request of a signed-in browser must have an Origin"
            raise ForeignPage(message)
        found = await self._sessions.find(cookie)
        if found is None:
            message = "this browser is no longer signed in"
            raise Unauthorized(message)
        scope.setdefault("state", {})["session"] = cookie
        return found


def reason_of(headers: Headers) -> str | None:
    """Why the caller makes this request: the header `X-Reason`, in UTF-8; None without one."""
    given = headers.get(REASON_HEADER, "").strip()[:MAX_REASON]
    return given.encode("latin-1", "replace").decode("utf-8", "replace") or None


async def _refuse(
    problem: Problem, scope: Scope, receive: Receive, send: Send, headers: Mapping[str, str] | None = None
) -> None:
    # The body stays unread, so the connection cannot be reused.
    await respond(problem, {**(headers or {}), "Connection": "close"})(scope, receive, send)


def cookie_of(headers: Headers) -> str | None:
    """The value of the browser's session; None without one."""
    return cookie_parser(headers.get("cookie", "")).get(COOKIE) or None


def is_open(scope: Scope) -> bool:
    """Whether this request is open to every caller."""
    path: str = scope["path"]
    return scope["method"] in {"GET", "HEAD"} and (path in OPEN or path.startswith(OPEN_BELOW))


def _token(headers: Headers) -> str:
    given = headers.getlist("authorization")
    if len(given) != 1:
        message = "the Authorization header is missing" if not given else "there is more than one Authorization header"
        raise Unauthorized(message)
    scheme, _, token = given[0].partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        message = "the Authorization header must be: Bearer, a space, the token"
        raise Unauthorized(message)
    return token.strip()


async def caller_of(request: Request) -> Principal:
    """The caller that `BearerGate` identified."""
    caller: Principal = request.state.caller
    return caller


async def signed_in_of(request: Request) -> SignedIn:
    """The caller, and until when."""
    return SignedIn(request.state.caller, request.state.valid_until)


def session_of(request: Request) -> str | None:
    """The value of the session that this request came in with; None for one with a token, or with neither."""
    found: str | None = getattr(request.state, "session", None)
    return found


Caller = Annotated[Principal, Depends(caller_of)]
Known = Annotated[SignedIn, Depends(signed_in_of)]
