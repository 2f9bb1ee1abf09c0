"""Ed25519 (RFC 8032) by libsodium: a `Signer` holds a private key, a `Verifier` a public one.

Rule: the only module of `schemas` that signs or verifies. Import it only where a key is used: it loads PyNaCl.

>>> signer = Signer(bytes(32))
>>> signature = signer.sign_bytes(b"backhaul/example 1")
>>> signer.verifier.verifies_bytes(signature, b"backhaul/example 1")
True
>>> signer.verifier.verifies_bytes(signature, b"backhaul/example 2")
False
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final

from nacl import bindings
from nacl.exceptions import BadSignatureError

from schemas.errors import SchemaError

SEED_SIZE: Final = 32
PUBLIC_KEY_SIZE: Final = 32
SIGNATURE_SIZE: Final = 64

_PADDING: Final = {0: "", 2: "==", 3: "="}


class Verifier:
    """Verifies what one public key signed."""

    __slots__ = ("public_key",)

    def __init__(self, public_key: bytes) -> None:
        """`SchemaError` for a key of another length than 32 bytes."""
        if len(public_key) != PUBLIC_KEY_SIZE:
            text = f"a public key has {PUBLIC_KEY_SIZE} bytes, not {len(public_key)}"
            raise SchemaError(text)
        self.public_key: Final = public_key

    @property
    def text(self) -> str:
        """The public key in its text form."""
        return to_text(self.public_key)

    def verifies_bytes(self, signature: bytes, data: bytes) -> bool:
        """Whether this key signed these bytes, which have a prefix of their own: no other form begins so."""
        if len(signature) != SIGNATURE_SIZE:
            return False
        try:
            bindings.crypto_sign_open(signature + data, self.public_key)
        except BadSignatureError:
            return False
        return True


class Signer:
    """Signs with one private key."""

    __slots__ = ("_secret", "seed", "verifier")

    def __init__(self, seed: bytes) -> None:
        """`seed` is the private key of RFC 8032: 32 random bytes. `SchemaError` for another length."""
        if len(seed) != SEED_SIZE:
            text = f"a private key has {SEED_SIZE} bytes, not {len(seed)}"
            raise SchemaError(text)
        public_key, secret = bindings.crypto_sign_seed_keypair(seed)
        self.seed: Final[bytes] = seed
        self.verifier: Final = Verifier(public_key)
        self._secret: Final[bytes] = secret

    def __repr__(self) -> str:
        return f"Signer({self.verifier.text})"

    def sign_bytes(self, data: bytes) -> bytes:
        """The 64 bytes of a signature of bytes that have a prefix of their own: no other form begins so."""
        signed: bytes = bindings.crypto_sign(data, self._secret)
        return signed[:SIGNATURE_SIZE]


def to_text(data: bytes) -> str:
    """Base64url without padding: the one text form of keys."""
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
