"""The reason of a wait is published, because an owner gives up a silent client."""

from device_agent.transfer.model import State
from device_agent.transfer.responses import wait_reason
from tests.unit.device_agent.device import Device


def test_granted_parts_that_find_no_idle_sender_wait_for_other_uploads() -> None:
    device = Device()
    device.start()
    device.grant([1, 2])
    assert device.is_in(State.SENDING)
    assert wait_reason(device.transfer, device.now) == "other uploads of this device go first"
    device.begin_parts()
    assert wait_reason(device.transfer, device.now) is None
