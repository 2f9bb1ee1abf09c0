"""The use cases of devices.

Rule: every method that a caller has takes the calling `Principal` first. A change of a pin is committed, and read by
`Pins`, before anything outside of the database is changed: what the control plane refuses must not depend on a broker.
"""

import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Protocol, TypeVar

from msgspec import structs

from control_plane.domain.access import Principal
from control_plane.domain.audit.model import Act
from control_plane.domain.clients import Client
from control_plane.domain.devices import MAX_NOTE, Device, DeviceState, pinned, revoked
from control_plane.domain.reasons import ReasonCode
from control_plane.domain.selectors import selectable
from control_plane.services.audit.recording import Detail, record
from control_plane.services.clients.service import check_client_id
from control_plane.services.devices.clearing import PresenceClearer
from control_plane.services.devices.pins import Pins
from control_plane.services.devices.ports import DeviceAccounts, DevicePage, FleetRoot
from control_plane.services.errors import AccountsDown, BadInput, DeviceRefused, UnknownDevice
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.database import Database, Page, Records
from control_plane.services.ports.log import EventLog
from schemas.signing.canonical import fingerprint, to_text
from schemas.signing.claims import CLAIM_SECRET_SIZE
from schemas.signing.enrolment import Bundle

T = TypeVar("T")

_DRAWS: Final = 8
"""Times that a bundle is made while others are made for the same device."""


@dataclass(frozen=True, slots=True)
class Reachable:
    """What every device of the fleet gets: the address of the broker, and the certificates that verify it (PEM)."""

    mqtt_url: str
    topic_root: str
    ca: str | None = None


@dataclass(frozen=True, slots=True)
class NewDevice:
    """What an operator wants of a device. `upload_hosts` empty: the device's own settings name them.

    `keep_account`: its account at the broker keeps its password, and the bundle has none.
    """

    client_id: str
    allowed_roots: tuple[str, ...] = ()
    upload_hosts: tuple[str, ...] = ()
    file_path: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    keep_account: bool = False


class UploadEnder(Protocol):
    """Ends what a client has open."""

    async def end_all(self, principal: Principal, client_id: str) -> int:
        """End every open upload of this owner; the number that was ended. `DatabaseUnavailable`."""


class DeviceService:
    """Enrols and revokes devices. Without `accounts` a bundle has no password for the broker."""

    def __init__(  # noqa: PLR0913 - one keyword for each neighbour
        self,
        *,
        database: Database,
        clock: Clock,
        log: EventLog,
        pins: Pins,
        clearer: PresenceClearer,
        uploads: UploadEnder,
        place: Reachable,
        root: FleetRoot = lambda: None,
        accounts: DeviceAccounts | None = None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._log = log
        self._pins = pins
        self._clearer = clearer
        self._uploads = uploads
        self._place = place
        self._root = root
        self._accounts = accounts

    async def enroll(self, principal: Principal, new: NewDevice, public_key: bytes | None = None) -> Bundle:
        """A new device: its bundle. `BadInput`, `AccountsDown`.

        `DeviceRefused` for one that exists, and with `keep_account` for one without an account at the broker.

        With `public_key` only this key can be pinned; such a bundle needs a root of trust. A repeat with the same key
        makes another bundle while the device has not come with the first: it may never have reached the device.
        """
        _check(new)
        if new.keep_account:
            await self._require_account(new.client_id)
        now = self._clock.now()

        def work(records: Records, secret: bytes | None) -> None:
            there = records.devices.get(new.client_id)
            if there is not None and not _waits_for(there, public_key):
                text = f"device {new.client_id!r} is enrolled already: `rotate` makes a new bundle for it"
                raise DeviceRefused(text)
            if public_key is not None and public_key in records.devices.revoked_keys():
                text = "this key was revoked: the device must make a new one (delete identity.json in its STATE_DIR)"
                raise DeviceRefused(text)
            made = Device(
                client_id=new.client_id,
                state=DeviceState.ENROLLED,
                created_at=now,
                created_by=principal.subject,
                public_key=public_key,
                claim_secret=secret,
                has_account=self._accounts is not None,
                note=new.note,
            )
            records.devices.save(made)
            act = Act.DEVICE_ENROLL if public_key is None else Act.DEVICE_APPROVE
            _note(records, principal, act, new.client_id, now, _facts(public_key))

        return await self._bundle(new, work, signed=public_key is not None)

    async def rotate(self, principal: Principal, new: NewDevice) -> Bundle:
        """A new password and a new claim for a device, also for a revoked one; errors as `enroll`, `UnknownDevice`.

        The pinned key counts until a presence with the new claim pins another. An alarm is over: whoever raised it has
        the former password, which is refused.
        """
        _check(new)
        now = self._clock.now()

        def work(records: Records, secret: bytes | None) -> None:
            device = _known(records, new.client_id)
            keeps = device.state is DeviceState.ACTIVE
            changed = replace(
                device,
                state=DeviceState.ACTIVE if keeps else DeviceState.ENROLLED,
                public_key=device.public_key if keeps else None,
                claim_secret=secret,
                has_account=self._accounts is not None,
                note=new.note or device.note,
            )
            records.devices.save(replace(changed, revoked_at=None, revoked_by=None, other_key=None, other_at=None))
            records.outbox.wake_failed([ReasonCode.KEY_ALARM], now)
            _note(records, principal, Act.DEVICE_ROTATE, new.client_id, now)

        return await self._bundle(new, work)

    async def devices(self, _principal: Principal, page: Page) -> DevicePage:
        """A page of devices by id; `BadInput`, `DatabaseUnavailable`."""
        return await self._database.read(lambda records: records.devices.list(page))

    async def device(self, _principal: Principal, client_id: str) -> Device:
        """One device; `UnknownDevice`, `BadInput`, `DatabaseUnavailable`."""
        check_client_id(client_id)
        return await self._database.read(lambda records: _known(records, client_id))

    async def keys_versions(self, client_ids: Iterable[str]) -> Mapping[str, int | None]:
        """Which list of keys each of these devices obeys, by its last presence; `DatabaseUnavailable`.

        None for one that obeys unsigned commands; one that was never seen is not there.
        """
        wanted = tuple(client_ids)
        found = await self._database.read(lambda records: records.clients.among(wanted))
        return {client_id: client.keys_version for client_id, client in found.items()}

    async def accept_key(self, principal: Principal, client_id: str, shown: str) -> Device:
        """Pin the other key of a device in alarm; the former key is refused from now on, under any name.

        `shown` is the fingerprint that the caller compared. `DeviceRefused` without an alarm, for another key, and for
        one that was revoked.
        """
        now = self._clock.now()

        def work(records: Records) -> Device:
            device = _known(records, client_id)
            if device.other_key is None:
                text = f"device {client_id!r} is in no alarm: its key is {_shown(device.public_key)}"
                raise DeviceRefused(text)
            if fingerprint(device.other_key) != shown:
                text = f"the other key of {client_id!r} has the fingerprint {fingerprint(device.other_key)}"
                raise DeviceRefused(text)
            if device.other_key in records.devices.revoked_keys():
                text = "this key was revoked: the device must make a new one (delete identity.json in its STATE_DIR)"
                raise DeviceRefused(text)
            if device.public_key is not None:
                records.devices.revoke_key(device.public_key, client_id, now)
            accepted = pinned(device, device.other_key, now)
            records.devices.save(accepted)
            records.outbox.wake_failed([ReasonCode.KEY_ALARM], now)
            _note(records, principal, Act.DEVICE_ACCEPT_KEY, client_id, now, _facts(accepted.public_key))
            return accepted

        return await self._changed(client_id, work)

    async def revoke(self, principal: Principal, client_id: str) -> Device:
        """Take nothing of a device and send it nothing, from now on; then end what it has open, and its connection.

        A repeat does again what follows the commit. `UnknownDevice`; `AccountsDown` when the account stays.
        """
        now = self._clock.now()

        def work(records: Records) -> Device:
            device = _known(records, client_id)
            if device.state is DeviceState.REVOKED:
                return device
            for key in {device.public_key, device.other_key} - {None}:
                holder = records.devices.by_key(key or b"")
                # The other key may be that of another device, which must not lose it.
                if holder is None or holder.client_id == client_id:
                    records.devices.revoke_key(key or b"", client_id, now)
            gone = revoked(device, principal.subject, now)
            records.devices.save(gone)
            _set_offline(records, client_id)
            _note(records, principal, Act.DEVICE_REVOKE, client_id, now, _facts(device.public_key))
            return gone

        gone = await self._changed(client_id, work)
        try:
            # Before the broker, which may take long: the device can use its URLs as long as its uploads are open.
            ended = await self._uploads.end_all(principal, client_id)
            self._log("device.revoked", {"client_id": client_id, "uploads": ended})
        finally:
            try:
                # Also one that was made elsewhere: the device loses every account.
                if self._accounts is not None:
                    await self._accounts.remove(client_id)
            finally:
                self._clearer.begin(client_id)
        return gone

    async def forget(self, principal: Principal, client_id: str, *, unsigned: bool = False) -> None:
        """Delete a revoked device; its keys stay refused. `DeviceRefused` for another one, `UnknownDevice`.

        If it has signed, its name stays refused too, until it is enrolled again. With `unsigned` the name may speak
        unsigned again; a device that was forgotten without it can be forgotten once more with it.
        """
        now = self._clock.now()

        def work(records: Records) -> None:
            let_go = unsigned and client_id in records.devices.signed_names()
            device = records.devices.get(client_id)
            if device is None and not let_go:
                raise UnknownDevice(client_id)
            if device is not None and device.state is not DeviceState.REVOKED:
                text = f"device {client_id!r} is {device.state}: revoke it first"
                raise DeviceRefused(text)
            records.devices.delete(client_id)
            if let_go:
                records.devices.release_name(client_id)
            _note(records, principal, Act.DEVICE_FORGET, client_id, now, {"unsigned": True} if let_go else None)

        await self._changed(client_id, work)

    async def _bundle(
        self, new: NewDevice, work: Callable[[Records, bytes | None], None], *, signed: bool = False
    ) -> Bundle:
        root = self._root()
        if signed and root is None:
            text = "the fleet has no root of trust: make one with `backhaul keys init`"
            raise DeviceRefused(text)
        secret, password = await self._drawn(new, work, claims=root is not None)
        return Bundle(
            client_id=new.client_id,
            mqtt_url=self._place.mqtt_url,
            mqtt_password=password,
            topic_root=self._place.topic_root,
            ca=self._place.ca,
            root=root,
            claim_secret=None if secret is None else to_text(secret),
            allowed_roots=new.allowed_roots,
            upload_hosts=new.upload_hosts,
            file_path=new.file_path,
            labels=dict(new.labels),
        )

    async def _drawn(
        self, new: NewDevice, work: Callable[[Records, bytes | None], None], *, claims: bool
    ) -> tuple[bytes | None, str | None]:
        """A claim, which `work` stores, and a password, both of which count; `DeviceRefused` when others go on too.

        Each password ends the one before. Who finds after it that another replica has stored a later claim may have
        ended the password of that bundle, or has a password that was ended: so both are drawn once more, and what is
        drawn last has both.
        """
        accounts = None if new.keep_account else self._accounts
        for _ in range(_DRAWS):
            # A device without a root of trust signs nothing, so it can claim no key.
            secret = secrets.token_bytes(CLAIM_SECRET_SIZE) if claims else None

            def store(records: Records, claim: bytes | None = secret) -> None:
                work(records, claim)

            await self._changed(new.client_id, store)
            if accounts is None:
                return secret, None
            password = await self._password(accounts, new.client_id)
            if secret is None or await self._is_claim(new.client_id, secret):
                return secret, password
        text = f"others make bundles for device {new.client_id!r} at the same time: do this again when they have ended"
        raise DeviceRefused(text)

    async def _is_claim(self, client_id: str, secret: bytes) -> bool:
        device = await self._database.read(lambda records: records.devices.get(client_id))
        return device is not None and device.claim_secret == secret

    async def _require_account(self, client_id: str) -> None:
        # Without accounts of its own the control plane changes none: whoever makes them has to know.
        if self._accounts is not None and not await self._accounts.keep(client_id):
            text = (
                f"device {client_id!r} has no account at the broker that could be kept: enrol it without keep_account"
            )
            raise DeviceRefused(text)

    async def _password(self, accounts: DeviceAccounts, client_id: str) -> str:
        try:
            return await accounts.give(client_id)
        except AccountsDown as error:
            text = f"{error}. Device {client_id!r} is enrolled without its bundle: `device rotate` makes one, later"
            raise AccountsDown(text) from error

    async def _changed(self, client_id: str, work: Callable[[Records], T]) -> T:
        check_client_id(client_id)
        done = await self._database.write(work)
        await self._pins.load()
        return done


def _check(new: NewDevice) -> None:
    check_client_id(new.client_id)
    if len(new.note) > MAX_NOTE or not selectable(new.note):
        text = f"a note has at most {MAX_NOTE} characters of text"
        raise BadInput(text)


def _waits_for(device: Device, public_key: bytes | None) -> bool:
    """Whether this device was approved with this key, and has not come yet."""
    return device.state is DeviceState.ENROLLED and public_key is not None and device.public_key == public_key


def _known(records: Records, client_id: str) -> Device:
    device = records.devices.get(client_id)
    if device is None:
        raise UnknownDevice(client_id)
    return device


def _set_offline(records: Records, client_id: str) -> None:
    client: Client | None = records.clients.get(client_id)
    if client is not None and client.online:
        records.clients.save([structs.replace(client, online=False)])


def _shown(key: bytes | None) -> str:
    return "not known yet" if key is None else fingerprint(key)


def _facts(key: bytes | None) -> Detail:
    return {} if key is None else {"fingerprint": fingerprint(key)}


def _note(
    records: Records, principal: Principal, act: Act, client_id: str, now: float, facts: Detail | None = None
) -> None:
    record(records, principal, act, now, target=f"device:{client_id}", clients=[client_id], detail=facts)
