"""Authentication: a bearer token (HS256) identifies the caller.

Rule: closed by default. With a secret, every request needs a token except those of `OPEN`, so a new route is closed
too. The algorithm is a constant and is never read from the token (RFC 8725 section 3.1).
"""

import time
from typing import Annotated, Any, Final

import jwt
from fastapi import Depends, Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from control_plane.api.problems import Problem, respond
from control_plane.domain.access import ANONYMOUS, Principal
from control_plane.domain.reasons import ProblemCode

AUDIENCE: Final = "backhaul"
OPEN: Final = frozenset({"/health", "/", "/docs", "/help"})
"""Paths whose GET and HEAD need no token and no known `Host`: their answers show no client (protocol.md section 7)."""

OPEN_BELOW: Final = ("/static/", "/help/")
"""The same for every path that begins so: the files of the page, which are in the package as they are served."""

LEEWAY: Final = 30
"""Seconds by which the clock of a token's issuer may differ from this one."""

_ALGORITHMS: Final = ("HS256",)
_MAX_TOKEN: Final = 4096
_MAX_SUBJECT: Final = 128
_OPTIONS: Final[Any] = {"require": ["exp", "iat", "aud", "sub"], "strict_aud": True}


class Unauthorized(Exception):
    """No token, or an invalid one; the text has the cause, and no part of the token."""


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
    if len(token) > _MAX_TOKEN:
        raise Unauthorized(f"the token is longer than {_MAX_TOKEN} bytes")  # noqa: EM102, TRY003
    try:
        claims = jwt.decode(token, secret, list(_ALGORITHMS), _OPTIONS, audience=AUDIENCE, leeway=LEEWAY)
        lifetime = int(claims["exp"]) - int(claims["iat"])
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
        return _require_subject(str(claims["sub"]))
    except ValueError as error:
        raise Unauthorized(str(error)) from error


def _require_subject(subject: str) -> str:
    if not 0 < len(subject) <= _MAX_SUBJECT or not subject.isprintable():
        message = f"the token's subject must be 1 to {_MAX_SUBJECT} printable characters"
        raise ValueError(message)
    return subject


class BearerGate:
    """Passes on requests with a valid token, and stores the `Principal` in the request's state."""

    def __init__(self, app: ASGIApp, secret: str | None, max_lifetime: float) -> None:
        self._app = app
        self._secret = secret
        self._max_lifetime = max_lifetime

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            scope.setdefault("state", {})["caller"] = self._caller(scope)
        except Unauthorized as error:
            problem = Problem(401, ProblemCode.UNAUTHORIZED, str(error))
            # The body stays unread, so the connection cannot be reused.
            headers = {"WWW-Authenticate": f'Bearer realm="{AUDIENCE}"', "Connection": "close"}
            await respond(problem, headers)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _caller(self, scope: Scope) -> Principal:
        if self._secret is None or is_open(scope):
            return ANONYMOUS
        return Principal(subject_of(self._secret, _token(Headers(scope=scope)), self._max_lifetime))


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


Caller = Annotated[Principal, Depends(caller_of)]
