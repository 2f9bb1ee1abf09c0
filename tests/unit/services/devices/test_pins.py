"""Pins and the first presence: which key may speak under which name.

Rule: keys are real ones; the database is the one in memory, and what a replica sees is a second `Pins` over it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import pytest

from control_plane.adapters.memory.database import MemoryDatabase
from control_plane.adapters.memory.records import MemoryDevices
from control_plane.domain.devices import Device, DeviceState, revoked
from control_plane.services.devices.pinning import KeyPinner
from control_plane.services.devices.pins import Pins
from control_plane.services.ports.database import Records
from schemas.messages import Presence
from schemas.signing.claims import claim_matches, claim_of
from schemas.signing.ed25519 import Signer
from tests.support.fakes import FakeClock

NAME: Final = "restaurant-7"
SECRET: Final = b"s" * 32
FIRST: Final = Signer(b"1" * 32).verifier
SECOND: Final = Signer(b"2" * 32).verifier


class Site:
    """What pins keys, its pins, and what it logged."""

    def __init__(self) -> None:
        self.database = MemoryDatabase()
        self.pins = Pins(self.database)
        self.logged: list[str] = []
        self.pinner = KeyPinner(self.database, FakeClock(), self._log, self.pins)

    def _log(self, event: str, _fields: Mapping[str, Any]) -> None:
        self.logged.append(event)

    async def save(self, device: Device) -> None:
        await self.database.write(lambda records: records.devices.save(device))
        await self.pins.load()

    async def presence(self, key: str | None, claim: str | None = None, name: str = NAME) -> bool:
        return await self.pinner.first_presence(Presence(name, "online", "i", 1, 1, key=key, claim=claim))

    async def stored(self, name: str = NAME) -> Device:
        found = await self.database.read(lambda records: records.devices.get(name))
        assert found is not None
        return found


def enrolled(name: str = NAME) -> Device:
    return Device(name, DeviceState.ENROLLED, 1.0, "ana", claim_secret=SECRET)


def right(key: bytes, name: str = NAME) -> str:
    return claim_of(SECRET, name, key)


@pytest.fixture
async def site() -> Site:
    one = Site()
    await one.save(enrolled())
    return one


def test_a_claim_fits_one_secret_one_name_and_one_key() -> None:
    claim = right(FIRST.public_key)
    assert len(claim) == 43
    assert claim_matches(claim, SECRET, NAME, FIRST.public_key)
    assert not claim_matches(claim, b"t" * 32, NAME, FIRST.public_key)
    assert not claim_matches(claim, SECRET, "restaurant-70", FIRST.public_key)
    assert not claim_matches(claim, SECRET, NAME, SECOND.public_key)
    assert not claim_matches("\ud800", SECRET, NAME, FIRST.public_key)


async def test_a_right_claim_pins_the_first_key_once_and_the_secret_is_forgotten(site: Site) -> None:
    before = site.pins.of(NAME)
    assert before is not None
    assert (before.state, before.verifier, before.claim_secret) == (DeviceState.ENROLLED, None, SECRET)
    assert await site.presence(FIRST.text, right(FIRST.public_key))
    pin, device = site.pins.of(NAME), await site.stored()
    assert pin is not None
    assert pin.verifier is not None
    assert pin.verifier.public_key == FIRST.public_key
    assert (pin.state, pin.alarm, device.claim_secret) == (DeviceState.ACTIVE, False, None)
    assert await site.presence(FIRST.text, right(FIRST.public_key))
    assert site.logged == ["device.pin"]


@pytest.mark.parametrize("claim", [None, claim_of(b"t" * 32, NAME, FIRST.public_key), right(SECOND.public_key)])
async def test_a_wrong_claim_pins_nothing(site: Site, claim: str | None) -> None:
    assert not await site.presence(FIRST.text, claim)
    assert (await site.stored()) == enrolled()
    assert not await site.presence(None, claim)


async def test_another_key_raises_the_alarm_and_stops_dispatch(site: Site) -> None:
    await site.presence(FIRST.text, right(FIRST.public_key))
    assert site.pins.dispatchable(NAME) is None
    # The secret is forgotten: even the right claim of that time proves nothing any more.
    assert not await site.presence(SECOND.text, right(SECOND.public_key))
    assert site.pins.dispatchable(NAME) == "key_alarm"
    assert (await site.stored()).other_key == SECOND.public_key
    assert not await site.presence(Signer(b"3" * 32).verifier.text)
    assert (await site.stored()).other_key == SECOND.public_key
    assert site.logged == ["device.pin", "device.alarm"]


async def test_a_revoked_key_is_refused_under_any_name(site: Site) -> None:
    await site.presence(FIRST.text, right(FIRST.public_key))
    device = await site.stored()
    await site.database.write(lambda records: records.devices.revoke_key(FIRST.public_key, NAME, 2.0))
    await site.save(revoked(device, "ana", 2.0))
    assert site.pins.is_revoked_key(FIRST.public_key)
    assert site.pins.dispatchable(NAME) == "device_revoked"
    await site.save(enrolled("restaurant-8"))
    assert not await site.presence(FIRST.text, right(FIRST.public_key, "restaurant-8"), "restaurant-8")
    assert not await site.presence(SECOND.text, right(SECOND.public_key))
    assert (await site.stored()).state is DeviceState.REVOKED


async def test_a_key_that_is_pinned_under_another_name_is_not_pinned_again(site: Site) -> None:
    await site.presence(FIRST.text, right(FIRST.public_key))
    await site.save(enrolled("restaurant-8"))
    assert not await site.presence(FIRST.text, right(FIRST.public_key, "restaurant-8"), "restaurant-8")
    assert (await site.stored("restaurant-8")).state is DeviceState.ENROLLED


async def test_a_device_that_is_enrolled_again_gets_its_new_key_and_the_former_is_refused(site: Site) -> None:
    await site.presence(FIRST.text, right(FIRST.public_key))
    device = await site.stored()
    await site.save(Device(NAME, DeviceState.ACTIVE, 1.0, "ana", public_key=device.public_key, claim_secret=SECRET))
    assert await site.presence(SECOND.text, right(SECOND.public_key))
    assert site.pins.is_revoked_key(FIRST.public_key)
    assert (await site.stored()).public_key == SECOND.public_key


async def test_another_replica_sees_a_change_at_its_next_look(site: Site) -> None:
    other = Pins(site.database)
    await other.load()
    await site.presence(FIRST.text, right(FIRST.public_key))
    before = other.of(NAME)
    assert before is not None
    assert before.verifier is None
    await other.load()
    after = other.of(NAME)
    assert after is not None
    assert after.verifier is not None
    assert other.of("never-enrolled") is None
    assert other.dispatchable("never-enrolled") is None


async def test_a_change_reads_only_the_devices_that_changed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """On every replica: of 100,000 devices all would take the event loop half a second for each."""
    for number in range(20):
        await site.save(enrolled(f"device-{number}"))
    other = Pins(site.database)
    await other.load()
    scans: list[MemoryDevices] = []
    read: list[list[str]] = []
    every, among = MemoryDevices.pinned, MemoryDevices.among

    def counted_every(self: MemoryDevices) -> Sequence[Device]:
        scans.append(self)
        return every(self)

    def counted_among(self: MemoryDevices, client_ids: Iterable[str]) -> dict[str, Device]:
        read.append(sorted(client_ids))
        return among(self, client_ids)

    monkeypatch.setattr(MemoryDevices, "pinned", counted_every)
    monkeypatch.setattr(MemoryDevices, "among", counted_among)
    await site.save(Device("device-3", DeviceState.ACTIVE, 1.0, "ana", public_key=FIRST.public_key))
    await site.save(Device("device-4", DeviceState.ACTIVE, 1.0, "ana", public_key=SECOND.public_key))
    await site.database.write(lambda records: records.devices.delete("device-5"))
    kept = other.of("device-6")
    for pins in (other, site.pins):
        await pins.load()
        await pins.load()
        found = {name: pins.of(f"device-{name}") for name in (3, 4, 5)}
        keys = {name: pin and pin.verifier and pin.verifier.public_key for name, pin in found.items()}
        assert keys == {3: FIRST.public_key, 4: SECOND.public_key, 5: None}
        assert found[5] is None
    assert other.of("device-6") is kept
    assert (scans, read) == ([], [["device-3"], ["device-4"], ["device-3", "device-4", "device-5"], ["device-5"]])


async def test_a_replica_learns_of_a_revoked_key_and_of_a_name_that_was_let_go(site: Site) -> None:
    """Of a device that is gone too: what remains of it are its keys."""
    await site.presence(FIRST.text, right(FIRST.public_key))
    other = Pins(site.database)
    await other.load()

    def revoke(records: Records) -> None:
        records.devices.revoke_key(FIRST.public_key, NAME, 2.0)
        records.devices.delete(NAME)

    await site.database.write(revoke)
    await other.load()
    assert other.is_revoked_key(FIRST.public_key)
    assert other.dispatchable(NAME) == "device_revoked"
    await site.database.write(lambda records: records.devices.release_name(NAME))
    await other.load()
    assert other.is_revoked_key(FIRST.public_key)
    assert (other.of(NAME), other.dispatchable(NAME)) == (None, None)
