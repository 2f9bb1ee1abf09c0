"""Readers of the event stream: many connections of one process, each of which follows one client.

Rule: what is measured is the control plane's side; a line of the report has the delays that the readers saw.
"""

import asyncio
import json
import sys
import time
from datetime import datetime
from urllib.parse import urlsplit

_AT_ONCE = 100


class Readers:
    """`delays` are the seconds from the instant in an event until its arrival."""

    def __init__(self, server: str, count: int, name: str) -> None:
        parts = urlsplit(server)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._count = count
        self._name = name
        self._opening = asyncio.Semaphore(_AT_ONCE)
        self.delays: list[float] = []

    async def run(self) -> None:
        """Report when all are connected; at the end of the standard input report what came, and end."""
        ready = [asyncio.get_running_loop().create_future() for _ in range(self._count)]
        readers = [asyncio.create_task(self._follow(number, one)) for number, one in enumerate(ready, 1)]
        await asyncio.gather(*ready)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
        sys.stdout.write(json.dumps({"delays": self.delays}) + "\n")

    async def _follow(self, number: int, ready: "asyncio.Future[None]") -> None:
        async with self._opening:
            reader, writer = await asyncio.open_connection(self._host, self._port)
            client = self._name.format(number)
            writer.write(
                f"GET /events?client={client}&type=upload.created HTTP/1.1\r\n"
                f"Host: {self._host}:{self._port}\r\nAccept: text/event-stream\r\n\r\n".encode()
            )
            await reader.readuntil(b"\r\n\r\n")
        ready.set_result(None)
        try:
            while line := await reader.readline():
                if line.startswith(b"data:"):
                    self.delays.append(time.time() - _instant(json.loads(line[5:])))
        finally:
            writer.close()


def _instant(document: dict[str, object]) -> float:
    at = document["at"]
    return float(at) if isinstance(at, int | float) else datetime.fromisoformat(str(at)).timestamp()


if __name__ == "__main__":
    asyncio.run(Readers(sys.argv[1], int(sys.argv[2]), sys.argv[3]).run())
