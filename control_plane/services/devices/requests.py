"""Enrolment by code: devices that ask for a bundle, and wait until an operator approves the code that they show.

Rule: what waits is in the database, so that every replica answers it; it is bounded, and no secret: the bundle is
sealed to a key of the device as soon as it is made. How often one polls is counted by each replica for itself. A code
that is unknown, has expired or was rejected is answered alike.
"""

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import msgspec
from nacl import bindings
from nacl.exceptions import CryptoError

from control_plane.domain.access import Principal
from control_plane.domain.audit.model import Act
from control_plane.domain.devices import Device, DeviceState
from control_plane.domain.enrollment import Enrollment
from control_plane.services.audit.recording import record
from control_plane.services.budget import Buckets, Limit, network_of
from control_plane.services.devices.batches import (
    REFUSED,
    Batches,
    BatchPlace,
    BatchRefusal,
    placed,
    settings_of,
    usable,
)
from control_plane.services.devices.pins import Pins
from control_plane.services.devices.service import DeviceService, NewDevice
from control_plane.services.errors import BadInput, DeviceRefused, SlowDown, UnknownEnrollment
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.database import Database, Records
from control_plane.services.ports.log import EventLog
from schemas.signing.canonical import (
    PUBLIC_KEY_SIZE,
    SIGNATURE_SIZE,
    Signature,
    SignedKind,
    from_text,
    to_text,
)
from schemas.signing.ed25519 import Verifier
from schemas.signing.enrolment import (
    Bundle,
    EnrollAnswer,
    EnrollRequest,
    PollAnswer,
    PollRequest,
    enroll_payload,
    poll_payload,
)

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

POLLS: Final = Limit(rate=200.0, burst=1_000)
"""Polls of one address: all that may wait behind it, 60 a minute for 15 minutes, ask 180 times a second."""

ALPHABET: Final = "23456789ABCDEFGHJKLMNPQRSTUVWXYZ"
"""No 0, 1, I and O: a person reads the code from one screen and types it on another."""

_CODE: Final = 8


@dataclass(slots=True)
class _Pace:
    """How one device polls: `interval` and `at` in s, steady."""

    interval: int
    at: float
    sequence: int = 0


class EnrollmentRequests:
    """Takes the requests of devices, and what operators decide about them."""

    def __init__(self, database: Database, clock: Clock, log: EventLog, pins: Pins, devices: DeviceService) -> None:
        self._database = database
        self._clock = clock
        self._log = log
        self._pins = pins
        self._devices = devices
        self.batches = Batches(database, clock)
        self._new = Buckets(clock.monotonic, NEW)
        self._polls = Buckets(clock.monotonic, POLLS)
        self._paces: OrderedDict[str, _Pace] = OrderedDict()
        self._approving = asyncio.Lock()

    # What a device does.

    async def begin(self, request: EnrollRequest, address: str) -> EnrollAnswer:
        """Take a new request; `SlowDown` for too many, `BadInput` unless its key signed it, `DatabaseUnavailable`.

        With the token of a batch it has a name at once, and of one with `auto` its bundle: `BadInput` for a token that
        is refused, and as `DeviceService.enroll`. A repeat gets the same name, and with the same `seal_to` the same
        bundle.
        """
        if not self._new.take(network_of(address)):
            raise SlowDown(60)
        key = from_text(request.key, PUBLIC_KEY_SIZE)
        if not _verifies(key, request.signature, _signed_by(request)):
            text = "the request is not signed by its key"
            raise BadInput(text)
        if request.serial is not None and request.token is None:
            text = "a serial needs the token of its batch"
            raise BadInput(text)
        if self._pins.is_revoked_key(key):
            text = "this key is refused"
            raise BadInput(text)
        seal_to = from_text(request.seal_to, PUBLIC_KEY_SIZE)
        _require_sealable(seal_to)
        now = self._clock.now()
        asked = Enrollment(
            device_code=secrets.token_urlsafe(32),
            user_code=_user_code(),
            public_key=key,
            seal_to=seal_to,
            address=address,
            asked_at=now,
            expires_at=now + EXPIRES_IN,
        )
        if request.token is None:
            made = await self._database.write(lambda records: _added(records, asked))
            self._heard(made)
        else:
            made = await self._joining(asked, request.token, request.serial)
        return EnrollAnswer(made.device_code, made.user_code, INTERVAL, EXPIRES_IN)

    async def poll(self, request: PollRequest, address: str) -> PollAnswer:
        """The sealed bundle once it is there; `SlowDown` when asked too early or by too many, `UnknownEnrollment`.

        It changes nothing in the database: it needs no token, and its number is not bounded. `DatabaseUnavailable`.
        """
        # Before anything is read: whoever polls has no token, and any text is a code.
        if not self._polls.take(network_of(address)):
            raise SlowDown(INTERVAL)
        now = self._clock.now()
        found = await self._database.read(lambda records: _fetchable(records, request.device_code, now))
        payload = poll_payload(request.device_code, request.sequence)
        if found is None or not _verifies(found.public_key, request.signature, payload):
            raise UnknownEnrollment
        pace = self._pace_of(request.device_code)
        if request.sequence <= pace.sequence:
            # A repeat of what someone saw.
            raise UnknownEnrollment
        pace.sequence = request.sequence
        steady = self._clock.monotonic()
        if steady - pace.at < pace.interval:
            pace.interval += INTERVAL
            raise SlowDown(pace.interval)
        pace.at = steady
        return PollAnswer(pace.interval, found.sealed)

    # What an operator does.

    async def waiting(self, _principal: Principal) -> Sequence[Enrollment]:
        """Those that are neither approved nor rejected, the oldest first; `DatabaseUnavailable`."""
        now = self._clock.now()
        return await self._database.read(lambda records: records.enrollments.waiting(now))

    async def approve(self, principal: Principal, user_code: str, shown: str, new: NewDevice) -> Device:
        """Enrol the device that shows this code; `shown` is the fingerprint that the caller compared with its screen.

        What `new` leaves out is as the batch of the device says, if it has one.
        `UnknownEnrollment`; `DeviceRefused` for another fingerprint; and as `DeviceService.enroll`. What failed half
        way, as while the broker's accounts could not be changed, is done by the same call again.
        """
        # Of two callers at the same time the second finds that it is decided.
        async with self._approving:
            waiting = await self._of(user_code)
            if shown != waiting.fingerprint:
                text = "the fingerprint is not that of the device with this code: compare it with the device's screen"
                raise DeviceRefused(text)
            whole = await self._database.read(lambda records: _completed(records, waiting.public_key, new))
            bundle = await self._devices.enroll(principal, whole, waiting.public_key)
            await self._seal(waiting, bundle)
        return await self._devices.device(principal, new.client_id)

    async def reject(self, principal: Principal, user_code: str) -> None:
        """Refuse the device that shows this code; it is told nothing else than after the end of its time."""
        waiting, now = await self._of(user_code), self._clock.now()
        facts = {"fingerprint": waiting.fingerprint}

        def work(records: Records) -> None:
            records.enrollments.drop(waiting.device_code)
            if records.devices.by_key(waiting.public_key) is None:
                records.batches.release(waiting.public_key)
            record(records, principal, Act.DEVICE_REJECT, now, detail=facts)

        await self._database.write(work)

    async def _joining(self, asked: Enrollment, token: str, serial: str | None) -> Enrollment:
        """The request of a device that showed the token of a batch; `BadInput` alike for whatever is wrong."""

        def work(records: Records) -> tuple[BatchPlace, Enrollment] | BatchRefusal:
            place = placed(records, token, serial, asked.public_key, asked.asked_at)
            if isinstance(place, BatchRefusal):
                return place
            there = _sealed(records, asked, place.client_id)
            return place, there or _added(records, replace(asked, client_id=place.client_id))

        # Anyone can send a token that is refused: it writes nothing, and holds up nobody.
        batch = await self._database.read(lambda records: usable(records, token, asked.asked_at))
        if isinstance(batch, BatchRefusal):
            raise self._refused(batch, asked)
        # A repeat that comes while the bundle is made waits for this bundle: a second would end its password.
        async with self._approving:
            found = await self._database.write(work)
            if isinstance(found, BatchRefusal):
                raise self._refused(found, asked)
            place, made = found
            self._heard(made)
            if place.batch.auto and made.sealed is None:
                caller = Principal(f"batch:{place.batch.batch_id}", address=asked.address)
                await self._seal(made, await self._devices.enroll(caller, place.new, made.public_key))
        return made

    def _refused(self, refusal: BatchRefusal, asked: Enrollment) -> BadInput:
        facts = {"batch": refusal.batch_id, "cause": refusal.cause, "fingerprint": asked.fingerprint}
        self._log("batch.refused", facts)
        return BadInput(REFUSED)

    def _heard(self, asked: Enrollment) -> None:
        self._log("device.asks", {"fingerprint": asked.fingerprint, "address": asked.address})

    async def _of(self, user_code: str) -> Enrollment:
        letters, now = user_code.upper().replace("-", "").replace(" ", ""), self._clock.now()
        code = f"{letters[: _CODE // 2]}-{letters[_CODE // 2 :]}"
        found = await self._database.read(lambda records: records.enrollments.shown(code, now))
        if found is None:
            raise UnknownEnrollment
        return found

    async def _seal(self, waiting: Enrollment, bundle: Bundle) -> None:
        """Store the bundle for the device. It may have expired, or made another request, while its bundle was made.

        Then another replica may have made a later bundle: the claim of the device shows which one counts. If it has
        made an earlier one for the later request, this one takes its place there.
        """
        now, content = self._clock.now(), msgspec.json.encode(bundle)

        def work(records: Records) -> None:
            device, rows = records.devices.get(bundle.client_id), records.enrollments
            if device is None or device.claim_secret is None or to_text(device.claim_secret) != bundle.claim_secret:
                return
            asked, before = waiting, rows.sealed_for(waiting.public_key, now)
            if before is not None:
                if rows.get(waiting.device_code, now) is None:
                    asked = before
                rows.drop(before.device_code)
            sealed = to_text(bindings.crypto_box_seal(content, asked.seal_to))
            done = replace(asked, client_id=bundle.client_id, sealed=sealed, expires_at=now + FETCHED_FOR)
            if not rows.seal(done):
                rows.add(done)

        await self._database.write(work)

    def _pace_of(self, device_code: str) -> _Pace:
        """How a device whose signature is right polls here; those that were quiet longest are forgotten."""
        pace = self._paces.pop(device_code, None) or _Pace(INTERVAL, self._clock.monotonic() - INTERVAL)
        self._paces[device_code] = pace
        if len(self._paces) > 2 * MOST:
            self._paces.popitem(last=False)
        return pace


def _signed_by(request: EnrollRequest) -> bytes:
    return enroll_payload(request.seal_to, request.nonce, request.token, request.serial)


def _added(records: Records, asked: Enrollment) -> Enrollment:
    """The request, stored in place of an earlier one of its key; `SlowDown`."""
    records.enrollments.prune(asked.asked_at)
    records.enrollments.drop_waiting(asked.public_key)
    if records.enrollments.count(asked.asked_at) >= MOST:
        raise SlowDown(60)
    while not records.enrollments.add(asked):
        asked = replace(asked, user_code=_user_code())
    return asked


def _sealed(records: Records, asked: Enrollment, name: str) -> Enrollment | None:
    """The bundle that waits for this key; one of another name, or that only another `seal_to` opens, is dropped."""
    found = records.enrollments.sealed_for(asked.public_key, asked.asked_at)
    if found is None:
        return None
    wanted = (found.seal_to, found.client_id) == (asked.seal_to, name)
    if wanted and _fetchable(records, found.device_code, asked.asked_at) is not None:
        return found
    records.enrollments.drop(found.device_code)
    return None


def _fetchable(records: Records, device_code: str, now: float) -> Enrollment | None:
    """The request, unless its device has come with its bundle, or is revoked meanwhile."""
    found = records.enrollments.get(device_code, now)
    if found is None or found.client_id is None or found.sealed is None:
        return found
    device = records.devices.get(found.client_id)
    return found if device is not None and device.state is DeviceState.ENROLLED else None


def _completed(records: Records, key: bytes, new: NewDevice) -> NewDevice:
    """What an operator wants, and beside it what the batch of this key says."""
    slot = records.batches.of_key(key)
    batch = None if slot is None else records.batches.get(slot.batch_id)
    if batch is None:
        return new
    usual = settings_of(batch, new.client_id)
    return NewDevice(
        new.client_id,
        new.allowed_roots or usual.allowed_roots,
        new.upload_hosts or usual.upload_hosts,
        new.file_path or usual.file_path,
        {**usual.labels, **new.labels},
        new.note or usual.note,
    )


def _user_code() -> str:
    letters = "".join(secrets.choice(ALPHABET) for _ in range(_CODE))
    return f"{letters[: _CODE // 2]}-{letters[_CODE // 2 :]}"


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
