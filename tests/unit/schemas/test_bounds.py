"""Every number, list and map in every message has a bound."""

import importlib
import json
import pkgutil
from collections.abc import Iterator
from typing import Any, get_args, get_origin, get_type_hints

import msgspec
import pytest

import schemas
from schemas.codec import decode, decode_response
from schemas.errors import SchemaError
from schemas.generate.documents import documents
from schemas.messages import MAX_HELLO_PAGE, MAX_STATUS_UPLOADS, After, KeyText, Presence, SessionId, Status
from schemas.values import Fingerprint, Recipient

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


def patterns_of(kind: object, seen: set[str]) -> None:
    """Add every pattern that msgspec checks in what the schemas name."""
    if isinstance(kind, dict):
        kind = list(kind.values())
    if isinstance(kind, list | tuple):
        for one in kind:
            patterns_of(one, seen)
    elif isinstance(kind, msgspec.Meta):
        if kind.pattern is not None:
            seen.add(kind.pattern)
    elif isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind.__module__.startswith("schemas."):
        patterns_of(list(get_type_hints(kind, include_extras=True).values()), seen)
    elif get_origin(kind) is not None:
        patterns_of([*get_args(kind), *getattr(kind, "__metadata__", ())], seen)


def checked_patterns() -> list[str]:
    found: set[str] = set()
    for module in pkgutil.walk_packages(schemas.__path__, "schemas."):
        if not module.name.endswith("__main__"):
            patterns_of(vars(importlib.import_module(module.name)), found)
    return sorted(found)


@pytest.mark.parametrize("pattern", checked_patterns())
def test_a_pattern_takes_no_line_end_behind_its_text(pattern: str) -> None:
    r"""In Python `$` matches before a last line end too, and msgspec searches: `\Z` is the end alone."""
    assert pattern.startswith("^")
    assert pattern.endswith(r"\Z")
    assert "$" not in pattern


def test_the_patterns_of_the_wire_are_found() -> None:
    """The test above goes over what is imported, not over a list that someone keeps."""
    assert {get_args(kind)[1].pattern for kind in (After, KeyText, Recipient, SessionId)} <= set(checked_patterns())


@pytest.mark.parametrize(("field", "text"), [("session", "s" * 22), ("key", "k" * 43), ("claim", "c" * 43)])
def test_a_presence_with_a_line_end_behind_a_value_is_refused(field: str, text: str) -> None:
    presence = {"client_id": "a", "status": "online", "install_id": "i", "epoch": 1, "sequence": 1}
    assert getattr(decode(Presence, msgspec.json.encode({**presence, field: text})), field) == text
    with pytest.raises(SchemaError, match="regex"):
        decode(Presence, msgspec.json.encode({**presence, field: text + "\n"}))


@pytest.mark.parametrize("name", sorted(documents()))
def test_the_schemas_have_patterns_of_every_language(name: str) -> None:
    r"""JSON Schema has the syntax of ECMAScript, which has no `\A` and no `\Z`."""
    text = documents()[name].decode()
    assert r"\\Z" not in text
    assert r"\\A" not in text
