"""A grant with a wait in place of URLs: no request before its end, a reason meanwhile, and no loss of patience."""

import pytest

from device_agent.transfer.events import Granted, Repeated, Tick
from device_agent.transfer.machine import derive, wake_at
from device_agent.transfer.model import State
from device_agent.transfer.responses import wait_reason
from schemas.messages import Wait
from schemas.parts import MIB
from schemas.values import UploadOptions
from tests.unit.device_agent.device import Device, order, urls

HOUR = 3_600.0


def hold(device: Device, seconds: float = HOUR, *, acknowledges: int | None = None) -> None:
    sequence = device.transfer.sequence if acknowledges is None else acknowledges
    device.on(Granted(now=device.now, acknowledges=sequence, wait=Wait("outside of the window", seconds)))
    device.perform()


def held(give_up_after: int = 86_400) -> Device:
    device = Device(size=1000 * MIB, order=order(options=UploadOptions(give_up_after=give_up_after)))
    device.start()
    hold(device)
    return device


def pass_time(device: Device, seconds: float) -> None:
    """Tick whenever the machine asks for it."""
    until = device.now + seconds
    while (at := wake_at(device.transfer)) is not None and at <= until:
        device.now = max(device.now, at)
        device.on(Tick(now=device.now))
        device.perform()
    device.now = until


def test_a_held_upload_requests_nothing_before_the_end_of_the_wait() -> None:
    device = held()
    assert device.is_in(State.WAITING)
    pass_time(device, HOUR - 1)
    assert len(device.responses) == 1
    pass_time(device, 2)
    assert [response.sequence for response in device.responses] == [1, 2]


def test_the_reason_of_the_owner_is_reported() -> None:
    device = held()
    assert wait_reason(device.transfer, device.now + 600) == "outside of the window; next request in 3000 s"


def test_a_later_wait_replaces_an_earlier_one() -> None:
    device = held()
    device.now += 3_000
    hold(device)
    pass_time(device, HOUR - 1)
    assert len(device.responses) == 1
    hold(device, 10.0)
    pass_time(device, 11)
    assert len(device.responses) == 2


def test_the_patience_for_the_owner_begins_at_the_end_of_the_wait() -> None:
    device = held(give_up_after=100)
    pass_time(device, HOUR)
    pass_time(device, 99)
    assert device.transfer.ending is None
    pass_time(device, 2)
    assert device.last.error == "owner_silent"


def test_urls_end_a_wait() -> None:
    device = held()
    device.grant(range(1, 13))
    assert device.transfer.hold is None
    assert device.begin_parts() == [1, 2, 3, 4]
    for number in range(1, 7):
        device.store(number)
        device.begin_parts()
    assert len(device.responses) == 2, "half of the grant is stored: the next parts are requested"


def test_a_wait_stops_no_part_that_was_granted() -> None:
    device = Device(size=1000 * MIB)
    device.start()
    device.grant([1, 2, 3, 4])
    device.begin_parts()
    assert len(device.responses) == 2
    hold(device)
    for number in (1, 2, 3, 4):
        device.store(number)
    device.perform()
    assert device.is_in(State.WAITING)
    assert sorted(device.transfer.done) == [1, 2, 3, 4]
    assert len(device.responses) == 2


def test_a_wait_that_does_not_know_the_latest_request_is_ignored() -> None:
    device = Device(size=1000 * MIB)
    device.start()
    hold(device, acknowledges=0)
    assert device.transfer.hold is None
    assert device.transfer.awaiting_grant


def test_a_request_that_is_being_prepared_is_not_published_during_the_wait() -> None:
    device = Device(size=1000 * MIB)
    device.start()
    device.on(Granted(now=device.now, acknowledges=1, parts=urls([1])))
    device.begin_parts()
    assert device.transfer.preparing_request
    device.on(Granted(now=device.now, acknowledges=1, wait=Wait("paused", HOUR)))
    device.perform()
    device.store(1)
    device.perform()
    assert len(device.responses) == 1
    pass_time(device, HOUR + 1)
    assert len(device.responses) == 2


def test_a_held_upload_is_quiet_after_a_reconnect_and_answers_a_repeated_command() -> None:
    device = held()
    assert derive(device.transfer) == ()
    device.on(Repeated(now=device.now))
    assert device.responses[0] == device.responses[1]


def test_a_wait_that_arrives_before_the_file_is_open_holds_the_offer() -> None:
    device = Device()
    hold(device)
    device.start()
    assert (device.responses, device.transfer.state) == ([], State.WAITING)
    pass_time(device, HOUR + 1)
    assert device.wanted == [1, 2]


def test_a_wait_is_lost_in_a_crash_and_the_owner_is_asked_again() -> None:
    device = held()
    device.restart()
    device.start()
    assert len(device.responses) == 2


@pytest.mark.parametrize("option", [None, 5_000])
def test_a_grant_sets_the_rate_a_wait_keeps_it_and_the_next_grant_ends_it(option: int | None) -> None:
    device = Device(size=1000 * MIB, order=order(options=UploadOptions(max_bytes_per_second=option)))
    device.start()
    assert device.transfer.rate_limit == option
    device.on(Granted(now=device.now, acknowledges=1, parts=urls([1]), rate=1_000))
    assert device.transfer.rate_limit == 1_000
    hold(device)
    assert device.transfer.rate_limit == 1_000
    device.grant([2])
    assert device.transfer.rate_limit == option
