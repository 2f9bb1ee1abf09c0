"""Effects before the commit of the journal: only those that depend on no pending record."""

import hashlib
import os
from base64 import b64encode
from pathlib import Path
from typing import Any, cast, get_args

import pytest

from device_agent.durability import LINGER, NEEDS, Need, need_of
from device_agent.effects import PUT
from device_agent.files.copies import Copies
from device_agent.files.roots import Roots
from device_agent.files.source import BLOCK_SIZE
from device_agent.inbox import Connected, EffectDone
from device_agent.state import journal as journal_module
from device_agent.transfer.events import (
    Digested,
    DigestParts,
    Effect,
    Opened,
    OpenSource,
    PartStored,
    PublishResponse,
    PutPart,
    Seen,
)
from device_agent.transfer.records import Order
from device_agent.uploads import DeferredEffect, DiscardCopy, Run
from device_agent.workers.part_io import IoEvent, PartIO, SourceSession
from schemas.parts import MIB, Part
from schemas.values import DigestName, PresignedPart, UploadOptions
from tests.unit.device_agent.agent_loop import FILE, AgentLoop
from tests.unit.device_agent.device import fingerprint
from tests.unit.device_agent.test_agent_full_disk import full
from tests.unit.device_agent.upload_table import UploadTable, table

__all__ = ["table"]

SIZE = 10 * MIB
ORDER = Order("u1", "m1", "/d/a")
COMPRESSED = Order("u1", "m1", "/d/a", options=UploadOptions(compression="gzip"))
PREGRANTED = Order("u1", "m1", "/d/a", pregranted=True)
PUT_PART = PutPart(PresignedPart(1, "https://s/1"), Part(1, 0, 1))


def test_every_effect_of_the_loop_has_a_need() -> None:
    assert set(NEEDS) == set(get_args(DeferredEffect))


@pytest.mark.parametrize(
    ("effect", "order", "need"),
    [
        (OpenSource(ORDER), ORDER, Need.NOTHING),
        (OpenSource(COMPRESSED), COMPRESSED, Need.EVERYTHING),
        (DigestParts((), DigestName.MD5), ORDER, Need.NOTHING),
        (PUT_PART, ORDER, Need.STORED_PARTS),
        (PUT_PART, PREGRANTED, Need.EVERYTHING),
        (DiscardCopy(ORDER), ORDER, Need.EVERYTHING),
    ],
)
def test_an_effect_needs_what_it_relies_on(effect: DeferredEffect, order: Order, need: Need) -> None:
    assert need_of(effect, order) is need


def urls(*numbers: int) -> list[dict[str, Any]]:
    return [{"part_number": number, "url": f"https://s/{number}"} for number in numbers]


def early(table: UploadTable) -> list[int]:
    """The parts that are sent before the next commit."""
    table.uploads.schedule(1.0)
    return [effect.part.number for _, effect in table.take_early() if isinstance(effect, PutPart)]


def requested(table: UploadTable) -> Run:
    """An upload of two parts with a published and durable request."""
    run = table.download("u1")
    assert run is not None
    table.uploads.schedule(1.0)
    table.flush()
    return run


def test_a_granted_part_is_sent_before_the_grant_is_durable(table: UploadTable) -> None:
    requested(table)
    table.command("grant_parts", upload_id="u1", attempt=1, presigned_urls=urls(1), acknowledges=1)
    assert table.journal.pending
    assert early(table) == [1]


def test_no_part_is_sent_before_a_stored_part_is_durable(table: UploadTable) -> None:
    """After a crash both would be sent again, and only one of them was in flight."""
    run = requested(table)
    table.uploads._workers = 1
    table.command("grant_parts", upload_id="u1", attempt=1, presigned_urls=urls(1, 2), acknowledges=1)
    assert early(table) == [1]
    table.flush()
    table.uploads.put_done(run.session, 5 * MIB, 5 * MIB)
    table.uploads.handle(run, PartStored(now=1.0, number=1, etag="e", seen=Seen(fingerprint(SIZE))))
    assert early(table) == []
    table.journal.commit()
    assert [effect.part.number for _, effect in table.uploads.take_effects() if isinstance(effect, PutPart)] == [2]


def test_no_part_is_sent_before_its_command_and_its_source_are_durable(table: UploadTable) -> None:
    granted = {"upload_id": "u1", "presigned_urls": urls(1, 2)}
    table.command("download_file", file_path="/d/a", upload_config=granted)
    run = table.uploads.get("u1")
    assert run is not None
    assert run not in table.uploads.durable()
    table.uploads.schedule(1.0)
    table.journal.commit()
    assert [type(effect) for _, effect in table.uploads.take_effects()] == [OpenSource]
    table.uploads.handle(run, Opened(now=1.0, fingerprint=fingerprint(SIZE)))
    assert table.journal.pending
    assert early(table) == []


@pytest.fixture
def fsyncs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each fsync."""
    done: list[int] = []
    monkeypatch.setattr(os, "fdatasync", done.append)
    return done


def test_one_fsync_serves_a_command_and_its_first_request(tmp_path: Path, fsyncs: list[int]) -> None:
    loop = AgentLoop(tmp_path)
    fsyncs.clear()
    loop.agent.turn([loop.command("download_file", file_path="/d/a")])
    run = loop.agent.uploads.get("u1")
    assert run is not None
    loop.agent.turn([EffectDone(run, run.session, Opened(now=1.0, fingerprint=FILE), "open")])
    assert (fsyncs, loop.network.acknowledged) == ([], [])
    loop.agent.turn([EffectDone(run, run.session, Digested(now=1.0, digests={1: "d1", 2: "d2"}), "digest")])
    assert len(fsyncs) == 1
    assert [token.packet_id for token in loop.network.acknowledged] == [1]


def test_a_command_is_committed_although_its_file_is_still_read(tmp_path: Path, fsyncs: list[int]) -> None:
    loop = AgentLoop(tmp_path)
    fsyncs.clear()
    waits = loop.agent.turn([loop.command("download_file", file_path="/d/a")])
    assert waits == pytest.approx(LINGER)
    loop.now += waits
    loop.agent.turn([])
    assert (len(fsyncs), len(loop.network.acknowledged)) == (1, 1)
    assert loop.agent.turn([]) > LINGER


def test_a_stored_part_is_committed_at_once(tmp_path: Path, fsyncs: list[int]) -> None:
    """A crash would have it sent again."""
    loop = AgentLoop(tmp_path)
    run = loop.sending()
    loop.now += LINGER
    loop.agent.turn([])
    fsyncs.clear()
    stored = PartStored(now=loop.now, number=1, etag="e1", seen=Seen(FILE))
    loop.agent.turn([EffectDone(run, run.session, stored, PUT, 5 * MIB, 1.0, "https://s/1")])
    assert len(fsyncs) == 1


def test_a_full_disk_refuses_a_lingering_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = AgentLoop(tmp_path)
    loop.agent.turn([loop.command("download_file", file_path="/d/a")])
    monkeypatch.setattr(journal_module, "write_all", full)
    loop.now += LINGER
    loop.agent.turn([Connected()])
    assert loop.agent.uploads.get("u1") is None
    assert any(b'"no_space"' in published for published in loop.network.published)


def test_parts_of_a_refused_command_occupy_no_sender(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is opened between the lingering command and the failing commit."""
    loop = AgentLoop(tmp_path)
    uploads = loop.agent.uploads
    granted = {"upload_id": "u1", "presigned_urls": urls(1, 2)}
    loop.agent.turn([loop.command("download_file", file_path="/d/a", upload_config=granted)])
    run = uploads.get("u1")
    assert run is not None
    with monkeypatch.context() as disk:
        disk.setattr(journal_module, "write_all", full)
        loop.agent.turn([EffectDone(run, run.session, Opened(now=1.0, fingerprint=FILE), "open")])
    assert uploads.get("u1") is None
    assert uploads._sending == 0


def test_lingering_commands_that_are_refused_are_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen unacknowledged commands would block every other command while the disk is full."""
    loop = AgentLoop(tmp_path)
    run = loop.sending()
    loop.agent.turn([Connected()])
    loop.network.acknowledged.clear()
    more = [loop.command("download_file", n, upload_id=f"n{n}", file_path="/d/a") for n in range(2, 10)]
    loop.agent.turn(more)
    assert loop.network.acknowledged == []
    monkeypatch.setattr(journal_module, "write_all", full)
    stored = PartStored(now=loop.now, number=1, etag="e1", seen=Seen(FILE))
    loop.agent.turn([EffectDone(run, run.session, stored, PUT, 5 * MIB, 1.0, "https://s/1")])
    assert [token.packet_id for token in loop.network.acknowledged] == [*range(2, 10)]


def test_a_hello_waits_for_the_commit_of_new_commands(tmp_path: Path, fsyncs: list[int]) -> None:
    loop = AgentLoop(tmp_path)
    loop.agent.turn([Connected()])
    fsyncs.clear()
    loop.agent.turn([loop.command("download_file", file_path="/d/a")])
    assert fsyncs == []
    loop.agent.turn([Connected()])
    assert len(fsyncs) == 1


@pytest.mark.parametrize(("digest", "effect"), [("bm9uZQ==", PublishResponse), (None, DigestParts)])
def test_a_small_file_is_requested_as_soon_as_it_is_open(
    table: UploadTable, digest: str | None, effect: type[Effect]
) -> None:
    run = table.download("u1")
    assert run is not None
    table.uploads.schedule(1.0)
    table.uploads.effects.clear()
    table.uploads.handle(run, Opened(now=1.0, fingerprint=fingerprint(4096), digest=digest))
    assert [type(one) for _, one in table.uploads.effects] == [effect]


def md5(data: bytes) -> str:
    return b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


@pytest.mark.parametrize(
    ("size", "more", "found"),
    [
        (0, {}, True),
        (BLOCK_SIZE, {}, True),
        (BLOCK_SIZE + 1, {}, False),
        (4096, {"digest": DigestName.NONE}, False),
        (4096, {"pregranted": True}, False),
    ],
)
def test_a_small_file_is_digested_where_it_is_opened(
    tmp_path: Path, size: int, more: dict[str, Any], *, found: bool
) -> None:
    path = tmp_path / "small"
    path.write_bytes(bytes(size))
    unused = cast("Any", None)
    posted: list[IoEvent] = []
    session = SourceSession()
    order = Order("u1", "m1", str(path), **more)
    copies = Copies(tmp_path / "spool", Roots((str(tmp_path),)), max_bytes=0, max_percent=0)
    PartIO(unused, copies, clock=lambda: 1.0).open(order, session, posted.append)
    (opened,) = posted
    assert isinstance(opened, Opened)
    assert opened.digest == (md5(bytes(size)) if found else None)
    session.stopped.set()
