"""The device's uploader with a misbehaving object store: the bytes that arrive, and the meaning of each answer.

Rule: real sockets and real files; only the idle timeout is shortened.
"""

import errno
import hashlib
import itertools
import os
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from device_agent import VERSION
from device_agent.errors import PutFailure
from device_agent.files.source import Source
from schemas.parts import Part
from tests.support.put_sink import PutSink, Script, s3_error
from tests.support.senders import AGAIN, CONTENT, MIB, SIZE, WHOLE, Sender, sender, sink, source

__all__ = ["sender", "sink", "source"]

PAGE = b"<!DOCTYPE html><html><body>Please log in</body></html>"


def test_a_part_arrives_byte_for_byte(sender: Sender, sink: PutSink) -> None:
    piece = Part(2, MIB + 5, MIB + 3)
    etag = sender.put(piece, content_md5="abc==", **{"x-amz-meta-token": "t"})
    [put] = sink.puts
    assert put.body == CONTENT[piece.offset : piece.offset + piece.size]
    assert etag == f'"{hashlib.md5(put.body, usedforsecurity=False).hexdigest()}"'
    assert sum(sender.moved) == piece.size


def test_over_plain_http_the_kernel_moves_the_bytes(
    sender: Sender, sink: PutSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Source, "read_into", lambda *_: pytest.fail("the bytes passed through the agent"))
    sender.put(WHOLE)
    assert sink.puts[-1].body == CONTENT


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS, errno.EIO])
def test_where_the_kernel_cannot_move_them_they_are_copied(
    sender: Sender, sink: PutSink, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    calls = itertools.count()
    move = os.sendfile

    def fail_in_the_middle(*about: int) -> int:
        if next(calls):
            raise OSError(code, os.strerror(code))
        return move(*about)

    monkeypatch.setattr(os, "sendfile", fail_in_the_middle)
    sender.put(WHOLE)
    assert sink.puts[-1].body == CONTENT
    assert sum(sender.moved) == SIZE


def test_a_disk_that_fails_is_no_change_of_the_file(
    sender: Sender, sink: PutSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        for name in ("sendfile", "preadv"):
            patch.setattr(os, name, fail)
        failed = sender.failing(WHOLE)
    assert (failed.kind, "Input/output error" in failed.text) == (PutFailure.SOURCE_UNREADABLE, True)
    assert sum(sender.moved) == 0
    assert sender.put(WHOLE)


def test_the_request_carries_what_was_granted_and_nothing_else(sender: Sender, sink: PutSink) -> None:
    sender.put(Part(1, 0, 10), sink.url("/b/k%20y?X-Amz-Signature=1&partNumber=1"), content_md5="abc==")
    [put] = sink.puts
    assert (put.method, put.target) == ("PUT", "/b/k%20y?X-Amz-Signature=1&partNumber=1")
    assert put.headers == {
        "user-agent": f"backhaul-agent/{VERSION}",
        "host": sink.host_port,
        "content-length": "10",
        "content-type": "application/octet-stream",
        "content-md5": "abc==",
    }


def test_a_part_of_no_bytes_is_sent(sender: Sender, sink: PutSink) -> None:
    assert sender.put(Part(1, 0, 0)) == '"d41d8cd98f00b204e9800998ecf8427e"'
    assert sink.puts[0].headers["content-length"] == "0"


def test_one_connection_carries_many_parts(sender: Sender, sink: PutSink) -> None:
    for number in range(1, 6):
        sender.put(Part(number, 0, 1000))
    assert {put.connection for put in sink.puts} == {1}


def test_a_kept_connection_that_was_closed_is_replaced(sender: Sender, sink: PutSink) -> None:
    sender.put(Part(1, 0, 1000))
    sink.expect(Script(then="close", read=0))
    assert sender.put(Part(2, 0, 1000))
    assert [put.connection for put in sink.puts] == [1, 1, 2]
    assert sum(sender.moved) == 2000


def test_an_answer_that_closes_the_connection_counts(sender: Sender, sink: PutSink) -> None:
    sink.expect(Script(close=True))
    sender.put(Part(1, 0, 1000))
    sender.put(Part(2, 0, 1000))
    assert [put.connection for put in sink.puts] == [1, 2]


def test_412_is_an_answer_without_an_etag(sender: Sender, sink: PutSink) -> None:
    sink.expect(Script(status=412, body=s3_error("PreconditionFailed")))
    assert sender.put(WHOLE, if_none_match="*") == ""


@pytest.mark.parametrize("etag", ['"x"', "unquoted", 'W/"weak"', '"d41d8cd9-2"'])
def test_an_etag_is_passed_on_as_it_is(sender: Sender, sink: PutSink, etag: str) -> None:
    sink.expect(Script(etag=False, headers={"ETag": etag}))
    assert sender.put(WHOLE) == etag


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (Script(status=403, body=s3_error("AccessDenied")), PutFailure.EXPIRED_OR_FORBIDDEN),
        (Script(status=404, body=s3_error("NoSuchUpload")), PutFailure.GONE),
        (Script(status=400, body=s3_error("BadDigest")), PutFailure.BAD_DIGEST),
        (Script(status=400, body=s3_error("InvalidDigest")), PutFailure.BAD_DIGEST),
        (Script(status=400, body=s3_error("XAmzContentSHA256Mismatch")), PutFailure.BAD_DIGEST),
        (Script(status=400, body=s3_error("RequestTimeout")), AGAIN),
        (Script(status=400, body=s3_error("InvalidArgument")), PutFailure.REFUSED),
        (Script(status=411, body=s3_error("MissingContentLength")), PutFailure.REFUSED),
        (Script(status=301, body=s3_error("PermanentRedirect")), PutFailure.REFUSED),
        (Script(status=307, body=s3_error("TemporaryRedirect")), AGAIN),
        (Script(status=404, body=s3_error("NoSuchKey")), PutFailure.GONE),
        (Script(status=404, body=s3_error("NoSuchBucket")), PutFailure.REFUSED),
        (Script(status=404, body=s3_error("NotFound")), AGAIN),
        (Script(status=404, body=PAGE), AGAIN),
        (Script(status=404), AGAIN),
        (Script(status=400), AGAIN),
        (Script(status=401, body=PAGE), AGAIN),
        (Script(status=403, body=PAGE), AGAIN),
        (Script(status=405, body=b"<html><Code>NoSuchUpload</Code></html>"), AGAIN),
        (Script(status=407, body=s3_error("AccessDenied")), AGAIN),
        (Script(status=411), AGAIN),
        (Script(status=511, body=PAGE), AGAIN),
        (Script(status=408), AGAIN),
        (Script(status=429), AGAIN),
        (Script(status=500, body=s3_error("InternalError")), AGAIN),
        (Script(status=503, body=s3_error("SlowDown")), AGAIN),
        (Script(status=301, headers={"Location": "http://127.0.0.1:1/"}), AGAIN),
        (Script(status=307, headers={"Location": "http://127.0.0.1:1/"}), AGAIN),
        (Script(etag=False), AGAIN),
        (Script(etag=False, headers={"ETag": ""}), AGAIN),
        (Script(then="reset", read=MIB), AGAIN),
        (Script(then="close", read=MIB), AGAIN),
        (Script(then="close"), AGAIN),
        (Script(then="stall", read=0), AGAIN),
        (Script(then="stall"), AGAIN),
        (Script(cut=5), AGAIN),
        (Script(cut=25), AGAIN),
        (Script(cut=35), AGAIN),
        (Script(cut=60), AGAIN),
        (Script(status=500, body=b"x" * 300_000), AGAIN),
    ],
    ids=lambda value: f"{value.status}-{value.then}-{value.cut}" if isinstance(value, Script) else value,
)
def test_the_meaning_of_each_answer(sender: Sender, sink: PutSink, script: Script, kind: PutFailure) -> None:
    sink.expect(script)
    failed = sender.giving_up(WHOLE) if script.then == "stall" else sender.failing(WHOLE)
    assert failed.kind is kind, failed.text
    assert sum(sender.moved) == 0
    assert sender.put(WHOLE)
    assert sink.puts[-1].body == CONTENT


def test_an_answer_cut_at_any_byte_stores_nothing(sender: Sender, sink: PutSink) -> None:
    whole = len(b'HTTP/1.1 200 Scripted\r\nETag: "d41d8cd98f00b204e9800998ecf8427e"\r\nContent-Length: 0\r\n\r\n')
    for cut in range(whole):
        sink.expect(Script(cut=cut))
        assert sender.failing(Part(1, 0, 0)).kind is AGAIN, cut


@pytest.mark.parametrize("status", [403, 503])
@pytest.mark.parametrize("read", [0, MIB])
def test_an_answer_before_the_end_of_the_body(sender: Sender, sink: PutSink, status: int, read: int) -> None:
    sink.expect(Script(status=status, read=read, close=True, body=s3_error("AccessDenied")))
    assert f"{status} AccessDenied" in sender.failing(WHOLE).text
    assert sink.received < SIZE


def test_success_before_the_end_is_not_success(sender: Sender, sink: PutSink, source: Source) -> None:
    """The part is larger than the system's buffers, or all of it would count as sent."""
    os.truncate(source.path, 64 * MIB)
    sink.expect(Script(read=MIB))
    failed = sender.failing(Part(1, 0, 64 * MIB))
    assert failed.kind is AGAIN
    assert "before it had the whole part" in failed.text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7.0),
        ("100000", 300.0),
        ("9" * 5000, 300.0),
        (format_datetime(datetime(2020, 1, 1, 0, 0, 30, tzinfo=UTC), usegmt=True), 30.0),
        (format_datetime(datetime(2020, 1, 1, tzinfo=UTC) - timedelta(days=1), usegmt=True), 0.0),
        (format_datetime(datetime(2021, 1, 1, tzinfo=UTC), usegmt=True), 300.0),
        ("soon", None),
        ("-1", None),
    ],
)
def test_the_pause_that_an_answer_requests(sender: Sender, sink: PutSink, text: str, seconds: float | None) -> None:
    date = format_datetime(datetime(2020, 1, 1, tzinfo=UTC), usegmt=True)
    sink.expect(Script(status=503, headers={"Date": date, "Retry-After": text}))
    assert sender.failing(Part(1, 0, 1)).retry_after == seconds
