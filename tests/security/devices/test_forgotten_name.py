"""A name under which a device has signed is taken unsigned no more, also when the device was forgotten.

Rule: only an operator who says so lets such a name speak unsigned again.
"""

from collections.abc import AsyncIterator
from typing import Final

import pytest

from control_plane.services.devices.service import DeviceService, NewDevice
from control_plane.services.errors import UnknownDevice
from schemas.codec import encode
from schemas.messages import Presence
from schemas.topics import Channel
from tests.security.signed.rig import DEVICE, LIAR, PLANE, SignedRig
from tests.support.devices import device_service
from tests.support.fakes import CLIENT, OPERATOR

UNSIGNED: Final = encode(Presence(CLIENT, "online", "install", 9, 0))


@pytest.fixture
async def rig() -> AsyncIterator[SignedRig]:
    async with SignedRig(key=PLANE) as one:
        yield one


@pytest.fixture
async def devices(rig: SignedRig) -> DeviceService:
    """A signed device was revoked."""
    devices = device_service(rig.engine)
    await devices.revoke(OPERATOR, CLIENT)
    return devices


async def is_heard(rig: SignedRig) -> bool:
    """Whether an unsigned presence under the name has an effect."""
    await rig.send(Channel.PRESENCE, UNSIGNED, ())
    client = (await rig.state())[0]
    return client is not None and bool(client.online)


async def test_a_forgotten_name_is_neither_heard_unsigned_nor_sent_anything(
    rig: SignedRig, devices: DeviceService
) -> None:
    await devices.forget(OPERATOR, CLIENT)
    assert not await is_heard(rig)
    assert rig.refused == ["revoked"]
    assert rig.engine.pins.dispatchable(CLIENT) == "device_revoked"


async def test_a_forgotten_name_that_is_enrolled_again_is_heard_signed_alone(
    rig: SignedRig, devices: DeviceService
) -> None:
    """Its bundle waits for a first presence; until then a fresh device is heard unsigned, and this one is not."""
    await devices.forget(OPERATOR, CLIENT)
    await devices.enroll(OPERATOR, NewDevice(CLIENT))
    assert not await is_heard(rig)
    assert rig.refused == ["unsigned"]


async def test_a_revoked_device_that_is_enrolled_again_is_heard_signed_alone(
    rig: SignedRig, devices: DeviceService
) -> None:
    await devices.rotate(OPERATOR, NewDevice(CLIENT))
    assert not await is_heard(rig)
    assert rig.refused == ["unsigned"]


@pytest.mark.parametrize("forgotten", [False, True], ids=["while it is revoked", "later"])
async def test_an_operator_who_says_so_lets_the_name_speak_unsigned(
    rig: SignedRig, devices: DeviceService, *, forgotten: bool
) -> None:
    if forgotten:
        await devices.forget(OPERATOR, CLIENT)
    await devices.forget(OPERATOR, CLIENT, unsigned=True)
    assert await is_heard(rig)
    assert rig.engine.pins.is_revoked_key(DEVICE.verifier.public_key)
    with pytest.raises(UnknownDevice):
        await devices.forget(OPERATOR, CLIENT, unsigned=True)


async def test_another_name_is_as_it_was(rig: SignedRig, devices: DeviceService) -> None:
    await devices.forget(OPERATOR, CLIENT)
    pin = rig.engine.pins.of("till-2")
    assert pin is not None
    assert pin.verifier is not None
    assert pin.verifier.public_key == LIAR.verifier.public_key
    assert rig.engine.pins.of("never-enrolled") is None
