"""Every request counted, every command logged with its caller, and every fault of ours logged and answered.

Rule: the label of a request is its route's template; an exception that nobody expected ends here, as a 500 that tells
nothing and a log line that tells all.
"""

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from control_plane.api.limits import SAFE_METHODS
from control_plane.api.problems import INTERNAL, respond
from control_plane.observability import Metrics

_UNMATCHED = "unmatched"
_CLIENT_WENT_AWAY = 499


class Observe:
    """Times what is inside it. A request whose caller went away before the answer is counted as 499."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass it on; answer 500 when it fails before it has answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = _CLIENT_WENT_AWAY
        began = time.monotonic()

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception as error:  # noqa: BLE001 - the last place where a fault can become an answer
            scope.setdefault("state", {})["fault"] = error
            if status == _CLIENT_WENT_AWAY:
                await respond(INTERNAL)(scope, receive, noted)
        finally:
            self._note(scope, status, time.monotonic() - began)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", _UNMATCHED)
        self._metrics.request(scope["method"], route, status, seconds)
        state = scope.get("state", {})
        if scope["method"] not in SAFE_METHODS:
            caller = getattr(state.get("caller"), "subject", None)
            asked = {"caller": caller, "method": scope["method"], "path": scope["path"], "status": status}
            self._metrics("rest.command", asked)
        fault: Exception | None = state.get("fault")
        if fault is not None:
            facts = {"route": route, "status": status, "error": str(fault), "fault": fault}
            self._metrics("request.failed", facts)
