"""The keys of a fleet whose messages are signed: its root, its control plane, an operator, and a thief."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from device_agent.trust.trust_file import TrustFile
from schemas.signing.documents import KeyEntry, KeyList, KeyRole, RootDocument, SignedDocument, TrustDocument
from schemas.signing.ed25519 import Signer
from schemas.signing.trust import sign_document
from schemas.topics import Topics

TOPIC: Final = Topics().keys()
MADE: Final = datetime(2026, 1, 1, tzinfo=UTC)
DAY: Final = timedelta(days=1)


def key(name: str) -> Signer:
    """The key of this name: the same in each test."""
    return Signer(hashlib.sha256(name.encode()).digest())


ROOT, NEXT_ROOT, PLANE, ALICE, BOB, THIEF = map(key, ("root", "next root", "plane", "alice", "bob", "thief"))
BOTH: Final = (KeyRole.COMMAND, KeyRole.TRANSFER)


def entry(
    signer: Signer = PLANE,
    principal: str = "control-plane",
    roles: tuple[KeyRole, ...] = BOTH,
    paths: tuple[str, ...] = ("/**",),
    owners: tuple[str, ...] = ("control-plane",),
    expires: datetime | None = None,
) -> KeyEntry:
    """The entry of the control plane's key, with these changes."""
    return KeyEntry(signer.verifier.text, principal, roles, paths, owners, expires)


def operator(signer: Signer = ALICE, principal: str = "alice", **changes: object) -> KeyEntry:
    """The entry of an operator's key."""
    return entry(signer, principal, owners=("cli-*",), **changes)  # type: ignore[arg-type]


def keys_of(
    *entries: KeyEntry,
    version: int = 1,
    root: int = 1,
    revoked: tuple[str, ...] = (),
    issued_at: datetime = MADE,
    expires: datetime | None = None,
) -> KeyList:
    """A list of keys."""
    return KeyList(root, version, issued_at, entries, revoked, expires)


def root_of(version: int = 1, *signers: Signer, threshold: int = 1) -> RootDocument:
    """A root with these keys, ROOT alone by default."""
    return RootDocument(version, threshold, tuple(one.verifier.text for one in signers or (ROOT,)), MADE)


ROOT_1: Final = sign_document(root_of(), TOPIC, [ROOT])


def published(keys: KeyList, roots: Sequence[SignedDocument] = (ROOT_1,), signer: Signer = ROOT) -> TrustDocument:
    """What is retained on the topic of the keys."""
    return TrustDocument(tuple(roots), sign_document(keys, TOPIC, [signer]))


def trusting(folder: Path, *entries: KeyEntry, **changes: object) -> TrustFile:
    """The trust of a device that has the root, and a list with these entries if there are any and it has no list."""
    file = TrustFile.store_root(folder, TOPIC, ROOT_1)
    if entries and file.trust.keys is None:
        file.advance(published(keys_of(*entries, **changes)))  # type: ignore[arg-type]
    return file
