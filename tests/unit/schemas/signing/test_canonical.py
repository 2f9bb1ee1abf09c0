"""Canonical bytes and user properties: no two messages share signed bytes, and no other form of a signature is read.

Rule: the vectors are verified by another implementation (`cryptography`, OpenSSL) than the one that made them.
"""

import hashlib
import json
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import SchemaError
from schemas.generate.__main__ import VECTORS
from schemas.generate.vectors import vectors
from schemas.signing.canonical import (
    KID,
    SIGNATURE,
    SIGNED_ROOM,
    Signature,
    SignedKind,
    fingerprint,
    from_text,
    key_id,
    read_signature,
    signed_bytes,
    to_text,
)
from schemas.signing.ed25519 import Signer, Verifier

TOPIC = "fleet/v1/restaurant-1/command"
SIGNER = Signer(hashlib.sha256(b"canonical").digest())
MESSAGES = json.loads((VECTORS / "signing.json").read_bytes())["messages"]
signed = st.tuples(st.sampled_from(SignedKind), st.text(max_size=8), st.binary(max_size=8))


def test_the_vectors_are_fresh() -> None:
    assert {path.name: path.read_bytes() for path in VECTORS.iterdir()} == vectors()


@pytest.mark.parametrize("vector", MESSAGES, ids=lambda vector: vector["type"])
def test_openssl_verifies_each_vector(vector: dict[str, Any]) -> None:
    public = from_text(vector["public_key"], 32)
    value = from_text(vector["user_properties"][SIGNATURE], 64)
    data = bytes.fromhex(vector["signed_bytes"])
    Ed25519PublicKey.from_public_bytes(public).verify(value, data)
    kind, payload = SignedKind(vector["type"]), bytes.fromhex(vector["payload"])
    assert data == signed_bytes(kind, vector["topic"], payload)
    assert vector["user_properties"][KID] == key_id(public)


@given(one=signed, other=signed)
def test_no_two_messages_have_the_same_signed_bytes(
    one: tuple[SignedKind, str, bytes], other: tuple[SignedKind, str, bytes]
) -> None:
    assert (signed_bytes(*one) == signed_bytes(*other)) == (one == other)


def test_a_signature_fails_when_any_byte_of_the_message_changes() -> None:
    """Each byte of type, topic and payload, and each bit of the signature."""
    payload = b'{"message_id":"m1"}'
    signature = SIGNER.sign(SignedKind.COMMAND, TOPIC, payload)
    assert SIGNER.verifier.verifies(signature, SignedKind.COMMAND, TOPIC, payload)
    altered = [(SignedKind.COMMAND, TOPIC, payload[:at] + b"~" + payload[at + 1 :]) for at in range(len(payload))]
    altered += [(SignedKind.COMMAND, TOPIC[:at] + "~" + TOPIC[at + 1 :], payload) for at in range(len(TOPIC))]
    altered += [(kind, TOPIC, payload) for kind in SignedKind if kind is not SignedKind.COMMAND]
    assert not [one for one in altered if SIGNER.verifier.verifies(signature, *one)]
    flipped = [
        bytes(byte ^ (1 << bit) if at == index else byte for index, byte in enumerate(signature.value))
        for at in range(64)
        for bit in range(8)
    ]
    bad = [Signature(signature.kid, value) for value in flipped]
    assert not [one for one in bad if SIGNER.verifier.verifies(one, SignedKind.COMMAND, TOPIC, payload)]


def test_a_signature_of_another_key_fails_under_every_name() -> None:
    other = Signer(bytes(32))
    signature = other.sign(SignedKind.COMMAND, TOPIC, b"{}")
    renamed = Signature(SIGNER.kid, signature.value)
    assert not SIGNER.verifier.verifies(signature, SignedKind.COMMAND, TOPIC, b"{}")
    assert not SIGNER.verifier.verifies(renamed, SignedKind.COMMAND, TOPIC, b"{}")


def test_a_key_of_small_order_verifies_nothing() -> None:
    """Under the neutral element as a key, other implementations accept one signature for every message."""
    neutral = Verifier(b"\x01" + bytes(31))
    forged = b"\x01" + bytes(63)
    assert not neutral.verifies_bytes(forged, b"anything")
    assert not neutral.verifies_bytes(forged[:63], b"anything")


def test_the_properties_are_read_back_and_fit_into_their_room() -> None:
    signature = SIGNER.sign(SignedKind.STATUS, TOPIC, b"{}")
    properties = signature.properties()
    assert read_signature([("traceparent", "00-…"), *properties]) == signature
    assert sum(5 + len(name) + len(value) for name, value in properties) <= SIGNED_ROOM


PROPERTIES = dict(SIGNER.sign(SignedKind.STATUS, TOPIC, b"{}").properties())


@pytest.mark.parametrize(
    "properties",
    [
        None,
        [],
        [(KID, PROPERTIES[KID])],
        [(SIGNATURE, PROPERTIES[SIGNATURE])],
        [*PROPERTIES.items(), (KID, PROPERTIES[KID])],
        [*PROPERTIES.items(), (SIGNATURE, PROPERTIES[SIGNATURE])],
        [(KID, PROPERTIES[KID]), (SIGNATURE, PROPERTIES[SIGNATURE] + "==")],
        [(KID, PROPERTIES[KID]), (SIGNATURE, PROPERTIES[SIGNATURE][:-1] + "B")],
        [(KID, PROPERTIES[KID]), (SIGNATURE, "")],
        [(KID, PROPERTIES[KID]), (SIGNATURE, "ü" * 86)],
        [(KID, PROPERTIES[KID].removeprefix("ed25519:")), (SIGNATURE, PROPERTIES[SIGNATURE])],
        [(KID, "ed448:" + PROPERTIES[KID].removeprefix("ed25519:")), (SIGNATURE, PROPERTIES[SIGNATURE])],
        [("Kid", PROPERTIES[KID]), (SIGNATURE, PROPERTIES[SIGNATURE])],
    ],
)
def test_another_form_of_the_properties_is_unsigned(properties: list[tuple[str, str]] | None) -> None:
    assert read_signature(properties) is None


@given(text=st.text(max_size=50))
def test_a_text_is_read_only_in_the_form_that_it_is_written(text: str) -> None:
    try:
        data = from_text(text, 32)
    except SchemaError:
        return
    assert to_text(data) == text


def test_keys_of_another_length_are_refused() -> None:
    for make in (key_id, Verifier, Signer):
        with pytest.raises(SchemaError):
            make(bytes(31))


def test_a_fingerprint_is_the_digest_in_groups() -> None:
    assert fingerprint(bytes(32)) == "6668 7aad f862 bd77 6c8f c18b 8e9f 8e20"


def test_a_signer_never_shows_its_private_key() -> None:
    assert to_text(SIGNER.seed) not in repr(SIGNER)
    with pytest.raises(InvalidSignature):
        Ed25519PublicKey.from_public_bytes(SIGNER.verifier.public_key).verify(bytes(64), b"")
