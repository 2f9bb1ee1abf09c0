"""The folder with a fleet's roots, its list of keys, and the root key that signs them.

Rule: every change of the list has a higher version. The folder is its owner's alone.
"""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from msgspec.structs import replace

from control_plane.cli.errors import Failed, Misused
from control_plane.cli.program import program
from schemas.errors import SchemaError
from schemas.signing.canonical import SignedKind
from schemas.signing.documents import (
    MAX_ENTRIES,
    MAX_REVOKED,
    MAX_ROOT_KEYS,
    MAX_ROOTS,
    KeyEntry,
    KeyList,
    RootDocument,
    SignedDocument,
    TrustDocument,
)
from schemas.signing.ed25519 import Signer, Verifier
from schemas.signing.trust import add_signatures, advance, decode_trust, encode_trust, sign_document, trust_first

Document = TypeVar("Document", RootDocument, KeyList)

DOCUMENT: Final = "trust.json"
ROOT_KEY: Final = "root.json"
SAFE_KEY: Final = "root-for-the-safe.json"


def default_folder() -> Path:
    """The folder for the keys of this user (XDG Base Directory Specification); `Misused` without a home folder."""
    try:
        base = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    except (RuntimeError, KeyError) as error:
        text = "this user has no home folder: name one with --folder"
        raise Misused(text) from error
    return base / "backhaul" / "keys"


@dataclass(frozen=True, slots=True)
class KeyFolder:
    """One fleet's documents. `topic` is that of the keys, which the signatures cover."""

    path: Path
    topic: str

    @property
    def document(self) -> Path:
        """The file of the roots and the list."""
        return self.path / DOCUMENT

    def read(self) -> TrustDocument:
        """What is in the folder; `Misused` without it, or when it is damaged."""
        try:
            return decode_trust(self.document.read_bytes())
        except FileNotFoundError as error:
            text = f"{self.document} does not exist: `{program()} keys init` makes it"
            raise Misused(text) from error
        except (OSError, SchemaError) as error:
            text = f"{self.document}: {getattr(error, 'strerror', None) or error}"
            raise Misused(text) from error

    def begin(self, keys: Sequence[Signer], threshold: int) -> TrustDocument:
        """The first root, signed by these keys, and an empty list."""
        root = RootDocument(1, threshold, tuple(key.verifier.text for key in keys), datetime.now(UTC))
        signed = sign_document(root, self.topic, keys)
        keys_of_none = sign_document(KeyList(1, 1, datetime.now(UTC)), self.topic, keys)
        return self._written(TrustDocument((signed,), keys_of_none))

    def change(self, keys: KeyList, signers: Sequence[Signer], life: float | None = None) -> TrustDocument:
        """The list in its next version, signed by these keys; `Misused`, and no change, without room for it.

        It ends in `life` seconds, with 0 never; None: it lives as long as the list before, from now on.
        """
        _require_room("keys", keys.entries, MAX_ENTRIES)
        _require_room("revoked keys", keys.revoked, MAX_REVOKED)
        before = self.read()
        following = _following(list_of(before), life, entries=keys.entries, revoked=keys.revoked)
        return self._written(TrustDocument(before.roots, sign_document(following, self.topic, signers)))

    def rotate(self, keys: Sequence[str], threshold: int, signers: Sequence[Signer]) -> TrustDocument:
        """The next root with these public keys, and the list signed under it. `signers` are old and new keys.

        `Misused` when there is no room for it; nothing is changed then.
        """
        before = self.read()
        _require_room("root keys", keys, MAX_ROOT_KEYS)
        _require_room("roots", (*before.roots, before.roots[-1]), MAX_ROOTS)
        root = RootDocument(root_of(before).version + 1, threshold, tuple(keys), datetime.now(UTC))
        following = _following(list_of(before), None, root=root.version)
        roots = (*before.roots, sign_document(root, self.topic, signers))
        return self._written(TrustDocument(roots, sign_document(following, self.topic, signers)))

    def sign(self, signers: Sequence[Signer], life: float | None = None) -> TrustDocument:
        """The latest root and the list with further signatures; with a `life`, as in `change`, the next list."""
        before = self.read()
        latest = add_signatures(before.roots[-1], SignedKind.ROOT, self.topic, signers)
        if life is None:
            keys = add_signatures(before.keys, SignedKind.KEYS, self.topic, signers)
        else:
            keys = sign_document(_following(list_of(before), life), self.topic, signers)
        return self._written(TrustDocument((*before.roots[:-1], latest), keys))

    def missing(self, document: TrustDocument) -> str | None:
        """Why agents would refuse these documents; None when they would take them."""
        try:
            advance(trust_first(document.roots[0], self.topic), document)
        except SchemaError as error:
            return str(error)
        return None

    def _written(self, document: TrustDocument) -> TrustDocument:
        try:
            data = encode_trust(document)
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            # A new file, for no reader may see half of one; mkstemp gives it to its owner alone.
            descriptor, name = tempfile.mkstemp(dir=self.path, prefix=".trust-")
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self.document)
        except OSError as error:
            text = f"{error.filename or self.path}: {error.strerror}"
            raise Misused(text) from error
        except SchemaError as error:
            raise Failed(str(error)) from error
        return document


def root_of(document: TrustDocument) -> RootDocument:
    """The latest root."""
    return _decoded(document.roots[-1], RootDocument)


def list_of(document: TrustDocument) -> KeyList:
    """The list of keys."""
    return _decoded(document.keys, KeyList)


def kid_of(entry: KeyEntry) -> str:
    """The name of the key of an entry."""
    return Verifier.of_text(entry.public_key).kid


def _following(listed: KeyList, life: float | None, **changes: Any) -> KeyList:  # noqa: ANN401 - members of the list
    """The list after this one, made now; `life` as in `KeyFolder.change`."""
    now = datetime.now(UTC)
    if life is None:
        expires = None if listed.expires is None else now + (listed.expires - listed.issued_at)
    else:
        expires = now + timedelta(seconds=life) if life else None
    return replace(listed, version=listed.version + 1, issued_at=now, expires=expires, **changes)


def _require_room(what: str, given: Sequence[object], most: int) -> None:
    """A document above its limit could be read no more, neither from the folder nor by an agent."""
    if len(given) > most:
        text = f"a fleet has at most {most} {what}, not {len(given)}: nothing was changed"
        raise Misused(text)


def _decoded(signed: SignedDocument, kind: type[Document]) -> Document:
    try:
        document: Document = msgspec.json.decode(signed.document, type=kind)
    except ValueError as error:
        text = f"the folder holds no {kind.__name__}: {error}"
        raise Misused(text) from error
    return document
