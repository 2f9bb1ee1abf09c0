"""The control plane's own services over an in-memory store: uploads straight over MQTT.

Rule: composition only. The one module of the command line that names the broker's, the bucket's and the memory's
adapters; there is no second engine.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from control_plane.adapters.clocks import SystemClock
from control_plane.adapters.memory.database import MemoryDatabase
from control_plane.adapters.mqtt.messenger import MqttMessenger, MqttSettings
from control_plane.adapters.object_store import S3ObjectStore, S3Settings
from control_plane.cli.errors import Failed, Misused, Unreachable
from control_plane.cli.mqtt.filter import OwnOnly
from control_plane.cli.mqtt.state_file import read_state, write_state
from control_plane.domain.access import Principal
from control_plane.domain.uploads.model import UploadKey
from control_plane.services.engine import Engine, Ports, build_engine
from control_plane.services.errors import BadInput, DatabaseUnavailable
from control_plane.services.policy import DAY, Policy
from control_plane.services.ports.database import Records
from control_plane.settings import Settings, SettingsError
from schemas.codec import decode_command
from schemas.topics import Channel, Topics
from schemas.values import Action

T = TypeVar("T")

CONNECT_TIMEOUT: Final = 5.0
"""Seconds within which the broker, and the object store, have to answer."""

PRINCIPAL: Final = Principal("cli")
"""The caller of the use cases."""

Note = Callable[[str], None]


def load_settings() -> Settings:
    """The operator's settings, from the environment and `.env`; `Misused` when one is wrong."""
    try:
        return Settings.load()
    except SettingsError as error:
        raise Misused(str(error)) from error


def new_owner() -> str:
    """A name that no other run has."""
    return f"cli-{secrets.token_hex(6)}"


class FileDatabase(MemoryDatabase):
    """A store in memory whose every commit is in its file before it counts.

    It waits for the disk on the event loop: a run with one upload has nothing else to do until it is committed.
    """

    path: Path | None = None
    _kept: bytes = b""

    async def write(self, work: Callable[[Records], T]) -> T:
        """Run `work`; it is undone when it raises, or when the file cannot be written."""
        return await super().write(lambda records: self._keeping(records, work))

    def _keeping(self, records: Records, work: Callable[[Records], T]) -> T:
        result = work(records)
        data = self.dump()
        if self.path is not None and data != self._kept:
            try:
                write_state(self.path, data)
            except OSError as error:
                message = f"{self.path}: {error.strerror}"
                raise DatabaseUnavailable(message) from error
            self._kept = data
        return result


class _Overheard:
    """A messenger that notes when the client was released from the upload."""

    def __init__(self, messenger: MqttMessenger) -> None:
        self._messenger = messenger
        self.released = asyncio.Event()

    @property
    def connected(self) -> bool:
        """Whether a connection stands."""
        return self._messenger.connected

    async def publish(self, channel: Channel, client_id: str, payload: bytes) -> None:
        """Publish; errors are the messenger's."""
        await self._messenger.publish(channel, client_id, payload)
        if channel is Channel.COMMAND and decode_command(payload).action == Action.CLOSE_UPLOAD:
            self.released.set()


@dataclass(frozen=True, slots=True)
class Direct:
    """A running engine for one client; `released` is set once the client was told that the upload is over."""

    engine: Engine
    store: FileDatabase
    objects: S3ObjectStore
    policy: Policy
    released: asyncio.Event
    _loops: tuple[asyncio.Task[None], ...]

    def check(self) -> None:
        """Raise what ended one of the loops: it is a fault of ours."""
        for loop in self._loops:
            if loop.done():
                loop.result()


class _Complaints:
    """The event log of a run: what fails is noted, and kept for whoever waits for the first success."""

    def __init__(self, note: Note) -> None:
        self._note = note
        self.last: dict[str, str] = {}

    def __call__(self, event: str, facts: Mapping[str, Any]) -> None:
        # The upload's own error is shown with the upload.
        if facts.get("error") and event != "upload.state":
            self.last[event] = str(facts["error"])
            self._note(f"{event}: {facts['error']}")


def load_store(path: Path) -> FileDatabase:
    """What a run left in `path`, to be kept there again; `Misused` without one, `Failed` when it is damaged."""
    try:
        store = FileDatabase.load(read_state(path))
    except BadInput as error:
        text = f"{path}: {error}"
        raise Failed(text) from error
    store.path = path
    return store


def policy_of(settings: Settings, owner: str, *, require_proof: bool = True) -> Policy:
    """How this run behaves."""
    return Policy(
        owner=owner,
        topic_root=settings.topic_root,
        base_path=settings.base_s3_path,
        chunk_size=settings.s3_chunk_size,
        digest=settings.s3_digest,
        url_expiry=float(settings.presigned_url_expiry),
        step_timeout=float(settings.client_timeout),
        require_proof=settings.require_proof and require_proof,
        history=settings.history_days * DAY,
    )


@asynccontextmanager
async def running(
    settings: Settings, store: FileDatabase, policy: Policy, *, about: UploadKey, note: Note
) -> AsyncIterator[Direct]:
    """The engine of one upload, connected to the broker and with the bucket probed.

    `Unreachable` when one of them does not answer, `Failed` when the bucket refuses.
    """
    log = _Complaints(note)
    messenger = messenger_of(settings, log, only_client=about.client_id)
    overheard = _Overheard(messenger)
    objects = S3ObjectStore(_s3(settings))
    engine = build_engine(Ports(store, objects, overheard, SystemClock()), log, policy)
    own = OwnOnly(Topics(settings.topic_root), about.upload_id)
    messenger.delivers_to(lambda message: own.pass_on(message, engine.inbox.hear))
    async with background(engine.run(), messenger.run()) as loops:
        try:
            direct = Direct(engine, store, objects, policy, overheard.released, loops)
            await connected(messenger, settings, log.last, loops)
            await _probed(direct, log.last)
            yield direct
        finally:
            await objects.close()


def messenger_of(
    settings: Settings, log: Callable[[str, Mapping[str, Any]], None], *, only_client: str | None = None
) -> MqttMessenger:
    """A connection to the operator's broker under a name of its own; it announces nothing to the fleet."""
    password = settings.mqtt_password
    mqtt = MqttSettings(
        url=settings.mqtt_url,
        username=settings.mqtt_username,
        password=password.get_secret_value() if password else None,
        identifier=new_owner(),
        only_client=only_client,
        announces=False,
    )
    return MqttMessenger(mqtt, Topics(settings.topic_root), log)


@asynccontextmanager
async def background(*loops: Coroutine[Any, Any, None]) -> AsyncIterator[tuple[asyncio.Task[None], ...]]:
    """Run the loops while the block runs."""
    tasks = tuple(asyncio.create_task(loop) for loop in loops)
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def connected(
    messenger: MqttMessenger, settings: Settings, last: Mapping[str, str], loops: Sequence[asyncio.Task[None]]
) -> None:
    """Wait for the broker; `Unreachable`, or what ended one of the `loops` that were to reach it."""
    up = asyncio.create_task(messenger.up())
    try:
        await asyncio.wait({up, *loops}, timeout=CONNECT_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
        for loop in loops:
            if loop.done():
                loop.result()
        if up.done():
            return
    finally:
        up.cancel()
    text = f"no broker at {settings.mqtt_url} ({last.get('broker.failed', 'no answer')}): name it in MQTT_URL"
    raise Unreachable(text)


async def _probed(direct: Direct, last: Mapping[str, str]) -> None:
    """Wait until it is known what the bucket enforces."""
    deadline = asyncio.get_running_loop().time() + CONNECT_TIMEOUT
    while direct.engine.probe.seen is None:
        direct.check()
        if asyncio.get_running_loop().time() > deadline:
            text = f"the object store cannot be used: {last.get('store.failed', 'no answer')}"
            raise Unreachable(text)
        await asyncio.sleep(0.05)


def _s3(settings: Settings) -> S3Settings:
    secret, session = settings.aws_secret_access_key, settings.aws_session_token
    return S3Settings(
        bucket=settings.s3_bucket_name,
        region=settings.aws_region,
        access_key=settings.aws_access_key_id,
        secret_key=secret.get_secret_value() if secret else None,
        session_token=session.get_secret_value() if session else None,
        endpoint=settings.aws_endpoint,
        public_endpoint=settings.s3_public_endpoint,
        base_path=settings.base_s3_path,
    )
