"""Batches: an operator makes a token for many devices of one image; a device that shows it is given a name.

Rule: of a token only the digest is kept, and it is shown once. Whatever is wrong with what a device shows, it is
answered alike; the log says what it was.
"""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain, islice
from typing import Any, Final

from control_plane.domain.access import Principal
from control_plane.domain.audit.model import Act
from control_plane.domain.batches import MAX_COUNT, MAX_LIFE, Batch, Slot, check_names
from control_plane.domain.errors import BadText
from control_plane.services.audit.recording import Detail, record
from control_plane.services.devices.service import NewDevice
from control_plane.services.errors import BadInput, UnknownBatch
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.database import Database, Records
from schemas.signing.enrolment import token_digest

REFUSED: Final = "the batch token is refused"
_ID: Final = 8
_TOKEN: Final = 32
_LOOK: Final = 200
"""Names that are looked at together."""


@dataclass(frozen=True, slots=True)
class NewBatch:
    """What an operator wants: names, how many, for how long (s), and the settings of the bundles (not their name)."""

    pattern: str
    count: int
    expires_in: float
    auto: bool = False
    serials: tuple[str, ...] = ()
    settings: NewDevice = field(default_factory=lambda: NewDevice(""))


@dataclass(frozen=True, slots=True)
class BatchPlace:
    """The name that a device of a batch is given."""

    batch: Batch
    client_id: str

    @property
    def new(self) -> NewDevice:
        """The device, with the settings of its batch."""
        return settings_of(self.batch, self.client_id)


@dataclass(frozen=True, slots=True)
class BatchRefusal:
    """Why a device gets no name: for the log, and never for the device."""

    batch_id: str
    cause: str


class Batches:
    """Makes, lists and revokes batches."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def create(self, principal: Principal, new: NewBatch) -> tuple[Batch, str]:
        """A batch and its token, which is stored nowhere; `BadInput`, `DatabaseUnavailable`."""
        if not 1 <= new.count <= MAX_COUNT or not 0 < new.expires_in <= MAX_LIFE:
            text = f"a batch has 1 to {MAX_COUNT} devices, and ends within {MAX_LIFE / 86_400:.0f} days"
            raise BadInput(text)
        try:
            check_names(new.pattern, new.count, new.serials)
        except BadText as error:
            raise BadInput(str(error)) from error
        now, token = self._clock.now(), secrets.token_urlsafe(_TOKEN)
        batch = Batch(
            batch_id=secrets.token_hex(_ID),
            digest=token_digest(token),
            pattern=new.pattern,
            count=new.count,
            expires_at=now + new.expires_in,
            auto=new.auto,
            created_at=now,
            created_by=principal.subject,
            serials=new.serials,
            wanted=asdict(replace(new.settings, labels=dict(new.settings.labels))),
        )
        facts: Detail = {"names": batch.pattern, "count": batch.count, "auto": batch.auto}

        def work(records: Records) -> None:
            records.batches.add(batch)
            record(records, principal, Act.BATCH_CREATE, now, target=f"batch:{batch.batch_id}", detail=facts)

        await self._database.write(work)
        return batch, token

    async def batches(self, _principal: Principal) -> Sequence[tuple[Batch, int]]:
        """Every batch with the number of names that were given, the newest first; `DatabaseUnavailable`."""
        return await self._database.read(lambda records: records.batches.list())

    async def revoke(self, principal: Principal, batch_id: str) -> None:
        """Take the token no more; a repeat changes nothing. Devices that joined stay. `UnknownBatch`."""
        now = self._clock.now()

        def work(records: Records) -> None:
            if records.batches.get(batch_id) is None:
                raise UnknownBatch(batch_id)
            if records.batches.revoke(batch_id, now):
                record(records, principal, Act.BATCH_REVOKE, now, target=f"batch:{batch_id}")

        await self._database.write(work)


def settings_of(batch: Batch, client_id: str) -> NewDevice:
    """What a device of this batch gets, under this name."""
    found: Mapping[str, Any] = batch.wanted or {}
    return NewDevice(
        client_id,
        tuple(found.get("allowed_roots", ())),
        tuple(found.get("upload_hosts", ())),
        found.get("file_path"),
        found.get("labels", {}),
        found.get("note", ""),
    )


def usable(records: Records, token: str, now: float) -> Batch | BatchRefusal:
    """The batch of this token, if a device may still join with it. It writes nothing."""
    # Found by the digest of 256 random bits: how long that takes tells nothing about a token.
    batch = records.batches.of_digest(token_digest(token))
    if batch is None:
        return BatchRefusal("", "unknown")
    if not batch.usable(now):
        return BatchRefusal(batch.batch_id, "expired" if batch.revoked_at is None else "revoked")
    return batch


def placed(records: Records, token: str, serial: str | None, key: bytes, now: float) -> BatchPlace | BatchRefusal:
    """The name for this key, the same one as long as it has it. Within the transaction that stores its request.

    When no number is left, one is taken from a device that was given it, in whatever batch, and never joined.
    """
    batch = usable(records, token, now)
    if isinstance(batch, BatchRefusal):
        return batch
    number = batch.number_of(serial) if batch.serials else None
    if batch.serials and number is None:
        return BatchRefusal(batch.batch_id, "serial unknown")
    held, device = records.batches.of_key(key), records.devices.by_key(key)
    if held is not None and (held.batch_id != batch.batch_id or number not in {None, held.number}):
        return BatchRefusal(batch.batch_id, "key has another name")
    if device is not None and (held is None or held.client_id != device.client_id):
        return BatchRefusal(batch.batch_id, "key has another name")
    if held is not None:
        there = records.devices.get(held.client_id)
        if there is None or there.public_key == key:
            return BatchPlace(batch, held.client_id)
        # An operator gave this name to another device meanwhile.
        records.batches.release(key)
    for one in _free(records, batch, number, now):
        name = batch.name(one)
        if records.devices.get(name) is None and records.batches.take(Slot(batch.batch_id, one, name, key, now)):
            return BatchPlace(batch, name)
    return BatchRefusal(batch.batch_id, "used up" if number is None else "serial has another key")


def _free(records: Records, batch: Batch, number: int | None, now: float) -> Iterator[int]:
    """Numbers that nobody has, or only this one; then those that were left, which are free once they are yielded."""
    wanted = range(1, batch.count + 1) if number is None else [number]
    taken = records.batches.taken(batch.batch_id)
    unused = (one for one in wanted if one not in taken)
    elsewhere: list[tuple[int, bytes]] = []
    while some := {batch.name(one): one for one in islice(unused, _LOOK)}:
        held = records.batches.held(list(some), now)
        yield from (one for name, one in some.items() if name not in held)
        # Of another batch, which may be over: its names would else be blocked for each one that comes after.
        elsewhere += [(some[name], key) for name, key in held.items() if key is not None]
    own = [(slot.number, slot.public_key) for slot in records.batches.left(batch.batch_id, now)]
    for one, key in chain(own, sorted(elsewhere)):
        if one in wanted:
            records.batches.release(key)
            yield one
