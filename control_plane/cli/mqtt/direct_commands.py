"""What each direct command does, between its parsing and its printing.

Rule: a coroutine a command; every error that leaves is a `CliError`.
"""

import asyncio
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from control_plane.bootstrap import direct_messenger, file_database, policy_of
from control_plane.cli.errors import CliError, Failed, Misused, Unreachable
from control_plane.cli.mqtt.engine import (
    Direct,
    background,
    connected,
    load_settings,
    load_store,
    new_owner,
    running,
)
from control_plane.cli.mqtt.run import Wanted, begin, goodbye, only_upload, to_the_end
from control_plane.cli.mqtt.state_file import held, state_path
from control_plane.cli.output import CliOutput
from control_plane.cli.rest.progress import Display, Document
from control_plane.domain.uploads.model import OPEN, UploadKey
from control_plane.presentation import upload_document
from control_plane.services.clients.queries import PATIENCE
from control_plane.services.errors import ServiceError, Transient
from control_plane.services.ports.messenger import Delivered
from control_plane.settings import Settings
from schemas.codec import decode_response, encode, require_metadata
from schemas.errors import SchemaError
from schemas.messages import CancelUpload, Command, DownloadFile, Response
from schemas.topics import Channel, Topics, require_client_id
from schemas.values import Action, DigestName, ResponseStatus, UploadOptions

Log = Mapping[str, Any]


def read_wanted(
    client: str,
    path: str | None,
    *,
    metadata: Mapping[str, str],
    options: Mapping[str, object],
    deadline: float | None,
) -> Wanted:
    """What was typed, checked, under a new upload id; `Misused`."""
    try:
        require_client_id(client)
        require_metadata(metadata)
        chosen = msgspec.convert(options, UploadOptions)
    except (SchemaError, msgspec.ValidationError) as error:
        raise Misused(str(error)) from error
    if unknown := set(options) - set(UploadOptions.__struct_fields__):
        text = f"no such option: {', '.join(sorted(unknown))}"
        raise Misused(text)
    return Wanted(client, secrets.token_hex(16), path, metadata, chosen, deadline)


async def trigger(output: CliOutput, display: Display, wanted: Wanted, state: Path | None) -> Document:
    """Begin an upload and stay to its end."""
    settings = load_settings()
    path = state_path(wanted.upload_id, state)
    if path.exists():
        text = f"{path} holds an upload already: go on with `backhaul mqtt resume`, or name another file"
        raise Misused(text)
    store, policy = file_database(), policy_of(settings, owner=new_owner())
    with held(path), cli_errors():
        async with running(settings, store, policy, about=wanted.key, note=display.note) as direct:
            store.path = path
            key = await begin(direct, wanted, display)
            output.note(f"upload {key.upload_id}, kept in {path}")
            return await _stay(output, direct, key, display)


async def resume(
    output: CliOutput, display: Display, upload_id: str, state: Path | None, *, cancel: bool = False
) -> Document:
    """Go on with an upload that an earlier command began, or end it."""
    settings = load_settings()
    path = state_path(upload_id, state)
    with held(path), cli_errors():
        store = load_store(path)
        upload = await only_upload(store)
        if upload.upload_id != upload_id:
            text = f"{path} holds upload {upload.upload_id}"
            raise Misused(text)
        # Nothing but its size can be compared of an upload whose parts were granted before they were digested.
        policy = policy_of(settings, owner=upload.owner, require_proof=upload.digest is not DigestName.NONE)
        async with running(settings, store, policy, about=upload.key, note=display.note) as direct:
            if upload.state in OPEN:
                await direct.engine.resume(upload.key)
            else:
                await direct.engine.release(upload.key)
            return await _stay(output, direct, upload.key, display, cancel=cancel)


async def _stay(
    output: CliOutput, direct: Direct, key: UploadKey, display: Display, *, cancel: bool = False
) -> Document:
    view = await to_the_end(direct, key, display, cancel=cancel)
    if await goodbye(direct, key):
        if direct.store.path is not None:
            direct.store.path.unlink(missing_ok=True)
    else:
        output.note(f"not all is said and cleaned up: run `backhaul mqtt resume {key.upload_id}` later")
    return upload_document(view)


async def ask(wanted: Wanted) -> Document:
    """Publish the bare command: the control plane, which meets the offer, does the rest (protocol.md section 3)."""
    payload = DownloadFile(file_path=wanted.file_path, options=wanted.options, metadata=dict(wanted.metadata))
    command = Command(message_id=wanted.upload_id, action=Action.DOWNLOAD_FILE, payload=payload)
    settings = load_settings()
    await _publish(settings, wanted.client_id, command)
    topic = Topics(settings.topic_root).command(wanted.client_id)
    return {"upload_id": wanted.upload_id, "topic": topic, "command": msgspec.json.decode(encode(command))}


async def ask_to_cancel(client_id: str, upload_id: str) -> Document:
    """Tell a client to stop an upload, whoever owns it, and return its answer; `Failed` when none comes."""
    require_client_id(client_id)
    settings = load_settings()
    command = Command(
        message_id=secrets.token_hex(16), action=Action.CANCEL_UPLOAD, payload=CancelUpload(upload_id=upload_id)
    )
    try:
        response = await _publish(settings, client_id, command, answer_about=upload_id)
    except TimeoutError as error:
        text = f"{client_id} did not answer within {PATIENCE:.0f} s: is it online?"
        raise Failed(text) from error
    assert response is not None  # noqa: S101 - for the type checker: it was waited for
    answer: Document = msgspec.to_builtins(response)
    if ResponseStatus.read(response.status) in _REFUSALS:
        text = f"{client_id} answered: {response.error or response.status}: {response.message or ''}"
        raise Failed(text)
    return answer


_REFUSALS: Final = frozenset({ResponseStatus.ERROR, ResponseStatus.REJECTED, ResponseStatus.UNKNOWN})


async def _publish(
    settings: Settings, client_id: str, command: Command, *, answer_about: str | None = None
) -> Response | None:
    """Publish one command; with `answer_about` wait for what the client says about that upload."""
    last: dict[str, str] = {}
    answer: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
    messenger = direct_messenger(
        settings, lambda event, facts: _remember(last, event, facts), identifier=new_owner(), only_client=client_id
    )
    with cli_errors():
        async with background(messenger.run(lambda message: _hear(message, command, answer_about, answer))) as loops:
            await connected(messenger.up(), settings, last, loops)
            await messenger.publish(Channel.COMMAND, client_id, encode(command))
            if answer_about is None:
                return None
            async with asyncio.timeout(PATIENCE):
                return await answer


def _hear(message: Delivered, command: Command, about: str | None, answer: "asyncio.Future[Response]") -> None:
    if not message.topic.endswith(f"/{Channel.RESPONSE}") or answer.done():
        return
    try:
        response = decode_response(message.payload)
    except SchemaError:
        return
    subject = getattr(response.payload, "upload_id", None)
    if response.message_id == command.message_id or (about is not None and subject == about):
        answer.set_result(response)


def _remember(last: dict[str, str], event: str, facts: Log) -> None:
    if "error" in facts:
        last[event] = str(facts["error"])


@contextmanager
def cli_errors() -> Iterator[None]:
    """A service's error as a command's: what may pass is `Unreachable`, the rest `Failed`."""
    try:
        yield
    except CliError:
        raise
    except Transient as error:
        raise Unreachable(str(error)) from error
    except ServiceError as error:
        raise Failed(str(error)) from error
