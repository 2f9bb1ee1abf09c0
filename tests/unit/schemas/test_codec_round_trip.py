"""An encoded message decodes to the same value, and is valid by the JSON Schema for other languages.

Rule: the messages come from strategies over every Struct; no example is chosen by hand here.
"""

import json
from typing import Any

import msgspec
from hypothesis import given

from schemas.codec import MAX_MESSAGE_SIZE, Message, encode, require_metadata
from schemas.messages import Response, UploadReport
from tests.unit.schemas.reading import READERS, VALIDATORS, kind_of
from tests.unit.schemas.strategies import messages, metadata, structs


@given(message=messages)
def test_a_message_survives_the_wire(message: Message) -> None:
    data = encode(message)
    assert READERS[kind_of(message)](data) == message
    assert len(data) <= MAX_MESSAGE_SIZE


@given(message=messages)
def test_an_encoded_message_is_valid(message: Message) -> None:
    assert list(VALIDATORS[kind_of(message)].iter_errors(json.loads(encode(message)))) == []


@given(message=messages)
def test_every_omitted_default_may_be_sent(message: Message) -> None:
    """An agent in another language may send every default, null and empty list."""
    full = json.dumps(spelled_out(message)).encode()
    assert READERS[kind_of(message)](full) == message
    VALIDATORS[kind_of(message)].validate(json.loads(full))


@given(message=messages)
def test_unknown_fields_are_ignored_everywhere(message: Message) -> None:
    plain = json.loads(encode(message))
    assert READERS[kind_of(message)](json.dumps(with_extras(plain)).encode()) == message


@given(report=structs(UploadReport))
def test_a_report_always_names_its_attempt(report: UploadReport) -> None:
    payload = json.loads(encode(Response("m", "download_file", "in_progress", report)))["payload"]
    assert (payload["attempt"], payload.get("upload_id")) == (report.attempt, report.upload_id)


@given(free=metadata)
def test_metadata_is_unchanged(free: dict[str, Any]) -> None:
    require_metadata(free)
    assert msgspec.json.decode(msgspec.json.encode(free)) == free


def spelled_out(value: object) -> Any:  # noqa: ANN401  (a JSON tree)
    """A message as plain values with no field left out."""
    if isinstance(value, msgspec.Struct):
        names = zip(value.__struct_fields__, value.__struct_encode_fields__, strict=True)
        return {written: spelled_out(getattr(value, name)) for name, written in names}
    if isinstance(value, dict):
        return {str(key): spelled_out(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [spelled_out(item) for item in value]
    return msgspec.to_builtins(value)


def with_extras(tree: Any, name: str = "") -> Any:  # noqa: ANN401  (a JSON tree)
    """The same message from a version with more fields; maps with data as keys stay as they are."""
    if name in {"metadata", "labels", "headers", "etags", "counters"}:
        return tree
    if isinstance(tree, list):
        return [with_extras(item) for item in tree]
    if isinstance(tree, dict):
        return {key: with_extras(item, key) for key, item in tree.items()} | {"of a later version": {"x": [1, None]}}
    return tree
