"""Keys that end: warned of 90 days ahead, in REST, in the findings, and once a day in the log."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from msgspec.structs import replace

from control_plane.adapters.database import SqlDatabase
from control_plane.api.trust.models import KeysDocument
from control_plane.services.diagnosis.keys import KEYS, examine_keys, judged
from control_plane.services.trust.expiry import Expiry, expiry_of, warnings_of
from control_plane.services.trust.service import WARN_EVERY, TrustService
from schemas.signing.documents import KeyEntry, RootDocument, TrustDocument
from schemas.signing.ed25519 import Signer
from schemas.signing.trust import Trust, advance, sign_document, trust_first
from schemas.topics import Topics
from tests.support.fakes import OPERATOR, Rig
from tests.support.job_rest import empty_database
from tests.support.signed_fleet import Roots, entry_of
from tests.support.two_sites import PLANE_KEY

NOW: Final = datetime(2026, 11, 27, 12, tzinfo=UTC)
AT: Final = NOW.timestamp()
OWN: Final = PLANE_KEY.signer.verifier
OTHER: Final = Signer(b"o" * 32).verifier
TOPIC: Final = Topics().keys()


def entry(days: float | None, key: str = OWN.text, principal: str = "control-plane") -> KeyEntry:
    """A key that ends so many days after `NOW`."""
    return replace(entry_of(key, principal), expires=None if days is None else NOW + timedelta(days=days))


def trusting(*entries: KeyEntry) -> Trust:
    published = Roots().listing(*entries)
    return advance(trust_first(published.roots[0], TOPIC), published)


@pytest.mark.parametrize(
    ("days", "expiry"),
    [
        (None, Expiry.FINE),
        (90.1, Expiry.FINE),
        (90, Expiry.SOON),
        (0.1, Expiry.SOON),
        (0, Expiry.EXPIRED),
        (-1, Expiry.EXPIRED),
    ],
)
def test_a_key_is_warned_of_from_90_days_before_its_end(days: float | None, expiry: Expiry) -> None:
    assert expiry_of(entry(days).expires, AT) is expiry
    assert bool(warnings_of(trusting(entry(days)), AT)) is (expiry is not Expiry.FINE)


def test_the_most_urgent_comes_first_and_each_says_whose_key_and_when() -> None:
    trust = trusting(entry(12.5), entry(-3, OTHER.text, "ana"))
    assert warnings_of(trust, AT, OWN.kid) == [
        f"the key of ana ({OTHER.kid}) expired on 2026-11-24: devices refuse it",
        f"the key of control-plane ({OWN.kid}) expires on 2026-12-10, in 12 days: devices refuse it then",
    ]


def test_a_list_without_the_key_of_this_control_plane_is_the_first_warning() -> None:
    found = warnings_of(trusting(entry(3, OTHER.text, "ana")), AT, OWN.kid)
    assert found[0].startswith(f"this control plane signs with {OWN.kid}, which the list does not have")
    assert len(found) == 2
    assert warnings_of(None, AT, OWN.kid) == []


@pytest.mark.parametrize(
    ("life", "left", "warned"),
    [(30, 10.1, False), (30, 9.9, True), (360, 100, False), (360, 89.9, True), (30, -1, True)],
)
def test_a_list_is_warned_of_in_the_last_third_of_its_life_and_90_days_ahead_at_most(
    life: int, left: float, *, warned: bool
) -> None:
    """A list of 30 days that is warned of from its first day on would hide every other warning."""
    made = NOW - timedelta(days=life - left)
    published = Roots().listing(entry(None), made=made, life=timedelta(days=life))
    trust = advance(trust_first(published.roots[0], TOPIC), published)
    assert [one.startswith("the list of keys expire") for one in warnings_of(trust, AT)] == [True] * warned
    remedies = [one.remedy for one in judged(trust, AT)]
    assert all("--list-life" in str(one) for one in remedies if warned)


def test_the_root_of_trust_is_warned_of_too() -> None:
    roots = Roots()
    root = RootDocument(1, 1, (roots.signer.verifier.text,), NOW, NOW + timedelta(days=1.5))
    signed = sign_document(root, TOPIC, [roots.signer])
    published = TrustDocument((signed,), roots.listing(entry(None)).keys)
    trust = advance(trust_first(signed, TOPIC), published)
    assert warnings_of(trust, AT) == ["the root of trust expires on 2026-11-29, in 1 day: devices refuse it then"]


def findings(trust: Trust | None) -> list[tuple[bool, str]]:
    found = judged(trust, AT)
    assert {one.name for one in found} == {KEYS}
    assert all(bool(one.remedy) is not one.fine for one in found)
    return [(one.fine, one.text) for one in found]


def test_the_findings_name_each_key_that_ends() -> None:
    assert findings(None) == [(True, "no keys are published: devices obey unsigned commands")]
    assert findings(trusting(entry(100))) == [(True, "version 1 is published, and nothing in it expires soon")]
    assert [fine for fine, _ in findings(trusting(entry(9), entry(8, OTHER.text)))] == [False, False]


class Site:
    """The use cases of trust over a database, and what they logged."""

    def __init__(self, rig: Rig, database: SqlDatabase) -> None:
        self.database = database
        self.lines: list[tuple[str, Any]] = []
        self.roots = Roots()
        self.trust = TrustService(
            database, rig.clock, lambda *line: self.lines.append(line), rig.messenger, Topics(), PLANE_KEY
        )

    async def publish(self, *entries: KeyEntry) -> None:
        document = msgspec.json.encode(self.roots.listing(*entries))
        await self.trust.replace(OPERATOR, document)

    @property
    def warned(self) -> Sequence[Any]:
        return [facts for event, facts in self.lines if event == "keys.expiring"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A migrated database."""
    made = tmp_path / "trust.db"
    made.write_bytes(empty_database())
    return made


@pytest.fixture
async def database(file: Path) -> AsyncIterator[SqlDatabase]:
    opened = SqlDatabase.open(f"sqlite:///{file}")
    yield opened
    await opened.close()


def ending(rig: Rig, days: float) -> KeyEntry:
    """The own key, which ends so many days after the present of the engine's clock."""
    at = datetime.fromtimestamp(rig.clock.time, UTC) + timedelta(days=days)
    return replace(entry_of(OWN.text), expires=at.replace(microsecond=0))


async def test_the_log_has_one_line_a_day(database: SqlDatabase) -> None:
    async with Rig() as rig:
        site = Site(rig, database)
        site.trust.warn()
        await site.publish(ending(rig, 400))
        site.trust.warn()
        assert site.warned == []
        await site.publish(ending(rig, 30))
        for _ in range(3):
            site.trust.warn()
        assert len(site.warned) == 1
        assert "in 29 days" in site.warned[0]["first"] or "in 30 days" in site.warned[0]["first"]
        rig.clock.time += WARN_EVERY - 60
        site.trust.warn()
        assert len(site.warned) == 1
        rig.clock.time += 60
        site.trust.warn()
        assert len(site.warned) == 2


async def test_rest_shows_the_expiry_of_each_key_and_the_doctor_reads_what_is_stored(database: SqlDatabase) -> None:
    async with Rig() as rig:
        site = Site(rig, database)
        assert (await examine_keys(database, TOPIC, rig.clock.time))[0].fine
        await site.publish(ending(rig, 30), entry_of(OTHER.text, "ana"))
        shown = KeysDocument.of(OWN, site.trust.stored, site.trust.trust, None, site.trust.now)
        assert {one.principal: one.expiry for one in shown.keys} == {"control-plane": "soon", "ana": "fine"}
        assert shown.warnings == site.trust.warnings
        (found,) = await examine_keys(database, TOPIC, rig.clock.time)
        assert (found.fine, found.text) == (False, shown.warnings[0])
        (other,) = await examine_keys(database, "another/fleet/keys", rig.clock.time)
        assert not other.fine
        assert "not trusted" in other.text
