"""JSON Schema of every message, and the error table.

Rule: pure, and derived from the Structs and tables alone; descriptions are their docstrings.
"""

from collections.abc import Mapping
from inspect import getdoc
from typing import Any, Final

import msgspec
from msgspec import NODEFAULT, Struct, structs

from schemas import messages
from schemas.generate.asyncapi import asyncapi
from schemas.messages import (
    COMMAND_PAYLOADS,
    PROTOCOL,
    RESPONSE_PAYLOADS,
    Birth,
    Command,
    Presence,
    Response,
    Status,
)
from schemas.signing.documents import KeyList, RootDocument, TrustDocument
from schemas.values import ERRORS, Action, ErrorCode, Outcome, ResponseStatus

Json = dict[str, Any]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
REF: Final = "#/$defs/{name}"

_EXTENSIBLE: Final[Mapping[tuple[str, str], tuple[str, ...]]] = {
    ("Response", "action"): tuple(Action),
    ("Response", "status"): tuple(status for status in ResponseStatus if status is not ResponseStatus.UNKNOWN),
    ("Response", "error"): tuple(code for code in ErrorCode if code is not ErrorCode.UNKNOWN),
    ("CloseUpload", "outcome"): tuple(Outcome),
    ("Status", "status"): ("uploading", "waiting", "idle"),
    ("Presence", "status"): ("online", "offline"),
}
"""Fields with a list of values that later versions may extend: a reader accepts any text."""

_LATER: Final = "A value not listed comes from a later version: a reader takes it as unknown, and keeps the text."


def documents() -> dict[str, bytes]:
    """Every generated file: its name below `schemas/json/`, and its bytes."""
    contents = {
        "command.json": dispatched(Command, COMMAND_PAYLOADS, {"enum": [str(action) for action in COMMAND_PAYLOADS]}),
        "response.json": dispatched(Response, RESPONSE_PAYLOADS, {}),
        "status.json": plain(Status),
        "presence.json": plain(Presence),
        "birth.json": plain(Birth),
        "trustdocument.json": plain(TrustDocument),
        "rootdocument.json": plain(RootDocument),
        "keylist.json": plain(KeyList),
        "error-codes.json": error_codes(),
        "asyncapi.json": asyncapi(),
    }
    return {name: _text(content) for name, content in contents.items()}


def plain(kind: type[Struct]) -> Json:
    """The schema of a message that has one shape."""
    _, definitions = _components([kind])
    return _root(kind, definitions.pop(kind.__name__), definitions)


def dispatched(kind: type[Struct], payloads: Mapping[str, type[Any]], action: Json) -> Json:
    """The schema of a message whose `action` selects its payload; `action` restricts that field further."""
    envelope = _envelope(kind)
    _, definitions = _components([envelope, *dict.fromkeys(payloads.values())])
    body = definitions.pop(kind.__name__)
    body["properties"]["action"] |= action
    body["required"].remove("payload")
    body["allOf"] = [_case(name, payload) for name, payload in payloads.items()]
    return _root(kind, body, definitions)


def error_codes() -> Json:
    """What every error code means, how it travels and what the owner of the upload does about it."""
    rows = [
        {"code": str(code), "travels_as": str(rule.travels_as), "follow": str(rule.follow), "says": rule.meaning}
        for code, rule in ERRORS.items()
    ]
    known = [row for row in rows if row["code"] != ErrorCode.UNKNOWN]
    [unknown] = [row for row in rows if row["code"] == ErrorCode.UNKNOWN]
    return {"title": "Error codes", "protocol": PROTOCOL, "codes": known, "any_other_code": unknown}


def _envelope(kind: type[Struct]) -> type[Struct]:
    """The message with any payload: msgspec describes no union of Structs."""
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = [
        (item.name, Any if item.name == "payload" else item.type)
        if item.required
        else (item.name, item.type, item.default)
        for item in structs.fields(kind)
    ]
    return msgspec.defstruct(kind.__name__, fields, namespace={"__doc__": kind.__doc__})


def _case(action: str, payload: type[Struct]) -> Json:
    then: Json = {"properties": {"payload": {"$ref": REF.format(name=payload.__name__)}}}
    if any(item.required for item in structs.fields(payload)):
        then["required"] = ["payload"]
    return {"if": {"properties": {"action": {"const": str(action)}}, "required": ["action"]}, "then": then}


def _components(kinds: list[type[Any]]) -> tuple[tuple[Json, ...], Json]:
    references, definitions = msgspec.json.schema_components(kinds, ref_template=REF)
    for name, definition in definitions.items():
        _show_defaults(getattr(messages, name, None), definition)
    for (name, field), values in _EXTENSIBLE.items():
        if name in definitions:
            _extend(definitions[name]["properties"], field, values)
    return references, definitions


def _show_defaults(kind: object, definition: Json) -> None:
    """Add the defaults that are always sent: a reader needs them for an older or a foreign writer."""
    if isinstance(kind, type) and issubclass(kind, Struct):
        for item in structs.fields(kind):
            if item.default_factory is not NODEFAULT:
                definition["properties"][item.name].setdefault("default", msgspec.to_builtins(item.default_factory()))


def _extend(properties: Json, field: str, values: tuple[str, ...]) -> None:
    shape = properties[field]
    default = {"default": shape.pop("default")} if "default" in shape else {}
    known = {"enum": [str(value) for value in values], "description": "The values of this version."}
    shapes = shape.get("anyOf", [shape])
    properties[field] = {"anyOf": [known, *shapes], "description": _LATER} | default


def _root(kind: type[Struct], body: Json, definitions: Json) -> Json:
    head = {"$schema": DIALECT, "$id": f"urn:backhaul:v{PROTOCOL}:{kind.__name__.lower()}"}
    text = {
        "title": kind.__name__,
        "description": getdoc(kind),
        "$comment": "Generated by `python -m schemas.generate`.",
    }
    schema: Json = _for_every_language(head | text | body | ({"$defs": definitions} if definitions else {}))
    return schema


def _for_every_language(node: Any) -> Any:  # noqa: ANN401  (a JSON tree)
    r"""Write `\Z` as `$`, and a pair as two equal items: draft 7, which AsyncAPI uses, has no `prefixItems`."""
    if isinstance(node, dict):
        if "prefixItems" in node:
            node["items"], *_ = node.pop("prefixItems")
        return {key: _for_every_language(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_for_every_language(value) for value in node]
    return node.replace(r"\Z", "$") if isinstance(node, str) else node


def _text(content: Json) -> bytes:
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"
