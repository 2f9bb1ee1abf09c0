"""A device of the registry: a name, and the one key that may speak under it.

Rule: a key is pinned once, by a right claim. Another key never replaces it without an act of an operator: it raises the
alarm, and nothing is dispatched while the alarm lasts. A key that was revoked is never pinned again, under any name.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from schemas.signing.claims import claim_matches

MAX_NOTE: Final = 1_000
"""Characters of the note of a device."""


class DeviceState(StrEnum):
    """How far a device has come.

    `enrolled`: it has a bundle, and its key was not seen yet. `active`: its key is pinned. `revoked`: nothing that it
    sends is taken.
    """

    ENROLLED = "enrolled"
    ACTIVE = "active"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Device:
    """One device. Keys and the secret have 32 bytes; instants are s since the epoch.

    `claim_secret` waits for the first presence, and is forgotten with it. `other_key` is the key of a valid message
    under this name that is not the pinned one: the alarm. `has_account`: this control plane made its broker account.
    """

    client_id: str
    state: DeviceState
    created_at: float
    created_by: str
    public_key: bytes | None = None
    claim_secret: bytes | None = None
    other_key: bytes | None = None
    other_at: float | None = None
    pinned_at: float | None = None
    revoked_at: float | None = None
    revoked_by: str | None = None
    has_account: bool = False
    note: str = ""

    def __repr__(self) -> str:
        return f"Device({self.client_id!r}, {self.state})"

    @property
    def alarm(self) -> bool:
        """Whether another key was seen under this name."""
        return self.other_key is not None

    def claimed_by(self, public_key: bytes, claim: str | None) -> bool:
        """Whether the claim proves that this key belongs to the bundle that waits for its first presence."""
        return (
            self.claim_secret is not None
            and claim is not None
            and claim_matches(claim, self.claim_secret, self.client_id, public_key)
        )


def pinned(device: Device, public_key: bytes, at: float) -> Device:
    """The device with this key; its claim is used up, and an alarm about another key is over."""
    return replace(
        device,
        state=DeviceState.ACTIVE,
        public_key=public_key,
        claim_secret=None,
        other_key=None,
        other_at=None,
        pinned_at=at,
    )


def revoked(device: Device, by: str, at: float) -> Device:
    """The device, revoked; its key stays known."""
    return replace(
        device,
        state=DeviceState.REVOKED,
        claim_secret=None,
        other_key=None,
        other_at=None,
        revoked_at=at,
        revoked_by=by,
    )
