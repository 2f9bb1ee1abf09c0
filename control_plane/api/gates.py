"""The gates around the application: bodies with limits, own names and pages only, HEAD, headers, metrics and logs.

Rule: pure ASGI. The application receives a request only once its body is complete, and the limit counts the bytes that
arrive, not Content-Length. An exception that nothing else handles ends in `Observe`: a 500 without details, and a log
line with all of them.
"""

import asyncio
import ipaddress
import time
from collections.abc import Collection, Mapping
from http import HTTPStatus
from typing import Any, Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from control_plane.api.auth import is_open
from control_plane.api.problems import INTERNAL, Problem, respond
from control_plane.domain.access import Principal
from control_plane.domain.reasons import ProblemCode
from control_plane.observability import Metrics
from control_plane.services.audit.denials import Denials

MAX_BODY: Final = 64 * 1024
LARGE_BODIES: Final[Mapping[tuple[str, str], int]] = {
    ("POST", "/batches"): 1024 * 1024,
    ("POST", "/clients"): 4 * 1024 * 1024,
    ("POST", "/jobs"): 4 * 1024 * 1024,
    ("PUT", "/keys"): 256 * 1024,
}
"""Method and path of the requests whose body may be larger than `MAX_BODY`, with its bytes: they hold lists."""

RECEIPT_DEADLINE: Final = 10.0
"""Seconds for the head of a request to arrive, and as many for its body."""

SECURITY_HEADERS: Final[Mapping[str, str]] = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

_TOO_SLOW: Final = Problem(408, ProblemCode.REQUEST_TIMEOUT)
_FOREIGN_PAGE: Final = Problem(403, ProblemCode.FOREIGN_PAGE)
_WRONG_HOST: Final = Problem(421, ProblemCode.WRONG_HOST)
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_SITE: Final = frozenset({None, "none", "same-origin"})
"""`Sec-Fetch-Site` of a request that no foreign page made. `same-site` is foreign: all ports of localhost are one."""

_DENIED: Final = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.MISDIRECTED_REQUEST})
_DENIAL: Final = "rest.denied"
_MAX_PATH: Final = 256
"""Characters of a path in a log line."""

_UNMATCHED: Final = "unmatched"
_NOT_FOUND: Final = HTTPStatus.NOT_FOUND
_CALLER_DISCONNECTED: Final = 499


class _TooLarge(Exception):
    """The body is longer than the request may have it."""


class WholeBody:
    """Passes a request on once its body is complete; 413 when it is too large, 408 when it takes too long."""

    def __init__(self, app: ASGIApp, deadline: float = RECEIPT_DEADLINE) -> None:
        self._app = app
        self._deadline = deadline

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 413 or 408; no answer when the caller disconnects."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self._deadline):
                body = await _read(scope, receive)
        except _TooLarge:
            detail = f"A body may have at most {_limit(scope)} bytes"
            await _refuse(Problem(413, ProblemCode.BODY_TOO_LARGE, detail), scope, receive, send)
        except TimeoutError:
            await _refuse(_TOO_SLOW, scope, receive, send)
        else:
            if body is not None:
                await self._app(scope, _replay(body, receive), send)


async def _refuse(problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
    # The rest of the body stays unread, so the connection cannot be reused.
    await respond(problem, {"Connection": "close"})(scope, receive, send)


def _limit(scope: Scope) -> int:
    """Bytes that the body of this request may have."""
    return LARGE_BODIES.get((scope["method"], scope["path"]), MAX_BODY)


async def _read(scope: Scope, receive: Receive) -> bytes | None:
    """The whole body; None when the caller disconnects."""
    length, limit = Headers(scope=scope).get("content-length", ""), _limit(scope)
    if length.isdecimal() and int(length[:20]) > limit:
        raise _TooLarge
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if len(body) > limit:
            raise _TooLarge
        if not message.get("more_body", False):
            return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Receive the body in one message, then what follows: the caller's disconnect."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return waiting.pop() if waiting else await receive()

    return replayed


class OwnPages:
    """Refuses what a page of another site requests through a caller's browser, with any method and AUTH.

    A browser sends a request without asking first, so also a GET has its effect: it lists a device's folder. A foreign
    page is recognised by `Origin` and `Sec-Fetch-Site`. DNS rebinding gives it an origin whose name resolves to this
    server, so `Host` must be one of `hosts`, or an address: a page whose origin is an address comes from there.
    """

    def __init__(self, app: ASGIApp, *, hosts: Collection[str]) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 403 or 421."""
        problem = self._problem(scope) if scope["type"] == "http" and not is_open(scope) else None
        if problem is None:
            await self._app(scope, receive, send)
        else:
            await _refuse(problem, scope, receive, send)

    def _problem(self, scope: Scope) -> Problem | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        name = _name(host)
        if name not in self._hosts and not _is_address(name):
            return _WRONG_HOST
        origin = headers.get("origin")
        foreign = headers.get("sec-fetch-site") not in _OWN_SITE or (origin and origin.partition("://")[2] != host)
        return _FOREIGN_PAGE if foreign else None


def _name(host: str) -> str:
    """The host without its port, in lower case."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
    return name.lower()


def _is_address(name: str) -> bool:
    """Whether it is one machine's address. 0.0.0.0 is none: browsers take it for this machine, without the header."""
    try:
        return not ipaddress.ip_address(name[1:-1] if name.startswith("[") else name).is_unspecified
    except ValueError:
        return False


class HeadAsGet:
    """Answers HEAD wherever GET is answered, without the body; what the answer did is done and logged alike."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on as a GET."""

        async def without_body(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        if scope["type"] == "http" and scope["method"] == "HEAD":
            # In place: `Observe` reads the route that the router finds.
            scope["method"] = "GET"
            # An answer that lasts would send nothing, for ever.
            scope.setdefault("state", {})["head"] = True
            await self._app(scope, receive, without_body)
        else:
            await self._app(scope, receive, send)


class SecurityHeaders:
    """Adds the security headers to every answer; a header that the application set stays."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and add the headers to the answer."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, with_headers)


class Observe:
    """Counts and times every request, and logs by effect: each command, each disclosure, each denial, each fault.

    `discloses` marks a request whose effect is a disclosure: of a file's bytes, or of a device's file names.
    Denials go to the audit too, and so does each 404 of a caller with a reach: the answer does not show whether
    there is such a thing outside, and the auditor sees that it was asked for.

    The label of a request is its route's template. A caller that disconnects before the answer counts as 499.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, denials: Denials, *, behind_proxy: bool = False) -> None:
        self._app = app
        self._denials = denials
        self._metrics = metrics
        self._behind_proxy = behind_proxy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; answer 500 when the application raises before its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = _CALLER_DISCONNECTED
        began = time.monotonic()
        scope.setdefault("state", {})["address"] = self._address(scope)
        method = scope["method"]

        async def recorded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, recorded)
        except Exception as error:  # noqa: BLE001 - the last place that can answer
            scope.setdefault("state", {})["fault"] = error
            if status == _CALLER_DISCONNECTED:
                await respond(INTERNAL)(scope, receive, recorded)
        finally:
            self._record(scope, method, status, time.monotonic() - began)

    def _record(self, scope: Scope, method: str, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", _UNMATCHED)
        self._metrics.request(method, route, status, seconds)
        state = scope.get("state", {})
        caller: Principal | None = state.get("caller")
        path = scope["path"][:_MAX_PATH]
        if status in _DENIED or _looks_outside(scope, caller, status):
            self._denials.denied(caller, state.get("address"), method, path, status)
        disclosed: Mapping[str, Any] | None = state.get("disclosed")
        if event := _event_of(method, status, discloses=disclosed is not None):
            who = {"caller": None if caller is None else caller.subject, "address": state.get("address")}
            request = {"method": method, "path": path, "status": status}
            given: Mapping[str, object] = scope.get("path_params") or {}
            about = {name: str(one)[:_MAX_PATH] for name, one in given.items() if name.endswith("_id")}
            self._metrics(event, {**who, **request, **about, **(disclosed or {})})
        fault: Exception | None = state.get("fault")
        if fault is not None:
            facts = {"route": route, "status": status, "error": str(fault), "fault": fault}
            self._metrics("request.failed", facts)

    def _address(self, scope: Scope) -> str | None:
        """The caller's address: the peer's, or behind a proxy what the proxy added at the end of `X-Forwarded-For`."""
        if self._behind_proxy:
            last = ",".join(Headers(scope=scope).getlist("x-forwarded-for")).rpartition(",")[2].strip()
            if _is_address(last):
                return last
        peer = scope.get("client")
        return peer[0] if peer else None


def _looks_outside(scope: Scope, caller: Principal | None, status: int) -> bool:
    """Whether a caller with a reach asked for what is not in it: it may try the names of others."""
    asked = status == _NOT_FOUND and scope.get("route") is not None
    return asked and caller is not None and caller.clients is not None


def _event_of(method: str, status: int, *, discloses: bool) -> str | None:
    """The event of a request by its effect; None for one that has none."""
    if status in _DENIED:
        return _DENIAL
    if method not in SAFE_METHODS:
        return "rest.command"
    return "rest.disclosure" if discloses else None


def discloses(request: Request, **facts: object) -> None:
    """Mark a request that reads a file's bytes or names: it is logged with `facts`, also when it is refused."""
    request.state.disclosed = facts
