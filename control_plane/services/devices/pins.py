"""The pins: which key may speak under which name, in memory, for every message that arrives or is about to leave.

Rule: a pin is read from the database, never changed here. A replica reads the pins again when their number in the
database rose, and looks at that number every `EVERY` seconds; while the database is away, the last known pins count.
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
    version: int
    devices: Mapping[str, Device]
    revoked: frozenset[bytes]
    signed: frozenset[str]


class Pins:
    """Answers at once and from memory. Call `load` before the first message is judged."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._version = -1
        self._pins: dict[str, Pin] = {}
        self._devices: Mapping[str, Device] = {}
        self._revoked: frozenset[bytes] = frozenset()
        self._signed: frozenset[str] = frozenset()
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

            def work(records: Records) -> _Read | None:
                found = records.devices.version()
                if found == version:
                    return None
                every = {device.client_id: device for device in records.devices.pinned()}
                return _Read(found, every, records.devices.revoked_keys(), records.devices.signed_names())

            read = await self._database.read(work)
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
        # A device that is equal keeps its pin: of a large fleet few change at a time.
        before = self._pins
        forgotten = {name: _forgotten(name) for name in read.signed if name not in read.devices}
        self._pins = forgotten | {
            client_id: before[client_id] if self._is_known(device, read) else _pin_of(device, read.signed)
            for client_id, device in read.devices.items()
            if is_judged(device)
        }
        self._devices, self._revoked, self._signed = read.devices, read.revoked, read.signed
        self._version = read.version

    def _is_known(self, device: Device, read: _Read) -> bool:
        name = device.client_id
        return self._devices.get(name) == device and (name in self._signed) == (name in read.signed)


def is_judged(device: Device) -> bool:
    """Whether the messages of this device are judged by its key; else it signs nothing."""
    return device.state in {DeviceState.ACTIVE, DeviceState.REVOKED} or device.claim_secret is not None


def _forgotten(client_id: str) -> Pin:
    return Pin(client_id, DeviceState.REVOKED, None, None, alarm=False, has_signed=True)


def _pin_of(device: Device, signed: frozenset[str]) -> Pin:
    # The key that an operator approved is pinned by the first presence, as any other.
    is_pinned = device.public_key is not None and device.state is not DeviceState.ENROLLED
    verifier = Verifier(device.public_key) if is_pinned and device.public_key is not None else None
    has_signed = device.client_id in signed
    return Pin(device.client_id, device.state, verifier, device.claim_secret, device.alarm, has_signed)
