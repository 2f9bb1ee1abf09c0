"""Hostile and broken input: decoding raises `SchemaError` and no other exception.

Rule: a command that can be answered is answered: one with a readable `message_id` raises `BadCommand` with its code.
"""

import json
import time
from datetime import UTC, datetime
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import (
    MAX_DEPTH,
    MAX_MESSAGE_SIZE,
    MAX_METADATA_DEPTH,
    MAX_METADATA_SIZE,
    Message,
    decode_command,
    decode_response,
    encode,
    require_metadata,
)
from schemas.errors import BadCommand, SchemaError
from schemas.messages import (
    Birth,
    Command,
    DownloadFile,
    FileEntry,
    FileList,
    HealthCheck,
    Nothing,
    Response,
    Status,
    UploadReport,
)
from schemas.values import ErrorCode
from tests.unit.schemas.reading import READERS
from tests.unit.schemas.strategies import json_values, messages

ENOUGH: Final = 1.0
"""Seconds; the attacks below took five seconds to minutes before the decoder had its limits."""


def command(action: object = "download_file", payload: object = None, **fields: object) -> bytes:
    return json.dumps({"message_id": "m-1", "action": action, "payload": payload or {}} | fields).encode()


def refused(data: bytes) -> BadCommand:
    with pytest.raises(BadCommand) as caught:
        decode_command(data)
    return caught.value


def nested(levels: int) -> bytes:
    """A command of exactly this depth."""
    return b'{"message_id":"m-1","action":"health_check","x":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


@pytest.mark.parametrize("kind", READERS)
@given(data=st.binary(max_size=200))
def test_random_bytes_raise_no_other_exception(kind: str, data: bytes) -> None:
    try:
        READERS[kind](data)
    except SchemaError:
        return
    assert data.strip()[:1] == b"{"


@pytest.mark.parametrize("kind", READERS)
@given(value=json_values)
def test_random_json_raises_no_other_exception(kind: str, value: object) -> None:
    try:
        READERS[kind](json.dumps(value).encode())
    except SchemaError:
        return
    assert isinstance(value, dict)


@pytest.mark.parametrize("kind", READERS)
@given(message=messages, place=st.integers(0), byte=st.binary(min_size=1, max_size=2), cut=st.booleans())
def test_a_damaged_message_raises_no_other_exception(
    kind: str,
    message: Message,
    place: int,
    byte: bytes,
    cut: bool,  # noqa: FBT001  (drawn by Hypothesis)
) -> None:
    data = encode(message)
    at = place % len(data)
    try:
        READERS[kind](data[:at] if cut else data[:at] + byte + data[at + len(byte) :])
    except SchemaError:
        return
    assert len(data) > at


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"{",
        b"\xff\xfe",
        b'{"message_id":"m"',
        b"\xef\xbb\xbf{}",
        b'{"message_id":NaN}',
        b'{"message_id":"m","epoch":Infinity}',
        b"{'message_id':'m'}",
        b"[" * 10_000,
        b'{"a":' * 10_000,
        b"x" * 10_000_000,
        b'{"message_id":"' + b"x" * 10_000_000 + b'"}',
    ],
    ids=lambda data: f"{data[:20]!r}x{len(data)}",
)
def test_bytes_that_are_no_message_raise_a_schema_error(kind: str, data: bytes) -> None:
    with pytest.raises(SchemaError) as caught:
        READERS[kind](data)
    assert not isinstance(caught.value, BadCommand)


@pytest.mark.parametrize(
    "attack",
    [
        b"{" * 17 + b'"' + b'\\"' * 60_000,
        b"{" * 17 + b'"' * 120_000,
        b'"' + b"\\" * 60_000 + b"[" * 60_000,
        b"[" * (MAX_MESSAGE_SIZE // 2) + b"]" * (MAX_MESSAGE_SIZE // 2),
    ],
    ids=["quotes in a string that never ends", "quotes", "backslashes", "brackets"],
)
def test_no_message_takes_long_to_refuse(attack: bytes) -> None:
    begun = time.process_time()
    with pytest.raises(SchemaError):
        decode_command(attack)
    assert time.process_time() - begun < ENOUGH


def test_the_deepest_allowed_nesting_is_read_and_one_more_is_not() -> None:
    assert decode_command(nested(MAX_DEPTH)).action == "health_check"
    with pytest.raises(SchemaError, match="deeper than 16"):
        decode_command(nested(MAX_DEPTH + 1))


def test_brackets_inside_strings_do_not_count_as_nesting() -> None:
    path = '/data/[[[[[[[[[[[[[[[[[[{{{{{"\\'
    read = decode_command(command(payload={"file_path": path})).payload
    assert isinstance(read, DownloadFile)
    assert read.file_path == path


def test_many_brackets_side_by_side_do_not_count_as_nesting() -> None:
    decoded = decode_command(command(payload={"metadata": {"list": [[]] * 30}}))
    assert decoded.message_id == "m-1"


def test_the_largest_message_is_read_and_one_byte_more_is_not() -> None:
    data = command("health_check")
    assert decode_command(data.ljust(MAX_MESSAGE_SIZE)).payload == HealthCheck()
    with pytest.raises(SchemaError, match=r"at most 131072"):
        decode_command(data.ljust(MAX_MESSAGE_SIZE + 1))


def test_the_last_of_repeated_keys_counts() -> None:
    assert decode_command(b'{"message_id":"a","action":"health_check","message_id":"b"}').message_id == "b"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (command("format_disk"), ErrorCode.UNSUPPORTED),
        (command("hello"), ErrorCode.UNSUPPORTED),
        (command(payload={"upload_config": {"digest": "blake3"}}), ErrorCode.UNSUPPORTED),
        (command(payload={"options": {"compression": "zstd"}}), ErrorCode.UNSUPPORTED),
        (command(payload={"options": {"priority": 10**30}}), ErrorCode.BAD_REQUEST),
        (command(payload={"upload_config": {"chunk_size": 5 * 2**20 - 1}}), ErrorCode.BAD_REQUEST),
        (command(payload={"file_path": 5}), ErrorCode.BAD_REQUEST),
        (command(payload={"metadata": []} | {"x": 1}), ErrorCode.BAD_REQUEST),
        (command(payload={"metadata": {"x": "y" * MAX_METADATA_SIZE}}), ErrorCode.BAD_REQUEST),
        (command(payload=[])[:-3] + b"[]}", ErrorCode.BAD_REQUEST),
        (command("list_files"), ErrorCode.BAD_REQUEST),
        (command(epoch=-1), ErrorCode.BAD_REQUEST),
        (command(epoch=2**53), ErrorCode.BAD_REQUEST),
        (command(issued_at="yesterday"), ErrorCode.BAD_REQUEST),
        (command(issued_at="2025-11-01T10:00:00"), ErrorCode.BAD_REQUEST),
        (b'{"message_id":"m-1","action":"download_file","payload":{"file_path":"\xff"}}', ErrorCode.BAD_REQUEST),
        (b'{"message_id":"m-1","action":"download_file","payload":{"metadata":{"n":1e999}}}', ErrorCode.BAD_REQUEST),
        (
            b'{"message_id":"m-1","action":"download_file","payload":{"metadata":{"n":1' + b"0" * 5000 + b"}}}",
            ErrorCode.BAD_REQUEST,
        ),
    ],
)
def test_a_bad_command_with_a_readable_id_can_be_answered(data: bytes, code: ErrorCode) -> None:
    error = refused(data)
    assert (error.message_id, error.code) == ("m-1", code)
    assert str(error)


@pytest.mark.parametrize(("data", "action"), [(command(7), ""), (b'{"message_id":"m-1"}', ""), (command("x"), "x")])
def test_the_answer_names_the_action_where_there_is_one(data: bytes, action: str) -> None:
    assert refused(data).action == action


@pytest.mark.parametrize("message_id", ["", "a b", "a/b", "a" * 65, "m\n", "ü", None, 7])
def test_a_command_whose_id_cannot_be_read_cannot_be_answered(message_id: object) -> None:
    with pytest.raises(SchemaError) as caught:
        decode_command(command(message_id=message_id))
    assert not isinstance(caught.value, BadCommand)


def test_a_lone_surrogate_is_refused() -> None:
    with pytest.raises(SchemaError):
        decode_command(rb'{"message_id":"m-1","action":"download_file","payload":{"file_path":"\ud800"}}')


def test_metadata_is_bounded_in_bytes_both_ways() -> None:
    fits = {"x": "y" * (MAX_METADATA_SIZE - len('{"x":""}'))}
    large = fits | {"z": 1}
    require_metadata(fits)
    assert decode_command(encode(Command("m", "download_file", DownloadFile(metadata=fits)))).message_id == "m"
    for refuse in (
        lambda: require_metadata(large),
        lambda: encode(Command("m", "download_file", DownloadFile(metadata=large))),
        lambda: encode(Response("m", "download_file", "in_progress", UploadReport(metadata=large))),
        lambda: decode_response(
            json.dumps(
                {"message_id": "m", "action": "download_file", "status": "s", "payload": {"metadata": large}}
            ).encode()
        ),
    ):
        with pytest.raises(SchemaError, match="at most 4096"):
            refuse()


def test_accepted_metadata_fits_into_a_message() -> None:
    deep: dict[str, Any] = {}
    for _ in range(MAX_METADATA_DEPTH - 1):
        deep = {"x": deep}
    require_metadata(deep)
    data = encode(Command("m", "download_file", DownloadFile(metadata=deep)))
    assert decode_command(data).message_id == "m"
    with pytest.raises(SchemaError, match="deeper than 14"):
        require_metadata({"x": deep})
    with pytest.raises(SchemaError, match="deeper than 16"):
        encode(Command("m", "download_file", DownloadFile(metadata={"x": deep})))


@pytest.mark.parametrize("value", ["\ud800", object(), 10**5000, {(1, 2): 3}], ids=["half", "object", "huge", "key"])
def test_a_value_that_json_cannot_represent_is_a_schema_error(value: object) -> None:
    with pytest.raises(SchemaError, match="JSON cannot represent"):
        encode(Command("m", "download_file", DownloadFile(metadata={"x": value})))
    with pytest.raises(SchemaError, match="JSON cannot represent"):
        require_metadata({"x": value})


def test_a_map_that_contains_itself_is_a_schema_error() -> None:
    endless: dict[str, Any] = {}
    endless["x"] = endless
    with pytest.raises(SchemaError):
        require_metadata(endless)


def test_a_file_name_that_is_not_text_cannot_be_sent() -> None:
    """Linux names are bytes; Python represents those that are not UTF-8 with lone surrogates."""
    name = b"/data/\xff.bin".decode(errors="surrogateescape")
    with pytest.raises(SchemaError):
        encode(Response("m", "list_files", "success", FileList((FileEntry(name, 1, 1),))))


def test_a_message_that_no_reader_accepts_is_not_sent() -> None:
    with pytest.raises(SchemaError, match="at most 131072"):
        encode(Status("idle", client_id="x" * MAX_MESSAGE_SIZE))


def test_an_instant_needs_a_time_zone() -> None:
    ten = READERS["birth"](b'{"instance":"i","issued_at":"2025-11-01T12:00:00+02:00"}')
    assert isinstance(ten, Birth)
    assert ten.issued_at == datetime(2025, 11, 1, 10, tzinfo=UTC)
    for kind, data in (
        ("birth", b'{"instance":"i","issued_at":"2025-11-01T12:00:00"}'),
        (
            "presence",
            b'{"client_id":"c","status":"s","install_id":"i","epoch":1,"sequence":1,"since":"2025-11-01T12:00:00"}',
        ),
    ):
        with pytest.raises(SchemaError, match=r"timezone|since"):
            READERS[kind](data)


def test_the_payload_of_an_unknown_action_is_not_decoded() -> None:
    response = decode_response(b'{"message_id":"m","action":"later","status":"success","payload":[1]}')
    assert response.payload == Nothing()
