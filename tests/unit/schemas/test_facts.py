"""A fact for information that cannot be decoded is left out; everything else of its message counts.

Rule: the kind of fault is an optional member that decides about the whole message.
"""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from schemas.codec import FACTS, decode, decode_command, decode_response
from schemas.errors import SchemaError
from schemas.messages import AgentInfo, Health, Presence, Status, UploadReport
from schemas.values import SystemInfo, UploadOptions

STATUS = {"status": "uploading", "uploads": [{"upload_id": "u", "bytes_sent": 7}]}
PRESENCE = {"client_id": "a", "status": "online", "install_id": "i", "epoch": 1, "sequence": 2}
REPORT = {"upload_id": "u", "file_path": "/a", "file_size": 3, "etags": {"1": "e"}}

MEMBERS: dict[type[msgspec.Struct], dict[str, Any]] = {
    Status: STATUS,
    Presence: PRESENCE,
    UploadReport: REPORT,
    Health: {},
}


def read(kind: type[msgspec.Struct], members: dict[str, Any]) -> tuple[Any, list[str]]:
    """The message, and the names of the facts that were left out."""
    dropped: list[str] = []
    if kind in {Status, Presence}:
        return decode(kind, msgspec.json.encode(members), dropped.append), dropped  # type: ignore[type-var]
    action = "health_check" if kind is Health else "download_file"
    data = {"message_id": "m", "action": action, "status": "success", "payload": members}
    return decode_response(msgspec.json.encode(data), dropped.append).payload, dropped


def test_a_load_that_is_a_list_costs_the_system_info_and_not_the_progress() -> None:
    status, dropped = read(Status, {**STATUS, "system_info": {"hostname": "x", "load": [0.1, 0.2, 0.3]}})
    assert (status.system_info, dropped) == (None, ["system_info"])
    assert status.uploads[0].bytes_sent == 7


@pytest.mark.parametrize("wrong", [7, "text", [1], {"a": {"b": [1]}}, None, 10**30, "2025-13-01", True])
@pytest.mark.parametrize(("kind", "fact"), [(kind, fact) for kind, facts in FACTS.items() for fact in sorted(facts)])
def test_no_value_of_a_fact_refuses_its_message(kind: type[msgspec.Struct], fact: str, wrong: object) -> None:
    members = MEMBERS[kind]
    plain, _ = read(kind, members)
    message, dropped = read(kind, {**members, fact: wrong})
    assert dropped in ([], [fact])
    if dropped:
        assert message == plain


def test_every_wrong_fact_is_left_out_and_the_others_count() -> None:
    wrong = {"agent": "my-agent 1.0", "labels": ["berlin"], "since": "yesterday", "capabilities": ["list_files"]}
    presence, dropped = read(Presence, {**PRESENCE, **wrong, "default_file": "/a"})
    assert sorted(dropped) == ["agent", "labels", "since"]
    assert (presence.agent, presence.labels, presence.since) == (AgentInfo(), {}, None)
    assert (presence.capabilities, presence.default_file) == (("list_files",), "/a")
    report, dropped = read(UploadReport, {**REPORT, "options": {"on_change": "later"}, "metadata": 7})
    assert (sorted(dropped), report.options, report.etags) == (["metadata", "options"], UploadOptions(), {1: "e"})
    health, dropped = read(Health, {"version": "1", "system_info": 3, "counters": {"a": -1}})
    assert (sorted(dropped), health) == (["counters", "system_info"], Health("1", 0, SystemInfo()))


@pytest.mark.parametrize(
    ("kind", "members"),
    [
        (Status, {**STATUS, "uploads": 7}),
        (Status, {**STATUS, "status": 7, "system_info": 3}),
        (Presence, {**PRESENCE, "epoch": "1", "agent": 3}),
        (UploadReport, {**REPORT, "file_size": "3"}),
        (UploadReport, {**REPORT, "etags": [1]}),
        (UploadReport, {**REPORT, "file_path": 7}),
    ],
)
def test_a_wrong_member_that_is_no_fact_refuses_the_message(
    kind: type[msgspec.Struct], members: dict[str, Any]
) -> None:
    with pytest.raises(SchemaError):
        read(kind, members)


def test_a_command_has_no_facts() -> None:
    """What it asks is obeyed whole, or refused."""
    command = {"message_id": "m", "action": "download_file", "payload": {"options": {"on_change": "later"}}}
    with pytest.raises(SchemaError):
        decode_command(msgspec.json.encode(command))


def test_the_protocol_document_lists_every_fact() -> None:
    text = (Path(__file__).parents[3] / "docs" / "protocol.md").read_text()
    paragraph = text[text.index("Facts are:") : text.index("every field of Health")]
    listed = set(re.findall(r"`(\w+)`", paragraph))
    assert listed == set().union(*(facts for kind, facts in FACTS.items() if kind is not Health))
    assert FACTS[Health] == set(Health.__struct_fields__)
