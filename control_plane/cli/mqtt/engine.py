"""The control plane's own engine in the command line, for one upload straight over MQTT.

Rule: there is no second engine. `control_plane.bootstrap` names the adapters, and rows are written by the engine only.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import typer

from control_plane.bootstrap import direct_engine, direct_messenger, file_database, operator_key
from control_plane.cli.errors import CliError, Failed, Misused, Unreachable
from control_plane.cli.mqtt.device_keys import DeviceKeys
from control_plane.cli.mqtt.state_file import probes_directory
from control_plane.cli.mqtt.verifying import DeviceGuard
from control_plane.domain.access import Principal
from control_plane.domain.uploads.model import UploadKey
from control_plane.services.engine import Engine
from control_plane.services.errors import BadInput, ServiceError, Transient
from control_plane.services.inbox import UploadScope
from control_plane.services.policy import Policy
from control_plane.services.ports.database import Database
from control_plane.services.ports.messenger import Delivered
from control_plane.services.ports.object_store import ObjectStore
from control_plane.settings import Settings, SettingsError

CONNECT_TIMEOUT: Final = 5.0
"""Seconds within which the broker has to answer, and for which an object store that failed is tried again."""

PRINCIPAL: Final = Principal("cli")
"""The caller of the use cases."""

Note = Callable[[str], None]


class StateDatabase(Database, Protocol):
    """The database of one upload; each commit is written to `path` once that is set."""

    path: Path | None


@dataclass(frozen=True, slots=True)
class Direct:
    """A running engine for one upload. `released` is set once a close for the upload is published to its client.

    `guard` judges each message of the client before the engine has it.
    """

    engine: Engine
    guard: DeviceGuard
    database: StateDatabase
    object_store: ObjectStore
    policy: Policy
    released: asyncio.Event
    _loops: tuple[asyncio.Task[None], ...]

    def check(self) -> None:
        """Raise the error that ended one of the loops: it is a fault of the program."""
        for loop in self._loops:
            if loop.done():
                loop.result()


class FailureLog:
    """An event log that keeps the last error of each event, and passes it to `note`."""

    def __init__(self, note: Note = lambda _: None) -> None:
        self._note = note
        self.last: dict[str, str] = {}

    def __call__(self, event: str, facts: Mapping[str, Any]) -> None:
        """Keep the event's error, if it has one. An upload's own error is shown with the upload."""
        if facts.get("error") and event != "upload.state":
            self.last[event] = str(facts["error"])
            self._note(f"{event}: {facts['error']}")


def load_settings() -> Settings:
    """The operator's settings, from the environment and `.env`; `Misused` when one is wrong.

    A password that crosses a network unencrypted is shown on standard error, at each start.
    """
    try:
        settings = Settings.load()
    except SettingsError as error:
        raise Misused(str(error)) from error
    if settings.exposure:
        typer.echo(settings.exposure, err=True)
    return settings


def guard_of(settings: Settings, client_id: str, *, trust_first: bool, note: Note) -> DeviceGuard:
    """What judges the messages of this client; `Misused` when the operator's key, or a device's, cannot be read."""
    try:
        has_key = operator_key(settings) is not None
    except SettingsError as error:
        raise Misused(str(error)) from error
    return DeviceGuard(
        DeviceKeys.of(settings),
        client_id,
        has_key=has_key,
        trust_first=trust_first,
        # The default says nothing about a terminal: only what the operator wrote does.
        require_signed=settings.require_signed if "require_signed" in settings.model_fields_set else None,
        note=note,
    )


def new_owner() -> str:
    """An owner name that no other run has."""
    return f"cli-{secrets.token_hex(6)}"


def load_database(path: Path) -> StateDatabase:
    """The state that a run left in `path`; later commits go there too. `Misused` without one, `Failed` if damaged."""
    try:
        return file_database(path)
    except OSError as error:
        text = f"no state of such an upload: {path}: {error.strerror} (name its file with --state)"
        raise Misused(text) from error
    except BadInput as error:
        text = f"{path}: {error}"
        raise Failed(text) from error


@contextmanager
def cli_errors() -> Iterator[None]:
    """Raise a `Transient` error of the services as `Unreachable`, and any other one as `Failed`."""
    try:
        yield
    except CliError:
        raise
    except Transient as error:
        raise Unreachable(str(error)) from error
    except ServiceError as error:
        raise Failed(str(error)) from error


@asynccontextmanager
async def running(
    settings: Settings,
    database: StateDatabase,
    policy: Policy,
    *,
    key: UploadKey,
    note: Note,
    performs: bool = True,
    trust_first: bool = False,
) -> AsyncIterator[Direct]:
    """The engine of one upload, connected to the broker and with the bucket probed.

    With `performs` False duties are stored and none is performed. With `trust_first` the key of a device that is not
    known yet is pinned. `Unreachable` when broker or object store does not answer, `Failed` when the bucket refuses.
    """
    log, guard = FailureLog(note), guard_of(settings, key.client_id, trust_first=trust_first, note=note)
    messenger = direct_messenger(settings, log, identifier=new_owner(), only_client=key.client_id)
    try:
        parts = direct_engine(
            settings,
            database,
            messenger,
            log,
            policy,
            probes=probes_directory(),
            scope=UploadScope(key),
            performs=performs,
        )
    except SettingsError as error:
        raise Misused(str(error)) from error
    engine, object_store = parts.engine, parts.object_store

    def receive(message: Delivered) -> None:
        if guard.takes(message):
            engine.inbox.receive(message)

    async with background(engine.run(), messenger.run(receive)) as loops:
        try:
            direct = Direct(engine, guard, database, object_store, policy, engine.released(key), loops)
            await connected(messenger.up(), settings, log.last, loops)
            await probed(direct, log.last)
            yield direct
        finally:
            await object_store.close()


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
    """Wait for the broker; `Unreachable`, or the error that ended one of the `loops`."""
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


async def probed(direct: Direct, last: Mapping[str, str]) -> None:
    """Wait until the probe of the bucket has a result, however slow the object store is; `Unreachable` if it failed.

    The limits are on the silence of each request, so a probe ends.
    """
    deadline = asyncio.get_running_loop().time() + CONNECT_TIMEOUT
    while direct.engine.probe.seen is None:
        direct.check()
        if "store.failed" in last and asyncio.get_running_loop().time() > deadline:
            text = f"the object store cannot be used: {last['store.failed']}"
            raise Unreachable(text)
        await asyncio.sleep(0.05)
