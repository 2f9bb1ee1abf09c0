"""The checker of histories finds every planted violation, and none in a run without one."""

from dataclasses import replace
from typing import Any, Final

import pytest

from schemas.names import RECEIPT_SUFFIX
from tests.support.history import AcceptedTrigger, History, RecordedMessage, check, litter, read_epochs, read_plane_log
from tests.support.strict_s3 import Operation, StoreEvent

KEY: Final = "uploads/c/20261123-060000-a.bin"
PART: Final = Operation.UPLOAD_PART
COMPLETE: Final = Operation.COMPLETE_MULTIPART_UPLOAD
PUT: Final = Operation.PUT_OBJECT
ABORT: Final = Operation.ABORT_MULTIPART_UPLOAD
CHUNK: Final = 5 << 20


def event(number: int, operation: Operation, **more: Any) -> StoreEvent:  # noqa: ANN401
    fields: dict[str, Any] = {"part_number": None, "upload_id": "s3-1", "received": 0, "outcome": "ok", "status": 200}
    fields |= {"bucket": "b", "key": KEY, "done": True, "fault": None}
    return StoreEvent(**{**fields, "number": number, "at": float(number), "operation": operation, **more})


def recorded(at: float, action: str, **payload: Any) -> RecordedMessage:  # noqa: ANN401
    return RecordedMessage(at, {"action": action, "payload": {"upload_id": "u1", **payload}})


STORE: Final = (
    event(1, Operation.CREATE_MULTIPART_UPLOAD, upload_id=None),
    event(2, PART, part_number=1, received=CHUNK),
    event(3, PART, part_number=2, received=7),
    event(6, COMPLETE),
)
UPLOAD: Final = {"state": "completed", "client_id": "c", "s3_key": KEY, "proof": "etag", "error": None}


def presence(verdict: str, epoch: int, sequence: int = 0, install_id: str = "i") -> dict[str, Any]:
    """A line of the control plane's log."""
    facts = {"client_id": "c", "install_id": install_id, "epoch": epoch, "sequence": sequence}
    return {"event": "presence", "verdict": verdict, **facts}


WILL: Final = 2**53 - 1
SEEN: Final = (presence("birth", 1), presence("offline", 1, WILL), presence("birth", 2), presence("stale", 1, WILL))
GOOD: Final = History(
    accepted=(AcceptedTrigger(upload_id="u1", size=CHUNK + 7, versions=frozenset({"good"})),),
    uploads={"u1": UPLOAD},
    objects={"u1": "good"},
    store=STORE,
    plane=({"event": "upload.state"}, *SEEN),
    epochs={"c": (1, 2, 1001)},
    messages=(
        recorded(4.5, "download_file", etags={"1": '"x"', "2": '"y"'}),
        recorded(7.0, "close_upload", outcome="completed"),
    ),
    agent_logs={"c": "level=info"},
    in_flight=2,
    connected={"c": True},
)


def test_a_run_without_a_violation_is_clean() -> None:
    assert check(GOOD) == []


def test_a_receipt_that_is_stored_again_after_a_crash_is_clean() -> None:
    again = tuple(event(number, PUT, key=f"{KEY}{RECEIPT_SUFFIX}") for number in (8, 9))
    assert check(replace(GOOD, store=(*STORE, *again))) == []


def test_a_failed_upload_with_an_error_is_clean() -> None:
    failed = {**UPLOAD, "state": "failed", "error": "source_gone", "proof": None}
    assert check(replace(GOOD, uploads={"u1": failed}, store=(*STORE[:3], event(6, ABORT)), messages=())) == []


PLANTED: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "an answered trigger is forgotten": ("P1", {"uploads": {}}),
    "an upload never ends": ("P6", {"uploads": {"u1": {**UPLOAD, "state": "in_progress"}}}),
    "a failure without a reason": ("P6", {"uploads": {"u1": {**UPLOAD, "state": "failed"}}}),
    "two objects under one key": ("P2", {"store": (*STORE, event(9, COMPLETE, upload_id="s3-2"))}),
    "a receipt without its object": (
        "P2",
        {"store": (*STORE, event(9, PUT, key=f"other{RECEIPT_SUFFIX}"))},
    ),
    "completed without an object": ("P3", {"store": (*STORE[:3], event(6, ABORT)), "messages": ()}),
    "completed without proof": ("P3", {"uploads": {"u1": {**UPLOAD, "proof": "size"}}}),
    "other bytes than the file's": ("P4", {"objects": {"u1": "torn"}}),
    "an object that cannot be read": ("P4", {"objects": {}}),
    "a finished part is sent again": ("P5", {"store": (*STORE[:3], event(4, PART, part_number=1), STORE[3])}),
    "a part after the object": ("P2", {"store": (*STORE, event(9, PART, upload_id="s3-0"), event(10, ABORT))}),
    "an epoch is used twice": ("P8", {"epochs": {"c": (1, 2, 2)}}),
    "an epoch goes back": ("P8", {"epochs": {"c": (1001, 1)}}),
    "a late will is applied": ("P8", {"plane": (*SEEN, presence("offline", 1, WILL))}),
    "a late birth is applied": ("P8", {"plane": (*SEEN, presence("birth", 1))}),
    "a birth is applied twice": ("P8", {"plane": (*SEEN, presence("birth", 2))}),
    "an online client is not connected": ("P8", {"connected": {"c": False}}),
    "an etag before its part": ("P9", {"messages": (recorded(2.5, "download_file", etags={"2": '"y"'}),)}),
    "an etag of no part": ("P9", {"messages": (recorded(9.0, "download_file", etags={"3": '"z"'}),)}),
    "closed before it was made": ("P9", {"messages": (recorded(5.0, "close_upload", outcome="completed"),)}),
    "a fault of the control plane": ("P13", {"plane": ({"event": "message.fault", "error": "oh"},)}),
    "a fault of an agent": ("P13", {"agent_logs": {"c": "error=Traceback (most recent call last)"}}),
    "a multipart upload is left": ("P15", {"store": (*STORE, event(0, PART, upload_id="s3-0", key="other"))}),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_violation_is_found(planted: str) -> None:
    promise, change = PLANTED[planted]
    violations = check(replace(GOOD, **change))
    assert any(violation.startswith(f"{promise}: ") for violation in violations), violations


def test_another_install_counts_from_its_own_beginning() -> None:
    """A device whose card was replaced begins at epoch 1."""
    assert check(replace(GOOD, plane=(*SEEN, presence("birth", 1, install_id="j")))) == []


def sent(*numbers: int, since: int, **more: Any) -> tuple[StoreEvent, ...]:  # noqa: ANN401
    """Parts that the object store stores, one each second."""
    return tuple(event(since + n, PART, part_number=part, **more) for n, part in enumerate(numbers))


KILLED: Final[dict[str, tuple[float, ...]]] = {"c": (20.0,)}


def resumed(store: tuple[StoreEvent, ...], blows: dict[str, tuple[float, ...]] = KILLED) -> list[str]:
    """The P5 violations of a run in which `c` had two parts in flight at a time, and was killed after 20 s."""
    history = replace(GOOD, store=store, messages=(), blows=blows)
    return [violation for violation in check(history) if violation.startswith("P5")]


SIX: Final = sent(1, 2, 3, 4, 5, 6, since=14)


def test_parts_in_flight_at_a_kill_may_be_sent_again() -> None:
    assert resumed((*SIX, *sent(5, 6, since=22))) == []


def test_an_agent_that_sends_answered_parts_again_is_found() -> None:
    """Without its journal it sends everything again; two parts of it were in flight."""
    assert len(resumed((*SIX, *sent(1, 2, 3, 4, 5, 6, since=22)))) == 4


def test_a_kill_of_another_client_is_no_excuse() -> None:
    assert len(resumed((*SIX, *sent(6, since=22)), blows={"d": (20.0,)})) == 1


@pytest.mark.parametrize("struck_at", [3.0, 23.0])
def test_a_kill_long_before_or_after_it_is_no_excuse(struck_at: float) -> None:
    assert len(resumed((*SIX, *sent(6, since=22)), blows={"c": (struck_at,)})) == 1


def test_a_kill_excuses_only_one_set_of_repeats() -> None:
    again = (*SIX, *sent(5, 6, since=22), *sent(5, 6, since=26))
    assert len(resumed(again)) == 2
    assert resumed(again, blows={"c": (20.0, 25.0)}) == []


def test_parts_without_an_answer_may_be_sent_again() -> None:
    failed: list[dict[str, Any]] = [
        {"done": False, "status": 503, "outcome": "SlowDown", "fault": "error"},
        {"done": True, "status": None, "outcome": "reset", "fault": "lost_response"},
        {"done": True, "status": 200, "fault": "no_etag"},
    ]
    for answer in failed:
        assert resumed((*sent(1, since=1, **answer), *sent(1, since=2)), blows={}) == []


def test_another_attempt_is_another_upload() -> None:
    assert resumed((*SIX, *sent(1, 2, 3, 4, 5, 6, since=22, upload_id="s3-2")), blows={}) == []


def test_logs_are_read_with_a_torn_last_line() -> None:
    text = '{"event": "presence"}\nthe control plane listens\n{"event": "upload.st'
    assert read_plane_log(text) == ({"event": "presence"},)
    log = 'level=info message="connected: epoch=7"\nlevel=info message="connected: epoch=1001"\n'
    assert read_epochs(log) == (7, 1001)


def test_litter_is_a_multipart_upload_with_parts_and_no_end() -> None:
    assert litter(STORE) == []
    assert len(litter(STORE[:3])) == 1
