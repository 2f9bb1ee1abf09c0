"""The control plane's own engine in the command line: uploads straight over MQTT.

Rule: there is no second engine, and `control_plane.bootstrap` names the adapters.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from control_plane.bootstrap import direct_engine, direct_messenger, file_database
from control_plane.cli.errors import Failed, Misused, Unreachable
from control_plane.cli.mqtt.filter import OwnOnly
from control_plane.domain.access import Principal
from control_plane.domain.uploads.model import UploadKey
from control_plane.services.engine import Engine
from control_plane.services.errors import BadInput
from control_plane.services.policy import Policy
from control_plane.services.ports.database import Database
from control_plane.services.ports.messenger import Messenger
from control_plane.services.ports.object_store import ObjectStore
from control_plane.settings import Settings, SettingsError
from schemas.codec import decode_command
from schemas.topics import Channel, Topics
from schemas.values import Action

CONNECT_TIMEOUT: Final = 5.0
"""Seconds within which the broker, and the object store, have to answer."""

PRINCIPAL: Final = Principal("cli")
"""The caller of the use cases."""

Note = Callable[[str], None]


class StateDatabase(Database, Protocol):
    """The database of one upload; each commit is written to `path` once that is set."""

    path: Path | None


def load_settings() -> Settings:
    """The operator's settings, from the environment and `.env`; `Misused` when one is wrong."""
    try:
        return Settings.load()
    except SettingsError as error:
        raise Misused(str(error)) from error


def new_owner() -> str:
    """A name that no other run has."""
    return f"cli-{secrets.token_hex(6)}"


class _Overheard:
    """A messenger that notes when the client was released from the upload."""

    def __init__(self, messenger: Messenger) -> None:
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
    store: StateDatabase
    objects: ObjectStore
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


def load_store(path: Path) -> StateDatabase:
    """The state that a run left in `path`; later commits go there too. `Misused` without one, `Failed` if damaged."""
    try:
        return file_database(path)
    except OSError as error:
        text = f"no state of such an upload: {path}: {error.strerror} (name its file with --state)"
        raise Misused(text) from error
    except BadInput as error:
        text = f"{path}: {error}"
        raise Failed(text) from error


@asynccontextmanager
async def running(
    settings: Settings, store: StateDatabase, policy: Policy, *, about: UploadKey, note: Note
) -> AsyncIterator[Direct]:
    """The engine of one upload, connected to the broker and with the bucket probed.

    `Unreachable` when one of them does not answer, `Failed` when the bucket refuses.
    """
    log = _Complaints(note)
    messenger = direct_messenger(settings, log, identifier=new_owner(), only_client=about.client_id)
    overheard = _Overheard(messenger)
    parts = direct_engine(settings, store, overheard, log, policy)
    engine, objects = parts.engine, parts.object_store
    own = OwnOnly(Topics(settings.topic_root), about.upload_id)
    receiving = messenger.run(lambda message: own.pass_on(message, engine.inbox.receive))
    async with background(engine.run(), receiving) as loops:
        try:
            direct = Direct(engine, store, objects, policy, overheard.released, loops)
            await connected(messenger.up(), settings, log.last, loops)
            await _probed(direct, log.last)
            yield direct
        finally:
            await objects.close()


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
    connection: Awaitable[None], settings: Settings, last: Mapping[str, str], loops: Sequence[asyncio.Task[None]]
) -> None:
    """Wait for the broker; `Unreachable`, or what ended one of the `loops` that were to reach it."""
    up = asyncio.ensure_future(connection)
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
