"""Ed25519 (RFC 8032) by libsodium: a `Signer` holds a private key, a `Verifier` a public one.

Rule: the only module of the wire contract that signs or verifies. Import it only where a key is used: it loads PyNaCl.

>>> signer = Signer(bytes(32))
>>> signature = signer.sign(SignedKind.BIRTH, "fleet/v1/control-plane/birth", b"{}")
>>> signer.verifier.verifies(signature, SignedKind.BIRTH, "fleet/v1/control-plane/birth", b"{}")
True
>>> signer.verifier.verifies(signature, SignedKind.BIRTH, "fleet/v1/control-plane/birth", b"{ }")
False
"""

from typing import Final

from nacl import bindings
from nacl.exceptions import BadSignatureError

from schemas.errors import SchemaError
from schemas.signing.canonical import (
    PUBLIC_KEY_SIZE,
    SIGNATURE_SIZE,
    Signature,
    SignedKind,
    from_text,
    key_id,
    signed_bytes,
    to_text,
)

SEED_SIZE: Final = 32


class Verifier:
    """Verifies what one public key signed."""

    __slots__ = ("kid", "public_key")

    def __init__(self, public_key: bytes) -> None:
        """`SchemaError` for a key of another length than 32 bytes."""
        self.kid: Final = key_id(public_key)
        self.public_key: Final = public_key

    @classmethod
    def of_text(cls, public_key: str) -> "Verifier":
        """The verifier of a key in its text form; `SchemaError` for another form."""
        return cls(from_text(public_key, PUBLIC_KEY_SIZE))

    @property
    def text(self) -> str:
        """The public key in its text form."""
        return to_text(self.public_key)

    def verifies(self, signature: Signature, kind: SignedKind, topic: str, payload: bytes) -> bool:
        """Whether this key signed exactly this message."""
        return signature.kid == self.kid and self.verifies_bytes(signature.value, signed_bytes(kind, topic, payload))

    def verifies_bytes(self, signature: bytes, data: bytes) -> bool:
        """Whether this key signed these bytes (of a receipt, of a checkpoint: forms with a prefix of their own)."""
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
        return f"Signer({self.kid})"

    @property
    def kid(self) -> str:
        """The name of the key."""
        return self.verifier.kid

    def sign(self, kind: SignedKind, topic: str, payload: bytes) -> Signature:
        """The signature of this message."""
        return Signature(self.kid, self.sign_bytes(signed_bytes(kind, topic, payload)))

    def sign_bytes(self, data: bytes) -> bytes:
        """The 64 bytes of a signature of bytes that have a prefix of their own: no message's, no other form's."""
        signed: bytes = bindings.crypto_sign(data, self._secret)
        return signed[:SIGNATURE_SIZE]
