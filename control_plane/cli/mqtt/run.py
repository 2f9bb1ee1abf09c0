"""One direct upload from its first command until nothing is left to do.

Rule: the command runs until the upload is over, the client is released and nothing is left in the object store; the
duties that time does not allow stay in the state file, for `backhaul mqtt resume`.
"""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from control_plane.bootstrap import file_database, policy_of
from control_plane.cli.errors import Failed, Misused
from control_plane.cli.mqtt.engine import (
    PRINCIPAL,
    Direct,
    cli_errors,
    load_database,
    load_settings,
    new_owner,
    running,
)
from control_plane.cli.mqtt.request import UploadRequest
from control_plane.cli.mqtt.state_file import held, state_path, state_step
from control_plane.cli.mqtt.verifying import PRESENCE_WAIT
from control_plane.cli.output import CliOutput
from control_plane.cli.rest.progress import Display, Document
from control_plane.domain.clients import Client
from control_plane.domain.errors import IllegalTransition
from control_plane.domain.uploads.model import OPEN, TERMINAL, Upload, UploadKey
from control_plane.presentation import upload_document
from control_plane.services.errors import ServiceError, UnknownClient
from control_plane.services.ports.database import Database, Page, Subject, UploadFilter
from control_plane.services.uploads.views import UploadView
from schemas.values import DigestName

RELEASE_WAIT: Final = 15.0
"""Seconds at the end to release the client and to clean up the object store."""

_POLL: Final = 0.2


async def trigger(
    output: CliOutput, display: Display, request: UploadRequest, state: Path | None, *, trust_first: bool = False
) -> Document:
    """Start an upload and follow it until it is over."""
    settings = load_settings()
    path = state_path(request.upload_id, state)
    if path.exists():
        again = state_step("resume", request.upload_id, path)
        text = f"{path} contains an upload already: continue it with `{again}`, or name another file"
        raise Misused(text)
    database, policy = file_database(), policy_of(settings, owner=new_owner())
    with held(path), cli_errors():
        async with running(
            settings, database, policy, key=request.key, note=display.note, trust_first=trust_first
        ) as direct:
            database.path = path
            key = await start(direct, request, display)
            output.note(f"upload {key.upload_id}, kept in {path}")
            return await _follow(output, direct, key, display)


async def resume(
    output: CliOutput,
    display: Display,
    upload_id: str,
    state: Path | None,
    *,
    cancel: bool = False,
    trust_first: bool = False,
) -> Document:
    """Resume an upload that an earlier command started, or cancel it."""
    settings = load_settings()
    path = state_path(upload_id, state)
    with held(path), cli_errors():
        database = load_database(path)
        upload = await only_upload(database)
        if upload.upload_id != upload_id:
            text = f"{path} holds upload {upload.upload_id}"
            raise Misused(text)
        # Parts that were granted before they were digested have no digest to compare, so only the size is proven.
        policy = policy_of(settings, owner=upload.owner, require_proof=upload.digest is not DigestName.NONE)
        async with running(
            settings, database, policy, key=upload.key, note=display.note, trust_first=trust_first
        ) as direct:
            if upload.state in OPEN:
                await direct.engine.resume(upload.key)
            else:
                await direct.engine.release(upload.key)
            return await _follow(output, direct, upload.key, display, cancel=cancel)


async def start(direct: Direct, request: UploadRequest, display: Display) -> UploadKey:
    """Commit the upload; the engine publishes its command at once when the client is connected."""
    path = await file_of(direct, request, display)
    upload = request.upload(direct.policy, direct.engine.probe.capabilities, path, direct.engine.clock.now())
    return (await direct.engine.adopt(upload)).key


async def file_of(direct: Direct, request: UploadRequest, display: Display) -> str:
    """The requested path, or the default file of the client; either way its presence is awaited."""
    client = await known_client(direct, request.client_id, display)
    path = request.file_path or client.default_file
    if path is None:
        text = f"client {client.client_id!r} has no default file: name a path"
        raise Misused(text)
    return path


async def known_client(direct: Direct, client_id: str, display: Display) -> Client:
    """The client, once its presence is received; `Failed` when none comes within `PRESENCE_WAIT`.

    Errors of the guard: a device that signs with an unknown key, or that obeys no unsigned commands.
    """
    loop = asyncio.get_running_loop()
    started = loop.time()
    while True:
        direct.check()
        direct.guard.check()
        try:
            return await direct.engine.client_service.client(PRINCIPAL, client_id)
        except UnknownClient as error:
            if loop.time() - started > PRESENCE_WAIT:
                text = f"no sign of life of {client_id} within {PRESENCE_WAIT:.0f} s: it is offline, or never connected"
                raise Failed(direct.guard.explained(text)) from error
        if loop.time() - started > 1.0:
            display.note(f"waiting for a sign of life of {client_id}, at most {PRESENCE_WAIT:.0f} s")
        await asyncio.sleep(_POLL / 4)


async def only_upload(database: Database) -> Upload:
    """The upload of a state file; `Failed` when it has none."""
    found, _ = await database.read(lambda records: records.uploads.list(UploadFilter(), Page(limit=1)))
    if not found:
        text = "the state file holds no upload: it was never begun"
        raise Failed(text)
    return found[0]


async def _follow(
    output: CliOutput, direct: Direct, key: UploadKey, display: Display, *, cancel: bool = False
) -> Document:
    """Show the upload until it is over; the state file is removed once nothing is left to do."""
    view = await until_over(direct, key, display, cancel=cancel)
    path = direct.database.path
    if await _released(direct, key):
        if path is not None:
            path.unlink(missing_ok=True)
    elif path is not None:
        later = f"run `{state_step('resume', key.upload_id, path)}` later"
        output.note(f"the device or the object store has not confirmed the end: {later}")
    return upload_document(view)


async def until_over(direct: Direct, key: UploadKey, display: Display, *, cancel: bool = False) -> UploadView:
    """Show the upload until its state is final; `cancel`, the first Ctrl-C or SIGTERM cancels it."""
    cancelled = False
    with _termination() as stop:
        if cancel:
            stop.set()
        while True:
            direct.check()
            direct.guard.check()
            view = await direct.engine.upload_service.upload(PRINCIPAL, key.upload_id, key.client_id)
            display.show(upload_document(view))
            if view.upload.state in TERMINAL:
                if direct.guard.unverified:
                    display.note(direct.guard.explained("the upload is over"))
                return view
            if stop.is_set() and not cancelled:
                cancelled = True
                await _cancel(direct, key, display)
            await _pause(stop, already=cancelled)


async def _cancel(direct: Direct, key: UploadKey, display: Display) -> None:
    display.note("cancelling")
    try:
        await direct.engine.upload_service.cancel(PRINCIPAL, key.upload_id, key.client_id)
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


async def _released(direct: Direct, key: UploadKey) -> bool:
    """Wait until the client is released and no duty is left; False when that takes more than `RELEASE_WAIT`."""
    try:
        async with asyncio.timeout(RELEASE_WAIT):
            upload = await _without_duties(direct, key)
            # A client that never responded has nothing to be released from.
            if upload is not None and upload.sequence > 0:
                await direct.released.wait()
    except TimeoutError:
        return False
    return True


async def _without_duties(direct: Direct, key: UploadKey) -> Upload | None:
    """The upload, once it is over and the outbox has no entry for it."""
    subject = Subject.of_upload(key)
    while True:
        direct.check()
        upload, entries = await direct.database.read(
            lambda records: (records.uploads.get(key), records.outbox.of(subject))
        )
        if not entries and (upload is None or (upload.state in TERMINAL and not upload.client_busy)):
            return upload
        await asyncio.sleep(_POLL / 4)


@contextmanager
def _termination() -> Iterator[asyncio.Event]:
    """An event that the first Ctrl-C or SIGTERM sets; the next one ends the program. Ignored signals stay ignored."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    numbers = [one for one in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(one) is not signal.SIG_IGN]

    def request_stop() -> None:
        stop.set()
        remove_handlers()

    def remove_handlers() -> None:
        for number in numbers:
            loop.remove_signal_handler(number)

    for number in numbers:
        loop.add_signal_handler(number, request_stop)
    try:
        yield stop
    finally:
        remove_handlers()
