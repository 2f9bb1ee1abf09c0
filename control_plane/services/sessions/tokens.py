"""Tokens: which of them were used, and which are revoked.

Rule: a token proves itself, so the database has only what cannot be in it: when it was used, and that it is revoked.
Each replica keeps the ids of revoked tokens and reads them again after `FRESH`: a revoked token, and every browser
that signed in with it, is refused everywhere within that time. While the database is away, the last known ids count.
"""

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import Final

from control_plane.domain.access import Principal, write_scopes
from control_plane.domain.audit.model import Act
from control_plane.services.audit.recording import record
from control_plane.services.errors import ServiceError, UnknownToken
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.database import Database, Page, Records
from control_plane.services.ports.sessions import StoredToken
from control_plane.services.sessions.service import SignedIn

FRESH: Final = 1.0
"""Seconds for which the ids of revoked tokens are not read again."""

EVERY: Final = 10.0
"""Seconds between two writes of which tokens were used."""

LATE: Final = 60.0
"""Seconds for which a token is kept after its end: a clock may differ, so it may still be accepted for a while."""

MOST_NOTED: Final = 10_000
"""The most tokens that are noted between two writes."""


class TokenService:
    """Notes, lists and revokes tokens. `longest_life` (s) is how long a token that was never seen may be valid."""

    def __init__(self, database: Database, clock: Clock, longest_life: float) -> None:
        self._database = database
        self._clock = clock
        self._longest_life = longest_life
        self._revoked: frozenset[str] = frozenset()
        self._revoked_here: set[str] = set()
        self._read_at: float | None = None
        self._reading = asyncio.Lock()
        self._noted: dict[str, StoredToken] = {}

    async def is_revoked(self, token_id: str) -> bool:
        """Whether this token is refused; `DatabaseUnavailable` before the ids were ever read."""
        if not self._is_fresh():
            async with self._reading:
                if not self._is_fresh():
                    await self._read()
        return token_id in self._revoked or token_id in self._revoked_here

    def note(self, who: SignedIn) -> None:
        """Note that a token was used; `run` writes it."""
        token_id = who.principal.token_id
        if token_id is None or (token_id not in self._noted and len(self._noted) >= MOST_NOTED):
            return
        principal = who.principal
        self._noted[token_id] = StoredToken(
            token_id=token_id,
            subject=principal.subject,
            scopes=write_scopes(principal.scopes),
            clients=principal.clients,
            expires_at=who.valid_until,
            used_at=self._clock.now(),
            address=principal.address,
        )

    async def tokens(self, _principal: Principal, page: Page) -> tuple[list[StoredToken], str | None]:
        """Tokens that are valid or revoked, and not expired; `BadInput`, `DatabaseUnavailable`."""
        await self.write_noted()
        now = self._clock.now()
        return await self._database.read(lambda records: records.tokens.list(now, page))

    async def token(self, _principal: Principal, token_id: str) -> StoredToken:
        """One token; `UnknownToken`, `DatabaseUnavailable`."""
        await self.write_noted()
        found = await self._database.read(lambda records: records.tokens.get(token_id))
        if found is None:
            raise UnknownToken(token_id)
        return found

    async def revoke(self, principal: Principal, token_id: str) -> StoredToken:
        """Refuse a token from now on, also one that was never seen; a repeat changes nothing. `DatabaseUnavailable`."""
        await self.write_noted()
        now = self._clock.now()
        unseen = StoredToken(token_id, "", None, None, now + self._longest_life)

        def work(records: Records) -> StoredToken:
            known = records.tokens.get(token_id) or unseen
            if known.revoked_at is not None:
                return known
            revoked = replace(known, revoked_at=now, revoked_by=principal.subject, reason=principal.reason)
            records.tokens.revoke(revoked)
            record(records, principal, Act.TOKEN_REVOKE, now, target=f"token:{token_id}")
            return revoked

        done = await self._database.write(work)
        # Not among `_revoked`: a read that began before the commit replaces those.
        self._revoked_here.add(token_id)
        return done

    async def run(self) -> None:
        """Write which tokens were used, until cancelled; what is noted then is written first."""
        try:
            while True:
                await asyncio.sleep(EVERY)
                # The database cannot be used now: other loops report it, and the next turn writes what is noted.
                with suppress(ServiceError):
                    await self.write_noted()
        finally:
            with suppress(ServiceError):
                await self.write_noted()

    async def write_noted(self) -> None:
        """Write what `note` noted; `DatabaseUnavailable`, and then it stays noted."""
        noted = self._noted
        if not noted:
            return
        self._noted = {}
        before = self._clock.now() - LATE

        def work(records: Records) -> None:
            records.tokens.prune(before)
            for token in noted.values():
                records.tokens.saw(token)

        try:
            await self._database.write(work)
        except (ServiceError, asyncio.CancelledError):
            self._noted = {**noted, **self._noted}
            raise

    def _is_fresh(self) -> bool:
        return self._read_at is not None and self._clock.monotonic() - self._read_at < FRESH

    async def _read(self) -> None:
        began, since = self._clock.monotonic(), self._clock.now() - LATE
        try:
            self._revoked = await self._database.read(lambda records: records.tokens.revoked(since))
        except ServiceError:
            if self._read_at is None:
                raise
        self._read_at = began
