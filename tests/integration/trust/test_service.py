"""The documents of trust in the database, as a control plane reads them at its start."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from control_plane.adapters.database import SqlDatabase
from control_plane.domain.access import ALL, Principal, Scope
from control_plane.domain.errors import Forbidden
from control_plane.services.errors import UntrustedKeys
from control_plane.services.trust.keyring import ControlPlaneKey
from control_plane.services.trust.service import TrustService
from schemas.signing.ed25519 import Signer
from schemas.signing.trust import encode_trust, root_digest
from schemas.topics import Topics
from tests.support.fakes import FakeClock, FakeMessenger
from tests.support.job_rest import empty_database
from tests.unit.device_agent.trust.fleet import ALICE, BOB, PLANE, ROOT_1, entry, keys_of, operator, published

ANA = Principal("ana")


class Site:
    """A database, and control planes over it."""

    def __init__(self, database: SqlDatabase) -> None:
        self.database = database
        self.events: list[tuple[str, Mapping[str, Any]]] = []

    def service(self, signer: Signer, root: str = Topics().root, pin: str | None = None) -> TrustService:
        def log(event: str, facts: Mapping[str, Any]) -> None:
            self.events.append((event, facts))

        topics, key = Topics(root), ControlPlaneKey(signer)
        return TrustService(self.database, FakeClock(), log, FakeMessenger(), topics, key, pin)

    async def publish(self, *listed: Signer, version: int = 1) -> None:
        document = encode_trust(published(keys_of(*map(entry, listed), version=version)))
        await self.service(PLANE).replace(ANA, document)

    def unlisted(self) -> list[tuple[str, int]]:
        return [(facts["kid"], facts["version"]) for event, facts in self.events if event == "keys.unlisted"]


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    file = tmp_path / "site.db"
    file.write_bytes(empty_database())
    database = SqlDatabase.open(f"sqlite:///{file}")
    yield Site(database)
    await database.close()


async def test_a_control_plane_whose_key_is_not_listed_says_so_once_for_each_list(site: Site) -> None:
    """After a restore without its key file, say: the devices drop what it sends, and answer nothing."""
    await site.publish(PLANE)
    assert site.unlisted() == []
    other = site.service(BOB)
    for _ in range(3):
        await other.load()
    assert site.unlisted() == [(BOB.kid, 1)]
    await site.publish(PLANE, BOB, version=2)
    await other.load()
    assert site.unlisted() == [(BOB.kid, 1)]


async def test_keys_of_another_fleet_are_refused_with_what_to_do(site: Site) -> None:
    await site.publish(PLANE, ALICE)
    with pytest.raises(UntrustedKeys, match="TOPIC_ROOT"):
        await site.service(PLANE, "other/v1").load()


FIRST = encode_trust(published(keys_of(entry(PLANE))))
LEAKED = (
    Principal("leaked", frozenset({Scope.DEVICES_ADMIN})),
    Principal("leaked", ALL - {Scope.METRICS_READ}),
    Principal("leaked", clients="site=berlin"),
)


@pytest.mark.parametrize("caller", LEAKED)
async def test_the_right_to_administer_devices_founds_no_root_of_trust(site: Site, caller: Principal) -> None:
    """Devices that are enrolled later would obey whoever holds that root, and the control plane no more."""
    with pytest.raises(Forbidden, match="TRUST_ROOT"):
        await site.service(PLANE).replace(caller, FIRST)
    assert await site.database.read(lambda records: records.trust.get()) is None
    await site.publish(PLANE)
    later = encode_trust(published(keys_of(entry(PLANE), version=2)))
    assert (await site.service(PLANE).replace(caller, later)).version == 2


async def test_the_root_of_the_settings_is_the_only_one(site: Site) -> None:
    """By whomever it is published, and also where another one stands in the database already."""
    pinned, other = site.service(PLANE, pin=root_digest(ROOT_1)), site.service(PLANE, pin="0" * 64)
    with pytest.raises(UntrustedKeys, match="SHA-256"):
        await other.replace(ANA, FIRST)
    assert (await pinned.replace(LEAKED[0], FIRST)).version == 1
    with pytest.raises(UntrustedKeys, match="TRUST_ROOT"):
        await other.load()


async def test_only_a_pinned_root_says_whose_receipts_count(site: Site) -> None:
    """Else the list is what the database says; and an operator's key is no witness."""
    document = encode_trust(published(keys_of(entry(PLANE), entry(BOB), operator(ALICE))))
    await site.service(PLANE).replace(ANA, document)
    for pin, witnesses in ((None, []), (root_digest(ROOT_1), [PLANE, BOB])):
        service = site.service(PLANE, pin=pin)
        assert not service.lists_witness(PLANE.verifier.text)
        await service.load()
        assert [one for one in (PLANE, BOB, ALICE) if service.lists_witness(one.verifier.text)] == witnesses
