"""The first presence of a device: it pins the key of the device, or raises the alarm.

Rule: a key is pinned durably, and read by `Pins`, before anything that it signed is taken.
"""

from dataclasses import replace

from control_plane.domain.access import Principal
from control_plane.domain.audit.model import Act
from control_plane.domain.devices import Device, DeviceState, pinned
from control_plane.domain.reasons import ReasonCode
from control_plane.services.audit.recording import record
from control_plane.services.devices.pins import Pins, is_judged
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.database import Database, Records
from control_plane.services.ports.log import EventLog
from schemas.messages import Presence
from schemas.signing.canonical import PUBLIC_KEY_SIZE, fingerprint, from_text


class KeyPinner:
    """Decides about keys that no pin verifies."""

    def __init__(self, database: Database, clock: Clock, log: EventLog, pins: Pins) -> None:
        self._database = database
        self._clock = clock
        self._log = log
        self._pins = pins

    async def first_presence(self, presence: Presence) -> bool:
        """Take a presence that its own `key` signed, and that no pin verifies; whether it counts now.

        A right claim pins the key. Another key of a device whose key is pinned raises the alarm, and does not count.
        One of a client that is in no registry counts as an unsigned one does. `DatabaseUnavailable`.
        """
        if presence.key is None:
            return False
        key, now = from_text(presence.key, PUBLIC_KEY_SIZE), self._clock.now()

        def work(records: Records) -> tuple[bool, Act | None]:
            device = records.devices.get(presence.client_id)
            if key in records.devices.revoked_keys():
                return False, None
            if device is None or not is_judged(device):
                return True, None
            return _judged(records, device, key, presence.claim, now)

        counts, act = await self._database.write(work)
        facts = {"client_id": presence.client_id, "fingerprint": fingerprint(key)}
        if act is Act.DEVICE_PIN:
            self._log("device.pin", facts)
        elif act is Act.DEVICE_ALARM:
            self._log("device.alarm", facts)
        if counts or act is not None:
            # Also when another replica pinned it: with the pins of before, its messages would come back here at once.
            await self._pins.load()
        return counts


def _judged(records: Records, device: Device, key: bytes, claim: str | None, now: float) -> tuple[bool, Act | None]:
    """Whether the key is pinned, and what was done."""
    if device.state not in {DeviceState.ENROLLED, DeviceState.ACTIVE}:
        return False, None
    if device.state is DeviceState.ENROLLED and device.public_key not in {None, key}:
        # An operator approved one key.
        return False, None
    if device.claimed_by(key, claim):
        return _pin(records, device, key, now)
    if device.state is DeviceState.ENROLLED or key == device.public_key:
        return device.state is DeviceState.ACTIVE, None
    if device.alarm:
        return False, None
    records.devices.save(replace(device, other_key=key, other_at=now))
    _note_itself(records, device, Act.DEVICE_ALARM, key, now)
    return False, Act.DEVICE_ALARM


def _pin(records: Records, device: Device, key: bytes, now: float) -> tuple[bool, Act | None]:
    holder = records.devices.by_key(key)
    if holder is not None and holder.client_id != device.client_id:
        return False, None
    if device.public_key is not None and device.public_key != key:
        # The device was enrolled again: nothing that its former key signs is taken from now on.
        records.devices.revoke_key(device.public_key, device.client_id, now)
    records.devices.save(pinned(device, key, now))
    if device.alarm:
        records.outbox.wake_failed([ReasonCode.KEY_ALARM], now)
    _note_itself(records, device, Act.DEVICE_PIN, key, now)
    return True, Act.DEVICE_PIN


def _note_itself(records: Records, device: Device, act: Act, key: bytes, now: float) -> None:
    itself = Principal(f"device:{device.client_id}", frozenset())
    target, facts = f"device:{device.client_id}", {"fingerprint": fingerprint(key)}
    record(records, itself, act, now, target=target, clients=[device.client_id], detail=facts)
