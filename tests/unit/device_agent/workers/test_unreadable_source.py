"""A failing disk, or an unreachable file server: the file is not changed, so the attempt may be resumed."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from device_agent.errors import FileRefused, PutFailed, PutFailure
from device_agent.files.copies import Copies
from device_agent.files.roots import Roots
from device_agent.files.source import Source, open_source
from device_agent.storage.uploader import Uploader
from device_agent.transfer.events import (
    Admitted,
    DigestParts,
    Faulted,
    Opened,
    OpenRefused,
    PartFailed,
    PutPart,
    Repeated,
)
from device_agent.transfer.model import State
from device_agent.workers.part_io import IoEvent, PartIO, SourceSession
from schemas.parts import Part
from schemas.values import DigestName, ErrorCode, PresignedPart
from tests.unit.device_agent.device import Device, fingerprint, report

PART = Part(1, 0, 10)
FAILURES = [errno.EIO, errno.ESTALE]


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Source]:
    path = tmp_path / "a.bin"
    path.write_bytes(b"0123456789")
    with open_source(str(path), Roots((str(tmp_path),))) as opened:
        yield opened


@pytest.fixture(params=FAILURES, ids=[errno.errorcode[code] for code in FAILURES])
def broken(request: pytest.FixtureRequest, source: Source, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every read of this file or of its state fails; the message of the system."""
    for name in ("preadv", "fstat", "lstat"):
        call = getattr(os, name)

        def refuse(about: object, *more: Any, call: Any = call, **named: Any) -> object:  # noqa: ANN401
            if about in {source._descriptor, source.path}:
                raise OSError(request.param, os.strerror(request.param))
            return call(about, *more, **named)

        monkeypatch.setattr(os, name, refuse)
    return os.strerror(request.param)


class Sends:
    """An uploader that stores everything, or reads as the real one does."""

    def __init__(self, *, reads: bool) -> None:
        self.reads = reads

    def put(self, _url: object, source: Source, piece: Part, **_: object) -> str:
        if self.reads:
            try:
                source.digest(piece.offset, piece.size, DigestName.MD5)
            except FileRefused as refused:
                raise PutFailed(PutFailure.SOURCE_UNREADABLE, refused.text) from refused
        return '"e"'


def part_io(uploader: Sends) -> PartIO:
    return PartIO(cast("Uploader", uploader), cast("Copies", None), clock=lambda: 1.0)


def test_an_unreadable_file_is_not_a_changed_file(source: Source, broken: str) -> None:
    uses: list[Any] = [
        lambda: source.read_into(memoryview(bytearray(5)), 0),
        lambda: source.digest(0, 5, DigestName.MD5),
        source.now,
        source.linked,
    ]
    for use in uses:
        with pytest.raises(FileRefused, match=f"a.bin' cannot be read: {broken}") as refused:
            use()
        assert refused.value.code is ErrorCode.SOURCE_UNREADABLE


@pytest.mark.parametrize("recheck", [False, True])
def test_a_failed_digest_has_the_reason(source: Source, broken: str, *, recheck: bool) -> None:
    posted: list[IoEvent] = []
    task = DigestParts((PART,), DigestName.MD5, recheck=recheck)
    part_io(Sends(reads=True)).digest(task, SourceSession(source=source), posted.append)
    [event] = posted
    assert isinstance(event, Faulted)
    assert (event.code, event.text) == (ErrorCode.SOURCE_UNREADABLE, f"'{source.path}' cannot be read: {broken}")


def test_a_file_that_is_too_short_for_its_digest_changed(source: Source) -> None:
    posted: list[IoEvent] = []
    os.truncate(source.path, 5)
    part_io(Sends(reads=True)).digest(DigestParts((PART,), DigestName.MD5), SourceSession(source=source), posted.append)
    [event] = posted
    assert isinstance(event, Faulted)
    assert (event.code, event.text) == (ErrorCode.SOURCE_CHANGED, f"'{source.path}' became shorter while it was read")


@pytest.mark.parametrize("reads", [True, False], ids=["while-it-is-sent", "once-it-is-sent"])
def test_a_part_of_an_unreadable_file_fails_and_frees_its_sender(source: Source, broken: str, *, reads: bool) -> None:
    posted: list[IoEvent] = []
    task = PutPart(PresignedPart(1, "https://store/1"), PART)
    part_io(Sends(reads=reads)).put(task, SourceSession(source=source), posted.append, lambda _sent: None)
    [event] = posted
    assert isinstance(event, PartFailed)
    assert (event.kind, broken in event.text) == (PutFailure.SOURCE_UNREADABLE, True)


def test_the_upload_ends_as_internal_and_resumes_with_the_stored_parts() -> None:
    device = Device()
    device.start()
    device.grant([1, 2])
    device.begin_parts()
    device.store(1)
    device.fail(2, PutFailure.SOURCE_UNREADABLE)
    assert (device.last.status, device.last.error, device.last.message) == ("error", "internal", "source_unreadable")
    device.on(Repeated(now=device.now, acknowledges=device.transfer.sequence))
    assert device.is_in(State.QUEUED)
    device.start()
    device.send_all()
    assert (device.last.status, report(device.last).attempt, device.puts) == ("success", 1, [1, 2, 2])


def read_in_vain(device: Device, way: str) -> None:
    """Resume the upload; its file cannot be read, at the open, at a digest, or while a part is sent."""
    if device.transfer.ending is not None:
        device.on(Repeated(now=device.now, acknowledges=device.transfer.sequence))
    device.on(Admitted(now=device.now))
    device.work.clear()
    text = "'/d/a' cannot be read: Input/output error"
    if way == "open":
        device.on(OpenRefused(now=device.now, code=ErrorCode.SOURCE_UNREADABLE, text=text))
        return
    device.on(Opened(now=device.now, fingerprint=fingerprint(device.size)))
    if way == "digest":
        device.on(Faulted(now=device.now, code=ErrorCode.SOURCE_UNREADABLE, text=text))
        return
    device.perform()
    if device.transfer.awaiting_grant:
        device.grant(device.wanted)
    device.begin_parts()
    device.fail(1, PutFailure.SOURCE_UNREADABLE)


@pytest.mark.parametrize("way", ["open", "digest", "send"])
def test_a_file_that_stays_unreadable_ends_with_the_words_of_the_system(way: str) -> None:
    """The kind: what cannot get better was tried until the deadline of the upload, for days."""
    device, seen = Device(), list[str]()
    while not seen or seen[-1] == ErrorCode.INTERNAL:
        read_in_vain(device, way)
        seen.append(device.last.error or "")
        device.now += 300
    assert seen == [ErrorCode.INTERNAL] * 12 + [ErrorCode.SOURCE_UNREADABLE]
    assert device.last.message == (
        "source_unreadable" if way == "send" else "'/d/a' cannot be read: Input/output error"
    )


@pytest.mark.parametrize(("failures", "pause"), [(30, 60.0), (3, 5000.0)])
def test_a_file_server_may_be_away_for_a_while(failures: int, pause: float) -> None:
    device = Device()
    for _ in range(failures):
        read_in_vain(device, "open")
        assert device.last.error == ErrorCode.INTERNAL
        device.now += pause


def test_a_stored_part_shows_that_the_file_can_be_read() -> None:
    device = Device()
    for _ in range(7):
        read_in_vain(device, "open")
    device.on(Repeated(now=device.now, acknowledges=device.transfer.sequence))
    device.start()
    device.grant(device.wanted)
    device.begin_parts()
    device.store(1)
    device.now += 5000
    device.fail(2, PutFailure.SOURCE_UNREADABLE)
    assert device.last.error == ErrorCode.INTERNAL
