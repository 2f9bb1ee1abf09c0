"""Authentication: a bearer token (HS256), or the cookie of a signed-in browser, identifies the caller.

Rule: closed by default. With a secret, every request needs one of the two except those of `OPEN`, so a new route is
closed too; and a route that does not declare its rights with `needs` refuses every caller. The algorithm is a constant
and is never read from the token (RFC 8725 section 3.1). A browser sends a cookie by itself, so a request with one that
may have an effect must name its own page as `Origin`.
"""

import base64
import hmac
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, Protocol
from urllib.parse import unquote

import jwt
from fastapi import Depends, Request
from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as AsgiScope

from control_plane.api.problems import Problem, problem_of, respond
from control_plane.api.tokens.rates import CallRates
from control_plane.domain.access import ANONYMOUS, Principal, Scope, read_scopes, require, write_scopes
from control_plane.domain.errors import Forbidden, SelectorError
from control_plane.domain.reasons import ProblemCode
from control_plane.services.errors import ServiceError
from control_plane.services.sessions.service import SessionService, SignedIn
from control_plane.services.sessions.tokens import TokenService

AUDIENCE: Final = "backhaul"
OPEN: Final = frozenset({"/health", "/", "/docs", "/help"})
"""Paths whose GET and HEAD need no token and no known `Host`: their answers show no client (protocol.md section 7)."""

OPEN_BELOW: Final = ("/static/", "/help/")
"""The same for every path that begins so: the files of the page, which are in the package as they are served."""

SESSION_PATH: Final = "/session"
"""Needs no token, and answers about the caller itself only: a browser signs in here, and reads whether it is."""

ENROLL_PATH: Final = "/enroll"
"""Needs no token, and so do the calls below it: a device that has no account yet signs what it asks."""

COOKIE: Final = "backhaul_session"
LEEWAY: Final = 30
"""Seconds by which the clock of a token's issuer may differ from this one."""

_ALGORITHMS: Final = ("HS256",)
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_FOREVER: Final = float("inf")
_MAX_TOKEN: Final = 4096
_MAX_SUBJECT: Final = 128
JTI: Final = r"^[\x21-\x7e]{1,128}$"
"""What a `jti` may be: text that a path of REST can name, since one that cannot be revoked is refused."""

OF_ISSUER: Final = "oidc:"
"""How the names of callers begin that an OpenID provider vouches for: it names none of those of `JWT_SECRET`."""

_TOKEN_ID_BYTES: Final = 8
REASON: Final = "Backhaul-Reason"
"""The header that has why a call is made: text in percent-encoded UTF-8."""

_MAX_REASON: Final = 500
OF_DEVICES: Final = frozenset({ENROLL_PATH, f"{ENROLL_PATH}/poll"})
_WITHOUT_REASON: Final = frozenset({SESSION_PATH, f"{SESSION_PATH}/codes", *OF_DEVICES})
"""To sign in and out needs no reason; a device gives none."""

_NO_REASON: Final = f"this server wants to know why: send the header {REASON} (`--why` of the command line)"
_RIGHTS: Final = "x-rights"
"""Where a route keeps what it declares with `needs`, until `documents` makes it `security`."""
_OPTIONS: Final[Any] = {"require": ["exp", "iat", "aud", "sub"], "strict_aud": True}
_SECRET_ID: Final = b"backhaul-token-kid-v1"
_SECRET_ID_BYTES: Final = 8


class Unauthorized(Exception):
    """No token, or an invalid one; the text has the cause, and no part of the token."""


class TokenIssuer(Protocol):
    """Judges the tokens of an OpenID provider."""

    async def check(self, token: str) -> SignedIn:
        """The caller that a token names, and until when; `Unauthorized`, or `Transient` while it cannot be judged."""


@dataclass(frozen=True, slots=True)
class SignIn:
    """How this server judges tokens; `secret` None: it needs none. `issuer` judges those of an OpenID provider.

    Tokens that name the secret `previous` are accepted too.
    """

    secret: str | None
    max_lifetime: float
    issuer: TokenIssuer | None = None
    previous: str | None = None

    async def check(self, token: str) -> SignedIn:
        """The caller that a token names, and until when; `Unauthorized`; `Transient` while the issuer is away.

        A token that is not HS256 goes to the issuer: no key of the one kind verifies what is of the other.
        """
        if self.issuer is not None and len(token) <= _MAX_TOKEN and not _is_symmetric(token):
            return await self.issuer.check(token)
        return signed_in(self.secret or "", token, self.max_lifetime, self.previous)


class CallRefused(Exception):
    """A call that is answered with `problem` before its use case begins."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


@dataclass(frozen=True, slots=True)
class CallRules:
    """What holds for every call: how many a caller may make in a minute, and whether an effect needs a reason."""

    rates: CallRates
    require_reason: bool

    def count(self, subject: str) -> None:
        """Count a call of this caller; `CallRefused` for one too many."""
        if wait := self.rates.wait(subject):
            text = f"a caller may make {self.rates.per_minute} calls a minute (RATE_LIMIT)"
            raise CallRefused(Problem(429, ProblemCode.RATE_LIMITED, text, wait))


def new_token_id() -> str:
    """An id for a new token (`jti`)."""
    return secrets.token_hex(_TOKEN_ID_BYTES)


def secret_id(secret: str) -> str:
    """The `kid` of the tokens of a secret: tells two apart, and says no more of one than a signature of it does."""
    digest = hmac.digest(secret.encode(), _SECRET_ID, "sha256")[:_SECRET_ID_BYTES]
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def create_token(secret: str, who: Principal | str, lifetime: float) -> str:
    """A token for the caller `who`, valid for `lifetime` seconds from now; a name alone is a caller with all rights.

    `ValueError` for a subject that `signed_in` would refuse, and for a lifetime of less than a second.
    """
    if lifetime < 1:
        message = "the lifetime must be 1 second or more"
        raise ValueError(message)
    principal = Principal(who) if isinstance(who, str) else who
    _require_own(_require_subject(principal.subject))
    now = int(time.time())
    claims = {
        "sub": principal.subject,
        "aud": AUDIENCE,
        "iat": now,
        "exp": now + int(lifetime),
        "jti": principal.token_id or new_token_id(),
    }
    if (scope := write_scopes(principal.scopes)) is not None:
        claims["scope"] = scope
    if principal.clients is not None:
        claims["clients"] = principal.clients
    return jwt.encode(claims, secret, algorithm=_ALGORITHMS[0], headers={"kid": secret_id(secret)})


def signed_in(secret: str, token: str, max_lifetime: float, previous: str | None = None) -> SignedIn:
    """The caller that a token of `create_token` names, and until when; as `judged`.

    A token that names the secret `previous` is verified with it, one that names none with `secret`.
    """
    if len(token) > _MAX_TOKEN:
        raise Unauthorized(f"the token is longer than {_MAX_TOKEN} bytes")  # noqa: EM102, TRY003
    found = judged(
        lambda: jwt.decode(
            token,
            _secret_of(token, secret, previous),
            list(_ALGORITHMS),
            _OPTIONS,
            audience=AUDIENCE,
            leeway=LEEWAY,
        ),
        max_lifetime,
    )
    try:
        _require_own(found.principal.subject)
    except ValueError as error:
        raise Unauthorized(str(error)) from error
    return found


def judged(decode: Callable[[], dict[str, Any]], max_lifetime: float) -> SignedIn:
    """The caller that claims name, and until when; `decode` verifies the token.

    `Unauthorized` unless every claim is valid and the token's life is at most `max_lifetime` s.
    """
    try:
        claims = decode()
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
        return SignedIn(_principal(claims), float(expires_at))
    except (ValueError, SelectorError) as error:
        raise Unauthorized(str(error)) from error


def _secret_of(token: str, secret: str, previous: str | None) -> str:
    """The one secret that may verify this token: the token chooses among those of this server, and brings none."""
    header = jwt.get_unverified_header(token)
    if "kid" not in header:
        # Of an earlier version, or of another program that has the secret.
        return secret
    for one in (secret, previous):
        if one and header["kid"] == secret_id(one):
            return one
    message = "the token names a secret that this server does not have"
    raise jwt.InvalidTokenError(message)


def _is_symmetric(token: str) -> bool:
    """Whether the token declares the algorithm of `create_token`; what cannot be read is judged as one of those."""
    try:
        return jwt.get_unverified_header(token).get("alg") in _ALGORITHMS
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        return True


def _principal(claims: Mapping[str, Any]) -> Principal:
    """The caller of these claims; a claim that is there and has another form makes the token invalid."""
    for name in ("scope", "clients", "jti"):
        if name in claims and not isinstance(claims[name], str):
            message = f"the token's {name} must be a text"
            raise ValueError(message)
    clients: str | None = claims.get("clients")
    if clients is not None and not clients.strip():
        message = "the token's clients must be a selector; a token for all clients has no such claim"
        raise ValueError(message)
    return Principal(
        subject=_require_subject(str(claims["sub"])),
        scopes=read_scopes(claims.get("scope")),
        clients=clients,
        token_id=_require_token_id(claims.get("jti")),
    )


def _require_token_id(token_id: str | None) -> str | None:
    if token_id is not None and re.fullmatch(JTI, token_id) is None:
        message = "the token's jti must be 1 to 128 printable characters of ASCII, without spaces"
        raise ValueError(message)
    return token_id


def needs(*scopes: Scope) -> dict[str, Any]:
    """What a route declares as `openapi_extra`: the scopes that a caller must have. None: a valid token is enough."""
    return {_RIGHTS: [list(scopes)]}


def needs_one_of(*scopes: Scope) -> dict[str, Any]:
    """The same for a route of which each of these scopes shows a part."""
    return {_RIGHTS: [[scope] for scope in scopes]}


def take_rights(operation: dict[str, Any]) -> list[list[str]] | None:
    """Remove what a route declared from its OpenAPI operation: alternatives of scopes; None where it declared none."""
    found: list[list[str]] | None = operation.pop(_RIGHTS, None)
    return found


async def check_rights(request: Request) -> None:
    """`Forbidden` for a caller without the scopes that the route declares. Every route depends on it."""
    if is_open(request.scope):
        return
    declared: list[list[Scope]] | None = (getattr(request.scope["route"], "openapi_extra", None) or {}).get(_RIGHTS)
    if declared is None:
        message = "this call declares no right, so no caller has it"
        raise Forbidden(message)
    caller: Principal = request.state.caller
    if any(caller.scopes.issuperset(one) for one in declared):
        return
    for scope in declared[0]:
        require(caller, scope)


def _require_subject(subject: str) -> str:
    if not 0 < len(subject) <= _MAX_SUBJECT or not subject.isprintable():
        message = f"the token's subject must be 1 to {_MAX_SUBJECT} printable characters"
        raise ValueError(message)
    return subject


def _require_own(subject: str) -> None:
    """`ValueError` for a name that only the OpenID provider's tokens have."""
    if subject.startswith(OF_ISSUER):
        message = f"a subject that begins with {OF_ISSUER} is one of OIDC_ISSUER's: take another one"
        raise ValueError(message)


class BearerGate:
    """Passes on requests with a valid token or cookie; their state has the `caller`, and until when (`valid_until`)."""

    def __init__(
        self, app: ASGIApp, sign_in: SignIn, sessions: SessionService, tokens: TokenService, rules: CallRules
    ) -> None:
        self._app = app
        self._sign_in = sign_in
        self._sessions = sessions
        self._tokens = tokens
        self._rules = rules

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401; 403 for a cookie without an own `Origin`; 422 and 429 by the rules."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            who = await self._known(scope)
        except Unauthorized as error:
            problem = Problem(401, ProblemCode.UNAUTHORIZED, str(error))
            await _refuse(problem, scope, receive, send, {"WWW-Authenticate": f'Bearer realm="{AUDIENCE}"'})
            return
        except CallRefused as error:
            await _refuse(error.problem, scope, receive, send)
            return
        except ServiceError as error:
            await _refuse(problem_of(error), scope, receive, send)
            return
        scope.setdefault("state", {}).update(caller=who.principal, valid_until=who.valid_until)
        await self._app(scope, receive, send)

    async def _known(self, scope: AsgiScope) -> SignedIn:
        """The caller, with the address and the reason of this call; its token is noted as used."""
        here = {"address": scope.setdefault("state", {}).get("address"), "reason": _reason(scope)}
        try:
            who = await self._who(scope)
            known = SignedIn(replace(who.principal, **here), who.valid_until)
            await require_unrevoked(self._tokens, known)
        except Unauthorized:
            if scope["path"] != SESSION_PATH:
                raise
            known = SignedIn(replace(ANONYMOUS, **here), _FOREVER)
        if known.valid_until < _FOREVER:
            self._rules.count(known.principal.subject)
        acts = scope["method"] not in _SAFE_METHODS and scope["path"] not in _WITHOUT_REASON
        if self._rules.require_reason and acts and known.principal.reason is None:
            raise CallRefused(Problem(422, ProblemCode.REASON_MISSING, _NO_REASON))
        return known

    async def _who(self, scope: AsgiScope) -> SignedIn:
        if self._sign_in.secret is None or is_open(scope) or scope["path"] in OF_DEVICES:
            return SignedIn(ANONYMOUS, _FOREVER)
        headers = Headers(scope=scope)
        cookie = cookie_of(headers)
        if cookie is None or "authorization" in headers:
            return await self._sign_in.check(_token(headers))
        if scope["method"] not in _SAFE_METHODS and "origin" not in headers:
            # `gates.OwnPages` has refused every other origin.
            text = "a request of a signed-in browser must have an Origin"
            raise CallRefused(Problem(403, ProblemCode.FOREIGN_PAGE, text))
        found = await self._sessions.find(cookie)
        if found is None:
            message = "this browser is no longer signed in"
            raise Unauthorized(message)
        scope.setdefault("state", {})["session"] = cookie
        return found


def _reason(scope: AsgiScope) -> str | None:
    """Why the call is made; `CallRefused` for a text that cannot be shown."""
    given = Headers(scope=scope).getlist(REASON)
    if not given:
        return None
    text = unquote(given[-1], errors="replace").strip()
    if not text:
        return None
    if len(given) > 1 or len(text) > _MAX_REASON or not text.isprintable():
        detail = f"{REASON}: one header of at most {_MAX_REASON} printable characters, in percent-encoded UTF-8"
        raise CallRefused(Problem(422, ProblemCode.BAD_INPUT, detail))
    return text


async def require_unrevoked(tokens: TokenService, who: SignedIn) -> None:
    """`Unauthorized` for a caller with a revoked token; the use of any other is noted. `DatabaseUnavailable`."""
    token_id = who.principal.token_id
    if token_id is not None and await tokens.is_revoked(token_id):
        message = "the token is revoked"
        raise Unauthorized(message)
    tokens.note(who)


async def _refuse(
    problem: Problem, scope: AsgiScope, receive: Receive, send: Send, headers: Mapping[str, str] | None = None
) -> None:
    # The body stays unread, so the connection cannot be reused.
    await respond(problem, {**(headers or {}), "Connection": "close"})(scope, receive, send)


def cookie_of(headers: Headers) -> str | None:
    """The value of the browser's session; None without one."""
    return cookie_parser(headers.get("cookie", "")).get(COOKIE) or None


def is_open(scope: AsgiScope) -> bool:
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
