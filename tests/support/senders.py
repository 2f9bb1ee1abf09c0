"""An uploader of the device, the store it sends to, and the file it sends, as fixtures.

Rule: real sockets and real files; only the idle timeout is shortened.
"""

import os
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from device_agent import tls
from device_agent.errors import PutFailed, PutFailure
from device_agent.files.roots import Roots
from device_agent.files.source import Source, open_source
from device_agent.storage.uploader import Uploader
from device_agent.storage.url_policy import UploadHosts
from schemas.parts import Part
from schemas.values import PresignedPart
from tests.support.put_sink import PutSink
from tests.support.self_signed import self_signed

MIB = 1024 * 1024
SIZE = 3 * MIB + 17
CONTENT = os.urandom(SIZE)
IDLE = 1.0
PATIENT = 30.0
"""Seconds: the idle timeout where an answer comes, which a busy machine may delay."""


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

    def giving_up(self, piece: Part) -> PutFailed:
        """As `failing`, where nothing moves any more: with a short idle timeout."""
        self.uploader._idle_timeout = IDLE
        try:
            return self.failing(piece)
        finally:
            self.uploader._idle_timeout = PATIENT


@pytest.fixture
def sender(sink: PutSink, source: Source) -> Iterator[Sender]:
    uploader = Uploader(UploadHosts.parse([sink.host_port]), idle_timeout=PATIENT)
    yield Sender(sink, source, uploader)
    uploader.close()


WHOLE = Part(1, 0, SIZE)
AGAIN = PutFailure.TRY_AGAIN


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ssl.SSLContext]:
    """The context of a server with the certificate in `SSL_CERT_FILE`."""
    certificate = self_signed(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    tls.context_of.cache_clear()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    yield context
    tls.context_of.cache_clear()
