"""Under `prefix` a file may grow. No fingerprint shows that it only grew, so stored parts are compared at the end."""

from typing import Any

import pytest

from device_agent.transfer.events import DigestParts, Granted
from device_agent.transfer.model import State
from device_agent.transfer.responses import wait_reason
from schemas.values import DigestName, UploadOptions
from tests.unit.device_agent.device import CHUNK, Device, order, report, urls

PREFIX = UploadOptions(on_change="prefix")
PARTS = 20
"""More than the 16 that are digested at once."""


def begun(**changes: object) -> Device:
    """An upload with its first part stored."""
    device = Device(size=PARTS * CHUNK, order=order(options=PREFIX, **changes))
    device.start()
    device.grant(device.wanted)
    device.begin_parts(1)
    device.store(1)
    return device


def send_the_rest(device: Device) -> None:
    """Send until the last part is stored; the test does the file work that follows."""
    while not device.transfer.complete:
        device.perform()
        if device.transfer.awaiting_grant:
            device.grant(device.wanted)
        for number in device.begin_parts():
            device.store(number)


def rechecks(device: Device) -> list[int]:
    """Do the comparisons that are due; the numbers of the parts in order."""
    compared: list[int] = []
    while device.work:
        match device.work[0]:
            case DigestParts(parts=parts, recheck=True):
                compared += [part.number for part in parts]
        device.perform_one()
    return compared


def test_a_changed_file_is_compared_once_with_all_stored_parts() -> None:
    device = begun()
    device.version = 2
    send_the_rest(device)
    assert device.is_in(State.CHECKING)
    assert wait_reason(device.transfer, device.now) == "comparing the stored parts with the file"
    # The file keeps growing, as a log does: no reason to start again.
    device.version = 3
    assert rechecks(device) == list(range(1, PARTS + 1))
    assert (device.last.status, len(device.puts)) == ("success", PARTS)


def test_a_file_that_was_rewritten_is_never_mixed() -> None:
    device = begun()
    device.version, device.salt = 2, "other"
    send_the_rest(device)
    device.perform()
    assert (device.last.status, device.last.error) == ("error", "source_changed")
    assert device.last.message == "parts already stored differ from the file"


def test_an_unchanged_file_is_not_read_again() -> None:
    device = begun()
    send_the_rest(device)
    assert (rechecks(device), device.last.status) == ([], "success")


def test_without_digests_there_is_nothing_to_compare() -> None:
    device = begun(digest=DigestName.NONE)
    device.version = 2
    send_the_rest(device)
    assert (rechecks(device), device.last.status) == ([], "success")


def test_a_crash_during_the_comparison_repeats_only_the_comparison() -> None:
    device = begun()
    device.version = 2
    send_the_rest(device)
    device.perform_one()
    assert device.is_in(State.CHECKING)
    device.restart()
    device.start()
    assert (device.last.status, len(device.puts)) == ("success", PARTS)


@pytest.mark.parametrize("on_change", ["fail", "prefix"])
@pytest.mark.parametrize("salt", ["", "other"])
def test_parts_of_a_lost_journal_are_requested_with_their_digests(salt: str, on_change: str) -> None:
    """The journal is lost. The owner has more parts than were requested, and this file may be a different one.

    The kind: stored parts accepted because of equal times, which a change within one tick does not move.
    """
    options = UploadOptions(on_change=on_change)  # type: ignore[arg-type]
    device = Device(size=PARTS * CHUNK, order=order(options=options), salt=salt)
    device.start()
    first = device.wanted
    stored = ((1, 15),) if not salt else ((13, 15),)
    granted = urls([] if not salt else first)
    sequence = device.transfer.sequence
    device.on(Granted(now=device.now, acknowledges=sequence, completed=stored, parts=granted, lifetime=900.0))
    device.perform()
    if not salt:
        assert list(device.transfer.settled) == first
        # Without a pause: this answer had new completed parts.
        assert device.wanted == list(range(len(first) + 1, PARTS + 1))
        device.restart()
        assert sorted(device.transfer.digests) == first
    else:
        assert list(device.transfer.settled) == []


@pytest.mark.parametrize("more", [{"digest": DigestName.NONE}, {"pregranted": True}])
def test_without_digests_completed_parts_are_accepted(more: dict[str, Any]) -> None:
    """The owner has compared the whole fingerprint."""
    device = Device(size=PARTS * CHUNK, order=order(**more))
    device.start()
    device.on(Granted(now=device.now, acknowledges=1, completed=((1, 15),), parts=urls([16])))
    assert list(device.transfer.settled) == list(range(1, 16))
    assert report(device.last).attempt == 1
