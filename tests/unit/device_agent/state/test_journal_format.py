"""The bytes of a journal, as devices in the field have them: they must be read, and written, without any change.

Rule: the literals here never change. A new record or field is a new literal.
"""

import struct
import zlib
from pathlib import Path
from typing import Final

import msgspec
import pytest

from device_agent.state.journal import MAGIC, Journal
from device_agent.transfer.records import Record
from schemas.values import UploadOptions

ORDER: Final = (
    b'{"upload_id":"u1","message_id":"m1","file_path":"/data/a.bin","attempt":2,"owner":"o1","digest":"crc32",'
    b'"chunk_size":6291456,"options":{"compression":"gzip"},"metadata":{"k":1},"pregranted":true}'
)
SOURCE: Final = b'{"size":20971520,"mtime_ns":1,"ctime_ns":2,"device":3,"inode":4}'
URL: Final = b'{"part_number":1,"url":"https://s/1?sig","headers":{"x-amz-a":"b"}}'

SIGNED: Final = (
    b'{"type":"began","order":{"upload_id":"u2","message_id":"m2","file_path":"/data/c.bin","owner":"cli-unknown",'
    b'"principal":"alice","command_sha256":"' + b"0f" * 32 + b'"}}'
)

WRITTEN: Final = (
    b'{"type":"began","order":{"upload_id":"u0","message_id":"m0","file_path":"/data/b.bin"}}',
    b'{"type":"progressed","upload_id":"u0","sequence":1,"source":' + SOURCE + b',"ending":{"status":"error",'
    b'"code":"source_gone","text":"gone"}}',
    b'{"type":"began","order":' + ORDER + b',"sequence":3,"urls":[' + URL + b"]}",
    b'{"type":"progressed","upload_id":"u1","sequence":5,"acknowledged":4,"source":' + SOURCE + b"}",
    b'{"type":"part","upload_id":"u1","number":1,"etag":"\\"e1\\"","digest":"d1","said":4}',
    b'{"type":"part","upload_id":"u1","number":2,"etag":"\\"e2\\"","digest":"d2","said":5}',
    b'{"type":"part","upload_id":"u1","number":3,"digest":"d3"}',
    b'{"type":"part","upload_id":"u1","number":4,"etag":"\\"e4\\""}',
    b'{"type":"settled","upload_id":"u1","ranges":[[3,3]]}',
    b'{"type":"tombstone","upload_id":"u9","outcome":"completed","at":1700000000}',
    b'{"type":"tombstone","upload_id":"u8","outcome":"cancelled"}',
    b'{"type":"remembered","message_id":"m7","epoch":12}',
    b'{"type":"floor","epoch":3}',
    SIGNED,
)
COMPACTED: Final = (
    b'{"type":"floor","epoch":3}',
    b'{"type":"remembered","message_id":"m7","epoch":12}',
    b'{"type":"tombstone","upload_id":"u9","outcome":"completed","at":1700000000}',
    b'{"type":"tombstone","upload_id":"u8","outcome":"cancelled"}',
    b'{"type":"began","order":{"upload_id":"u0","message_id":"m0","file_path":"/data/b.bin"}}',
    b'{"type":"progressed","upload_id":"u0","sequence":1,"source":' + SOURCE + b',"ending":{"status":"error",'
    b'"code":"source_gone","text":"gone"}}',
    b'{"type":"settled","upload_id":"u0","ranges":[]}',
    b'{"type":"began","order":' + ORDER + b',"sequence":4}',
    b'{"type":"progressed","upload_id":"u1","sequence":5,"acknowledged":4,"source":' + SOURCE + b"}",
    b'{"type":"settled","upload_id":"u1","ranges":[[3,3]]}',
    b'{"type":"part","upload_id":"u1","number":1,"etag":"\\"e1\\"","digest":"d1","said":4}',
    b'{"type":"part","upload_id":"u1","number":2,"etag":"\\"e2\\"","digest":"d2","said":5}',
    b'{"type":"part","upload_id":"u1","number":3,"digest":"d3"}',
    b'{"type":"part","upload_id":"u1","number":4,"etag":"\\"e4\\""}',
    SIGNED,
    b'{"type":"progressed","upload_id":"u2","sequence":0}',
    b'{"type":"settled","upload_id":"u2","ranges":[]}',
)


def framed(*bodies: bytes) -> bytes:
    """A journal of these records: the magic line, then length, CRC-32 and JSON of each."""
    frames = (struct.pack("<II", len(body), zlib.crc32(body)) + body for body in bodies)
    return b"".join((b"backhaul journal 1\n", *frames))


@pytest.mark.parametrize("body", WRITTEN, ids=range(len(WRITTEN)))
def test_a_record_is_read_and_written_without_any_change(body: bytes) -> None:
    record = msgspec.json.decode(body, type=Record)
    assert msgspec.json.encode(record) == body


def test_a_journal_of_the_field_replays_and_compacts_to_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "journal").write_bytes(framed(*WRITTEN))
    journal, transfers = Journal.open(tmp_path)
    assert (journal.dropped, list(transfers)) == (0, ["u0", "u1", "u2"])
    assert sorted(transfers["u1"].done) == [1, 2, 3, 4]
    left_out = {"attempt": 1, "owner": "control-plane", "digest": "md5", "chunk_size": 5_242_880, "pregranted": False}
    assert {name: getattr(transfers["u0"].order, name) for name in left_out} == left_out
    assert transfers["u0"].order.options == UploadOptions(
        on_change="fail", compression="none", priority=0, max_bytes_per_second=None, give_up_after=86_400
    )
    journal.compact(transfers.values())
    journal.close()
    assert (tmp_path / "journal").read_bytes() == framed(*COMPACTED)
    assert framed().startswith(MAGIC)


def test_appended_records_have_the_same_bytes(tmp_path: Path) -> None:
    journal, _ = Journal.open(tmp_path)
    for body in WRITTEN:
        journal.append(msgspec.json.decode(body, type=Record))
    journal.commit()
    journal.close()
    assert (tmp_path / "journal").read_bytes() == framed(*WRITTEN)
