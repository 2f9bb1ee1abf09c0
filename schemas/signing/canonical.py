"""The bytes that a signature covers, the name of a key, and the two user properties of a signed message.

Rule: standard library only. What is not in the exact form of this module is unsigned.

>>> signed_bytes(SignedKind.COMMAND, "fleet/v1/restaurant-1/command", b"{}")
b'BACKHAULv1 7 command 29 fleet/v1/restaurant-1/command 2 {}'
>>> key_id(bytes(32))
'ed25519:Zmh6rfhivXdsj8GLjp-OIA'
"""

import hashlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from msgspec import Struct

from schemas.errors import SchemaError

KID: Final = "kid"
SIGNATURE: Final = "signature"
"""The names of the two user properties; each stands exactly once in a signed message."""

PUBLIC_KEY_SIZE: Final = 32
SIGNATURE_SIZE: Final = 64

SIGNED_ROOM: Final = 144
"""Bytes of a packet that the two user properties take, and a few to spare."""

_PREFIX: Final = b"BACKHAULv1"
_KID_PREFIX: Final = "ed25519:"
_KID_SIZE: Final = 16
_PADDING: Final = {0: "", 2: "==", 3: "="}


class SignedKind(StrEnum):
    """What is signed: a kind of message, or a document. The signed bytes name it: no kind passes as another."""

    COMMAND = "command"
    RESPONSE = "response"
    STATUS = "status"
    PRESENCE = "presence"
    BIRTH = "birth"
    KEYS = "keys"
    ROOT = "root"
    ENROLL = "enroll"


class Signature(Struct, frozen=True):
    """A signature and the name of the key that made it; `value` has 64 bytes."""

    kid: str
    value: bytes

    def properties(self) -> list[tuple[str, str]]:
        """The two user properties of the message."""
        return [(KID, self.kid), (SIGNATURE, to_text(self.value))]


def signed_bytes(kind: SignedKind, topic: str, payload: bytes) -> bytes:
    """The bytes to sign: the prefix, then kind, topic and payload, each with its length, so that no two are alike.

    `topic` is the whole name as published. `enroll` has no topic: its is empty.
    """
    parts = (kind.value.encode(), topic.encode(), payload)
    return b" ".join([_PREFIX, *(b"%d %b" % (len(part), part) for part in parts)])


def key_id(public_key: bytes) -> str:
    """The name of a public key of 32 bytes: a part of its SHA-256. `SchemaError` for another length."""
    if len(public_key) != PUBLIC_KEY_SIZE:
        text = f"a public key has {PUBLIC_KEY_SIZE} bytes, not {len(public_key)}"
        raise SchemaError(text)
    return _KID_PREFIX + to_text(hashlib.sha256(public_key).digest()[:_KID_SIZE])


def fingerprint(public_key: bytes) -> str:
    """The SHA-256 of a public key as groups of four hex digits, for people who compare two screens."""
    digits = hashlib.sha256(public_key).hexdigest()
    return " ".join(digits[at : at + 4] for at in range(0, 32, 4))


def read_signature(properties: Iterable[tuple[str, str]] | None) -> Signature | None:
    """The signature of a message with these user properties; None unless both stand there once, in the exact form."""
    found: dict[str, list[str]] = {KID: [], SIGNATURE: []}
    for name, value in properties or ():
        if name in found:
            found[name].append(value)
    if len(found[KID]) != 1 or len(found[SIGNATURE]) != 1:
        return None
    kid = found[KID][0]
    try:
        signature = from_text(found[SIGNATURE][0], SIGNATURE_SIZE)
        from_text(kid.removeprefix(_KID_PREFIX), _KID_SIZE)
    except SchemaError:
        return None
    return Signature(kid, signature) if kid.startswith(_KID_PREFIX) else None


def to_text(data: bytes) -> str:
    """Base64url without padding: the one text form of keys, signatures and sessions."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def from_text(text: str, size: int) -> bytes:
    """The `size` bytes of `to_text`; `SchemaError` for any other text, also one that only decodes alike.

    The error does not repeat the text: it may be a private key.
    """
    try:
        data = urlsafe_b64decode(text + _PADDING[len(text) % 4])
    except (KeyError, ValueError) as error:
        message = "not base64url without padding"
        raise SchemaError(message) from error
    if len(data) != size or to_text(data) != text:
        message = f"not the base64url of {size} bytes"
        raise SchemaError(message)
    return data
