"""The documents of trust reach the broker, the latest ones, and what the broker refuses is not tried without end."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pytest

from control_plane.adapters.database import SqlDatabase
from control_plane.services.errors import BrokerRefused, MessengerDown
from control_plane.services.ports.database import Records
from control_plane.services.ports.messenger import UserProperties
from control_plane.services.trust.publication import LONGEST_WAIT
from control_plane.services.trust.service import TrustService
from schemas.signing.trust import encode_trust
from schemas.topics import Channel, Topics
from tests.security.signed.rig import PLANE
from tests.support.fakes import OPERATOR, FakeClock, FakeMessenger, Rig
from tests.support.job_rest import empty_database
from tests.support.signed_fleet import Roots

T = TypeVar("T")


class RefusingMessenger(FakeMessenger):
    """Refuses what `error` says; counts the tries."""

    error: BrokerRefused | MessengerDown | None = None
    tries = 0

    async def publish(
        self,
        channel: Channel,
        client_id: str,
        payload: bytes,
        *,
        traceparent: str | None = None,
        properties: UserProperties = (),
    ) -> None:
        self.tries += 1
        if self.error is not None:
            raise self.error
        await super().publish(channel, client_id, payload, traceparent=traceparent, properties=properties)


class SlowDatabase:
    """The first read after `slow` is set gives what was there when it began, when `go` is set."""

    def __init__(self, database: SqlDatabase) -> None:
        self._database = database
        self.slow = False
        self.waits = asyncio.Event()
        self.go = asyncio.Event()
        self.write = database.write

    async def read(self, work: Callable[[Records], T]) -> T:
        waits, self.slow = self.slow, False
        found = await self._database.read(work)
        if waits:
            self.waits.set()
            await self.go.wait()
        return found


class Site:
    def __init__(self, database: SqlDatabase) -> None:
        self.database = SlowDatabase(database)
        self.clock = FakeClock()
        self.messenger = RefusingMessenger()
        self.events: list[tuple[str, Mapping[str, Any]]] = []
        self.roots = Roots()
        self.service = self.replica()

    def replica(self) -> TrustService:
        def log(event: str, facts: Mapping[str, Any]) -> None:
            self.events.append((event, facts))

        database: Any = self.database
        return TrustService(database, self.clock, log, self.messenger, Topics(), PLANE)

    async def publish(self, by: TrustService | None = None) -> None:
        await (by or self.service).replace(OPERATOR, encode_trust(self.roots.listing()))

    def failed(self) -> list[str]:
        return [str(facts["error"]) for event, facts in self.events if event == "keys.failed"]


@pytest.fixture
def database(tmp_path: Path) -> SqlDatabase:
    file = tmp_path / "site.db"
    file.write_bytes(empty_database())
    return SqlDatabase.open(f"sqlite:///{file}")


@pytest.fixture
async def site(database: SqlDatabase) -> AsyncIterator[Site]:
    yield Site(database)
    await database.close()


async def test_of_two_loads_at_once_the_slow_one_brings_nothing_older(site: Site) -> None:
    await site.publish()
    other = site.replica()
    site.database.slow = True
    slow = asyncio.create_task(other.refresh())
    await site.database.waits.wait()
    # It has read version 1, and waits; meanwhile version 2 is stored.
    await site.publish()
    fast = asyncio.create_task(other.refresh())
    await asyncio.sleep(0.05)
    site.database.go.set()
    await asyncio.gather(slow, fast)
    assert other.trust is not None
    assert other.trust.keys_version == 2
    assert site.messenger.keys[-1] == (other.stored.document.encode() if other.stored else b"")


async def test_a_list_that_the_broker_refuses_is_logged_once_and_tried_ever_more_seldom(site: Site) -> None:
    site.messenger.error = BrokerRefused("a message of 70000 bytes: the broker takes 65536 bytes at most")
    await site.publish()
    for _ in range(1_000):
        site.clock.time += 2.0
        await site.service.refresh()
    assert site.messenger.tries < 15
    assert site.failed() == [str(site.messenger.error)]
    assert "raise its limit" in (site.service.problem or "")
    site.messenger.error = None
    site.clock.time += LONGEST_WAIT
    await site.service.refresh()
    assert (site.service.problem, len(site.messenger.keys)) == (None, 1)


async def test_a_new_list_is_tried_at_once(site: Site) -> None:
    site.messenger.error = BrokerRefused("too large")
    await site.publish()
    site.messenger.error = None
    await site.publish()
    assert len(site.messenger.keys) == 1


async def test_without_a_broker_the_connect_publishes(site: Site) -> None:
    site.messenger.error = MessengerDown("not connected")
    await site.publish()
    await site.service.refresh()
    assert site.service.problem is None
    assert site.failed() == ["not connected"]
    site.messenger.error = None
    await site.service.publish()
    assert len(site.messenger.keys) == 1


async def test_readiness_says_that_the_broker_refuses_the_list_and_stays_ready() -> None:
    async with Rig() as rig:
        rig.engine.readiness.keys_problem = lambda: "the broker refuses list 7"
        found = await rig.engine.readiness.readiness(OPERATOR)
        assert (found.ready, found.checks["keys"]) == (True, "the broker refuses list 7")
