"""The gates around the application: bodies with limits, no requests of foreign pages, headers, metrics and logs.

Rule: pure ASGI. The application receives a request only once its body is complete, and the limit counts the bytes that
arrive, not Content-Length. An exception that nothing else handles ends in `Observe`: a 500 without details, and a log
line with all of them.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from control_plane.api.problems import INTERNAL, Problem, respond
from control_plane.observability import Metrics

MAX_BODY: Final = 64 * 1024
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

_TOO_LARGE: Final = Problem(413, "body-too-large", f"A body may have at most {MAX_BODY} bytes")
_TOO_SLOW: Final = Problem(408, "request-timeout", "The request did not arrive in time")
_FOREIGN_PAGE: Final = Problem(403, "foreign-page", "Pages of other sites may not give commands")
_WRONG_HOST: Final = Problem(
    421, "wrong-host", "Without a token only this machine is served, under the names localhost, 127.0.0.1 and [::1]"
)
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
_UNMATCHED: Final = "unmatched"
_CALLER_DISCONNECTED: Final = 499


class _TooLarge(Exception):
    """The body is longer than `MAX_BODY`."""


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
            await _refuse(_TOO_LARGE, scope, receive, send)
        except TimeoutError:
            await _refuse(_TOO_SLOW, scope, receive, send)
        else:
            if body is not None:
                await self._app(scope, _replay(body, receive), send)


async def _refuse(problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
    # The rest of the body stays unread, so the connection cannot be reused.
    await respond(problem, {"Connection": "close"})(scope, receive, send)


async def _read(scope: Scope, receive: Receive) -> bytes | None:
    """The whole body; None when the caller disconnects."""
    length = Headers(scope=scope).get("content-length", "")
    if length.isdecimal() and int(length[:20]) > MAX_BODY:
        raise _TooLarge
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if len(body) > MAX_BODY:
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
    """Refuses commands that a page of another site sends through a caller's browser.

    A request that changes something must not come from a foreign page (`Origin`, `Sec-Fetch-Site`). Where requests need
    no token because only this machine is served, `Host` must be a name of this machine: DNS rebinding gives a foreign
    page an origin with a host name that resolves to it.
    """

    def __init__(self, app: ASGIApp, *, local_only: bool) -> None:
        self._app = app
        self._local_only = local_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 403 or 421."""
        problem = self._problem(scope) if scope["type"] == "http" else None
        if problem is None:
            await self._app(scope, receive, send)
        else:
            await _refuse(problem, scope, receive, send)

    def _problem(self, scope: Scope) -> Problem | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._local_only and _name(host) not in _LOOPBACK:
            return _WRONG_HOST
        origin = headers.get("origin")
        foreign = headers.get("sec-fetch-site") == "cross-site" or (origin and origin.partition("://")[2] != host)
        return _FOREIGN_PAGE if foreign and scope["method"] not in SAFE_METHODS else None


def _name(host: str) -> str:
    """The host without its port."""
    return host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host


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
    """Counts and times every request, and logs every command with its caller and every internal error.

    The label of a request is its route's template. A caller that disconnects before the answer counts as 499.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; answer 500 when the application raises before its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = _CALLER_DISCONNECTED
        began = time.monotonic()

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
            self._record(scope, status, time.monotonic() - began)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", _UNMATCHED)
        self._metrics.request(scope["method"], route, status, seconds)
        state = scope.get("state", {})
        if scope["method"] not in SAFE_METHODS:
            caller = getattr(state.get("caller"), "subject", None)
            command = {"caller": caller, "method": scope["method"], "path": scope["path"], "status": status}
            self._metrics("rest.command", command)
        fault: Exception | None = state.get("fault")
        if fault is not None:
            facts = {"route": route, "status": status, "error": str(fault), "fault": fault}
            self._metrics("request.failed", facts)
