"""A device that publishes a response and waits for the command that answers it: one round trip through a control plane.

Rule: it reports an upload that does not exist, which the control plane looks up in its turn and answers with
`close_upload`; so the path of a response is measured, and no database grows.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from broker.process import BrokerAddress
from control_plane.cli.simulate.connection import MqttConnection
from control_plane.cli.simulate.packets import Connect, Publish, TopicFilter, text
from schemas.codec import decode_command, encode
from schemas.messages import CloseUpload, Response, UploadReport
from schemas.topics import CONTROL_PLANE, Topics
from schemas.values import Action, ResponseStatus

CLIENT: Final = "benchmark-round-trip"
PATIENCE: Final = 60.0


class RoundTripClient:
    """A device connected to a broker."""

    def __init__(self) -> None:
        self._topics = Topics()
        self._ready = asyncio.Event()
        self._connection: MqttConnection | None = None
        self._closed: asyncio.Queue[str] = asyncio.Queue()

    # --- callbacks of the connection ---

    def connected(self, connection: MqttConnection) -> None:
        """Subscribe to commands."""
        self._connection = connection
        connection.subscribe([TopicFilter(self._topics.command(CLIENT))])

    def received(self, message: Publish) -> None:
        """Store the id of an upload that is closed."""
        payload = decode_command(message.payload).payload
        if isinstance(payload, CloseUpload):
            self._closed.put_nowait(payload.about or "")

    def acknowledged(self, packet_id: int, reason: int) -> None:  # noqa: ARG002 - the listener's signature
        """The broker acknowledged the subscription, or the response."""
        self._ready.set()

    def disconnected(self, connection: MqttConnection, why: str) -> None:
        """Nothing to do: the benchmark has ended."""

    # --- measuring ---

    async def ready(self) -> None:
        """Wait until the subscription stands."""
        await self._ready.wait()

    async def measure(self) -> float:
        """Seconds from a response to its answer."""
        assert self._connection is not None  # noqa: S101 - it is connected
        upload_id, started = secrets.token_hex(16), time.perf_counter()
        report = UploadReport(upload_id=upload_id, attempt=1, owner=CONTROL_PLANE)
        success = Response(upload_id, Action.DOWNLOAD_FILE, ResponseStatus.SUCCESS, payload=report, sequence=1)
        self._connection.publish(text(self._topics.response(CLIENT)), encode(success))
        async with asyncio.timeout(PATIENCE):
            while await self._closed.get() != upload_id:
                pass
        return time.perf_counter() - started


@asynccontextmanager
async def round_trip_client(address: BrokerAddress) -> AsyncIterator[RoundTripClient]:
    """A connected client, for the duration of the block."""
    client = RoundTripClient()
    connection = MqttConnection(Connect(client_id=CLIENT, clean_start=True), client)
    await asyncio.get_running_loop().create_connection(lambda: connection, address.host, address.port)
    await client.ready()
    yield client
    connection.close()
