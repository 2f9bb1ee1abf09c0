"""Reads the bytes of any kind of message with its decoder.

Rule: selects the decoder only; its exceptions pass through.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from jsonschema import Draft202012Validator

from schemas.codec import Message, decode, decode_command, decode_response
from schemas.generate.documents import documents
from schemas.messages import Birth, Presence, Status

READERS: Final[Mapping[str, Callable[[bytes], Message]]] = {
    "command": decode_command,
    "response": decode_response,
    "status": lambda data: decode(Status, data),
    "presence": lambda data: decode(Presence, data),
    "birth": lambda data: decode(Birth, data),
}
_DOCUMENTS: Final = documents()
VALIDATORS: Final[Mapping[str, Any]] = {
    kind: Draft202012Validator(json.loads(_DOCUMENTS[f"{kind}.json"])) for kind in READERS
}


def kind_of(message: Message) -> str:
    """The name under which a message's reader and schema are found."""
    return type(message).__name__.lower()
