"""Fakes of the services' neighbours, and an engine over them.

Rule: for tests of the services' logic only; adapters are tested with real neighbours.
"""

import asyncio
import itertools
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Any, Self

from control_plane.adapters.memory.database import MemoryDatabase
from control_plane.domain.access import Principal
from control_plane.domain.reasons import Reason
from control_plane.domain.uploads.model import MAX_SETBACKS, Upload
from control_plane.services.engine import Engine, Ports, build_engine
from control_plane.services.errors import MessengerDown, ObjectStoreRefused, ServiceError
from control_plane.services.inbox import UploadScope
from control_plane.services.policy import Policy
from control_plane.services.ports.database import Database
from control_plane.services.ports.messenger import Delivered, UserProperties
from control_plane.services.ports.object_store import Grantable, MultipartInfo, ObjectInfo, ObjectStoreCapabilities
from control_plane.services.trust.keyring import ControlPlaneKey
from control_plane.services.uploads.completion import LONGEST_PAUSE
from control_plane.services.uploads.service import TriggerRequest
from control_plane.services.uploads.views import UploadView
from schemas.codec import MAX_MESSAGE_SIZE, decode_command, encode
from schemas.messages import (
    ActiveUpload,
    AgentInfo,
    Command,
    DownloadFile,
    GrantParts,
    Hello,
    Presence,
    Response,
    ResponsePayload,
    UploadReport,
)
from schemas.names import TOKEN_METADATA
from schemas.signing.trust import Trust
from schemas.topics import CONTROL_PLANE, Channel, Topics
from schemas.values import DigestName, PresignedPart
from tests.support.uploads import FINGERPRINT, wanted

CLIENT = "restaurant-1"
OPERATOR = Principal("operator")
SETTLE = 200
"""Turns of the event loop after which nothing is left to do."""


class FakeClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.time = 1_000.0

    def now(self) -> float:
        """The instant that the test set."""
        return self.time

    def monotonic(self) -> float:
        """The same."""
        return self.time


class FakeMessenger:
    """Records what is published; `down` refuses everything."""

    def __init__(self) -> None:
        self.down = False
        self.max_message_size = MAX_MESSAGE_SIZE
        self.sent: list[tuple[str, Command]] = []
        self.signed: list[tuple[str, bytes, UserProperties]] = []
        """The bytes and the user properties of each command."""
        self.keys: list[bytes] = []
        self.cleared: list[str] = []

    @property
    def problem(self) -> str | None:
        """Whether it takes messages."""
        return "not connected" if self.down else None

    async def publish(
        self,
        channel: Channel,
        client_id: str,
        payload: bytes,
        *,
        traceparent: str | None = None,
        properties: UserProperties = (),
    ) -> None:
        """Take one message."""
        await asyncio.sleep(0)
        if self.down:
            message = "the broker is away"
            raise MessengerDown(message)
        if channel is Channel.COMMAND:
            self.sent.append((client_id, decode_command(payload)))
            self.signed.append((client_id, payload, properties))
        elif channel is Channel.KEYS:
            self.keys.append(payload)
        elif channel is Channel.PRESENCE:
            self.cleared.append(client_id)

    def actions(self) -> list[str]:
        """The actions of the commands that were published since the last call."""
        actions = [command.action for _, command in self.sent]
        self.sent.clear()
        return actions


@dataclass(slots=True)
class FakeObjects:
    """A bucket in memory. `fails` has the next errors of a method; `capabilities` is the result of a probe."""

    bucket: str = "bucket"
    capabilities: ObjectStoreCapabilities = field(
        default_factory=lambda: ObjectStoreCapabilities(part_digests=frozenset({DigestName.MD5}))
    )
    objects: dict[str, ObjectInfo] = field(default_factory=dict)
    multipart: dict[str, tuple[str, str]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    fails: dict[str, list[ServiceError]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    object_size: int = 12 * 1024 * 1024
    complete_then_fail: bool = False
    listed: Mapping[int, str] = field(default_factory=lambda: {1: "e1", 2: "e2", 3: "e3"})
    initiated_at: float = 0.0
    own: dict[str, bytes] = field(default_factory=dict)
    rules: Mapping[str, Any] | None = field(default_factory=lambda: {"Rules": []})
    keeps_rules: bool = True
    _ids: Any = field(default_factory=lambda: itertools.count(1))

    def _meet(self, method: str) -> None:
        self.calls.append(method)
        if self.fails.get(method):
            raise self.fails[method].pop(0)

    async def ensure_bucket(self) -> None:
        """Make the bucket."""
        self._meet("ensure_bucket")

    async def probe(self) -> ObjectStoreCapabilities:
        """The capabilities that the test set."""
        self._meet("probe")
        return self.capabilities

    async def create_multipart(
        self, s3_key: str, token: str, digest: DigestName, *, file_name: str | None = None
    ) -> str:
        """Open one."""
        self._meet("create_multipart")
        s3_upload_id = f"s3-{next(self._ids)}"
        self.multipart[s3_upload_id] = (s3_key, token)
        return s3_upload_id

    def presign_part(self, s3_key: str, s3_upload_id: str, part: Grantable, digest: DigestName) -> PresignedPart:
        """A URL that shows what it is for."""
        headers = {"content-md5": part.digest} if part.digest and digest is DigestName.MD5 else {}
        return PresignedPart(part.part_number, f"http://s3/{s3_key}?id={s3_upload_id}&n={part.part_number}", headers)

    def presign_object(
        self,
        s3_key: str,
        token: str,
        part: Grantable,
        digest: DigestName,
        *,
        once: bool,
        file_name: str | None = None,
    ) -> PresignedPart:
        """A URL for the whole object."""
        assert digest
        headers = {f"x-amz-meta-{TOKEN_METADATA}": token, **({"if-none-match": "*"} if once else {})}
        return PresignedPart(part.part_number, f"http://s3/{s3_key}", headers)

    def presign_get(self, s3_key: str, expires_in: float) -> str:
        """A URL to read with."""
        return f"http://s3/{s3_key}?get={expires_in}"

    def url_lifetime(self, wanted: float) -> float:
        """As long as is wanted."""
        return wanted

    async def complete(self, s3_key: str, s3_upload_id: str, etags: Mapping[int, str]) -> None:
        """Assemble."""
        assert etags
        if not self.complete_then_fail:
            self._meet("complete")
        if s3_upload_id not in self.multipart:
            message = "no such upload"
            raise ObjectStoreRefused(message, "NoSuchUpload")
        _, token = self.multipart.pop(s3_upload_id)
        self.objects[s3_key] = ObjectInfo(self.object_size, "etag", {TOKEN_METADATA: token})
        if self.complete_then_fail:
            self._meet("complete")

    async def head(self, s3_key: str) -> ObjectInfo | None:
        """The object under the key."""
        self._meet("head")
        return self.objects.get(s3_key)

    async def list_parts(self, s3_key: str, s3_upload_id: str) -> dict[int, str] | None:
        """Three parts, or those in `listed`, as long as it is open."""
        return dict(self.listed) if s3_upload_id in self.multipart else None

    async def abort(self, s3_key: str, s3_upload_id: str) -> None:
        """Delete it. It is known only below its own key."""
        self._meet("abort")
        if self.multipart.get(s3_upload_id, ("", ""))[0] == s3_key:
            del self.multipart[s3_upload_id]

    async def put(self, s3_key: str, content: IO[bytes]) -> None:
        """Keep what was stored in `own`."""
        self._meet("put")
        self.own[s3_key] = content.read()

    async def read(self, s3_key: str, most: int) -> bytes | None:
        """What was stored in `own`."""
        self._meet("read")
        content = self.own.get(s3_key)
        return None if content is None else content[:most]

    async def delete(self, s3_key: str) -> None:
        """Remove an object."""
        self._meet("delete")
        self.objects.pop(s3_key, None)

    async def list_multipart(self, prefix: str) -> list[MultipartInfo]:
        """All that are open below a prefix."""
        return [
            MultipartInfo(key, one, self.initiated_at)
            for one, (key, _) in self.multipart.items()
            if key.startswith(prefix)
        ]

    async def multipart_size(self, s3_key: str, s3_upload_id: str) -> int:
        """The size that the test set."""
        return self.sizes.get(s3_upload_id, 0)

    async def lifecycle(self) -> Mapping[str, Any] | None:
        """What was set."""
        self._meet("lifecycle")
        return self.rules

    async def set_lifecycle(self, configuration: Mapping[str, Any]) -> None:
        """Keep it, unless `keeps_rules` is False."""
        self._meet("set_lifecycle")
        if self.keeps_rules:
            self.rules = configuration

    async def close(self) -> None:
        """Nothing to close."""


class Rig:
    """The engine over fakes, running; only the test moves the clock."""

    def __init__(
        self,
        policy: Policy | None = None,
        *,
        scope: UploadScope | None = None,
        performs: bool = True,
        database: Database | None = None,
        clock: FakeClock | None = None,
        fleet: bool = False,
        key: ControlPlaneKey | None = None,
        trust: Callable[[], Trust | None] = lambda: None,
    ) -> None:
        self.clock = clock or FakeClock()
        self.messenger = FakeMessenger()
        self.objects = FakeObjects()
        self.database: Database = database or MemoryDatabase()
        self.events: list[tuple[str, Mapping[str, Any]]] = []
        self.topics = Topics()
        self.ports = Ports(self.database, self.objects, self.messenger, self.clock, key=key)
        self.policy = policy or Policy()
        self.engine: Engine = build_engine(
            self.ports, self._log, self.policy, scope=scope, performs=performs, fleet=fleet, trust=trust
        )
        self.engine.uploads.linger = 0.0
        self._loops: list[asyncio.Task[None]] = []
        self._beats = itertools.count(1)

    def _log(self, event: str, facts: Mapping[str, Any]) -> None:
        self.events.append((event, facts))

    async def __aenter__(self) -> Self:
        engine = self.engine
        await engine.probe.probe()
        loops = (engine.uploads, engine.outbox, engine.registry, engine.resync, engine.inbox.introductions)
        self._loops = [asyncio.create_task(loop.run()) for loop in loops]
        if engine.receipts is not None:
            self._loops.append(asyncio.create_task(engine.receipts.run()))
        return self

    async def __aexit__(self, *_: object) -> None:
        for loop in self._loops:
            loop.cancel()
        for loop in self._loops:
            with suppress(asyncio.CancelledError):
                await loop

    def counted(self, event: str) -> int:
        """How often an event was logged."""
        return sum(1 for name, _ in self.events if name == event)

    async def settle(self, seconds: float = 0.0) -> None:
        """Move the clock and let everything that is due happen."""
        self.clock.time += seconds
        self.engine.outbox.poke()
        for _ in range(SETTLE):
            await asyncio.sleep(0)

    async def exhaust_setbacks(self) -> None:
        """Let every pause of an attempt that meets only setbacks pass; its client sends no beat meanwhile."""
        for _ in range(MAX_SETBACKS):
            await self.settle(LONGEST_PAUSE)

    async def deliver(self, channel: Channel, payload: bytes, client_id: str = CLIENT) -> None:
        """Deliver one message and let everything that follows happen."""
        self.engine.inbox.receive(Delivered(self.topics.of(client_id, channel), payload))
        await self.settle()

    async def birth(self, client_id: str = CLIENT, *, epoch: int = 1, **more: Any) -> None:  # noqa: ANN401
        """A client connects; with a higher `sequence` it sends a beat."""
        fields = {
            "status": "online",
            "agent": AgentInfo(),
            "default_file": "/data/test-file.bin",
            "install_id": f"install-{client_id}",
            "sequence": 0,
            **more,
        }
        presence = Presence(client_id, epoch=epoch, **fields)
        await self.deliver(Channel.PRESENCE, encode(presence), client_id)
        # Births are gathered for one commit; that pause is real time.
        await asyncio.sleep(0.07)
        await self.settle()

    async def respond(self, report: ResponsePayload, status: str = "in_progress", **more: Any) -> None:  # noqa: ANN401
        """The client sends a response about an upload."""
        fields = {"message_id": "m", "action": "download_file", **more}
        await self.deliver(Channel.RESPONSE, encode(Response(status=status, payload=report, **fields)))

    async def hear(self, payload: DownloadFile, message_id: str = "m") -> None:
        """Another sender publishes a command to the client."""
        await self.deliver(Channel.COMMAND, encode(Command(message_id, "download_file", payload)))

    async def hello(self, *active: ActiveUpload, more: bool = False) -> None:
        """The client sends a hello that lists these uploads."""
        await self.respond(Hello("install", active, more), "success", action="hello", epoch=1)

    async def trigger(self, **more: Any) -> UploadView:  # noqa: ANN401
        """An operator triggers an upload."""
        view = await self.engine.upload_service.trigger(OPERATOR, TriggerRequest(CLIENT, **more))
        await self.settle()
        return view

    async def upload(self, upload_id: str) -> Upload:
        """The upload as stored."""
        return (await self.engine.upload_service.upload(OPERATOR, upload_id)).upload

    async def reason(self, upload_id: str) -> Reason:
        """Why the upload waits; a `Reason` without a code and a text when it does not."""
        view = await self.engine.upload_service.upload(OPERATOR, upload_id)
        return view.reason or Reason("", "")

    async def granted(self) -> Upload:
        """An upload of three parts, granted."""
        await self.birth()
        view = await self.trigger()
        await self.respond(self.offer(view.upload.upload_id), sequence=1)
        return await self.upload(view.upload.upload_id)

    async def finished(self, **more: Any) -> Upload:  # noqa: ANN401
        """An upload that the client reported as stored."""
        upload = await self.granted()
        report = self.offer(upload.upload_id, wanted_parts=(), etags={1: '"e1"', 2: '"e2"', 3: '"e3"'}, **more)
        await self.respond(report, "success", sequence=2)
        return await self.upload(upload.upload_id)

    def offer(self, upload_id: str, **more: Any) -> UploadReport:  # noqa: ANN401
        """The report of an offer."""
        size = 12 * 1024 * 1024
        fields: dict[str, Any] = {
            "upload_id": upload_id,
            "owner": CONTROL_PLANE,
            "file_path": "/data/test-file.bin",
            "file_size": size,
            "fingerprint": FINGERPRINT,
            "wanted_parts": wanted(size),
            "chunk_size": 5 * 1024 * 1024,
        }
        return UploadReport(**{**fields, **more})

    def last_grant(self) -> GrantParts:
        """The last grant that was published."""
        return next(
            command.payload for _, command in reversed(self.messenger.sent) if isinstance(command.payload, GrantParts)
        )
