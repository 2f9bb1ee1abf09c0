"""An owner of uploads that costs next to nothing: it grants every requested part, at the sink, unsigned.

Rule: it isolates the agent's cost from a control plane's. It follows protocol.md, with URLs that only the sink accepts.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from msgspec.structs import replace

from benchmarks.site import BUCKET
from broker.process import BrokerAddress
from control_plane.cli.simulate.connection import MqttConnection
from control_plane.cli.simulate.http_pool import HttpPool
from control_plane.cli.simulate.packets import Connect, Publish, TopicFilter, text
from schemas.codec import decode, decode_response, encode
from schemas.messages import (
    CloseUpload,
    Command,
    CommandPayload,
    DownloadFile,
    GrantParts,
    Presence,
    Response,
    SelectFiles,
    Selection,
    UploadConfig,
    UploadReport,
)
from schemas.topics import Channel, Topics
from schemas.values import Action, DigestName, Outcome, PresignedPart, ResponseStatus

OWNER: Final = "cli-benchmark"
PATIENCE: Final = 600.0
HEADERS: Final = {
    DigestName.MD5: "content-md5",
    DigestName.SHA256: "x-amz-checksum-sha256",
    DigestName.CRC32: "x-amz-checksum-crc32",
}


class Owner:
    """Connected to a broker; one upload at a time. `largest` is the size of the longest message received or sent."""

    def __init__(self, sink_url: str, http: HttpPool) -> None:
        self.largest = 0
        self._topics = Topics()
        self._sink_url = sink_url
        self._http = http
        self._ready = asyncio.Event()
        self._connection: MqttConnection | None = None
        self._presence: asyncio.Queue[Presence] = asyncio.Queue()
        self._responses: asyncio.Queue[Response] = asyncio.Queue()

    # --- callbacks of the connection ---

    def connected(self, connection: MqttConnection) -> None:
        """Subscribe to every agent."""
        self._connection = connection
        connection.subscribe(
            [TopicFilter(self._topics.every(channel)) for channel in (Channel.RESPONSE, Channel.PRESENCE)]
        )

    def received(self, message: Publish) -> None:
        """Put it into the queue of its channel."""
        self.largest = max(self.largest, len(message.payload))
        if message.topic.endswith(Channel.PRESENCE):
            self._presence.put_nowait(decode(Presence, message.payload))
        elif message.topic.endswith(Channel.RESPONSE):
            self._responses.put_nowait(decode_response(message.payload))

    def acknowledged(self, packet_id: int, reason: int) -> None:  # noqa: ARG002 - the listener's signature
        """The subscription stands."""
        self._ready.set()

    def disconnected(self, connection: MqttConnection, why: str) -> None:
        """Nothing to do: the benchmark has ended."""

    # --- for benchmarks ---

    def subscribe_to_commands(self) -> None:
        """Subscribe to the commands of other owners, too."""
        if self._connection is not None:
            self._connection.subscribe([TopicFilter(self._topics.every(Channel.COMMAND))])

    async def ready(self) -> None:
        """Wait until the subscription stands."""
        await self._ready.wait()

    async def online(self, client_id: str) -> float:
        """Wait until the client publishes that it is online; the monotonic instant of that message."""
        async with asyncio.timeout(PATIENCE):
            while True:
                presence = await self._presence.get()
                if presence.client_id == client_id and presence.status == "online":
                    return time.monotonic()

    async def upload(self, client_id: str, path: str, digest: DigestName) -> float:
        """Have a file uploaded; returns seconds from the command to the agent's success."""
        upload_id, started = secrets.token_hex(16), time.perf_counter()
        config = UploadConfig(upload_id=upload_id, attempt=1, owner=OWNER, digest=digest)
        self._publish(client_id, Action.DOWNLOAD_FILE, DownloadFile(upload_config=config, file_path=path), upload_id)
        s3_upload_id = ""
        async with asyncio.timeout(PATIENCE):
            while True:
                response = await self._responses.get()
                report = response.payload
                if not isinstance(report, UploadReport) or report.upload_id != upload_id:
                    continue
                status = ResponseStatus.read(response.status)
                if status is ResponseStatus.IN_PROGRESS:
                    s3_upload_id = s3_upload_id or await self._open(upload_id)
                    self._grant(client_id, report, s3_upload_id, response.sequence or 0, digest)
                    continue
                seconds = time.perf_counter() - started
                self._close(client_id, upload_id, response.sequence or 0)
                if status is not ResponseStatus.SUCCESS:
                    message = f"the agent reported {response.error}: {response.message}"
                    raise RuntimeError(message)
                return seconds

    async def select(
        self, client_id: str, request: SelectFiles, selection: str | None = None, offset: int = 0
    ) -> Selection:
        """Ask for a page of a selection, and wait for the answer."""
        message_id = secrets.token_hex(16)
        payload = replace(request, selection=selection, offset=offset)
        self._publish(client_id, Action.SELECT_FILES, payload, message_id)
        async with asyncio.timeout(PATIENCE):
            while True:
                response = await self._responses.get()
                if response.message_id != message_id:
                    continue
                if response.error is not None or not isinstance(response.payload, Selection):
                    message = f"the agent answered {response.error}: {response.message}"
                    raise RuntimeError(message)
                return response.payload

    async def _open(self, key: str) -> str:
        answer = await self._http.send("POST", f"{self._sink_url}/{BUCKET}/{key}?uploads", {})
        return answer.body.decode().split("<UploadId>")[1].split("<")[0]

    def _grant(
        self, client_id: str, report: UploadReport, s3_upload_id: str, sequence: int, digest: DigestName
    ) -> None:
        url = f"{self._sink_url}/{BUCKET}/{report.upload_id}?uploadId={s3_upload_id}&partNumber="
        parts = tuple(
            PresignedPart(
                one.part_number, f"{url}{one.part_number}", {HEADERS[digest]: one.digest} if one.digest else {}
            )
            for one in report.wanted_parts
        )
        config = UploadConfig(upload_id=report.upload_id, attempt=1, presigned_urls=parts, expires_in=900)
        grant = GrantParts(upload_config=config, acknowledges=sequence)
        self._publish(client_id, Action.GRANT_PARTS, grant, f"{report.upload_id}.{sequence}")

    def _close(self, client_id: str, upload_id: str, sequence: int) -> None:
        close = CloseUpload(upload_id=upload_id, attempt=1, acknowledges=sequence, outcome=Outcome.COMPLETED)
        self._publish(client_id, Action.CLOSE_UPLOAD, close, f"{upload_id}.close")

    def _publish(self, client_id: str, action: Action, payload: CommandPayload, message_id: str) -> None:
        assert self._connection is not None  # noqa: S101 - `ready` was awaited
        data = encode(Command(message_id=message_id, action=action, payload=payload))
        self.largest = max(self.largest, len(data))
        self._connection.publish(text(self._topics.command(client_id)), data)


@asynccontextmanager
async def owning(address: BrokerAddress, sink_url: str, http: HttpPool) -> AsyncIterator[Owner]:
    """A connected owner."""
    owner = Owner(sink_url, http)
    connection = MqttConnection(Connect(client_id=OWNER, clean_start=True, receive_maximum=65_535), owner)
    await asyncio.get_running_loop().create_connection(lambda: connection, address.host, address.port)
    await owner.ready()
    try:
        yield owner
    finally:
        connection.close()
        http.close()
