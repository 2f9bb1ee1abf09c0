"""The key and the header of a sealed file, drawn anew for each attempt (age v1: https://age-encryption.org/v1).

Rule: a file key is drawn here and nowhere else, once for one attempt; it is never logged and never sent.
"""

import functools
import hmac
import importlib.util
import secrets
from base64 import b64encode
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Final

from device_agent.transfer.records import Seal
from schemas.errors import SchemaError
from schemas.messages import DownloadFile
from schemas.sealing.layout import FILE_KEY, NONCE
from schemas.sealing.recipients import public_key, sealing_contradiction
from schemas.values import DigestName

_VERSION: Final = b"age-encryption.org/v1"
_X25519: Final = b"age-encryption.org/v1/X25519"
_ZERO_NONCE: Final = bytes(12)

Encrypt = Callable[[bytes, bytes], bytes]
"""Encrypts a chunk under a nonce of 12 bytes."""


@functools.cache
def can_seal() -> bool:
    """Whether PyNaCl is installed; it is not imported for that."""
    return importlib.util.find_spec("nacl") is not None


def seal_refusal(payload: DownloadFile) -> str | None:
    """Why this command's file cannot be sealed; None when it can, or when it is not to be."""
    config, options = payload.upload_config, payload.options
    if not options.encrypt_to:
        return None
    if not can_seal():
        return "this agent seals no files: PyNaCl is not installed (pip install 'backhaul[signing]')"
    if payload.pregranted or (config is not None and config.digest is DigestName.NONE):
        return "encrypt_to: each part of a sealed file needs a digest before its URL is granted"
    return sealing_contradiction(options, payload.after)


def draw_seal(recipients: Sequence[str]) -> Seal:
    """A new file key, and the header that gives it to these recipients; `SchemaError` for a key that is no key."""
    file_key = secrets.token_bytes(FILE_KEY)
    stanzas = b"".join(_stanza(file_key, recipient) for recipient in recipients)
    signed = _VERSION + b"\n" + stanzas + b"---"
    mac = hmac.digest(_derived(file_key, b"", b"header"), signed, "sha256")
    return Seal(file_key, secrets.token_bytes(NONCE), signed + b" " + _text(mac) + b"\n")


def cipher_of(seal: Seal) -> Encrypt:
    """The cipher of the chunks of one file: ChaCha20-Poly1305 (RFC 8439)."""
    from nacl.bindings import crypto_aead_chacha20poly1305_ietf_encrypt as encrypt  # noqa: PLC0415 - see the package

    key = _derived(seal.file_key, seal.nonce, b"payload")
    return lambda chunk, nonce: encrypt(chunk, None, nonce, key)


def _stanza(file_key: bytes, recipient: str) -> bytes:
    """The file key for one recipient: encrypted with what X25519 makes of a key of one use and the recipient's."""
    from nacl.bindings import crypto_aead_chacha20poly1305_ietf_encrypt as encrypt  # noqa: PLC0415 - see the package
    from nacl.bindings import crypto_scalarmult, crypto_scalarmult_base  # noqa: PLC0415
    from nacl.exceptions import CryptoError  # noqa: PLC0415

    theirs, ours = public_key(recipient), secrets.token_bytes(32)
    share = crypto_scalarmult_base(ours)
    try:
        shared = crypto_scalarmult(ours, theirs)
    except (CryptoError, RuntimeError) as error:
        text = f"{recipient!r} is a point of low order: everyone could open what is sealed for it"
        raise SchemaError(text) from error
    key = _derived(shared, share + theirs, _X25519)
    body = encrypt(file_key, None, _ZERO_NONCE, key)
    return b"-> X25519 " + _text(share) + b"\n" + _text(body) + b"\n"


def _derived(secret: bytes, salt: bytes, info: bytes) -> bytes:
    """HKDF-SHA-256 (RFC 5869), 32 bytes: one block of it."""
    extracted = hmac.digest(salt or bytes(sha256().digest_size), secret, "sha256")
    return hmac.digest(extracted, info + b"\x01", "sha256")


def _text(raw: bytes) -> bytes:
    """Base64 without padding."""
    return b64encode(raw).rstrip(b"=")
