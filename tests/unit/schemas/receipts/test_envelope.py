"""The DSSE envelope and the in-toto statement, against their specifications."""

import hashlib
import json
from base64 import b64decode, b64encode
from datetime import UTC, datetime
from typing import Final

import pytest

from schemas.errors import SchemaError
from schemas.parts import MIN_CHUNK_SIZE, PartPlan
from schemas.receipts.envelope import PAYLOAD_TYPE, Envelope, decode_envelope, encode_envelope, pae, seal_payload
from schemas.receipts.statement import (
    PARTS,
    PREDICATE_TYPE,
    STATEMENT_TYPE,
    WHOLE_SHA256,
    Statement,
    Subject,
    decode_statement,
    encode_statement,
    predicate_of,
    subject_of,
)
from schemas.signing.ed25519 import Signer
from schemas.values import DigestName, UploadOptions

SIGNER: Final = Signer(bytes(range(32)))
PLAN: Final = PartPlan(7, MIN_CHUNK_SIZE)


def sha256(text: bytes) -> str:
    """A digest as the wire has it."""
    return b64encode(hashlib.sha256(text).digest()).decode()


def a_payload(path: str = "/data/a.bin") -> bytes:
    """A statement about a file of seven bytes."""
    predicate = predicate_of(
        UploadOptions(),
        DigestName.SHA256,
        PLAN,
        client_id="restaurant-1",
        upload_id="u1",
        attempt=1,
        path=path,
        proof="checksum",
        completed_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    return encode_statement(subject_of("uploads/a.bin", DigestName.SHA256, PLAN, [sha256(b"content")]), predicate)


def test_what_is_signed_is_the_encoding_that_dsse_prescribes() -> None:
    """The example of the specification."""
    assert pae(b"hello world", "http://example.com/HelloWorld") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    assert pae("é".encode(), "é") == b"DSSEv1 2 \xc3\xa9 2 \xc3\xa9"


def test_a_statement_is_an_in_toto_statement_and_reads_back() -> None:
    """With the names of the specification, whatever the path is."""
    payload = a_payload('/data/"quoted" März 東京 \\x80.bin')
    document = json.loads(payload)
    assert (document["_type"], document["predicateType"]) == (STATEMENT_TYPE, PREDICATE_TYPE)
    assert document["subject"] == [
        {"name": "uploads/a.bin", "digest": {"sha256": hashlib.sha256(b"content").hexdigest()}}
    ]
    statement = decode_statement(payload)
    assert isinstance(statement, Statement)
    assert encode_statement(statement.subject[0], statement.predicate) == payload


@pytest.mark.parametrize(
    "altered",
    [
        lambda payload: payload.replace(b'"attempt":1', b'"attempt": 1'),
        lambda payload: payload.replace(b'"attempt":1', b'"attempt":2,"attempt":1'),
        lambda payload: payload.replace(b'"attempt":1', b'"attempt":1,"more":1'),
        lambda payload: payload.replace(b"in-toto.io/Statement/v1", b"in-toto.io/Statement/v2"),
        lambda payload: payload.replace(b"/data", b"\\u002fdata"),
        lambda payload: payload + b" ",
        lambda payload: payload[:-1],
        lambda _payload: b"x" * 70_000,
    ],
)
def test_a_statement_in_any_other_form_is_refused(altered: object) -> None:
    """Two readers could understand two things."""
    assert callable(altered)
    with pytest.raises(SchemaError):
        decode_statement(altered(a_payload()))


def test_a_file_of_one_part_has_its_own_sha256_and_any_other_one_a_named_composite() -> None:
    """No digest of a part is called the object's."""
    one = subject_of("k", DigestName.SHA256, PLAN, [sha256(b"content")])
    assert one.digest == {WHOLE_SHA256: hashlib.sha256(b"content").hexdigest()}
    plan = PartPlan(MIN_CHUNK_SIZE + 1, MIN_CHUNK_SIZE)
    two = subject_of("k", DigestName.SHA256, plan, [sha256(b"1"), sha256(b"2")])
    lines = f"backhaul_parts_v1 sha256 {MIN_CHUNK_SIZE + 1} {MIN_CHUNK_SIZE}\n{sha256(b'1')}\n{sha256(b'2')}\n"
    assert two.digest == {PARTS: hashlib.sha256(lines.encode()).hexdigest()}
    md5 = subject_of("k", DigestName.MD5, PLAN, ["1B2M2Y8AsgTpgAmY7PhCfg=="])
    assert list(md5.digest) == [PARTS]


def test_an_envelope_reads_back_and_each_key_signs_the_same_bytes() -> None:
    """In the JSON of the specification."""
    payload = a_payload()
    second = Signer(bytes(32))
    first = seal_payload(payload, SIGNER.kid, SIGNER.sign_bytes(pae(payload)))
    envelope = first.with_signature(second.kid, second.sign_bytes(first.signed))
    data = encode_envelope(envelope)
    assert set(json.loads(data)) == {"payloadType", "payload", "signatures"}
    assert b64decode(json.loads(data)["payload"]) == payload
    found = decode_envelope(data)
    for signer in (SIGNER, second):
        signature = found.signature_of(signer.kid)
        assert signature is not None
        assert signer.verifier.verifies_bytes(signature, found.signed)


def test_base64_in_another_form_and_two_signatures_of_one_key_are_refused() -> None:
    """One payload has one text."""
    payload = a_payload()
    envelope = seal_payload(payload, SIGNER.kid, SIGNER.sign_bytes(pae(payload)))
    for text in (envelope.payload + "\n", envelope.payload + "====", "é", envelope.payload[:-1]):
        with pytest.raises(SchemaError):
            _ = Envelope(PAYLOAD_TYPE, text, envelope.signatures).content
    twice = envelope.with_signature(SIGNER.kid, bytes(64))
    assert twice.signature_of(SIGNER.kid) is None
    with pytest.raises(SchemaError):
        _ = Envelope("text/plain", envelope.payload, envelope.signatures).statement
    with pytest.raises(SchemaError):
        decode_envelope(b"{}")
    assert Subject("k", {}).name == "k"
