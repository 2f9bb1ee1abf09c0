"""What a request may cost us: 64 KiB of body, received in time, and only from pages of our own.

Rule: pure ASGI, so nothing of a request reaches the application before it is whole. The body is counted as it
arrives, whatever Content-Length says.
"""

import asyncio
from collections.abc import Mapping
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from control_plane.api.problems import Problem, respond

MAX_BODY: Final = 64 * 1024
RECEIPT_DEADLINE: Final = 10.0
"""Seconds in which a request must have arrived: first its head, then its body."""

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


class _TooLarge(Exception):
    """The body goes on beyond `MAX_BODY`."""


class WholeBody:
    """Hands a request on once its body is here: 413 when it is too large, 408 when it takes too long."""

    def __init__(self, app: ASGIApp, deadline: float = RECEIPT_DEADLINE) -> None:
        self._app = app
        self._deadline = deadline

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass it on whole, or answer 413 or 408; nothing when the caller went away."""
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
    # What is left of the body is not read, so the connection cannot be used again.
    await respond(problem, {"Connection": "close"})(scope, receive, send)


async def _read(scope: Scope, receive: Receive) -> bytes | None:
    """The whole body; None when the caller went away."""
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
    """First the body in one piece, then whatever comes: the caller's going away."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return waiting.pop() if waiting else await receive()

    return replayed


class OwnPages:
    """Keeps a browser from being used against us by a page of another site.

    A request that changes something must not come from a foreign page (`Origin`, `Sec-Fetch-Site`). Where no token is
    needed because only this machine is served, the `Host` must be this machine's, or a name that an attacker lets point
    here would make his page our own (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, *, local_only: bool) -> None:
        self._app = app
        self._local_only = local_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass it on, or answer 403 or 421."""
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
    """Adds to every answer what a browser needs to be careful with it; an answer's own headers win."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass it on, and the answer back with the headers added."""

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, guarded)
