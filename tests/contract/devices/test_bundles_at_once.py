"""Two replicas that make a bundle for one device at once: what is handed out last has the password that counts.

Rule: the replicas share the database and the broker's accounts, and nothing else; `Interrupted` is where one overtakes.
"""

from collections.abc import Awaitable, Callable
from typing import Final

import pytest

from control_plane.services.devices.service import NewDevice
from control_plane.services.errors import DeviceRefused
from control_plane.services.ports.database import Database
from schemas.signing.canonical import to_text
from schemas.signing.enrolment import Bundle
from tests.support.databases import migrated, sql_database
from tests.support.devices import AccountsInMemory, AskingDevice, device_service, enrollment_requests
from tests.support.fakes import CLIENT, OPERATOR, Rig
from tests.support.postgres import postgres

__all__ = ["migrated", "postgres", "sql_database"]

NEW: Final = NewDevice(CLIENT)
Other = Callable[[], Awaitable[object]]


class Interrupted(AccountsInMemory):
    """The accounts as one replica changes them: the first `times` changes wait until another one has made a bundle."""

    def __init__(self, shared: AccountsInMemory, other: Other, times: int = 1) -> None:
        super().__init__()
        self._shared, self._other, self._times = shared, other, times

    async def give(self, client_id: str) -> str:
        if self._times:
            self._times -= 1
            await self._other()
        return await self._shared.give(client_id)


async def counts(database: Database, shared: AccountsInMemory, bundle: Bundle) -> bool:
    """Whether the broker lets in who has this bundle, and the control plane takes its claim."""
    device = await database.read(lambda records: records.devices.get(CLIENT))
    assert device is not None
    assert device.claim_secret is not None
    return bundle.mqtt_password == shared.passwords[CLIENT] and bundle.claim_secret == to_text(device.claim_secret)


async def test_a_bundle_that_another_replica_overtook_is_made_anew(sql_database: Database) -> None:
    async with Rig(database=sql_database) as rig:
        shared = AccountsInMemory()
        other = device_service(rig.engine, shared)
        await other.enroll(OPERATOR, NEW)
        mine = device_service(rig.engine, Interrupted(shared, lambda: other.rotate(OPERATOR, NEW)))
        assert await counts(sql_database, shared, await mine.rotate(OPERATOR, NEW))


async def test_a_device_that_two_replicas_approve_gets_a_password_that_counts(sql_database: Database) -> None:
    async with Rig(database=sql_database) as rig:
        shared, device = AccountsInMemory(), AskingDevice()
        other = enrollment_requests(rig.engine, device_service(rig.engine, shared))
        answer = await other.begin(device.ask(), "192.0.2.7")

        async def approve() -> None:
            await other.approve(OPERATOR, answer.user_code, device.fingerprint, NEW)

        mine = enrollment_requests(rig.engine, device_service(rig.engine, Interrupted(shared, approve)))
        await mine.approve(OPERATOR, answer.user_code, device.fingerprint, NEW)
        rig.clock.time += 5
        sealed = (await other.poll(device.poll(answer.device_code), "192.0.2.7")).sealed
        assert sealed is not None
        assert await counts(sql_database, shared, device.open(sealed))


async def test_who_is_overtaken_again_and_again_hands_out_nothing(sql_database: Database) -> None:
    async with Rig(database=sql_database) as rig:
        shared = AccountsInMemory()
        other = device_service(rig.engine, shared)
        await other.enroll(OPERATOR, NEW)
        mine = device_service(rig.engine, Interrupted(shared, lambda: other.rotate(OPERATOR, NEW), times=1_000))
        with pytest.raises(DeviceRefused, match="at the same time"):
            await mine.rotate(OPERATOR, NEW)
