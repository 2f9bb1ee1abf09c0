"""Tokens of an OpenID provider: access tokens after RFC 9068, verified with the keys that the provider publishes.

Rule: which key verifies is decided by `kid`, and which algorithm by the key alone, never by the token (RFC 8725 section
3.1). A token without `scope` has no right here: the provider gives rights, or there are none. Its subject is another
caller than the one of the same name with a token of `JWT_SECRET`: who owns a job, and who approves it, depends on it.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, Final
from urllib.parse import urlsplit

import jwt

from control_plane.api.auth import LEEWAY, OF_ISSUER, Unauthorized, judged
from control_plane.services.errors import Transient
from control_plane.services.ports.clock import Clock
from control_plane.services.sessions.service import SignedIn
from schemas.environment import is_loopback

DISCOVERY: Final = "/.well-known/openid-configuration"
FRESH: Final = 600.0
"""Seconds after which the keys are read again: a key that the provider removed is refused from then on."""

PAUSE: Final = 30.0
"""Seconds between two reads for a key that is not known, and after a read that failed."""

LONGEST: Final = 86_400.0
"""Seconds for which the last known keys count while the provider cannot be reached."""

MIN_RSA_BITS: Final = 2_048
TYPES: Final = frozenset({"at+jwt", "application/at+jwt"})
_MAX_KEYS: Final = 100
_OPTIONS: Final[Any] = {"require": ["exp", "iat", "aud", "sub", "iss", "jti"]}
_ALGORITHMS: Final[Mapping[tuple[str, str | None], str]] = {
    ("OKP", "Ed25519"): "EdDSA",
    ("EC", "P-256"): "ES256",
    ("RSA", None): "RS256",
}

Fetch = Callable[[str], Awaitable[bytes]]
"""Reads a document at a URL; `Transient` when that fails."""


class Issuer:
    """The provider at the URL `issuer`. `audience` is what its tokens must be for, `max_lifetime` their longest (s)."""

    def __init__(self, issuer: str, audience: str, max_lifetime: float, clock: Clock, fetch: Fetch) -> None:
        self._issuer = issuer
        self._audience = audience
        self._max_lifetime = max_lifetime
        self._clock = clock
        self._fetch = fetch
        self._keys: Mapping[str, jwt.PyJWK] = {}
        self._read_at: float | None = None
        self._tried_at: float | None = None
        self._reading = asyncio.Lock()

    async def check(self, token: str) -> SignedIn:
        """The caller that a token names, and until when; `Unauthorized`, `Transient` while no key was ever read."""
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            message = "the token is not valid here"
            raise Unauthorized(message) from error
        kid, kind = header.get("kid"), header.get("typ")
        if not isinstance(kind, str) or kind.lower() not in TYPES:
            message = "the token is no access token: its typ must be at+jwt"
            raise Unauthorized(message)
        if not isinstance(kid, str) or (key := await self._key(kid)) is None:
            message = "the token is signed with a key that its issuer does not publish"
            raise Unauthorized(message)
        found = judged(lambda: self._claims(token, key), self._max_lifetime)
        subject = f"{OF_ISSUER}{found.principal.subject}"
        return replace(found, principal=replace(found.principal, subject=subject))

    def _claims(self, token: str, key: jwt.PyJWK) -> dict[str, Any]:
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            [key.algorithm_name],
            _OPTIONS,
            audience=self._audience,
            issuer=self._issuer,
            leeway=LEEWAY,
        )
        return {"scope": "", **claims}

    async def _key(self, kid: str) -> jwt.PyJWK | None:
        if self._is_due(known=kid in self._keys):
            async with self._reading:
                if self._is_due(known=kid in self._keys):
                    await self._read()
        if self._read_at is None:
            message = "the keys of the token's issuer cannot be read now"
            raise Transient(message)
        return self._keys.get(kid)

    def _is_due(self, *, known: bool) -> bool:
        now = self._clock.monotonic()
        if self._tried_at is not None and now - self._tried_at < PAUSE:
            return False
        return not known or self._read_at is None or now - self._read_at >= FRESH

    async def _read(self) -> None:
        now = self._tried_at = self._clock.monotonic()
        try:
            self._keys = await self._published()
            self._read_at = now
        except Transient:
            if self._read_at is not None and now - self._read_at >= LONGEST:
                self._keys = {}

    async def _published(self) -> Mapping[str, jwt.PyJWK]:
        found = _object(await self._fetch(self._issuer.rstrip("/") + DISCOVERY))
        address = found.get("jwks_uri")
        if found.get("issuer") != self._issuer or not isinstance(address, str) or not is_safe(address):
            message = "the provider's discovery document names another issuer, or no keys at an https:// URL"
            raise Transient(message)
        keys = _object(await self._fetch(address)).get("keys")
        rows = keys[:_MAX_KEYS] if isinstance(keys, list) else []
        return {kid: key for row in rows if (key := usable(row)) is not None and (kid := key.key_id) is not None}


def is_safe(url: str) -> bool:
    """Whether a provider's document may be read there: with TLS, or on this machine."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    named = bool(host) and "@" not in parts.netloc
    return named and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host)))


def usable(row: object) -> jwt.PyJWK | None:
    """The key of one row of a JWK set, bound to its one algorithm; None for a key that signs no token here."""
    if not isinstance(row, dict) or row.get("use", "sig") != "sig" or "k" in row:
        return None
    kind, curve = row.get("kty"), row.get("crv")
    algorithm = _ALGORITHMS.get((kind, curve)) if isinstance(kind, str) and isinstance(curve, str | None) else None
    if algorithm is None or row.get("alg", algorithm) != algorithm:
        return None
    # Only the public part: a provider that publishes a private key has lost it.
    public = {name: row[name] for name in ("kty", "crv", "x", "y", "n", "e", "kid") if name in row}
    try:
        key = jwt.PyJWK(public, algorithm)
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    weak = kind == "RSA" and key.key.key_size < MIN_RSA_BITS
    return None if weak or "d" in row or not isinstance(key.key_id, str) else key


def _object(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        message = "the provider's document is no JSON"
        raise Transient(message) from error
    if not isinstance(found, dict):
        message = "the provider's document is no JSON object"
        raise Transient(message)
    return found
