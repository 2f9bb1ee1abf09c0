"""The checker of histories finds every violation that is planted, and nothing in a run where all went well."""

from dataclasses import replace
from typing import Any, Final

import pytest

from tests.support.history import Asked, History, Told, check, litter, read_epochs, read_plane_log
from tests.support.strict_s3 import Operation, StoreEvent

KEY: Final = "uploads/c/20261123-060000-a.bin"
PART: Final = Operation.UPLOAD_PART
COMPLETE: Final = Operation.COMPLETE_MULTIPART_UPLOAD
ABORT: Final = Operation.ABORT_MULTIPART_UPLOAD
CHUNK: Final = 5 << 20


def event(number: int, operation: Operation, **more: Any) -> StoreEvent:  # noqa: ANN401
    fields: dict[str, Any] = {"part_number": None, "upload_id": "s3-1", "received": 0, "outcome": "ok", "status": 200}
    fields |= {"bucket": "b", "key": KEY, "done": True, "fault": None}
    return StoreEvent(**{**fields, "number": number, "at": float(number), "operation": operation, **more})


def told(at: float, action: str, **payload: Any) -> Told:  # noqa: ANN401
    return Told(at, {"action": action, "payload": {"upload_id": "u1", **payload}})


STORE: Final = (
    event(1, Operation.CREATE_MULTIPART_UPLOAD, upload_id=None),
    event(2, PART, part_number=1, received=CHUNK),
    event(3, PART, part_number=2, received=7),
    event(6, COMPLETE),
)
UPLOAD: Final = {"state": "completed", "s3_key": KEY, "proof": "etag", "error": None}
GOOD: Final = History(
    asked=(Asked(upload_id="u1", size=CHUNK + 7, versions=frozenset({"good"})),),
    uploads={"u1": UPLOAD},
    objects={"u1": "good"},
    store=STORE,
    plane=({"event": "upload.state"},),
    epochs={"c": (1, 2, 1001)},
    overheard=(
        told(4.5, "download_file", etags={"1": '"x"', "2": '"y"'}),
        told(7.0, "close_upload", outcome="completed"),
    ),
    agent_logs={"c": "level=info"},
)


def test_a_run_in_which_all_went_well_breaks_nothing() -> None:
    assert check(GOOD) == []


def test_an_upload_that_failed_for_a_reason_breaks_nothing() -> None:
    failed = {**UPLOAD, "state": "failed", "error": "source_gone", "proof": None}
    assert check(replace(GOOD, uploads={"u1": failed}, store=(*STORE[:3], event(6, ABORT)), overheard=())) == []


PLANTED: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "an answered trigger is forgotten": ("P1", {"uploads": {}}),
    "an upload never ends": ("P6", {"uploads": {"u1": {**UPLOAD, "state": "in_progress"}}}),
    "a failure without a reason": ("P6", {"uploads": {"u1": {**UPLOAD, "state": "failed"}}}),
    "two objects under one key": ("P2", {"store": (*STORE, event(9, COMPLETE, upload_id="s3-2"))}),
    "completed, and nothing was made": ("P3", {"store": (*STORE[:3], event(6, ABORT)), "overheard": ()}),
    "completed without proof": ("P3", {"uploads": {"u1": {**UPLOAD, "proof": "size"}}}),
    "other bytes than the file's": ("P4", {"objects": {"u1": "torn"}}),
    "an object that cannot be read": ("P4", {"objects": {}}),
    "a finished part is sent again": ("P5", {"store": (*STORE[:3], event(4, PART, received=CHUNK), STORE[3])}),
    "a part after the object": ("P2", {"store": (*STORE, event(9, PART, upload_id="s3-0"), event(10, ABORT))}),
    "an epoch is used twice": ("P8", {"epochs": {"c": (1, 2, 2)}}),
    "an epoch goes back": ("P8", {"epochs": {"c": (1001, 1)}}),
    "an etag before its part": ("P9", {"overheard": (told(2.5, "download_file", etags={"2": '"y"'}),)}),
    "an etag of no part": ("P9", {"overheard": (told(9.0, "download_file", etags={"3": '"z"'}),)}),
    "closed before it was made": ("P9", {"overheard": (told(5.0, "close_upload", outcome="completed"),)}),
    "a fault of the control plane": ("P13", {"plane": ({"event": "message.fault", "error": "oh"},)}),
    "a fault of an agent": ("P13", {"agent_logs": {"c": "error=Traceback (most recent call last)"}}),
    "a multipart upload is left": ("P15", {"store": (*STORE, event(0, PART, upload_id="s3-0", key="other"))}),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_violation_is_found(planted: str) -> None:
    promise, change = PLANTED[planted]
    violations = check(replace(GOOD, **change))
    assert any(violation.startswith(f"{promise}: ") for violation in violations), violations


def test_what_was_in_flight_may_be_sent_again() -> None:
    again = (*STORE[:3], event(4, PART, part_number=2, received=7), STORE[3])
    assert check(replace(GOOD, store=again, resends=7)) == []
    assert check(replace(GOOD, store=again, resends=6)) != []


def test_logs_are_read_with_a_torn_last_line() -> None:
    text = '{"event": "presence"}\nthe control plane listens\n{"event": "upload.st'
    assert read_plane_log(text) == ({"event": "presence"},)
    log = 'level=info message="connected: epoch=7"\nlevel=info message="connected: epoch=1001"\n'
    assert read_epochs(log) == (7, 1001)


def test_litter_is_what_took_parts_and_never_ended() -> None:
    assert litter(STORE) == []
    assert len(litter(STORE[:3])) == 1
