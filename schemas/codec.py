"""Messages to bytes and back.

Rule: decoding raises `SchemaError` and no other exception. A command that cannot be executed but can be answered raises
`BadCommand`, which has the `message_id` of the answer. A fact that a device states for information only, and that
cannot be decoded, is left out of its message.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import msgspec

from schemas.errors import BadCommand, SchemaError
from schemas.messages import (
    COMMAND_PAYLOADS,
    RESPONSE_PAYLOADS,
    Birth,
    Command,
    CommandPayload,
    DownloadFile,
    Health,
    Nothing,
    Presence,
    Response,
    ResponsePayload,
    SessionId,
    Status,
    UploadReport,
)
from schemas.values import Count, ErrorCode, Instant, MessageId

MAX_MESSAGE_SIZE: Final = 128 * 1024
"""Bytes in one MQTT payload; the broker refuses more."""

GRANT_FILL_SIZE: Final = 96 * 1024
"""Bytes to which a grant or a hello page is filled: the rest of the message needs room too."""

MAX_METADATA_SIZE: Final = 4 * 1024
MAX_DEPTH: Final = 16
MAX_METADATA_DEPTH: Final = MAX_DEPTH - 2
"""Metadata is two levels below its message: what is stored must fit into what is sent."""

Message = Command | Response | Status | Presence | Birth
Plain = TypeVar("Plain", Status, Presence, Birth)

FACTS: Final[Mapping[type[msgspec.Struct], frozenset[str]]] = {
    Status: frozenset({"client_id", "epoch", "current_upload", "system_info"}),
    Presence: frozenset(
        {
            "since",
            "agent",
            "labels",
            "capabilities",
            "default_file",
            "timezone",
            "roots",
            "types",
            "budget",
            "keys_version",
            "unverified",
        }
    ),
    UploadReport: frozenset({"fingerprint", "chunk_size", "digest", "options", "metadata"}),
    Health: frozenset({"version", "active_uploads", "system_info", "counters"}),
}
"""The members of a message of a device without which it means the same: one that cannot be decoded is left out.

An upload's identity, path, sizes, etags and digests are no such facts, and a command has none: its request is obeyed
whole, or refused.
"""

OnDropped = Callable[[str], None]
"""Receives the name of each fact that is left out."""

# Possessive, and matches a string without an end: else thousands of quotes cost quadratic time.
_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_UNKNOWN_VALUE: Final = "Invalid enum value"
"""How msgspec's error for an unknown digest or option begins."""

_OPENING: Final = b"[{"


class _CommandEnvelope(msgspec.Struct):
    message_id: MessageId
    action: str
    payload: msgspec.Raw = msgspec.Raw(b"{}")
    issued_at: Instant | None = None
    epoch: Count | None = None
    install_id: str | None = None
    session: SessionId | None = None


class _ResponseEnvelope(msgspec.Struct):
    message_id: str
    action: str
    status: str
    payload: msgspec.Raw = msgspec.Raw(b"{}")
    epoch: Count | None = None
    sequence: Count | None = None
    error: str | None = None
    message: str | None = None


class _Answerable(msgspec.Struct):
    message_id: MessageId
    action: Any = ""


_encoder: Final = msgspec.json.Encoder()
_command: Final = msgspec.json.Decoder(_CommandEnvelope)
_response: Final = msgspec.json.Decoder(_ResponseEnvelope)
_answerable: Final = msgspec.json.Decoder(_Answerable)
_plain: Final = {kind: msgspec.json.Decoder(kind) for kind in (Status, Presence, Birth)}
_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_command_payloads: Final = {action: msgspec.json.Decoder(kind) for action, kind in COMMAND_PAYLOADS.items()}
_response_payloads: Final = {action: msgspec.json.Decoder(kind) for action, kind in RESPONSE_PAYLOADS.items()}
_facts: Final = {
    (kind, field.name): msgspec.json.Decoder(field.type)
    for kind, names in FACTS.items()
    for field in msgspec.structs.fields(kind)
    if field.name in names
}


def encode(message: Message) -> bytes:
    """The message as JSON; `SchemaError` above 128 KiB or 4 KiB of metadata, and for what JSON cannot represent."""
    data = _to_json(message)
    _require_readable(data)
    if isinstance(message, Command | Response):
        _require_metadata_of(message.payload)
    return data


def decode_command(data: bytes) -> Command:
    """Read a command; `BadCommand` when its `message_id` can be answered, plain `SchemaError` when not."""
    _require_readable(data)
    try:
        envelope = _command.decode(data)
        payload = _payload_decoder(envelope).decode(envelope.payload)
        _require_metadata_of(payload)
    except BadCommand:
        raise
    except (ValueError, RecursionError) as error:
        raise _bad_command(data, error) from error
    return Command(
        message_id=envelope.message_id,
        action=envelope.action,
        payload=payload,
        issued_at=envelope.issued_at,
        epoch=envelope.epoch,
        install_id=envelope.install_id,
        session=envelope.session,
    )


def _ignore(_fact: str) -> None:
    """For readers that do not count."""


def decode_response(data: bytes, on_dropped: OnDropped = _ignore) -> Response:
    """Read a response. One to an action this version does not know has the payload `Nothing`."""
    _require_readable(data)
    try:
        envelope = _response.decode(data)
        decoder = _response_payloads.get(envelope.action)
        payload = Nothing() if decoder is None else _decode_facts(decoder, envelope.payload, on_dropped)
        _require_metadata_of(payload)
    except (ValueError, RecursionError) as error:
        raise SchemaError(str(error)) from error
    return Response(
        message_id=envelope.message_id,
        action=envelope.action,
        status=envelope.status,
        payload=payload,
        epoch=envelope.epoch,
        sequence=envelope.sequence,
        error=envelope.error,
        message=envelope.message,
    )


def decode(kind: type[Plain], data: bytes, on_dropped: OnDropped = _ignore) -> Plain:
    """Read a `Status`, a `Presence` or a `Birth`."""
    _require_readable(data)
    try:
        return _decode_facts(_plain[kind], data, on_dropped)  # type: ignore[no-any-return]
    except (ValueError, RecursionError) as error:
        raise SchemaError(str(error)) from error


def _decode_facts(decoder: msgspec.json.Decoder[Any], data: bytes | msgspec.Raw, on_dropped: OnDropped) -> Any:  # noqa: ANN401 - what the decoder decodes
    """Decode; when that fails, decode once more without the facts that cannot be decoded by themselves."""
    facts = FACTS.get(decoder.type, frozenset())
    try:
        return decoder.decode(data)
    except msgspec.ValidationError:
        members = _members.decode(data)
        kept = {name: value for name, value in members.items() if name not in facts or _decodes(decoder, name, value)}
        if len(kept) == len(members):
            raise
        message = decoder.decode(_encoder.encode(kept))
        for name in members.keys() - kept.keys():
            on_dropped(name)
        return message


def _decodes(decoder: msgspec.json.Decoder[Any], name: str, value: msgspec.Raw) -> bool:
    try:
        _facts[decoder.type, name].decode(value)
    except (ValueError, RecursionError):
        return False
    return True


def require_metadata(metadata: Mapping[str, object]) -> None:
    """`SchemaError` when `metadata` takes more than 4 KiB as JSON, or nests deeper than a message leaves room for."""
    data = _to_json(metadata)
    if len(data) > MAX_METADATA_SIZE:
        text = f"metadata of {len(data)} bytes is too large: at most {MAX_METADATA_SIZE} are kept"
        raise SchemaError(text)
    if _depth(data) > MAX_METADATA_DEPTH:
        text = f"the metadata nests deeper than {MAX_METADATA_DEPTH}"
        raise SchemaError(text)


def _require_metadata_of(payload: CommandPayload | ResponsePayload) -> None:
    if isinstance(payload, DownloadFile | UploadReport) and payload.metadata:
        require_metadata(payload.metadata)


def _to_json(value: object) -> bytes:
    try:
        return _encoder.encode(value)
    except (TypeError, ValueError, RecursionError, msgspec.EncodeError) as error:
        text = f"JSON cannot represent this: {error}"
        raise SchemaError(text) from error


def _payload_decoder(envelope: _CommandEnvelope) -> msgspec.json.Decoder[CommandPayload]:
    decoder = _command_payloads.get(envelope.action)
    if decoder is None:
        text = f"unknown action {envelope.action!r}: this agent knows {', '.join(COMMAND_PAYLOADS)}"
        raise BadCommand(text, envelope.message_id, envelope.action, ErrorCode.UNSUPPORTED)
    return decoder


def _bad_command(data: bytes, error: Exception) -> SchemaError:
    try:
        known = _answerable.decode(data)
    except (ValueError, RecursionError):
        return SchemaError(str(error))
    action = known.action if isinstance(known.action, str) else ""
    code = ErrorCode.UNSUPPORTED if str(error).startswith(_UNKNOWN_VALUE) else ErrorCode.BAD_REQUEST
    return BadCommand(str(error), known.message_id, action, code)


def _require_readable(data: bytes) -> None:
    """Refuse what is too large, and what nests too deep for a recursive parser."""
    if len(data) > MAX_MESSAGE_SIZE:
        text = f"a message of {len(data)} bytes is too large: at most {MAX_MESSAGE_SIZE} are allowed"
        raise SchemaError(text)
    if data.count(b"{") + data.count(b"[") > MAX_DEPTH and _depth(data) > MAX_DEPTH:
        text = f"the message nests deeper than {MAX_DEPTH}"
        raise SchemaError(text)


def _depth(data: bytes) -> int:
    depth = deepest = 0
    for byte in re.sub(rb"[^\[\]{}]", b"", _STRING.sub(b"", data)):
        if byte in _OPENING:
            depth += 1
            deepest = max(deepest, depth)
        else:
            depth -= 1
    return deepest
