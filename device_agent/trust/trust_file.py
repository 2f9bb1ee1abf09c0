"""The root of trust in the state folder: the roots, the list of keys, and the ratchet that expires keys.

Rule: with this file every command is verified; without it none is. A file that is damaged stops the agent, because
none would mean that unsigned commands are obeyed. It is whole after a power cut, and durable before its content counts.
"""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Literal, Self

import msgspec
from msgspec import Struct

from device_agent.errors import TrustError
from device_agent.state.atomic_file import PRIVATE_FOLDER, replace_file
from device_agent.trust.mode import TRUST_FILE
from schemas.errors import SchemaError
from schemas.signing.documents import KeyEntry, KeyList, SignedDocument, TrustDocument
from schemas.signing.trust import Trust, advance, root_digest, trust_first
from schemas.values import Instant

RATCHET_STEP: Final = timedelta(days=1)
"""How far the ratchet moves before it is written: one write a day, and one for each expiry that it passes."""

_BEGINNING: Final = datetime.fromtimestamp(0, UTC)


class _Stored(Struct, frozen=True, omit_defaults=True, kw_only=True, forbid_unknown_fields=True):
    format: Literal["backhaul-trust-v1"]
    roots: tuple[SignedDocument, ...]
    keys: SignedDocument | None = None
    ratchet: Instant | None = None


class TrustFile:
    """What this device trusts. Used by one thread; only `store_root` makes a file where there is none."""

    def __init__(self, path: Path, trust: Trust, ratchet: datetime = _BEGINNING) -> None:
        self._path = path
        self._trust = trust
        self._ratchet = self._written = ratchet
        self._unsaved = False

    @classmethod
    def open(cls, state_dir: Path, topic: str) -> Self:
        """Read the file, and verify it again; `topic` is that of the keys. `TrustError` names what is wrong with it."""
        path = state_dir / TRUST_FILE
        try:
            stored = msgspec.json.decode(path.read_bytes(), type=_Stored)
            return cls(path, _verified(stored, topic), stored.ratchet or _BEGINNING)
        except OSError as error:
            text = f"{path} cannot be read: {error.strerror}; without it nothing tells whose commands to obey"
            raise TrustError(text) from error
        except (ValueError, RecursionError) as error:
            text = (
                f"{path} is damaged: {error}. Restore it, or enroll this device again; "
                "if it is deleted, commands are obeyed without a signature"
            )
            raise TrustError(text) from error

    @classmethod
    def store_root(cls, state_dir: Path, topic: str, signed_root: SignedDocument, sha256: str | None = None) -> Self:
        """Trust a first root, durable on return; one that is stored already stays.

        `sha256` (hex) is what this device has of the root, if only that came by a trusted way. `TrustError` for
        another root than the stored one, for one that does not verify, and when the disk does not take it.
        """
        path = state_dir / TRUST_FILE
        try:
            trust = trust_first(signed_root, topic, sha256)
        except SchemaError as error:
            raise TrustError(str(error)) from error
        if os.path.lexists(path):
            found = cls.open(state_dir, topic)
            if root_digest(found.trust.roots[0]) != root_digest(signed_root):
                text = f"{path} has another root of trust: delete it by hand to trust a new one"
                raise TrustError(text)
            return found
        made = cls(path, trust)
        try:
            state_dir.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
            made.save()
        except OSError as error:
            text = f"{path} cannot be written: {error.strerror}"
            raise TrustError(text) from error
        return made

    @property
    def trust(self) -> Trust:
        """The documents that are trusted."""
        return self._trust

    @property
    def folder(self) -> Path:
        """The state folder."""
        return self._path.parent

    @property
    def ratchet(self) -> datetime:
        """The latest instant that a trusted signature has shown."""
        return self._ratchet

    @property
    def unsaved(self) -> bool:
        """Whether the disk has not taken what is trusted; the next documents, or the next instant, try again."""
        return self._unsaved

    def advance(self, published: TrustDocument) -> bool:
        """Take newer documents; whether they bring anything. `Untrusted` for those that break a rule.

        On a disk that fails they count all the same, because they may revoke a key: they are `unsaved`.
        """
        after = advance(self._trust, published)
        if after is self._trust:
            if self._unsaved:
                self._try_to_save()
            return False
        self._trust = after
        if after.keys is not None:
            self._ratchet = max(self._ratchet, after.keys.issued_at)
        self._try_to_save()
        return True

    def passed(self, instant: datetime) -> None:
        """Move the ratchet: a trusted signature is of this instant. Written once a day, and when it expires a key."""
        if instant <= self._ratchet:
            return
        self._ratchet = instant
        if self._unsaved or instant - self._written >= RATCHET_STEP or self._expires_one(self._written, instant):
            self._try_to_save()

    def entry(self, kid: str) -> tuple[KeyEntry, KeyList] | None:
        """The entry of a key and its list; None for a key that is unknown, revoked or expired."""
        entry, keys = self._trust.entry(kid), self._trust.keys
        if entry is None or keys is None or self._is_over(entry.expires) or self._is_over(keys.expires):
            return None
        return entry, keys

    def save(self) -> None:
        """Write the file; `OSError` when the disk does not take it."""
        stored = _Stored(
            format="backhaul-trust-v1",
            roots=self._trust.roots,
            keys=self._trust.signed_keys,
            ratchet=None if self._ratchet == _BEGINNING else self._ratchet,
        )
        replace_file(self._path, [msgspec.json.encode(stored)])
        self._written = self._ratchet
        self._unsaved = False

    def _try_to_save(self) -> None:
        try:
            self.save()
        except OSError:
            self._unsaved = True

    def _is_over(self, expires: datetime | None) -> bool:
        return expires is not None and self._ratchet > expires

    def _expires_one(self, since: datetime, until: datetime) -> bool:
        keys = self._trust.keys
        ends = () if keys is None else (keys.expires, *(one.expires for one in keys.entries))
        return any(end is not None and since <= end < until for end in ends)


def _verified(stored: _Stored, topic: str) -> Trust:
    if not stored.roots or (stored.keys is None and len(stored.roots) > 1):
        text = "it has no root, or roots without a list of keys"
        raise SchemaError(text)
    trust = trust_first(stored.roots[0], topic)
    if stored.keys is None:
        return trust
    return advance(trust, TrustDocument(stored.roots, stored.keys))
