"""Enrolment by code: devices that ask for a bundle, and wait until an operator approves the code that they show.

Rule: what waits is in memory, bounded, and no secret: the bundle is sealed to a key of the device as soon as it is
made. A code that is unknown, has expired or was rejected is answered alike.
"""

import secrets
from dataclasses import dataclass
from typing import Final

import msgspec
from nacl import bindings
from nacl.exceptions import CryptoError

from control_plane.domain.access import Principal
from control_plane.domain.audit.model import Act
from control_plane.domain.devices import Device, DeviceState
from control_plane.services.audit.recording import record
from control_plane.services.budget import Buckets, Limit, network_of
from control_plane.services.devices.pins import Pins
from control_plane.services.devices.service import DeviceService, NewDevice
from control_plane.services.errors import BadInput, DeviceRefused, SlowDown, UnknownEnrollment
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.database import Database
from control_plane.services.ports.log import EventLog
from schemas.signing.canonical import (
    PUBLIC_KEY_SIZE,
    SIGNATURE_SIZE,
    Signature,
    SignedKind,
    fingerprint,
    from_text,
    to_text,
)
from schemas.signing.ed25519 import Verifier
from schemas.signing.enrolment import EnrollAnswer, EnrollRequest, PollAnswer, PollRequest, enroll_payload, poll_payload

INTERVAL: Final = 5
"""Seconds between two polls; each poll that comes earlier adds as many."""

EXPIRES_IN: Final = 900
"""Seconds for which a code can be approved."""

FETCHED_FOR: Final = 86_400.0
"""Seconds, at most, for which an approved device can fetch its bundle again."""

MOST: Final = 10_000
"""Devices that wait."""

NEW: Final = Limit(rate=1.0, burst=60)
"""New requests of one address (of IPv6, of one /64): 60 at once, and 60 a minute."""

ALPHABET: Final = "23456789ABCDEFGHJKLMNPQRSTUVWXYZ"
"""No 0, 1, I and O: a person reads the code from one screen and types it on another."""

_CODE: Final = 8


@dataclass(slots=True)
class Waiting:
    """A device that asks. `at` is when it began (s, steady); `sealed` its bundle, once it is approved."""

    user_code: str
    device_code: str
    public_key: bytes
    seal_to: bytes
    address: str
    at: float
    asked_at: float
    """The instant of the request (s since the epoch), for people."""

    interval: int = INTERVAL
    polled_at: float = 0.0
    sequence: int = 0
    client_id: str | None = None
    sealed: str | None = None

    @property
    def fingerprint(self) -> str:
        """What a person compares with the screen of the device."""
        return fingerprint(self.public_key)


class EnrollmentRequests:
    """Takes what devices ask, and what operators decide about it."""

    def __init__(self, database: Database, clock: Clock, log: EventLog, pins: Pins, devices: DeviceService) -> None:
        self._database = database
        self._clock = clock
        self._log = log
        self._pins = pins
        self._devices = devices
        self._new = Buckets(clock.monotonic, NEW)
        self._by_device: dict[str, Waiting] = {}
        self._by_user: dict[str, Waiting] = {}

    # What a device does.

    def begin(self, request: EnrollRequest, address: str) -> EnrollAnswer:
        """Take a new request; `SlowDown` for too many, `BadInput` unless its key signed it."""
        if not self._new.take(network_of(address)):
            raise SlowDown(60)
        key = from_text(request.key, PUBLIC_KEY_SIZE)
        if not _verifies(key, request.signature, enroll_payload(request.seal_to, request.nonce)):
            text = "the request is not signed by its key"
            raise BadInput(text)
        self._drop_old()
        if len(self._by_device) >= MOST:
            raise SlowDown(60)
        if self._pins.is_revoked_key(key):
            text = "this key is refused"
            raise BadInput(text)
        seal_to = from_text(request.seal_to, PUBLIC_KEY_SIZE)
        _require_sealable(seal_to)
        for other in [one for one in self._by_device.values() if one.public_key == key and one.sealed is None]:
            self._drop(other)
        now = self._clock.monotonic()
        waiting = Waiting(
            user_code=self._user_code(),
            device_code=secrets.token_urlsafe(32),
            public_key=key,
            seal_to=seal_to,
            address=address,
            at=now,
            asked_at=self._clock.now(),
            polled_at=now - INTERVAL,
        )
        self._by_device[waiting.device_code] = self._by_user[waiting.user_code] = waiting
        self._log("device.asks", {"fingerprint": waiting.fingerprint, "address": address})
        return EnrollAnswer(waiting.device_code, waiting.user_code, INTERVAL, EXPIRES_IN)

    def poll(self, request: PollRequest) -> PollAnswer:
        """The sealed bundle once it is there; `SlowDown` when asked too early, `UnknownEnrollment`."""
        waiting = self._by_device.get(request.device_code)
        if waiting is not None and self._is_over(waiting):
            # Of all that wait, only this one: anybody may poll, as often as he likes.
            self._drop(waiting)
            waiting = None
        payload = poll_payload(request.device_code, request.sequence)
        if waiting is None or not _verifies(waiting.public_key, request.signature, payload):
            raise UnknownEnrollment
        if request.sequence <= waiting.sequence:
            # A repeat of what someone saw.
            raise UnknownEnrollment
        waiting.sequence = request.sequence
        now = self._clock.monotonic()
        if now - waiting.polled_at < waiting.interval:
            waiting.interval += INTERVAL
            raise SlowDown(waiting.interval)
        waiting.polled_at = now
        return PollAnswer(waiting.interval, waiting.sealed)

    # What an operator does.

    def waiting(self, _principal: Principal) -> list[Waiting]:
        """Those that nobody has decided about, the oldest first."""
        self._drop_old()
        return [one for one in self._by_device.values() if one.sealed is None]

    async def approve(self, principal: Principal, user_code: str, shown: str, new: NewDevice) -> Device:
        """Enrol the device that shows this code; `shown` is the fingerprint that the caller compared with its screen.

        `UnknownEnrollment`; `DeviceRefused` for another fingerprint; and as `DeviceService.enroll`.
        """
        waiting = self._of(user_code)
        if shown != waiting.fingerprint:
            text = "the fingerprint is not that of the device with this code: compare it with the screen of the device"
            raise DeviceRefused(text)
        bundle = await self._devices.enroll(principal, new, waiting.public_key)
        sealed = bindings.crypto_box_seal(msgspec.json.encode(bundle), waiting.seal_to)
        waiting.client_id, waiting.sealed = new.client_id, to_text(sealed)
        # It may have expired, or asked anew, while its bundle was made: it is enrolled, so it can fetch it.
        self._by_device[waiting.device_code] = waiting
        self._by_user.pop(waiting.user_code, None)
        return await self._devices.device(principal, new.client_id)

    async def reject(self, principal: Principal, user_code: str) -> None:
        """Refuse the device that shows this code; it is told nothing else than after the end of its time."""
        waiting, now = self._of(user_code), self._clock.now()
        facts = {"fingerprint": waiting.fingerprint}
        await self._database.write(lambda records: record(records, principal, Act.DEVICE_REJECT, now, detail=facts))
        self._drop(waiting)

    def _of(self, user_code: str) -> Waiting:
        self._drop_old()
        letters = user_code.upper().replace("-", "").replace(" ", "")
        found = self._by_user.get(f"{letters[: _CODE // 2]}-{letters[_CODE // 2 :]}")
        if found is None:
            raise UnknownEnrollment
        return found

    def _user_code(self) -> str:
        while True:
            letters = "".join(secrets.choice(ALPHABET) for _ in range(_CODE))
            code = f"{letters[: _CODE // 2]}-{letters[_CODE // 2 :]}"
            if code not in self._by_user:
                return code

    def _drop_old(self) -> None:
        for one in list(self._by_device.values()):
            if self._is_over(one):
                self._drop(one)

    def _is_over(self, waiting: Waiting) -> bool:
        longest = EXPIRES_IN if waiting.sealed is None else FETCHED_FOR
        return self._clock.monotonic() - waiting.at > longest or self._is_known(waiting)

    def _is_known(self, waiting: Waiting) -> bool:
        """Whether the device has come with its bundle, or is revoked meanwhile."""
        if waiting.client_id is None:
            return False
        pin = self._pins.of(waiting.client_id)
        return pin is None or pin.state is not DeviceState.ENROLLED

    def _drop(self, waiting: Waiting) -> None:
        self._by_device.pop(waiting.device_code, None)
        self._by_user.pop(waiting.user_code, None)


def _require_sealable(seal_to: bytes) -> None:
    """`BadInput` for a key that nothing can be sealed to: found out later, its device would be enrolled in vain."""
    try:
        bindings.crypto_box_seal(b"", seal_to)
    except CryptoError as error:
        text = "nothing can be sealed to the key `seal_to`"
        raise BadInput(text) from error


def _verifies(key: bytes, signature: str, payload: bytes) -> bool:
    verifier = Verifier(key)
    made = Signature(verifier.kid, from_text(signature, SIGNATURE_SIZE))
    return verifier.verifies(made, SignedKind.ENROLL, "", payload)
