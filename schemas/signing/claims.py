"""The claim: how the first presence of a device proves that its key belongs to the bundle that it was enrolled with.

Rule: the secret of a claim is never sent. A broker that reads the claim learns nothing that fits another key.

>>> claim_of(bytes(32), "restaurant-7", bytes(32))
'me8bCJMOantwMwTjUg8ioS-7AyX46oeya0LdN7medoQ'
"""

import hashlib
import hmac
from typing import Final

from schemas.signing.canonical import to_text

CLAIM_SECRET_SIZE: Final = 32

_PREFIX: Final = b"backhaul-claim-v1"
_LENGTH: Final = 4


def claim_of(secret: bytes, client_id: str, public_key: bytes) -> str:
    """The claim of this key to this name: 43 characters of base64url.

    HMAC-SHA256 over the prefix, the length of the id in bytes (4 bytes, big-endian), the id, and the public key.
    """
    name = client_id.encode()
    data = _PREFIX + len(name).to_bytes(_LENGTH, "big") + name + public_key
    return to_text(hmac.digest(secret, data, hashlib.sha256))


def claim_matches(claim: str, secret: bytes, client_id: str, public_key: bytes) -> bool:
    """Whether it is that claim; the time that this takes says nothing about how much of it is right."""
    return hmac.compare_digest(claim.encode("utf-8", "replace"), claim_of(secret, client_id, public_key).encode())
