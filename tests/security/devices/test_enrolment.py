"""Attacks on the enrolment by code.

Rule: keys, signatures and sealed bundles are real; only the clock and the database are the test's.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest
from nacl.exceptions import CryptoError

from control_plane.adapters.database import SqlDatabase
from control_plane.domain.devices import DeviceState
from control_plane.services.devices.pinning import KeyPinner
from control_plane.services.devices.requests import (
    ALPHABET,
    EXPIRES_IN,
    FETCHED_FOR,
    INTERVAL,
    MOST,
    EnrollmentRequests,
)
from control_plane.services.devices.service import NewDevice
from control_plane.services.errors import AccountsDown, BadInput, DeviceRefused, SlowDown, UnknownEnrollment
from schemas.messages import Presence
from schemas.signing.canonical import from_text, to_text
from schemas.signing.claims import claim_of
from schemas.signing.enrolment import EnrollAnswer, PollRequest
from tests.support.devices import AccountsInMemory, AskingDevice, device_service, enrollment_requests
from tests.support.fakes import CLIENT, OPERATOR, Rig
from tests.support.job_rest import empty_database

NEW: Final = NewDevice(CLIENT, ("/data",))
ADDRESS: Final = "192.0.2.7"


@dataclass
class Site:
    """What takes the requests, over an engine whose clock the test moves."""

    rig: Rig
    requests: EnrollmentRequests
    accounts: AccountsInMemory = field(default_factory=AccountsInMemory)

    async def asked(self, device: AskingDevice, address: str = ADDRESS) -> EnrollAnswer:
        return await self.requests.begin(device.ask(), address)

    async def polled(self, device: AskingDevice, answer: EnrollAnswer) -> str | None:
        self.rig.clock.time += INTERVAL
        return (await self.requests.poll(device.poll(answer.device_code), ADDRESS)).sealed

    async def approved(self, device: AskingDevice) -> EnrollAnswer:
        answer = await self.asked(device)
        await self.requests.approve(OPERATOR, answer.user_code, device.fingerprint, NEW)
        return answer


@asynccontextmanager
async def rig_in(folder: Path, *, fleet: bool = False) -> AsyncIterator[Rig]:
    """An engine over a database of its own."""
    file = folder / "backhaul.db"
    if not file.exists():
        file.write_bytes(empty_database())
    database = SqlDatabase.open(f"sqlite:///{file}")
    async with Rig(database=database, fleet=fleet) as rig:
        yield rig
    await database.close()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with rig_in(tmp_path) as rig:
        accounts = AccountsInMemory()
        yield Site(rig, enrollment_requests(rig.engine, device_service(rig.engine, accounts)), accounts)


async def test_a_device_gets_its_bundle_once_an_operator_approved_its_code(site: Site) -> None:
    device = AskingDevice()
    answer = await site.asked(device)
    assert await site.polled(device, answer) is None
    enrolled = await site.requests.approve(OPERATOR, answer.user_code, device.fingerprint, NEW)
    assert (enrolled.state, enrolled.public_key) == (DeviceState.ENROLLED, device.signer.verifier.public_key)
    sealed = await site.polled(device, answer)
    assert sealed is not None
    bundle = device.open(sealed)
    assert (bundle.client_id, bundle.allowed_roots) == (CLIENT, ("/data",))
    # The answer may have been lost: it can be fetched again until the device comes with it.
    assert await site.polled(device, answer) == sealed
    pinner = KeyPinner(site.rig.database, site.rig.clock, lambda *_: None, site.rig.engine.pins)
    key = device.signer.verifier
    claim = claim_of(from_text(bundle.claim_secret or "", 32), CLIENT, key.public_key)
    assert await pinner.first_presence(Presence(CLIENT, "online", "i", 1, 1, key=key.text, claim=claim))
    with pytest.raises(UnknownEnrollment):
        await site.polled(device, answer)


async def test_only_the_key_that_was_approved_can_be_pinned(site: Site) -> None:
    device, thief = AskingDevice(), AskingDevice(b"t" * 32)
    answer = await site.approved(device)
    bundle = device.open(await site.polled(device, answer) or "")
    other = thief.signer.verifier
    claim = claim_of(from_text(bundle.claim_secret or "", 32), CLIENT, other.public_key)
    pinner = KeyPinner(site.rig.database, site.rig.clock, lambda *_: None, site.rig.engine.pins)
    assert not await pinner.first_presence(Presence(CLIENT, "online", "i", 1, 1, key=other.text, claim=claim))


async def test_the_sealed_bundle_opens_with_the_key_of_the_device_alone(site: Site) -> None:
    device = AskingDevice()
    sealed = await site.polled(device, await site.approved(device)) or ""
    with pytest.raises(CryptoError):
        AskingDevice().open(sealed)


async def test_a_request_to_whose_key_nothing_can_be_sealed_is_refused_at_once(site: Site) -> None:
    device = AskingDevice()
    device.seal_to = bytes(32)
    with pytest.raises(BadInput):
        await site.asked(device)
    assert await site.requests.waiting(OPERATOR) == []


async def test_a_device_that_asks_anew_while_it_is_approved_still_gets_its_bundle(site: Site) -> None:
    device = AskingDevice()
    answer = await site.asked(device)
    give = site.accounts.give

    async def slow(client_id: str) -> str:
        await site.asked(device)
        return await give(client_id)

    site.accounts.give = slow  # type: ignore[method-assign]
    await site.requests.approve(OPERATOR, answer.user_code, device.fingerprint, NEW)
    assert device.open(await site.polled(device, answer) or "").client_id == CLIENT


async def test_a_network_of_ipv6_asks_no_more_often_than_one_address(site: Site) -> None:
    for number in range(60):
        await site.asked(AskingDevice(bytes([number]) * 32), f"2001:db8::{number:x}")
    with pytest.raises(SlowDown):
        await site.asked(AskingDevice(), "2001:db8::ffff")
    await site.asked(AskingDevice(), "2001:db8:0:1::1")


async def test_a_request_that_its_key_did_not_sign_is_refused(site: Site) -> None:
    device, thief = AskingDevice(), AskingDevice(b"t" * 32)
    for changed in (
        device.ask(seal_to=to_text(thief.seal_to)),
        device.ask(nonce=to_text(b"x" * 16)),
        device.ask(key=thief.signer.verifier.text),
    ):
        with pytest.raises(BadInput):
            await site.requests.begin(changed, ADDRESS)
    assert await site.requests.waiting(OPERATOR) == []


async def test_a_poll_that_someone_saw_is_worth_nothing(site: Site) -> None:
    device, thief = AskingDevice(), AskingDevice(b"t" * 32)
    answer = await site.asked(device)
    site.rig.clock.time += INTERVAL
    seen = device.poll(answer.device_code)
    await site.requests.poll(seen, ADDRESS)
    site.rig.clock.time += INTERVAL
    forged = thief.poll(answer.device_code)
    later = PollRequest(answer.device_code, seen.sequence + 1, seen.signature)
    for replayed in (seen, forged, later):
        with pytest.raises(UnknownEnrollment):
            await site.requests.poll(replayed, ADDRESS)
    # The thief's polls did not make the device's own come too early.
    assert await site.polled(device, answer) is None


async def test_unknown_expired_and_rejected_are_answered_alike(site: Site) -> None:
    rejected, expired = AskingDevice(), AskingDevice(b"e" * 32)
    first, second = await site.asked(rejected), await site.asked(expired)
    await site.requests.reject(OPERATOR, first.user_code)
    site.rig.clock.time += EXPIRES_IN
    texts = set()
    for device, code in ((rejected, first.device_code), (expired, second.device_code), (rejected, "a" * 43)):
        with pytest.raises(UnknownEnrollment) as raised:
            await site.polled(device, EnrollAnswer(code, "", 5, 900))
        texts.add(str(raised.value))
    assert len(texts) == 1
    for code in (first.user_code, second.user_code, "AAAA-AAAA"):
        with pytest.raises(UnknownEnrollment):
            await site.requests.approve(OPERATOR, code, rejected.fingerprint, NEW)


async def test_a_poll_that_comes_early_waits_longer_each_time(site: Site) -> None:
    device = AskingDevice()
    answer = await site.asked(device)
    await site.polled(device, answer)
    waits = []
    for _ in range(3):
        with pytest.raises(SlowDown) as raised:
            await site.requests.poll(device.poll(answer.device_code), ADDRESS)
        waits.append(raised.value.retry_after)
    assert waits == [10, 15, 20]
    site.rig.clock.time += 20
    assert (await site.requests.poll(device.poll(answer.device_code), ADDRESS)).interval == 20


async def test_an_operator_who_compared_another_fingerprint_enrols_nothing(site: Site) -> None:
    device, thief = AskingDevice(), AskingDevice(b"t" * 32)
    answer = await site.asked(thief)
    with pytest.raises(DeviceRefused, match="fingerprint"):
        await site.requests.approve(OPERATOR, answer.user_code, device.fingerprint, NEW)
    assert await site.rig.database.read(lambda records: records.devices.get(CLIENT)) is None
    assert await site.polled(thief, answer) is None


async def test_requests_are_bounded_by_address_and_in_all(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(60):
        await site.asked(AskingDevice(bytes([number]) * 32))
    with pytest.raises(SlowDown):
        await site.asked(AskingDevice())
    await site.asked(AskingDevice(), "192.0.2.8")
    site.rig.clock.time += 60
    monkeypatch.setattr("control_plane.services.devices.requests.MOST", 61)
    with pytest.raises(SlowDown):
        await site.asked(AskingDevice(b"x" * 32))
    site.rig.clock.time += EXPIRES_IN
    await site.asked(AskingDevice(b"x" * 32))
    assert (MOST, len(ALPHABET) ** 8 > 2**39) == (10_000, True)


async def test_polls_of_one_address_are_bounded_before_anything_is_read(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A poll needs no token, and any text is a code: nothing else would bound what it costs."""
    device, stranger = AskingDevice(), AskingDevice(b"s" * 32)
    answer = await site.asked(device)
    site.rig.clock.time += INTERVAL
    while site.requests._polls.take(ADDRESS):
        pass
    with monkeypatch.context() as patch:
        patch.setattr(site.requests, "_database", None)
        with pytest.raises(SlowDown):
            await site.requests.poll(stranger.poll("a" * 43), ADDRESS)
    # Another address is served; so is this one, a little later.
    assert (await site.requests.poll(device.poll(answer.device_code), "192.0.2.8")).sealed is None
    site.rig.clock.time += INTERVAL
    assert await site.polled(device, answer) is None


async def test_a_device_that_asks_again_replaces_its_request(site: Site) -> None:
    device = AskingDevice()
    first = await site.asked(device)
    second = await site.asked(device)
    assert [one.user_code for one in await site.requests.waiting(OPERATOR)] == [second.user_code]
    with pytest.raises(UnknownEnrollment):
        await site.requests.approve(OPERATOR, first.user_code, device.fingerprint, NEW)


async def test_a_bundle_can_be_fetched_for_a_day(site: Site) -> None:
    device = AskingDevice()
    answer = await site.approved(device)
    site.rig.clock.time += FETCHED_FOR - 60
    assert await site.polled(device, answer) is not None
    site.rig.clock.time += 120
    with pytest.raises(UnknownEnrollment):
        await site.polled(device, answer)


async def test_a_fleet_without_a_root_of_trust_enrols_no_device_by_code(tmp_path: Path) -> None:
    async with rig_in(tmp_path) as rig:
        devices = device_service(rig.engine, root=lambda: None)
        site = Site(rig, enrollment_requests(rig.engine, devices))
        device = AskingDevice()
        answer = await site.asked(device)
        with pytest.raises(DeviceRefused, match="root of trust"):
            await site.requests.approve(OPERATOR, answer.user_code, device.fingerprint, NEW)
        assert await rig.database.read(lambda records: records.devices.get(CLIENT)) is None


async def test_a_revoked_key_asks_in_vain(site: Site) -> None:
    device = AskingDevice()
    key = device.signer.verifier.public_key
    await site.rig.database.write(lambda records: records.devices.revoke_key(key, "another", 1.0))
    await site.rig.engine.pins.load()
    with pytest.raises(BadInput, match="refused"):
        await site.asked(device)


async def test_every_replica_answers_a_device_that_asks(site: Site, tmp_path: Path) -> None:
    async with rig_in(tmp_path) as second:
        there = Site(second, enrollment_requests(second.engine, device_service(second.engine)))
        device = AskingDevice()
        answer = await site.asked(device)
        assert await there.polled(device, answer) is None
        assert [one.user_code for one in await there.requests.waiting(OPERATOR)] == [answer.user_code]
        await there.requests.approve(OPERATOR, answer.user_code, device.fingerprint, NEW)
        assert device.open(await site.polled(device, answer) or "").client_id == CLIENT
        assert await site.requests.waiting(OPERATOR) == []


async def test_an_approval_that_failed_half_way_is_done_by_a_second_one(site: Site) -> None:
    device = AskingDevice()
    answer = await site.asked(device)
    give = site.accounts.give

    async def down(client_id: str) -> str:
        raise AccountsDown(client_id)

    site.accounts.give = down  # type: ignore[method-assign]
    with pytest.raises(AccountsDown):
        await site.requests.approve(OPERATOR, answer.user_code, device.fingerprint, NEW)
    assert await site.polled(device, answer) is None
    site.accounts.give = give  # type: ignore[method-assign]
    await site.requests.approve(OPERATOR, answer.user_code, device.fingerprint, NEW)
    bundle = device.open(await site.polled(device, answer) or "")
    assert bundle.mqtt_password == site.accounts.passwords[CLIENT]
    # Another key gets nothing under this name.
    thief = AskingDevice(b"t" * 32)
    other = await site.asked(thief)
    with pytest.raises(DeviceRefused, match="enrolled already"):
        await site.requests.approve(OPERATOR, other.user_code, thief.fingerprint, NEW)
