"""`backhaul mqtt watch`: every message of the fleet, decoded, a line each.

Rule: it publishes nothing. A message that cannot be decoded is shown all the same, with the reason.
"""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

import msgspec

from control_plane.bootstrap import direct_messenger
from control_plane.cli.mqtt.device_keys import DeviceKeys
from control_plane.cli.mqtt.engine import FailureLog, background, cli_errors, connected, load_settings, new_owner
from control_plane.cli.mqtt.verifying import KINDS, Standing, standing_of
from control_plane.cli.output import CliOutput
from control_plane.cli.text import size, visible
from control_plane.presentation import known_instant
from control_plane.services.ports.messenger import Delivered
from control_plane.settings import Settings
from schemas.codec import Message, decode, decode_command, decode_response
from schemas.errors import SchemaError
from schemas.messages import Birth, Command, Hello, Presence, Response, Status, UploadReport
from schemas.signing.documents import TrustDocument
from schemas.signing.ed25519 import Verifier
from schemas.signing.trust import decode_trust
from schemas.topics import Channel, Topics, require_client_id

_MAX_WAITING: Final = 10_000
_DOUBTS: Final = {Standing.REFUSED: "NOT SIGNED by its pinned key", Standing.UNKNOWN_KEY: "signed by an unknown key"}


async def watch(output: CliOutput, client: str | None) -> None:
    """Print every message until Ctrl-C; `Unreachable` when the broker does not answer at the start."""
    if client is not None:
        require_client_id(client)
    settings = load_settings()
    topics, keys = Topics(settings.topic_root), DeviceKeys.of(settings)
    pinned = {one.client_id: one.verifier for one in keys.all()}
    received: asyncio.Queue[Delivered] = asyncio.Queue(_MAX_WAITING)
    log = FailureLog(lambda text: output.note(text, "dim"))
    messenger = direct_messenger(settings, log, identifier=new_owner(), only_client=client)
    receiving = messenger.run(lambda message: None if received.full() else received.put_nowait(message))
    with cli_errors():
        async with background(receiving) as loops:
            await connected(messenger.up(), settings, log.last, loops)
            output.note(f"listening at {_where(settings, topics, client)}", "dim")
            while True:
                _print(output, topics, pinned, await received.get())


def _where(settings: Settings, topics: Topics, client: str | None) -> str:
    return f"{settings.mqtt_url} to {topics.root}/{client or '+'}/#"


def _print(output: CliOutput, topics: Topics, pinned: Mapping[str, Verifier], delivered: Delivered) -> None:
    at, standing = datetime.now(UTC), None
    try:
        topic = topics.parse(delivered.topic)
        if topic.channel in KINDS and delivered.payload:
            standing = standing_of(pinned.get(topic.client_id), topic.channel, delivered)
        message = _decoded(topic.channel, delivered.payload)
        summary, content = _summary(message), msgspec.to_builtins(message)
    except SchemaError as error:
        summary, content = f"not a message of this protocol: {error}", delivered.payload.decode(errors="replace")
    if output.as_json:
        facts = {
            "at": known_instant(at.timestamp()),
            "topic": delivered.topic,
            "retained": delivered.retained,
            "signature": standing,
            "message": content,
        }
        output.document(facts)
        return
    kept = " (retained)" if delivered.retained else ""
    doubt = f" ({_DOUBTS[standing]})" if standing in _DOUBTS else ""
    output.show(f"{at:%H:%M:%SZ}  {visible(delivered.topic)}{kept}{doubt}  {visible(summary)}")


def _decoded(channel: Channel, payload: bytes) -> Message | TrustDocument:
    match channel:
        case Channel.COMMAND:
            return decode_command(payload)
        case Channel.RESPONSE:
            return decode_response(payload)
        case Channel.STATUS:
            return decode(Status, payload)
        case Channel.PRESENCE:
            return decode(Presence, payload)
        case Channel.BIRTH:
            return decode(Birth, payload)
        case Channel.KEYS:
            return decode_trust(payload)


def _summary(message: Message | TrustDocument) -> str:
    """The content of the message, in a line without URLs: each of them permits a write."""
    match message:
        case Command():
            return " ".join(filter(None, (message.action, *_about(message.payload))))
        case Response(payload=Hello() as hello):
            return f"hello, {len(hello.active)} active uploads{' and more' if hello.more else ''}"
        case Response():
            why = ": ".join(filter(None, (message.error, message.message)))
            return " ".join(filter(None, (message.action, message.status, *_about(message.payload), why)))
        case Status():
            uploads = message.uploads or ((message.current_upload,) if message.current_upload else ())
            return ", ".join([message.status, *(f"{one.upload_id} {one.progress:.0f}%" for one in uploads)])
        case Presence():
            return f"{message.status} epoch {message.epoch} sequence {message.sequence}"
        case Birth():
            return f"say hello to {message.instance}"
        case TrustDocument():
            return f"root {len(message.roots)} and a list of keys"


def _about(payload: object) -> list[str]:
    """The upload, the file, and how many parts, as far as the payload has them."""
    found = []
    upload_id = getattr(payload, "about", None) or getattr(payload, "upload_id", None)
    if upload_id:
        found.append(str(upload_id))
    if path := getattr(payload, "file_path", None):
        found.append(repr(path))
    if urls := getattr(payload, "urls", None):
        found.append(f"{len(urls)} URLs")
    if isinstance(payload, UploadReport):
        found += [f"{len(payload.etags)} etags"] if payload.etags else []
        found += [f"wants {len(payload.wanted_parts)} parts"] if payload.wanted_parts else []
        found += [size(payload.file_size)] if payload.file_size is not None else []
    return found
