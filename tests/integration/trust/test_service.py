"""The documents of trust in the database, as a control plane reads them at its start."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from control_plane.adapters.database import SqlDatabase
from control_plane.domain.access import Principal
from control_plane.services.errors import UntrustedKeys
from control_plane.services.trust.keyring import ControlPlaneKey
from control_plane.services.trust.service import TrustService
from schemas.signing.ed25519 import Signer
from schemas.signing.trust import encode_trust
from schemas.topics import Topics
from tests.support.fakes import FakeClock, FakeMessenger
from tests.support.job_rest import empty_database
from tests.unit.device_agent.trust.fleet import ALICE, BOB, PLANE, entry, keys_of, published

ANA = Principal("ana")


class Site:
    """A database, and control planes over it."""

    def __init__(self, database: SqlDatabase) -> None:
        self.database = database
        self.events: list[tuple[str, Mapping[str, Any]]] = []

    def service(self, signer: Signer, root: str = Topics().root) -> TrustService:
        def log(event: str, facts: Mapping[str, Any]) -> None:
            self.events.append((event, facts))

        topics, key = Topics(root), ControlPlaneKey(signer)
        return TrustService(self.database, FakeClock(), log, FakeMessenger(), topics, key)

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
