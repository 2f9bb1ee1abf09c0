"""The codec and the JSON Schema agree: a message that one refuses is not valid for the other.

Rule: every field of every message, made wrong in every way of a list, one at a time.
"""

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest

from schemas.errors import SchemaError
from schemas.messages import COMMAND_PAYLOADS, RESPONSE_PAYLOADS
from tests.unit.schemas.reading import READERS, VALIDATORS

WRONG: Final[tuple[Any, ...]] = (
    None,
    True,
    -1,
    0,
    1.5,
    2**53,
    10**30,
    "",
    "text",
    "a/b",
    "m\n",
    [],
    [1],
    [[1]],
    {},
    {"x": {}},
)


def full(kind: str) -> Iterator[dict[str, Any]]:
    """Valid messages with every field present, one for each action."""
    report = {
        **dict.fromkeys(("upload_id", "owner", "file_path"), "u"),
        **dict.fromkeys(("attempt", "file_size", "chunk_size"), 1),
        "fingerprint": {"size": 1, "mtime_ns": 1, "ctime_ns": 1, "device": 1, "inode": 1},
        "digest": "md5",
        "options": {"priority": 1, "max_bytes_per_second": 1, "on_change": "fail", "give_up_after": 9},
        "metadata": {},
        "etags": {"1": "e"},
        "wanted_parts": [{"part_number": 1, "size": 1, "digest": "d"}],
    }
    grant = {"upload_id": "u", "attempt": 1, "expires_in": 1, "presigned_urls": [{"part_number": 1, "url": "u"}]}
    about = {"upload_config": grant | {"chunk_size": 5 * 2**20, "digest": "md5"}, "acknowledges": 1} | grant
    listing = {"pattern": "*", "limit": 1, "cursor": "c", "digest": "md5", "folders": True}
    ages = {"newer_than": 9, "older_than": 1, "min_size": 1, "max_size": 9, "pick": "newest", "max_files": 9}
    selecting = ages | {"job_id": "j", "paths": ["/*"], "exclude": ["x"], "type": "t", "selection": "s", "offset": 1}
    waiting = {"wait": {"reason": "r", "for_seconds": 9}, "max_bytes_per_second": 9}
    entry = {"upload_id": "u", "attempt": 1, "sequence": 1, "status": "s", "owner": "o"}
    moving = {"upload_id": "u", "attempt": 1, "progress": 1, "bytes_sent": 1, "completed_parts": 1, "reason": "r"}
    system = {"hostname": "h", "uptime": 1, "load": 1, "memory_total": 1}
    match kind:
        case "command":
            for action in COMMAND_PAYLOADS:
                uploading = about | waiting | {"completed_parts": [[1, 2]], "outcome": "x"}
                payload = {"list_files": listing, "select_files": selecting | {"limit": 1}}.get(action, uploading)
                yield {"message_id": "m", "action": str(action), "payload": payload, "epoch": 1, "install_id": "i"}
        case "response":
            file = {"path": "p", "size": 1, "mtime_ns": 1, "folder": False}
            page = {"files": [file], "cursor": "c"}
            totals = {"files": 1, "bytes": 1, "left_out": 1, "offset": 1, "next": 1}
            selected = totals | {"job_id": "j", "selection": "s", "complete": True, "entries": [file]}
            health = {"version": "1", "active_uploads": 1, "system_info": system}
            payload = report | page | health | {"install_id": "i", "active": [entry], "more": True}
            for action in RESPONSE_PAYLOADS:
                one = selected if action == "select_files" else payload
                yield {"message_id": "m", "action": str(action), "status": "s", "sequence": 1, "payload": one}
        case "status":
            yield {
                "status": "s",
                "client_id": "c",
                "current_upload": moving,
                "uploads": [moving],
                "system_info": system,
            }
        case "presence":
            agent = {"version": "1", "protocol": [1], "hostname": "h"}
            pair = {"client_id": "c", "status": "s", "install_id": "i", "epoch": 1, "sequence": 1}
            use = {"cap": 2, "used": 1}
            budget = {"day": use, "month": use, "metered_day": use, "metered_month": use, "metered": True}
            places = {"timezone": "UTC", "roots": ["/data"], "types": ["t"], "budget": budget | {"holds": ["h"]}}
            yield pair | {"agent": agent, "labels": {"a": "b"}, "capabilities": ["c"], "default_file": "/f"} | places
        case _:
            yield {"instance": "i"}


def with_one_field_wrong(tree: Any) -> Iterator[Any]:  # noqa: ANN401  (a JSON tree)
    """The message once for each place in it and each wrong value."""
    places = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for place, child in places:
        for other in (*WRONG, *with_one_field_wrong(child)):
            changed = tree.copy()
            changed[place] = other
            yield changed


@pytest.mark.parametrize("kind", READERS)
def test_the_codec_and_the_schema_agree_on_every_wrong_field(kind: str) -> None:
    r"""A value is refused by both or read by both; `m\n` is beyond Python's `$`, the schemas' for all languages."""
    disagreements, tried = [], 0
    for message in full(kind):
        VALIDATORS[kind].validate(message)
        for changed in with_one_field_wrong(message):
            text, tried = json.dumps(changed), tried + 1
            try:
                READERS[kind](text.encode())
                read = True
            except SchemaError:
                read = False
            if read != VALIDATORS[kind].is_valid(changed) and r'"m\n"' not in text:
                disagreements.append((read, text))
    assert disagreements == []
    assert tried >= len(WRONG)
