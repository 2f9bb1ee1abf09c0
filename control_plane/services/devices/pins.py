"""The pins: which key may speak under which name, in memory, for every message that arrives or is about to leave.

Rule: a pin is read from the database, never changed here. A replica looks at the number of the changes every `EVERY`
seconds, and reads the devices that changed when it rose; while the database is away, the last known pins count.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from control_plane.domain.devices import Device, DeviceState
from control_plane.domain.reasons import ReasonCode
from control_plane.services.errors import ServiceError
from control_plane.services.ports.database import Database, Records
from schemas.signing.ed25519 import Verifier

EVERY: Final = 1.0
"""Seconds between two looks at the number of the changes."""


@dataclass(frozen=True, slots=True)
class Pin:
    """What decides about the messages of one client.

    `verifier` is None until the key is pinned. `alarm`: another key was seen under this name. `has_signed`: a key was
    pinned under this name before, and revoked: the name is taken unsigned no more.
    """

    client_id: str
    state: DeviceState
    verifier: Verifier | None
    claim_secret: bytes | None
    alarm: bool
    has_signed: bool = False

    def __repr__(self) -> str:
        return f"Pin({self.client_id!r}, {self.state})"


@dataclass(frozen=True, slots=True)
class _Read:
    """What was read: of the devices of `names`, or of all when it is None. `revoked` are keys with their names."""

    version: int
    names: frozenset[str] | None
    devices: Mapping[str, Device]
    revoked: frozenset[bytes]
    signed: frozenset[str]


class Pins:
    """Answers at once and from memory. Call `load` before the first message is judged."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._version = -1
        self._pins: dict[str, Pin] = {}
        self._revoked: set[bytes] = set()
        self._reading = asyncio.Lock()

    def of(self, client_id: str) -> Pin | None:
        """The pin of a client; None for one that was never enrolled, or was enrolled without a root of trust.

        The latter signs nothing, and is known by its account at the broker alone. A device that has signed and was
        forgotten is revoked here, as long as no operator lets its name go.
        """
        return self._pins.get(client_id)

    def is_revoked_key(self, public_key: bytes) -> bool:
        """Whether this key was revoked, under any name."""
        return public_key in self._revoked

    def dispatchable(self, client_id: str) -> str | None:
        """The code of the reason that forbids to send this client anything; None when nothing does."""
        pin = self._pins.get(client_id)
        if pin is None:
            return None
        if pin.state is DeviceState.REVOKED:
            return ReasonCode.DEVICE_REVOKED
        return ReasonCode.KEY_ALARM if pin.alarm else None

    async def load(self) -> None:
        """Read the pins; `DatabaseUnavailable`. Every change of a device calls this after its commit."""
        async with self._reading:
            version = self._version
            read = await self._database.read(lambda records: _read(records, version))
            if read is not None:
                self._take(read)

    async def run(self) -> None:
        """Follow the changes of other replicas until cancelled."""
        while True:
            await asyncio.sleep(EVERY)
            # The database cannot be used now: other loops report it.
            with suppress(ServiceError):
                await self.load()

    def _take(self, read: _Read) -> None:
        if read.names is None:
            self._pins, self._revoked = {}, set()
        # A key that was refused stays so: nothing takes one out.
        self._revoked |= read.revoked
        for name in (read.devices.keys() | read.signed) if read.names is None else read.names:
            device, has_signed = read.devices.get(name), name in read.signed
            if device is not None and is_judged(device):
                self._pins[name] = _pin_of(device, has_signed=has_signed)
            elif device is None and has_signed:
                self._pins[name] = _forgotten(name)
            else:
                self._pins.pop(name, None)
        self._version = read.version


def _read(records: Records, version: int) -> _Read | None:
    """What changed after this number, or everything; None when nothing did."""
    devices = records.devices
    found = devices.version()
    if found == version:
        return None
    names = None if version < 0 else devices.changed_since(version)
    if names is None:
        every = {device.client_id: device for device in devices.pinned()}
        return _Read(found, None, every, devices.revoked_keys(), devices.signed_names())
    refused = devices.revoked_under(names)
    return _Read(found, names, devices.among(names), frozenset(refused), frozenset(refused.values()))


def is_judged(device: Device) -> bool:
    """Whether the messages of this device are judged by its key; else it signs nothing."""
    return device.state in {DeviceState.ACTIVE, DeviceState.REVOKED} or device.claim_secret is not None


def _forgotten(client_id: str) -> Pin:
    return Pin(client_id, DeviceState.REVOKED, None, None, alarm=False, has_signed=True)


def _pin_of(device: Device, *, has_signed: bool) -> Pin:
    # The key that an operator approved is pinned by the first presence, as any other.
    is_pinned = device.public_key is not None and device.state is not DeviceState.ENROLLED
    verifier = Verifier(device.public_key) if is_pinned and device.public_key is not None else None
    return Pin(device.client_id, device.state, verifier, device.claim_secret, device.alarm, has_signed)
