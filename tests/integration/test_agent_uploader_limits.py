"""When the device's uploader sends nothing, stops, or slows down; and the certificates it trusts.

Rule: real sockets and real files; only the idle timeout is shortened.
"""

import os
import socket
import ssl
import threading
from pathlib import Path
from typing import Literal

import pytest

from device_agent.errors import PutFailed, PutFailure
from device_agent.files.roots import Roots
from device_agent.files.source import Source, open_source
from device_agent.storage.throttle import Throttle
from device_agent.storage.uploader import Uploader
from device_agent.storage.url_policy import UploadHosts
from schemas.parts import Part
from schemas.values import PresignedPart
from tests.support.put_sink import PutSink, Script, s3_error
from tests.support.senders import AGAIN, CONTENT, IDLE, MIB, SIZE, WHOLE, Sender, sender, sink, source, trusted

__all__ = ["sender", "sink", "source", "trusted"]


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
        {"x-amz-\N{KELVIN SIGN}": "1"},
        {"X-AMZ-META-TO\N{KELVIN SIGN}EN": "1"},
        {"x-amz-\N{LATIN SMALL LETTER LONG S}": "1"},
        {"\N{FULLWIDTH LATIN SMALL LETTER X}-amz-a": "1"},
        {"x-amz-a\n": "1"},
        {"x-amz-\N{ARABIC-INDIC DIGIT ONE}": "1"},
        {f"x-amz-{number}": "1" for number in range(17)},
    ],
)
def test_a_foreign_header_is_refused(sender: Sender, sink: PutSink, headers: dict[str, str]) -> None:
    part = PresignedPart(1, sink.url(), headers)
    with pytest.raises(PutFailed) as failed:
        sender.uploader.check(part)
    assert failed.value.kind is PutFailure.BAD_HEADER


def test_a_proxy_in_the_environment_is_ignored(sender: Sender, sink: PutSink, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert sender.put(Part(1, 0, 1))


def test_a_file_that_became_shorter_fails_and_no_byte_counts(sender: Sender, source: Source, sink: PutSink) -> None:
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


def test_a_slow_answer_times_out(sender: Sender, sink: PutSink) -> None:
    sink.expect(Script(then="drip"))
    failed = sender.giving_up(WHOLE)
    assert (failed.kind, failed.text) == (AGAIN, "the object store did not end its answer within 2 s")
    assert sum(sender.moved) == 0
    assert sender.put(WHOLE)


@pytest.mark.parametrize("then", ["stall", "drip"])
@pytest.mark.parametrize("secure", [False, True])
def test_a_stopped_upload_ends_its_put(
    source: Source, trusted: ssl.SSLContext, *, secure: bool, then: Literal["stall", "drip"]
) -> None:
    """After the body a TLS server may have sent bytes that are no answer: session tickets."""
    with PutSink(tls=trusted if secure else None) as sink:
        sender = Sender(sink, source, Uploader(UploadHosts.parse([sink.host_port])))
        sink.expect(Script(then=then))
        sender.stopped = sink.stalled.is_set
        # When the sink gives up first, that is another failure.
        assert sender.failing(WHOLE).kind is PutFailure.STOPPED
        sender.uploader.close()


def test_an_unreachable_host_is_tried_again(sender: Sender, sink: PutSink) -> None:
    with PutSink() as gone:
        url, entry = gone.url(), gone.host_port
    uploader = Uploader(UploadHosts.parse([entry]), idle_timeout=IDLE)
    with pytest.raises(PutFailed, match="cannot connect") as failed:
        uploader.put(PresignedPart(1, url), sender.source, WHOLE, stopped=sender.stopped, on_bytes=sender.moved.append)
    assert failed.value.kind is AGAIN


def test_a_failure_never_contains_a_url(sender: Sender, sink: PutSink) -> None:
    secret = "X-Amz-Signature=0123456789"
    sink.expect(Script(status=403, close=True, body=s3_error("AccessDenied")), Script(then="reset"))
    texts = [sender.failing(WHOLE, sink.url(f"/k?{secret}")).text for _ in range(2)]
    texts.append(sender.failing(WHOLE, f"http://evil.example/k?{secret}").text)
    assert [text for text in texts if secret in text] == []


def test_a_failure_never_contains_text_of_the_server(source: Source) -> None:
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


def test_every_sent_byte_passes_the_throttle(sink: PutSink, source: Source) -> None:
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


def test_the_rate_of_a_part_in_flight_can_be_changed(sink: PutSink, source: Source) -> None:
    """At the first rate the part would take an hour."""
    rates, sent = [1_000], list[int]()

    def count(size: int) -> None:
        sent.append(size)
        rates[0] = 2**40

    uploader = Uploader(UploadHosts.parse([sink.host_port]), idle_timeout=IDLE)
    part = PresignedPart(1, sink.url())
    uploader.put(part, source, WHOLE, stopped=lambda: False, on_bytes=count, rate=lambda: rates[0])
    assert (sent[0] <= 1_024, sum(sent)) == (True, SIZE)
    assert [put.body for put in sink.puts] == [CONTENT]
    uploader.close()


def test_ipv6_addresses_work(source: Source) -> None:
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


def test_an_unknown_certificate_is_not_trusted(
    source: Source, trusted: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/dev/null")
    with PutSink(tls=trusted) as sink:
        uploader = Uploader(UploadHosts.parse([sink.host_port]), idle_timeout=IDLE)
        failed = Sender(sink, source, uploader).failing(WHOLE)
    assert failed.kind is AGAIN
    assert "certificate of the server is not accepted: self-signed certificate" in failed.text
    assert sink.received == 0
