"""Sessions of browsers: a token, or a code that a caller with a token made, becomes a value that only a browser keeps.

Rule: the database has a keyed digest of each value, so its rows sign no one in, and another `JWT_SECRET` ends every
session. A session has the rights of the token that it began with, and is never valid for longer.
"""

import hmac
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

from control_plane.domain.access import Principal, read_scopes, write_scopes
from control_plane.domain.audit.model import Act
from control_plane.services.audit.recording import record
from control_plane.services.ports.clock import Clock
from control_plane.services.ports.database import Database, Records
from control_plane.services.ports.sessions import SessionKind, StoredSession

CODE_LIFE: Final = 60.0
"""Seconds in which a code signs a browser in."""

MOST_OF_CALLER: Final = 100
"""Sessions, and as many codes, that one caller may have; the next one ends the one that would end first."""

_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A caller, until an instant (s since the epoch)."""

    principal: Principal
    valid_until: float


class SessionService:
    """Begins, finds and ends sessions. `secret` None: the server needs no token, and there is no session."""

    def __init__(self, database: Database, clock: Clock, secret: str | None) -> None:
        self._database = database
        self._clock = clock
        self._secret = secret

    async def begin(self, who: SignedIn) -> str:
        """Sign a browser in; returns the value that it keeps. `DatabaseUnavailable`."""
        return await self._added(SessionKind.BROWSER, who, who.valid_until)

    async def code(self, who: SignedIn) -> str:
        """A code that signs one browser in as `who`, once, within `CODE_LIFE`. `DatabaseUnavailable`."""
        return await self._added(SessionKind.CODE, who, min(self._clock.now() + CODE_LIFE, who.valid_until))

    async def redeem(
        self, code: str, caller: Principal, check: Callable[[SignedIn], Awaitable[None]]
    ) -> tuple[SignedIn, str] | None:
        """Sign a browser in with a code: who it is, and the value that it keeps; None when the code is of no use.

        It has the address and the reason of `caller`, of whom nothing else is known. `check` raises for a
        caller that may not sign in any more, before anything is written.
        """
        if self._secret is None:
            return None
        value, digest, now = secrets.token_urlsafe(_BYTES), self._digest(SessionKind.CODE, code), self._clock.now()

        def owner_of(row: StoredSession) -> SignedIn:
            return SignedIn(_from(caller, _signed_in(row).principal), row.valid_until)

        def work(records: Records) -> SignedIn | None:
            found = records.sessions.take(digest)
            if found is None or found.expires_at <= now:
                return None
            who = owner_of(found)
            self._add(records, self._row(SessionKind.BROWSER, value, who, who.valid_until))
            record(records, who.principal, Act.SESSION_BEGIN, now)
            return who

        # Anyone may send a code: a guess costs no write.
        row = await self._row_of(digest)
        if row is None:
            return None
        await check(owner_of(row))
        who = await self._database.write(work)
        return None if who is None else (who, value)

    async def find(self, value: str) -> SignedIn | None:
        """The caller of this session; None for one that has ended or never was. `DatabaseUnavailable`."""
        if self._secret is None:
            return None
        digest = self._digest(SessionKind.BROWSER, value)
        found = await self._row_of(digest)
        if found is None or found.expires_at <= self._clock.now():
            return None
        return _signed_in(found)

    async def end(self, value: str, caller: Principal) -> None:
        """Sign a browser out, on every replica; without effect for a value that has ended. `DatabaseUnavailable`.

        The record has the address and the reason of `caller`.
        """
        digest = self._digest(SessionKind.BROWSER, value)
        if await self._row_of(digest) is not None:
            now = self._clock.now()

            def work(records: Records) -> None:
                found = records.sessions.take(digest)
                if found is not None:
                    record(records, _from(caller, _signed_in(found).principal), Act.SESSION_END, now)

            await self._database.write(work)

    async def _row_of(self, digest: str) -> StoredSession | None:
        return await self._database.read(lambda records: records.sessions.get(digest))

    async def _added(self, kind: SessionKind, who: SignedIn, expires_at: float) -> str:
        value = secrets.token_urlsafe(_BYTES)
        row, now = self._row(kind, value, who, expires_at), self._clock.now()
        act = Act.SESSION_CODE if kind is SessionKind.CODE else Act.SESSION_BEGIN

        def work(records: Records) -> None:
            self._add(records, row)
            record(records, who.principal, act, now)

        await self._database.write(work)
        return value

    def _add(self, records: Records, row: StoredSession) -> None:
        records.sessions.prune(self._clock.now())
        records.sessions.add(row)
        records.sessions.trim(row, MOST_OF_CALLER)

    def _row(self, kind: SessionKind, value: str, who: SignedIn, expires_at: float) -> StoredSession:
        principal = who.principal
        return StoredSession(
            digest=self._digest(kind, value),
            kind=kind,
            subject=principal.subject,
            expires_at=expires_at,
            valid_until=who.valid_until,
            scopes=write_scopes(principal.scopes),
            clients=principal.clients,
            token_id=principal.token_id,
        )

    def _digest(self, kind: SessionKind, value: str) -> str:
        # The kind is part of it: a code is no session.
        return hmac.digest((self._secret or "").encode(), f"{kind}:{value}".encode(), "sha256").hex()


def _from(caller: Principal, who: Principal) -> Principal:
    """The owner of a session, at the place from which this call came."""
    return replace(who, address=caller.address, reason=caller.reason)


def _signed_in(found: StoredSession) -> SignedIn:
    principal = Principal(
        found.subject, scopes=read_scopes(found.scopes), clients=found.clients, token_id=found.token_id
    )
    return SignedIn(principal, found.valid_until)
