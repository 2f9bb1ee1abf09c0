"""What of a client's messages one direct upload may hear.

Rule: an engine closes uploads that it does not know; those of other owners must therefore never reach this one.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import msgspec

from control_plane.services.ports.messenger import Delivered
from schemas.codec import decode, decode_response, encode
from schemas.errors import SchemaError
from schemas.messages import Hello, Status, UploadReport
from schemas.topics import Channel, Topics


class OwnOnly:
    """Lets pass what concerns one upload, and the client's presence."""

    def __init__(self, topics: Topics, upload_id: str) -> None:
        self._topics = topics
        self._upload_id = upload_id

    def pass_on(self, message: Delivered, hear: Callable[[Delivered], None]) -> None:
        """Hand the message, or what of it concerns us, to `hear`."""
        with suppress(SchemaError):
            match self._topics.parse(message.topic).channel:
                case Channel.RESPONSE:
                    payload = self._response(message.payload)
                case Channel.STATUS:
                    payload = self._status(message.payload)
                case Channel.PRESENCE:
                    payload = message.payload
                case _:
                    payload = None
            if payload is not None:
                hear(replace(message, payload=payload))

    def _response(self, payload: bytes) -> bytes | None:
        response = decode_response(payload)
        match response.payload:
            case Hello() as hello:
                ours = tuple(entry for entry in hello.active if entry.upload_id == self._upload_id)
                return encode(msgspec.structs.replace(response, payload=msgspec.structs.replace(hello, active=ours)))
            case UploadReport() as report:
                return payload if (report.upload_id or response.message_id) == self._upload_id else None
            case _:
                return payload

    def _status(self, payload: bytes) -> bytes | None:
        status = decode(Status, payload)
        entries = status.uploads or ((status.current_upload,) if status.current_upload else ())
        ours = tuple(entry for entry in entries if entry.upload_id == self._upload_id)
        return encode(msgspec.structs.replace(status, current_upload=None, uploads=ours)) if ours else None
