"""`backhaul mqtt trust`: the keys of devices that this operator knows.

Rule: a key is pinned only when it has the fingerprint that the operator typed, and a message signed by it was seen.
"""

from control_plane.cli.errors import Failed, Misused
from control_plane.cli.mqtt.device_keys import DeviceKeys, PinnedKey
from control_plane.cli.mqtt.engine import load_settings
from control_plane.cli.mqtt.publish import introduction_of
from control_plane.cli.rest.progress import Document
from schemas.signing.canonical import fingerprint

_DIGITS = frozenset("0123456789abcdef")
_LENGTH = 32


def known_keys() -> DeviceKeys:
    """The keys that these settings name."""
    return DeviceKeys.of(load_settings())


def row_of(pinned: PinnedKey) -> Document:
    """One pinned key, for people and programs."""
    return {
        "client_id": pinned.client_id,
        "fingerprint": fingerprint(pinned.verifier.public_key),
        "public_key": pinned.public_key,
        "pinned_at": pinned.pinned_at.isoformat().replace("+00:00", "Z"),
    }


def read_fingerprint(text: str) -> str:
    """A typed fingerprint in the form of `fingerprint`; `Misused` for one that is not whole."""
    digits = "".join(text.lower().split())
    if len(digits) != _LENGTH or not set(digits) <= _DIGITS:
        message = f"--fingerprint {text!r}: a fingerprint has {_LENGTH} hex digits, as `device show` has it"
        raise Misused(message)
    return " ".join(digits[at : at + 4] for at in range(0, _LENGTH, 4))


async def pin(client_id: str, typed: str) -> PinnedKey:
    """Pin the key with which a device signs its presence, if it has this fingerprint; else `Failed`."""
    wanted, settings = read_fingerprint(typed), load_settings()
    verifier = await introduction_of(settings, client_id)
    found = fingerprint(verifier.public_key)
    if found != wanted:
        text = f"{client_id} signs with a key of another fingerprint, {found}: nothing is pinned"
        raise Failed(text)
    return DeviceKeys.of(settings).pin(client_id, verifier)
