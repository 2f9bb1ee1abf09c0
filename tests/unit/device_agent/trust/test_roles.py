"""What a key may sign, as a table: role, path, owner, principal, end."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from device_agent.transfer.records import Afterwards, Order
from device_agent.trust.roles import SignedBy
from device_agent.trust.verdict import Known, Unverified
from schemas.codec import decode_command
from schemas.signing.documents import KeyEntry, KeyRole
from tests.unit.device_agent.trust.fleet import BOB, DAY, MADE, entry, keys_of, operator

DATA = ("/data/**",)
PLANE_ENTRY = entry(paths=DATA)
COMMANDS_ONLY = entry(roles=(KeyRole.COMMAND,), paths=DATA)
TRANSFER_ONLY = entry(roles=(KeyRole.TRANSFER,), paths=DATA)
ALICE_ENTRY = operator(paths=DATA)
BOB_ENTRY = operator(BOB, "bob", paths=DATA)
EVERY_OWNER = entry(owners=("*",), paths=DATA)

OF_PLANE = Known(order=Order("u1", "m1", "/data/a", attempt=2))
OF_ALICE = Known(order=Order("u1", "m1", "/data/a", owner="cli-alice", principal="alice"))
OF_NOBODY = Known(order=Order("u1", "m1", "/data/a", owner="cli-unknown", principal="alice"))
UNSIGNED_BEFORE = Known(order=Order("u1", "m1", "/data/a", owner="cli-unknown"))
ELSEWHERE = Known(order=Order("u1", "m1", "/etc/a", attempt=2))
AFTER = Known(closed=True, after=Afterwards("delete", "/data/a", "m1", 1, 3, owner="cli-unknown", principal="alice"))
NOTHING = Known()

URLS = {"presigned_urls": [{"part_number": 1, "url": "https://s/1"}]}
DOWNLOAD: dict[str, Any] = {"action": "download_file", "file_path": "/data/a"}
GRANT: dict[str, Any] = {"action": "grant_parts", "upload_id": "u1"}
CLOSE: dict[str, Any] = {"action": "close_upload", "upload_id": "u1", "outcome": "completed"}
CANCEL: dict[str, Any] = {"action": "cancel_upload", "upload_id": "u1"}


OF_TYPE: dict[str, Any] = {"action": "select_files", "job_id": "j", "type": "logs"}


def download(**config: object) -> dict[str, Any]:
    return {**DOWNLOAD, "upload_config": {"upload_id": "u1", **config}}


def path(file_path: str) -> Known:
    return Known(path=file_path)


ALLOWED = [
    (PLANE_ENTRY, DOWNLOAD, path("/data/a")),
    (COMMANDS_ONLY, DOWNLOAD, path("/data/a")),
    (COMMANDS_ONLY, DOWNLOAD, path("/data/.hidden/b")),
    (ALICE_ENTRY, DOWNLOAD, path("/data/a")),
    (ALICE_ENTRY, download(owner="control-plane"), path("/data/a")),
    (ALICE_ENTRY, download(**URLS), path("/data/a")),
    (ALICE_ENTRY, download(owner="cli-1", **URLS), path("/data/a")),
    (entry(), DOWNLOAD, path("no path at all")),
    (PLANE_ENTRY, download(attempt=3), Known(order=OF_PLANE.order, path="/data/a")),
    (ALICE_ENTRY, download(attempt=3), Known(order=OF_PLANE.order, path="/data/a")),
    (TRANSFER_ONLY, GRANT, OF_PLANE),
    (EVERY_OWNER, GRANT, OF_ALICE),
    (ALICE_ENTRY, GRANT, OF_ALICE),
    (BOB_ENTRY, GRANT, OF_ALICE),
    (ALICE_ENTRY, GRANT, OF_NOBODY),
    (ALICE_ENTRY, CLOSE, OF_NOBODY),
    (ALICE_ENTRY, CLOSE, AFTER),
    (TRANSFER_ONLY, GRANT, NOTHING),
    (TRANSFER_ONLY, CLOSE, NOTHING),
    (COMMANDS_ONLY, CANCEL, OF_PLANE),
    (ALICE_ENTRY, CANCEL, OF_PLANE),
    (COMMANDS_ONLY, CANCEL, NOTHING),
    (COMMANDS_ONLY, {"action": "list_files", "pattern": "/data/x/*.csv"}, NOTHING),
    (COMMANDS_ONLY, {"action": "list_files", "pattern": "/data/**"}, NOTHING),
    (entry(), {"action": "list_files", "pattern": "/**"}, NOTHING),
    (COMMANDS_ONLY, {"action": "select_files", "job_id": "j", "paths": ["/data/*"]}, NOTHING),
    (entry(paths=("/data/a*",)), {"action": "list_files", "pattern": "/data/a?"}, NOTHING),
    (entry(paths=("/data/a*",)), DOWNLOAD, path("/data/a*b")),
    (COMMANDS_ONLY, OF_TYPE, NOTHING),
    (COMMANDS_ONLY, OF_TYPE, Known(patterns=("/data/*.log", "/data/app/**"))),
    (entry(), OF_TYPE, Known(patterns=("/var/log/**",))),
    (COMMANDS_ONLY, {"action": "health_check"}, NOTHING),
]

REFUSED = [
    (TRANSFER_ONLY, DOWNLOAD, path("/data/a"), "role command"),
    (COMMANDS_ONLY, DOWNLOAD, path("/etc/passwd"), "this path"),
    (COMMANDS_ONLY, DOWNLOAD, path("/data/../etc/passwd"), "this path"),
    (COMMANDS_ONLY, DOWNLOAD, path("/database/a"), "this path"),
    (COMMANDS_ONLY, DOWNLOAD, path("data/a"), "this path"),
    (entry(paths=()), DOWNLOAD, path("/data/a"), "this path"),
    (entry(paths=("/a/../b",)), DOWNLOAD, path("/b/x"), "this path"),
    (COMMANDS_ONLY, download(**URLS), path("/data/a"), "role transfer"),
    (ALICE_ENTRY, download(owner="control-plane", **URLS), path("/data/a"), "control-plane"),
    (PLANE_ENTRY, download(owner="cli-1", **URLS), path("/data/a"), "cli-1"),
    (PLANE_ENTRY, download(attempt=3), Known(order=ELSEWHERE.order, path="/data/a"), "this path"),
    (ALICE_ENTRY, download(attempt=3, owner="cli-1"), Known(order=OF_PLANE.order, path="/data/a"), "control-plane"),
    (COMMANDS_ONLY, GRANT, OF_PLANE, "role transfer"),
    (COMMANDS_ONLY, CLOSE, OF_PLANE, "role transfer"),
    (ALICE_ENTRY, GRANT, OF_PLANE, "control-plane"),
    (ALICE_ENTRY, CLOSE, OF_PLANE, "control-plane"),
    (PLANE_ENTRY, GRANT, OF_ALICE, "cli-alice"),
    (BOB_ENTRY, GRANT, OF_NOBODY, "cli-unknown"),
    (BOB_ENTRY, CLOSE, OF_NOBODY, "cli-unknown"),
    (EVERY_OWNER, CLOSE, OF_NOBODY, "cli-unknown"),
    (ALICE_ENTRY, CLOSE, UNSIGNED_BEFORE, "cli-unknown"),
    (BOB_ENTRY, CLOSE, AFTER, "cli-unknown"),
    (entry(owners=("control-plan?",)), GRANT, OF_PLANE, "control-plane"),
    (entry(owners=("[c]ontrol-plane",)), GRANT, OF_PLANE, "control-plane"),
    (entry(owners=()), GRANT, OF_PLANE, "control-plane"),
    (TRANSFER_ONLY, CANCEL, OF_PLANE, "role command"),
    (COMMANDS_ONLY, CANCEL, ELSEWHERE, "this path"),
    (TRANSFER_ONLY, {"action": "health_check"}, NOTHING, "role command"),
    (COMMANDS_ONLY, {"action": "list_files", "pattern": "/**"}, NOTHING, "this path"),
    (COMMANDS_ONLY, {"action": "list_files", "pattern": "/*/a"}, NOTHING, "this path"),
    (COMMANDS_ONLY, {"action": "select_files", "job_id": "j", "paths": ["/data/*", "/etc/*"]}, NOTHING, "this path"),
    (COMMANDS_ONLY, OF_TYPE, Known(patterns=("/data/*.log", "/var/log/**")), "this path"),
    (entry(paths=()), OF_TYPE, Known(patterns=("/data/*.log",)), "this path"),
    (entry(paths=("/data/a?",)), {"action": "list_files", "pattern": "/data/a*"}, NOTHING, "this path"),
    (entry(paths=("/data/*",)), {"action": "list_files", "pattern": "/**"}, NOTHING, "this path"),
    (entry(paths=("/data/[!a]",)), {"action": "list_files", "pattern": "/data/?"}, NOTHING, "this path"),
    (
        entry(paths=("/data/*.csv",)),
        {"action": "select_files", "job_id": "j", "paths": ["/data/*"]},
        NOTHING,
        "this path",
    ),
]


def refusal(
    by: KeyEntry,
    message: dict[str, Any],
    known: Known,
    issued_at: str | None = None,
    **of_list: Any,  # noqa: ANN401
) -> str | None:
    """Why this key may not sign this command; None when it may."""
    payload = {name: value for name, value in message.items() if name != "action"}
    whole = {"message_id": "m", "action": message["action"], "payload": payload, "issued_at": issued_at}
    command = decode_command(msgspec.json.encode(whole))
    try:
        SignedBy(by, keys_of(by, **of_list), b"").require(command, known)
    except Unverified as refused:
        return str(refused)
    return None


@pytest.mark.parametrize(("by", "message", "known"), ALLOWED)
def test_a_key_may_sign(by: KeyEntry, message: dict[str, Any], known: Known) -> None:
    assert refusal(by, message, known) is None


@pytest.mark.parametrize(("by", "message", "known", "reason"), REFUSED)
def test_a_key_may_not_sign(by: KeyEntry, message: dict[str, Any], known: Known, reason: str) -> None:
    assert reason in (refusal(by, message, known) or "")


@pytest.mark.parametrize("where", ["key", "list"])
def test_a_command_of_after_the_end_of_its_key_or_list_is_refused(where: str) -> None:
    end = MADE + 10 * DAY
    by = entry(expires=end if where == "key" else None)
    of_list = {"expires": end if where == "list" else None}
    health = {"action": "health_check"}
    for instant in (MADE, end):
        assert refusal(by, health, NOTHING, instant.isoformat(), **of_list) is None
    assert refusal(by, health, NOTHING, None, **of_list) is None
    late = refusal(by, health, NOTHING, (end + timedelta(seconds=1)).isoformat(), **of_list)
    assert "after the end" in (late or "")


def test_a_key_that_acts_for_the_control_plane_is_no_operators() -> None:
    found = [SignedBy(one, keys_of(one), b"").is_operator for one in (entry(), EVERY_OWNER, ALICE_ENTRY)]
    assert found == [False, False, True]


@pytest.mark.parametrize(
    ("message", "known", "repeated"),
    [
        (download(attempt=2), OF_PLANE, True),
        (download(attempt=1), OF_PLANE, True),
        (download(attempt=3), OF_PLANE, False),
        (download(), NOTHING, False),
        (download(attempt=9), Known(closed=True), True),
        (CANCEL, OF_PLANE, True),
        (CANCEL, Known(closed=True), True),
        (CANCEL, NOTHING, False),
        (CLOSE, OF_PLANE, True),
        (CLOSE, Known(closed=True), True),
        (CLOSE, NOTHING, False),
        (GRANT, OF_PLANE, False),
        (GRANT, Known(closed=True), False),
        ({"action": "health_check"}, NOTHING, False),
    ],
)
def test_what_can_only_be_a_late_copy(message: dict[str, Any], known: Known, repeated: bool) -> None:  # noqa: FBT001 (a column)
    payload = {name: value for name, value in message.items() if name != "action"}
    command = decode_command(msgspec.json.encode({"message_id": "m", "action": message["action"], "payload": payload}))
    assert known.is_repeated_by(command.payload) is repeated
