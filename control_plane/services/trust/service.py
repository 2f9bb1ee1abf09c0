"""The documents of trust: roots and the list of keys, as the whole fleet gets them.

Rule: the database has what is published, so that every replica publishes the same. A list is stored only if the roots
that are stored lead to it, and is never replaced by an older one. Nobody but the server's own setting, or a caller who
may do everything, chooses the first root.
"""

import asyncio
from contextlib import suppress
from typing import Final

from control_plane.domain.access import ALL, Principal
from control_plane.domain.audit.model import Act
from control_plane.domain.errors import Forbidden
from control_plane.services.audit.recording import record
from control_plane.services.errors import BadInput, ServiceError, UntrustedKeys
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.database import Database, Records
from control_plane.services.ports.log import EventLog
from control_plane.services.ports.messenger import Messenger
from control_plane.services.trust.expiry import warnings_of
from control_plane.services.trust.keyring import ControlPlaneKey
from control_plane.services.trust.ports import StoredTrust
from control_plane.services.trust.publication import Publication
from schemas.errors import SchemaError
from schemas.signing.documents import TrustDocument
from schemas.signing.trust import Trust, advance, decode_trust, encode_trust, root_digest, trust_first
from schemas.topics import CONTROL_PLANE, Topics

EVERY: Final = 2.0
"""Seconds between two looks at what another replica stored."""

WARN_EVERY: Final = 86_400.0
"""Seconds between two warnings in the log about keys that expire."""


class TrustService:
    """Stores and publishes the documents of trust. `key` is this replica's own, which the list has to name.

    With `root_sha256` (hex) no other first root is trusted, also not one that is stored already.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        log: EventLog,
        messenger: Messenger,
        topics: Topics,
        key: ControlPlaneKey,
        root_sha256: str | None = None,
    ) -> None:
        self.key: Final = key
        self._root_sha256 = root_sha256
        self._database = database
        self._clock = clock
        self._log = log
        self._topics = topics
        self._stored: StoredTrust | None = None
        self._trust: Trust | None = None
        self._reading = asyncio.Lock()
        self._publication = Publication(messenger, clock, log)
        self._warned_at = float("-inf")

    @property
    def now(self) -> float:
        """The instant (s) by which keys expire here."""
        return self._clock.now()

    @property
    def warnings(self) -> list[str]:
        """What of the published keys needs a person soon, a sentence each."""
        return warnings_of(self._trust, self._clock.now(), self.key.kid)

    @property
    def trust(self) -> Trust | None:
        """What is published, verified; None before the first list of keys."""
        return self._trust

    @property
    def stored(self) -> StoredTrust | None:
        """What is published, as it is stored."""
        return self._stored

    @property
    def problem(self) -> str | None:
        """Why devices do not get what is stored though the broker is there, and what to do; None when they do."""
        return self._publication.problem

    async def replace(self, principal: Principal, document: bytes) -> StoredTrust:
        """Store these documents and publish them; the same ones again change nothing.

        `BadInput` for other bytes than a `TrustDocument`, `UntrustedKeys` for one that is not signed by the right keys,
        of another fleet, or older than what is stored; `DatabaseUnavailable`. `Forbidden` for the first ones, unless
        the server's settings name their root or the caller has every right, for all clients.
        """
        now = self._clock.now()
        try:
            published = decode_trust(document)
        except SchemaError as error:
            raise BadInput(str(error)) from error

        def work(records: Records) -> StoredTrust:
            before = records.trust.get()
            if before is None:
                self._require_may_found(principal)
            trust = self._verified(published, before)
            keys = trust.keys
            assert keys is not None  # noqa: S101 - `advance` read it
            if before is not None and (before.root, before.version) == (keys.root, keys.version):
                return before
            text = encode_trust(trust.published()).decode()
            stored = StoredTrust(keys.root, keys.version, text, now, principal.subject)
            records.trust.save(stored)
            detail = {"root": keys.root, "version": keys.version}
            record(records, principal, Act.KEYS_PUBLISH, now, target="keys", detail=detail)
            return stored

        await self._database.write(work)
        await self.refresh()
        stored = self._stored
        assert stored is not None  # noqa: S101 - it was stored just now
        return stored

    async def load(self) -> None:
        """Read what is stored; `DatabaseUnavailable`, `UntrustedKeys` for keys of another fleet."""
        # One after another: else a slow one would bring back what is older.
        async with self._reading:
            await self._load()

    async def _load(self) -> None:
        known = (0, 0) if self._stored is None else (self._stored.root, self._stored.version)

        def work(records: Records) -> StoredTrust | None:
            return None if records.trust.version() == known else records.trust.get()

        stored = await self._database.read(work)
        if stored is not None:
            self._trust = self._of_this_fleet(stored)
            self._stored = stored
            if self._trust.entry(self.key.kid) is None:
                # Signed devices drop its commands without an answer, so this line is the only sign of it.
                self._log("keys.unlisted", {"kid": self.key.kid, "version": stored.version})

    async def refresh(self) -> None:
        """Read what is stored, and publish what is new."""
        await self.load()
        if self._stored is not None:
            await self._publication.look(self._stored)

    async def publish(self) -> None:
        """Publish what is stored, as after each connect; without a broker the next connect does it."""
        if self._stored is not None:
            await self._publication.publish(self._stored)

    async def run(self) -> None:
        """Follow what other replicas store, until cancelled."""
        while True:
            await asyncio.sleep(EVERY)
            # The database cannot be used now: other loops report it.
            with suppress(ServiceError):
                await self.refresh()
            self.warn()

    def warn(self) -> None:
        """Write what `warnings` has to the log, at most once a day."""
        now = self._clock.monotonic()
        if now - self._warned_at < WARN_EVERY:
            return
        if found := self.warnings:
            self._warned_at = now
            self._log("keys.expiring", {"problems": len(found), "first": found[0]})

    def lists_witness(self, public_key: str) -> bool:
        """Whether a list that is more than the database's word has this key (text form) for the control plane.

        None is more than that without `root_sha256`: who writes to the database chooses the root, and so the list.
        """
        keys = None if self._root_sha256 is None or self._trust is None else self._trust.keys
        return keys is not None and any(
            one.public_key == public_key and CONTROL_PLANE in one.owners for one in keys.entries
        )

    def _require_may_found(self, principal: Principal) -> None:
        """The first root decides for ever whose commands new devices obey: one right of a token is not enough."""
        if self._root_sha256 is None and (principal.scopes != ALL or principal.clients is not None):
            text = (
                "the first root of trust needs a token with every right, for all clients, "
                "or TRUST_ROOT in the settings of the control plane"
            )
            raise Forbidden(text)

    def _of_this_fleet(self, stored: StoredTrust) -> Trust:
        try:
            return self._verified(decode_trust(stored.document.encode()), None)
        except (SchemaError, UntrustedKeys) as error:
            text = (
                f"the keys in the database are not of the fleet {self._topics.root!r}: {error}. "
                "Set TOPIC_ROOT and TRUST_ROOT to what they were when they were published, or use another database"
            )
            raise UntrustedKeys(text) from error

    def _verified(self, published: TrustDocument, before: StoredTrust | None) -> Trust:
        topic = self._topics.keys()
        try:
            if before is None:
                return advance(trust_first(published.roots[0], topic, self._root_sha256), published)
            known = decode_trust(before.document.encode())
            if [root_digest(one) for one in published.roots[: len(known.roots)]] != list(map(root_digest, known.roots)):
                text = "these keys have other roots than those that are published: they are of another fleet, or older"
                raise UntrustedKeys(text)
            return advance(advance(trust_first(known.roots[0], topic), known), published)
        except SchemaError as error:
            raise UntrustedKeys(str(error)) from error
