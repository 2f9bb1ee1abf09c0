"""Reads the bytes of any kind of message with its decoder.

Rule: selects the decoder only; its exceptions pass through. A wrong fact refuses its message here, so that codec and
schema can be compared.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from jsonschema import Draft202012Validator

from schemas.codec import Message, decode, decode_command, decode_response
from schemas.errors import SchemaError
from schemas.generate.documents import documents
from schemas.messages import Birth, Presence, Status


def refuse_fact(fact: str) -> None:
    """Refuse a message for a fact that its reader would leave out, as its schema does."""
    message = f"the fact {fact} is wrong"
    raise SchemaError(message)


READERS: Final[Mapping[str, Callable[[bytes], Message]]] = {
    "command": decode_command,
    "response": lambda data: decode_response(data, refuse_fact),
    "status": lambda data: decode(Status, data, refuse_fact),
    "presence": lambda data: decode(Presence, data, refuse_fact),
    "birth": lambda data: decode(Birth, data),
}
_DOCUMENTS: Final = documents()
VALIDATORS: Final[Mapping[str, Any]] = {
    kind: Draft202012Validator(json.loads(_DOCUMENTS[f"{kind}.json"])) for kind in READERS
}


def kind_of(message: Message) -> str:
    """The name under which a message's reader and schema are found."""
    return type(message).__name__.lower()
