"""Which documents are trusted, by the rules of TUF: a root signs its successor, the latest root the list of keys.

Rule: pure. A document that breaks a rule raises `Untrusted`; what was trusted before stays as it was.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Final, TypeVar

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from schemas.codec import MAX_MESSAGE_SIZE
from schemas.errors import SchemaError
from schemas.signing.canonical import Signature, SignedKind, from_text, to_text
from schemas.signing.documents import (
    DocumentSignature,
    KeyEntry,
    KeyList,
    RootDocument,
    SignedDocument,
    TrustDocument,
)
from schemas.signing.ed25519 import Signer, Verifier

Document = TypeVar("Document", RootDocument, KeyList)

_SIGNATURE_SIZE: Final = 64
_KINDS: Final = {RootDocument: SignedKind.ROOT, KeyList: SignedKind.KEYS}


class Untrusted(SchemaError):
    """A document is not signed by enough of the right keys, is older than the trusted one, or contradicts it."""


class Trust(Struct, frozen=True):
    """Trusted documents: the roots from the first (`roots`), the latest of them, and the list of keys if any came."""

    topic: str
    roots: tuple[SignedDocument, ...]
    root: RootDocument
    signed_keys: SignedDocument | None = None
    keys: KeyList | None = None
    by_kid: Mapping[str, KeyEntry] = field(default_factory=dict)

    @property
    def keys_version(self) -> int:
        """The version of the list of keys; 0 before the first."""
        return self.keys.version if self.keys else 0

    def entry(self, kid: str) -> KeyEntry | None:
        """The entry of this key; None for one that is unknown or revoked."""
        return self.by_kid.get(kid)

    def published(self) -> TrustDocument:
        """What is retained for the fleet; `SchemaError` before the first list of keys."""
        if self.signed_keys is None:
            text = "no list of keys is signed yet"
            raise SchemaError(text)
        return TrustDocument(self.roots, self.signed_keys)


def trust_first(signed: SignedDocument, topic: str, sha256: str | None = None) -> Trust:
    """Trust the first root, which came by a way that is trusted; `sha256` (hex) if only that came so.

    `topic` is the topic of the keys. `Untrusted` for another version than 1, another digest, or too few signatures.
    """
    if sha256 is not None and root_digest(signed) != sha256:
        text = "the root is another than the one whose SHA-256 was given"
        raise Untrusted(text)
    root = _read(RootDocument, signed)
    if root.version != 1:
        text = f"the first root has version 1, not {root.version}"
        raise Untrusted(text)
    _require_signatures(signed, root, SignedKind.ROOT, topic)
    return Trust(topic, (signed,), root)


def root_digest(signed: SignedDocument) -> str:
    """The SHA-256 (hex) of a root, by which an image names it."""
    return hashlib.sha256(signed.document.encode()).hexdigest()


def advance(trust: Trust, published: TrustDocument) -> Trust:
    """What is trusted after these documents; the same object when they bring nothing new.

    Each further root is signed by enough keys of the root before it and of its own; the list by enough of the latest.
    """
    before = trust
    for signed in published.roots[len(trust.roots) :]:
        trust = _next_root(trust, signed)
    keys = _read(KeyList, published.keys)
    _require_signatures(published.keys, trust.root, SignedKind.KEYS, trust.topic)
    if keys.root != trust.root.version:
        text = f"the list of keys names root {keys.root}, and {trust.root.version} is the latest"
        raise Untrusted(text)
    if trust.keys is not None:
        if (keys.root, keys.version) < (trust.keys.root, trust.keys.version):
            text = f"the list of keys has version {keys.version}: {trust.keys.version} is trusted already"
            raise Untrusted(text)
        if (keys.root, keys.version) == (trust.keys.root, trust.keys.version):
            if keys != trust.keys:
                text = f"there are two lists of keys of version {keys.version}"
                raise Untrusted(text)
            return before
    by_kid = {_verifier(one.public_key).kid: one for one in keys.entries}
    for kid in keys.revoked:
        by_kid.pop(kid, None)
    return replace(trust, signed_keys=published.keys, keys=keys, by_kid=by_kid)


def sign_document(document: RootDocument | KeyList, topic: str, signers: Iterable[Signer]) -> SignedDocument:
    """A document with the signatures of these keys."""
    text = msgspec.json.encode(document).decode()
    return add_signatures(SignedDocument(text, ()), _KINDS[type(document)], topic, signers)


def add_signatures(signed: SignedDocument, kind: SignedKind, topic: str, signers: Iterable[Signer]) -> SignedDocument:
    """The document with further signatures: for keys that lie in different places."""
    held = {one.kid: one for one in signed.signatures}
    for signer in signers:
        value = signer.sign(kind, topic, signed.document.encode()).value
        held[signer.kid] = DocumentSignature(signer.kid, to_text(value))
    return SignedDocument(signed.document, tuple(held.values()))


def encode_trust(published: TrustDocument) -> bytes:
    """The payload of the topic of the keys; `SchemaError` above 128 KiB."""
    data = msgspec.json.encode(published)
    if len(data) > MAX_MESSAGE_SIZE:
        text = f"the roots and the list of keys have {len(data)} bytes: at most {MAX_MESSAGE_SIZE} are allowed"
        raise SchemaError(text)
    return data


def decode_trust(data: bytes) -> TrustDocument:
    """Read the payload of the topic of the keys; `SchemaError` when it is none."""
    if len(data) > MAX_MESSAGE_SIZE:
        text = f"{len(data)} bytes are no list of keys: at most {MAX_MESSAGE_SIZE} are allowed"
        raise SchemaError(text)
    try:
        return msgspec.json.decode(data, type=TrustDocument)
    except (ValueError, RecursionError) as error:
        raise SchemaError(str(error)) from error


def _next_root(trust: Trust, signed: SignedDocument) -> Trust:
    root = _read(RootDocument, signed)
    if root.version != trust.root.version + 1:
        text = f"root {root.version} cannot follow root {trust.root.version}"
        raise Untrusted(text)
    _require_signatures(signed, trust.root, SignedKind.ROOT, trust.topic)
    _require_signatures(signed, root, SignedKind.ROOT, trust.topic)
    return replace(trust, roots=(*trust.roots, signed), root=root)


def _require_signatures(signed: SignedDocument, root: RootDocument, kind: SignedKind, topic: str) -> None:
    """Count the keys of `root` that signed: each counts once, however often it stands in the root or signs."""
    keys = {one.kid: one for one in map(_verifier, root.keys)}
    if len(keys) < root.threshold:
        text = f"root {root.version} wants {root.threshold} signatures and has {len(keys)} keys"
        raise Untrusted(text)
    good = {
        one.kid
        for one in signed.signatures
        if one.kid in keys and _verifies(keys[one.kid], one, kind, topic, signed.document.encode())
    }
    if len(good) < root.threshold:
        text = f"{len(good)} of {root.threshold} keys of root {root.version} signed the {kind}"
        raise Untrusted(text)


def _verifies(key: Verifier, one: DocumentSignature, kind: SignedKind, topic: str, payload: bytes) -> bool:
    try:
        value = from_text(one.signature, _SIGNATURE_SIZE)
    except SchemaError:
        return False
    return key.verifies(Signature(one.kid, value), kind, topic, payload)


def _read(kind: type[Document], signed: SignedDocument) -> Document:
    try:
        document: Document = msgspec.json.decode(signed.document, type=kind)
    except (ValueError, RecursionError) as error:
        text = f"not a {kind.__name__}: {error}"
        raise Untrusted(text) from error
    return document


def _verifier(key: str) -> Verifier:
    try:
        return Verifier.of_text(key)
    except SchemaError as error:
        raise Untrusted(str(error)) from error
