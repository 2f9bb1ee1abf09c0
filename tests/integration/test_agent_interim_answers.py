"""Interim answers (1xx) of an object store or a proxy: the device sends the rest of the body; the final answer counts.

The kind: any byte from the other side is taken for the result (RFC 9110 section 15.2). Rule: real sockets and files.
"""

import ssl
from pathlib import Path
from typing import Final

import pytest

from device_agent.errors import PutFailure
from device_agent.files.roots import Roots
from device_agent.files.source import open_source
from device_agent.storage.uploader import Uploader
from device_agent.storage.url_policy import UploadHosts
from schemas.parts import Part
from schemas.values import PresignedPart
from tests.support.put_sink import PutSink, Script, s3_error
from tests.support.senders import MIB, WHOLE, Sender, sender, sink, source, trusted

__all__ = ["sender", "sink", "source", "trusted"]

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
HINTS: Final = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
PROCESSING: Final = b"HTTP/1.1 102 Processing\r\nX-Note: HTTP/1.1 200 OK\r\n\r\n"
LARGE: Final = 40 * MIB
"""More than the buffers of two sockets hold."""


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    ("early", "late"),
    [
        (CONTINUE, b""),
        (HINTS, b""),
        (CONTINUE + PROCESSING + HINTS, b""),
        (b"", CONTINUE + HINTS),
        (HINTS[:9], HINTS[9:]),
        (HINTS[:-2], HINTS[-2:]),
    ],
    ids=["100", "103", "three", "after the body", "split in its first line", "split before its end"],
)
def test_an_interim_answer_is_no_answer(
    tmp_path: Path, trusted: ssl.SSLContext, scheme: str, early: bytes, late: bytes
) -> None:
    """Two parts arrive whole over one connection, however the interim answers are cut."""
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.truncate(LARGE)
    with (
        PutSink(tls=trusted if scheme == "https" else None, keep_bodies=False) as sink,
        open_source(str(path), Roots((str(tmp_path),))) as source,
    ):
        sink.expect(Script(interim=early, interim_late=late), Script())
        uploader = Uploader(UploadHosts.parse([sink.host_port]))
        for _ in range(2):
            part = PresignedPart(1, sink.url())
            assert uploader.put(part, source, Part(1, 0, LARGE), stopped=lambda: False, on_bytes=lambda _: None)
        uploader.close()
        assert sink.received == 2 * LARGE
        assert len({put.connection for put in sink.puts}) == 1


def test_a_final_answer_after_an_interim_one_ends_the_body(sender: Sender, sink: PutSink) -> None:
    sink.expect(Script(status=403, body=s3_error("AccessDenied"), interim=CONTINUE + HINTS, read=0))
    assert sender.failing(WHOLE).kind is PutFailure.EXPIRED_OR_FORBIDDEN


def test_an_endless_interim_answer_ends_the_put(sender: Sender, sink: PutSink) -> None:
    """It is neither an answer nor a reason to wait for ever."""
    sink.expect(Script(interim=b"HTTP/1.1 103 Early Hints\r\nLink: " + b"x" * 200_000))
    assert sender.failing(WHOLE).kind is PutFailure.TRY_AGAIN


def test_a_switch_of_the_protocol_is_no_success(sender: Sender, sink: PutSink) -> None:
    sink.expect(Script(status=101, etag=False))
    assert sender.failing(WHOLE).kind is PutFailure.TRY_AGAIN
