"""Roots and lists of keys, by the rules of TUF: forged, old, unsigned and contradicting documents are refused.

Rule: each refusal leaves what was trusted as it was; a `Trust` is never changed in place.
"""

import hashlib
import json
from datetime import UTC, datetime

import msgspec
import pytest

from schemas.errors import SchemaError
from schemas.generate.__main__ import VECTORS
from schemas.signing.canonical import SignedKind
from schemas.signing.documents import (
    KeyEntry,
    KeyList,
    KeyRole,
    RootDocument,
    SignedDocument,
    TrustDocument,
)
from schemas.signing.ed25519 import Signer
from schemas.signing.trust import (
    Trust,
    Untrusted,
    add_signatures,
    advance,
    decode_trust,
    encode_trust,
    root_digest,
    sign_document,
    trust_first,
)

TOPIC = "fleet/v1/control-plane/keys"
MADE = datetime(2026, 1, 1, tzinfo=UTC)
A, B, C, D, COMMAND = (Signer(hashlib.sha256(name).digest()) for name in (b"a", b"b", b"c", b"d", b"command"))
THIEF = Signer(hashlib.sha256(b"thief").digest())


def root(version: int, *keys: Signer, threshold: int = 1) -> RootDocument:
    return RootDocument(version, threshold, tuple(one.verifier.text for one in keys), MADE)


def keys(version: int, root_version: int = 1, key: Signer = COMMAND, revoked: tuple[str, ...] = ()) -> KeyList:
    entry = KeyEntry(key.verifier.text, "control-plane", (KeyRole.COMMAND,), ("/**",), ("control-plane",))
    return KeyList(root_version, version, MADE, (entry,), revoked)


ROOT_1 = sign_document(root(1, A, B), TOPIC, [A])
KEYS_1 = sign_document(keys(1), TOPIC, [A])


def first() -> Trust:
    return advance(trust_first(ROOT_1, TOPIC), TrustDocument((ROOT_1,), KEYS_1))


def test_a_signed_list_is_trusted_and_names_its_keys() -> None:
    trust = first()
    assert (trust.keys_version, trust.root.version) == (1, 1)
    entry = trust.entry(COMMAND.kid)
    assert entry is not None
    assert (entry.principal, trust.entry(THIEF.kid)) == ("control-plane", None)


def test_what_is_published_is_read_back() -> None:
    trust = first()
    assert decode_trust(encode_trust(trust.published())) == trust.published()
    with pytest.raises(SchemaError):
        trust_first(ROOT_1, TOPIC).published()


def test_the_same_documents_again_change_nothing() -> None:
    trust = first()
    assert advance(trust, trust.published()) is trust


def test_the_first_root_is_the_one_whose_digest_is_known() -> None:
    digest = root_digest(ROOT_1)
    assert trust_first(ROOT_1, TOPIC, digest).root.version == 1
    other = sign_document(root(1, THIEF), TOPIC, [THIEF])
    with pytest.raises(Untrusted, match="another"):
        trust_first(other, TOPIC, digest)


def test_the_first_root_has_version_1_and_enough_signatures_of_its_own() -> None:
    with pytest.raises(Untrusted, match="version 1"):
        trust_first(sign_document(root(2, A), TOPIC, [A]), TOPIC)
    with pytest.raises(Untrusted, match="0 of 1"):
        trust_first(sign_document(root(1, A), TOPIC, [THIEF]), TOPIC)


def test_a_root_of_another_topic_root_is_refused() -> None:
    with pytest.raises(Untrusted):
        trust_first(ROOT_1, "other/v1/control-plane/keys")


def test_one_key_that_signs_twice_counts_once() -> None:
    document = root(1, A, A, B, threshold=2)
    once = sign_document(document, TOPIC, [A])
    twice = SignedDocument(once.document, once.signatures * 2)
    with pytest.raises(Untrusted, match="1 of 2"):
        trust_first(twice, TOPIC)
    assert trust_first(add_signatures(once, SignedKind.ROOT, TOPIC, [B]), TOPIC).root.threshold == 2


def test_a_root_that_wants_more_signatures_than_it_has_keys_is_refused() -> None:
    with pytest.raises(Untrusted, match="wants 2"):
        trust_first(sign_document(root(1, A, threshold=2), TOPIC, [A]), TOPIC)


@pytest.mark.parametrize("signers", [[A], [C], [THIEF], [A, THIEF], [C, THIEF], []])
def test_the_next_root_is_signed_by_enough_keys_of_both(signers: list[Signer]) -> None:
    """Root 1 has A, root 2 has C and D, two of which must sign."""
    start = trust_first(sign_document(root(1, A), TOPIC, [A]), TOPIC)
    second = sign_document(root(2, C, D, threshold=2), TOPIC, signers)
    with pytest.raises(Untrusted):
        advance(start, TrustDocument((*start.roots, second), sign_document(keys(1, 2), TOPIC, [C, D])))
    good = sign_document(root(2, C, D, threshold=2), TOPIC, [A, C, D])
    trust = advance(start, TrustDocument((*start.roots, good), sign_document(keys(1, 2), TOPIC, [C, D])))
    assert trust.root.version == 2


def test_a_device_that_missed_roots_walks_through_all_of_them() -> None:
    start = first()
    second, third = sign_document(root(2, C), TOPIC, [A, C]), sign_document(root(3, D), TOPIC, [C, D])
    listed = sign_document(keys(1, 3), TOPIC, [D])
    assert advance(start, TrustDocument((ROOT_1, second, third), listed)).root.version == 3
    with pytest.raises(Untrusted, match="cannot follow"):
        advance(start, TrustDocument((ROOT_1, third), listed))


def test_a_list_of_an_earlier_root_is_refused_after_the_next() -> None:
    """A root key that was replaced because it leaked signs nothing that counts any more."""
    second = sign_document(root(2, C), TOPIC, [A, C])
    trust = advance(first(), TrustDocument((ROOT_1, second), sign_document(keys(2, 2), TOPIC, [C])))
    for document in (keys(9, 1), keys(9, 2), keys(9, 3)):
        with pytest.raises(Untrusted):
            advance(trust, TrustDocument((ROOT_1, second), sign_document(document, TOPIC, [A])))
    with pytest.raises(Untrusted, match="names root 1"):
        advance(trust, TrustDocument((ROOT_1, second), sign_document(keys(9, 1), TOPIC, [A, C])))


def test_a_list_begins_anew_at_a_new_root() -> None:
    """Else a thief of a root key could spend all numbers, and no list could follow."""
    spent = advance(first(), TrustDocument((ROOT_1,), sign_document(keys(2**31 - 1), TOPIC, [A])))
    second = sign_document(root(2, C), TOPIC, [A, C])
    assert advance(spent, TrustDocument((ROOT_1, second), sign_document(keys(1, 2), TOPIC, [C]))).keys_version == 1


def test_an_older_list_is_refused() -> None:
    trust = advance(first(), TrustDocument((ROOT_1,), sign_document(keys(3), TOPIC, [A])))
    with pytest.raises(Untrusted, match="trusted already"):
        advance(trust, TrustDocument((ROOT_1,), KEYS_1))


def test_two_lists_of_one_version_are_refused() -> None:
    with pytest.raises(Untrusted, match="two lists"):
        advance(first(), TrustDocument((ROOT_1,), sign_document(keys(1, key=THIEF), TOPIC, [A])))


def test_a_list_that_the_root_did_not_sign_is_refused() -> None:
    for signers in ([], [THIEF], [COMMAND]):
        with pytest.raises(Untrusted, match="0 of 1"):
            advance(first(), TrustDocument((ROOT_1,), sign_document(keys(2), TOPIC, signers)))


def test_a_signature_of_a_root_does_not_pass_as_one_of_a_list() -> None:
    forged = SignedDocument(KEYS_1.document, ())
    as_root = add_signatures(forged, SignedKind.ROOT, TOPIC, [A])
    with pytest.raises(Untrusted):
        advance(trust_first(ROOT_1, TOPIC), TrustDocument((ROOT_1,), as_root))


def test_a_revoked_key_is_unknown() -> None:
    revoking = sign_document(keys(2, revoked=(COMMAND.kid,)), TOPIC, [A])
    assert advance(first(), TrustDocument((ROOT_1,), revoking)).entry(COMMAND.kid) is None


@pytest.mark.parametrize("at", range(0, len(KEYS_1.document), 7))
def test_a_list_of_which_a_character_changed_is_refused(at: int) -> None:
    text = KEYS_1.document
    altered = SignedDocument(text[:at] + chr(ord(text[at]) ^ 1) + text[at + 1 :], KEYS_1.signatures)
    with pytest.raises(Untrusted):
        advance(trust_first(ROOT_1, TOPIC), TrustDocument((ROOT_1,), altered))


@pytest.mark.parametrize("data", [b"", b"{}", b"[" * 10_000, b"x" * 131_073, b'{"roots":[],"keys":{}}'])
def test_other_bytes_are_no_documents(data: bytes) -> None:
    with pytest.raises(SchemaError):
        decode_trust(data)


def test_the_vector_is_taken_from_its_first_root() -> None:
    vector = json.loads((VECTORS / "signing.json").read_bytes())["trust"]
    published = msgspec.convert(vector["published"], TrustDocument)
    trust = advance(trust_first(published.roots[0], vector["topic"]), published)
    assert trust.entry(vector["command_key"]) is not None
