"""The shapes of the sign-in.

Rule: as `api/models.py`.
"""

import math
from typing import Annotated, Any, Final, Self

from pydantic import ConfigDict, Field, model_validator

from control_plane.api.bodies import Input
from control_plane.api.models import Instant, Output
from control_plane.presentation import instant
from control_plane.services.sessions.service import SignedIn

_SESSION: Final[dict[str, Any]] = {
    "auth": True,
    "caller": "operator",
    "valid_until": "2025-11-02T10:00:00.000Z",
    "scopes": ["clients:read", "uploads:read"],
    "clients": "site=berlin",
}
_CODE: Final[dict[str, Any]] = {"code": "pmUUHBKvkKqEpYqkNjuJbYjYgAU2pWBDFVOZ5bmBP1A", "expires_in": 60.0}
_Secret = Annotated[str, Field(min_length=1, max_length=4_096)]


class SignInBody(Input):
    """A token, or a code that `POST /session/codes` made: one of the two."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"code": _CODE["code"]}]})

    token: _Secret | None = None
    code: _Secret | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.token is None) == (self.code is None):
            message = "needs a token or a code, and not both"
            raise ValueError(message)
        return self


class SessionDocument(Output):
    """Who the caller is; `caller` is null for one that must sign in first."""

    model_config = ConfigDict(json_schema_extra={"examples": [_SESSION]})

    auth: Annotated[bool, Field(description="Whether calls need a token or a signed-in browser.")]
    caller: str | None
    valid_until: Annotated[Instant | None, Field(description="When the token or the browser's session ends.")]
    scopes: Annotated[list[str], Field(description="What the caller may do; all scopes where no token is needed.")]
    clients: Annotated[str | None, Field(description="The selector of the clients that the caller sees; null: all.")]

    @classmethod
    def of(cls, who: SignedIn, *, auth: bool) -> Self:
        """The caller; `auth` states whether the server needs a token."""
        lasts = not math.isfinite(who.valid_until)
        known = not auth or not lasts
        until = None if lasts else instant(who.valid_until)
        return cls(
            auth=auth,
            caller=who.principal.subject if known else None,
            valid_until=until,
            scopes=sorted(who.principal.scopes) if known else [],
            clients=who.principal.clients,
        )


class NewCode(Output):
    """A code that signs one browser in within `expires_in` seconds. Keep it secret."""

    model_config = ConfigDict(json_schema_extra={"examples": [_CODE]})

    code: str
    expires_in: float
