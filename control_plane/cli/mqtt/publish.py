"""Commands that need no engine: a bare download for a control plane to adopt, a cancel, the list of a client's files.

Rule: `services.commands` builds and publishes the command; this module connects, and waits for the answer.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import msgspec
from msgspec.structs import replace

from control_plane.bootstrap import command_publisher, direct_messenger, operator_key
from control_plane.cli.errors import Failed, Misused
from control_plane.cli.mqtt.engine import (
    FailureLog,
    Note,
    background,
    cli_errors,
    connected,
    guard_of,
    load_settings,
    new_owner,
)
from control_plane.cli.mqtt.request import UploadRequest
from control_plane.cli.mqtt.verifying import PRESENCE_WAIT, DeviceGuard, introduced
from control_plane.cli.program import program
from control_plane.cli.rest.progress import Document
from control_plane.services.clients.queries import PATIENCE
from control_plane.services.commands import build_bare_cancel, build_bare_download, build_list_files
from control_plane.services.ports.messenger import Delivered, Messenger
from control_plane.services.trust.keyring import ControlPlaneKey
from control_plane.settings import Settings, SettingsError
from schemas.codec import decode_response, encode
from schemas.errors import SchemaError
from schemas.messages import MAX_FILES, Command, FileEntry, FileList, ListFiles, Presence, Response
from schemas.signing.ed25519 import Verifier
from schemas.topics import Channel, Topics, require_client_id
from schemas.values import DigestName, ResponseStatus

_REFUSALS: Final = frozenset({ResponseStatus.ERROR, ResponseStatus.REJECTED, ResponseStatus.UNKNOWN})


@dataclass(frozen=True, slots=True)
class Addressed:
    """The client that a command is for; `trust_first` pins its key if none is known, `note` gets a line about that."""

    client_id: str
    trust_first: bool = False
    note: Note = lambda _: None

    def __post_init__(self) -> None:
        require_client_id(self.client_id)


async def publish_download(request: UploadRequest, to: Addressed, *, signed: bool = False) -> Document:
    """Publish the bare command; the control plane that receives the offer becomes the owner (protocol.md section 3).

    With `signed` nothing is published unless it is signed: `Misused` without a key, or for an unsigned device.
    """
    settings = load_settings()
    if signed:
        require_operator_key(settings)
    command = build_bare_download(
        request.upload_id, request.file_path, request.options, request.metadata, request.after
    )
    await _publish(settings, to, command, signed=signed)
    topic = Topics(settings.topic_root).command(request.client_id)
    return {"upload_id": request.upload_id, "topic": topic, "command": msgspec.json.decode(encode(command))}


async def publish_cancel(to: Addressed, upload_id: str) -> Document:
    """Cancel an upload of any owner at its client, and return the client's answer; `Failed` when none comes."""
    answer: Document = msgspec.to_builtins(await _answer(to, build_bare_cancel(upload_id), about=upload_id))
    return answer


async def list_files(to: Addressed, pattern: str, *, digest: bool, folders: bool) -> Document:
    """All files of a client that match, in REST's form; `Failed` when no answer comes, or the client refuses."""
    found: list[FileEntry] = []
    cursor: str | None = None
    while True:
        request = ListFiles(pattern, MAX_FILES, cursor, DigestName.MD5 if digest else None, folders=folders)
        answer = await _answer(to, build_list_files(request))
        page = answer.payload if isinstance(answer.payload, FileList) else FileList()
        found += page.files
        if (cursor := page.cursor) is None:
            return {"files": [_file(entry) for entry in found]}


def require_operator_key(settings: Settings) -> ControlPlaneKey:
    """The key of this operator; `Misused` without one."""
    try:
        key = operator_key(settings)
    except SettingsError as error:
        raise Misused(str(error)) from error
    if key is None:
        text = f"name the file of your key in OPERATOR_KEY_FILE (`{program()} keys add-operator` makes one)"
        raise Misused(text)
    return key


def obeys_unsigned(client_id: str) -> str:
    """Why nothing is signed for a device."""
    return f"{client_id} obeys unsigned commands: nothing has to be signed for it"


async def presence_of(settings: Settings, to: Addressed) -> Presence:
    """The presence of a client, once one was taken; `Failed` without one, or for a key that is not known."""
    async with _heard(settings, to, lambda _: None) as (_, guard):
        return await guard.first_presence()


async def introduction_of(settings: Settings, client_id: str) -> Verifier:
    """The key that is in a presence of this client and has signed it, known or not; `Failed` when none comes."""
    require_client_id(client_id)
    log, topic = FailureLog(), Topics(settings.topic_root).presence(client_id)
    found: asyncio.Future[Verifier] = asyncio.get_running_loop().create_future()

    def look(message: Delivered) -> None:
        known = introduced(client_id, message) if message.topic == topic else None
        if known is not None and not found.done():
            found.set_result(known[1])

    messenger = direct_messenger(settings, log, identifier=new_owner(), only_client=client_id)
    with cli_errors():
        async with background(messenger.run(look)) as loops:
            await connected(messenger.up(), settings, log.last, loops)
            try:
                async with asyncio.timeout(PRESENCE_WAIT):
                    return await found
            except TimeoutError as error:
                text = (
                    f"no signed presence of {client_id} within {PRESENCE_WAIT:.0f} s: is it signed, and did it connect?"
                )
                raise Failed(text) from error


def _file(entry: FileEntry) -> Document:
    return {name: getattr(entry, name) for name in ("path", "size", "mtime_ns", "digest", "folder")}


async def _answer(to: Addressed, command: Command, *, about: str | None = None) -> Response:
    """What the client answers to a command; `Failed` when nothing comes, or it refuses."""
    response = await _publish(load_settings(), to, command, answered=True, about=about)
    assert response is not None  # noqa: S101 - for the type checker: the answer was awaited
    if ResponseStatus.read(response.status) in _REFUSALS:
        text = f"{to.client_id} answered: {response.error or response.status}: {response.message or ''}"
        raise Failed(text)
    return response


async def _publish(
    settings: Settings,
    to: Addressed,
    command: Command,
    *,
    answered: bool = False,
    about: str | None = None,
    signed: bool = False,
) -> Response | None:
    """Publish one command; `answered`: wait for the client's response to it, or its next one `about` that upload.

    To a client that wants it, signed with the operator's key. `Failed` when no response comes.
    """
    answer: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
    async with _heard(settings, to, lambda message: _resolve(message, command, about, answer)) as (messenger, guard):
        presence = await guard.first_presence() if guard.expects_presence else None
        publisher = command_publisher(settings, messenger, presence)
        if presence is not None and presence.session is not None:
            # A key that has expired is refused by this instant.
            command = replace(command, issued_at=datetime.now(UTC))
        elif signed:
            raise Misused(obeys_unsigned(to.client_id))
        await publisher.publish(to.client_id, command)
        # The broker has acknowledged the command, so the presence that it has stored has come before.
        guard.check()
        if not answered:
            return None
        try:
            async with asyncio.timeout(PATIENCE):
                return await answer
        except TimeoutError as error:
            guard.check()
            text = guard.explained(f"{to.client_id} did not answer within {PATIENCE:.0f} s: is it online?")
            raise Failed(text + _of_keys(publisher.key, guard.presence)) from error


def _of_keys(key: ControlPlaneKey | None, presence: Presence | None) -> str:
    """A device answers nothing that a key signed which it does not obey: which key that was, and which list it has."""
    if key is None or presence is None or presence.session is None:
        return ""
    return f" It obeys the list of keys {presence.keys_version}: does that allow this to {key.kid}?"


@asynccontextmanager
async def _heard(
    settings: Settings, to: Addressed, deliver: Callable[[Delivered], None]
) -> AsyncIterator[tuple[Messenger, DeviceGuard]]:
    """A connection to the broker that delivers what the guard takes of the client."""
    log, guard = FailureLog(), guard_of(settings, to.client_id, trust_first=to.trust_first, note=to.note)
    messenger = direct_messenger(settings, log, identifier=new_owner(), only_client=to.client_id)
    receiving = messenger.run(lambda message: deliver(message) if guard.takes(message) else None)
    with cli_errors():
        async with background(receiving) as loops:
            await connected(messenger.up(), settings, log.last, loops)
            yield messenger, guard


def _resolve(message: Delivered, command: Command, upload_id: str | None, answer: "asyncio.Future[Response]") -> None:
    """Set the answer if the message is a response to the command, or one about the upload."""
    if not message.topic.endswith(f"/{Channel.RESPONSE}") or answer.done():
        return
    try:
        response = decode_response(message.payload)
    except SchemaError:
        return
    subject = getattr(response.payload, "upload_id", None)
    if response.message_id == command.message_id or (upload_id is not None and subject == upload_id):
        answer.set_result(response)
