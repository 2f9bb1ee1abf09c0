"""A device that says something and waits for the answer: how long a response takes through the control plane.

Rule: it reports an upload that nobody knows, which the control plane looks for in its turn and answers with
`close_upload`; so the way of a response is measured, and no database grows.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from broker.process import BrokerAddress
from control_plane.cli.simulate.packets import Connect, Filter, Publish, text
from control_plane.cli.simulate.wire import Wire
from schemas.codec import decode_command, encode
from schemas.messages import CloseUpload, Response, UploadReport
from schemas.topics import CONTROL_PLANE, Topics
from schemas.values import Action, ResponseStatus

CLIENT: Final = "benchmark-asker"
PATIENCE: Final = 60.0


class Asker:
    """Connected to a broker."""

    def __init__(self) -> None:
        self._topics = Topics()
        self._ready = asyncio.Event()
        self._wire: Wire | None = None
        self._closed: asyncio.Queue[str] = asyncio.Queue()

    # --- what the wire tells ---

    def connected(self, wire: Wire) -> None:
        """Listen to commands."""
        self._wire = wire
        wire.subscribe([Filter(self._topics.command(CLIENT))])

    def heard(self, message: Publish) -> None:
        """An answer."""
        payload = decode_command(message.payload).payload
        if isinstance(payload, CloseUpload):
            self._closed.put_nowait(payload.about or "")

    def acknowledged(self, packet_id: int, reason: int) -> None:  # noqa: ARG002 - the listener's signature
        """The subscription stands, or the broker has the response."""
        self._ready.set()

    def disconnected(self, wire: Wire, why: str) -> None:
        """It is over."""

    # --- what benchmarks ask ---

    async def ready(self) -> None:
        """Wait until answers are heard."""
        await self._ready.wait()

    async def ask(self) -> float:
        """Seconds from a response to its answer."""
        assert self._wire is not None  # noqa: S101 - it is connected
        upload_id, started = secrets.token_hex(16), time.perf_counter()
        report = UploadReport(upload_id=upload_id, attempt=1, owner=CONTROL_PLANE)
        success = Response(upload_id, Action.DOWNLOAD_FILE, ResponseStatus.SUCCESS, payload=report, sequence=1)
        self._wire.publish(text(self._topics.response(CLIENT)), encode(success))
        async with asyncio.timeout(PATIENCE):
            while await self._closed.get() != upload_id:
                pass
        return time.perf_counter() - started


@asynccontextmanager
async def asking(address: BrokerAddress) -> AsyncIterator[Asker]:
    """An asker as long as the block lasts."""
    asker = Asker()
    wire = Wire(Connect(client_id=CLIENT, clean_start=True), asker)
    await asyncio.get_running_loop().create_connection(lambda: wire, address.host, address.port)
    await asker.ready()
    yield asker
    wire.close()
