"""The shapes of tokens.

Rule: as `api/models.py`. A token itself is never part of an answer.
"""

from typing import Annotated, Any, Final, Self

from pydantic import ConfigDict, Field

from control_plane.api.models import Instant, Output
from control_plane.domain.access import read_scopes
from control_plane.presentation import instant, known_instant
from control_plane.services.ports.sessions import StoredToken

TOKEN: Final[dict[str, Any]] = {
    "token_id": "9f2c4e6a8b0d1f35",
    "subject": "ana",
    "scopes": ["clients:read", "uploads:read"],
    "clients": "site=berlin",
    "expires_at": "2025-11-02T10:00:00.000Z",
    "used_at": "2025-11-01T10:00:00.000Z",
    "address": "192.0.2.7",
    "revoked_at": "2025-11-01T10:05:00.000Z",
    "revoked_by": "operator",
    "reason": "the laptop was stolen",
    "current": False,
}


class TokenDocument(Output):
    """A token that was used, or revoked."""

    model_config = ConfigDict(json_schema_extra={"examples": [TOKEN]})

    token_id: Annotated[str, Field(description="Its `jti`.")]
    subject: Annotated[str | None, Field(description="Null for one that was revoked before it was ever used.")]
    scopes: list[str]
    clients: Annotated[str | None, Field(description="The selector of the clients that it sees; null: all.")]
    expires_at: Instant
    used_at: Annotated[Instant | None, Field(description="When it was used last, to ten seconds.")]
    address: Annotated[str | None, Field(description="Where it was used from last.")]
    revoked_at: Instant | None
    revoked_by: str | None
    reason: str | None
    current: Annotated[bool, Field(description="Whether the caller uses it for this call.")]

    @classmethod
    def of(cls, token: StoredToken, current: str | None) -> Self:
        """One row; `current` is the id of the caller's token."""
        return cls(
            token_id=token.token_id,
            subject=token.subject or None,
            scopes=sorted(read_scopes(token.scopes)) if token.subject else [],
            clients=token.clients,
            expires_at=known_instant(token.expires_at),
            used_at=instant(token.used_at),
            address=token.address,
            revoked_at=instant(token.revoked_at),
            revoked_by=token.revoked_by,
            reason=token.reason,
            current=token.token_id == current,
        )


class TokenPage(Output):
    """Tokens, the one that expires first at the front."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"tokens": [TOKEN], "cursor": "WzE3NjIwNzc2MDAuMCwiOWYyYzRlNmE4YjBkMWYzNSJd"}]}
    )

    tokens: list[TokenDocument]
    cursor: str | None
