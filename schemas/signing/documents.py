"""The documents of the fleet's trust: the root, the list of keys, and both as they are published.

Rule: shapes only, as in `schemas.messages`; `schemas.signing.trust` decides what is accepted.
"""

from enum import StrEnum
from typing import Annotated, Final

from msgspec import Meta, Struct

from schemas.values import Instant

MAX_ROOT_KEYS: Final = 16
MAX_ROOTS: Final = 64
MAX_ENTRIES: Final = 256
MAX_REVOKED: Final = 512
MAX_GLOBS: Final = 64

Version = Annotated[int, Meta(ge=1, le=2**31 - 1)]
KeyText = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{43}\Z")]
SignatureText = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{86}\Z")]
KidText = Annotated[str, Meta(pattern=r"^ed25519:[A-Za-z0-9_-]{22}\Z")]
Name = Annotated[str, Meta(min_length=1, max_length=64)]
Glob = Annotated[str, Meta(min_length=1, max_length=4096)]


class KeyRole(StrEnum):
    """What a key in the list may sign: new work and its cancellation, or grants of URLs and the end of an upload."""

    COMMAND = "command"
    TRANSFER = "transfer"


class RootDocument(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The keys that sign the list of keys and the next root, and how many of them must sign."""

    version: Version
    threshold: Annotated[int, Meta(ge=1, le=MAX_ROOT_KEYS)]
    keys: Annotated[tuple[KeyText, ...], Meta(min_length=1, max_length=MAX_ROOT_KEYS)]
    issued_at: Instant
    expires: Instant | None = None


class KeyEntry(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One key that agents obey: in whose name, for which paths, and for uploads of which owners.

    `paths` are globs (schemas.globs); `owners` are names of owners, `*` stands for any text.
    """

    public_key: KeyText
    principal: Name
    roles: Annotated[tuple[KeyRole, ...], Meta(min_length=1, max_length=2)]
    paths: Annotated[tuple[Glob, ...], Meta(max_length=MAX_GLOBS)]
    owners: Annotated[tuple[Name, ...], Meta(max_length=MAX_GLOBS)]
    expires: Instant | None = None


class KeyList(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The keys that agents obey. Lists are ordered by `(root, version)`; `root` is the version of the signing root."""

    root: Version
    version: Version
    issued_at: Instant
    entries: Annotated[tuple[KeyEntry, ...], Meta(max_length=MAX_ENTRIES)] = ()
    revoked: Annotated[tuple[KidText, ...], Meta(max_length=MAX_REVOKED)] = ()
    expires: Instant | None = None


class DocumentSignature(Struct, frozen=True):
    """One signature of a document."""

    kid: KidText
    signature: SignatureText


class SignedDocument(Struct, frozen=True):
    """A document as the text that was signed, and its signatures: nothing needs to be written the same way twice."""

    document: Annotated[str, Meta(max_length=128 * 1024)]
    signatures: Annotated[tuple[DocumentSignature, ...], Meta(max_length=2 * MAX_ROOT_KEYS)]


class TrustDocument(Struct, frozen=True):
    """What is retained on the topic of the keys: every root since the first, and the list of keys."""

    roots: Annotated[tuple[SignedDocument, ...], Meta(min_length=1, max_length=MAX_ROOTS)]
    keys: SignedDocument
