"""Many readers of one event stream: `python -m benchmarks.readers SERVER COUNT`.

Rule: prints `ready` once every stream is open; on a line on standard input it prints what they saw, as JSON. Every
reader counts all events; every twentieth one takes the time of each.
"""

import asyncio
import json
import re
import sys
import time
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlsplit

_AT: Final = re.compile(rb'"at":"([^"]+)"')
_ID: Final = re.compile(rb"(?:^|\n)id: (\d+)\n")
_TIMED: Final = 20
_OPEN: Final = 20
"""Streams that are opened at the same time."""

QUIET: Final = 3.0
"""Seconds for which the last events may be under way."""


class Reader(asyncio.Protocol):
    """One caller of `GET /events`."""

    def __init__(self, host: str, *, timed: bool) -> None:
        self._host = host
        self._timed = timed
        self._rest = b""
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.events = 0
        self.last = 0
        self.delays: list[float] = []
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the request."""
        request = f"GET /events HTTP/1.1\r\nHost: {self._host}\r\n\r\n"
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for the type checker
        transport.write(request.encode())

    def data_received(self, data: bytes) -> None:
        """Count whole frames."""
        now = time.time()
        whole, _, self._rest = (self._rest + data).rpartition(b"\n\n")
        if not self.opened.done() and b"retry:" in whole:
            self.opened.set_result(None)
        self.events += whole.count(b"\nevent: ")
        if found := _ID.findall(whole):
            self.last = int(found[-1])
        if self._timed:
            self.delays += [now - datetime.fromisoformat(text.decode()).timestamp() for text in _AT.findall(whole)]

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio calls it so
        """No stream ends before it is asked for what it saw."""
        self.lost = True


async def read(server: str, count: int) -> None:
    """Open the streams, and report when it is asked for."""
    parts = urlsplit(server)
    loop = asyncio.get_running_loop()
    readers: list[Reader] = []
    while len(readers) < count:
        some = min(_OPEN, count - len(readers))
        made = [Reader(parts.netloc, timed=number % _TIMED == 0) for number in range(some)]
        for one in made:
            await loop.create_connection(lambda one=one: one, parts.hostname or "", parts.port or 80)  # type: ignore[misc]
        async with asyncio.timeout(30):
            await asyncio.gather(*(one.opened for one in made))
        readers += made
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await loop.run_in_executor(None, sys.stdin.readline)
    await asyncio.sleep(QUIET)
    sys.stdout.write(json.dumps(_seen(readers)) + "\n")
    sys.stdout.flush()


def _seen(readers: list[Reader]) -> dict[str, Any]:
    delays = sorted(delay for one in readers for delay in one.delays)
    return {
        "readers": len(readers),
        "disconnected": sum(one.lost for one in readers),
        "events": sorted({one.events for one in readers}),
        "last": sorted({one.last for one in readers}),
        "timed": len(delays),
        "median_delay": delays[len(delays) // 2] if delays else None,
        "longest_delay": delays[-1] if delays else None,
    }


if __name__ == "__main__":
    asyncio.run(read(sys.argv[1], int(sys.argv[2])))
