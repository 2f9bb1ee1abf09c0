"""One direct upload from its first word to its last.

Rule: it stays until the upload is over, the client is released and nothing is left at the store; what cannot be done
in time stays in the state file, for `backhaul mqtt resume`.
"""

import asyncio
import secrets
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

from control_plane.cli.errors import Failed, Misused
from control_plane.cli.mqtt.engine import PRINCIPAL, Direct
from control_plane.cli.rest.progress import Display
from control_plane.domain.clients import Client
from control_plane.domain.errors import IllegalTransition
from control_plane.domain.uploads.events import CancelRequested
from control_plane.domain.uploads.model import TERMINAL, Origin, Upload, UploadKey
from control_plane.presentation import upload_document
from control_plane.services.errors import ServiceError, UnknownClient
from control_plane.services.policy import Policy, object_key
from control_plane.services.ports.database import Database, Page, Subject, UploadFilter
from control_plane.services.uploads.views import UploadView
from schemas.values import UploadOptions

PRESENCE_WAIT: Final = 35.0
"""Seconds for a client to be heard of: a beat comes every 30 (protocol.md section 2)."""

GOODBYE: Final = 15.0
"""Seconds at the end for the client to be told and the store to be cleaned."""

_POLL: Final = 0.2


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be uploaded; `deadline` in seconds from now."""

    client_id: str
    upload_id: str
    file_path: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    options: UploadOptions = field(default_factory=UploadOptions)
    deadline: float | None = None

    @property
    def key(self) -> UploadKey:
        """The upload's identity."""
        return UploadKey(self.client_id, self.upload_id)


def new_upload(wanted: Wanted, policy: Policy, file_path: str, now: float) -> Upload:
    """The row of a direct upload; its key always bears its id (protocol.md section 6)."""
    return Upload(
        client_id=wanted.client_id,
        upload_id=wanted.upload_id,
        owner=policy.owner,
        origin=Origin.MQTT,
        s3_key=object_key(policy.base_path, wanted.client_id, file_path, now, wanted.upload_id[:8]),
        token=secrets.token_hex(16),
        created_at=now,
        updated_at=now,
        deadline=now + (policy.deadline if wanted.deadline is None else wanted.deadline),
        file_path=file_path,
        digest=policy.digest,
        chunk_size=policy.chunk_size,
        options=wanted.options,
        metadata=wanted.metadata,
        touched_at=now,
    )


async def begin(direct: Direct, wanted: Wanted, display: Display) -> UploadKey:
    """Commit the upload; its client is told at once when it is connected."""
    client = await known_client(direct, wanted.client_id, display)
    path = wanted.file_path or client.default_file
    if path is None:
        text = f"client {client.client_id!r} has no default file: name a path"
        raise Misused(text)
    upload = replace(
        new_upload(wanted, direct.policy, path, direct.engine.clock.now()),
        digest=direct.engine.probe.digest_for(direct.policy.digest),
    )
    return (await direct.engine.adopt(upload)).key


async def known_client(direct: Direct, client_id: str, display: Display) -> Client:
    """The client, once its presence is here; `Failed` when none comes."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    while True:
        direct.check()
        try:
            return await direct.engine.client_service.client(PRINCIPAL, client_id)
        except UnknownClient as error:
            if loop.time() - begun > PRESENCE_WAIT:
                text = f"no sign of life of {client_id} within {PRESENCE_WAIT:.0f} s: it is offline, or never connected"
                raise Failed(text) from error
        if loop.time() - begun > 1.0:
            display.note(f"waiting for a sign of life of {client_id}, at most {PRESENCE_WAIT:.0f} s")
        await asyncio.sleep(_POLL / 4)


async def only_upload(store: Database) -> Upload:
    """The upload of a state file; `Failed` when it has none."""
    found, _ = await store.read(lambda records: records.uploads.list(UploadFilter(), Page(limit=1)))
    if not found:
        text = "the state file holds no upload: it was never begun"
        raise Failed(text)
    return found[0]


async def to_the_end(direct: Direct, key: UploadKey, display: Display, *, cancel: bool = False) -> UploadView:
    """Show the upload until it is over; Ctrl-C, or `cancel`, ends it, and a second one leaves at once."""
    with _stopping() as stop:
        if cancel:
            stop.set()
        return await _until_over(direct, key, display, stop)


async def _until_over(direct: Direct, key: UploadKey, display: Display, stop: asyncio.Event) -> UploadView:
    cancelled = False
    while True:
        direct.check()
        view = await direct.engine.upload_service.upload(PRINCIPAL, key.upload_id, key.client_id)
        display.show(upload_document(view))
        if view.upload.state in TERMINAL:
            return view
        if stop.is_set() and not cancelled:
            cancelled = True
            await _cancel(direct, key, display)
        await _pause(stop, already=cancelled)


async def _cancel(direct: Direct, key: UploadKey, display: Display) -> None:
    display.note("cancelling")
    try:
        await direct.engine.uploads.submit(key, CancelRequested(now=direct.engine.clock.now()))
    except IllegalTransition:
        display.note("too late to cancel: the object is being completed")
    except ServiceError as error:
        raise Failed(str(error)) from error


async def _pause(stop: asyncio.Event, *, already: bool) -> None:
    if already:
        await asyncio.sleep(_POLL)
        return
    try:
        async with asyncio.timeout(_POLL):
            await stop.wait()
    except TimeoutError:
        return


async def goodbye(direct: Direct, key: UploadKey) -> bool:
    """Wait until the client is released and nothing is left to do; False when that takes too long."""
    try:
        async with asyncio.timeout(GOODBYE):
            await _finished(direct, key)
            if await _told(direct, key):
                await direct.released.wait()
    except TimeoutError:
        return False
    return True


async def _finished(direct: Direct, key: UploadKey) -> None:
    """Wait until the upload is over and obliges to nothing more."""
    while True:
        direct.check()
        upload, tasks = await direct.store.read(
            lambda records: (records.uploads.get(key), records.outbox.of(Subject.of_upload(key)))
        )
        if not tasks and (upload is None or (upload.state in TERMINAL and not upload.client_busy)):
            return
        await asyncio.sleep(_POLL / 4)


async def _told(direct: Direct, key: UploadKey) -> bool:
    """Whether the client ever answered: one that did not has nothing to be released from."""
    upload = await direct.store.read(lambda records: records.uploads.get(key))
    return upload is not None and upload.sequence > 0


@contextmanager
def _stopping() -> Iterator[asyncio.Event]:
    """An event that Ctrl-C or SIGTERM sets; the next one ends the program."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def heard() -> None:
        stop.set()
        forget()

    def forget() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, heard)
    try:
        yield stop
    finally:
        forget()
