"""The port `PageExaminer` over HTTP.

Rule: only an address of this machine's own settings is requested, and nothing is followed.
"""

import asyncio
import http.client
import re
from typing import Final

from control_plane.services.ports.diagnosis import PageFacts

_TIMEOUT: Final = 5.0
_MOST: Final = 1024 * 1024
_OK: Final = 200
_NAMED: Final = re.compile(r'(?:src|href)="(/static/[^"]+)"')
_ANY: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what the server listens on, not this program


class HttpPage:
    """`services.ports.diagnosis.PageExaminer` of the server that listens at this host and port."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = _ANY.get(host, host), port

    async def facts(self) -> PageFacts:
        return await asyncio.to_thread(self._facts)

    def _facts(self) -> PageFacts:
        shown = f"[{self._host}]" if ":" in self._host else self._host
        address = f"http://{shown}:{self._port}/"
        try:
            status, policy, body = self._get("/")
            named = _NAMED.findall(body) if status == _OK else []
            missing = [path for path in named if self._get(path)[0] != _OK]
        except (OSError, http.client.HTTPException) as error:
            text = getattr(error, "strerror", None) or str(error) or type(error).__name__
            return PageFacts(address=address, status=None, error=text)
        return PageFacts(address=address, status=status, policy=policy, missing=tuple(missing))

    def _get(self, path: str) -> tuple[int, str | None, str]:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=_TIMEOUT)
        try:
            connection.request("GET", path, headers={"Accept": "text/html,*/*"})
            answer = connection.getresponse()
            body = answer.read(_MOST).decode("utf-8", "replace")
            return answer.status, answer.getheader("Content-Security-Policy"), body
        finally:
            connection.close()
