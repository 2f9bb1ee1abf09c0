"""Every number, list and map in every message has a bound."""

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from schemas.codec import decode, decode_response
from schemas.errors import SchemaError
from schemas.generate.documents import documents
from schemas.messages import MAX_HELLO_PAGE, MAX_STATUS_UPLOADS, Status
from schemas.values import Fingerprint

FREE = ".metadata"
"""The one map whose members no schema knows; the codec bounds its bytes and its depth."""


def nodes(node: Any, where: str) -> Iterator[tuple[str, dict[str, Any]]]:  # noqa: ANN401 - any JSON
    """Every schema in a document, with its place."""
    if isinstance(node, dict):
        if "type" in node:
            yield where, node
        for name, one in node.items():
            yield from nodes(one, f"{where}.{name}")
    elif isinstance(node, list):
        for number, one in enumerate(node):
            yield from nodes(one, f"{where}[{number}]")


def unbounded(node: dict[str, Any]) -> bool:
    match node["type"]:
        case "integer":
            return not {"minimum", "maximum"} <= node.keys()
        case "number":
            return not (node.keys() & {"minimum", "exclusiveMinimum"} and "maximum" in node)
        case "array":
            return "maxItems" not in node
        case "object":
            return "properties" not in node and "maxProperties" not in node
        case _:
            return False


@pytest.mark.parametrize("name", sorted(set(documents()) - {"error-codes.json", "asyncapi.json"}))
def test_every_number_list_and_map_of_a_message_is_bounded(name: str) -> None:
    """An unbounded number ends its reader with an overflow; a long list costs its reader more than its bytes."""
    found = [
        where
        for where, node in nodes(json.loads(documents()[name]), "")
        if unbounded(node) and not where.endswith(FREE)
    ]
    assert found == []


def test_a_status_of_more_uploads_than_an_agent_reports_is_refused() -> None:
    entries = [{"upload_id": f"u{number}"} for number in range(MAX_STATUS_UPLOADS + 1)]
    assert decode(Status, msgspec.json.encode({"status": "uploading", "uploads": entries[1:]})).uploads
    with pytest.raises(SchemaError, match="length <= 64"):
        decode(Status, msgspec.json.encode({"status": "uploading", "uploads": entries}))


def test_a_page_of_a_hello_with_more_uploads_than_an_agent_writes_is_refused() -> None:
    entries = [{"upload_id": f"u{number}", "attempt": 1} for number in range(MAX_HELLO_PAGE + 1)]
    hello = {"message_id": "m", "action": "hello", "status": "success"}
    with pytest.raises(SchemaError, match="length <= 512"):
        decode_response(msgspec.json.encode({**hello, "payload": {"install_id": "i", "active": entries}}))


def test_a_time_beyond_64_bits_is_refused() -> None:
    files = {"files": [{"path": "/a", "size": 1, "mtime_ns": 10**30}]}
    with pytest.raises(SchemaError):
        decode_response(
            msgspec.json.encode({"message_id": "m", "action": "list_files", "status": "success", "payload": files})
        )


def test_a_file_number_of_64_bits_is_read_and_a_larger_one_is_refused() -> None:
    """Some file systems use all 64 bits, and journals of such devices must stay readable."""
    known = {"size": 1, "mtime_ns": 2, "ctime_ns": 3, "device": 2**64 - 1, "inode": 2**64 - 1}
    assert msgspec.json.decode(msgspec.json.encode(known), type=Fingerprint).inode == 2**64 - 1
    for name in ("device", "inode"):
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(msgspec.json.encode({**known, name: 2**64}), type=Fingerprint)
