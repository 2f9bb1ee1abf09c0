"""The generated documents: fresh, valid, and equal to the tables.

Rule: AsyncAPI has no validator in Python, so its structure is checked here, rule by rule of the 3.0 specification.
"""

import json
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from jsonschema import Draft202012Validator, ValidationError

from schemas.generate.__main__ import FOLDER, write
from schemas.generate.asyncapi import asyncapi
from schemas.generate.documents import documents
from schemas.messages import COMMAND_PAYLOADS, RESPONSE_PAYLOADS
from schemas.topics import TOPICS, Topics
from schemas.values import ERRORS, ErrorCode

SCHEMA_FILES: Final = ("command.json", "response.json", "status.json", "presence.json", "birth.json")
DOCUMENTS: Final[dict[str, Any]] = {name: json.loads(text) for name, text in documents().items()}
ASYNC: Final[dict[str, Any]] = DOCUMENTS["asyncapi.json"]


def nodes(tree: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401  (a JSON tree)
    """Every object in a document."""
    if isinstance(tree, dict):
        yield tree
    for child in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from nodes(child)


def resolve(reference: str, home: str) -> Any:  # noqa: ANN401  (a JSON tree)
    """The node that a `$ref` in the document `home` points to; KeyError when there is none."""
    name, _, pointer = reference.partition("#")
    node = DOCUMENTS[name.removeprefix("./") or home]
    for step in filter(None, pointer.split("/")):
        node = node[step]
    return node


def test_the_files_are_fresh() -> None:
    """`python -m schemas.generate` was run after the last change of a message, a topic or an error code."""
    assert {path.name: path.read_bytes() for path in FOLDER.iterdir()} == documents()


def test_the_command_writes_every_file_and_removes_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "json"
    write(folder)
    (folder / "retired.json").touch()
    monkeypatch.setattr("sys.argv", ["schemas", str(folder)])
    runpy.run_path(str(FOLDER.parent / "generate" / "__main__.py"), run_name="__main__")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == documents()


@pytest.mark.parametrize("name", SCHEMA_FILES)
def test_a_schema_is_valid_and_described(name: str) -> None:
    schema = DOCUMENTS[name]
    Draft202012Validator.check_schema(schema)
    undescribed = [key for key, body in schema.get("$defs", {}).items() if not body.get("description")]
    assert (bool(schema["description"]), undescribed) == (True, [])


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_reference_resolves(name: str) -> None:
    references = [node["$ref"] for node in nodes(DOCUMENTS[name]) if "$ref" in node]
    assert all(resolve(reference, name) for reference in references)


@pytest.mark.parametrize("name", SCHEMA_FILES)
def test_every_definition_is_used(name: str) -> None:
    schema = DOCUMENTS[name]
    used = {node["$ref"].removeprefix("#/$defs/") for node in nodes(schema) if "$ref" in node}
    assert set(schema.get("$defs", {})) == used


@pytest.mark.parametrize("name", SCHEMA_FILES)
def test_a_pattern_is_one_that_every_language_reads(name: str) -> None:
    r"""ECMA-262 and RE2 know neither `\Z` nor look-ahead."""
    patterns = [node["pattern"] for node in nodes(DOCUMENTS[name]) if isinstance(node.get("pattern"), str)]
    assert [pattern for pattern in patterns if re.search(r"\\[AZz]|\(\?", pattern)] == []


@pytest.mark.parametrize(
    ("name", "payloads"), [("command.json", COMMAND_PAYLOADS), ("response.json", RESPONSE_PAYLOADS)]
)
def test_every_action_has_its_payload(name: str, payloads: dict[str, type]) -> None:
    cases = {case["if"]["properties"]["action"]["const"]: case["then"] for case in DOCUMENTS[name]["allOf"]}
    shapes = {action: then["properties"]["payload"]["$ref"] for action, then in cases.items()}
    assert shapes == {str(action): f"#/$defs/{payload.__name__}" for action, payload in payloads.items()}


@pytest.mark.parametrize(
    "command",
    [
        {"message_id": "m", "action": "format_disk"},
        {"message_id": "m m", "action": "health_check"},
        {"message_id": "m", "action": "list_files"},
        {"message_id": "m", "action": "list_files", "payload": {}},
        {"message_id": "m", "action": "grant_parts", "payload": {"attempt": 0}},
        {"message_id": "m", "action": "download_file", "payload": {"upload_config": {"chunk_size": 5}}},
        {"action": "health_check"},
    ],
)
def test_a_wrong_command_is_invalid(command: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Draft202012Validator(DOCUMENTS["command.json"]).validate(command)


def test_a_value_of_a_later_version_is_valid_in_a_response() -> None:
    response = {"message_id": "m", "action": "later", "status": "later", "error": "later", "payload": {"later": 1}}
    assert Draft202012Validator(DOCUMENTS["response.json"]).is_valid(response)


@pytest.mark.parametrize("key", ["0", "01", "10001", "-1", "one"])
def test_an_etag_belongs_to_a_part_number(key: str) -> None:
    response = {"message_id": "m", "action": "download_file", "status": "success", "payload": {"etags": {key: "e"}}}
    assert not Draft202012Validator(DOCUMENTS["response.json"]).is_valid(response)


def test_a_default_that_is_always_sent_is_in_the_schema() -> None:
    assert DOCUMENTS["response.json"]["$defs"]["UploadReport"]["properties"]["attempt"]["default"] == 1


def test_the_error_codes_are_the_table() -> None:
    document = DOCUMENTS["error-codes.json"]
    rows = [*document["codes"], document["any_other_code"]]
    assert rows == [
        {"code": code.value, "travels_as": rule.travels_as.value, "follow": rule.follow.value, "says": rule.meaning}
        for code, rule in ERRORS.items()
    ]
    assert document["any_other_code"]["code"] == ErrorCode.UNKNOWN


def test_asyncapi_has_what_version_3_requires() -> None:
    assert ASYNC["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= set(ASYNC["info"])
    allowed = {"asyncapi", "id", "info", "servers", "defaultContentType", "channels", "operations", "components"}
    assert set(ASYNC) <= allowed
    assert all({"host", "protocol"} <= set(server) for server in ASYNC["servers"].values())


def test_a_server_declares_the_variables_of_its_host() -> None:
    for server in ASYNC["servers"].values():
        assert set(re.findall(r"\{(\w+)\}", server["host"])) == set(server["variables"])


def test_every_topic_is_a_channel_at_its_address() -> None:
    addresses = {name: channel["address"].replace("{client_id}", "+") for name, channel in ASYNC["channels"].items()}
    assert addresses == {str(topic.channel): Topics().every(topic.channel) for topic in TOPICS}


def test_every_parameter_of_an_address_is_declared_and_no_other() -> None:
    for channel in ASYNC["channels"].values():
        assert set(re.findall(r"\{(\w+)\}", channel["address"])) == set(channel.get("parameters", {}))


def test_every_channel_carries_the_message_of_the_table() -> None:
    carried = {name: list(channel["messages"]) for name, channel in ASYNC["channels"].items()}
    assert carried == {str(topic.channel): [topic.message] for topic in TOPICS}


def test_both_sides_have_their_operation_on_every_channel() -> None:
    ends = sorted(
        (operation["channel"]["$ref"].rpartition("/")[2], operation["action"], operation["tags"][0]["name"])
        for operation in ASYNC["operations"].values()
    )
    names = {"device": "agent", "service": "service"}
    assert ends == sorted(
        (str(topic.channel), action, names[party])
        for topic in TOPICS
        for action, party in (("send", topic.writer), ("receive", topic.reader))
    )


def test_an_operation_names_only_messages_of_its_channel() -> None:
    """AsyncAPI 3.0, Operation Object: `messages` must be a subset of those of the referenced channel."""
    for operation in ASYNC["operations"].values():
        for end in (operation, operation.get("reply", operation)):
            prefix = end["channel"]["$ref"] + "/messages/"
            assert all(message["$ref"].startswith(prefix) for message in end["messages"])


def test_an_operation_is_bound_as_in_the_table() -> None:
    bound = {topic.channel: (topic.qos, topic.retained) for topic in TOPICS}
    for operation in ASYNC["operations"].values():
        binding = operation["bindings"]["mqtt"]
        channel = operation["channel"]["$ref"].rpartition("/")[2]
        assert (binding["qos"], binding["retain"]) == bound[channel]


def test_a_message_refers_to_its_schema() -> None:
    payloads = {name: message["payload"]["$ref"] for name, message in ASYNC["components"]["messages"].items()}
    assert payloads == {topic.message: f"./{topic.message.lower()}.json" for topic in TOPICS}
    assert all(resolve(reference, "asyncapi.json")["title"] == name for name, reference in payloads.items())


def test_another_root_moves_every_address() -> None:
    channels = asyncapi("site-7/v1")["channels"].values()
    assert all(channel["address"].startswith("site-7/v1/") for channel in channels)
