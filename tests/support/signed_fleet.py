"""A fleet whose commands are signed: its root of trust, its list of keys, and devices that were enrolled.

Rule: what an operator does with `backhaul keys` and `backhaul device enroll` is done here by the same parts.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import httpx
import msgspec

from broker.configuration import LOOPBACK
from broker.server import free_port
from control_plane.adapters.database import SqlDatabase
from control_plane.cli.site.broker import ACCESS, AuthenticatedBroker
from control_plane.domain.devices import Device
from device_agent.enrolment.claim import store_claim_secret
from device_agent.trust.trust_file import TrustFile
from schemas.signing.canonical import from_text
from schemas.signing.documents import KeyEntry, KeyList, KeyRole, RootDocument, TrustDocument
from schemas.signing.ed25519 import Signer
from schemas.signing.trust import sign_document
from schemas.topics import Topics
from tests.support.sites import Fleet, running_fleet

EVERYTHING: Final = ("/**",)
BOTH: Final = (KeyRole.COMMAND, KeyRole.TRANSFER)


class Roots:
    """One root key, and the lists that it signed."""

    def __init__(self, topics: Topics | None = None, seed: bytes = b"r" * 32) -> None:
        self.signer = Signer(seed)
        self.topic = (topics or Topics()).keys()
        root = RootDocument(1, 1, (self.signer.verifier.text,), datetime.now(UTC))
        self.root = sign_document(root, self.topic, [self.signer])
        self.version = 0

    def listing(
        self,
        *entries: KeyEntry,
        revoked: tuple[str, ...] = (),
        made: datetime | None = None,
        life: timedelta | None = None,
    ) -> TrustDocument:
        """The next list, made now unless `made` is given; with a `life` it has an end."""
        self.version += 1
        issued_at = made or datetime.now(UTC)
        expires = None if life is None else issued_at + life
        keys = KeyList(1, self.version, issued_at, entries, revoked, expires)
        return TrustDocument((self.root,), sign_document(keys, self.topic, [self.signer]))


def entry_of(public_key: str, principal: str = "control-plane", owner: str = "control-plane") -> KeyEntry:
    """A key that may do everything for uploads of this owner."""
    return KeyEntry(public_key, principal, BOTH, EVERYTHING, (owner,))


class SignedFleet:
    """A running site whose control plane's key is trusted."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.roots = Roots()
        self.own = str(fleet.get("/keys")["public_key"])
        self.publish(entry_of(self.own))

    def publish(self, *entries: KeyEntry, revoked: tuple[str, ...] = (), life: timedelta | None = None) -> None:
        """Publish the next list of keys."""
        answer = httpx.put(
            f"{self.fleet.site.server}/keys",
            json=msgspec.to_builtins(self.roots.listing(*entries, revoked=revoked, life=life)),
            timeout=60,
            headers=self.fleet.headers,
        )
        assert answer.status_code == httpx.codes.OK, answer.text

    def enroll(self, client_id: str) -> Path:
        """Enrol a device; its state folder."""
        state = self.fleet.directory / client_id / "state"
        state.mkdir(parents=True)
        TrustFile.store_root(state, Topics().keys(), self.roots.root)
        # By REST: the answer comes when the control plane judges by the new pin. One that is written into the database
        # is read within a second or so, and an agent may be faster.
        answer = self.fleet.post("/devices", {"client_id": client_id})
        assert answer.status_code == httpx.codes.CREATED, answer.text
        store_claim_secret(state, from_text(answer.json()["claim_secret"], 32))
        return state

    def device(self, client_id: str) -> Device | None:
        """The device as the registry has it."""
        return asyncio.run(_read(self.fleet.plane_settings["DATABASE_URL"], client_id))


@contextmanager
def fleet_with_accounts(directory: Path, **settings: str) -> Iterator[tuple[Fleet, AuthenticatedBroker]]:
    """A site with a root of trust, whose control plane makes the accounts of devices at the broker; and that broker."""
    network = AuthenticatedBroker(LOOPBACK, free_port(), free_port())
    pid_file = directory / "broker.pid"
    given = {
        "BROKER_ACCESS": str(directory / "site" / "broker" / ACCESS),
        "BROKER_PID_FILE": str(pid_file),
        "DEVICE_MQTT_URL": network.devices.url,
        **settings,
    }
    with running_fleet(directory, given, network=network) as fleet:
        pid_file.write_text(str(fleet.site.broker.pid))
        SignedFleet(fleet)
        yield fleet, network


async def _read(url: str, client_id: str) -> Device | None:
    database = SqlDatabase.open(url)
    found = await database.read(lambda records: records.devices.get(client_id))
    await database.close()
    return found
