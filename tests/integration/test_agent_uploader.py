"""The device's uploader against a store that misbehaves: what arrives, and what each answer is taken for.

Rule: real sockets and real files; only the idle timeout is shortened.
"""

import errno
import hashlib
import itertools
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from device_agent import VERSION, tls
from device_agent.errors import PutFailed, PutFailure
from device_agent.files import Roots, Source, open_source
from device_agent.hosts import UploadHosts
from device_agent.throttle import Throttle
from device_agent.uploader import Uploader
from schemas.parts import Part
from schemas.values import PresignedPart
from tests.support.put_sink import PutSink, Script, s3_error
from tests.support.self_signed import self_signed

MIB = 1024 * 1024
SIZE = 3 * MIB + 17
CONTENT = os.urandom(SIZE)
IDLE = 1.0


@pytest.fixture
def sink() -> Iterator[PutSink]:
    with PutSink() as running:
        yield running


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Source]:
    path = tmp_path / "file.bin"
    path.write_bytes(CONTENT)
    with open_source(str(path), Roots((str(tmp_path),))) as opened:
        yield opened


@dataclass
class Sender:
    """An uploader for one sink, and what it reported."""

    sink: PutSink
    source: Source
    uploader: Uploader
    moved: list[int] = field(default_factory=list)
    stopped: Callable[[], bool] = lambda: False

    def put(self, piece: Part, url: str | None = None, **headers: str) -> str:
        part = PresignedPart(piece.number, url or self.sink.url(), {k.replace("_", "-"): v for k, v in headers.items()})
        return self.uploader.put(part, self.source, piece, stopped=self.stopped, on_bytes=self.moved.append)

    def failing(self, piece: Part, url: str | None = None, **headers: str) -> PutFailed:
        with pytest.raises(PutFailed) as failed:
            self.put(piece, url, **headers)
        return failed.value


@pytest.fixture
def sender(sink: PutSink, source: Source) -> Iterator[Sender]:
    uploader = Uploader(UploadHosts.parse([sink.host_port]), idle_timeout=IDLE)
    yield Sender(sink, source, uploader)
    uploader.close()


WHOLE = Part(1, 0, SIZE)


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


def test_an_answer_that_closes_is_believed(sender: Sender, sink: PutSink) -> None:
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


AGAIN = PutFailure.TRY_AGAIN


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
        (Script(status=400), PutFailure.REFUSED),
        (Script(status=411), PutFailure.REFUSED),
        (Script(status=408), AGAIN),
        (Script(status=429), AGAIN),
        (Script(status=500, body=s3_error("InternalError")), AGAIN),
        (Script(status=503, body=s3_error("SlowDown")), AGAIN),
        (Script(status=301, headers={"Location": "http://127.0.0.1:1/"}), PutFailure.REFUSED),
        (Script(status=307, headers={"Location": "http://127.0.0.1:1/"}), PutFailure.REFUSED),
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
def test_what_an_answer_is_taken_for(sender: Sender, sink: PutSink, script: Script, kind: PutFailure) -> None:
    sink.expect(script)
    failed = sender.failing(WHOLE)
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
def test_the_answer_of_a_store_that_does_not_wait_for_the_end(
    sender: Sender, sink: PutSink, status: int, read: int
) -> None:
    sink.expect(Script(status=status, read=read, close=True, body=s3_error("AccessDenied")))
    assert f"{status} AccessDenied" in sender.failing(WHOLE).text
    assert sink.received < SIZE


def test_success_before_the_end_is_not_success(sender: Sender, sink: PutSink, source: Source) -> None:
    """The part is larger than what the system's buffers hold, or all of it would seem to have gone."""
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
def test_how_long_a_store_asks_to_be_left_alone(
    sender: Sender, sink: PutSink, text: str, seconds: float | None
) -> None:
    date = format_datetime(datetime(2020, 1, 1, tzinfo=UTC), usegmt=True)
    sink.expect(Script(status=503, headers={"Date": date, "Retry-After": text}))
    assert sender.failing(Part(1, 0, 1)).retry_after == seconds


def test_nothing_is_sent_to_a_host_that_is_not_allowed(sender: Sender, sink: PutSink) -> None:
    with PutSink() as other:
        assert sender.failing(WHOLE, other.url()).kind is PutFailure.HOST_NOT_ALLOWED
        assert other.puts == []
    assert sink.puts == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "x"},
        {"Content-Length": "5"},
        {"Host": "evil"},
        {"content-md5": ""},
        {"content-md5": "a b"},
        {"content-md5": "a\r\nHost: evil"},
        {"content-md5": "ä"},
        {"x-amz-": "1"},
        {"x-amz-a b": "1"},
        {"x-amz-a": "1", "X-Amz-A": "2"},
        {f"x-amz-{number}": "1" for number in range(17)},
    ],
)
def test_a_header_that_is_not_ours_to_send_is_refused(sender: Sender, sink: PutSink, headers: dict[str, str]) -> None:
    part = PresignedPart(1, sink.url(), headers)
    with pytest.raises(PutFailed) as failed:
        sender.uploader.check(part)
    assert failed.value.kind is PutFailure.BAD_HEADER


def test_a_proxy_in_the_environment_is_ignored(sender: Sender, sink: PutSink, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert sender.put(Part(1, 0, 1))


def test_a_file_that_became_shorter_is_told_and_nothing_counts(sender: Sender, source: Source, sink: PutSink) -> None:
    os.truncate(source.path, MIB)
    failed = sender.failing(WHOLE)
    assert failed.kind is PutFailure.SOURCE_CHANGED
    assert sum(sender.moved) == 0
    assert [put for put in sink.puts if len(put.body) == SIZE] == []


def test_a_part_in_flight_can_be_stopped(sender: Sender, sink: PutSink) -> None:
    sink.expect(Script(then="stall", read=0))
    sender.stopped = sink.stalled.is_set
    assert sender.failing(WHOLE).kind is PutFailure.STOPPED
    assert sum(sender.moved) == 0


def test_closing_cuts_what_is_in_flight(sender: Sender, sink: PutSink) -> None:
    sink.expect(Script(then="stall"))

    def close() -> None:
        sink.stalled.wait()
        sender.uploader.close()

    closer = threading.Thread(target=close)
    closer.start()
    assert sender.failing(WHOLE).kind is PutFailure.STOPPED
    closer.join()
    assert sender.failing(WHOLE).kind is PutFailure.STOPPED


def test_a_store_that_is_not_there_is_tried_again(sender: Sender, sink: PutSink) -> None:
    with PutSink() as gone:
        url, entry = gone.url(), gone.host_port
    uploader = Uploader(UploadHosts.parse([entry]), idle_timeout=IDLE)
    with pytest.raises(PutFailed, match="cannot connect") as failed:
        uploader.put(PresignedPart(1, url), sender.source, WHOLE, stopped=sender.stopped, on_bytes=sender.moved.append)
    assert failed.value.kind is AGAIN


def test_a_url_never_stands_in_a_failure(sender: Sender, sink: PutSink) -> None:
    secret = "X-Amz-Signature=0123456789"
    sink.expect(Script(status=403, close=True, body=s3_error("AccessDenied")), Script(then="reset"))
    texts = [sender.failing(WHOLE, sink.url(f"/k?{secret}")).text for _ in range(2)]
    texts.append(sender.failing(WHOLE, f"http://evil.example/k?{secret}").text)
    assert [text for text in texts if secret in text] == []


def test_what_a_store_writes_never_stands_in_a_failure(source: Source) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def echo() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(connection.recv(65536))

        echoing = threading.Thread(target=echo)
        echoing.start()
        uploader = Uploader(UploadHosts.parse([f"127.0.0.1:{port}"]), idle_timeout=IDLE)
        part = PresignedPart(1, f"http://127.0.0.1:{port}/k?X-Amz-Signature=0123456789")
        with pytest.raises(PutFailed) as failed:
            uploader.put(part, source, Part(1, 0, 10), stopped=lambda: False, on_bytes=lambda _count: None)
        echoing.join()
    assert (failed.value.kind, failed.value.text) == (AGAIN, f"127.0.0.1:{port}: BadStatusLine")


def test_four_threads_share_one_file(sender: Sender, sink: PutSink) -> None:
    pieces = [Part(number, number * 700_000, 700_000) for number in range(4)]
    threads = [threading.Thread(target=sender.put, args=(piece,)) for piece in pieces]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = sorted(CONTENT[piece.offset : piece.offset + piece.size] for piece in pieces)
    assert sorted(put.body for put in sink.puts) == expected
    assert len({put.connection for put in sink.puts}) == 4


def test_what_is_sent_is_paid_for_at_the_throttle(sink: PutSink, source: Source) -> None:
    slept: list[float] = []
    now = [0.0]

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    throttle = Throttle(MIB, clock=lambda: now[0], sleep=sleep)
    uploader = Uploader(UploadHosts.parse([sink.host_port]), throttle=throttle, idle_timeout=IDLE)
    uploader.put(PresignedPart(1, sink.url()), source, WHOLE, stopped=lambda: False, on_bytes=lambda _: None)
    assert sum(slept) == pytest.approx(SIZE / MIB, abs=0.2)
    assert max(slept) <= 0.1
    uploader.close()


def test_one_uploads_limit_is_shared_by_its_parts(sink: PutSink, source: Source, tmp_path: Path) -> None:
    uploader = Uploader(UploadHosts.parse([sink.host_port]))
    [first] = uploader._limits(source, 1000)
    [second] = uploader._limits(source, 1000)
    with open_source(source.path, Roots((str(tmp_path),))) as other:
        [third] = uploader._limits(other, 1000)
    assert first is second
    assert first is not third


def test_ipv6_is_spoken(source: Source) -> None:
    try:
        sink = PutSink(host="::1")
    except OSError:
        pytest.skip("this machine has no IPv6")
    with sink:
        uploader = Uploader(UploadHosts.parse([sink.host_port]), idle_timeout=IDLE)
        part = PresignedPart(1, sink.url())
        assert uploader.put(part, source, WHOLE, stopped=lambda: False, on_bytes=lambda _: None)
        assert sink.puts[0].headers["host"] == sink.host_port
        uploader.close()


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ssl.SSLContext]:
    """A server's context, whose certificate is what `SSL_CERT_FILE` names."""
    certificate = self_signed(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    tls.client_context.cache_clear()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    yield context
    tls.client_context.cache_clear()


@pytest.mark.parametrize("script", [Script(), Script(status=403, read=MIB, close=True, body=s3_error("AccessDenied"))])
def test_tls(source: Source, trusted: ssl.SSLContext, script: Script) -> None:
    with PutSink(tls=trusted) as sink:
        uploader = Uploader(UploadHosts.parse([sink.host_port]), idle_timeout=IDLE)
        sender = Sender(sink, source, uploader)
        sink.expect(script)
        if script.status == 403:
            assert sender.failing(WHOLE).kind is PutFailure.EXPIRED_OR_FORBIDDEN
        sender.put(WHOLE)
        sender.put(WHOLE)
        assert sink.puts[-1].body == CONTENT
        assert sink.puts[-1].connection == sink.puts[-2].connection
        uploader.close()


def test_a_certificate_that_nobody_vouches_for_is_not_trusted(
    source: Source, trusted: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/dev/null")
    with PutSink(tls=trusted) as sink:
        uploader = Uploader(UploadHosts.parse([sink.host_port]), idle_timeout=IDLE)
        failed = Sender(sink, source, uploader).failing(WHOLE)
    assert failed.kind is AGAIN
    assert "CERTIFICATE_VERIFY_FAILED" in failed.text
    assert sink.received == 0
