"""Commands that need no engine: a bare download for a control plane to adopt, a cancel, the list of a client's files.

Rule: `services.commands` builds and publishes the command; this module connects, and waits for the answer.
"""

import asyncio
from typing import Final

import msgspec

from control_plane.bootstrap import command_publisher, direct_messenger
from control_plane.cli.errors import Failed
from control_plane.cli.mqtt.engine import FailureLog, background, cli_errors, connected, load_settings, new_owner
from control_plane.cli.mqtt.request import UploadRequest
from control_plane.cli.rest.progress import Document
from control_plane.services.clients.queries import PATIENCE
from control_plane.services.commands import build_bare_cancel, build_bare_download, build_list_files
from control_plane.services.ports.messenger import Delivered
from control_plane.settings import Settings
from schemas.codec import decode_response, encode
from schemas.errors import SchemaError
from schemas.messages import MAX_FILES, Command, FileEntry, FileList, ListFiles, Response
from schemas.topics import Channel, Topics, require_client_id
from schemas.values import DigestName, ResponseStatus

_REFUSALS: Final = frozenset({ResponseStatus.ERROR, ResponseStatus.REJECTED, ResponseStatus.UNKNOWN})


async def publish_download(request: UploadRequest) -> Document:
    """Publish the bare command; the control plane that receives the offer becomes the owner (protocol.md section 3)."""
    settings = load_settings()
    command = build_bare_download(
        request.upload_id, request.file_path, request.options, request.metadata, request.after
    )
    await _publish(settings, request.client_id, command)
    topic = Topics(settings.topic_root).command(request.client_id)
    return {"upload_id": request.upload_id, "topic": topic, "command": msgspec.json.decode(encode(command))}


async def publish_cancel(client_id: str, upload_id: str) -> Document:
    """Cancel an upload of any owner at its client, and return the client's answer; `Failed` when none comes."""
    require_client_id(client_id)
    answer: Document = msgspec.to_builtins(await _answer(client_id, build_bare_cancel(upload_id), about=upload_id))
    return answer


async def list_files(client_id: str, pattern: str, *, digest: bool, folders: bool) -> Document:
    """All files of a client that match, in REST's form; `Failed` when no answer comes, or the client refuses."""
    require_client_id(client_id)
    found: list[FileEntry] = []
    cursor: str | None = None
    while True:
        request = ListFiles(pattern, MAX_FILES, cursor, DigestName.MD5 if digest else None, folders=folders)
        answer = await _answer(client_id, build_list_files(request))
        page = answer.payload if isinstance(answer.payload, FileList) else FileList()
        found += page.files
        if (cursor := page.cursor) is None:
            return {"files": [_file(entry) for entry in found]}


def _file(entry: FileEntry) -> Document:
    return {name: getattr(entry, name) for name in ("path", "size", "mtime_ns", "digest", "folder")}


async def _answer(client_id: str, command: Command, *, about: str | None = None) -> Response:
    """What the client answers to a command; `Failed` when nothing comes, or it refuses."""
    try:
        response = await _publish(load_settings(), client_id, command, answered=True, about=about)
    except TimeoutError as error:
        text = f"{client_id} did not answer within {PATIENCE:.0f} s: is it online?"
        raise Failed(text) from error
    assert response is not None  # noqa: S101 - for the type checker: the answer was awaited
    if ResponseStatus.read(response.status) in _REFUSALS:
        text = f"{client_id} answered: {response.error or response.status}: {response.message or ''}"
        raise Failed(text)
    return response


async def _publish(
    settings: Settings, client_id: str, command: Command, *, answered: bool = False, about: str | None = None
) -> Response | None:
    """Publish one command; `answered`: wait for the client's response to it, or its next one `about` that upload."""
    log = FailureLog()
    answer: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
    messenger = direct_messenger(settings, log, identifier=new_owner(), only_client=client_id)
    receiving = messenger.run(lambda message: _resolve(message, command, about, answer))
    with cli_errors():
        async with background(receiving) as loops:
            await connected(messenger.up(), settings, log.last, loops)
            await command_publisher(messenger).publish(client_id, command)
            if not answered:
                return None
            async with asyncio.timeout(PATIENCE):
                return await answer


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
