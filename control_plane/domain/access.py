"""The caller of a use case: its first argument, and what it may do.

Rule: every entry point (REST, CLI, a page) builds a `Principal`; no use case reads a token or a header. Scopes are
checked at the entry point; `clients` is applied by the use cases, since only they know which rows a call touches.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from control_plane.domain.errors import Forbidden
from control_plane.domain.selectors import parse


class Scope(StrEnum):
    """One right of a token. A right to write does not include the right to read."""

    CLIENTS_READ = "clients:read"
    CLIENTS_ADMIN = "clients:admin"
    FILES_LIST = "files:list"
    UPLOADS_READ = "uploads:read"
    UPLOADS_WRITE = "uploads:write"
    OBJECTS_READ = "objects:read"
    JOBS_READ = "jobs:read"
    JOBS_WRITE = "jobs:write"
    DEVICES_ADMIN = "devices:admin"
    AUDIT_READ = "audit:read"
    METRICS_READ = "metrics:read"


ALL: Final = frozenset(Scope)
"""Every right: that of a token without the claim `scope`."""


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated caller. `subject` names it in logs and scopes its idempotency keys.

    `clients` is the text of a selector over labels: the caller sees and touches only the clients that it selects; None:
    all of them. `token_id` is the `jti` of the token; `address` is where the call came from, and `reason` why it was
    made, as the caller wrote it. `SelectorError` for a text that is no selector.
    """

    subject: str
    scopes: frozenset[Scope] = ALL
    clients: str | None = None
    token_id: str | None = None
    address: str | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        if self.clients is not None:
            parse(self.clients)


def read_scopes(text: str | None) -> frozenset[Scope]:
    """The scopes in a text with spaces between (RFC 8693); all of them without a text. Other text gives no right."""
    if text is None:
        return ALL
    words = frozenset(text.split())
    return frozenset(scope for scope in Scope if scope in words)


def write_scopes(scopes: frozenset[Scope]) -> str | None:
    """The text that `read_scopes` reads; None for all scopes."""
    return None if scopes == ALL else " ".join(sorted(scopes))


ANONYMOUS: Final = Principal("anonymous")
"""The caller when authentication is off."""


def require(principal: Principal, scope: Scope) -> None:
    """`Forbidden`, with the scope's name, for a caller without this scope."""
    if scope not in principal.scopes:
        text = f"this needs the scope {scope}, which the token does not have"
        raise Forbidden(text)
