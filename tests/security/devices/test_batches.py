"""Attacks on the token of a batch.

Rule: keys, signatures and sealed bundles are real; only the clock and the accounts are the test's.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from control_plane.domain.batches import Batch
from control_plane.domain.devices import DeviceState
from control_plane.services.audit.ports import AuditFilter
from control_plane.services.devices.batches import REFUSED, NewBatch
from control_plane.services.devices.requests import EXPIRES_IN
from control_plane.services.devices.service import NewDevice
from control_plane.services.errors import AccountsDown, BadInput, UnknownBatch, UnknownEnrollment
from control_plane.services.ports.database import Page
from schemas.signing.canonical import to_text
from tests.security.devices.test_enrolment import ADDRESS, Site, rig_in
from tests.support.devices import AccountsInMemory, AskingDevice, device_service, enrollment_requests
from tests.support.fakes import OPERATOR

TILLS = NewBatch("till-{n:03}", 2, 3_600.0, auto=True, settings=NewDevice("", ("/data",), labels={"site": "berlin"}))


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with rig_in(tmp_path, fleet=True) as rig:
        accounts = AccountsInMemory()
        yield Site(rig, enrollment_requests(rig.engine, device_service(rig.engine, accounts)), accounts)


def device(number: int) -> AskingDevice:
    return AskingDevice(bytes([number]) * 32)


async def made(site: Site, new: NewBatch = TILLS) -> tuple[Batch, str]:
    return await site.requests.batches.create(OPERATOR, new)


async def name_of(site: Site, one: AskingDevice, token: str, serial: str | None = None) -> str:
    answer = await site.requests.begin(one.ask(token, serial), ADDRESS)
    bundle = one.open(await site.polled(one, answer) or "")
    assert (bundle.allowed_roots, bundle.labels) == (("/data",), {"site": "berlin"})
    assert bundle.mqtt_password == site.accounts.passwords[bundle.client_id]
    return bundle.client_id


async def asked_in_vain(site: Site, one: AskingDevice, token: str) -> None:
    """The device asks while the accounts of the broker cannot be changed."""
    give = site.accounts.give

    async def down(client_id: str) -> str:
        raise AccountsDown(client_id)

    site.accounts.give = down  # type: ignore[method-assign]
    with pytest.raises(AccountsDown):
        await site.requests.begin(one.ask(token), ADDRESS)
    site.accounts.give = give  # type: ignore[method-assign]


async def refused(site: Site, one: AskingDevice, token: str, serial: str | None = None) -> None:
    """Whatever is wrong: the same words."""
    with pytest.raises(BadInput) as raised:
        await site.requests.begin(one.ask(token, serial), ADDRESS)
    assert str(raised.value) == REFUSED


async def test_each_device_of_a_batch_gets_the_next_name_and_no_more_than_the_count(site: Site) -> None:
    _, token = await made(site)
    assert await name_of(site, device(1), token) == "till-001"
    assert await name_of(site, device(2), token) == "till-002"
    await refused(site, device(3), token)
    found = await site.rig.database.read(lambda records: records.devices.pinned())
    assert sorted(one.client_id for one in found) == ["till-001", "till-002"]


async def test_devices_that_come_at_once_never_share_a_name_nor_pass_the_count(site: Site) -> None:
    _, token = await made(site)
    asked = [site.requests.begin(device(number).ask(token), ADDRESS) for number in range(1, 9)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert sum(isinstance(one, BadInput) for one in answers) == 6
    found = await site.rig.database.read(lambda records: records.devices.pinned())
    assert sorted(one.client_id for one in found) == ["till-001", "till-002"]
    assert len({one.public_key for one in found}) == 2


async def test_a_repeat_takes_no_second_name(site: Site) -> None:
    _, token = await made(site)
    one = device(1)
    first = await site.requests.begin(one.ask(token), ADDRESS)
    assert await site.requests.begin(one.ask(token), ADDRESS) == first, "a replay makes no other bundle"
    assert site.accounts.given == 1
    again = device(1)
    assert await name_of(site, again, token) == "till-001"
    assert await name_of(site, device(2), token) == "till-002"


async def test_a_token_ends_by_time_by_revocation_and_is_not_guessed(site: Site) -> None:
    batch, token = await made(site)
    await refused(site, device(1), "A" * 43)
    await refused(site, device(1), token[:-1] + ("A" if token[-1] != "A" else "B"))
    site.rig.clock.time += 3_600
    await refused(site, device(1), token)
    other, second = await made(site)
    await site.requests.batches.revoke(OPERATOR, other.batch_id)
    await refused(site, device(1), second)
    with pytest.raises(UnknownBatch):
        await site.requests.batches.revoke(OPERATOR, "0" * 16)
    assert token not in repr(batch) + repr(device(1).ask(token))
    assert await site.rig.database.read(lambda records: records.devices.pinned()) == []


async def test_a_token_that_was_not_signed_with_the_request_is_refused(site: Site) -> None:
    _, token = await made(site)
    with pytest.raises(BadInput, match="not signed"):
        await site.requests.begin(replace(device(1).ask(), token=token), ADDRESS)
    with pytest.raises(BadInput, match="not signed"):
        await site.requests.begin(replace(device(1).ask(token, "A1"), serial="A2"), ADDRESS)


async def test_a_serial_without_a_token_is_no_request(site: Site) -> None:
    """Else its text could stand for the digest of a token in what is signed."""
    with pytest.raises(BadInput, match="serial"):
        await site.requests.begin(device(1).ask(None, "A1"), ADDRESS)


async def test_devices_that_never_joined_cost_a_batch_nothing_once_their_codes_are_over(site: Site) -> None:
    _, token = await made(site, NewBatch("till-{n}", 2, 3_600.0, settings=TILLS.settings))
    for number in (1, 2):
        await site.requests.begin(device(number).ask(token), ADDRESS)
    await refused(site, device(3), token)
    site.rig.clock.time += EXPIRES_IN
    kept = await site.requests.begin(device(2).ask(token), ADDRESS)
    await site.requests.begin(device(3).ask(token), ADDRESS)
    waiting = await site.requests.waiting(OPERATOR)
    assert [(one.public_key, one.client_id) for one in sorted(waiting, key=lambda one: one.client_id or "")] == [
        (device(3).signer.verifier.public_key, "till-1"),
        (device(2).signer.verifier.public_key, "till-2"),
    ]
    await site.requests.approve(OPERATOR, kept.user_code, device(2).fingerprint, NewDevice("till-2"))
    await site.requests._devices.revoke(OPERATOR, "till-2")
    await site.requests._devices.forget(OPERATOR, "till-2")
    await refused(site, device(4), token)


async def test_the_names_of_a_batch_that_was_revoked_go_to_its_successor(site: Site) -> None:
    """A thief who asked for each name and never joined would else block them for every batch."""
    new = NewBatch("till-{n}", 2, 3_600.0, settings=TILLS.settings)
    leaked, stolen = await made(site, new)
    for number in (1, 2):
        await site.requests.begin(device(number).ask(stolen), ADDRESS)
    await site.requests.batches.revoke(OPERATOR, leaked.batch_id)
    _, token = await made(site, new)
    await refused(site, device(3), token)
    site.rig.clock.time += EXPIRES_IN
    for number in (3, 4):
        await site.requests.begin(device(number).ask(token), ADDRESS)
    waiting = await site.requests.waiting(OPERATOR)
    assert {one.public_key: one.client_id for one in waiting} == {
        device(3).signer.verifier.public_key: "till-1",
        device(4).signer.verifier.public_key: "till-2",
    }


async def test_the_name_of_a_device_that_joined_is_never_given_again_also_when_its_batch_was_deleted(
    site: Site,
) -> None:
    """Not when the device is revoked and forgotten either; one that nobody joined by is free."""
    new = NewBatch("till-{n}", 3, 3_600.0, settings=TILLS.settings)
    _, token = await made(site, new)
    answers = [await site.requests.begin(device(number).ask(token), ADDRESS) for number in (1, 2, 3)]
    devices = site.requests._devices
    for number in (1, 2):
        code, name = answers[number - 1].user_code, f"till-{number}"
        await site.requests.approve(OPERATOR, code, device(number).fingerprint, NewDevice(name))
    await devices.revoke(OPERATOR, "till-1")
    await devices.forget(OPERATOR, "till-1")
    history, batches = site.rig.policy.history, site.requests.batches
    site.rig.clock.time += 3_600.0 + history - 1
    await site.rig.engine.maintenance.prune()
    assert len(await batches.batches(OPERATOR)) == 1
    site.rig.clock.time += 2
    await site.rig.engine.maintenance.prune()
    assert await batches.batches(OPERATOR) == []
    await refused(site, device(4), token)
    _, successor = await made(site, new)
    answer = await site.requests.begin(device(4).ask(successor), ADDRESS)
    (waiting,) = await site.requests.waiting(OPERATOR)
    assert (waiting.user_code, waiting.client_id) == (answer.user_code, "till-3")
    for number in (2, 5):
        await refused(site, device(number), successor)
    with pytest.raises(BadInput, match="this key is refused"):
        await site.requests.begin(device(1).ask(successor), ADDRESS)


async def test_a_key_whose_name_became_that_of_another_device_gets_the_next_one(site: Site) -> None:
    _, token = await made(site)
    one = device(1)
    await asked_in_vain(site, one, token)
    devices = site.requests._devices
    await devices.rotate(OPERATOR, NewDevice("till-001"))
    assert await name_of(site, one, token) == "till-002"
    assert (await devices.device(OPERATOR, "till-001")).public_key is None


async def test_a_token_that_is_refused_waits_for_no_other_device(site: Site) -> None:
    """Anyone can send one: it would else hold up those that join, and write."""
    batch, token = await made(site)
    await site.requests.batches.revoke(OPERATOR, batch.batch_id)
    async with asyncio.timeout(60), site.requests._approving:
        await refused(site, device(1), "A" * 43)
        await refused(site, device(1), token)
        assert site.requests._approving.locked()


async def test_of_two_bundles_for_one_key_the_device_can_fetch_the_later_one_alone(site: Site) -> None:
    """Two replicas take a request and its repeat at once; the claim of the first bundle is over."""
    _, token = await made(site)
    one, other = device(1), enrollment_requests(site.rig.engine, site.requests._devices)
    give, asked, go_on = site.accounts.give, asyncio.Event(), asyncio.Event()

    async def slow(client_id: str) -> str:
        site.accounts.give = give  # type: ignore[method-assign]
        password = await give(client_id)
        asked.set()
        await go_on.wait()
        return password

    site.accounts.give = slow  # type: ignore[method-assign]
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        first = group.create_task(site.requests.begin(one.ask(token), ADDRESS))
        await asked.wait()
        second = await other.begin(one.ask(token), ADDRESS)
        go_on.set()
    with pytest.raises(UnknownEnrollment):
        await site.polled(one, first.result())
    bundle = one.open(await site.polled(one, second) or "")
    assert bundle.mqtt_password == site.accounts.passwords["till-001"]
    stored = await site.requests._devices.device(OPERATOR, "till-001")
    assert bundle.claim_secret == to_text(stored.claim_secret or b"")


async def test_a_key_that_was_approved_under_another_name_gets_no_second_one(site: Site) -> None:
    _, token = await made(site, NewBatch("till-{n}", 2, 3_600.0, settings=TILLS.settings))
    answer = await site.requests.begin(device(1).ask(token), ADDRESS)
    await site.requests.approve(OPERATOR, answer.user_code, device(1).fingerprint, NewDevice("the-first-till"))
    await refused(site, device(1), token)
    found = await site.rig.database.read(lambda records: records.devices.pinned())
    assert [one.client_id for one in found] == ["the-first-till"]


async def test_a_serial_is_one_device(site: Site) -> None:
    listed = NewBatch("till-{serial}", 2, 3_600.0, auto=True, serials=("A1", "A2"), settings=TILLS.settings)
    _, token = await made(site, listed)
    assert await name_of(site, device(1), token, "A2") == "till-A2"
    await refused(site, device(2), token, "A2")
    await refused(site, device(2), token, "A3")
    await refused(site, device(2), token)
    await refused(site, device(1), token, "A1")
    assert await name_of(site, device(2), token, "A1") == "till-A1"


async def test_without_auto_a_person_approves_the_name_that_is_proposed(site: Site) -> None:
    _, token = await made(site, NewBatch("till-{n}", 1, 3_600.0, settings=TILLS.settings))
    one, other = device(1), device(2)
    answer = await site.requests.begin(one.ask(token), ADDRESS)
    assert await site.polled(one, answer) is None
    (waiting,) = await site.requests.waiting(OPERATOR)
    assert waiting.client_id == "till-1"
    await refused(site, other, token)
    await site.requests.reject(OPERATOR, answer.user_code)
    answer = await site.requests.begin(other.ask(token), ADDRESS)
    enrolled = await site.requests.approve(OPERATOR, answer.user_code, other.fingerprint, NewDevice("till-1"))
    assert (enrolled.client_id, enrolled.state) == ("till-1", DeviceState.ENROLLED)
    bundle = other.open(await site.polled(other, answer) or "")
    assert (bundle.allowed_roots, bundle.labels) == (("/data",), {"site": "berlin"})


async def test_a_broker_that_was_away_costs_no_name(site: Site) -> None:
    _, token = await made(site)
    one = device(1)
    await asked_in_vain(site, one, token)
    assert await name_of(site, one, token) == "till-001"


async def test_the_audit_names_the_batch_and_never_the_token(site: Site) -> None:
    batch, token = await made(site)
    await name_of(site, device(1), token)
    await site.requests.batches.revoke(OPERATOR, batch.batch_id)
    await site.requests.batches.revoke(OPERATOR, batch.batch_id)
    found, _ = await site.rig.database.read(lambda records: records.audit.list(AuditFilter(), Page(50)))
    acts = [(one.document["act"], one.document["subject"]) for one in reversed(found)]
    assert acts == [
        ("batch.create", OPERATOR.subject),
        ("device.approve", f"batch:{batch.batch_id}"),
        ("batch.revoke", OPERATOR.subject),
    ]
    assert token not in json.dumps([one.document for one in found])
