"""What an operator does with devices: enrol, rotate, accept a key, revoke, forget.

Rule: the engine and its services are the shipped ones; the database is in memory, the clock stands still.
"""

import asyncio
import copy
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

import pytest

from control_plane.domain.devices import Device, DeviceState
from control_plane.domain.uploads.model import State
from control_plane.services.devices import clearing
from control_plane.services.devices.pinning import KeyPinner
from control_plane.services.devices.service import DeviceService, NewDevice
from control_plane.services.errors import (
    AccountsDown,
    BadInput,
    DatabaseUnavailable,
    DeviceBarred,
    DeviceRefused,
    UnknownDevice,
)
from control_plane.services.ports.database import Page
from control_plane.services.ports.messenger import Delivered
from schemas.codec import encode
from schemas.messages import ListFiles, Presence
from schemas.signing.canonical import fingerprint, from_text
from schemas.signing.claims import claim_of
from schemas.signing.ed25519 import Signer
from schemas.signing.enrolment import Bundle
from tests.support.devices import AccountsInMemory, a_root, device_service
from tests.support.fakes import CLIENT, OPERATOR, Rig

FIRST: Final = Signer(b"1" * 32).verifier
SECOND: Final = Signer(b"2" * 32).verifier
NEW: Final = NewDevice(CLIENT, ("/data",), ("https://s3.example.com/b/",), labels={"site": "berlin"})


@dataclass
class Site:
    """The engine, the use cases of devices over it, and the accounts."""

    rig: Rig
    devices: DeviceService
    accounts: AccountsInMemory
    pinner: KeyPinner

    async def presence(self, key: str, bundle: Bundle | None = None) -> bool:
        claim = None
        if bundle is not None:
            secret = from_text(bundle.claim_secret or "", 32)
            claim = claim_of(secret, CLIENT, from_text(key, 32))
        return await self.pinner.first_presence(Presence(CLIENT, "online", "i", 1, 1, key=key, claim=claim))

    async def pinned(self) -> Bundle:
        bundle = await self.devices.enroll(OPERATOR, NEW)
        assert await self.presence(FIRST.text, bundle)
        return bundle


def site_over(rig: Rig, **others: object) -> Site:
    accounts = AccountsInMemory()
    pinner = KeyPinner(rig.database, rig.clock, lambda *_: None, rig.engine.pins)
    return Site(rig, device_service(rig.engine, accounts, **others), accounts, pinner)


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with Rig() as rig:
        yield site_over(rig)


async def test_a_bundle_has_everything_that_a_device_needs(site: Site) -> None:
    bundle = await site.devices.enroll(OPERATOR, NEW)
    assert (bundle.client_id, bundle.mqtt_password) == (CLIENT, site.accounts.passwords[CLIENT])
    assert (bundle.allowed_roots, bundle.upload_hosts) == (("/data",), ("https://s3.example.com/b/",))
    assert (bundle.root, bundle.labels, bundle.device_seed) == (a_root(), {"site": "berlin"}, None)
    assert "password" not in repr(bundle)
    device = await site.devices.device(OPERATOR, CLIENT)
    assert (device.state, device.created_by, device.has_account) == (DeviceState.ENROLLED, "operator", True)
    with pytest.raises(DeviceRefused, match="rotate"):
        await site.devices.enroll(OPERATOR, NEW)
    assert site.accounts.given == 1


async def test_a_bundle_that_was_not_made_is_made_by_rotate(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async def down(client_id: str) -> str:
        raise AccountsDown(client_id)

    with monkeypatch.context() as patched:
        patched.setattr(site.accounts, "give", down)
        with pytest.raises(AccountsDown, match="`device rotate` makes one"):
            await site.devices.enroll(OPERATOR, NEW)
    assert await site.presence(FIRST.text, await site.devices.rotate(OPERATOR, NEW))


async def test_a_name_that_no_device_may_have_is_refused(site: Site) -> None:
    for name in ("control-plane-2", "a/b", "+"):
        with pytest.raises(BadInput):
            await site.devices.enroll(OPERATOR, NewDevice(name))


async def test_without_a_root_of_trust_a_device_is_known_by_its_account_alone() -> None:
    async with Rig() as rig:
        site = site_over(rig, root=lambda: None)
        bundle = await site.devices.enroll(OPERATOR, NEW)
        assert (bundle.root, bundle.claim_secret) == (None, None)
        assert rig.engine.pins.of(CLIENT) is None
        await site.devices.revoke(OPERATOR, CLIENT)
        assert rig.engine.pins.dispatchable(CLIENT) == "device_revoked"


async def test_rotate_replaces_the_password_and_keeps_the_key_until_another_is_claimed(site: Site) -> None:
    first = await site.pinned()
    second = await site.devices.rotate(OPERATOR, NEW)
    assert first.mqtt_password != second.mqtt_password
    assert first.claim_secret != second.claim_secret
    device = await site.devices.device(OPERATOR, CLIENT)
    assert (device.state, device.public_key) == (DeviceState.ACTIVE, FIRST.public_key)
    assert not await site.presence(SECOND.text, first)
    assert site.rig.engine.pins.dispatchable(CLIENT) == "key_alarm"
    # Whoever raised the alarm had the former password.
    await site.devices.rotate(OPERATOR, NEW)
    assert site.rig.engine.pins.dispatchable(CLIENT) is None
    with pytest.raises(UnknownDevice):
        await site.devices.rotate(OPERATOR, NewDevice("never-enrolled"))


async def test_a_device_that_was_installed_anew_comes_with_its_new_bundle(site: Site) -> None:
    await site.pinned()
    assert await site.presence(SECOND.text, await site.devices.rotate(OPERATOR, NEW))
    device = await site.devices.device(OPERATOR, CLIENT)
    assert (device.public_key, device.other_key) == (SECOND.public_key, None)
    assert site.rig.engine.pins.is_revoked_key(FIRST.public_key)


async def test_in_the_alarm_no_command_is_sent_until_the_key_is_accepted(site: Site) -> None:
    rig = site.rig
    await rig.birth()
    await site.pinned()
    assert not await site.presence(SECOND.text)
    view = await rig.trigger()
    assert [command.action for _, command in rig.messenger.sent] == []
    assert (await rig.reason(view.upload.upload_id)).code == "key_alarm"
    with pytest.raises(DeviceBarred):
        await rig.engine.client_service.files(OPERATOR, CLIENT, ListFiles(pattern="/data/*"))
    with pytest.raises(DeviceRefused, match="fingerprint"):
        await site.devices.accept_key(OPERATOR, CLIENT, fingerprint(FIRST.public_key))
    accepted = await site.devices.accept_key(OPERATOR, CLIENT, fingerprint(SECOND.public_key))
    assert (accepted.public_key, accepted.alarm) == (SECOND.public_key, False)
    assert rig.engine.pins.is_revoked_key(FIRST.public_key)
    await rig.settle(1)
    assert [command.action for _, command in rig.messenger.sent] == ["download_file"]
    with pytest.raises(DeviceRefused, match="no alarm"):
        await site.devices.accept_key(OPERATOR, CLIENT, fingerprint(SECOND.public_key))


async def test_a_revoked_key_that_raised_an_alarm_is_not_accepted(site: Site) -> None:
    await site.pinned()
    assert not await site.presence(SECOND.text)
    # Another name had the same key, and was revoked after the alarm.
    await site.rig.database.write(lambda records: records.devices.revoke_key(SECOND.public_key, "another", 2.0))
    with pytest.raises(DeviceRefused, match="revoked"):
        await site.devices.accept_key(OPERATOR, CLIENT, fingerprint(SECOND.public_key))
    assert (await site.devices.device(OPERATOR, CLIENT)).public_key == FIRST.public_key


async def test_revoke_ends_what_the_device_has_open_and_removes_its_account(site: Site) -> None:
    rig = site.rig
    upload = await rig.granted()
    await site.pinned()
    rig.messenger.sent.clear()
    gone = await site.devices.revoke(OPERATOR, CLIENT)
    await rig.settle()
    assert (gone.state, gone.revoked_by, gone.public_key) == (DeviceState.REVOKED, "operator", FIRST.public_key)
    assert (await rig.upload(upload.upload_id)).state is State.CANCELLED
    assert upload.s3_upload_id not in rig.objects.multipart
    assert site.accounts.passwords == {}
    assert rig.messenger.cleared == [CLIENT]
    assert rig.messenger.sent == []
    client = await rig.engine.client_service.client(OPERATOR, CLIENT)
    assert not client.online


async def test_a_device_at_work_keeps_its_password(site: Site) -> None:
    """It may connect again before it has its bundle."""
    password = await site.accounts.give(CLIENT)
    bundle = await site.devices.enroll(OPERATOR, replace(NEW, keep_account=True))
    assert (bundle.mqtt_password, site.accounts.passwords) == (None, {CLIENT: password})
    assert await site.presence(FIRST.text, bundle)
    await site.devices.revoke(OPERATOR, CLIENT)
    assert site.accounts.passwords == {}


async def test_without_an_account_none_is_kept_and_nothing_is_enrolled(site: Site) -> None:
    wanted = replace(NEW, keep_account=True)
    with pytest.raises(DeviceRefused, match="no account at the broker"):
        await site.devices.enroll(OPERATOR, wanted)
    with pytest.raises(UnknownDevice):
        await site.devices.device(OPERATOR, CLIENT)
    # A control plane that makes no accounts changes none.
    bundle = await device_service(site.rig.engine, accounts=None).enroll(OPERATOR, wanted)
    assert bundle.mqtt_password is None


class SlowAccounts(AccountsInMemory):
    """A broker whose accounts take long to change: `wait` returns when the test lets it."""

    wait: Callable[[], Awaitable[object]]

    async def remove(self, client_id: str) -> None:
        await self.wait()
        await super().remove(client_id)


async def test_revoke_ends_uploads_before_it_waits_for_the_broker(site: Site) -> None:
    """Its URLs are used up to the last moment: what they make must not wait until the broker is done."""
    rig, begun, go = site.rig, asyncio.Event(), asyncio.Event()
    upload = await rig.granted()
    await site.pinned()
    slow = SlowAccounts()

    async def wait() -> None:
        begun.set()
        await go.wait()

    slow.wait = wait
    revoking = asyncio.create_task(device_service(rig.engine, slow).revoke(OPERATOR, CLIENT))
    async with asyncio.timeout(60):
        await begun.wait()
        await rig.settle()
        meanwhile = await rig.upload(upload.upload_id), set(rig.objects.multipart), list(rig.messenger.cleared)
        go.set()
        await revoking
    assert meanwhile[0].state is State.CANCELLED
    assert upload.s3_upload_id not in meanwhile[1]
    assert meanwhile[2] == []
    await rig.settle()
    assert rig.messenger.cleared == [CLIENT]


async def test_revoke_removes_the_account_also_when_the_uploads_cannot_be_ended(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.pinned()

    async def away(*_: object) -> int:
        raise DatabaseUnavailable("away")  # noqa: EM101 - a fake

    monkeypatch.setattr(site.rig.engine.upload_service, "end_all", away)
    with pytest.raises(DatabaseUnavailable):
        await site.devices.revoke(OPERATOR, CLIENT)
    await site.rig.settle()
    assert site.accounts.passwords == {}
    assert site.rig.messenger.cleared == [CLIENT]


async def test_the_presence_of_a_revoked_device_that_a_restart_left_is_cleared(site: Site) -> None:
    """The will came after the first clearing, and the process ended before the second: the next one gets it stored."""
    rig = site.rig
    device = Device(CLIENT, DeviceState.REVOKED, 1.0, "ana", public_key=FIRST.public_key)
    await rig.database.write(lambda records: records.devices.save(device))
    await rig.engine.pins.load()
    stored = encode(Presence(CLIENT, "offline", "i", 1, 1))
    for _ in range(3):
        rig.engine.inbox.receive(Delivered(rig.topics.presence(CLIENT), stored, retained=True))
        await rig.settle()
    assert rig.messenger.cleared == [CLIENT]


async def test_what_a_device_retains_that_was_enrolled_again_stays(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clearing, "CLEAR_AGAIN", 0.0)
    await site.pinned()
    await site.devices.revoke(OPERATOR, CLIENT)
    await site.rig.settle()
    assert site.rig.messenger.cleared == [CLIENT, CLIENT]
    await site.devices.rotate(OPERATOR, NEW)
    site.rig.engine.clearer.begin(CLIENT)
    await site.rig.settle()
    assert site.rig.messenger.cleared == [CLIENT, CLIENT]


async def test_an_account_that_was_made_elsewhere_is_removed_too(site: Site) -> None:
    """The device was enrolled before BROKER_ACCESS was set; its account is in the same files."""
    await site.pinned()
    device = await site.devices.device(OPERATOR, CLIENT)
    await site.rig.database.write(lambda records: records.devices.save(replace(device, has_account=False)))
    await site.devices.revoke(OPERATOR, CLIENT)
    assert site.accounts.passwords == {}


async def test_revoke_leaves_the_key_of_another_device_alone(site: Site) -> None:
    """A device that speaks under the name of another raises the alarm there, with the key that is its own."""
    await site.pinned()
    other = Device("another", DeviceState.ACTIVE, 1.0, "ana", public_key=SECOND.public_key)
    await site.rig.database.write(lambda records: records.devices.save(other))
    assert not await site.presence(SECOND.text)
    await site.devices.revoke(OPERATOR, CLIENT)
    pins = site.rig.engine.pins
    assert pins.is_revoked_key(FIRST.public_key)
    assert not pins.is_revoked_key(SECOND.public_key)


async def test_a_revoked_key_is_refused_and_a_repeat_repeats_what_follows(site: Site) -> None:
    await site.pinned()
    await site.devices.revoke(OPERATOR, CLIENT)
    assert not await site.presence(FIRST.text)
    site.accounts.passwords[CLIENT] = "left over"
    await site.devices.revoke(OPERATOR, CLIENT)
    assert site.accounts.passwords == {}
    again = await site.devices.rotate(OPERATOR, NEW)
    assert not await site.presence(FIRST.text, again)
    assert await site.presence(SECOND.text, again)


async def test_after_a_restore_a_device_is_revoked_once_more(site: Site) -> None:
    """Steps of docs/how-to/back-up.md: the backup is older than the revocation, and than the last enrolment."""
    await site.pinned()
    backup = copy.deepcopy(site.rig.database)
    await site.devices.revoke(OPERATOR, CLIENT)
    await site.devices.enroll(OPERATOR, replace(NEW, client_id="later"))
    async with Rig(database=backup) as rig:
        restored = site_over(rig)
        restored.accounts.passwords[CLIENT] = "restored"
        await rig.engine.pins.load()
        assert (await restored.devices.device(OPERATOR, CLIENT)).state is DeviceState.ACTIVE
        assert not rig.engine.pins.is_revoked_key(FIRST.public_key)
        await restored.devices.revoke(OPERATOR, CLIENT)
        assert rig.engine.pins.is_revoked_key(FIRST.public_key)
        assert restored.accounts.passwords == {}
        # Also with the claim of an enrolment that follows.
        assert not await restored.presence(FIRST.text, await restored.devices.rotate(OPERATOR, NEW))
        bundle = await restored.devices.enroll(OPERATOR, replace(NEW, client_id="later"))
        assert bundle.claim_secret is not None


async def test_only_a_revoked_device_is_forgotten_and_its_key_stays_refused(site: Site) -> None:
    await site.pinned()
    with pytest.raises(DeviceRefused, match="revoke it first"):
        await site.devices.forget(OPERATOR, CLIENT)
    await site.devices.revoke(OPERATOR, CLIENT)
    await site.devices.forget(OPERATOR, CLIENT)
    assert await site.devices.devices(OPERATOR, Page()) == ([], None)
    assert site.rig.engine.pins.is_revoked_key(FIRST.public_key)
    with pytest.raises(UnknownDevice):
        await site.devices.device(OPERATOR, CLIENT)


async def test_the_list_of_keys_that_a_device_obeys_is_that_of_its_last_presence(site: Site) -> None:
    assert await site.devices.keys_versions([CLIENT, "nobody"]) == {}
    await site.rig.birth()
    assert await site.devices.keys_versions([CLIENT, "nobody"]) == {CLIENT: None}
    await site.rig.birth(sequence=1, keys_version=4)
    assert await site.devices.keys_versions([CLIENT]) == {CLIENT: 4}


def test_a_device_shows_no_secret() -> None:
    device = Device("a", DeviceState.ENROLLED, 1.0, "ana", claim_secret=b"secret" * 5)
    assert "secret" not in repr(device)
