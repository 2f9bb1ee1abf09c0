"""The transfer of a sealed file: what is durable before a part is requested, and what ends the attempt."""

from msgspec.structs import replace

from device_agent.transfer.events import Admitted, Digested, Opened
from device_agent.transfer.machine import apply
from device_agent.transfer.records import PartKept, Seal
from device_agent.transfer.replay import replay, snapshot
from schemas.values import ErrorCode
from tests.unit.device_agent.device import CHUNK, Device, fingerprint, order

SEAL = Seal(b"k" * 16, b"n" * 16, b"header")


def offered(contents: dict[int, str]) -> Device:
    """A sealed file of two parts, whose parts were digested."""
    device = Device(size=2 * CHUNK, order=order(seal=SEAL))
    device.on(Admitted(now=device.now))
    device.on(Opened(now=device.now, fingerprint=fingerprint(2 * CHUNK)))
    device.work.clear()
    device.on(Digested(now=device.now, digests={1: "d1", 2: "d2"}, contents=contents))
    return device


def test_the_content_of_a_part_is_in_the_journal_before_the_part_is_requested() -> None:
    device = offered({1: "c1", 2: "c2"})
    kept = [record for record in device.journal if isinstance(record, PartKept)]
    assert [(record.number, record.content) for record in kept] == [(1, "c1"), (2, "c2")]
    assert device.wanted == [1, 2]


def test_a_restart_keeps_the_key_and_the_contents_and_a_stored_part_needs_none() -> None:
    device = offered({1: "c1", 2: "c2"})
    device.grant([1, 2])
    device.begin_parts(1)
    device.store(1)
    restored = None
    for record in (*device.journal, *snapshot(device.transfer)):
        restored = replay(restored, record)
    assert restored is not None
    assert restored.order.seal == SEAL
    assert restored.contents == {2: "c2"}


def test_a_part_with_another_content_than_before_the_restart_ends_the_attempt() -> None:
    device = offered({1: "c1", 2: "c2"})
    transfer = replace(device.transfer, digesting=(2,), request=None)
    ended, _ = apply(transfer, Digested(now=device.now, digests={2: "d9"}, contents={2: "c9"}))
    assert ended.ending is not None
    assert ended.ending.code is ErrorCode.SOURCE_CHANGED


def test_a_url_of_a_part_that_was_not_digested_is_not_used() -> None:
    device = offered({1: "c1"})
    device.grant([1, 2])
    assert device.begin_parts() == [1]
