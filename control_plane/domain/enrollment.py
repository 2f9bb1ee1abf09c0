"""A device that is to be enrolled by a code, until it has come with its bundle.

Rule: nothing here is secret. A poll is signed by the key of the device, so its `device_code` alone is worth nothing,
and the bundle is sealed to a key that never leaves the device.
"""

from dataclasses import dataclass

from schemas.signing.canonical import fingerprint


@dataclass(frozen=True, slots=True)
class Enrollment:
    """One request. Keys have 32 bytes; instants are s since the epoch.

    `expires_at`: until then it can be approved, and once it is, its bundle can be fetched. `sealed`
    (base64url) is there once it is approved; `client_id` too, or before as the name that its batch proposes.
    """

    device_code: str
    user_code: str
    public_key: bytes
    seal_to: bytes
    address: str
    asked_at: float
    expires_at: float
    client_id: str | None = None
    sealed: str | None = None

    @property
    def fingerprint(self) -> str:
        """What a person compares with the screen of the device."""
        return fingerprint(self.public_key)
