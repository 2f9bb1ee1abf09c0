"""Size and times come from the file system. Where they do not show whether the content changed, digests decide.

Two kinds of fault: times that stay although the content changed (a change within one tick of the file system's clock,
bytes beyond the size), and times that change although the content stays (a new owner, mode or link).
"""

import pytest

from device_agent.errors import PutFailure
from device_agent.transfer.events import DigestParts, PartStored, Seen
from device_agent.transfer.model import State
from device_agent.transfer.source_change import granularity, is_racy
from schemas.values import DigestName, Fingerprint, UploadOptions
from tests.unit.device_agent.device import CHUNK, Device, fingerprint, order, urls

PARTS = 3
SECOND = 1_000_000_000
TICK = 20_000_000
NOW = 1_700_000_000 * SECOND

Changes = dict[str, object]


def times(mtime_ns: int, ctime_ns: int | None = None) -> Fingerprint:
    return Fingerprint(1, mtime_ns, mtime_ns if ctime_ns is None else ctime_ns, 1, 1)


@pytest.mark.parametrize(
    ("mtime_ns", "ctime_ns", "expected"),
    [
        (NOW + 123_456_789, NOW + 123_456_789, TICK),
        (NOW + 120_000_000, NOW + 120_000_000, TICK),
        (NOW + 100_000_000, NOW + 100_000_000, SECOND // 10),
        (NOW, NOW, 2 * SECOND),
        (0, 0, 2 * SECOND),
        # A program gave the file a whole second; the inode shows what the file system can.
        (NOW, NOW + 123_456_789, TICK),
    ],
)
def test_trailing_zeros_show_the_granularity(mtime_ns: int, ctime_ns: int, expected: int) -> None:
    assert granularity(times(mtime_ns, ctime_ns)) == expected


@pytest.mark.parametrize(
    ("found", "racy"),
    [
        (times(NOW), True),
        (times(NOW - SECOND), True),
        (times(NOW - 2 * SECOND), False),
        (times(NOW - 1), True),
        (times(NOW - TICK - 1), False),
        (times(NOW - 3600 * SECOND, NOW), True),
        (times(NOW + 3600 * SECOND, NOW - 5 * SECOND), True),
        # The device believes that it is 1970.
        (times(NOW + 50 * 365 * 86_400 * SECOND), True),
    ],
)
def test_a_time_that_is_now_or_later_does_not_show_the_next_change(found: Fingerprint, *, racy: bool) -> None:
    assert is_racy(found, NOW) is racy


def finish(device: Device) -> list[int]:
    """Send the rest; the parts that are digested again before the end."""
    compared: list[int] = []
    while not device.is_in(State.ENDED):
        while device.work:
            match device.work[0]:
                case DigestParts(parts=parts, recheck=True):
                    compared += [part.number for part in parts]
            device.perform_one()
        if device.transfer.awaiting_grant:
            device.grant(device.wanted)
        for number in device.begin_parts():
            device.store(number)
    return compared


def begun(*, racy: bool = False, **changes: object) -> Device:
    """An upload with its first part stored."""
    device = Device(size=PARTS * CHUNK, order=order(**changes), racy=racy)
    device.start()
    device.grant(device.wanted)
    device.begin_parts(1)
    device.store(1)
    return device


@pytest.mark.parametrize("on_change", ["fail", "prefix"])
@pytest.mark.parametrize(("salt", "end"), [("", ("success", None)), ("other", ("error", "source_changed"))])
def test_a_file_that_had_just_changed_is_digested_again_before_success(
    on_change: str, salt: str, end: tuple[str, str | None]
) -> None:
    device = begun(racy=True, options=UploadOptions(on_change=on_change))  # type: ignore[arg-type]
    # Rewritten within the tick: no size and no time shows it.
    device.salt = salt
    assert finish(device) == [1, 2, 3]
    assert (device.last.status, device.last.error) == end


@pytest.mark.parametrize("changes", [{"digest": DigestName.NONE}, {"pregranted": True}])
def test_without_digests_a_file_that_keeps_changing_is_not_sent(changes: Changes) -> None:
    granted = urls([1, 2, 3]) if "pregranted" in changes else ()
    device = Device(size=PARTS * CHUNK, order=order(**changes), pregranted=granted, racy=True)
    device.start()
    assert (device.last.error, device.puts) == ("source_changed", [])


@pytest.mark.parametrize("salt", ["", "other"])
def test_a_change_of_metadata_alone_fails_no_upload(salt: str) -> None:
    device = begun()
    for number in (2, 3):
        device.metadata += 1
        [begun_part] = device.begin_parts(1)
        assert begun_part == number
        device.store(number)
    device.salt = salt
    assert finish(device) == [1, 2, 3]
    assert (device.last.status, device.last.error) == (("error", "source_changed") if salt else ("success", None))


@pytest.mark.parametrize("changes", [{"digest": DigestName.NONE}, {"pregranted": True}])
def test_without_digests_a_change_of_metadata_counts_as_a_change(changes: Changes) -> None:
    granted = urls([1, 2, 3]) if "pregranted" in changes else ()
    device = Device(size=PARTS * CHUNK, order=order(**changes), pregranted=granted)
    device.start()
    if not granted:
        device.grant(device.wanted)
    device.begin_parts(1)
    device.metadata += 1
    device.store(1)
    assert device.last.error == "source_changed"


@pytest.mark.parametrize("salt", ["", "other"])
def test_a_change_of_metadata_while_the_agent_was_down_resumes(salt: str) -> None:
    device = begun()
    device.metadata, device.salt = 1, salt
    device.restart()
    device.start()
    finish(device)
    assert (device.last.error, 1 in device.puts[1:]) == ("source_changed" if salt else None, False)


def test_without_digests_a_change_of_metadata_while_the_agent_was_down_is_a_change() -> None:
    device = begun(digest=DigestName.NONE)
    device.metadata = 1
    device.restart()
    device.start()
    assert device.last.error == "source_changed"


def test_a_part_that_does_not_match_its_digest_after_a_change_is_not_sent_again() -> None:
    device = begun()
    device.metadata = 1
    device.begin_parts(1)
    device.fail(2, PutFailure.BAD_DIGEST)
    assert device.last.error == "source_changed"


def test_bytes_beyond_the_size_are_a_change() -> None:
    device = begun()
    device.begin_parts(1)
    seen = Seen(fingerprint=fingerprint(PARTS * CHUNK), ends=False)
    device.on(PartStored(now=device.now, number=2, etag='"e2"', seen=seen))
    assert (device.last.error, device.last.message) == (
        "source_changed",
        "the file has more bytes than its size",
    )
