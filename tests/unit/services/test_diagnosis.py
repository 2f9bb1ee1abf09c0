"""What each fact about a neighbour means for an operator: a finding, and what to do about it."""

from dataclasses import replace
from typing import Any

import pytest

from control_plane.adapters.memory.database import MemoryDatabase
from control_plane.services.diagnosis.broker import BrokerDoctor
from control_plane.services.diagnosis.database import DatabaseDoctor
from control_plane.services.diagnosis.findings import Finding
from control_plane.services.diagnosis.page import examine_page
from control_plane.services.diagnosis.server import KEPT, ServerDiagnosis
from control_plane.services.diagnosis.store import StoreDoctor
from control_plane.services.ports.database import Database
from control_plane.services.ports.diagnosis import BrokerFacts, BucketFacts, DatabaseFacts, PageFacts
from schemas.codec import MAX_MESSAGE_SIZE
from tests.support.fakes import Rig

GOOD_BROKER = BrokerFacts(
    address="mqtts://broker.example:8883",
    max_message=MAX_MESSAGE_SIZE,
    receive_maximum=20,
    maximum_qos=2,
    retains=True,
    encrypted=True,
    anonymous=False,
)
GOOD_DATABASE = DatabaseFacts(
    place="/data/backhaul.db", product="SQLite 3", revision="0009", newest="0009", disk_free=2**40, size=2**20
)
GOOD_PAGE = PageFacts(address="http://127.0.0.1:8080/", status=200, policy="default-src 'none'; script-src 'self'")
PRIVATE = BucketFacts(readable=False, listable=False, policy_is_public=None, cors_rules=None)


class Brokers:
    """A broker of which these facts are true."""

    def __init__(self, facts: BrokerFacts) -> None:
        self.known = facts
        self.cleared: tuple[str, ...] = ()

    async def facts(self) -> BrokerFacts:
        return self.known

    async def clear(self, topics: tuple[str, ...]) -> None:
        self.cleared = topics


class Databases:
    """A database of which these facts are true."""

    def __init__(self, facts: DatabaseFacts) -> None:
        self.known = facts
        self.opens = 0

    async def facts(self) -> DatabaseFacts:
        return self.known

    async def opened(self) -> Database:
        self.opens += 1
        return MemoryDatabase()


class Pages:
    """An address of which these facts are true."""

    def __init__(self, facts: PageFacts) -> None:
        self.known = facts

    async def facts(self) -> PageFacts:
        return self.known


class Buckets:
    """A bucket of which these facts are true."""

    def __init__(self, facts: BucketFacts) -> None:
        self.known = facts
        self.asked = 0

    async def exposure(self) -> BucketFacts:
        self.asked += 1
        return self.known


def wrong(findings: list[Finding]) -> list[str]:
    """The names of what is wrong; each has a remedy."""
    bad = [one for one in findings if not one.fine]
    assert all(one.remedy for one in bad), bad
    return [one.name for one in bad]


async def test_a_good_neighbour_has_no_wrong_finding() -> None:
    assert wrong(await BrokerDoctor(Brokers(GOOD_BROKER)).examine()) == []
    assert wrong(await DatabaseDoctor(Databases(GOOD_DATABASE)).examine()) == []
    assert wrong(await examine_page(Pages(GOOD_PAGE))) == []


@pytest.mark.parametrize(
    ("facts", "name", "text"),
    [
        ({"refused_reads": ("response",)}, "broker rights", "read response"),
        ({"refused_writes": ("command",)}, "broker rights", "write command"),
        ({"unseen_writes": ("command",)}, "broker rights", "not delivered"),
        ({"max_message": 20_000}, "broker limits", "20000 bytes"),
        ({"maximum_qos": 0}, "broker limits", "QoS 0"),
        ({"retains": False}, "broker limits", "retained"),
        ({"receive_maximum": 1}, "broker limits", "in flight"),
        ({"anonymous": True}, "broker access", "without credentials"),
        ({"encrypted": False}, "broker access", "unencrypted"),
        ({"retained_commands": ("fleet/v1/a/command",)}, "retained commands", "fleet/v1/a/command"),
    ],
)
async def test_what_is_wrong_with_a_broker_is_named(facts: dict[str, Any], name: str, text: str) -> None:
    findings = await BrokerDoctor(Brokers(replace(GOOD_BROKER, **facts))).examine()
    assert wrong(findings) == [name]
    assert text in next(one.text for one in findings if one.name == name)


async def test_a_broker_on_this_machine_may_be_open_and_unencrypted() -> None:
    facts = replace(GOOD_BROKER, address="mqtt://127.0.0.1:1883", encrypted=False, anonymous=True)
    assert wrong(await BrokerDoctor(Brokers(facts)).examine()) == []


async def test_retained_commands_are_removed_on_request_only() -> None:
    broker = Brokers(replace(GOOD_BROKER, retained_commands=("fleet/v1/a/command",)))
    await BrokerDoctor(broker).examine()
    assert not broker.cleared
    findings = await BrokerDoctor(broker).examine(fix=True)
    assert broker.cleared == ("fleet/v1/a/command",)
    assert [one.name for one in findings if one.fixed] == ["retained commands"]


@pytest.mark.parametrize(
    ("facts", "names"),
    [
        ({"revision": "0005"}, ["database schema"]),
        ({"revision": "0099", "known": False}, ["database schema"]),
        ({"disk_free": 2**20}, ["database disk"]),
        ({"clock_skew": -900.0}, ["database clock"]),
    ],
)
async def test_what_is_wrong_with_a_database_is_named(facts: dict[str, Any], names: list[str]) -> None:
    assert wrong(await DatabaseDoctor(Databases(replace(GOOD_DATABASE, **facts))).examine()) == names


async def test_a_database_is_migrated_on_request_only() -> None:
    """One of a later version never is."""
    old = Databases(replace(GOOD_DATABASE, revision="0005"))
    await DatabaseDoctor(old).examine()
    assert old.opens == 0
    findings = await DatabaseDoctor(old).examine(fix=True)
    assert (old.opens, [one.name for one in findings if one.fixed]) == (1, ["database schema"])
    later = Databases(replace(GOOD_DATABASE, revision="0099", known=False))
    assert wrong(await DatabaseDoctor(later).examine(fix=True)) == ["database schema"]
    assert later.opens == 0


async def test_a_database_that_does_not_exist_yet_is_not_created() -> None:
    none = Databases(replace(GOOD_DATABASE, revision=None, size=None))
    assert wrong(await DatabaseDoctor(none).examine()) == []
    assert none.opens == 0


@pytest.mark.parametrize(
    ("facts", "fine"),
    [
        ({"status": None, "error": "Connection refused"}, True),
        ({"status": 502}, False),
        ({"missing": ("/static/main.js",)}, False),
        ({"policy": None}, False),
        ({"policy": "default-src *"}, False),
    ],
)
async def test_a_page_is_served_whole_and_with_its_policy(facts: dict[str, Any], fine: bool) -> None:  # noqa: FBT001
    """A control plane that does not run is no fault."""
    assert (wrong(await examine_page(Pages(replace(GOOD_PAGE, **facts)))) == []) is fine


@pytest.mark.parametrize("facts", [{"readable": True}, {"listable": True}, {"policy_is_public": True}])
async def test_a_public_bucket_is_wrong(facts: dict[str, Any]) -> None:
    async with Rig() as rig:
        doctor = StoreDoctor(rig.objects, rig.clock, rig.policy, bucket=Buckets(replace(PRIVATE, **facts)))
        assert "bucket access" in wrong(await doctor.beside())
        doctor = StoreDoctor(rig.objects, rig.clock, rig.policy, bucket=Buckets(PRIVATE))
        assert "bucket access" not in wrong(await doctor.beside())


async def test_a_running_server_has_the_same_findings() -> None:
    """The bucket is examined once in ten minutes; broker, database and probe are those of now."""
    async with Rig() as rig:
        await rig.engine.probe.probe()
        bucket = Buckets(PRIVATE)
        found: list[Finding] = []
        diagnosis = ServerDiagnosis(
            database=rig.database,
            facts=Databases(GOOD_DATABASE).facts,
            messenger=rig.messenger,
            probe=rig.engine.probe,
            store=StoreDoctor(rig.objects, rig.clock, rig.policy, database=rig.database, bucket=bucket),
            clock=rig.clock,
            keys=lambda: found,
        )
        assert wrong(await diagnosis.findings()) == ["lifecycle rule"]
        found.append(Finding("keys", fine=False, text="the key of control-plane expires", remedy="list it again"))
        assert wrong(await diagnosis.findings()) == ["keys", "lifecycle rule"]
        found.clear()
        rig.messenger.down = True
        assert wrong(await diagnosis.findings()) == ["broker", "lifecycle rule"]
        assert bucket.asked == 1
        rig.clock.time += KEPT
        await diagnosis.findings()
        assert bucket.asked == 2
