"""Ed25519 keys: what one signs, another implementation verifies, and no other key or bytes pass.

Rule: that implementation is OpenSSL (`cryptography`).
"""

import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import SchemaError
from schemas.signing.ed25519 import Signer, Verifier, from_text, to_text

SIGNER = Signer(hashlib.sha256(b"a test key").digest())
DATA = b"backhaul/fleet/v1 1"


@given(data=st.binary(max_size=100))
def test_openssl_verifies_what_is_signed(data: bytes) -> None:
    signature = SIGNER.sign_bytes(data)
    Ed25519PublicKey.from_public_bytes(SIGNER.verifier.public_key).verify(signature, data)
    assert SIGNER.verifier.verifies_bytes(signature, data)


def test_a_signature_fails_when_any_byte_of_it_or_of_what_is_signed_changes() -> None:
    signature = SIGNER.sign_bytes(DATA)
    assert SIGNER.verifier.verifies_bytes(signature, DATA)
    altered = [DATA[:at] + b"~" + DATA[at + 1 :] for at in range(len(DATA))]
    assert not [one for one in altered if SIGNER.verifier.verifies_bytes(signature, one)]
    flipped = [
        bytes(byte ^ (1 << bit) if at == index else byte for index, byte in enumerate(signature))
        for at in range(64)
        for bit in range(8)
    ]
    assert not [one for one in flipped if SIGNER.verifier.verifies_bytes(one, DATA)]
    assert not SIGNER.verifier.verifies_bytes(Signer(bytes(32)).sign_bytes(DATA), DATA)


def test_a_key_of_small_order_verifies_nothing() -> None:
    """Under the neutral element as a key, other implementations accept one signature for every message."""
    neutral = Verifier(b"\x01" + bytes(31))
    forged = b"\x01" + bytes(63)
    assert not neutral.verifies_bytes(forged, b"anything")
    assert not neutral.verifies_bytes(forged[:63], b"anything")


@given(text=st.text(max_size=50))
def test_a_text_is_read_only_in_the_form_that_it_is_written(text: str) -> None:
    try:
        data = from_text(text, 32)
    except SchemaError:
        return
    assert to_text(data) == text


def test_a_key_is_read_back_from_its_text_and_another_length_is_refused() -> None:
    assert from_text(SIGNER.verifier.text, 32) == SIGNER.verifier.public_key
    for text in (to_text(bytes(31)), to_text(bytes(33)), f"{SIGNER.verifier.text}=", SIGNER.verifier.text[:-1] + "B"):
        with pytest.raises(SchemaError):
            from_text(text, 32)
    for make in (Verifier, Signer):
        with pytest.raises(SchemaError):
            make(bytes(31))


def test_a_signer_never_shows_its_private_key() -> None:
    assert to_text(SIGNER.seed) not in repr(SIGNER)
    assert repr(SIGNER.seed) not in repr(SIGNER)
