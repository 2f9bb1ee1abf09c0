"""The registry of devices in the database.

Rule: as `services/ports/database.py`.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

from control_plane.domain.batches import Batch, Slot
from control_plane.domain.devices import Device
from control_plane.domain.enrollment import Enrollment
from control_plane.services.ports.database import Page
from schemas.signing.documents import SignedDocument

DevicePage = tuple[list[Device], str | None]
"""Devices by id, and the cursor of the next page."""

MOST_CHANGES: Final = 500
"""Changes whose names are known; to read each of more devices would take longer than to read all at once."""

FleetRoot = Callable[[], SignedDocument | None]
"""The first root of trust of the fleet; None for a fleet without one."""


class DeviceRecords(Protocol):
    """Devices, and the keys that were revoked."""

    def get(self, client_id: str) -> Device | None:
        """One device."""

    def among(self, client_ids: Iterable[str]) -> dict[str, Device]:
        """Those of these devices that exist, by id."""

    def list(self, page: Page) -> DevicePage:
        """A page of devices by id, in the order of code points; `BadInput` for a malformed cursor."""

    def save(self, device: Device) -> None:
        """Insert or replace; `KeyTaken` when its public key is pinned under another name."""

    def delete(self, client_id: str) -> bool:
        """Delete a device, not the keys that it had revoked; False when it does not exist."""

    def by_key(self, public_key: bytes) -> Device | None:
        """The device with this public key."""

    def pinned(self) -> Sequence[Device]:
        """Every device: what decides about its messages."""

    def revoke_key(self, public_key: bytes, client_id: str, at: float) -> None:
        """Refuse this key from now on; a repeat changes nothing."""

    def revoked_keys(self) -> frozenset[bytes]:
        """Every key that is refused."""

    def signed_names(self) -> frozenset[str]:
        """Every name of which a key was revoked: its device has signed, so it is taken unsigned no more."""

    def release_name(self, client_id: str) -> None:
        """Take this name out of `signed_names`; the keys stay refused."""

    def revoked_under(self, client_ids: Iterable[str]) -> dict[bytes, str]:
        """The refused keys of at most `MOST_CHANGES` names, each with its name."""

    def version(self) -> int:
        """A number that rises with every change of a device or a revoked key, on all replicas together."""

    def changed_since(self, version: int) -> frozenset[str] | None:
        """The names of what changed after this number, also of what is gone; None when that is not known any more.

        Then everything is to be read. At most `MOST_CHANGES` names.
        """


class EnrollmentRecords(Protocol):
    """Requests of devices to be enrolled by code. `now`, in s since the epoch, decides which of them have expired."""

    def get(self, device_code: str, now: float) -> Enrollment | None:
        """One request, approved or not."""

    def shown(self, user_code: str, now: float) -> Enrollment | None:
        """The request whose device shows this code, while it is neither approved nor rejected."""

    def waiting(self, now: float) -> Sequence[Enrollment]:
        """Those that are neither approved nor rejected, the oldest first."""

    def count(self, now: float) -> int:
        """How many those are."""

    def add(self, enrollment: Enrollment) -> bool:
        """Insert it; False when another one has one of its codes."""

    def seal(self, enrollment: Enrollment) -> bool:
        """Store its name, its bundle and its end; False when it is gone."""

    def sealed_for(self, public_key: bytes, now: float) -> Enrollment | None:
        """The request of this key that was approved."""

    def drop(self, device_code: str) -> None:
        """Delete one; no error when it is gone."""

    def drop_waiting(self, public_key: bytes) -> None:
        """Delete the request of this key, unless it was approved."""

    def prune(self, now: float) -> int:
        """Delete what has expired; returns the number deleted."""


class BatchRecords(Protocol):
    """Batches of devices, and the names that were taken of each."""

    def add(self, batch: Batch) -> None:
        """Insert it."""

    def get(self, batch_id: str) -> Batch | None:
        """One batch."""

    def of_digest(self, digest: str) -> Batch | None:
        """The batch whose token has this digest."""

    def list(self) -> Sequence[tuple[Batch, int]]:
        """Every batch with the number of its slots that are taken, the newest first."""

    def revoke(self, batch_id: str, at: float) -> bool:
        """Let nobody join any more; False when it is unknown, or was revoked before."""

    def taken(self, batch_id: str) -> frozenset[int]:
        """The numbers that keys have."""

    def left(self, batch_id: str, now: float) -> Sequence[Slot]:
        """Slots whose key has no device, no request that lives, and was not revoked; by number."""

    def held(self, client_ids: Sequence[str], now: float) -> dict[str, bytes | None]:
        """Those of at most 1,000 names that a device has, or a slot of whatever batch.

        With the key of the slot if it is left and no device has the name, else None.
        """

    def of_key(self, public_key: bytes) -> Slot | None:
        """The slot that this key took, of whatever batch."""

    def take(self, slot: Slot) -> bool:
        """Give a key this slot; False when the number, the name or the key has one already."""

    def release(self, public_key: bytes) -> None:
        """Let another key take the slot of this one; no error without one."""

    def prune(self, ended_before: float, now: float, limit: int) -> int:
        """Delete at most `limit` batches that ended before, with their slots that are `left`; their number.

        A batch ends when it expires, or is revoked before. The slots of devices that joined stay, and so their names.
        """


class DeviceAccounts(Protocol):
    """The accounts of devices at the broker; `AccountsDown` when they cannot be changed now."""

    async def give(self, client_id: str) -> str:
        """Make the account of a device, or give it a new password: the password, which is stored nowhere."""

    async def keep(self, client_id: str) -> bool:
        """Bring the rights of an account up to date and leave its password; False when there is none."""

    async def remove(self, client_id: str) -> None:
        """Remove the account, and end its connection; one that is not there is no error."""
