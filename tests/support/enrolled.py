"""A device of a site that is enrolled by hand: its key is pinned, and its root of trust lists the control plane's key.

Rule: what an operator's commands write, written directly: a test of enrolment itself uses the commands.
"""

import asyncio
import time
from pathlib import Path

from control_plane.adapters.database import SqlDatabase
from control_plane.domain.devices import Device, DeviceState
from device_agent.trust.identity import open_identity
from schemas.signing.ed25519 import Verifier
from schemas.signing.key_files import read_key
from tests.support.sites import Fleet
from tests.unit.device_agent.trust.fleet import entry, trusting


def enroll(fleet: Fleet, client_id: str) -> Verifier:
    """Prepare the state folder of an agent that is not started yet, and pin its key."""
    state = fleet.directory / client_id / "state"
    state.mkdir(parents=True, mode=0o700)
    verifier = open_identity(state).verifier
    trusting(state, entry(read_key(plane_key(fleet))))
    pin(fleet, client_id, verifier.public_key)
    # A change by REST is answered when the pins were read again; the control plane itself looks once a second.
    answer = fleet.post(f"/devices/{client_id}/rotate", {})
    assert answer.is_success, answer.text
    return verifier


def plane_key(fleet: Fleet) -> Path:
    """The file of the control plane's key."""
    return fleet.site.directory / "control-plane" / "signing-key.json"


def pin(fleet: Fleet, client_id: str, public_key: bytes) -> None:
    """Pin a key, as the first presence with a right claim does."""

    async def work() -> None:
        database = SqlDatabase.open(fleet.plane_settings["DATABASE_URL"])
        now = time.time()
        device = Device(client_id, DeviceState.ACTIVE, now, "test", public_key=public_key, pinned_at=now)
        await database.write(lambda records: records.devices.save(device))
        await database.close()

    asyncio.run(work())
